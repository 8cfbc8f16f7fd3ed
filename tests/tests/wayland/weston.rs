//! weston, headless on the host: a guest's client shows a picture in memory of ours.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nosnoop_tests::frontend::cross_domain::{self, ImageRequest};
use nosnoop_tests::frontend::wayland::{Arg, Client, DISPLAY, Event, request};
use nosnoop_tests::frontend::{Channel, Deadline, ImageContext, Result, Rig, patience};
use nosnoop_tests::lab::LabError;
use nosnoop_tests::lab::gl::GlRoot;
use tempfile::TempDir;

use super::compositor::RING;

const SOCKET: &str = "wayland-test";
const WIDTH: u32 = 320;
const HEIGHT: u32 = 240;

/// A weston of its own.
struct Weston {
    root: GlRoot,
    folder: TempDir,
    process: Child,
}

impl Drop for Weston {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Weston {
    /// `None` after a line that says why there is none.
    fn start() -> Option<Self> {
        let root = match GlRoot::find_or_fetch() {
            Ok(root) => root,
            Err(LabError::Unavailable(why)) => {
                println!("SKIPPED: no weston: {why}");
                return None;
            }
            Err(error) => panic!("{error}"),
        };
        let folder = tempfile::tempdir().unwrap();
        // weston looks for its modules where it was built for.
        let modules = [
            ("libweston-16", "headless-backend.so"),
            ("weston", "kiosk-shell.so"),
        ];
        let map: String = modules
            .iter()
            .map(|(place, name)| {
                let path = root.libraries().join(place).join(name);
                format!("{name}={};", path.display())
            })
            .collect();
        let log = folder.path().join("log");
        let process = Self::command(&root, folder.path(), "weston")
            .args(["--backend=headless", "--renderer=pixman", "--debug"])
            .args(["--shell=kiosk-shell.so", "--no-config", "--idle-time=0"])
            .arg(format!("--socket={SOCKET}"))
            .arg(format!("--width={WIDTH}"))
            .arg(format!("--height={HEIGHT}"))
            .env("WESTON_MODULE_MAP", map)
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let weston = Weston {
            root,
            folder,
            process,
        };
        let socket = weston.folder.path().join(SOCKET);
        let awaited = format!("weston (its log is {})", log.display());
        let there = || Ok(socket.exists().then_some(()));
        if let Err(error) = Deadline::after(patience()).poll(&awaited, there) {
            panic!("{error}: {}", fs::read_to_string(&log).unwrap());
        }
        Some(weston)
    }

    /// One of weston's programs.
    fn command(root: &GlRoot, folder: &Path, name: &str) -> Command {
        let program = root.program(&format!("usr/bin/{name}"));
        let mut command = program
            .with_more(&root.libraries().join("weston"), [])
            .command();
        command.env("XDG_RUNTIME_DIR", folder);
        command
    }

    fn rig(&self) -> Result<Rig> {
        let socket = self.folder.path().join(SOCKET);
        Rig::host_blobs(&["--wayland-socket", socket.to_str().unwrap()])
    }

    /// What weston shows: rows of red, green, blue (and alpha), bytes per pixel.
    fn screenshot(&self) -> (Vec<u8>, usize) {
        let shots = self.folder.path().join("shots");
        fs::create_dir_all(&shots).unwrap();
        let shot = Self::command(&self.root, self.folder.path(), "weston-screenshooter")
            .env("WAYLAND_DISPLAY", SOCKET)
            .current_dir(&shots)
            .output()
            .unwrap();
        assert!(shot.status.success(), "{shot:?}");
        let file = fs::read_dir(&shots).unwrap().next().unwrap().unwrap();
        if let Some(keep) = std::env::var_os("NOSNOOP_KEEP_SCREENSHOT") {
            fs::copy(file.path(), keep).unwrap();
        }
        let bytes = std::io::BufReader::new(fs::File::open(file.path()).unwrap());
        let mut reader = png::Decoder::new(bytes).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.width, info.height), (WIDTH, HEIGHT));
        fs::remove_file(file.path()).unwrap();
        (pixels, info.color_type.samples())
    }
}

/// Red, green, blue at a place of the picture: quarters, with a frame and a gradient to tell rows apart.
fn pixel(x: u32, y: u32) -> [u8; 3] {
    if x == 0 || y == 0 || x == WIDTH - 1 || y == HEIGHT - 1 {
        return [255, 255, 255];
    }
    let shade = (y % 64) as u8 * 2;
    match (x < WIDTH / 2, y < HEIGHT / 2) {
        (true, true) => [200, shade, 0],
        (false, true) => [0, 200, shade],
        (true, false) => [shade, 0, 200],
        (false, false) => [200, 200, shade],
    }
}

#[test]
fn weston_shows_a_picture_in_memory_of_our_allocator() -> Result<()> {
    let Some(weston) = Weston::start() else {
        return Ok(());
    };
    let mut rig = weston.rig()?;
    let channel = Channel::new(&mut rig.gpu, 1, RING)?;
    let images = ImageContext {
        id: 1,
        ring: RING,
        memory: channel.query,
    };
    let mut client = Client::new(&mut rig.gpu, channel)?;
    for interface in ["wl_compositor", "wl_shm", "xdg_wm_base", "wl_output"] {
        assert!(client.globals.contains_key(interface), "{interface}");
    }
    let (surface, width, height) = client.window(&mut rig.gpu)?;
    assert_eq!((width, height), (WIDTH, HEIGHT));
    let info = images.image(&mut rig.gpu, ImageRequest::xrgb(width, height))?;
    images.create_blob(&mut rig.gpu, 200, &info)?;
    rig.gpu.attach_resource(1, 200)?;
    rig.gpu.map_blob(200, 0)?;
    for y in 0..height {
        let row: Vec<u8> = (0..width)
            .flat_map(|x| {
                let [red, green, blue] = pixel(x, y);
                [blue, green, red, 0]
            })
            .collect();
        rig.shmem().write((y * info.strides[0]).into(), &row);
    }
    let layout = (width, height, info.strides[0]);
    client.show(&mut rig.gpu, surface, (200, info.size), layout)?;
    // weston draws when it next does; the program that takes the picture waits for that.
    let (pixels, samples) = weston.screenshot();
    for y in 0..HEIGHT {
        for x in 0..WIDTH {
            let at = (y * WIDTH + x) as usize * samples;
            assert_eq!(pixels[at..at + 3], pixel(x, y), "{x} {y}");
        }
    }
    rig.finish()
}

/// A client that does what it must not learns why, and then that its compositor has gone.
#[test]
fn weston_ends_a_client_that_errs_and_no_other() -> Result<()> {
    let Some(weston) = Weston::start() else {
        return Ok(());
    };
    let mut rig = weston.rig()?;
    let channel = Channel::new(&mut rig.gpu, 1, RING)?;
    let mut client = Client::new(&mut rig.gpu, channel)?;
    let channel = Channel::new(&mut rig.gpu, 2, 200)?;
    let mut other = Client::new(&mut rig.gpu, channel)?;
    client.send(&mut rig.gpu, 4711, 0, &[])?;
    let said = client.wait(&mut rig.gpu, DISPLAY, 0).unwrap_err();
    assert!(said.to_string().contains("invalid object"), "{said}");
    let (rest, _) = client.channel.receive(&mut rig.gpu)?;
    assert_eq!(rest, b"");
    other.round_trip(&mut rig.gpu)?;
    rig.finish()
}

/// Latencies at the middle and at the 99th of a hundred.
fn quantiles(mut all: Vec<Duration>) -> (Duration, Duration) {
    all.sort_unstable();
    (all[all.len() / 2], all[all.len() * 99 / 100])
}

/// wl_display.sync and its answer: over the bare socket and through the channel, by turns.
#[test]
#[ignore = "a measurement: run it alone, in release, with --nocapture"]
fn round_trips() -> Result<()> {
    use std::io::{Read, Write};
    let Some(weston) = Weston::start() else {
        return Ok(());
    };
    let mut rig = weston.rig()?;
    let channel = Channel::new(&mut rig.gpu, 1, RING)?;
    let mut guest = Client::new(&mut rig.gpu, channel)?;
    let path = weston.folder.path().join(SOCKET);
    let mut bare = std::os::unix::net::UnixStream::connect(path).unwrap();
    let (mut direct, mut through, mut commands) = (Vec::new(), Vec::new(), Vec::new());
    // Ids are used again as soon as they are free; 2 is.
    let sync = request(DISPLAY, 0, &[Arg::Word(2)]);
    let empty = nosnoop_tests::frontend::request::submit_3d(1, &cross_domain::poll());
    for _ in 0..5000 {
        let start = Instant::now();
        bare.write_all(&sync).unwrap();
        // done, and delete_id.
        let mut answer = vec![0; 24];
        bare.read_exact(&mut answer).unwrap();
        direct.push(start.elapsed());
        assert!(Event::take(&mut answer).is_some_and(|event| event.object == 2));

        let start = Instant::now();
        guest.round_trip(&mut rig.gpu)?;
        through.push(start.elapsed());

        let start = Instant::now();
        rig.gpu.command("SUBMIT_3D", &empty)?;
        commands.push(start.elapsed());
    }
    for (what, all) in [
        ("wl_display.sync over the bare socket", direct),
        ("wl_display.sync through the channel", through),
        ("an empty submission", commands),
    ] {
        let (middle, worst) = quantiles(all);
        println!("{what}: p50 {middle:.1?}, p99 {worst:.1?}");
    }
    rig.finish()
}
