//! Starts the native 3D renderer of this build.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};
use std::{io, thread};

use nosnoop_protocol::ids::CapsetId;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::gpu::{Gpu, GpuChoice};
use super::proof;
use super::server::RenderServer;
use super::thread::{RenderThread, Rescue};
use super::virgl::Virgl;
use super::workers::{self, Workers};
use crate::daemon::serve::StartRenderer;
use crate::sync::lock;
use crate::sys::environment;

/// The capability set of Vulkan: VENUS.
pub(crate) const VENUS: CapsetId = CapsetId(4);

/// What Vulkan needs besides virglrenderer.
pub(super) struct Vulkan {
    /// The render server and its contexts' processes.
    pub(super) workers: Arc<Workers>,
    /// virglrenderer's end of the connection to the server.
    pub(super) connection: OwnedFd,
}

impl Vulkan {
    fn start() -> Result<Self, String> {
        let (server, connection) = RenderServer::start()?;
        let workers = Workers::new(server)
            .map_err(|error| format!("cannot watch over the render server: {error}"))?;
        Ok(Self {
            workers: Arc::new(workers),
            connection,
        })
    }
}

/// Sets what the libraries find in the environment. To be called before there is a second thread.
pub(super) fn prepare(gpu: &Gpu) {
    if *gpu == Gpu::Software {
        // Mesa: no GPU, even where there is one.
        environment::set("LIBGL_ALWAYS_SOFTWARE", "1");
        // The loader of Vulkan: Mesa's driver for CPUs and no other, by its manifest's name.
        environment::set("VK_LOADER_DRIVERS_SELECT", "lvp_icd*");
    }
}

/// What starts the renderer that the operator wants, with these capability sets.
pub(crate) fn starter(
    choice: GpuChoice,
    named: Option<PathBuf>,
    capsets: Vec<CapsetId>,
) -> StartRenderer {
    StartRenderer(Arc::new(move || {
        let gpu = Gpu::choose(choice, named.as_deref()).map_err(|error| error.to_string())?;
        prepare(&gpu);
        Ok(start(&gpu, &capsets))
    }))
}

/// Starts the renderer, with the capability sets that processes of their own have shown to work: one for
/// OpenGL and one for Vulkan, as what one of them lacks is not to cost the other. Without any there is no
/// renderer; what does not work is logged, a line each.
fn start(gpu: &Gpu, capsets: &[CapsetId]) -> Option<Arc<RenderThread>> {
    let (vulkan, opengl): (Vec<_>, Vec<_>) = capsets.iter().partition(|&&id| id == VENUS);
    let groups = [opengl, vulkan]
        .into_iter()
        .filter(|group| !group.is_empty());
    let verdicts = groups.flat_map(|group| proof::of_child(gpu, &group));
    let works = |(capset, result): &(CapsetId, Result<(), String>)| match result {
        Ok(()) => Some(*capset),
        Err(why) => {
            let name = name(*capset);
            log::warn!("the capability set {name} is not offered: {why}");
            None
        }
    };
    let proven: Vec<_> = verdicts.filter_map(|verdict| works(&verdict)).collect();
    if proven.is_empty() {
        log::warn!(
            "going on with 2D only, as no 3D renderer works on {gpu}; --log-level debug says more"
        );
        return None;
    }
    let started = start_with(gpu, proven);
    started
        .map_err(|why| log::warn!("going on with 2D only: {why}"))
        .ok()
}

/// The renderer with these capability sets, as far as it has them.
pub(super) fn start_with(gpu: &Gpu, capsets: Vec<CapsetId>) -> Result<Arc<RenderThread>, String> {
    let vulkan = capsets.contains(&VENUS).then(Vulkan::start).transpose()?;
    let workers = vulkan.as_ref().map(|vulkan| Arc::clone(&vulkan.workers));
    let no_descriptor = |error| format!("no descriptor to poll: {error}");
    let mut descriptors = Vec::new();
    if let Some(workers) = &workers {
        descriptors.push(workers.poll_descriptor().map_err(no_descriptor)?);
    }
    let rescue = workers.map(|workers| Rescue {
        after: workers::LIMIT,
        act: Box::new(move || workers.rescue(workers::LIMIT)),
    });
    let descriptors = Arc::new(Mutex::new(descriptors));
    let place = Arc::clone(&descriptors);
    let gpu = gpu.clone();
    let thread = RenderThread::start_with(rescue, move |fences| {
        let renderer = Virgl::start(&gpu, &capsets, vulkan, fences)?;
        lock(&place).extend(renderer.poll_descriptor().map_err(no_descriptor)?);
        Ok(Box::new(renderer))
    })?;
    let descriptors = std::mem::take(&mut *lock(&descriptors));
    if !descriptors.is_empty() {
        let of_poller = Arc::downgrade(&thread);
        thread::Builder::new()
            .name("renderer-poll".to_owned())
            .spawn(move || serve_polls(&descriptors, &of_poller))
            .map_err(|error| format!("cannot start the renderer's second thread: {error}"))?;
    }
    Ok(thread)
}

/// Has the renderer finish what it says is to be finished on its thread. The library's thread that
/// signals fences waits for that where queries are outstanding.
fn serve_polls(descriptors: &[OwnedFd], thread: &Weak<RenderThread>) {
    loop {
        let polled = descriptors.iter().map(|it| PollFd::new(it, PollFlags::IN));
        match poll(&mut polled.collect::<Vec<_>>(), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => {
                let error = io::Error::from(error);
                log::error!(
                    "cannot wait for the renderer, whose queries may not end and whose lost \
                     contexts may not be noticed: {error}"
                );
                return;
            }
        }
        let done = thread.upgrade().map(|thread| {
            thread.call("finished queries", |renderer| {
                renderer.poll();
                Ok(())
            })
        });
        if !matches!(done, Some(Ok(()))) {
            return;
        }
    }
}

/// What people call a capability set.
fn name(capset: CapsetId) -> &'static str {
    match capset.0 {
        1 => "VIRGL",
        2 => "VIRGL2",
        4 => "VENUS",
        _ => "unknown",
    }
}
