//! Words that are no commands, or not good ones: the context may come to its end, and nothing else.

use super::kit::{self, QUEUE_RING, answers, check_lives, context, device, end, survives};
use nosnoop_tests::frontend::pixels::noise;
use nosnoop_tests::frontend::request::submit_3d;
use nosnoop_tests::frontend::response::resp;
use nosnoop_tests::frontend::three_d::{Line, fenced_submit};
use nosnoop_tests::frontend::venus::context::REPLY_BYTES;
use nosnoop_tests::frontend::venus::memory::imported;
use nosnoop_tests::frontend::venus::{Device, Shared, Words, cmd};
use nosnoop_tests::frontend::{Result, Rig};

/// What a length or a count can be at most.
const HUGE: u64 = u64::MAX;

#[test]
fn random_words_end_their_context_only() -> Result<()> {
    let Some(mut rig) = kit::start() else {
        return Ok(());
    };
    let mut others = [context(&mut rig, 1)?];
    for (seed, words) in [1, 2, 3, 16, 100, 1000, 100_000].into_iter().enumerate() {
        let bytes = noise(seed as u64 + 1, 4 * words);
        assert!(!survives(&mut rig, &bytes)?, "{words} words");
    }
    // Command types that there are, with random words behind.
    for kind in [0, 2, 11, 21, 50, 59, 66, 79, 110, 155, 178, 180, 188, 297] {
        let mut bytes = Words::command(kind).bytes().to_vec();
        bytes.extend(noise(u64::from(kind), 256));
        assert!(!survives(&mut rig, &bytes)?, "command {kind}");
    }
    check_lives(&mut rig, &mut others)?;
    rig.finish()
}

/// A command whose every field is good: an instance with a name.
fn instance() -> Words {
    Words::command(cmd::CREATE_INSTANCE)
        .pointer()
        .structure(1, &[])
        .u32(0)
        .pointer()
        .structure(0, &[])
        .text("cut")
        .u32(0)
        .null()
        .u32(0)
        .u32(1 << 22 | 1 << 12)
        .u32(0)
        .null()
        .u32(0)
        .null()
        .null()
        .pointer()
        .u64(900)
}

#[test]
fn commands_cut_anywhere_end_their_context_only() -> Result<()> {
    let Some(mut rig) = kit::start() else {
        return Ok(());
    };
    let mut others = [context(&mut rig, 1)?];
    let whole = instance();
    let bytes = whole.bytes();
    assert!(survives(&mut rig, bytes)?, "the whole command");
    for len in (4..bytes.len()).step_by(8) {
        assert!(!survives(&mut rig, &bytes[..len])?, "cut to {len} bytes");
    }
    // Half a word is not even passed on.
    for len in [1, 2, 3, bytes.len() - 1] {
        let answer = rig.gpu.answer(&submit_3d(1, &bytes[..len]))?;
        assert_eq!(answer, resp::ERR_INVALID_PARAMETER, "{len} bytes");
    }
    check_lives(&mut rig, &mut others)?;
    rig.finish()
}

#[test]
fn impossible_commands_end_their_context_only() -> Result<()> {
    let Some(mut rig) = kit::start() else {
        return Ok(());
    };
    let mut others = [context(&mut rig, 1)?];
    let named = |len: u64| {
        Words::command(cmd::CREATE_INSTANCE)
            .pointer()
            .structure(1, &[])
            .u32(0)
            .pointer()
            .structure(0, &[])
            .u64(len)
            .u64(0)
    };
    let streams = |count: u32, len: u64| {
        Words::command(cmd::EXECUTE_COMMAND_STREAMS)
            .u32(count)
            .u64(len)
            .u32(0)
    };
    let wrong = [
        ("no such command", Words::command(cmd::NONE)),
        ("vkMapMemory", Words::command(23)),
        ("vkQueueWaitIdle", Words::command(19).u64(1)),
        ("a name of 2^64 bytes", named(HUGE)),
        ("a name of 4 GiB", named(1 << 32)),
        ("a name of 1 GiB", named(1 << 30)),
        ("2^32 streams", streams(u32::MAX, u64::from(u32::MAX))),
        ("streams that are not as many", streams(1, HUGE)),
        (
            "an object that is not there",
            Words::command(cmd::FREE_MEMORY).u64(77).u64(78).null(),
        ),
        (
            "a ring that is not there",
            Words::command(cmd::DESTROY_RING).u64(5),
        ),
        (
            "a notification of none",
            Words::command(cmd::NOTIFY_RING).u64(5).u32(0).u32(0),
        ),
        (
            "a reply with nowhere to go",
            Words::command(cmd::SET_REPLY_COMMAND_STREAM).null(),
        ),
        (
            "a chain of strangers",
            Words::command(cmd::CREATE_INSTANCE)
                .pointer()
                .structure(1, &[(77, Words::new())]),
        ),
        ("two instances", instance().then(&instance())),
    ];
    for (what, words) in wrong {
        assert!(!survives(&mut rig, words.bytes())?, "{what}");
    }
    check_lives(&mut rig, &mut others)?;
    rig.finish()
}

#[test]
fn resources_that_a_context_does_not_have_end_it_and_nothing_else() -> Result<()> {
    let Some(mut rig) = kit::start() else {
        return Ok(());
    };
    let mut others = [context(&mut rig, 1)?];
    // One that is nobody's, and the memory for replies of another context.
    for resource in [999, others[0].replies.resource] {
        let stranger = Shared {
            resource,
            ..others[0].replies
        };
        let stream = stranger.reply_stream();
        assert!(
            !survives(&mut rig, stream.bytes())?,
            "replies to {resource}"
        );
        let stream = Words::command(cmd::EXECUTE_COMMAND_STREAMS)
            .u32(1)
            .count(1)
            .u32(resource)
            .u64(0)
            .u64(64)
            .null()
            .u32(0)
            .null()
            .u32(0);
        assert!(
            !survives(&mut rig, stream.bytes())?,
            "commands of {resource}"
        );
        let (mut venus, made) = device(&mut rig, 2)?;
        let memory = venus.allocate(&mut rig, &made, 0, 4096, &[imported(resource)]);
        assert!(memory.is_err(), "memory of {resource}");
        assert!(!answers(&mut rig, &mut venus)?, "memory of {resource}");
        end(&mut rig, &venus)?;
    }
    // Its own, but beyond the end of that.
    for (offset, size) in [(REPLY_BYTES, 4), (1 << 40, 1 << 50), (HUGE - 3, 8)] {
        let mut venus = context(&mut rig, 2)?;
        let beyond = Words::command(cmd::SET_REPLY_COMMAND_STREAM)
            .pointer()
            .u32(venus.replies.resource)
            .u64(offset)
            .u64(size);
        venus.send(&mut rig, &beyond)?;
        assert!(
            !answers(&mut rig, &mut venus)?,
            "{size} bytes at {offset:#x}"
        );
        end(&mut rig, &venus)?;
    }
    check_lives(&mut rig, &mut others)?;
    rig.finish()
}

/// Fences on a ring that nothing has been bound to.
fn unbound(rig: &mut Rig, ring: u8, count: u64) -> Result<()> {
    for n in 0..count {
        let request = fenced_submit(2, &[], n, Line::Ring(ring));
        rig.gpu.answer(&request)?;
    }
    Ok(())
}

#[test]
fn rings_that_are_none_are_refused_and_those_never_bound_are_answered() -> Result<()> {
    let Some(mut rig) = kit::start() else {
        return Ok(());
    };
    let mut others = [context(&mut rig, 1)?];
    for ring in [64, 255] {
        let request = fenced_submit(1, &[], 5, Line::Ring(ring));
        let answer = rig.gpu.answer(&request)?;
        assert_eq!(answer, resp::ERR_INVALID_PARAMETER, "{ring}");
    }
    for ring in [1, 5, 63] {
        let venus = context(&mut rig, 2)?;
        unbound(&mut rig, ring, 4)?;
        end(&mut rig, &venus)?;
    }
    // A queue on a ring that is none, or bound already.
    for ring in [0, 64, u32::MAX] {
        let mut venus = context(&mut rig, 2)?;
        let made = Device::new(&mut rig, &mut venus, ring);
        assert!(made.is_err(), "a queue on ring {ring}");
        end(&mut rig, &venus)?;
    }
    let (mut venus, _) = device(&mut rig, 2)?;
    venus.fenced(&mut rig, &Words::new(), QUEUE_RING)?;
    unbound(&mut rig, 2, 4)?;
    end(&mut rig, &venus)?;
    check_lives(&mut rig, &mut others)?;
    rig.finish()
}
