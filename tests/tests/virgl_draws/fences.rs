//! Fences: many outstanding, on several timelines, with the context or the device going away.

use super::kit::{
    BGRA, Batch, RED, Target, all_good, check_draws, corners, draw, plain, start, typed,
};
use nosnoop_tests::frontend::message::u32_at;
use nosnoop_tests::frontend::request::{self, FLAG_FENCE, FLAG_INFO_RING_IDX};
use nosnoop_tests::frontend::response::resp;
use nosnoop_tests::frontend::three_d::{Line, fenced_submit};
use nosnoop_tests::frontend::virgl::{self, CAPSET_VIRGL2, Stream, Vertex};
use nosnoop_tests::frontend::{Gpu, Response, Result};

/// Two contexts, each with a picture to draw into and ready to draw triangles.
fn two_contexts(gpu: &mut Gpu, capset: u32) -> Result<()> {
    for context in [1, 2] {
        gpu.create_context(context, capset)?;
        let target = Target::new(gpu, context, context, BGRA, (1024, 1024))?;
        let square = [
            (-1., -1.),
            (1., -1.),
            (1., 1.),
            (-1., -1.),
            (1., 1.),
            (-1., 1.),
        ];
        let square = square.map(|(x, y)| Vertex::new(x, y, RED));
        corners(gpu, context, 10 + context, &square)?;
        draw(gpu, context, &target.begin_triangles(10 + context))?;
    }
    Ok(())
}

/// Work that is not done as soon as it is asked for: the whole picture, several times over.
fn work() -> Vec<u8> {
    let passes = 0..4;
    let stream = passes.fold(Stream::new(), |stream, _| stream.draw_triangles(6));
    stream.bytes()
}

#[track_caller]
fn assert_in_order(answers: &[(usize, Response)], of: impl Fn(usize) -> bool) {
    let order = answers.iter().map(|(at, _)| *at).filter(|at| of(*at));
    let order = order.collect::<Vec<_>>();
    assert!(order.is_sorted(), "answered in the order {order:?}");
}

#[test]
fn sixty_four_fences_on_two_contexts_complete_in_order() -> Result<()> {
    let Some(mut rig) = start(&plain(None)) else {
        return Ok(());
    };
    two_contexts(&mut rig.gpu, 0)?;
    let work = work();
    let mut batch = Batch::default();
    let id = |n: u64| (n << 32) + 1000 - n;
    for n in 0..64_u64 {
        let context = 1 + (n % 2) as u32;
        let request = fenced_submit(context, &work, id(n), Line::Global);
        batch.push(&mut rig.gpu, &request)?;
    }
    let answers = batch.answers(&mut rig.gpu)?;
    all_good(&answers);
    for (at, answer) in &answers {
        assert_eq!(answer.fence_id(), id(*at as u64));
        assert_eq!(answer.flags(), FLAG_FENCE);
        assert_eq!(answer.context(), 1 + (*at % 2) as u32);
    }
    assert_in_order(&answers, |_| true);
    rig.finish()
}

#[test]
fn fences_complete_in_the_order_of_their_ring() -> Result<()> {
    let Some(mut rig) = start(&typed(None)) else {
        return Ok(());
    };
    two_contexts(&mut rig.gpu, CAPSET_VIRGL2)?;
    let work = work();
    // Ring 0 of both contexts and the device's own line, by turns.
    let mut batch = Batch::default();
    for n in 0..96_u64 {
        let (context, line) = match n % 3 {
            0 => (1, Line::Ring(0)),
            1 => (2, Line::Ring(0)),
            _ => (1, Line::Global),
        };
        // The same ids on each line.
        let request = fenced_submit(context, &work, n / 3, line);
        batch.push(&mut rig.gpu, &request)?;
    }
    let answers = batch.answers(&mut rig.gpu)?;
    all_good(&answers);
    for (at, answer) in &answers {
        assert_eq!(answer.fence_id(), *at as u64 / 3);
        let expected = match at % 3 {
            2 => FLAG_FENCE,
            _ => FLAG_FENCE | FLAG_INFO_RING_IDX,
        };
        assert_eq!((answer.flags(), answer.ring_idx()), (expected, 0));
    }
    for line in 0..3 {
        assert_in_order(&answers, |at| at % 3 == line);
    }
    rig.finish()
}

#[test]
fn a_fence_behind_queries_comes_with_their_results() -> Result<()> {
    const QUERIES: u32 = 6;
    let Some(mut rig) = start(&plain(None)) else {
        return Ok(());
    };
    two_contexts(&mut rig.gpu, 0)?;
    let mut buffers = Vec::new();
    let mut stream = Stream::new();
    for n in 0..QUERIES {
        let create = virgl::query_buffer(100 + n);
        let backing = rig
            .gpu
            .create_3d_in(1, &create, virgl::QUERY_BYTES as usize)?;
        rig.ram
            .fill(backing[0].addr, virgl::QUERY_BYTES as usize, 0)?;
        buffers.push(backing[0]);
        stream = stream
            .pixel_query(200 + n, 100 + n)
            .begin_query(200 + n)
            .draw_triangles(6);
        // Each counts one picture more than the one before.
        for _ in 0..n {
            stream = stream.draw_triangles(6);
        }
        stream = stream.end_query(200 + n);
    }
    draw(&mut rig.gpu, 1, &stream)?;
    for (n, buffer) in (0..QUERIES).zip(buffers) {
        let state = rig.ram.read(buffer.addr, virgl::QUERY_BYTES as usize)?;
        let found = [0, 4, 8].map(|at| u32_at(&state, at));
        assert_eq!(found, [virgl::QUERY_DONE, 4, (n + 1) << 20], "query {n}");
    }
    check_draws(&mut rig.gpu)?;
    rig.finish()
}

#[test]
fn fences_on_rings_that_cannot_be_are_refused_and_the_rest_goes_on() -> Result<()> {
    let Some(mut rig) = start(&typed(None)) else {
        return Ok(());
    };
    two_contexts(&mut rig.gpu, CAPSET_VIRGL2)?;
    for ring in [64, 255] {
        let request = fenced_submit(1, &work(), 5, Line::Ring(ring));
        let answer = rig.gpu.call(&request, 24)?;
        assert_eq!(answer.kind(), resp::ERR_INVALID_PARAMETER, "{ring}");
        assert_eq!(answer.fence_id(), 5);
    }
    let request = fenced_submit(1, &work(), 6, Line::Ring(0));
    assert_eq!(rig.gpu.answer(&request)?, resp::OK_NODATA);
    rig.finish()
}

#[test]
fn a_context_that_goes_takes_its_fences_with_it() -> Result<()> {
    let Some(mut rig) = start(&typed(None)) else {
        return Ok(());
    };
    for round in 0..4_u64 {
        two_contexts(&mut rig.gpu, CAPSET_VIRGL2)?;
        let mut batch = Batch::default();
        for n in 0..32_u64 {
            let context = 1 + (n % 2) as u32;
            let line = if n % 4 < 2 {
                Line::Ring(0)
            } else {
                Line::Global
            };
            let request = fenced_submit(context, &work(), 100 * round + n, line);
            batch.push(&mut rig.gpu, &request)?;
        }
        batch.push(&mut rig.gpu, &request::ctx_destroy(1))?;
        batch.push(&mut rig.gpu, &request::ctx_destroy(2))?;
        all_good(&batch.answers(&mut rig.gpu)?);
        for id in [1, 2, 11, 12] {
            rig.gpu.unref(id)?;
        }
        check_draws(&mut rig.gpu)?;
    }
    rig.finish()
}

#[test]
fn a_reset_with_fences_outstanding_leaves_a_fresh_device() -> Result<()> {
    let Some(mut rig) = start(&typed(None)) else {
        return Ok(());
    };
    for _ in 0..3 {
        two_contexts(&mut rig.gpu, CAPSET_VIRGL2)?;
        for n in 0..64_u64 {
            let context = 1 + (n % 2) as u32;
            let request = fenced_submit(context, &work(), n, Line::Ring(0));
            rig.gpu.queue(&request)?;
        }
        rig.gpu.control.kick()?;
        rig.reset_device()?;
        // Nothing of before answers on the fresh ring, and the contexts have gone.
        assert_eq!(rig.gpu.control.ring().used_index()?, 0);
        let gone = request::submit_3d(1, &[]);
        assert_eq!(rig.gpu.answer(&gone)?, resp::ERR_INVALID_CONTEXT_ID);
        check_draws(&mut rig.gpu)?;
    }
    rig.finish()
}

#[test]
fn an_end_with_fences_outstanding_is_an_orderly_one() -> Result<()> {
    let Some(mut rig) = start(&typed(None)) else {
        return Ok(());
    };
    two_contexts(&mut rig.gpu, CAPSET_VIRGL2)?;
    for n in 0..64_u64 {
        let context = 1 + (n % 2) as u32;
        let request = fenced_submit(context, &work(), n, Line::Ring(0));
        rig.gpu.queue(&request)?;
    }
    rig.gpu.control.kick()?;
    let status = rig.daemon.terminate()?;
    assert!(status.success(), "{status}: {}", rig.daemon.stderr());
    Ok(())
}
