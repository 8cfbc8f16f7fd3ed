//! What reaches the kernel, byte by byte, and what comes back.
#![expect(
    clippy::arithmetic_side_effects,
    reason = "test code: an overflow is to stop the test"
)]

use std::fs::File;
use std::os::fd::IntoRawFd;

use super::encode::{ask_version, send_request};
use super::*;
use crate::sys::request::I915Extension;
use crate::sys::uapi::amdgpu::{drm_amdgpu_gem_create_in, drm_amdgpu_info_device};
use crate::sys::uapi::drm::{drm_mode_create_dumb, drm_mode_map_dumb};
use crate::sys::uapi::i915::{
    drm_i915_gem_caching, drm_i915_gem_create, drm_i915_gem_memory_class_instance,
};
use crate::sys::uapi::xe::drm_xe_gem_create;

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// What an address in an argument points at, as the kernel would read it.
fn peek(address: u64, len: usize) -> Vec<u8> {
    let address = usize::try_from(address).unwrap();
    let source = std::ptr::with_exposed_provenance::<u8>(address);
    // SAFETY: the tests ask for what the code under test says is there, during its call.
    unsafe { std::slice::from_raw_parts(source, len) }.to_vec()
}

/// Writes there, as the kernel would.
fn poke(address: u64, bytes: &[u8]) {
    let address = usize::try_from(address).unwrap();
    let target = std::ptr::with_exposed_provenance_mut::<u8>(address);
    // SAFETY: as above, and nothing else uses the place during the call.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len()) }
}

/// Sends a request to a kernel of one command, and gives the argument that arrived and its number.
fn sent(
    mut request: Request<'_>,
    mut kernel: impl FnMut(&mut [u8]) -> io::Result<c_int>,
) -> (u32, Vec<u8>) {
    let mut all = Vec::new();
    send_request(&mut request, &mut |number, argument| {
        all.push((number, argument.to_vec()));
        kernel(argument)
    })
    .unwrap();
    assert_eq!(all.len(), 1);
    all.remove(0)
}

fn open(path: &str) -> OwnedFd {
    File::open(path).unwrap().into()
}

fn raw() -> RawFd {
    open("/dev/null").into_raw_fd()
}

#[test]
fn a_driver_is_asked_for_its_name() {
    let answer = |name: &'static [u8], said: u64| {
        ask_version(&mut |number, argument| {
            assert_eq!((number, argument.len()), (0xc040_6400, 64));
            let room = usize::try_from(u64_at(argument, 16)).unwrap();
            poke(u64_at(argument, 24), &name[..name.len().min(room)]);
            assert_eq!(argument[32..], [0; 32]);
            put(argument, 0, &3_u32.to_ne_bytes());
            put(argument, 4, &64_u32.to_ne_bytes());
            put(argument, 16, &said.to_ne_bytes());
            Ok(0)
        })
        .unwrap()
    };
    assert_eq!(answer(b"amdgpu", 6), ("amdgpu".to_owned(), (3, 64)));
    assert_eq!(answer(b"", 0).0, "");
    let long = [b'x'; 40];
    assert_eq!(
        answer(b"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", 40)
            .0
            .as_bytes(),
        &long[..32]
    );
    assert_eq!(answer(b"i915", u64::MAX).0.len(), 32);
    assert_eq!(answer(b"\xff", 1).0, "\u{fffd}");
}

#[test]
fn commands_of_every_driver() {
    let (number, bytes) = sent(Request::GemClose(7), |_| Ok(0));
    assert_eq!(
        (number, bytes.as_slice()),
        (0x4008_6409, &[7, 0, 0, 0, 0, 0, 0, 0][..])
    );

    let mut dma_buf = None;
    let request = Request::PrimeExport {
        handle: 7,
        dma_buf: &mut dma_buf,
    };
    let fd = raw();
    let (number, bytes) = sent(request, |argument| {
        put(argument, 8, &fd.to_ne_bytes());
        Ok(0)
    });
    assert_eq!((number, u32_at(&bytes, 0)), (0xc00c_642d, 7));
    let flags = libc::O_RDWR | libc::O_CLOEXEC;
    assert_eq!(u32_at(&bytes, 4), flags.cast_unsigned());
    assert_eq!(dma_buf.unwrap().as_raw_fd(), fd);

    let mut create = drm_mode_create_dumb {
        height: 3,
        width: 1024,
        bpp: 32,
        ..Default::default()
    };
    let (number, bytes) = sent(Request::CreateDumb(&mut create), |argument| {
        put(argument, 16, &9_u32.to_ne_bytes());
        put(argument, 24, &12_288_u64.to_ne_bytes());
        Ok(0)
    });
    assert_eq!(
        (number, u32_at(&bytes, 0), u32_at(&bytes, 4)),
        (0xc020_64b2, 3, 1024)
    );
    assert_eq!((create.handle, create.size), (9, 12_288));

    let mut map = drm_mode_map_dumb {
        handle: 9,
        ..Default::default()
    };
    let (number, bytes) = sent(Request::MapDumb(&mut map), |argument| {
        put(argument, 8, &0x1234_5000_u64.to_ne_bytes());
        Ok(0)
    });
    assert_eq!(
        (number, u32_at(&bytes, 0), map.offset),
        (0xc010_64b3, 9, 0x1234_5000)
    );
}

#[test]
fn questions_to_i915() {
    let mut value = 0;
    let request = Request::I915GetParam {
        param: 17,
        value: &mut value,
    };
    let (number, bytes) = sent(request, |argument| {
        poke(u64_at(argument, 8), &1_i32.to_ne_bytes());
        Ok(0)
    });
    assert_eq!((number, u32_at(&bytes, 0), value), (0xc010_6446, 17, 1));

    let (mut length, mut data) = (0, [0; 24]);
    let request = Request::I915Query {
        id: 4,
        length: &mut length,
        data: &mut data,
    };
    let (number, bytes) = sent(request, |argument| {
        let item = peek(u64_at(argument, 8), 24);
        assert_eq!(
            (u64_at(&item, 0), u32_at(&item, 8), u32_at(&item, 12)),
            (4, 24, 0)
        );
        poke(u64_at(&item, 16), &[5; 24]);
        poke(u64_at(argument, 8) + 8, &(-22_i32).to_ne_bytes());
        Ok(0)
    });
    assert_eq!(
        (number, u32_at(&bytes, 0), u32_at(&bytes, 4)),
        (0xc010_6479, 1, 0)
    );
    assert_eq!((length, data), (-22, [5; 24]));

    let request = Request::I915Query {
        id: 4,
        length: &mut length,
        data: &mut [],
    };
    sent(request, |argument| {
        let item = peek(u64_at(argument, 8), 24);
        assert_eq!((u32_at(&item, 8), u64_at(&item, 16)), (0, 0));
        Ok(0)
    });
}

#[test]
fn buffers_of_i915() {
    let mut create = drm_i915_gem_create {
        size: 5000,
        ..Default::default()
    };
    let (number, bytes) = sent(Request::I915GemCreate(&mut create), |argument| {
        put(argument, 0, &8192_u64.to_ne_bytes());
        put(argument, 8, &3_u32.to_ne_bytes());
        Ok(0)
    });
    assert_eq!((number, u64_at(&bytes, 0)), (0xc010_645b, 5000));
    assert_eq!((create.size, create.handle), (8192, 3));

    let regions = [1, 0].map(|memory_class| drm_i915_gem_memory_class_instance {
        memory_class,
        memory_instance: 0,
    });
    for extension in [
        I915Extension::SetPat(2),
        I915Extension::MemoryRegions(&regions),
    ] {
        let mut create = drm_i915_gem_create {
            size: 5000,
            ..Default::default()
        };
        let request = Request::I915GemCreateExt {
            create: &mut create,
            flags: 1,
            extension,
        };
        let (number, bytes) = sent(request, |argument| {
            let base = peek(u64_at(argument, 16), 32);
            assert_eq!(u64_at(&base, 0), 0, "no further extension");
            assert_eq!(base[12..], [0; 20]);
            if let I915Extension::SetPat(_) = extension {
                assert_eq!(u32_at(&base, 8), 2);
                let whole = peek(u64_at(argument, 16), 40);
                assert_eq!((u32_at(&whole, 32), u32_at(&whole, 36)), (2, 0));
            } else {
                assert_eq!(u32_at(&base, 8), 0);
                let whole = peek(u64_at(argument, 16), 48);
                assert_eq!((u32_at(&whole, 32), u32_at(&whole, 36)), (0, 2));
                assert_eq!(peek(u64_at(&whole, 40), 8), [1, 0, 0, 0, 0, 0, 0, 0]);
            }
            put(argument, 0, &65_536_u64.to_ne_bytes());
            put(argument, 8, &4_u32.to_ne_bytes());
            Ok(0)
        });
        assert_eq!(
            (number, u64_at(&bytes, 0), u32_at(&bytes, 12)),
            (0xc018_647c, 5000, 1)
        );
        assert_eq!((create.size, create.handle), (65_536, 4));
    }

    let set = drm_i915_gem_caching {
        handle: 3,
        caching: 1,
    };
    let (number, bytes) = sent(Request::I915SetCaching(set), |_| Ok(0));
    assert_eq!(
        (number, u32_at(&bytes, 0), u32_at(&bytes, 4)),
        (0x4008_646f, 3, 1)
    );
    let mut get = set;
    let (number, _) = sent(Request::I915GetCaching(&mut get), |argument| {
        put(argument, 4, &2_u32.to_ne_bytes());
        Ok(0)
    });
    assert_eq!((number, get.caching), (0xc008_6470, 2));

    let mut offset = 0;
    let request = Request::I915MmapOffset {
        handle: 3,
        flags: 1,
        offset: &mut offset,
    };
    let (number, bytes) = sent(request, |argument| {
        put(argument, 8, &0x1_0000_0000_u64.to_ne_bytes());
        Ok(0)
    });
    assert_eq!((number, u32_at(&bytes, 0)), (0xc020_6464, 3));
    assert_eq!((u64_at(&bytes, 16), u64_at(&bytes, 24)), (1, 0));
    assert_eq!(offset, 0x1_0000_0000);
}

#[test]
fn commands_of_xe() {
    let (mut size, mut data) = (0, [0; 16]);
    let request = Request::XeQuery {
        query: 3,
        size: &mut size,
        data: &mut data,
    };
    let (number, bytes) = sent(request, |argument| {
        poke(u64_at(argument, 16), &[6; 16]);
        Ok(0)
    });
    assert_eq!(
        (number, u32_at(&bytes, 8), u32_at(&bytes, 12)),
        (0xc028_6440, 3, 16)
    );
    assert_eq!((size, data), (16, [6; 16]));
    let request = Request::XeQuery {
        query: 3,
        size: &mut size,
        data: &mut [],
    };
    sent(request, |argument| {
        assert_eq!((u32_at(argument, 12), u64_at(argument, 16)), (0, 0));
        put(argument, 12, &96_u32.to_ne_bytes());
        Ok(0)
    });
    assert_eq!(size, 96);

    let mut create = drm_xe_gem_create {
        extensions: 0xdead,
        size: 4096,
        placement: 1,
        cpu_caching: 2,
        ..Default::default()
    };
    let (number, bytes) = sent(Request::XeGemCreate(&mut create), |argument| {
        put(argument, 28, &5_u32.to_ne_bytes());
        Ok(0)
    });
    assert_eq!(
        (number, u64_at(&bytes, 0), u64_at(&bytes, 8)),
        (0xc038_6441, 0, 4096)
    );
    assert_eq!((u32_at(&bytes, 16), u16_at(&bytes, 32)), (1, 2));
    assert_eq!(create.handle, 5);

    let mut offset = 0;
    let request = Request::XeMmapOffset {
        handle: 5,
        offset: &mut offset,
    };
    let (number, bytes) = sent(request, |argument| {
        put(argument, 16, &0x2_0000_0000_u64.to_ne_bytes());
        Ok(0)
    });
    assert_eq!(
        (number, u32_at(&bytes, 8), offset),
        (0xc028_6442, 5, 0x2_0000_0000)
    );
}

#[test]
fn commands_of_amdgpu() {
    let mut device = drm_amdgpu_info_device::default();
    let (number, bytes) = sent(Request::AmdgpuDevice(&mut device), |argument| {
        poke(u64_at(argument, 0) + 16, &143_u32.to_ne_bytes());
        Ok(0)
    });
    assert_eq!(
        (number, u32_at(&bytes, 8), u32_at(&bytes, 12)),
        (0x4020_6445, 20, 0x16)
    );
    assert_eq!(device.family, 143);

    let mut handle = 0;
    let create = drm_amdgpu_gem_create_in {
        bo_size: 4096,
        alignment: 8192,
        domains: 2,
        domain_flags: 4,
    };
    let request = Request::AmdgpuGemCreate {
        create,
        handle: &mut handle,
    };
    let (number, bytes) = sent(request, |argument| {
        argument.fill(0);
        put(argument, 0, &6_u32.to_ne_bytes());
        Ok(0)
    });
    let words = [0, 8, 16, 24].map(|at| u64_at(&bytes, at));
    assert_eq!(
        (number, words, handle),
        (0xc020_6440, [4096, 8192, 2, 4], 6)
    );

    let mut offset = 0;
    let request = Request::AmdgpuGemMmap {
        handle: 6,
        offset: &mut offset,
    };
    let (number, bytes) = sent(request, |argument| {
        put(argument, 0, &0x3_0000_0000_u64.to_ne_bytes());
        Ok(0)
    });
    assert_eq!(
        (number, u32_at(&bytes, 0), offset),
        (0xc008_6441, 6, 0x3_0000_0000)
    );

    let mut info = drm_amdgpu_gem_create_in::default();
    let request = Request::AmdgpuCreateInfo {
        handle: 6,
        info: &mut info,
    };
    let (number, bytes) = sent(request, |argument| {
        let words = [4096, 8192, 2, 8_u64].map(u64::to_ne_bytes);
        poke(u64_at(argument, 8), words.as_flattened());
        Ok(0)
    });
    assert_eq!(
        (number, u32_at(&bytes, 0), u32_at(&bytes, 4)),
        (0xc018_6450, 6, 0)
    );
    assert_eq!(u64_at(&bytes, 16), 0);
    assert_eq!(
        (info.bo_size, info.domains, info.domain_flags),
        (4096, 2, 8)
    );
}

#[test]
fn the_command_of_udmabuf() {
    let memfd = open("/dev/zero");
    let mut dma_buf = None;
    let request = Request::UdmabufCreate {
        memfd: memfd.as_fd(),
        offset: 4096,
        size: 8192,
        dma_buf: &mut dma_buf,
    };
    let fd = raw();
    let (number, bytes) = sent(request, |_| Ok(fd));
    assert_eq!((number, u32_at(&bytes, 4)), (0x4018_7542, 1));
    assert_eq!(u32_at(&bytes, 0), memfd.as_raw_fd().cast_unsigned());
    assert_eq!((u64_at(&bytes, 8), u64_at(&bytes, 16)), (4096, 8192));
    assert_eq!(dma_buf.unwrap().as_raw_fd(), fd);
}

#[test]
fn a_refused_command_gives_nothing() {
    let mut dma_buf = None;
    let mut request = Request::PrimeExport {
        handle: 7,
        dma_buf: &mut dma_buf,
    };
    let refused = send_request(&mut request, &mut |_, _| {
        Err(io::Error::from_raw_os_error(libc::ENOENT))
    });
    assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::ENOENT));
    assert!(dma_buf.is_none());
    // And one that succeeds without a descriptor.
    let mut request = Request::PrimeExport {
        handle: 7,
        dma_buf: &mut dma_buf,
    };
    let nothing = send_request(&mut request, &mut |_, _| Ok(0)).unwrap_err();
    assert_eq!(nothing.kind(), io::ErrorKind::InvalidData);
}

#[test]
fn a_number_and_an_argument_that_do_not_fit_are_not_sent() {
    let null = open("/dev/null");
    let refused = send(null.as_fd(), 0xc040_6400, &mut [0; 63]).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
    let sent = send(null.as_fd(), 0xc040_6400, &mut [0; 64]).unwrap_err();
    assert_eq!(sent.raw_os_error(), Some(libc::ENOTTY));
}

#[test]
fn only_device_nodes_of_the_right_kind_are_taken() {
    for path in ["/dev/null", "/proc/self/status", "/"] {
        let drm = DeviceFile::drm(open(path)).unwrap_err();
        assert_eq!(drm.kind(), io::ErrorKind::InvalidInput, "{path}");
        let udmabuf = DeviceFile::udmabuf(open(path)).unwrap_err();
        assert_eq!(udmabuf.kind(), io::ErrorKind::InvalidInput, "{path}");
    }
}

/// A descriptor that only names a file: whatever is sent to it comes back with EBADF.
fn deaf() -> OwnedFd {
    use rustix::fs::{Mode, OFlags};
    rustix::fs::open("/dev/null", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

#[test]
fn a_foreign_command_is_not_sent() {
    let drivers = [
        Driver::I915,
        Driver::Xe,
        Driver::Amdgpu,
        Driver::Vgem,
        Driver::Udmabuf,
        Driver::named("panthor"),
    ];
    for driver in &drivers {
        let file = DeviceFile {
            fd: Arc::new(deaf()),
            driver: driver.clone(),
            version: (0, 0),
        };
        let (mut offset, mut handle, mut value, mut size) = (0, 0, 0, 0);
        let mut dma_buf = None;
        let requests = [
            (
                Driver::I915,
                Request::I915GetParam {
                    param: 4,
                    value: &mut value,
                },
            ),
            (
                Driver::Xe,
                Request::XeQuery {
                    query: 1,
                    size: &mut size,
                    data: &mut [],
                },
            ),
            (
                Driver::Amdgpu,
                Request::AmdgpuGemCreate {
                    create: Default::default(),
                    handle: &mut handle,
                },
            ),
            (
                Driver::Amdgpu,
                Request::AmdgpuGemMmap {
                    handle: 1,
                    offset: &mut offset,
                },
            ),
            (
                Driver::Udmabuf,
                Request::UdmabufCreate {
                    memfd: file.fd.as_fd(),
                    offset: 0,
                    size: 4096,
                    dma_buf: &mut dma_buf,
                },
            ),
        ];
        for (owner, mut request) in requests {
            let refused = file.submit(&mut request).unwrap_err().raw_os_error();
            let sent = owner == *driver;
            let expected = if sent { libc::EBADF } else { libc::ENOTTY };
            assert_eq!(refused, Some(expected), "{driver}: {request:?}");
        }
        // All DRM drivers have this one.
        let refused = file.submit(&mut Request::GemClose(1)).unwrap_err();
        let drm = *driver != Driver::Udmabuf;
        let expected = if drm { libc::EBADF } else { libc::ENOTTY };
        assert_eq!(refused.raw_os_error(), Some(expected), "{driver}");
    }
}
