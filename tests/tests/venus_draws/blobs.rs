//! Blobs of Vulkan's memory that cannot be, or not like that: refused, and the context goes on.

use super::kit::{self, check_lives, context, device, end, memory_maps};
use nosnoop_tests::frontend::cross_domain::host_blob;
use nosnoop_tests::frontend::response::resp;
use nosnoop_tests::frontend::venus::Shared;
use nosnoop_tests::frontend::venus::instance::HOST_COHERENT;
use nosnoop_tests::frontend::venus::memory::{DMA_BUF, exported, imported};
use nosnoop_tests::frontend::{Error, Result, request};

/// Bytes of the memory here.
const SIZE: u64 = 64 << 10;

#[test]
fn what_was_never_exported_is_no_blob() -> Result<()> {
    let Some(mut rig) = kit::start() else {
        return Ok(());
    };
    let (mut venus, made) = device(&mut rig, 1)?;
    let (buffer, memory) = venus.buffer_in(&mut rig, &made, SIZE, HOST_COHERENT)?;
    let other = context(&mut rig, 2)?;
    for (what, context, blob, size) in [
        ("an id that is nothing", 1, 7777, SIZE),
        ("the largest id", 1, u64::MAX, SIZE),
        ("a buffer", 1, buffer, SIZE),
        ("a device", 1, made.id, SIZE),
        ("memory of another context", 2, memory, SIZE),
        ("more than the memory has", 1, memory, 1 << 20),
    ] {
        let answer = rig.gpu.answer(&host_blob(context, 60, blob, size))?;
        assert_eq!(answer, resp::ERR_UNSPEC, "{what}");
    }
    let answer = rig.gpu.answer(&host_blob(1, 60, memory, 0))?;
    assert_eq!(answer, resp::ERR_INVALID_PARAMETER, "nothing at all");
    let answer = rig.gpu.answer(&request::map_blob(60, 0))?;
    assert_eq!(answer, resp::ERR_INVALID_RESOURCE_ID);
    check_lives(&mut rig, &mut [venus, other])?;
    rig.finish()
}

#[test]
fn memory_is_exported_once_and_outlives_its_context() -> Result<()> {
    let Some(mut rig) = kit::start() else {
        return Ok(());
    };
    if !memory_maps() {
        println!("no /dev/udmabuf: Vulkan's memory is not exported here");
        return rig.finish();
    }
    let (mut venus, made) = device(&mut rig, 1)?;
    let (_, memory) = venus.buffer_in(&mut rig, &made, SIZE, HOST_COHERENT)?;
    rig.gpu
        .command("RESOURCE_CREATE_BLOB", &host_blob(1, 60, memory, SIZE))?;
    let again = rig.gpu.answer(&host_blob(1, 61, memory, SIZE))?;
    assert_eq!(again, resp::ERR_UNSPEC);
    let other = context(&mut rig, 2)?;
    rig.gpu.attach_resource(2, 60)?;
    rig.gpu.map_blob(60, 0)?;
    rig.shmem().write(SIZE - 5, b"still");
    venus.free(&mut rig, &made, memory)?;
    end(&mut rig, &venus)?;
    assert_eq!(rig.shmem().read(SIZE - 5, 5), b"still");
    end(&mut rig, &other)?;
    rig.shmem().wait_mapped(&[])?;
    rig.gpu.unref(60)?;
    rig.finish()
}

#[test]
fn memory_of_a_blob_is_memory_of_another_context() -> Result<()> {
    let Some(mut rig) = kit::start() else {
        return Ok(());
    };
    let (mut venus, made) = device(&mut rig, 1)?;
    let (mut second, theirs) = device(&mut rig, 2)?;
    let of = made.memory_type(u32::MAX, HOST_COHERENT)?;
    let shared = venus.allocate(&mut rig, &made, of, SIZE, &[exported(DMA_BUF)]);
    if !memory_maps() {
        println!("no /dev/udmabuf: memory that is to be a dma-buf cannot be had here");
        assert!(matches!(shared, Err(Error::Protocol(_))), "{shared:?}");
        println!("{}", rig.daemon.stderr());
        check_lives(&mut rig, &mut [second])?;
        return rig.finish();
    }
    let blob = host_blob(1, 60, shared?, SIZE);
    rig.gpu.command("RESOURCE_CREATE_BLOB", &blob)?;
    rig.gpu.attach_resource(2, 60)?;
    second.allocate(&mut rig, &theirs, of, SIZE, &[imported(60)])?;
    check_lives(&mut rig, &mut [venus, second])?;
    rig.finish()
}

#[test]
fn shared_memory_has_whole_pages_and_both_sides_write_it() -> Result<()> {
    let Some(mut rig) = kit::start() else {
        return Ok(());
    };
    let mut venus = context(&mut rig, 1)?;
    // What the kernel never asks for: no whole pages.
    let answer = rig.gpu.answer(&host_blob(1, 60, 0, 5000))?;
    assert_eq!(answer, resp::ERR_UNSPEC);
    let answer = rig.gpu.answer(&host_blob(1, 60, 0, 1 << 50))?;
    assert_eq!(answer, resp::ERR_OUT_OF_MEMORY);
    // Replies go where they are told to, and the old place is left alone.
    let version = venus.version(&mut rig)?;
    let other = Shared::new(&mut rig, 1, 60, 0, 1 << 16)?;
    let old = std::mem::replace(&mut venus.replies, other);
    venus.send(&mut rig, &other.reply_stream())?;
    rig.shmem().write(old.offset, &[0x5a; 64]);
    assert_eq!(venus.version(&mut rig)?, version);
    assert_eq!(rig.shmem().read(old.offset, 64), [0x5a; 64]);
    // Gone while it is in use: no reply, no harm.
    rig.gpu.unmap_blob(60)?;
    rig.gpu.unref(60)?;
    venus.replies = old;
    assert!(!kit::answers(&mut rig, &mut venus)?);
    check_lives(&mut rig, &mut [])?;
    rig.finish()
}
