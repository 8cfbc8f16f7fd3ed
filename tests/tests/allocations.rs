//! Commands that drivers send all the time take nothing from the heap, from the request's bytes in the
//! ring to the response's.
//!
//! The device runs in this process, on a thread that counts its own allocations while it works on the
//! ring. What the display's thread does with a picture is not counted.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "test code: a broken expectation is to stop the test loudly"
)]

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use allocation_counter::measure;
use nosnoop_gpu::SharedGuestMemory;
use nosnoop_gpu::daemon::ring::Ring;
use nosnoop_gpu::daemon::worker::{QueueKind, Worker};
use nosnoop_gpu::device::mapper::{Done, MapRequest, Mapper};
use nosnoop_gpu::device::quota::Limits;
use nosnoop_gpu::device::{Device, SharedMemory};
use nosnoop_gpu::display::{Display, OutputConfig};
use nosnoop_gpu::memory::flush::CacheFlusher;
use nosnoop_gpu::memory::source::{Choice, Source};
use nosnoop_protocol::geometry::Size;
use nosnoop_tests::frontend::cross_domain::ring_blob;
use nosnoop_tests::frontend::display::DisplayServer;
use nosnoop_tests::frontend::driver::Gpu;
use nosnoop_tests::frontend::memory::{DEFAULT_LAYOUT, GuestRam, PAGE};
use nosnoop_tests::frontend::pixels::BGRX;
use nosnoop_tests::frontend::queue::CommandQueue;
use nosnoop_tests::frontend::request::{self, Cursor, Rect, RequestBytes, ScanoutBlob};
use nosnoop_tests::frontend::response;
use nosnoop_tests::frontend::ring::SplitRing;
use nosnoop_tests::frontend::{DisplayConfig, ImageContext, ImageRequest, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vhost_user_backend::VringT;

/// `VIRTIO_GPU_FORMAT_R8G8B8X8_UNORM`, which has to be converted for the display.
const RGBX: u32 = 134;

const WIDTH: u32 = 256;
const HEIGHT: u32 = 64;

/// Often enough for every buffer to have grown.
const WARM: u32 = 4;
/// And then counted so often.
const COUNTED: u32 = 8;

/// A front-end that maps at once.
struct Obliging;

impl Mapper for Obliging {
    fn usable(&self) -> bool {
        true
    }

    fn speaks_memtype(&self) -> bool {
        false
    }

    fn map(&self, _: MapRequest, done: Done) {
        done(Ok(()));
    }

    fn unmap(&self, _: u64, _: u64, done: Done) {
        done(Ok(()));
    }
}

/// A queue's thread. The number is what it has allocated; locked while it works.
struct Served {
    allocated: Arc<Mutex<u64>>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    fn start(
        kind: QueueKind,
        device: &Arc<Device>,
        memory: &SharedGuestMemory,
        ring: &mut SplitRing,
    ) -> Self {
        let ours = Ring::new(memory.clone(), 32_768).unwrap();
        let file = |fd: std::os::fd::BorrowedFd<'_>| File::from(fd.try_clone_to_owned().unwrap());
        let [descriptors, available, used] = ring.parts().map(|part| part.addr);
        ours.set_queue_size(ring.size());
        ours.set_queue_info(descriptors, available, used).unwrap();
        ours.set_queue_event_idx(true);
        ours.set_call(Some(file(ring.call_fd())));
        ours.set_kick(Some(file(ring.kick_fd())));
        ours.set_enabled(true);
        ours.set_queue_ready(true);

        let allocated = Arc::new(Mutex::new(0));
        let stopping = Arc::new(AtomicBool::new(false));
        let (count, stop) = (Arc::clone(&allocated), Arc::clone(&stopping));
        let (device, memory) = (Arc::clone(device), memory.clone());
        let kick = ring.kick_fd().try_clone_to_owned().unwrap();
        let mut worker = Worker::new(kind);
        let thread = thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                if readable(&kick) {
                    let mut count = count.lock().unwrap();
                    let taken = measure(|| {
                        ours.read_kick().unwrap();
                        worker.drain(&ours, &device, &memory);
                    });
                    *count += taken.count_total;
                }
            }
        });
        Self {
            allocated,
            stopping,
            thread: Some(thread),
        }
    }

    /// The number, once the thread has nothing left to do.
    fn allocated(&self) -> MutexGuard<'_, u64> {
        self.allocated.lock().unwrap()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        let result = self.thread.take().unwrap().join();
        assert!(result.is_ok() || thread::panicking());
    }
}

fn readable(kick: &OwnedFd) -> bool {
    let mut events = [PollFd::new(kick, PollFlags::IN)];
    let timeout = Timespec::try_from(Duration::from_millis(50)).unwrap();
    poll(&mut events, Some(&timeout)).unwrap() > 0
}

/// A guest and its device.
struct Guest {
    gpu: Gpu,
    served: [Served; 2],
    _display: Option<DisplayServer>,
}

impl Guest {
    fn new(display: Option<DisplayConfig>) -> Result<Self> {
        let ram = GuestRam::new(&DEFAULT_LAYOUT)?;
        let output = OutputConfig {
            size: Size {
                width: WIDTH,
                height: HEIGHT,
            },
            refresh_hz: 60,
        };
        let screens = Arc::new(Display::new(vec![output]));
        let display = match display {
            Some(config) => {
                let (server, socket) = DisplayServer::start(config)?;
                screens.attach_socket(socket.into()).unwrap();
                Some(server)
            }
            None => None,
        };
        let source = Source::open(Choice::default(), Arc::new(CacheFlusher::default()));
        let shared_memory = SharedMemory {
            size: 1 << 30,
            mapper: Arc::new(Obliging),
            source: Arc::new(source.unwrap()),
            wayland: None,
        };
        let device = Device::new(Limits::default(), screens, Some(shared_memory), None);
        let memory = SharedGuestMemory::new(ram.map());
        let mut control = SplitRing::new(&ram, 0, 256, true)?;
        let mut cursor = SplitRing::new(&ram, 1, 16, true)?;
        let served = [
            Served::start(QueueKind::Control, &device, &memory, &mut control),
            Served::start(QueueKind::Cursor, &device, &memory, &mut cursor),
        ];
        let gpu = Gpu {
            control: CommandQueue::new(Arc::clone(&ram), control),
            cursor: CommandQueue::new(Arc::clone(&ram), cursor),
            ram,
        };
        Ok(Self {
            gpu,
            served,
            _display: display,
        })
    }

    /// What commands take from the heap when they come again and again.
    fn steadily(&mut self, mut commands: impl FnMut(&mut Gpu) -> Result<()>) -> Result<u64> {
        (0..WARM).try_for_each(|_| commands(&mut self.gpu))?;
        self.served.iter().for_each(|queue| *queue.allocated() = 0);
        (0..COUNTED).try_for_each(|_| commands(&mut self.gpu))?;
        Ok(self.served.iter().map(|queue| *queue.allocated()).sum())
    }

    /// As [`Guest::steadily`], for one command.
    fn repeated(&mut self, request: &RequestBytes) -> Result<u64> {
        self.steadily(|gpu| {
            let response = gpu.call(request, response::EDID)?;
            assert_eq!(response.kind() & 0xff00, 0x1100, "{request:x?}");
            Ok(())
        })
    }
}

fn whole() -> Rect {
    Rect::sized(WIDTH, HEIGHT)
}

/// Picture 1 in one piece, picture 2 in single pages, which is on the screen.
fn pictures(gpu: &mut Gpu) -> Result<()> {
    gpu.create_picture(1, BGRX, WIDTH, HEIGHT)?;
    gpu.create_2d(2, RGBX, WIDTH, HEIGHT)?;
    let bytes = u64::from(WIDTH * HEIGHT * 4);
    let pages: Vec<_> = (0..2 * bytes / PAGE)
        .map(|_| gpu.ram.alloc(PAGE as usize))
        .collect::<Result<_>>()?;
    let every_other: Vec<_> = pages.into_iter().step_by(2).collect();
    gpu.attach_backing(2, &every_other)?;
    gpu.set_scanout(0, 2, whole())
}

fn two_d(guest: &mut Guest) -> Result<()> {
    pictures(&mut guest.gpu)?;
    let part = Rect {
        x: 3,
        y: 5,
        width: 40,
        height: 30,
    };
    let offset = u64::from(4 * (5 * WIDTH + 3));
    for (name, request) in [
        ("GET_DISPLAY_INFO", request::get_display_info()),
        ("transfer", request::transfer_to_host_2d(1, whole(), 0)),
        ("pages", request::transfer_to_host_2d(2, whole(), 0)),
        ("part", request::transfer_to_host_2d(2, part, offset)),
        ("flush", request::flush(2, whole())),
        ("flush of a part", request::flush(2, part)),
        ("flush of what is not shown", request::flush(1, whole())),
        ("SET_SCANOUT", request::set_scanout(0, 2, whole())),
        ("fenced", request::flush(2, part).fenced(77)),
    ] {
        assert_eq!(guest.repeated(&request)?, 0, "{name}");
    }
    let flipped = guest.steadily(|gpu| {
        for picture in [1, 2] {
            gpu.set_scanout(0, picture, whole())?;
            gpu.flush(picture, whole())?;
        }
        Ok(())
    })?;
    assert_eq!(flipped, 0, "two pictures in turn");
    let many = guest.steadily(|gpu| {
        let transfer = request::transfer_to_host_2d(1, part, 0);
        let flush = request::flush(2, part).fenced(3);
        let tickets: Result<Vec<_>> = (0..32)
            .flat_map(|_| [gpu.queue(&transfer), gpu.queue(&flush)])
            .collect();
        gpu.finish(&tickets?)
    })?;
    assert_eq!(many, 0, "64 at once");
    Ok(())
}

#[test]
fn the_counter_counts() {
    assert_eq!(measure(|| drop(Box::new([0_u8; 40]))).count_total, 1);
    assert_eq!(measure(|| drop(Vec::<u8>::new())).count_total, 0);
}

#[test]
fn two_d_without_a_display_takes_nothing() -> Result<()> {
    two_d(&mut Guest::new(None)?)
}

#[test]
fn two_d_with_a_display_takes_nothing() -> Result<()> {
    two_d(&mut Guest::new(Some(DisplayConfig::sized(WIDTH, HEIGHT)))?)
}

#[test]
fn cursors_take_nothing() -> Result<()> {
    for display in [None, Some(DisplayConfig::default())] {
        let mut guest = Guest::new(display)?;
        guest.gpu.create_picture(1, BGRX, 64, 64)?;
        let mut place = 0;
        let taken = guest.steadily(|gpu| {
            place += 1;
            let cursor = Cursor {
                resource: 1,
                x: place,
                ..Cursor::default()
            };
            gpu.update_cursor(cursor)?;
            gpu.move_cursor(Cursor {
                x: place + 1,
                ..cursor
            })
        })?;
        assert_eq!(taken, 0);
    }
    Ok(())
}

#[test]
fn guest_blobs_and_image_queries_take_nothing() -> Result<()> {
    let mut guest = Guest::new(Some(DisplayConfig::sized(WIDTH, HEIGHT)))?;
    for blob in [10, 11] {
        ring_blob(&mut guest.gpu, blob, u64::from(WIDTH * HEIGHT * 4))?;
    }
    let taken = guest.steadily(|gpu| {
        for resource in [10, 11] {
            gpu.set_scanout_blob(ScanoutBlob {
                scanout: 0,
                resource,
                rect: whole(),
                width: WIDTH,
                height: HEIGHT,
                format: BGRX,
                stride: 4 * WIDTH,
                offset: 0,
            })?;
            gpu.flush(resource, whole())?;
        }
        Ok(())
    })?;
    assert_eq!(taken, 0, "guest blobs in turn");

    let context = ImageContext::new(&mut guest.gpu, 1, 100)?;
    let image = ImageRequest::xrgb(64, 64).to_bytes();
    let query = request::submit_3d(context.id, &image);
    assert_eq!(guest.repeated(&query)?, 0, "an image query");
    Ok(())
}

/// A mapping is answered later, by another thread in the daemon. What is kept until then is boxed:
/// the request's way to the front-end and what to do with the answer, the effects of a command on
/// others, the place of the response, and the range in the region.
#[test]
fn mapping_takes_no_more_than_what_is_kept_until_the_answer() -> Result<()> {
    const A_PAIR: u64 = 11;
    let mut guest = Guest::new(None)?;
    let context = ImageContext::new(&mut guest.gpu, 1, 100)?;
    context.blob_of(&mut guest.gpu, 200, 4 * PAGE)?;
    let taken = guest.steadily(|gpu| {
        gpu.map_blob(200, PAGE)?;
        gpu.unmap_blob(200)
    })?;
    assert!(taken <= A_PAIR * u64::from(COUNTED), "{taken}");
    Ok(())
}
