//! The command line, by the conventions for vhost-user back-end programs (QEMU
//! docs/interop/vhost-user.rst, "Backend program conventions").

use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser};
use nosnoop_protocol::geometry::Size;
#[cfg(feature = "virgl")]
use nosnoop_protocol::ids::CapsetId;
use nosnoop_protocol::ids::MAX_SCANOUTS;

use crate::daemon::serve::{Endpoint, Options};
use crate::device::quota::{DEFAULT_HOSTMEM, DEFAULT_RESOURCES, Limits, MAX_EDGE};
use crate::display::{DEFAULT_OUTPUT, OutputConfig};
use crate::doctor::Settings;
use crate::memory::plan::{Noncoherent, Policy, VmmMemtype};
use crate::memory::source::{Choice, Place, PlainMemory};
#[cfg(feature = "test-memtype")]
use crate::memory::test_memtype;
#[cfg(feature = "test-bugs")]
use crate::planted;
#[cfg(feature = "virgl")]
use crate::render::gpu::Gpu;
use crate::render::gpu::GpuChoice;
#[cfg(feature = "virgl")]
use crate::render::{OPENGL, native, proof};

/// What `--print-capabilities` prints (QEMU docs/interop/vhost-user.json,
/// `VHostUserBackendCapabilitiesGPU`): the features are those of a 3D renderer.
const CAPABILITIES: &str = if cfg!(feature = "virgl") {
    "{\n  \"type\": \"gpu\",\n  \"features\": [\"render-node\", \"virgl\"]\n}"
} else {
    "{\n  \"type\": \"gpu\",\n  \"features\": []\n}"
};

/// Said of `--virgl` by a build that has no 3D renderer.
const NO_RENDERER: &str = "--virgl and --venus need a 3D renderer, which this build does not have: build with \
    cargo build --release -p nosnoop-gpu --features virgl (needs virglrenderer 1.3 or newer, Debian \
    package libvirglrenderer-dev), or leave them out for 2D";

/// The refresh rates that an output may have, in Hz.
const REFRESH_RANGE: RangeInclusive<u32> = 1..=500;

/// The page size that a guest's region is made of (`blob_alignment`).
const SHM_ALIGNMENT: u64 = 4096;

/// The region unless told otherwise: firmware and operating systems place one of this size above
/// 4 GiB, where no range register of x86 changes a mapping's memory type.
const DEFAULT_SHM_SIZE: u64 = 8 << 30;

/// The largest region: more than guests with small physical addresses could place.
const MAX_SHM_SIZE: u64 = 1 << 40;

/// The deadlines that a front-end may be given, in seconds.
const SHM_DEADLINES: RangeInclusive<u64> = 1..=600;

/// A vhost-user virtio-gpu back-end.
#[derive(Debug, Parser)]
#[command(
    name = "nosnoop-gpu",
    version,
    max_term_width = 100,
    args_conflicts_with_subcommands = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Subcommands>,

    /// Listen for front-ends on this Unix socket
    #[arg(long, value_name = "PATH", conflicts_with = "fd")]
    socket_path: Option<PathBuf>,

    /// Use this inherited socket, then exit when its front-end disconnects
    #[arg(long, value_name = "FDNUM")]
    fd: Option<RawFd>,

    /// Print what this build can do, as JSON, and exit
    #[arg(long)]
    print_capabilities: bool,

    /// DRM node of the GPU that blobs' memory comes from: a render node of i915, xe or amdgpu, or
    /// the card node of vgem (default: plain memory)
    #[arg(long, value_name = "PATH", conflicts_with = "blob_memory")]
    render_node: Option<PathBuf>,

    /// What blobs' memory is without a GPU: files in memory, or dma-bufs of such by /dev/udmabuf,
    /// of 64 MiB at most each unless the kernel is told otherwise (default: memfd)
    #[arg(long, value_name = "KIND", value_enum)]
    blob_memory: Option<PlainMemory>,

    #[command(flatten)]
    memory: MemoryArguments,

    /// Draw 3D with virglrenderer (in builds with the feature virgl): on the GPU of --render-node,
    /// else the one with the lowest-numbered render node in /dev/dri, or in software
    #[arg(long, value_name = "WHERE", value_enum, num_args = 0..=1, require_equals = true,
          default_missing_value = "gpu")]
    virgl: Option<GpuChoice>,

    /// Draw Vulkan with virglrenderer's Venus (in builds with the feature virgl), where --virgl draws
    /// if that is given too
    #[arg(long, value_name = "WHERE", value_enum, num_args = 0..=1, require_equals = true,
          default_missing_value = "gpu")]
    venus: Option<GpuChoice>,

    /// Give the display pictures of 3D resources as dma-bufs, without a copy. Only for a display with
    /// OpenGL on the same GPU (QEMU: -display gtk,gl=on): another would show nothing. Has not run on
    /// hardware yet
    #[arg(long, requires = "virgl")]
    dmabuf_scanout: bool,

    /// Let the guest's Wayland clients talk to the compositor that listens on this socket, through
    /// cross-domain contexts
    #[arg(long, value_name = "PATH")]
    wayland_socket: Option<PathBuf>,

    /// An output: WIDTHxHEIGHT or WIDTHxHEIGHT@HZ; repeat for up to 16. A front-end's display
    /// socket overrides it (default: 1280x800@60)
    #[arg(long = "output", value_name = "MODE", value_parser = parse_output)]
    outputs: Vec<OutputConfig>,

    /// Host memory that a guest's pictures may take: bytes, or with K, M or G (default: 512M)
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    max_hostmem: Option<u64>,

    /// Resources that a guest may have
    #[arg(long, value_name = "N", default_value_t = DEFAULT_RESOURCES)]
    max_resources: usize,

    /// Size of the region that a guest maps host blobs into: bytes, or with K, M or G; a
    /// multiple of 4K; 0 for no host blobs and no contexts (default: 8G; with --fd 0)
    #[arg(long, value_name = "SIZE", value_parser = parse_shm_size)]
    shm_size: Option<u64>,

    /// Seconds that a front-end may take to map or unmap a host blob
    #[arg(long, value_name = "SECONDS", default_value_t = 5,
          value_parser = clap::value_parser!(u64).range(SHM_DEADLINES))]
    shm_deadline: u64,

    /// Test build: memory types that images are announced with in turn, of cached, uncached and
    /// wc, with commas between. They are attributes only: the memory itself stays cached
    #[cfg(feature = "test-memtype")]
    #[arg(long, value_name = "TYPES")]
    test_memtype: Option<test_memtype::Types>,

    /// Test build: the bug to have
    #[cfg(feature = "test-bugs")]
    #[arg(long, value_name = "BUG", value_enum)]
    plant: Option<planted::Bug>,

    /// Test build: print the bugs that --plant knows, as JSON, and exit
    #[cfg(feature = "test-bugs")]
    #[arg(long)]
    print_bugs: bool,

    /// Have front-ends share guest memory as one table of at most 8 regions, mapped blobs
    /// included: then QEMU 11.1 survives the hard reset of a guest with blobs mapped
    #[arg(long)]
    no_mem_slots: bool,

    /// Exit when the first front-end disconnects
    #[arg(long)]
    once: bool,

    /// What to log to standard error
    #[arg(long, value_name = "LEVEL", default_value = "warn",
          value_parser = ["off", "error", "warn", "info", "debug", "trace"])]
    log_level: String,

    /// Where SIGUSR1 writes a picture of each output, scanout-N.png
    #[arg(long, value_name = "DIR", default_value = ".")]
    screenshot_dir: PathBuf,
}

#[derive(Debug, clap::Subcommand)]
enum Subcommands {
    /// Say what is known of this host, how blobs would be mapped on it, why, and what would
    /// change that
    Doctor {
        /// For programs
        #[arg(long)]
        json: bool,

        #[command(flatten)]
        memory: MemoryArguments,
    },

    /// What the daemon runs to see whether a 3D renderer works: in software, or on a node
    #[cfg(feature = "virgl")]
    #[command(name = proof::SUBCOMMAND, hide = true)]
    ProveRenderer {
        #[arg(long, value_name = "PATH")]
        render_node: Option<PathBuf>,
        #[arg(long = "capset", value_name = "ID")]
        capsets: Vec<u32>,
    },
}

/// What the operator decides about memory types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Args)]
struct MemoryArguments {
    /// What to do with GPU memory that is accessed without snooping CPU caches: map it
    /// write-combining where every link is known to agree, else refuse; allocate coherent memory
    /// instead of a refusal; or never use any, nor other write-combining memory that a device is not
    /// known to snoop (vgem gives way to plain memory)
    #[arg(long, value_name = "MODE", value_enum, default_value_t)]
    noncoherent: Noncoherent,

    /// Whether the VMM lets a guest's own memory type take effect: what it says and the host
    /// guarantees, or what you know
    #[arg(long, value_name = "TRUTH", value_enum, default_value_t)]
    vmm_memtype: VmmMemtype,

    /// Map write-combining also what no recorded test has shown to work on real hardware
    #[arg(long)]
    allow_unverified: bool,
}

impl MemoryArguments {
    const DEFAULT: Self = Self {
        noncoherent: Noncoherent::Auto,
        vmm_memtype: VmmMemtype::Auto,
        allow_unverified: false,
    };

    fn policy(self) -> Policy {
        Policy {
            noncoherent: self.noncoherent,
            allow_unverified: self.allow_unverified,
        }
    }
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Action {
    /// Print this text to standard output and exit with status 0.
    Print(String),
    /// Look at this host with these settings and print what is found, as JSON or as text.
    Doctor(Settings, bool),
    /// Try these capability sets of the 3D renderer on this GPU and print what works.
    #[cfg(feature = "virgl")]
    Prove(Gpu, Vec<CapsetId>),
    /// Be the daemon, logging up to this level.
    Serve(Options, log::LevelFilter),
}

/// A command line that makes no sense, in one line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(String);

/// Reads the command line, the program's name first. (In a test build `--test-memtype` and
/// `--plant` take effect here, for the whole process.)
///
/// # Errors
/// One line that says what is wrong and what to do.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Action, UsageError> {
    let parsed = match Arguments::try_parse_from(arguments) {
        Ok(parsed) => parsed,
        Err(error) if !error.use_stderr() => return Ok(Action::Print(error.to_string())),
        Err(error) => return Err(UsageError(one_line(&error))),
    };
    match parsed.command {
        Some(Subcommands::Doctor { json, memory }) => {
            let settings = Settings {
                noncoherent: memory.noncoherent,
                vmm_memtype: memory.vmm_memtype,
                allow_unverified: memory.allow_unverified,
            };
            return Ok(Action::Doctor(settings, json));
        }
        #[cfg(feature = "virgl")]
        Some(Subcommands::ProveRenderer {
            render_node,
            capsets,
        }) => {
            let gpu = render_node.map_or(Gpu::Software, Gpu::Node);
            let capsets = capsets.into_iter().map(CapsetId).collect();
            return Ok(Action::Prove(gpu, capsets));
        }
        None => {}
    }
    if parsed.print_capabilities {
        return Ok(Action::Print(format!("{CAPABILITIES}\n")));
    }
    #[cfg(feature = "test-bugs")]
    {
        if parsed.print_bugs {
            return Ok(Action::Print(format!("{}\n", planted::json())));
        }
        parsed.plant.into_iter().for_each(planted::plant);
    }
    let drawn = parsed.virgl.or(parsed.venus);
    if drawn.is_some() && !cfg!(feature = "virgl") {
        return Err(UsageError(NO_RENDERER.to_owned()));
    }
    if parsed.virgl.is_some() && parsed.venus.is_some() && parsed.virgl != parsed.venus {
        return Err(UsageError(
            "--virgl and --venus draw in one place: give both =gpu or both =software".to_owned(),
        ));
    }
    let endpoint = match (parsed.socket_path, parsed.fd) {
        (Some(path), None) => Endpoint::Path(path),
        (None, Some(number)) => Endpoint::Fd(number),
        _ => {
            return Err(UsageError(
                "give either --socket-path PATH or --fd FDNUM".to_owned(),
            ));
        }
    };
    let outputs = if parsed.outputs.is_empty() {
        vec![DEFAULT_OUTPUT]
    } else {
        parsed.outputs
    };
    if outputs.len() > MAX_SCANOUTS {
        return Err(UsageError(format!(
            "{} outputs were given; a virtio-gpu device has at most {MAX_SCANOUTS}",
            outputs.len()
        )));
    }
    #[cfg(feature = "test-memtype")]
    if let Some(types) = parsed.test_memtype {
        test_memtype::announce(types);
    }
    #[cfg(feature = "virgl")]
    let renderer = {
        let node = parsed.render_node.clone();
        let mut capsets = Vec::new();
        if parsed.virgl.is_some() {
            capsets.extend(OPENGL);
        }
        if parsed.venus.is_some() {
            capsets.push(native::VENUS);
        }
        drawn.map(|choice| native::starter(choice, node, capsets))
    };
    #[cfg(not(feature = "virgl"))]
    let renderer = None;
    // A renderer on the node is reason enough to name it.
    let blobs = (parsed.render_node.is_some() && drawn != Some(GpuChoice::Gpu))
        || parsed.blob_memory.is_some()
        || parsed.memory != MemoryArguments::DEFAULT;
    if blobs && parsed.shm_size == Some(0) {
        return Err(UsageError(
            "--shm-size 0 leaves no blobs for --render-node, --blob-memory, --noncoherent, \
             --vmm-memtype or --allow-unverified: leave one or the other out"
                .to_owned(),
        ));
    }
    for (option, given, what) in [
        (
            "--wayland-socket",
            parsed.wayland_socket.is_some(),
            "no cross-domain contexts",
        ),
        ("--venus", parsed.venus.is_some(), "no memory"),
    ] {
        if given && parsed.shm_size == Some(0) {
            return Err(UsageError(format!(
                "--shm-size 0 leaves {what} for {option}: leave one out"
            )));
        }
    }
    let shared = blobs || parsed.wayland_socket.is_some() || parsed.venus.is_some();
    if parsed.memory.allow_unverified && parsed.memory.noncoherent == Noncoherent::Off {
        return Err(UsageError(
            "--noncoherent=off uses no memory that --allow-unverified could allow: leave one out"
                .to_owned(),
        ));
    }
    let memory = Choice {
        place: match parsed.render_node {
            Some(path) => Place::Node(path),
            None => Place::Plain(parsed.blob_memory.unwrap_or_default()),
        },
        vmm: parsed.memory.vmm_memtype,
        policy: parsed.memory.policy(),
    };
    // Who hands a socket over is libvirt, and pairs it with QEMU's vhost-user-gpu. That one has no
    // shared memory and passes VIRGL on without CONTEXT_INIT: Mesa would take it for 3D.
    let default_shm_size = match endpoint {
        Endpoint::Path(_) => DEFAULT_SHM_SIZE,
        Endpoint::Fd(_) if shared => DEFAULT_SHM_SIZE,
        Endpoint::Fd(_) => 0,
    };
    let options = Options {
        endpoint,
        once: parsed.once,
        outputs,
        dmabufs: parsed.dmabuf_scanout,
        limits: Limits {
            hostmem: parsed.max_hostmem.unwrap_or(DEFAULT_HOSTMEM),
            resources: parsed.max_resources,
            ..Limits::default()
        },
        shm_size: parsed.shm_size.unwrap_or(default_shm_size),
        mem_slots: !parsed.no_mem_slots,
        shm_deadline: Duration::from_secs(parsed.shm_deadline),
        memory,
        wayland_socket: parsed.wayland_socket,
        screenshot_dir: parsed.screenshot_dir,
        renderer,
    };
    // The parser has allowed nothing that is not a level.
    let level = parsed.log_level.parse().unwrap_or(log::LevelFilter::Warn);
    Ok(Action::Serve(options, level))
}

/// The first paragraph of the parser's message, which says what is wrong, as one line.
fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let paragraph = text.split("\n\n").next().unwrap_or_default();
    let line = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = line.strip_prefix("error: ").unwrap_or(&line);
    format!("{line}; see --help")
}

fn parse_output(text: &str) -> Result<OutputConfig, String> {
    let (size, refresh) = text.split_once('@').unwrap_or((text, "60"));
    let parsed = size.split_once('x').and_then(|(width, height)| {
        let width = width.parse().ok()?;
        let height = height.parse().ok()?;
        Some((Size { width, height }, refresh.parse().ok()?))
    });
    let Some((size, refresh_hz)) = parsed else {
        return Err(
            "write an output as WIDTHxHEIGHT or WIDTHxHEIGHT@HZ, as in 1920x1080@60".into(),
        );
    };
    let edges = 1..=MAX_EDGE;
    if !edges.contains(&size.width) || !edges.contains(&size.height) {
        return Err(format!("width and height must be from 1 to {MAX_EDGE}"));
    }
    if !REFRESH_RANGE.contains(&refresh_hz) {
        let (least, most) = (REFRESH_RANGE.start(), REFRESH_RANGE.end());
        return Err(format!(
            "the refresh rate must be from {least} to {most} Hz"
        ));
    }
    Ok(OutputConfig { size, refresh_hz })
}

fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (text.get(..at), 10),
        Some((at, 'm' | 'M')) => (text.get(..at), 20),
        Some((at, 'g' | 'G')) => (text.get(..at), 30),
        _ => (Some(text), 0),
    };
    digits
        .and_then(|digits| digits.parse::<u64>().ok())
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| "write a size as bytes or with K, M or G, as in 512M".to_owned())
}

fn parse_shm_size(text: &str) -> Result<u64, String> {
    let size = parse_size(text)?;
    if size > MAX_SHM_SIZE || !size.is_multiple_of(SHM_ALIGNMENT) {
        return Err("the region must be a multiple of 4K, up to 1024G".to_owned());
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(arguments: &[&str]) -> Result<Action, UsageError> {
        parse(
            std::iter::once("nosnoop-gpu")
                .chain(arguments.iter().copied())
                .map(OsString::from),
        )
    }

    fn options(arguments: &[&str]) -> Options {
        match run(arguments).unwrap() {
            Action::Serve(options, _) => options,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_socket_path_alone_gives_one_output_and_the_default_quotas() {
        let options = options(&["--socket-path=/tmp/s"]);
        assert_eq!(options.endpoint, Endpoint::Path("/tmp/s".into()));
        assert_eq!(options.outputs.len(), 1);
        assert_eq!(options.limits.hostmem, 512 << 20);
        assert!(!options.once);
        assert_eq!(options.shm_size, 8 << 30);
        assert!(options.mem_slots);
        assert_eq!(options.shm_deadline, Duration::from_secs(5));
    }

    #[test]
    fn outputs_are_read_with_and_without_refresh() {
        let options = options(&["--fd", "5", "--output", "640x480", "--output=3840x2160@120"]);
        assert_eq!(options.endpoint, Endpoint::Fd(5));
        let read: Vec<_> = options
            .outputs
            .iter()
            .map(|output| (output.size.width, output.size.height, output.refresh_hz))
            .collect();
        assert_eq!(read, [(640, 480, 60), (3840, 2160, 120)]);
    }

    #[test]
    fn sizes_are_read_with_every_unit() {
        for (text, bytes) in [("7", 7), ("2K", 2 << 10), ("3m", 3 << 20), ("1G", 1 << 30)] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "M", "-1", "1T", "99999999999G", "é"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_region_for_host_blobs_has_size_and_deadline() {
        let given = options(&["--fd=5", "--shm-size=8G", "--shm-deadline=30"]);
        assert_eq!(given.shm_size, 8 << 30);
        assert_eq!(given.shm_deadline, Duration::from_secs(30));
        assert_eq!(options(&["--fd=5"]).shm_size, 0);
        assert_eq!(options(&["--socket-path=/s", "--shm-size=0"]).shm_size, 0);
        assert!(!options(&["--fd=5", "--no-mem-slots"]).mem_slots);
        let node = options(&["--fd=5", "--render-node=/dev/dri/card0"]);
        assert_eq!(node.shm_size, 8 << 30);
        assert_eq!(node.memory.place, Place::Node("/dev/dri/card0".into()));
        let udmabuf = options(&["--fd=5", "--blob-memory=udmabuf"]);
        assert_eq!(udmabuf.shm_size, 8 << 30);
        let place = Place::Plain(PlainMemory::Udmabuf);
        assert_eq!(udmabuf.memory.place, place);
        let plain = options(&["--socket-path=/s"]).memory.place;
        assert_eq!(plain, Place::Plain(PlainMemory::Memfd));
        let wayland = options(&["--fd=5", "--wayland-socket=/run/w"]);
        assert_eq!(wayland.shm_size, 8 << 30);
        assert_eq!(wayland.wayland_socket, Some("/run/w".into()));
        assert_eq!(parse_shm_size("4K"), Ok(4096));
        assert_eq!(parse_shm_size("1024G"), Ok(1 << 40));
    }

    #[test]
    fn bad_command_lines_are_refused_in_one_line() {
        let many = vec!["--socket-path=/s"; 1]
            .into_iter()
            .chain(std::iter::repeat_n("--output=64x64", 17))
            .collect::<Vec<_>>();
        let cases: [(&[&str], &str); 25] = [
            (&[], "--socket-path"),
            (&["--socket-path=/s", "--fd=3"], "--fd"),
            (&["--fd=x"], "--fd"),
            (&["--socket-path=/s", "--output=0x5"], "from 1 to"),
            (&["--socket-path=/s", "--output=5"], "WIDTHxHEIGHT"),
            (&["--socket-path=/s", "--output=5x5@0"], "refresh"),
            (&["--socket-path=/s", "--virgl=cpu"], "--virgl"),
            (&["--socket-path=/s", "--dmabuf-scanout"], "--virgl"),
            (&["--socket-path=/s", "--noncoherent=on"], "noncoherent"),
            (&["--socket-path=/s", "--vmm-memtype=yes"], "vmm-memtype"),
            (
                &["--fd=5", "--shm-size=0", "--render-node=/dev/dri/card0"],
                "leave one or the other out",
            ),
            (
                &["--fd=5", "--shm-size=0", "--blob-memory=memfd"],
                "leave one",
            ),
            (
                &["--fd=5", "--shm-size=0", "--wayland-socket=/run/w"],
                "--wayland-socket: leave one out",
            ),
            (&["--fd=5", "--blob-memory=shm"], "possible values: memfd"),
            (
                &["--fd=5", "--blob-memory=udmabuf", "--render-node=/n"],
                "cannot be used with",
            ),
            (
                &["--fd=5", "--noncoherent=off", "--allow-unverified"],
                "leave one out",
            ),
            (&["doctor", "--socket-path=/s"], "--socket-path"),
            (&["--socket-path=/s", "doctor"], "doctor"),
            (&["--socket-path=/s", "--nonsense"], "--nonsense"),
            (&many, "at most 16"),
            (&["--fd=5", "--shm-size=1T"], "K, M or G"),
            (&["--fd=5", "--shm-size=5000"], "multiple of 4K"),
            (&["--fd=5", "--shm-size=1025G"], "up to 1024G"),
            (&["--fd=5", "--shm-deadline=0"], "--shm-deadline"),
            (&["--fd=5", "--shm-deadline=601"], "1..=600"),
        ];
        for (arguments, expected) in cases {
            let message = run(arguments).unwrap_err().to_string();
            assert!(message.contains(expected), "{arguments:?}: {message}");
            assert!(!message.contains('\n'), "{arguments:?}: {message}");
        }
    }

    #[test]
    fn the_doctor_takes_what_the_daemon_takes_about_memory() {
        let arguments = [
            "doctor",
            "--json",
            "--vmm-memtype=honored",
            "--noncoherent=coerce",
        ];
        let Ok(Action::Doctor(settings, true)) = run(&arguments) else {
            panic!()
        };
        assert_eq!(settings.vmm_memtype, VmmMemtype::Honored);
        assert_eq!(settings.noncoherent, Noncoherent::Coerce);
        assert!(!settings.allow_unverified);
    }

    #[test]
    fn capabilities_are_the_json_that_libvirt_reads() {
        let Ok(Action::Print(text)) = run(&["--print-capabilities"]) else {
            panic!()
        };
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let features: &[&str] = match cfg!(feature = "virgl") {
            true => &["render-node", "virgl"],
            false => &[],
        };
        let expected = serde_json::json!({ "type": "gpu", "features": features });
        assert_eq!(json, expected);
    }

    #[cfg(not(feature = "virgl"))]
    #[test]
    fn a_build_without_a_3d_renderer_says_how_to_get_one() {
        for option in ["--virgl", "--virgl=gpu", "--virgl=software", "--venus"] {
            let said = run(&["--socket-path=/s", option]).unwrap_err().to_string();
            for word in ["--features virgl", "libvirglrenderer-dev"] {
                assert!(said.contains(word), "{said}");
            }
            assert!(!said.contains('\n'), "{said}");
        }
    }

    #[cfg(feature = "virgl")]
    #[test]
    fn there_is_a_3d_renderer_where_one_is_asked_for() {
        let renderer = |option| options(&["--socket-path=/s", option]).renderer;
        for option in ["--virgl", "--virgl=gpu", "--virgl=software", "--venus"] {
            assert!(renderer(option).is_some(), "{option}");
        }
        assert!(renderer("--once").is_none());
        // libvirt names the renderer's GPU so, and has no shared memory.
        let of_libvirt = options(&["--fd=5", "--virgl", "--render-node=/n"]);
        assert_eq!(of_libvirt.shm_size, 0);
        assert_eq!(options(&["--fd=5", "--venus"]).shm_size, 8 << 30);
        let said = run(&["--fd=5", "--venus", "--shm-size=0"]).unwrap_err();
        assert!(said.to_string().contains("no memory for --venus"), "{said}");
        let Ok(Action::Prove(gpu, _)) = run(&[proof::SUBCOMMAND, "--render-node=/n"]) else {
            panic!()
        };
        assert_eq!(gpu, Gpu::Node("/n".into()));
    }
}
