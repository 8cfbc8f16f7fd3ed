use std::fs::File;

use super::*;

fn open(path: &str) -> OwnedFd {
    File::open(path).unwrap().into()
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

#[test]
fn a_foreign_command_is_not_sent() {
    let drivers = [Driver::I915, Driver::Xe, Driver::Amdgpu, Driver::Vgem];
    for driver in drivers {
        let file = DeviceFile {
            fd: Arc::new(open("/dev/null")),
            driver: driver.clone(),
            version: (0, 0),
        };
        let (mut offset, mut handle, mut value, mut size) = (0, 0, 0, 0);
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
        ];
        for (owner, request) in requests {
            assert_eq!(request.is_for(&driver), owner == driver, "{request:?}");
        }
        let mut dma_buf = None;
        let mut create = Request::UdmabufCreate {
            memfd: file.fd.as_fd(),
            offset: 0,
            size: 4096,
            dma_buf: &mut dma_buf,
        };
        let refused = file.submit(&mut create).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ENOTTY), "{driver}");
    }
}
