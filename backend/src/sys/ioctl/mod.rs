//! Commands to device nodes: [`Request`] put into the kernel's structures, and the answers back.
#![expect(
    unsafe_code,
    reason = "a command reads and writes memory that only its number describes"
)]

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use rustix::fs::FileType;

use super::request::{Driver, Request};

mod encode;

/// Major number of DRM devices (`DRM_MAJOR`, Documentation/admin-guide/devices.txt).
const DRM_MAJOR: u32 = 226;

/// Major number of miscellaneous devices, udmabuf among them.
const MISC_MAJOR: u32 = 10;

/// An open device node whose driver is known, so that only that driver's commands reach it.
#[derive(Debug)]
pub(crate) struct DeviceFile {
    fd: Arc<OwnedFd>,
    driver: Driver,
    version: (i32, i32),
}

impl DeviceFile {
    /// Takes over a DRM node and asks who drives it.
    ///
    /// # Errors
    /// `InvalidInput` if it is no DRM node; else what the kernel says.
    pub(crate) fn drm(fd: OwnedFd) -> io::Result<Self> {
        check_major(&fd, DRM_MAJOR)?;
        let (name, version) =
            encode::ask_version(&mut |number, argument| send(fd.as_fd(), number, argument))?;
        Ok(Self {
            fd: Arc::new(fd),
            driver: Driver::named(&name),
            version,
        })
    }

    /// Takes over the udmabuf device.
    ///
    /// # Errors
    /// `InvalidInput` if it cannot be that one.
    pub(crate) fn udmabuf(fd: OwnedFd) -> io::Result<Self> {
        check_major(&fd, MISC_MAJOR)?;
        Ok(Self {
            fd: Arc::new(fd),
            driver: Driver::Udmabuf,
            version: (0, 0),
        })
    }

    /// Who drives the device.
    pub(crate) fn driver(&self) -> &Driver {
        &self.driver
    }

    /// Major and minor version that the driver gives itself.
    pub(crate) fn version(&self) -> (i32, i32) {
        self.version
    }

    /// The descriptor: this open file description is the one that owns the handles.
    pub(crate) fn fd(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.fd)
    }

    /// Sends one command, once.
    ///
    /// # Errors
    /// `ENOTTY`, and nothing is sent, for a command of another driver; else what the kernel says.
    pub(crate) fn submit(&self, request: &mut Request<'_>) -> io::Result<()> {
        if !request.is_for(&self.driver) {
            return Err(io::Error::from_raw_os_error(libc::ENOTTY));
        }
        let fd = self.fd.as_fd();
        encode::send_request(request, &mut |number, argument| send(fd, number, argument))
    }
}

/// Checks that a descriptor is a character device of this major number.
fn check_major(fd: &OwnedFd, major: u32) -> io::Result<()> {
    let stat = rustix::fs::fstat(fd)?;
    let is_device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    if is_device && rustix::fs::major(stat.st_rdev) == major {
        Ok(())
    } else {
        Err(io::ErrorKind::InvalidInput.into())
    }
}

/// The only call: one command with its argument.
///
/// Only [`encode`] may bring arguments: see the SAFETY notes.
fn send(fd: BorrowedFd<'_>, number: u32, argument: &mut [u8]) -> io::Result<c_int> {
    if usize::try_from(encode::argument_size(number)) != Ok(argument.len()) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY:
    // - The descriptor is open for the call: it is borrowed.
    // - The kernel reads and writes as many bytes of the argument as the number says, which it has
    //   (checked above), and it is borrowed exclusively for the call. It is the bytes of a type
    //   for which any bytes are valid and none are padding (`call` in `encode`).
    // - Addresses in the argument are those that `encode` puts there, with the promise that
    //   `send_request` documents: valid for what this command does with them, for the length of
    //   this call.
    // - The number means this command: `DeviceFile::submit` lets only the commands of the driver
    //   through that the node named, and DRM's own only to nodes with DRM's major number. What else
    //   has the major number of udmabuf gets, at worst, the numbers of UDMABUF_CREATE, none of
    //   which is an address.
    let result = unsafe {
        libc::ioctl(
            fd.as_raw_fd(),
            libc::Ioctl::from(number),
            argument.as_mut_ptr(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// Takes over a descriptor that a command has just made.
fn fresh(number: RawFd) -> io::Result<OwnedFd> {
    if number < 0 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // SAFETY: `OwnedFd::from_raw_fd` needs an open descriptor without another owner. The kernel
    // opened it during the successful command before, for this process, and told nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests;
