//! Device nodes: opening them, and commands to them.

use std::fmt::Debug;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::error::{AllocError, advice_for};
use crate::sys::ioctl::DeviceFile;
use crate::sys::request::{Driver, Request};

/// How often an interrupted command is sent again. libdrm goes on for ever; here a node that never
/// gets anything done must not hold up a worker.
const RESTARTS: u32 = 1000;

/// An open device node: the kernel's, or one that tests make up.
pub(super) trait Node: Debug + Send + Sync {
    /// Who drives the device.
    fn driver(&self) -> &Driver;

    /// Major and minor version that the driver gives itself.
    fn version(&self) -> (i32, i32);

    /// The open file description that handles and offsets belong to.
    fn fd(&self) -> Arc<OwnedFd>;

    /// Sends one command, once.
    ///
    /// # Errors
    /// What the kernel says.
    fn submit(&self, request: &mut Request<'_>) -> io::Result<()>;
}

impl Node for DeviceFile {
    fn driver(&self) -> &Driver {
        self.driver()
    }

    fn version(&self) -> (i32, i32) {
        self.version()
    }

    fn fd(&self) -> Arc<OwnedFd> {
        self.fd()
    }

    fn submit(&self, request: &mut Request<'_>) -> io::Result<()> {
        self.submit(request)
    }
}

/// Sends a command, and again while it is interrupted, as libdrm's `drmIoctl` does.
///
/// # Errors
/// [`AllocError::Refused`].
pub(super) fn perform(node: &dyn Node, mut request: Request<'_>) -> Result<(), AllocError> {
    let mut restarts = 0;
    loop {
        let Err(source) = node.submit(&mut request) else {
            return Ok(());
        };
        let interrupted = matches!(
            Errno::from_io_error(&source),
            Some(Errno::INTR | Errno::AGAIN)
        );
        if !interrupted || restarts == RESTARTS {
            return Err(AllocError::Refused {
                driver: node.driver().to_string(),
                command: request.name(),
                advice: advice_for(&source),
                source,
            });
        }
        restarts = restarts.saturating_add(1);
        std::thread::yield_now();
    }
}

/// Says that a command did not do what was asked.
pub(super) fn untrue(node: &dyn Node, what: impl Into<String>) -> AllocError {
    AllocError::Untrue {
        driver: node.driver().to_string(),
        what: what.into(),
    }
}

/// Says that the driver or its device cannot do it.
pub(super) fn unsuitable(node: &dyn Node, why: impl Into<String>) -> AllocError {
    AllocError::Unsuitable {
        driver: node.driver().to_string(),
        why: why.into(),
    }
}

/// Opens a DRM node and asks who drives it.
///
/// # Errors
/// [`AllocError::Open`], [`AllocError::WrongNode`].
pub(super) fn open_drm(path: &Path) -> Result<Arc<DeviceFile>, AllocError> {
    let what = "a DRM node: name one such as /dev/dri/renderD128";
    open(path, what, DeviceFile::drm)
}

/// Opens the udmabuf device.
///
/// # Errors
/// [`AllocError::Open`], [`AllocError::WrongNode`].
pub(super) fn open_udmabuf(path: &Path) -> Result<Arc<DeviceFile>, AllocError> {
    let what = "the udmabuf device: name /dev/udmabuf";
    open(path, what, DeviceFile::udmabuf)
}

fn open(
    path: &Path,
    what: &'static str,
    take: impl FnOnce(OwnedFd) -> io::Result<DeviceFile>,
) -> Result<Arc<DeviceFile>, AllocError> {
    // NONBLOCK and NOCTTY, for a path may turn out to be anything.
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let opened = rustix::fs::open(path, flags, Mode::empty());
    opened
        .map_err(io::Error::from)
        .and_then(take)
        .map(Arc::new)
        .map_err(|source| match source.kind() {
            io::ErrorKind::InvalidInput | io::ErrorKind::IsADirectory => AllocError::WrongNode {
                path: path.to_owned(),
                what,
            },
            _ => AllocError::Open {
                path: path.to_owned(),
                advice: advice_for(&source),
                source,
            },
        })
}
