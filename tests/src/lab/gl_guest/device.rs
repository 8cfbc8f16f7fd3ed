//! The devices to compare.

use serde::Serialize;

use super::super::Result;
use super::super::backend::{Backend, Kind};
use super::super::demo::ONE_MACHINE;
use super::super::gl::GlRoot;
use super::super::programs::Profile;
use super::super::qemu::Device;
use super::super::root::Root;
use super::SIZE;
use crate::peers::{Peer, Renderer, SOCKET, quoted};

/// A device, or a way to draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gl {
    /// Our daemon with virgl on software Mesa.
    Ours,
    /// QEMU's own vhost-user-gpu with virgl.
    VhostUserGpu,
    /// vhost-device-gpu of the crate registry, on virglrenderer.
    VhostDeviceGpu,
    /// QEMU's own virtio-gpu-gl in its process.
    InProcess,
    /// Our daemon without virgl: the guest's Mesa draws on the guest's processor.
    GuestSoftware,
}

impl Gl {
    /// All, in the order of reports.
    pub const ALL: [Self; 5] = [
        Self::Ours,
        Self::VhostUserGpu,
        Self::VhostDeviceGpu,
        Self::InProcess,
        Self::GuestSoftware,
    ];

    /// The name on command lines and in files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::VhostUserGpu => "vhost-user-gpu",
            Self::VhostDeviceGpu => "vhost-device-gpu",
            Self::InProcess => "in-process",
            Self::GuestSoftware => "guest-software",
        }
    }

    /// What it is, for people.
    #[must_use]
    pub fn description(self) -> &'static str {
        match self {
            Self::Ours => "nosnoop-gpu --virgl=software behind vhost-user-gpu-pci",
            Self::VhostUserGpu => "QEMU's vhost-user-gpu --virgl behind vhost-user-gpu-pci",
            Self::VhostDeviceGpu => {
                "rust-vmm's vhost-device-gpu on virglrenderer behind vhost-user-gpu-pci"
            }
            Self::InProcess => "QEMU's virtio-gpu-gl-pci in its process, SDL's offscreen display",
            Self::GuestSoftware => "nosnoop-gpu without 3D; llvmpipe in the guest",
        }
    }

    /// The device of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|device| device.name() == name)
    }

    /// QEMU's side.
    pub(super) fn device(self) -> Device {
        match self {
            Self::InProcess => Device::InProcessGl(SIZE),
            _ => Device::Gpu(Some(SIZE)),
        }
    }

    /// The root whose programs find OpenGL where they draw with it.
    pub(super) fn root(self, root: &Root, gl: &GlRoot) -> Root {
        let mut root = root.clone();
        let environment = || {
            let software = [("LIBGL_ALWAYS_SOFTWARE", "true".into())];
            gl.environment().into_iter().chain(software)
        };
        match self {
            Self::Ours | Self::VhostDeviceGpu | Self::GuestSoftware => {}
            Self::VhostUserGpu => {
                let program = root.c_backend.take();
                root.c_backend =
                    program.map(|program| program.with_more(&gl.libraries(), environment()));
            }
            Self::InProcess => {
                // SDL draws without a display server then.
                let offscreen = ["SDL_VIDEODRIVER", "SDL_VIDEO_DRIVER"];
                let offscreen = offscreen.map(|name| (name, "offscreen".into()));
                let environment = environment().chain(offscreen);
                root.qemu = root.qemu.with_more(&gl.libraries(), environment);
            }
        }
        root
    }

    /// Starts the backend.
    pub(super) fn start(self, gl: &GlRoot, root: &Root) -> Result<Backend> {
        match self {
            Self::Ours => {
                let program = gl.daemon(Profile::Release)?;
                let line = format!(
                    "{} --virgl=software --once --socket-path {SOCKET}",
                    quoted(&program)
                );
                let name = "nosnoop-gpu --virgl=software".to_owned();
                let prepared = Peer::Command { name, line }.prepare_in(root)?;
                Backend::start_prepared(&prepared)
            }
            Self::VhostUserGpu => {
                let mut prepared = Peer::VhostUserGpu.prepare_in(root)?;
                prepared.add_options(&["--virgl"]);
                Backend::start_prepared(&prepared)
            }
            Self::VhostDeviceGpu => {
                let prepared = Peer::VhostDeviceGpu(Renderer::Virgl).prepare_in(root)?;
                Backend::start_prepared(&prepared)
            }
            Self::InProcess => Backend::start(&Kind::InProcess, root, &[]),
            Self::GuestSoftware => {
                let options = [&ONE_MACHINE[..], &["--shm-size", "0"]].concat();
                Backend::start(&Kind::OURS, root, &options)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back() {
        for device in Gl::ALL {
            assert_eq!(Gl::from_name(device.name()), Some(device));
        }
    }
}
