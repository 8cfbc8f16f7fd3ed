//! The 3D renderer of virglrenderer on software Mesa: how it starts, and what happens where it does not.
//!
//! The libraries come from the lab's root with OpenGL; where that cannot be had these tests print a line
//! that begins with `SKIPPED: ` and the reason.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::print_stdout,
    reason = "test code: a broken expectation is to stop the test loudly"
)]

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};

use nosnoop_tests::frontend::message::u32_at;
use nosnoop_tests::frontend::request;
use nosnoop_tests::frontend::response::{self, resp};
use nosnoop_tests::frontend::{Daemon, Result, Rig, SessionOptions};
use nosnoop_tests::lab::LabError;
use nosnoop_tests::lab::gl::GlRoot;
use nosnoop_tests::lab::programs::Profile;

const VIRGL: u32 = 1;
const VIRGL2: u32 = 2;
const CROSS_DOMAIN: u32 = 5;

const HEADER: usize = 24;

/// Bytes of virglrenderer 1.3's capability sets; later versions may have more.
const VIRGL_BYTES: usize = 308;
const VIRGL2_BYTES: usize = 1384;

/// One nested cargo at a time: others wait for its lock anyway, and say so.
static CARGO: Mutex<()> = Mutex::new(());

/// The root with OpenGL, or `None` after a line that says why there is none.
fn gl() -> Option<GlRoot> {
    match GlRoot::find_or_fetch() {
        Ok(gl) => Some(gl),
        Err(LabError::Unavailable(why)) => {
            println!("SKIPPED: no OpenGL: {why}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// The daemon with a 3D renderer, with these arguments; `None` where there can be none.
fn program(arguments: &[&str]) -> Option<Command> {
    let gl = gl()?;
    let _turn = CARGO.lock().unwrap_or_else(PoisonError::into_inner);
    let mut command = Command::new(gl.daemon(Profile::Quick).unwrap());
    command.args(arguments).stdin(Stdio::null());
    Some(command)
}

fn start(command: Command) -> Result<Rig> {
    let daemon = Daemon::start_command(command, &["--socket-path"])?;
    Rig::on(daemon, &SessionOptions::host_blobs())
}

/// Id, highest version and bytes of each capability set.
fn capsets(rig: &mut Rig) -> Result<Vec<[u32; 3]>> {
    let config = rig.vhost.config(0, 16)?;
    let count = u32_at(&config, 12);
    (0..count)
        .map(|index| {
            let info = request::get_capset_info(index);
            let info = rig.gpu.call(&info, response::CAPSET_INFO)?;
            let info = info.expect("GET_CAPSET_INFO", resp::OK_CAPSET_INFO)?;
            Ok(info.capset_info())
        })
        .collect()
}

#[test]
fn capability_sets_contexts_and_fences_are_there() -> Result<()> {
    let Some(command) = program(&["--virgl=software"]) else {
        return Ok(());
    };
    let mut rig = start(command)?;
    let found = capsets(&mut rig)?;
    let ids: Vec<_> = found.iter().map(|[id, ..]| *id).collect();
    assert_eq!(ids, [VIRGL, VIRGL2, CROSS_DOMAIN]);
    for (at, least) in [(0, VIRGL_BYTES), (1, VIRGL2_BYTES)] {
        let [id, version, size] = found[at];
        let size = usize::try_from(size).unwrap();
        assert!(size >= least, "{id}: {size}");
        let set = rig
            .gpu
            .call(&request::get_capset(id, version), HEADER + size)?;
        let set = set.expect("GET_CAPSET", resp::OK_CAPSET)?;
        assert_eq!(set.written(), HEADER + size);
        let contents = &set.bytes()[HEADER..];
        // Each begins with the version up to which it is filled in.
        assert_eq!(u32_at(contents, 0), version);
        assert!(contents[4..].iter().any(|&byte| byte != 0), "{id}");
    }
    for (context, capset) in [(1, VIRGL), (2, VIRGL2), (3, 0)] {
        rig.gpu.create_context(context, capset)?;
        let submit = request::submit_3d(context, &[]);
        for request in [submit.clone().fenced(7), submit.fenced(8).on_ring(0)] {
            let answer = rig.gpu.call(&request, HEADER)?;
            let answer = answer.expect("SUBMIT_3D", resp::OK_NODATA)?;
            assert!(answer.flags() & request::FLAG_FENCE != 0);
        }
    }
    rig.finish()
}

/// There is only ring 0 in a context of virgl.
#[test]
fn a_fence_that_cannot_be_made_completes_its_command_all_the_same() -> Result<()> {
    let Some(command) = program(&["--virgl=software"]) else {
        return Ok(());
    };
    let mut rig = start(command)?;
    rig.gpu.create_context(1, VIRGL2)?;
    let submit = request::submit_3d(1, &[]).fenced(1).on_ring(9);
    // Answered, whatever the answer: a guest that waits for it must not wait for ever.
    let answer = rig.gpu.call(&submit, HEADER)?;
    assert_eq!(answer.fence_id(), 1);
    rig.gpu.submit_3d(1, &[])?;
    rig.finish()
}

#[test]
fn streams_that_are_not_whole_words_are_refused() -> Result<()> {
    let Some(command) = program(&["--virgl=software"]) else {
        return Ok(());
    };
    let mut rig = start(command)?;
    rig.gpu.create_context(1, VIRGL2)?;
    for len in [1, 2, 3, 5, 4097] {
        let answer = rig.gpu.answer(&request::submit_3d(1, &vec![0; len]))?;
        assert!(answer >= resp::ERR_UNSPEC, "{len}: {answer:#x}");
    }
    rig.finish()
}

/// llvmpipe has no memory that it could export.
#[test]
fn a_host_blob_of_a_driver_without_exports_is_refused() -> Result<()> {
    let Some(command) = program(&["--virgl=software"]) else {
        return Ok(());
    };
    let mut rig = start(command)?;
    rig.gpu.create_context(1, VIRGL2)?;
    let blob = request::CreateBlob {
        resource: 5,
        mem: 2,
        flags: 1,
        count: 0,
        blob_id: 1,
        size: 4096,
    };
    let create = request::create_blob(blob, &[]).in_context(1);
    for _ in 0..2 {
        let answer = rig.gpu.answer(&create)?;
        assert!(answer >= resp::ERR_UNSPEC, "{answer:#x}");
    }
    // The id is still free.
    rig.gpu.create_2d(5, 1, 8, 8)?;
    rig.finish()
}

#[test]
fn without_a_driver_the_device_goes_on_in_2d_and_says_so() -> Result<()> {
    let Some(mut command) = program(&["--virgl=software"]) else {
        return Ok(());
    };
    let nothing = tempfile::tempdir().unwrap();
    command.env("__EGL_VENDOR_LIBRARY_DIRS", nothing.path());
    let mut rig = start(command)?;
    let ids: Vec<_> = capsets(&mut rig)?.iter().map(|[id, ..]| *id).collect();
    assert_eq!(ids, [CROSS_DOMAIN]);
    let said = rig.daemon.stderr();
    for line in [
        "the capability set VIRGL is not offered: virglrenderer does not start",
        "the capability set VIRGL2 is not offered: virglrenderer does not start",
        "going on with 2D only",
    ] {
        assert_eq!(said.matches(line).count(), 1, "{line}: {said}");
    }
    assert_eq!(said.lines().count(), 3, "{said}");
    let submit = rig.gpu.answer(&request::submit_3d(1, &[]))?;
    assert!(submit >= resp::ERR_UNSPEC);
    rig.finish()
}

/// What a command line says that is refused: one line, and a bad status.
fn refused(mut command: Command) -> String {
    let Output { status, stderr, .. } = command.output().unwrap();
    let said = String::from_utf8(stderr).unwrap();
    assert!(status.code().is_some_and(|code| code != 0), "{status}");
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

#[test]
fn a_gpu_that_is_not_there_is_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s").display().to_string();
    let mut cases = vec![
        (
            vec!["--virgl", "--render-node=/dev/null", "--shm-size=0"],
            "/dev/null",
        ),
        (
            vec!["--virgl", "--render-node=/no/node", "--shm-size=0"],
            "/no/node",
        ),
    ];
    if Path::new("/dev/dri").exists() {
        println!("not tried: a machine without a GPU");
    } else {
        cases.push((vec!["--virgl"], "no render node"));
    }
    for (arguments, expected) in cases {
        let Some(mut command) = program(&arguments) else {
            return;
        };
        command.args(["--socket-path", &socket]);
        let said = refused(command);
        assert!(said.contains(expected), "{said}");
        assert!(said.contains("--virgl=software"), "{said}");
    }
    assert!(!Path::new(&socket).exists());
}

#[test]
fn the_build_says_what_it_can_do() {
    let Some(mut command) = program(&["--print-capabilities"]) else {
        return;
    };
    let output = command.output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected = serde_json::json!({ "type": "gpu", "features": ["render-node", "virgl"] });
    assert_eq!(json, expected);
}

#[test]
fn a_build_without_the_library_says_which_package_is_missing() {
    let Some(gl) = gl() else {
        return;
    };
    let _turn = CARGO.lock().unwrap_or_else(PoisonError::into_inner);
    let nothing = tempfile::tempdir().unwrap();
    let output = gl
        .cargo("check")
        .env("PKG_CONFIG_LIBDIR", nothing.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(
        said.contains("install the Debian package libvirglrenderer-dev"),
        "{said}"
    );
}

/// The ordinary checks see the code without the feature only.
#[test]
fn the_feature_passes_clippy_and_its_own_tests() {
    let Some(gl) = gl() else {
        return;
    };
    let _turn = CARGO.lock().unwrap_or_else(PoisonError::into_inner);
    let clippy = gl
        .cargo("clippy")
        .args(["--all-targets", "--", "-D", "warnings"])
        .output();
    succeeded(&clippy.unwrap());
    let tests = gl
        .cargo("test")
        .args(["--lib", "--", "render::", "cli::"])
        .output()
        .unwrap();
    succeeded(&tests);
    let said = String::from_utf8_lossy(&tests.stdout);
    assert!(!said.contains("running 0 tests"), "{said}");
}

fn succeeded(output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

/// What is built without the feature needs no library of the system's, nor the crates that look for one.
#[test]
fn the_ordinary_build_has_no_native_renderer() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let tree = |features: &[&str]| {
        let output = Command::new(&cargo)
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .args(["tree", "--offline", "-p", "nosnoop-gpu", "--prefix", "none"])
            .args(["-e", "normal,build"])
            .args(features)
            .output()
            .unwrap();
        succeeded(&output);
        String::from_utf8(output.stdout).unwrap()
    };
    for name in ["rutabaga_gfx", "pkg-config"] {
        assert!(!tree(&[]).contains(name), "{name}");
        assert!(tree(&["--features", "virgl"]).contains(name), "{name}");
    }
}
