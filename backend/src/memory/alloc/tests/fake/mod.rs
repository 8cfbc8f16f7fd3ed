//! A device node as the kernel has it, without a kernel: each driver's file does what that driver does
//! in Linux 7.2, its refusals above all. What the allocators claim is checked against what a buffer
//! here really is ([`Truth`]), which comes from the driver's rules and not from what was asked for.

mod amdgpu;
mod dumb;
mod i915;
mod xe;

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use nosnoop_protocol::MapCache;
use rustix::fs::MemfdFlags;
use rustix::io::Errno;

pub(super) use self::amdgpu::Amdgpu;
pub(super) use self::i915::I915;
pub(super) use self::xe::Xe;
use crate::memory::alloc::HostMemory;
use crate::memory::alloc::drm_node::Node;
use crate::memory::kind::{PageKinds, Snooping, Traits};
use crate::sys::request::{Driver, Request};

/// What stands behind a node.
#[derive(Clone, Debug)]
pub(super) enum Model {
    I915(I915),
    Xe(Xe),
    Amdgpu(Amdgpu),
    /// By its render node or its card node.
    Vgem {
        render: bool,
    },
    /// With the most bytes that a buffer may have.
    Udmabuf {
        limit: u64,
    },
    /// A driver without an allocator.
    Other(&'static str),
}

/// Whether a device snoops when it accesses a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Snoops {
    Yes,
    No,
    /// As whoever binds the buffer likes.
    Chosen,
    NoDevice,
}

/// What a mapping of a buffer really is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Truth {
    pub(super) host: MapCache,
    pub(super) kinds: PageKinds,
    pub(super) snoops: Snoops,
}

/// A buffer, as its driver keeps it.
#[derive(Clone, Debug)]
struct Object {
    size: u64,
    state: ObjectState,
}

#[derive(Clone, Debug)]
enum ObjectState {
    I915(i915::Buffer),
    Xe(xe::Buffer),
    Amdgpu(amdgpu::Buffer),
    Dumb,
}

/// What goes wrong, beyond what the model refuses by itself. Commands are counted from 0, those that
/// close handles included, restarts not.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    /// From this command on the device is gone.
    pub(super) gone_from: Option<usize>,
    /// This command is refused with that.
    pub(super) refuse: Vec<(usize, Errno)>,
    /// How often each command is interrupted before it is done.
    pub(super) interruptions: u32,
    pub(super) lies: HashSet<Lie>,
}

/// What a node says or does that it should not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Lie {
    /// Buffers are a page smaller than asked for, and that is said.
    SmallBuffer,
    /// A buffer is made, and its handle is 0.
    NoHandle,
    OffsetZero,
    OffsetInPage,
    /// Offsets no file can have.
    OffsetHuge,
    /// dma-bufs are a page smaller than the buffer.
    SmallDmaBuf,
    /// `SET_CACHING` succeeds and does nothing.
    CachingIgnored,
    /// `SET_PAT` succeeds and does nothing.
    PatIgnored,
    /// amdgpu drops the flag for write-combining where the model would not.
    UswcDropped,
    /// amdgpu makes the buffer in video memory.
    InVideoMemory,
    /// Lists have another length than they say.
    ListGarbled,
}

pub(super) const LIES: [Lie; 11] = [
    Lie::SmallBuffer,
    Lie::NoHandle,
    Lie::OffsetZero,
    Lie::OffsetInPage,
    Lie::OffsetHuge,
    Lie::SmallDmaBuf,
    Lie::CachingIgnored,
    Lie::PatIgnored,
    Lie::UswcDropped,
    Lie::InVideoMemory,
    Lie::ListGarbled,
];

/// A place in the node's file.
#[derive(Clone, Copy, Debug)]
struct Place {
    file: u64,
    size: u64,
    truth: Truth,
}

#[derive(Debug, Default)]
struct State {
    commands: usize,
    names: Vec<&'static str>,
    interrupted: u32,
    next: u64,
    /// By open file description and handle.
    objects: HashMap<(u64, u32), Object>,
    /// Handles that somebody tried to close, successfully or not.
    close_tried: HashSet<(u64, u32)>,
    /// Closings of what was not open.
    closed_twice: usize,
    places: HashMap<u64, Place>,
    /// By inode.
    dma_bufs: HashMap<u64, Truth>,
}

/// A device, with whatever files of it are open.
#[derive(Debug)]
pub(super) struct Device {
    model: Model,
    faults: Faults,
    state: Mutex<State>,
    files: AtomicU64,
}

/// One open file description of a device's node.
#[derive(Debug)]
pub(super) struct FakeNode {
    device: Arc<Device>,
    file: u64,
    fd: Arc<OwnedFd>,
    driver: Driver,
}

impl Device {
    pub(super) fn new(model: Model) -> Arc<Self> {
        Self::with_faults(model, Faults::default())
    }

    pub(super) fn with_faults(model: Model, faults: Faults) -> Arc<Self> {
        Arc::new(Self {
            model,
            faults,
            state: Mutex::default(),
            files: AtomicU64::new(0),
        })
    }

    /// Opens the node once more.
    pub(super) fn open(self: &Arc<Self>) -> Arc<FakeNode> {
        let name = match &self.model {
            Model::I915(_) => "i915",
            Model::Xe(_) => "xe",
            Model::Amdgpu(_) => "amdgpu",
            Model::Vgem { .. } => "vgem",
            Model::Udmabuf { .. } => "",
            Model::Other(name) => name,
        };
        let driver = match &self.model {
            Model::Udmabuf { .. } => Driver::Udmabuf,
            _ => Driver::named(name),
        };
        Arc::new(FakeNode {
            device: Arc::clone(self),
            file: self.files.fetch_add(1, Ordering::Relaxed),
            fd: Arc::new(file_of(0)),
            driver,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn lies(&self, lie: Lie) -> bool {
        self.faults.lies.contains(&lie)
    }

    /// Handles that are open.
    pub(super) fn open_handles(&self) -> usize {
        self.state().objects.len()
    }

    /// Handles that nobody even tried to close, and handles that were closed twice.
    pub(super) fn leaks(&self) -> (usize, usize) {
        let state = self.state();
        let tried = &state.close_tried;
        let forgotten = state.objects.keys().filter(|key| !tried.contains(key));
        (forgotten.count(), state.closed_twice)
    }

    /// The PAT index of the one buffer that there is.
    pub(super) fn pat_index(&self) -> Option<u32> {
        let state = self.state();
        let mut objects = state.objects.values();
        match (objects.next(), objects.next()) {
            (Some(object), None) => match &object.state {
                ObjectState::I915(buffer) => buffer.pat_index(),
                _ => None,
            },
            _ => None,
        }
    }

    /// The commands so far, closing included.
    pub(super) fn commands(&self) -> Vec<&'static str> {
        self.state().names.clone()
    }

    /// What `mmap` of `len` bytes at `offset` does for an open file description.
    pub(super) fn mmap(&self, node: &FakeNode, offset: u64, len: u64) -> Result<Truth, Errno> {
        let state = self.state();
        let place = state.places.get(&offset).ok_or(Errno::INVAL)?;
        if len > place.size {
            return Err(Errno::INVAL);
        }
        if place.file != node.file {
            return Err(Errno::ACCESS);
        }
        Ok(place.truth)
    }

    /// What the memory really is when a front-end maps it.
    pub(super) fn truth(&self, node: &FakeNode, memory: &HostMemory) -> Result<Truth, Errno> {
        if Arc::ptr_eq(&memory.fd(), &node.fd) {
            return self.mmap(node, memory.offset(), memory.len());
        }
        let stat = rustix::fs::fstat(memory.fd()).unwrap();
        let end = memory.offset().checked_add(memory.len()).unwrap();
        if end > u64::try_from(stat.st_size).unwrap() {
            return Err(Errno::INVAL);
        }
        let state = self.state();
        state.dma_bufs.get(&stat.st_ino).copied().ok_or(Errno::BADF)
    }

    fn truth_of(&self, state: &ObjectState) -> Truth {
        match (&self.model, state) {
            (Model::I915(model), ObjectState::I915(buffer)) => model.truth(buffer, None),
            (Model::Xe(model), ObjectState::Xe(buffer)) => model.truth(buffer),
            (Model::Amdgpu(model), ObjectState::Amdgpu(buffer)) => model.truth(buffer),
            _ => dumb::TRUTH,
        }
    }
}

impl Node for FakeNode {
    fn driver(&self) -> &Driver {
        &self.driver
    }

    fn version(&self) -> (i32, i32) {
        match &self.device.model {
            Model::Amdgpu(model) => model.version,
            _ => (1, 0),
        }
    }

    fn fd(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.fd)
    }

    fn submit(&self, request: &mut Request<'_>) -> io::Result<()> {
        self.command(request).map_err(io::Error::from)
    }
}

impl FakeNode {
    fn command(&self, request: &mut Request<'_>) -> Result<(), Errno> {
        let device = &*self.device;
        let mut state = device.state();
        if state.interrupted < device.faults.interruptions {
            state.interrupted += 1;
            let odd = state.interrupted % 2 == 1;
            return Err(if odd { Errno::INTR } else { Errno::AGAIN });
        }
        state.interrupted = 0;
        let number = state.commands;
        state.commands += 1;
        state.names.push(request.name());
        if let Request::GemClose(handle) = request {
            state.close_tried.insert((self.file, *handle));
        }
        // `drm_ioctl`: a device that was unplugged.
        if device.faults.gone_from.is_some_and(|from| number >= from) {
            return Err(Errno::NODEV);
        }
        let refused = device.faults.refuse.iter().find(|(at, _)| *at == number);
        if let Some((_, errno)) = refused {
            return Err(*errno);
        }
        if !request.is_for(&self.driver) {
            // `drm_ioctl`: a driver without a command of that number. Other devices do not know it.
            return Err(match device.model {
                Model::Udmabuf { .. } => Errno::NOTTY,
                _ => Errno::INVAL,
            });
        }
        match request {
            Request::GemClose(handle) => {
                if state.objects.remove(&(self.file, *handle)).is_none() {
                    state.closed_twice += 1;
                    return Err(Errno::INVAL);
                }
                Ok(())
            }
            Request::PrimeExport { handle, dma_buf } => {
                let object = state.object(self.file, *handle)?;
                let mut truth = device.truth_of(&object.state);
                if matches!(&device.model, Model::I915(i915) if !i915.own_memory) {
                    // `i915_gem_dmabuf_mmap`: the file behind the buffer, whatever it is.
                    truth.host = MapCache::Cached;
                }
                let size = object.size
                    - if device.lies(Lie::SmallDmaBuf) {
                        4096
                    } else {
                        0
                    };
                let fd = file_of(size);
                let inode = rustix::fs::fstat(&fd).unwrap().st_ino;
                state.dma_bufs.insert(inode, truth);
                **dma_buf = Some(fd);
                Ok(())
            }
            _ => match &device.model {
                Model::I915(model) => model.command(self, &mut state, request),
                Model::Xe(model) => model.command(self, &mut state, request),
                Model::Amdgpu(model) => model.command(self, &mut state, request),
                Model::Vgem { render } => dumb::vgem(self, &mut state, request, *render),
                Model::Udmabuf { limit } => dumb::udmabuf(device, &mut state, request, *limit),
                Model::Other(_) => Err(Errno::OPNOTSUPP),
            },
        }
    }

    /// Keeps a new buffer and gives its handle.
    fn insert(&self, state: &mut State, size: u64, object: ObjectState) -> u32 {
        if self.device.lies(Lie::NoHandle) {
            return 0;
        }
        state.next += 1;
        let handle = u32::try_from(state.next).unwrap();
        let object = Object {
            size,
            state: object,
        };
        state.objects.insert((self.file, handle), object);
        handle
    }

    /// A place in the file for a mapping of a buffer.
    fn place(&self, state: &mut State, size: u64, truth: Truth) -> u64 {
        state.next += 1;
        // Fake offsets begin where no 32-bit kernel has pages (`DRM_FILE_PAGE_OFFSET_START`).
        let offset = 0x1_0000_0000 + state.next * 0x10_0000_0000;
        let file = self.file;
        state.places.insert(offset, Place { file, size, truth });
        if self.device.lies(Lie::OffsetZero) {
            0
        } else if self.device.lies(Lie::OffsetInPage) {
            offset + 8
        } else if self.device.lies(Lie::OffsetHuge) {
            u64::MAX - 0xfff
        } else {
            offset
        }
    }

    /// The size of a buffer for which `size` bytes were asked, in pages of `page` bytes.
    fn size(&self, size: u64, page: u64) -> u64 {
        let less = if self.device.lies(Lie::SmallBuffer) {
            page
        } else {
            0
        };
        size.next_multiple_of(page) - less
    }
}

impl State {
    fn object(&mut self, file: u64, handle: u32) -> Result<&mut Object, Errno> {
        self.objects.get_mut(&(file, handle)).ok_or(Errno::NOENT)
    }
}

/// A file of so many bytes, in the place of a node's or a dma-buf's.
fn file_of(size: u64) -> OwnedFd {
    let fd = rustix::fs::memfd_create(c"fake", MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(fd.as_fd(), size).unwrap();
    fd
}

/// Whether traits say nothing of a mapping that is not so. They may say less.
#[track_caller]
pub(super) fn assert_honest(traits: Traits, truth: Truth) {
    let said = format!("{traits:?} of {truth:?}");
    if let Some(host) = traits.host {
        assert_eq!(host, truth.host, "{said}");
    }
    if traits.kinds != PageKinds::Unknown {
        for kind in truth.kinds.kinds() {
            assert!(traits.kinds.kinds().contains(kind), "{said}");
        }
    }
    match traits.snooping {
        Snooping::Yes => assert_eq!(truth.snoops, Snoops::Yes, "{said}"),
        Snooping::NoDevice => assert_eq!(truth.snoops, Snoops::NoDevice, "{said}"),
        Snooping::No | Snooping::Unknown => {
            // Cached memory that a device does not snoop must not come into being.
            assert_ne!(traits.host, Some(MapCache::Cached), "{said}");
        }
    }
}
