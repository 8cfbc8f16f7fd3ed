//! How fast submissions and fences are; no test, `--ignored --nocapture` prints it.

use std::time::{Duration, Instant};

use super::kit::{BGRA, Batch, RED, Target, all_good, draw, plain, start};
use nosnoop_tests::frontend::three_d::{Line, fenced_submit};
use nosnoop_tests::frontend::virgl::Stream;
use nosnoop_tests::frontend::{Result, Rig, request};

/// How long each number is measured.
const SPAN: Duration = Duration::from_secs(3);

/// Latencies at the middle and at the 99th of a hundred.
fn quantiles(mut all: Vec<Duration>) -> (Duration, Duration) {
    all.sort_unstable();
    (all[all.len() / 2], all[all.len() * 99 / 100])
}

/// One at a time, each waited for.
fn alone(rig: &mut Rig, what: &str, request: &[u8]) -> Result<()> {
    let mut latencies = Vec::new();
    let start = Instant::now();
    while start.elapsed() < SPAN {
        let one = Instant::now();
        rig.gpu.command("SUBMIT_3D", request)?;
        latencies.push(one.elapsed());
    }
    let rate = latencies.len() as f64 / start.elapsed().as_secs_f64();
    let (middle, worst) = quantiles(latencies);
    println!("{what}: {rate:.0} per second, p50 {middle:.1?}, p99 {worst:.1?}");
    Ok(())
}

/// Many at a time: 64 in flight.
fn many(rig: &mut Rig, what: &str, requests: impl Fn(u64) -> Vec<u8>) -> Result<()> {
    let (mut count, start) = (0, Instant::now());
    while start.elapsed() < SPAN {
        let mut batch = Batch::default();
        for _ in 0..64 {
            batch.push(&mut rig.gpu, &requests(count))?;
            count += 1;
        }
        all_good(&batch.answers(&mut rig.gpu)?);
    }
    let rate = count as f64 / start.elapsed().as_secs_f64();
    println!("{what}, 64 at a time: {rate:.0} per second");
    Ok(())
}

#[test]
#[ignore = "a measurement: run it alone, in release, with --nocapture"]
fn submissions_and_fences() -> Result<()> {
    let Some(mut rig) = start(&plain(None)) else {
        return Ok(());
    };
    rig.gpu.create_context(1, 0)?;
    let target = Target::new(&mut rig.gpu, 1, 1, BGRA, (64, 64))?;
    draw(&mut rig.gpu, 1, &target.begin())?;
    let clear = Stream::new().clear(RED).bytes();
    let fenced = |data: &[u8], id: u64| fenced_submit(1, data, id, Line::Global);
    alone(&mut rig, "SUBMIT_3D, empty", &request::submit_3d(1, &[]))?;
    alone(
        &mut rig,
        "SUBMIT_3D, a clear",
        &request::submit_3d(1, &clear),
    )?;
    alone(&mut rig, "fence, nothing to do", &fenced(&[], 1))?;
    alone(&mut rig, "fence, a clear of 64x64", &fenced(&clear, 1))?;
    many(&mut rig, "SUBMIT_3D, a clear", |_| {
        request::submit_3d(1, &clear).to_vec()
    })?;
    many(&mut rig, "fences, a clear", |id| {
        fenced(&clear, id).to_vec()
    })?;
    rig.finish()
}
