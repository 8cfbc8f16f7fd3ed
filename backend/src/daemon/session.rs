//! One front-end connection: what the vhost-user-backend crate asks of a device.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use nosnoop_protocol::config::Features;
use vhost::vhost_user::message::{
    VhostUserProtocolFeatures, VhostUserShMemConfig, VhostUserVirtioFeatures,
};
use vhost::vhost_user::{Error as VhostUserError, GpuBackend, Listener};
use vhost_user_backend::{Error, VhostUserBackend, VhostUserDaemon};
use virtio_bindings::virtio_config::{VIRTIO_F_RING_RESET, VIRTIO_F_VERSION_1};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{
    EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier,
};

use super::ring::Ring;
use super::serve::Options;
use super::shmem::{self, ShmemChannel};
use super::tap::{Seen, Tap};
use super::worker::{QueueKind, Worker};
use crate::device::channel::Wayland;
use crate::device::{Device, SharedMemory};
use crate::display::Display;
use crate::memory::source::Source;
use crate::planted::{Bug, planted};
use crate::render::thread::RenderThread;
use crate::sync::lock;
use crate::sys::fd::close_leaked;
use crate::{GuestMemory, SharedGuestMemory};

/// Descriptors of the largest queue (virtio 1.4, "Split Virtqueues").
const MAX_QUEUE_SIZE: usize = 32_768;

/// The virtio features of the transport; the device's own are [`FEATURES`].
const RING_FEATURES: u64 = (1 << VIRTIO_F_VERSION_1)
    | (1 << VIRTIO_F_RING_RESET)
    | (1 << VIRTIO_RING_F_INDIRECT_DESC)
    | (1 << VIRTIO_RING_F_EVENT_IDX);

/// A front-end's device and its workers' state.
struct Session {
    device: Arc<Device>,
    has_renderer: bool,
    /// Maps host memory for the guest, where there is a region for it.
    channel: Option<Arc<ShmemChannel>>,
    /// Bytes of that region; 0 without one.
    shm_size: u64,
    /// The front-end may share memory region by region.
    mem_slots: bool,
    memory: SharedGuestMemory,
    /// A worker is locked while it works, so that a stop can wait for it.
    workers: [Mutex<Worker>; QueueKind::ALL.len()],
    /// The rings, from when the front-end first enabled them.
    rings: [OnceLock<Ring>; QueueKind::ALL.len()],
    /// The connection has ended.
    closed: AtomicBool,
    /// Every ring was stopped at the same time, as before a device reset.
    all_stopped: AtomicBool,
    /// The events that end the workers' threads, until the crate takes them.
    exit_events: Mutex<Vec<(EventConsumer, EventNotifier)>>,
}

/// Serves a connected front-end until it goes away or `stream` is shut down.
///
/// # Errors
/// What went wrong on the host: threads, sockets. A front-end's wrong messages end its connection
/// and are logged, not returned.
pub(super) fn run(
    stream: UnixStream,
    options: &Options,
    renderer: Option<&Arc<RenderThread>>,
    started: impl FnOnce(&Arc<Display>, Option<&Arc<Source>>),
) -> io::Result<()> {
    let display = Display::new(options.outputs.clone());
    let display = Arc::new(match options.dmabufs {
        true => display.with_dmabufs(),
        false => display,
    });
    let channel = (options.shm_size > 0).then(|| Arc::new(ShmemChannel::new(options.shm_deadline)));
    let memory = SharedGuestMemory::new(GuestMemory::new());
    let shared_memory = match &channel {
        Some(channel) => Some(SharedMemory {
            size: options.shm_size,
            mapper: Arc::<ShmemChannel>::clone(channel),
            source: Arc::new(options.source().map_err(io::Error::other)?),
            wayland: options.wayland_socket.clone().map(|socket| Wayland {
                socket,
                memory: memory.clone(),
            }),
        }),
        None => None,
    };
    started(
        &display,
        shared_memory.as_ref().map(|shared| &shared.source),
    );
    let exit_events = QueueKind::ALL
        .iter()
        .map(|_| new_event_consumer_and_notifier(EventFlag::NONBLOCK | EventFlag::CLOEXEC))
        .collect::<io::Result<Vec<_>>>()?;
    // The crate lets go of these without closing them.
    let leaked: Vec<RawFd> = exit_events
        .iter()
        .map(|(event, _)| event.as_raw_fd())
        .collect();
    let session = Arc::new(Session {
        device: Device::new(
            options.limits,
            Arc::clone(&display),
            shared_memory,
            renderer.map(Arc::clone),
        ),
        has_renderer: renderer.is_some(),
        channel,
        shm_size: options.shm_size,
        mem_slots: options.mem_slots,
        memory: memory.clone(),
        workers: QueueKind::ALL.map(|kind| Mutex::new(Worker::new(kind))),
        rings: [const { OnceLock::new() }; QueueKind::ALL.len()],
        closed: AtomicBool::new(false),
        all_stopped: AtomicBool::new(false),
        exit_events: Mutex::new(exit_events),
    });
    let result = session_loop(stream, &session, memory, &display);
    session.device.close();
    // The crate's workers have been joined with its daemon. What it has not taken closes itself.
    let taken = leaked
        .len()
        .saturating_sub(lock(&session.exit_events).len());
    leaked.into_iter().rev().take(taken).for_each(close_leaked);
    result
}

fn session_loop(
    stream: UnixStream,
    session: &Arc<Session>,
    memory: SharedGuestMemory,
    display: &Arc<Display>,
) -> io::Result<()> {
    let (on_display, on_channel) = (Arc::clone(display), session.channel.clone());
    let (tap, listener) = Tap::new(stream, move |seen| match (seen, &on_channel) {
        #[cfg(feature = "test-bugs")]
        (Seen::DisplaySocket(_), _)
            if planted(Bug::SecondDisplayIgnored) && crate::planted::again() => {}
        (Seen::DisplaySocket(socket), _) => {
            if let Err(error) = on_display.attach_socket(socket) {
                log::warn!("the front-end's display socket is not used: {error}");
            }
        }
        (Seen::ProtocolFeatures(accepted), Some(channel)) => {
            channel.set_protocol_features(accepted);
        }
        (Seen::BackendChannel(socket), Some(channel)) => {
            if let Err(error) = channel.connect(socket) {
                log::warn!("the front-end's socket for shared memory is not used: {error}");
            }
        }
        // Nothing was offered that would need them.
        (Seen::ProtocolFeatures(_) | Seen::BackendChannel(_), None) => {}
    })?;
    let name = "vhost-user".to_owned();
    let mut daemon = VhostUserDaemon::new(name, Arc::clone(session), memory)
        .map_err(|error| io::Error::other(error.to_string()))?;
    daemon
        .start(&mut Listener::from(listener))
        .map_err(|error| io::Error::other(error.to_string()))?;
    match daemon.wait() {
        // How connections end: between two messages, or in one.
        Ok(())
        | Err(Error::HandleRequest(
            VhostUserError::Disconnected | VhostUserError::PartialMessage,
        )) => {}
        Err(error) => log::warn!("the front-end's connection is given up: {error}"),
    }
    drop(tap);
    // Dropping the daemon waits for the workers. One may be waiting for the display or for the
    // front-end, and a guest that is still there could keep one busy for ever.
    display.detach();
    if let Some(channel) = &session.channel {
        channel.close();
    }
    session.close();
    Ok(())
}

impl Session {
    fn worker(&self, kind: QueueKind) -> &Mutex<Worker> {
        let [control, cursor] = &self.workers;
        match kind {
            QueueKind::Control => control,
            QueueKind::Cursor => cursor,
        }
    }

    fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.rings
            .iter()
            .filter_map(OnceLock::get)
            .for_each(Ring::close);
    }

    /// Front-ends that cannot say "reset" (`VHOST_USER_RESET_DEVICE`) stop every ring and start
    /// the control queue from the beginning. One that pauses starts it where it was, and a
    /// reset of one ring leaves the other running: neither may lose the guest's resources.
    fn reset_if_restarted(&self, control: &Ring) {
        let all_stopped = self.all_stopped.swap(false, Ordering::Relaxed);
        if control.take_rewound() && all_stopped {
            self.device.reset();
        }
    }
}

impl VhostUserBackend for Session {
    type Bitmap = ();
    type Vring = Ring;

    fn num_queues(&self) -> usize {
        QueueKind::ALL.len()
    }

    fn max_queue_size(&self) -> usize {
        MAX_QUEUE_SIZE
    }

    fn features(&self) -> u64 {
        VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
            | RING_FEATURES
            | self.device.features().bits()
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        let mut features = VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::RESET_DEVICE;
        if self.mem_slots {
            features |= VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS;
        }
        if self.channel.is_some() {
            features |= shmem::NEEDED | shmem::MEMTYPE;
        }
        features
    }

    fn acked_features(&self, features: u64) {
        self.device
            .set_accepted(Features::from_bits_truncate(features));
        let has = |feature: Features| features & feature.bits() != 0;
        if has(Features::VIRGL) && !has(Features::CONTEXT_INIT) && !self.has_renderer {
            log::warn!(
                "contexts are of no use to this guest (VIRGL without CONTEXT_INIT), and Mesa may take \
                 the device for a 3D one; start with --shm-size 0 for QEMU's vhost-user-gpu"
            );
        }
    }

    fn reset_device(&self) {
        // The rings are off, so nothing may be asked of the front-end before they run again.
        if let Some(channel) = &self.channel {
            channel.pause();
        }
        // Wait until no command is in work, then reset before the next one.
        let _workers: Vec<_> = self.workers.iter().map(lock).collect();
        self.device.reset();
    }

    fn set_event_idx(&self, _enabled: bool) {
        // The crate tells its vrings by itself.
    }

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        // Front-ends may ask for more than the struct has, to be ready for longer ones: zeros.
        let config = self.device.config().to_bytes();
        let mut answer = vec![0; usize::try_from(size).unwrap_or(0)];
        let offset = if planted(Bug::ConfigOffsetIgnored) {
            0
        } else {
            offset
        };
        let known = usize::try_from(offset)
            .ok()
            .and_then(|offset| config.get(offset..));
        for (to, from) in answer.iter_mut().zip(known.unwrap_or_default()) {
            *to = *from;
        }
        answer
    }

    fn set_config(&self, _offset: u32, _buf: &[u8]) -> io::Result<()> {
        // The one writable field, `events_clear`, clears bits that are never set here: a front-end
        // that has news of its outputs keeps that field itself.
        Ok(())
    }

    fn update_memory(&self, _memory: SharedGuestMemory) -> io::Result<()> {
        // The same handle that the workers read through, already pointing at the new table.
        #[cfg(feature = "test-bugs")]
        if planted(Bug::MemoryTableStale) {
            crate::planted::keep_first_table(&self.memory);
        }
        Ok(())
    }

    fn set_gpu_socket(&self, _display: GpuBackend) -> io::Result<()> {
        // The tap has kept a copy of the socket; see there.
        Ok(())
    }

    fn get_shmem_config(&self) -> io::Result<VhostUserShMemConfig> {
        let mut config = VhostUserShMemConfig::default();
        if self.channel.is_some()
            && let Some(size) = config
                .memory_sizes
                .get_mut(usize::from(shmem::HOST_VISIBLE))
        {
            *size = self.shm_size;
            config.nregions = 1;
        }
        Ok(config)
    }

    fn queues_per_thread(&self) -> Vec<u64> {
        QueueKind::ALL
            .iter()
            .map(|kind| 1 << (*kind as u64))
            .collect()
    }

    fn exit_event(&self, _thread_index: usize) -> Option<(EventConsumer, EventNotifier)> {
        lock(&self.exit_events).pop()
    }

    fn stop_vring(&self, queue_index: u32) -> io::Result<()> {
        if let Some(worker) = usize::try_from(queue_index)
            .ok()
            .and_then(|i| self.workers.get(i))
        {
            // The ring takes no further request; wait for the one in work.
            drop(lock(worker));
        }
        if queue_index == QueueKind::Control as u32 {
            // The front-end may be waiting for this answer before it serves any other request, so
            // parked commands cannot be waited for.
            if let Some(channel) = &self.channel {
                channel.pause();
            }
            self.device.abandon_parked();
        }
        let any_started = self
            .rings
            .iter()
            .filter_map(OnceLock::get)
            .any(Ring::started);
        self.all_stopped.store(!any_started, Ordering::Relaxed);
        Ok(())
    }

    /// Never fails: an error would end the worker's thread without a word.
    fn handle_event(
        &self,
        device_event: u16,
        _events: EventSet,
        vrings: &[Ring],
        thread_id: usize,
    ) -> io::Result<()> {
        // Each thread has one queue, so the event is always that of its only ring.
        let (Some(ring), Some(kind)) = (vrings.first(), QueueKind::ALL.get(thread_id)) else {
            log::error!("event {device_event} of an unknown thread {thread_id}");
            return Ok(());
        };
        let mut worker = lock(self.worker(*kind));
        if let Some(slot) = self.rings.get(thread_id) {
            slot.get_or_init(|| ring.clone());
        }
        if self.closed.load(Ordering::SeqCst) {
            return Ok(());
        }
        if *kind == QueueKind::Control {
            self.reset_if_restarted(ring);
            let runs = ring.started() && ring.enabled();
            if let Some(channel) = self.channel.as_ref().filter(|_| runs) {
                channel.resume();
            }
        }
        worker.drain(ring, &self.device, &self.memory);
        Ok(())
    }
}
