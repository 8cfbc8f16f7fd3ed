//! Bring-up: from a socket to a running device, in the order of messages of a real VMM.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use super::display::{DisplayConfig, DisplayServer};
use super::driver::Gpu;
use super::error::{Error, Result};
use super::memory::{DEFAULT_LAYOUT, GuestRam};
use super::message::{feature, protocol};
use super::queue::CommandQueue;
use super::ring::SplitRing;
use super::shmem::ShmemServer;
use super::vhost_user::VhostUser;

/// Whose order of messages to follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// QEMU 11: memory by ADD_MEM_REG where offered, display socket before the guest starts.
    #[default]
    Qemu,
    /// crosvm: memory by SET_MEM_TABLE, features only at activation, no display socket of its own.
    Crosvm,
}

/// How to bring a device up.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Order of messages.
    pub profile: Profile,
    /// Features to accept where offered. Without PROTOCOL_FEATURES none of those is used, and rings
    /// are enabled from the start.
    pub features: u64,
    /// Protocol features to accept where offered.
    pub protocol_features: u64,
    /// Entries of the control and the cursor ring.
    pub queue_sizes: [u16; 2],
    /// Guest memory: (guest address, bytes).
    pub layout: Vec<(u64, u64)>,
    /// The display to attach, if any.
    pub display: Option<DisplayConfig>,
    /// Whether to hand over a channel for the daemon's requests where BACKEND_REQ is accepted.
    pub backend_channel: bool,
}

impl Default for SessionOptions {
    fn default() -> Self {
        SessionOptions {
            profile: Profile::Qemu,
            features: feature::VERSION_1
                | feature::PROTOCOL_FEATURES
                | feature::EDID
                | feature::RESOURCE_UUID
                | feature::RESOURCE_BLOB
                | feature::INDIRECT_DESC
                | feature::EVENT_IDX
                | feature::RING_RESET,
            protocol_features: protocol::MQ
                | protocol::REPLY_ACK
                | protocol::CONFIG
                | protocol::RESET_DEVICE
                | protocol::CONFIGURE_MEM_SLOTS,
            queue_sizes: [256, 16],
            layout: DEFAULT_LAYOUT.to_vec(),
            display: Some(DisplayConfig::default()),
            backend_channel: true,
        }
    }
}

impl SessionOptions {
    /// The default with a given display.
    pub fn with_display(display: DisplayConfig) -> Self {
        SessionOptions {
            display: Some(display),
            ..SessionOptions::default()
        }
    }

    /// No display, and all that host blobs need: the daemon must have been given `--shm-size`.
    pub fn host_blobs() -> Self {
        let mut options = SessionOptions::headless();
        options.features |= feature::VIRGL | feature::CONTEXT_INIT | feature::BLOB_ALIGNMENT;
        options.protocol_features |= protocol::BACKEND_REQ | protocol::SHMEM;
        options
    }

    /// What crosvm accepts of [`Self::host_blobs`], in its order of messages.
    pub fn crosvm_host_blobs() -> Self {
        let mut options = SessionOptions::host_blobs();
        options.profile = Profile::Crosvm;
        options.features &= !(feature::INDIRECT_DESC | feature::RING_RESET);
        options.protocol_features &= !(protocol::RESET_DEVICE | protocol::CONFIGURE_MEM_SLOTS);
        options
    }

    /// The default without a display.
    pub fn headless() -> Self {
        SessionOptions {
            display: None,
            ..SessionOptions::default()
        }
    }
}

/// A running device: front-end, guest memory, driver and display.
#[derive(Debug)]
pub struct Session {
    /// The vhost-user connection.
    pub vhost: VhostUser,
    /// Guest memory.
    pub ram: Arc<GuestRam>,
    /// The driver.
    pub gpu: Gpu,
    /// Features in use.
    pub features: u64,
    /// Protocol features in use.
    pub protocol_features: u64,
    display: Option<DisplayServer>,
    shmem: Option<ShmemServer>,
}

impl Session {
    /// Connects to a daemon and brings the device up with the default options.
    ///
    /// # Errors
    /// Any step that failed.
    pub fn start(path: &Path) -> Result<Self> {
        Self::connect(path, &SessionOptions::default())
    }

    /// Connects to a daemon and brings the device up.
    ///
    /// # Errors
    /// Any step that failed.
    pub fn connect(path: &Path, options: &SessionOptions) -> Result<Self> {
        Self::over(VhostUser::connect(path)?, options)
    }

    /// Brings the device up over a connection.
    ///
    /// # Errors
    /// Any step that failed.
    pub fn over(mut vhost: VhostUser, options: &SessionOptions) -> Result<Self> {
        let ram = GuestRam::new(&options.layout)?;
        if options.profile == Profile::Crosvm {
            vhost.set_owner()?;
        }
        let offered = vhost.features()?;
        let features = offered & options.features;
        let mut protocol_features = 0;
        if features & feature::PROTOCOL_FEATURES != 0 {
            protocol_features = vhost.protocol_features()? & options.protocol_features;
            if protocol_features & protocol::MEMTYPE_NEEDS != protocol::MEMTYPE_NEEDS {
                protocol_features &= !protocol::MEMTYPE;
            }
            vhost.set_protocol_features(protocol_features)?;
        }
        let channel = protocol_features & protocol::BACKEND_REQ != 0 && options.backend_channel;
        let mut shmem = None;
        if channel && options.profile == Profile::Crosvm {
            shmem = Some(Self::open_channel(&vhost)?);
        }
        if protocol_features & protocol::MQ != 0 {
            let queues = vhost.queue_num()?;
            if queues < 2 {
                return Err(Error::Protocol(format!("{queues} queues, a GPU has two")));
            }
        }
        if options.profile == Profile::Qemu {
            vhost.set_owner()?;
            if channel {
                shmem = Some(Self::open_channel(&vhost)?);
            }
        }
        if protocol_features & protocol::SHMEM != 0 {
            let regions = vhost.shmem_config()?;
            if let (Some(server), [(_, size)]) = (&shmem, &regions[..]) {
                server.set_size(*size);
            }
        }
        let (display, socket) = match options.display.clone() {
            None => (None, None),
            Some(config) => {
                let (server, socket) = DisplayServer::start(config)?;
                (Some(server), Some(socket))
            }
        };
        if let Some(socket) = socket {
            vhost.gpu_set_socket(socket.as_fd())?;
        }
        let event_idx = features & feature::EVENT_IDX != 0;
        let queue = |index: u32| {
            let size = options.queue_sizes[index as usize];
            let ring = SplitRing::new(&ram, index, size, event_idx)?;
            Ok::<_, Error>(CommandQueue::new(ram.clone(), ring))
        };
        let gpu = Gpu {
            ram: ram.clone(),
            control: queue(0)?,
            cursor: queue(1)?,
        };
        let mut session = Session {
            vhost,
            ram,
            gpu,
            features,
            protocol_features,
            display,
            shmem,
        };
        session.activate(options.profile)?;
        if let Some(shmem) = &session.shmem {
            // crosvm serves none before this; QEMU does, but nothing may be asked for yet.
            shmem.set_serving(true);
        }
        Ok(session)
    }

    fn open_channel(vhost: &VhostUser) -> Result<ShmemServer> {
        let (server, socket) = ShmemServer::start()?;
        vhost.set_backend_req_fd(socket.as_fd())?;
        Ok(server)
    }

    /// What a VMM does when the guest's driver says DRIVER_OK.
    fn activate(&mut self, profile: Profile) -> Result<()> {
        self.vhost.set_features(self.features)?;
        self.share_memory(profile)?;
        self.start_queue(0, 0)?;
        self.start_queue(1, 0)
    }

    fn share_memory(&self, profile: Profile) -> Result<()> {
        let regions = self.ram.regions()?;
        if profile == Profile::Qemu && self.protocol_features & protocol::CONFIGURE_MEM_SLOTS != 0 {
            return regions
                .iter()
                .try_for_each(|(region, fd)| self.vhost.add_mem_region(*region, fd.as_fd()));
        }
        self.share_memory_table()
    }

    /// Sends the whole memory table again (SET_MEM_TABLE).
    ///
    /// # Errors
    /// As [`VhostUser::set_mem_table`].
    pub fn share_memory_table(&self) -> Result<()> {
        let regions = self.ram.regions()?;
        let table: Vec<_> = regions
            .iter()
            .map(|(region, fd)| (*region, fd.as_fd()))
            .collect();
        self.vhost.set_mem_table(&table)
    }

    /// The control queue (0) or the cursor queue (1).
    pub fn queue(&mut self, index: u32) -> &mut CommandQueue {
        if index == 0 {
            &mut self.gpu.control
        } else {
            &mut self.gpu.cursor
        }
    }

    /// Tells the daemon everything about a ring, from available index `base` on, and enables it.
    ///
    /// # Errors
    /// Any message that was refused.
    pub fn start_queue(&mut self, index: u32, base: u32) -> Result<()> {
        let protocol_features = self.protocol_features;
        let has_enable = self.features & feature::PROTOCOL_FEATURES != 0;
        let ring = if index == 0 {
            self.gpu.control.ring()
        } else {
            self.gpu.cursor.ring()
        };
        let vhost = &self.vhost;
        vhost.set_vring_num(index, u32::from(ring.size()))?;
        vhost.set_vring_base(index, base)?;
        vhost.set_vring_addr(index, ring.addresses())?;
        vhost.set_vring_call(index, Some(ring.call_fd()))?;
        vhost.set_vring_err(index, Some(ring.err_fd()))?;
        vhost.set_vring_kick(index, Some(ring.kick_fd()))?;
        if has_enable {
            vhost.set_vring_enable(index, true)?;
        }
        if protocol_features & protocol::REPLY_ACK == 0 {
            vhost.barrier()?;
        }
        Ok(())
    }

    /// Stops a ring as a VMM does (disable, GET_VRING_BASE); returns where it stopped.
    ///
    /// # Errors
    /// Any message that was refused.
    pub fn stop_queue(&mut self, index: u32) -> Result<u32> {
        if self.features & feature::PROTOCOL_FEATURES != 0 {
            self.vhost.set_vring_enable(index, false)?;
        }
        self.vhost.get_vring_base(index)
    }

    /// What VIRTIO_F_RING_RESET makes of a ring: stopped, emptied, started from the beginning.
    ///
    /// # Errors
    /// Any message that was refused.
    pub fn reset_queue(&mut self, index: u32) -> Result<()> {
        self.stop_queue(index)?;
        self.queue(index).reset()?;
        self.start_queue(index, 0)
    }

    /// Stops both rings and starts them where they stopped, as pause and resume of a VM do.
    ///
    /// # Errors
    /// Any message that was refused.
    pub fn pause_and_resume(&mut self) -> Result<()> {
        for index in [0, 1] {
            let base = self.stop_queue(index)?;
            let expected = u32::from(self.queue(index).ring().next_avail());
            if base != expected {
                let what = format!("stopped at {base}, with everything answered up to {expected}");
                return Err(Error::Ring { ring: index, what });
            }
        }
        for index in [0, 1] {
            let base = u32::from(self.queue(index).ring().next_avail());
            self.start_queue(index, base)?;
        }
        Ok(())
    }

    /// A reset of the whole device by the guest (virtio status 0), and the driver starting anew:
    /// rings stopped, RESET_DEVICE, everything set up again over the same connection.
    ///
    /// # Errors
    /// Any message that was refused.
    pub fn reset_device(&mut self) -> Result<()> {
        for index in [0, 1] {
            self.stop_queue(index)?;
        }
        self.vhost.reset_device()?;
        self.gpu.control.reset()?;
        self.gpu.cursor.reset()?;
        self.vhost.set_features(self.features)?;
        self.start_queue(0, 0)?;
        self.start_queue(1, 0)
    }

    /// Replaces the display by a new one (a second GPU_SET_SOCKET); the old one is closed after.
    ///
    /// # Errors
    /// Any step that failed.
    pub fn replace_display(&mut self, config: DisplayConfig) -> Result<()> {
        let (server, socket) = DisplayServer::start(config)?;
        self.vhost.gpu_set_socket(socket.as_fd())?;
        self.display = Some(server);
        Ok(())
    }

    /// Whether a display was attached.
    pub fn has_display(&self) -> bool {
        self.display.is_some()
    }

    /// The attached display; panics for a session without one.
    pub fn display(&self) -> &DisplayServer {
        self.display.as_ref().expect("a session with a display")
    }

    /// The other end of the shared-memory channel; panics for a session without one.
    pub fn shmem(&self) -> &ShmemServer {
        self.shmem.as_ref().expect("a session with a channel")
    }

    /// Hands over a new socket for the shared-memory channel, behind which everything is still
    /// mapped (a second SET_BACKEND_REQ_FD).
    ///
    /// # Errors
    /// Any step that failed.
    pub fn reopen_shmem(&mut self) -> Result<()> {
        if let Some(shmem) = &mut self.shmem {
            let socket = shmem.reopen()?;
            self.vhost.set_backend_req_fd(socket.as_fd())?;
        }
        Ok(())
    }

    /// Checks that the daemon kept the rules of the shared-memory channel so far.
    ///
    /// # Errors
    /// [`Error::Protocol`] with the first broken rule.
    pub fn check_shmem(&self) -> Result<()> {
        let violations = self.shmem.as_ref().map(ShmemServer::violations);
        match violations.unwrap_or_default().first() {
            None => Ok(()),
            Some(line) => Err(Error::Protocol(format!("shared-memory channel: {line}"))),
        }
    }

    /// Closes the front-end's end of the shared-memory channel.
    pub fn close_shmem(&mut self) {
        if let Some(shmem) = &mut self.shmem {
            shmem.close();
        }
    }

    /// Closes the display's end of its socket.
    pub fn close_display(&mut self) {
        if let Some(display) = &mut self.display {
            display.close();
        }
    }

    /// Checks that the daemon kept the rules of the display protocol so far.
    ///
    /// # Errors
    /// [`Error::Protocol`] with the first broken rule.
    pub fn check_display(&self) -> Result<()> {
        match self.display().violations().first() {
            None => Ok(()),
            Some(line) => Err(Error::Protocol(format!("display socket: {line}"))),
        }
    }
}
