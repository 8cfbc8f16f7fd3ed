//! Streams that are no streams, and names of things that are not there: the device goes on.

use super::kit::{
    BGRA, Batch, GREEN, RED, Target, check_draws, draw, pixel_of, plain, start, typed,
};
use nosnoop_tests::frontend::pixels::Random;
use nosnoop_tests::frontend::request::{self, cmd};
use nosnoop_tests::frontend::response::resp;
use nosnoop_tests::frontend::three_d::{Create3d, Line, Transfer3d, fenced_submit};
use nosnoop_tests::frontend::virgl::{self, Stream, ccmd, object};
use nosnoop_tests::frontend::{Rect, Result, Rig};

/// What a stream of garbage may be answered with.
const ANSWERS: [u32; 3] = [
    resp::OK_NODATA,
    resp::ERR_UNSPEC,
    // Not whole words.
    resp::ERR_INVALID_PARAMETER,
];

/// Sends a stream in a context of its own, with a fence, and then an empty one; both are answered, and
/// the device draws.
fn survive(rig: &mut Rig, what: &str, stream: &[u8]) -> Result<()> {
    const CONTEXT: u32 = 77;
    rig.gpu.create_context(CONTEXT, 0)?;
    let target = Target::new(&mut rig.gpu, CONTEXT, 700, BGRA, (16, 16))?;
    draw(&mut rig.gpu, CONTEXT, &target.begin().clear(RED))?;
    let mut batch = Batch::default();
    for (fence, data) in [(1, stream), (2, &[])] {
        let request = fenced_submit(CONTEXT, data, fence, Line::Global);
        batch.push(&mut rig.gpu, &request)?;
    }
    let answers = batch.answers(&mut rig.gpu);
    // Where the daemon has died, what it said is worth more.
    rig.daemon.check_alive()?;
    for (at, answer) in answers? {
        let kind = answer.kind();
        assert!(ANSWERS.contains(&kind), "{what}, {at}: {kind:#x}");
        assert_eq!(answer.fence_id(), at as u64 + 1, "{what}");
    }
    rig.gpu.destroy_context(CONTEXT)?;
    rig.gpu.unref(700)?;
    target.backing.iter().for_each(|span| rig.ram.free(*span));
    check_draws(&mut rig.gpu)
}

#[test]
fn random_words_leave_the_device_alive() -> Result<()> {
    let Some(mut rig) = start(&plain(None)) else {
        return Ok(());
    };
    let mut random = Random::new(6);
    for round in 0..48 {
        let words = random.within(1, 200);
        let stream: Vec<u8> = (0..words)
            .flat_map(|_| (random.next() as u32).to_le_bytes())
            .collect();
        survive(&mut rig, &format!("round {round}"), &stream)?;
    }
    rig.finish()
}

#[test]
fn commands_that_nearly_are_ones_leave_the_device_alive() -> Result<()> {
    let Some(mut rig) = start(&plain(None)) else {
        return Ok(());
    };
    let mut random = Random::new(7);
    for number in 0..=64_u8 {
        let mut stream = Stream::new();
        for _ in 0..3 {
            let len = random.within(0, 24) as usize;
            // Small numbers are handles, counts and offsets that could be.
            let words: Vec<u32> = (0..len)
                .map(|_| {
                    let bits = random.within(0, 12);
                    random.within(0, 1 << bits) as u32
                })
                .collect();
            let kind = random.within(0, 13) as u8;
            stream = stream.command(number, kind, &words);
        }
        survive(&mut rig, &format!("command {number}"), &stream.bytes())?;
    }
    rig.finish()
}

#[test]
fn lengths_that_do_not_fit_leave_the_device_alive() -> Result<()> {
    let Some(mut rig) = start(&plain(None)) else {
        return Ok(());
    };
    let shader = Stream::new().shader(40, virgl::Stage::Vertex, virgl::PASS_VERTEX);
    let shader = shader.bytes();
    let claims = |len: u16| Stream::new().claiming(ccmd::CLEAR, 0, len, &[4]).bytes();
    let offset = |offset: u32| {
        let words = [40, 0, offset, 300, 0, u32::from_le_bytes(*b"VERT")];
        let stream = Stream::new().command(ccmd::CREATE_OBJECT, object::SHADER, &words);
        stream.bytes()
    };
    let written = |size: u32| {
        let words = [700, 0, 0, 64, 0, 0, 0, 0, size, size, 1, 1, 2, 3];
        let stream = Stream::new().command(ccmd::RESOURCE_INLINE_WRITE, 0, &words);
        stream.bytes()
    };
    let cases = [
        ("a length beyond the end", claims(u16::MAX)),
        ("a length one beyond the end", claims(2)),
        ("no words at all", claims(0)),
        ("half of a shader", shader[..shader.len() / 2].to_vec()),
        ("a shader that claims more", offset(1 << 20)),
        ("a shader of all there is", offset(0x7fff_ffff)),
        ("a shader that goes on", offset(0x8000_0000 | 4096)),
        ("a write of a row too many", written(17)),
        ("a write of everything", written(u32::MAX)),
        ("three bytes", vec![1, 2, 3]),
        ("a word and a half", vec![0; 6]),
    ];
    for (what, stream) in cases {
        survive(&mut rig, what, &stream)?;
    }
    rig.finish()
}

#[test]
fn what_a_stream_names_and_is_not_there_is_its_own_affair() -> Result<()> {
    let Some(mut rig) = start(&plain(None)) else {
        return Ok(());
    };
    // A resource of another context, which must stay as it is.
    rig.gpu.create_context(5, 0)?;
    let other = Target::new(&mut rig.gpu, 5, 500, BGRA, (16, 16))?;
    draw(&mut rig.gpu, 5, &other.begin().clear(GREEN))?;
    let on = |resource: u32| {
        Stream::new()
            .surface(60, resource, BGRA)
            .framebuffer(60)
            .clear(RED)
    };
    let copy = [700, 0, 0, 0, 0, 500, 0, 0, 0, 0, 16, 16, 1];
    let cases = [
        ("a resource that is not there", on(999)),
        ("a resource of another context", on(500)),
        (
            "a copy from another context",
            Stream::new().command(ccmd::RESOURCE_COPY_REGION, 0, &copy),
        ),
        (
            "a write to another context",
            Stream::new().write_buffer(500, &[9; 64]),
        ),
        (
            "an object that is not there",
            Stream::new().destroy(object::BLEND, 99),
        ),
        (
            "objects of the wrong kind",
            Stream::new().plain_state(30).framebuffer(30).clear(RED),
        ),
        (
            "vertices that are not there",
            Stream::new().vertices(31, 999).draw_triangles(3),
        ),
        (
            "a draw of nothing that is set",
            Stream::new().draw_triangles(3),
        ),
        ("a draw without end", Stream::new().draw_triangles(u32::MAX)),
        (
            "a sub-context that is not there",
            Stream::new()
                .command(ccmd::SET_SUB_CTX, 0, &[1234])
                .clear(RED),
        ),
        (
            "the sub-context that is worked in goes",
            Stream::new()
                .command(ccmd::DESTROY_SUB_CTX, 0, &[1])
                .clear(RED),
        ),
        (
            "no command's number",
            Stream::new().command(ccmd::NONE, 0, &[1, 2]),
        ),
        (
            "a shader that is no text",
            Stream::new().shader(41, virgl::Stage::Fragment, "no such language"),
        ),
    ];
    for (what, stream) in cases {
        survive(&mut rig, what, &stream.bytes())?;
    }
    let pixels = other.read(&mut rig.gpu)?;
    assert_eq!(pixels, pixel_of(BGRA, GREEN).repeat(256));
    rig.finish()
}

#[test]
fn requests_for_what_is_not_there_are_refused() -> Result<()> {
    let Some(mut rig) = start(&typed(None)) else {
        return Ok(());
    };
    rig.gpu.create_context(1, 0)?;
    let target = Target::new(&mut rig.gpu, 1, 1, BGRA, (16, 16))?;
    rig.gpu.create_context(2, 0)?;
    rig.gpu.destroy_context(2)?;
    let clear = target.begin().clear(RED).bytes();
    for context in [0, 2, 3, u32::MAX] {
        let submit = fenced_submit(context, &clear, 7, Line::Global);
        let answer = rig.gpu.call(&submit, 24)?;
        assert_eq!(answer.kind(), resp::ERR_INVALID_CONTEXT_ID, "{context}");
        assert_eq!(answer.fence_id(), 7);
        let attach = request::ctx_resource(cmd::CTX_ATTACH_RESOURCE, context, 1);
        assert_eq!(rig.gpu.answer(&attach)?, resp::ERR_INVALID_CONTEXT_ID);
        let destroy = request::ctx_destroy(context);
        assert_eq!(rig.gpu.answer(&destroy)?, resp::ERR_INVALID_CONTEXT_ID);
    }
    let missing = Transfer3d::flat(1, 99, Rect::sized(1, 1));
    for transfer in [missing.to_host(), missing.from_host()] {
        assert_eq!(rig.gpu.answer(&transfer)?, resp::ERR_INVALID_RESOURCE_ID);
    }
    // A stream shorter than it says.
    let cut = request::submit_3d(1, &clear).resized(32 + clear.len() - 4);
    assert_eq!(rig.gpu.answer(&cut)?, resp::ERR_UNSPEC);
    // A capability set that nobody has.
    let unknown = request::ctx_create(9, 60, b"x");
    assert!(rig.gpu.answer(&unknown)? >= resp::ERR_UNSPEC);
    check_draws(&mut rig.gpu)?;
    rig.finish()
}

#[test]
fn transfers_beyond_the_resource_or_its_memory_harm_nothing() -> Result<()> {
    let Some(mut rig) = start(&plain(None)) else {
        return Ok(());
    };
    rig.gpu.create_context(1, 0)?;
    let target = Target::new(&mut rig.gpu, 1, 1, BGRA, (16, 16))?;
    draw(&mut rig.gpu, 1, &target.begin().clear(RED))?;
    let flat = Transfer3d::flat(1, 1, target.rect());
    let wrong = [
        Transfer3d {
            offset: 4096,
            ..flat
        },
        Transfer3d {
            offset: u64::MAX,
            ..flat
        },
        Transfer3d {
            origin: [8, 0, 0],
            ..flat
        },
        Transfer3d {
            origin: [u32::MAX; 3],
            ..flat
        },
        Transfer3d {
            size: [u32::MAX; 3],
            ..flat
        },
        Transfer3d { level: 5, ..flat },
        Transfer3d {
            level: u32::MAX,
            ..flat
        },
        Transfer3d {
            stride: u32::MAX,
            ..flat
        },
        Transfer3d {
            layer_stride: u32::MAX,
            ..flat
        },
        Transfer3d {
            size: [16, 16, 2],
            ..flat
        },
    ];
    for transfer in wrong {
        for request in [transfer.to_host(), transfer.from_host()] {
            let answer = rig.gpu.answer(&request);
            rig.daemon.check_alive()?;
            let answer = answer?;
            let known = answer == resp::OK_NODATA || answer >= resp::ERR_UNSPEC;
            assert!(known, "{transfer:?}: {answer:#x}");
        }
    }
    check_draws(&mut rig.gpu)?;
    rig.finish()
}

#[test]
fn resources_that_cannot_be_are_refused() -> Result<()> {
    let Some(mut rig) = start(&plain(None)) else {
        return Ok(());
    };
    let good = virgl::render_target(50, BGRA, 16, 16);
    let wrong = [
        Create3d { format: 0, ..good },
        Create3d {
            format: 100_000,
            ..good
        },
        Create3d { target: 99, ..good },
        Create3d {
            width: u32::MAX,
            height: u32::MAX,
            ..good
        },
        Create3d { width: 0, ..good },
        Create3d {
            depth: u32::MAX,
            ..good
        },
        Create3d {
            array_size: u32::MAX,
            ..good
        },
        Create3d {
            last_level: u32::MAX,
            ..good
        },
        Create3d {
            samples: u32::MAX,
            ..good
        },
        Create3d {
            resource: 0,
            ..good
        },
    ];
    for create in wrong {
        let answer = rig.gpu.answer(&create.request());
        rig.daemon.check_alive()?;
        let answer = answer?;
        assert!(answer >= resp::ERR_UNSPEC, "{create:?}: {answer:#x}");
    }
    check_draws(&mut rig.gpu)?;
    rig.finish()
}
