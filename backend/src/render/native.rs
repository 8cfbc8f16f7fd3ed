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
use super::thread::RenderThread;
use super::virgl::Virgl;
use crate::daemon::serve::StartRenderer;
use crate::sync::lock;
use crate::sys::environment;

/// The capability sets of OpenGL: VIRGL and VIRGL2.
pub(crate) const VIRGL: [CapsetId; 2] = [CapsetId(1), CapsetId(2)];
/// The capability set of Vulkan: VENUS.
pub(crate) const VENUS: CapsetId = CapsetId(4);

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

/// Starts the renderer, with the capability sets that a process of its own has shown to work. Without any
/// there is none; what does not work is logged, a line each.
fn start(gpu: &Gpu, capsets: &[CapsetId]) -> Option<Arc<RenderThread>> {
    let verdicts = proof::of_child(gpu, capsets);
    let works = |(capset, result): &(CapsetId, Result<(), String>)| match result {
        Ok(()) => Some(*capset),
        Err(why) => {
            let name = name(*capset);
            log::warn!("the capability set {name} is not offered: {why}");
            None
        }
    };
    let proven: Vec<_> = verdicts.iter().filter_map(works).collect();
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
    let descriptor = Arc::new(Mutex::new(None));
    let place = Arc::clone(&descriptor);
    let gpu = gpu.clone();
    let thread = RenderThread::start(move |fences| {
        let renderer = Virgl::start(&gpu, &capsets, fences)?;
        let polled = renderer.poll_descriptor();
        *lock(&place) = polled.map_err(|error| format!("no descriptor to poll: {error}"))?;
        Ok(Box::new(renderer))
    })?;
    if let Some(descriptor) = lock(&descriptor).take() {
        let of_poller = Arc::downgrade(&thread);
        thread::Builder::new()
            .name("renderer-poll".to_owned())
            .spawn(move || serve_polls(&descriptor, &of_poller))
            .map_err(|error| format!("cannot start the renderer's second thread: {error}"))?;
    }
    Ok(thread)
}

/// Has the renderer finish what it says is to be finished on its thread. The library's thread that
/// signals fences waits for that where queries are outstanding.
fn serve_polls(descriptor: &OwnedFd, thread: &Weak<RenderThread>) {
    loop {
        let mut polled = [PollFd::new(descriptor, PollFlags::IN)];
        match poll(&mut polled, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => {
                let error = io::Error::from(error);
                log::error!("cannot wait for the renderer, whose queries may not end: {error}");
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
