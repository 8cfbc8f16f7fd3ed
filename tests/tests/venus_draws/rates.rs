//! What Venus costs; no test, `--ignored --nocapture` prints it.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use super::kit::{self, context};
use nosnoop_tests::frontend::cross_domain::host_blob;
use nosnoop_tests::frontend::three_d::{Line, fenced_submit};
use nosnoop_tests::frontend::venus::{Ring, Words, cmd};
use nosnoop_tests::frontend::{ImageContext, Result, Rig, request};

/// How long each number is measured.
const SPAN: Duration = Duration::from_secs(3);

/// Does something again and again, and prints its latencies.
fn measure(what: &str, mut once: impl FnMut() -> Result<()>) -> Result<()> {
    let mut all = Vec::new();
    let start = Instant::now();
    while start.elapsed() < SPAN {
        let one = Instant::now();
        once()?;
        all.push(one.elapsed());
    }
    all.sort_unstable();
    let (middle, worst) = (all[all.len() / 2], all[all.len() * 99 / 100]);
    println!("{what}: p50 {middle:.1?}, p99 {worst:.1?} of {}", all.len());
    Ok(())
}

/// A byte to another thread and back: what any answer of another thread costs.
fn another_thread() -> Result<()> {
    let (mut there, far) = std::io::pipe().unwrap();
    let (back, mut here) = std::io::pipe().unwrap();
    let (mut far, mut back) = (far, back);
    let echo = std::thread::spawn(move || {
        let mut byte = [0];
        while there.read(&mut byte).unwrap() > 0 {
            here.write_all(&byte).unwrap();
        }
    });
    measure("a byte to a thread and back", || {
        far.write_all(&[1]).unwrap();
        back.read_exact(&mut [0]).unwrap();
        Ok(())
    })?;
    drop(far);
    echo.join().unwrap();
    Ok(())
}

/// Maps and unmaps a blob.
fn map(rig: &mut Rig, resource: u32) -> Result<()> {
    rig.gpu.map_blob(resource, 0)?;
    rig.gpu.unmap_blob(resource)
}

/// Makes, maps, unmaps and lets go of a blob.
fn blob(rig: &mut Rig, create: &[u8], resource: u32) -> Result<()> {
    rig.gpu.command("RESOURCE_CREATE_BLOB", create)?;
    map(rig, resource)?;
    rig.gpu.unref(resource)
}

#[test]
#[ignore = "a measurement: run it alone, with a release daemon, with --nocapture"]
fn round_trips_and_mappings() -> Result<()> {
    let Some(mut rig) = kit::start() else {
        return Ok(());
    };
    let mut venus = context(&mut rig, 1)?;
    measure("a system call", || {
        std::hint::black_box(rustix::process::getppid());
        Ok(())
    })?;
    let mut copy = vec![0_u8; 1 << 16];
    measure("memcpy of 64 KiB", || {
        let from = std::hint::black_box(vec![1_u8; 1 << 16]);
        copy.copy_from_slice(&from);
        Ok(())
    })?;
    another_thread()?;
    measure("a command of 2D", || rig.gpu.display_info().map(|_| ()))?;
    let empty = request::submit_3d(1, &[]);
    measure("SUBMIT_3D, empty", || rig.gpu.command("SUBMIT_3D", &empty))?;
    let fenced = fenced_submit(1, &[], 1, Line::Ring(0));
    measure("SUBMIT_3D, empty, fence on ring 0", || {
        rig.gpu.command("SUBMIT_3D", &fenced)
    })?;
    measure("version with its reply, SUBMIT_3D", || {
        venus.version(&mut rig).map(|_| ())
    })?;
    for (resource, timeout, what) in [(500, 1 << 40, "awake"), (502, 0, "asleep")] {
        let at = u64::from(resource) << 20;
        let mut ring = Ring::new(&mut rig, &mut venus, resource, at, timeout)?;
        let command = Words::command(cmd::ENUMERATE_INSTANCE_VERSION).pointer();
        measure(&format!("version with its reply, a ring {what}"), || {
            ring.call(&mut rig, command.clone()).map(|_| ())
        })?;
        venus.send(&mut rig, &ring.destroy())?;
    }
    let images = ImageContext::new(&mut rig.gpu, 3, 30)?;
    let image = images.blob_of(&mut rig.gpu, 31, 1 << 16)?;
    measure("map and unmap, our allocator's 64 KiB", || {
        map(&mut rig, 31)
    })?;
    rig.gpu.unref(31)?;
    let ours = images.blob_request(40, &image);
    measure("blob of our allocator, 64 KiB, made to gone", || {
        blob(&mut rig, &ours, 40)
    })?;
    let shared = host_blob(1, 40, 0, 1 << 16);
    rig.gpu.command("RESOURCE_CREATE_BLOB", &shared)?;
    measure("map and unmap, Venus' shared memory, 64 KiB", || {
        map(&mut rig, 40)
    })?;
    rig.gpu.unref(40)?;
    measure("blob of Venus, shared memory, 64 KiB, made to gone", || {
        blob(&mut rig, &shared, 40)
    })?;
    if kit::memory_maps() {
        let made = kit::device(&mut rig, 2)?;
        let (mut other, device) = made;
        let of = device.memory_type(u32::MAX, 0)?;
        measure(
            "blob of Venus, Vulkan memory, 64 KiB, allocated to gone",
            || {
                let memory = other.allocate(&mut rig, &device, of, 1 << 16, &[])?;
                blob(&mut rig, &host_blob(2, 40, memory, 1 << 16), 40)?;
                other.free(&mut rig, &device, memory)
            },
        )?;
    }
    rig.finish()
}
