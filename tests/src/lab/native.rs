//! Rates of a backend without a virtual machine: the built-in driver on the machine's own
//! processor, so that what is measured is the backend and not an emulated guest.

use std::time::{Duration, Instant};

use super::backend::Backend;
use super::measure::Rate;
use super::{LabError, Result};
use crate::frontend::driver::Resource;
use crate::frontend::{Rect, Session, request};

/// How long each rate is measured.
const SPAN: Duration = Duration::from_secs(2);

/// Commands that wait in the queue at the same time.
const OUTSTANDING: usize = 64;

/// The picture that is transferred and flushed.
const WIDTH: u32 = 1024;
const HEIGHT: u32 = 768;

/// `B8G8R8X8_UNORM`.
const FORMAT: u32 = 2;

const RESOURCE: u32 = 1;

/// Measures a backend that nobody is connected to yet.
///
/// # Errors
/// When the backend fails or refuses a command.
pub(super) fn rates(backend: &Backend) -> Result<Vec<Rate>> {
    let failed = || LabError::context(backend.kind().name());
    let mut session = Session::start(backend.socket()).map_err(failed())?;
    let gpu = &mut session.gpu;
    let picture = gpu
        .create_picture(RESOURCE, FORMAT, WIDTH, HEIGHT)
        .map_err(failed())?;
    gpu.set_scanout(0, RESOURCE, picture.rect())
        .map_err(failed())?;
    let whole = picture.rect();
    let small = Rect {
        x: 32,
        y: 32,
        width: 64,
        height: 64,
    };
    let pixel = Rect {
        x: 0,
        y: 0,
        width: 1,
        height: 1,
    };
    let flush = |rect: Rect| request::flush(RESOURCE, rect);
    let transfer =
        |rect: Rect| request::transfer_to_host_2d(RESOURCE, rect, offset(&picture, rect));
    let cases = [
        (
            "native: small command, 64 outstanding",
            OUTSTANDING,
            vec![transfer(pixel)],
        ),
        (
            "native: small command, one by one",
            1,
            vec![transfer(pixel)],
        ),
        ("native: transfer 1024x768", 1, vec![transfer(whole)]),
        (
            "native: transfer+flush 1024x768",
            1,
            vec![transfer(whole), flush(whole)],
        ),
        (
            "native: transfer+flush 64x64",
            1,
            vec![transfer(small), flush(small)],
        ),
    ];
    let mut rates = Vec::new();
    for (what, outstanding, requests) in cases {
        let before = backend.usage()?.cpu_nanos;
        let start = Instant::now();
        let mut count = 0;
        while start.elapsed() < SPAN {
            let mut tickets = Vec::with_capacity(outstanding * requests.len());
            for _ in 0..outstanding {
                for request in &requests {
                    tickets.push(gpu.queue(request).map_err(failed())?);
                }
                count += 1;
            }
            gpu.finish(&tickets).map_err(failed())?;
        }
        let per_second = count as f64 / start.elapsed().as_secs_f64();
        let backend_cpu_nanos = backend.usage()?.cpu_nanos - before;
        rates.push(Rate {
            what: what.to_owned(),
            count,
            per_second,
            backend_cpu_nanos,
        });
    }
    rates.push(copy());
    Ok(rates)
}

/// What the machine itself can do: one copy of the same picture.
fn copy() -> Rate {
    let from = vec![1_u8; (WIDTH * HEIGHT * 4) as usize];
    let mut to = vec![0_u8; from.len()];
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed() < SPAN {
        to.copy_from_slice(std::hint::black_box(&from));
        std::hint::black_box(&mut to);
        count += 1;
    }
    let per_second = count as f64 / start.elapsed().as_secs_f64();
    let what = "native: memcpy 1024x768 (limit)".to_owned();
    Rate {
        what,
        count,
        per_second,
        backend_cpu_nanos: 0,
    }
}

fn offset(picture: &Resource, rect: Rect) -> u64 {
    (u64::from(rect.y) * u64::from(picture.width) + u64::from(rect.x)) * 4
}
