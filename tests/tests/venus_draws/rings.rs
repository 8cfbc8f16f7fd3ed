//! Rings: commands past the device, in memory that the guest may write anything into.

use super::kit::{self, answers, check_lives, context, end};
use nosnoop_tests::frontend::pixels::noise;
use nosnoop_tests::frontend::venus::{Layout, Ring, Shared, Venus, Words, cmd};
use nosnoop_tests::frontend::{Deadline, Result, Rig};

/// Where rings lie in the region of shared memory.
const AT: u64 = 1 << 30;
/// Their resources.
const RESOURCE: u32 = 500;
/// How long a ring's thread stays awake.
const AWAKE: u64 = 50_000_000;

/// What the renderer's version of Vulkan is, by way of a ring.
fn version(rig: &mut Rig, ring: &mut Ring) -> Result<u32> {
    let command = Words::command(cmd::ENUMERATE_INSTANCE_VERSION).pointer();
    let mut reply = ring.call(rig, command)?;
    reply.success()?;
    reply.u64()?;
    reply.u32()
}

#[test]
fn a_ring_replies_asleep_or_awake_and_beyond_its_end() -> Result<()> {
    let Some(mut rig) = kit::start() else {
        return Ok(());
    };
    let mut venus = context(&mut rig, 1)?;
    let expected = venus.version(&mut rig)?;
    for (resource, timeout) in [(RESOURCE, AWAKE), (RESOURCE + 2, 0)] {
        let at = AT + u64::from(resource) * (1 << 20);
        let mut ring = Ring::new(&mut rig, &mut venus, resource, at, timeout)?;
        // 32 bytes each: around the ring's 64 KiB more than twice, across its end.
        for n in 0..5000 {
            assert_eq!(version(&mut rig, &mut ring)?, expected, "call {n}");
        }
        venus.send(&mut rig, &ring.destroy())?;
        assert_eq!(venus.version(&mut rig)?, expected);
    }
    rig.finish()
}

/// Makes a context and a ring in it, has them spoilt, and expects both to come to an end alone.
fn spoil(
    rig: &mut Rig,
    what: &str,
    how: impl FnOnce(&mut Rig, &mut Ring) -> Result<()>,
) -> Result<()> {
    let mut venus = context(rig, 2)?;
    let mut ring = Ring::new(rig, &mut venus, RESOURCE, AT, AWAKE)?;
    how(rig, &mut ring)?;
    let deadline = Deadline::default();
    while ring.drained(rig).is_ok() {
        deadline.left(what)?;
        std::thread::yield_now();
    }
    assert!(!answers(rig, &mut venus)?, "{what}");
    finish_ring(rig, &venus)
}

/// Takes a context and a ring's resources away.
fn finish_ring(rig: &mut Rig, venus: &Venus) -> Result<()> {
    end(rig, venus)?;
    rig.gpu.unref(RESOURCE)?;
    rig.gpu.unref(RESOURCE + 1)
}

#[test]
fn garbage_in_a_ring_ends_its_context_only() -> Result<()> {
    let Some(mut rig) = kit::start() else {
        return Ok(());
    };
    let mut others = [context(&mut rig, 1)?];
    for (seed, words) in [1, 2, 7, 1000, 16_000].into_iter().enumerate() {
        spoil(&mut rig, "random words to be read", |rig, ring| {
            let tail = ring.write(rig, &noise(seed as u64 + 9, 4 * words));
            ring.publish(rig, tail)
        })?;
    }
    spoil(&mut rig, "a tail beyond the ring", |rig, ring| {
        ring.publish(rig, 1 << 20)
    })?;
    spoil(&mut rig, "a tail behind the head", |rig, ring| {
        ring.publish(rig, 0)
    })?;
    spoil(&mut rig, "half a word", |rig, ring| {
        let tail = ring.write(rig, &[0x99; 7]);
        ring.publish(rig, tail)
    })?;
    spoil(&mut rig, "a ring that makes a ring", |rig, ring| {
        let tail = ring.write(rig, Layout::new(RESOURCE, 0).create(7).bytes());
        ring.publish(rig, tail)
    })?;
    check_lives(&mut rig, &mut others)?;
    rig.finish()
}

#[test]
fn rings_that_cannot_be_end_their_context_only() -> Result<()> {
    let Some(mut rig) = kit::start() else {
        return Ok(());
    };
    let mut others = [context(&mut rig, 1)?];
    let good = Layout::new(RESOURCE, AWAKE);
    let wrong = [
        (
            "no resource",
            Layout {
                resource: 0,
                ..good
            },
        ),
        (
            "no such resource",
            Layout {
                resource: 77,
                ..good
            },
        ),
        (
            "beyond the resource",
            Layout {
                size: 1 << 20,
                ..good
            },
        ),
        (
            "far away",
            Layout {
                offset: u64::MAX - 63,
                ..good
            },
        ),
        (
            "a buffer beyond the ring",
            Layout {
                buffer: good.size,
                ..good
            },
        ),
        (
            "a buffer around the end of 64 bits",
            Layout {
                buffer: u64::MAX - 3,
                ..good
            },
        ),
        (
            "a buffer of no power of two",
            Layout {
                buffer_size: 1000,
                ..good
            },
        ),
        (
            "no buffer",
            Layout {
                buffer_size: 0,
                ..good
            },
        ),
        ("a head on the tail", Layout { head: 64, ..good }),
        ("a tail in the buffer", Layout { tail: 200, ..good }),
        ("an odd head", Layout { head: 2, ..good }),
        (
            "an extra that is not there",
            Layout {
                extra_size: 1 << 40,
                ..good
            },
        ),
    ];
    for (what, layout) in wrong {
        let mut venus = context(&mut rig, 2)?;
        let memory = Shared::new(&mut rig, 2, RESOURCE, AT, good.size)?;
        venus.send(&mut rig, &layout.create(9))?;
        assert!(!answers(&mut rig, &mut venus)?, "{what}");
        end(&mut rig, &venus)?;
        rig.gpu.unref(memory.resource)?;
    }
    check_lives(&mut rig, &mut others)?;
    rig.finish()
}

#[test]
fn a_ring_whose_memory_goes_does_no_harm() -> Result<()> {
    let Some(mut rig) = kit::start() else {
        return Ok(());
    };
    let mut others = [context(&mut rig, 1)?];
    for first in [RESOURCE, RESOURCE + 1] {
        let mut venus = context(&mut rig, 2)?;
        let mut ring = Ring::new(&mut rig, &mut venus, RESOURCE, AT, AWAKE)?;
        version(&mut rig, &mut ring)?;
        for resource in [first, 2 * RESOURCE + 1 - first] {
            rig.gpu.unmap_blob(resource)?;
            rig.gpu.unref(resource)?;
        }
        assert!(!answers(&mut rig, &mut venus)?, "without {first}");
        end(&mut rig, &venus)?;
    }
    check_lives(&mut rig, &mut others)?;
    rig.finish()
}
