//! Changes of the memory table while the device runs.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use super::common::{answered, settle};
use super::kit::{self, plain, readable, succeeds, writable};
use crate::conform::case::{Case, Group, Needs, Outcome, Stop, check, equal};
use crate::conform::trial::Trial;
use crate::frontend::memory::{PAGE, Span, USER_OFFSET};
use crate::frontend::message::{MemoryRegion, feature, protocol};
use crate::frontend::pixels::{BGRX, Picture, noise};
use crate::frontend::request;
use crate::frontend::response;
use crate::frontend::{Error, Rect, Session, SessionOptions};

const SLOTS: Needs = Needs::protocol(protocol::CONFIGURE_MEM_SLOTS);

/// The cases of this group.
pub(super) const CASES: &[Case] = &[
    Group::MemoryTable.case(
        1,
        "the same table again changes nothing",
        &["vu-11", "vu-17"],
        same_table,
    ),
    Group::MemoryTable.case(
        2,
        "memory that a new table adds can be used",
        &["vu-11", "vu-17"],
        table_grows,
    ),
    Group::MemoryTable.case(
        3,
        "backing in memory that a new table lacks is not shown, and other memory is as before",
        &["vu-17"],
        table_shrinks,
    ),
    Group::MemoryTable.case(
        4,
        "the table comes anew while commands are in work, and all are answered",
        &["vu-11", "vu-17"],
        table_under_load,
    ),
    Group::MemoryTable.case(
        5,
        "a region of the table may begin inside its file",
        &["vu-17"],
        table_with_offset,
    ),
    Group::MemoryTable.case(
        6,
        "a backing entry may reach from one region into the next",
        &["vu-14", "vu-17"],
        entry_across_regions,
    ),
    Group::MemoryTable.case_needing(
        SLOTS,
        7,
        "memory that ADD_MEM_REG adds can be used",
        &["vu-11", "vu-29"],
        region_added,
    ),
    Group::MemoryTable.case_needing(
        SLOTS,
        8,
        "requests and responses may lie in memory that was added",
        &["vu-14", "vu-29"],
        buffers_in_added_region,
    ),
    Group::MemoryTable.case_needing(
        SLOTS,
        9,
        "memory that REM_MEM_REG took away is not shown, and other memory is as before",
        &["vu-30"],
        region_removed,
    ),
    Group::MemoryTable.case_needing(
        SLOTS,
        10,
        "a region that ADD_MEM_REG adds may begin inside its file",
        &["vu-29"],
        region_with_offset,
    ),
    Group::MemoryTable.case_needing(
        SLOTS,
        11,
        "all slots up to 40 can be used at a time, each with its own memory",
        &["vu-28", "vu-29", "vu-30"],
        many_slots,
    ),
    Group::MemoryTable.case_needing(
        SLOTS,
        12,
        "removing what is not there harms nothing",
        &["vu-4", "vu-30"],
        unknown_region,
    ),
    Group::MemoryTable.case_needing(
        SLOTS,
        13,
        "REM_MEM_REG ignores the offset of the region",
        &["vu-30"],
        offset_is_ignored,
    ),
    Group::MemoryTable.case_needing(
        SLOTS.and(Needs::features(feature::RESOURCE_BLOB)),
        14,
        "a shown blob whose memory was taken away does not show it, and harms nothing",
        &["vu-30"],
        blob_without_memory,
    ),
    Group::MemoryTable.case_needing(
        SLOTS,
        15,
        "backing that was attached before its memory is removed does not show it, and harms nothing",
        &[],
        backing_without_memory,
    ),
];

/// Where regions are added: far from the others.
const EXTRA: u64 = 0x30_0000_0000;
/// Bytes of the pictures here: 64 x 64 pixels.
const BYTES: usize = 4 * 64 * 64;
/// All of a picture.
const ALL: Rect = Rect::sized(64, 64);

/// A device whose memory is always shared as one table, with picture 1 on scanout 0.
fn with_table(trial: &mut Trial) -> Result<Session, Stop> {
    let mut options = SessionOptions::default();
    options.protocol_features &= !protocol::CONFIGURE_MEM_SLOTS;
    with_picture(trial, &options)
}

/// A device whose memory is shared region by region, with picture 1 on scanout 0.
fn with_slots(trial: &mut Trial) -> Result<Session, Stop> {
    with_picture(trial, &SessionOptions::default())
}

fn with_picture(trial: &mut Trial, options: &SessionOptions) -> Result<Session, Stop> {
    let mut session = trial.session(options)?;
    session.gpu.create_picture(1, BGRX, 64, 64)?;
    session.gpu.set_scanout(0, 1, ALL)?;
    let span = session.ram.alloc(BYTES)?;
    kit::begin(memory_works(&mut session, span, 99))?;
    Ok(session)
}

/// Gives resource 1 this backing.
fn attach(session: &mut Session, span: Span) -> Outcome {
    session.gpu.detach_backing(1)?;
    Ok(session.gpu.attach_backing(1, &[span])?)
}

/// Transfers and flushes resource 1, whose backing holds `raw`, and waits until it is shown.
fn transfer_shows(session: &mut Session, raw: &[u8]) -> Outcome {
    session.gpu.transfer(1, ALL, 0)?;
    session.gpu.flush(1, ALL)?;
    let expected = Picture::of(BGRX, 64, 64, raw);
    Ok(session.display().wait_picture(0, &expected)?)
}

/// Shows noise through memory at this span, which becomes the backing of resource 1.
fn memory_works(session: &mut Session, span: Span, seed: u64) -> Outcome {
    let raw = noise(seed, BYTES);
    session.ram.write(span.addr, &raw)?;
    attach(session, span)?;
    transfer_shows(session, &raw)
}

/// Puts other noise into memory that was taken away, at this offset in its file, and checks that no
/// transfer and flush of `resource` shows it. How they are answered is left open.
fn not_shown(session: &mut Session, fd: &OwnedFd, at: u64, resource: u32) -> Outcome {
    let raw = noise(77 + u64::from(resource), BYTES);
    let written = rustix::io::pwrite(fd, &raw, at);
    let written = written.map_err(|error| Error::io("write to guest memory", error))?;
    check(written == BYTES, "a short write to guest memory")?;
    let transfer = request::transfer_to_host_2d(resource, ALL, 0);
    answered(session, "a transfer from memory that is gone", &transfer)?;
    let flush = request::flush(resource, ALL);
    answered(session, "a flush after it", &flush)?;
    settle(session)?;
    let gone = Picture::of(BGRX, 64, 64, &raw);
    let seen = session.display().with(|state| {
        let scanout = state.scanouts[0].as_ref();
        scanout.is_some_and(|scanout| scanout.picture == gone)
    });
    check(!seen, "what is in memory that was taken away is shown")
}

/// The file of the region at [`EXTRA`] and this address' offset in it.
fn file_of(session: &Session, span: Span) -> Result<(OwnedFd, u64), Stop> {
    let mut regions = session.ram.regions()?.into_iter();
    let found = regions.find(|(region, _)| region.guest_addr == EXTRA);
    let (region, fd) = found.ok_or_else(|| Stop::fail("no memory was added"))?;
    Ok((fd, region.mmap_offset + (span.addr - EXTRA)))
}

fn same_table(trial: &mut Trial) -> Outcome {
    let mut session = with_table(trial)?;
    let span = session.ram.alloc(BYTES)?;
    for seed in 0..4 {
        session.share_memory_table()?;
        memory_works(&mut session, span, seed)?;
    }
    kit::works(&mut session)
}

fn table_grows(trial: &mut Trial) -> Outcome {
    let mut session = with_table(trial)?;
    let raw = noise(1, BYTES);
    let before = session.ram.alloc(BYTES)?;
    session.ram.write(before.addr, &raw)?;
    attach(&mut session, before)?;
    session.ram.add_region(EXTRA, 1 << 20)?;
    session.share_memory_table()?;
    // What was attached under the old table is there in the new one.
    transfer_shows(&mut session, &raw)?;
    let span = session.ram.alloc_above(BYTES, EXTRA)?;
    memory_works(&mut session, span, 2)?;
    kit::works(&mut session)
}

fn table_shrinks(trial: &mut Trial) -> Outcome {
    let mut session = with_table(trial)?;
    session.ram.add_region(EXTRA, 1 << 20)?;
    session.share_memory_table()?;
    let span = session.ram.alloc_above(BYTES, EXTRA)?;
    memory_works(&mut session, span, 1)?;
    let (fd, at) = file_of(&session, span)?;
    session.ram.remove_region(EXTRA)?;
    session.share_memory_table()?;
    session.vhost.barrier()?;
    not_shown(&mut session, &fd, at, 1)?;
    let span = session.ram.alloc(BYTES)?;
    memory_works(&mut session, span, 2)?;
    kit::works(&mut session)
}

fn table_under_load(trial: &mut Trial) -> Outcome {
    let mut session = with_table(trial)?;
    for round in 0..5 {
        let mut tickets = Vec::new();
        for _ in 0..50 {
            let transfer = request::transfer_to_host_2d(1, ALL, 0);
            tickets.push(session.gpu.queue(&transfer)?);
        }
        session.gpu.control.kick()?;
        if round % 2 == 0 {
            session.ram.add_region(EXTRA, 1 << 20)?;
        } else {
            session.ram.remove_region(EXTRA)?;
        }
        session.share_memory_table()?;
        session.gpu.finish(&tickets)?;
    }
    kit::works(&mut session)
}

/// A file of one MiB whose second half is memory at [`EXTRA`], and that memory's description.
fn half_a_file() -> Result<(OwnedFd, MemoryRegion), Stop> {
    let half = 1 << 19;
    let made = memfd_create("guest-ram", MemfdFlags::CLOEXEC);
    let made = made.and_then(|fd| ftruncate(&fd, 2 * half).map(|()| fd));
    let fd = made.map_err(|error| Error::io("a file for guest memory", error))?;
    let region = MemoryRegion {
        guest_addr: EXTRA,
        size: half,
        user_addr: EXTRA + USER_OFFSET,
        mmap_offset: half,
    };
    Ok((fd, region))
}

/// Shows noise through memory at [`EXTRA`], which lies in the second half of `fd`.
fn half_works(session: &mut Session, fd: &OwnedFd, region: MemoryRegion) -> Outcome {
    let raw = noise(9, BYTES);
    let at = region.mmap_offset + 3 * PAGE;
    let written = rustix::io::pwrite(fd, &raw, at);
    let written = written.map_err(|error| Error::io("write to guest memory", error))?;
    check(written == BYTES, "a short write to guest memory")?;
    attach(session, Span::new(EXTRA + 3 * PAGE, BYTES))?;
    transfer_shows(session, &raw)
}

fn table_with_offset(trial: &mut Trial) -> Outcome {
    let mut session = with_table(trial)?;
    let (fd, region) = half_a_file()?;
    let regions = session.ram.regions()?;
    let mut table: Vec<_> = regions
        .iter()
        .map(|(region, fd)| (*region, fd.as_fd()))
        .collect();
    table.push((region, fd.as_fd()));
    session.vhost.set_mem_table(&table)?;
    session.vhost.barrier()?;
    half_works(&mut session, &fd, region)?;
    kit::works(&mut session)
}

fn region_with_offset(trial: &mut Trial) -> Outcome {
    let mut session = with_slots(trial)?;
    let (fd, region) = half_a_file()?;
    session.vhost.add_mem_region(region, fd.as_fd())?;
    session.vhost.barrier()?;
    half_works(&mut session, &fd, region)?;
    kit::works(&mut session)
}

fn entry_across_regions(trial: &mut Trial) -> Outcome {
    let (first, size) = (0x10_0000, 64 << 20);
    let options = SessionOptions {
        layout: vec![(first, size), (first + size, size)],
        ..SessionOptions::default()
    };
    let mut session = with_picture(trial, &options)?;
    let span = Span::new(first + size - 5000, BYTES);
    memory_works(&mut session, span, 4)?;
    kit::works(&mut session)
}

/// Adds a region by ADD_MEM_REG.
fn add(session: &mut Session, addr: u64, size: u64) -> Outcome {
    let (region, fd) = session.ram.add_region(addr, size)?;
    session.vhost.add_mem_region(region, fd.as_fd())?;
    Ok(session.vhost.barrier()?)
}

/// Removes a region by REM_MEM_REG.
fn remove(session: &mut Session, addr: u64) -> Outcome {
    let region = session.ram.remove_region(addr)?;
    session.vhost.remove_mem_region(region)?;
    Ok(session.vhost.barrier()?)
}

fn region_added(trial: &mut Trial) -> Outcome {
    let mut session = with_slots(trial)?;
    add(&mut session, EXTRA, 1 << 20)?;
    let span = session.ram.alloc_above(BYTES, EXTRA)?;
    memory_works(&mut session, span, 1)?;
    kit::works(&mut session)
}

fn buffers_in_added_region(trial: &mut Trial) -> Outcome {
    let mut session = with_slots(trial)?;
    add(&mut session, EXTRA, 1 << 20)?;
    let question = request::get_display_info();
    let asked = session.ram.alloc_above(question.len(), EXTRA)?;
    session.ram.write(asked.addr, &question)?;
    let answer = session.ram.alloc_above(response::DISPLAY_INFO, EXTRA)?;
    let chain = [readable(asked), writable(answer)];
    let head = session.gpu.control.ring().submit(&chain)?;
    let ticket = session.gpu.control.track(head, vec![answer], Vec::new());
    session.gpu.control.kick()?;
    let response = session.gpu.control.wait(ticket)?;
    let plain = session.gpu.call(&question, response::DISPLAY_INFO)?;
    equal("response type", response.kind(), plain.kind())?;
    check(response.written() >= response::HEADER, "no answer")?;
    kit::works(&mut session)
}

fn region_removed(trial: &mut Trial) -> Outcome {
    let mut session = with_slots(trial)?;
    for seed in 0..3 {
        add(&mut session, EXTRA, 1 << 20)?;
        let span = session.ram.alloc_above(BYTES, EXTRA)?;
        memory_works(&mut session, span, seed)?;
        let (fd, at) = file_of(&session, span)?;
        session.gpu.detach_backing(1)?;
        remove(&mut session, EXTRA)?;
        not_attached(&mut session, &fd, at, span)?;
        let span = session.ram.alloc(BYTES)?;
        session.gpu.attach_backing(1, &[span])?;
        memory_works(&mut session, span, 10 + seed)?;
    }
    kit::works(&mut session)
}

/// Checks that this span, whose memory is gone, cannot be attached, or is not shown; `fd` and `at`
/// as in [`not_shown`]. Resource 1 has no backing before and after.
fn not_attached(session: &mut Session, fd: &OwnedFd, at: u64, span: Span) -> Outcome {
    let attach = request::attach_backing(1, &[span.into()]);
    if succeeds(session, "RESOURCE_ATTACH_BACKING of it", &attach)? {
        not_shown(session, fd, at, 1)?;
        session.gpu.detach_backing(1)?;
    }
    Ok(())
}

fn backing_without_memory(trial: &mut Trial) -> Outcome {
    let mut session = with_slots(trial)?;
    add(&mut session, EXTRA, 1 << 20)?;
    let span = session.ram.alloc_above(BYTES, EXTRA)?;
    memory_works(&mut session, span, 1)?;
    let (fd, at) = file_of(&session, span)?;
    remove(&mut session, EXTRA)?;
    not_shown(&mut session, &fd, at, 1)?;
    let span = session.ram.alloc(BYTES)?;
    memory_works(&mut session, span, 2)?;
    kit::works(&mut session)
}

fn many_slots(trial: &mut Trial) -> Outcome {
    let mut session = with_slots(trial)?;
    let slots = session.vhost.max_mem_slots()?;
    let used = session.ram.regions()?.len() as u64;
    check(
        slots >= used,
        format_args!("{slots} slots, and {used} regions were accepted"),
    )?;
    let count = (slots - used).min(40);
    let addr = |n: u64| EXTRA + n * (1 << 30);
    for n in 0..count {
        add(&mut session, addr(n), 1 << 16)?;
        session.ram.write(addr(n), &noise(n, BYTES))?;
    }
    for n in (0..count).rev() {
        attach(&mut session, Span::new(addr(n), BYTES))?;
        transfer_shows(&mut session, &noise(n, BYTES))?;
    }
    // Every other one goes, the rest stays.
    for n in (0..count).step_by(2) {
        remove(&mut session, addr(n))?;
    }
    for n in (1..count).step_by(2) {
        attach(&mut session, Span::new(addr(n), BYTES))?;
        transfer_shows(&mut session, &noise(n, BYTES))?;
    }
    kit::works(&mut session)
}

/// A refusal, or a closed connection, which exceptional circumstances allow; the device then must
/// still be there for those that did not close.
fn tolerated(result: Result<(), Error>) -> Result<bool, Stop> {
    match result {
        Ok(()) | Err(Error::Nack { .. }) => Ok(true),
        Err(Error::Closed(_) | Error::Io { .. }) => Ok(false),
        Err(other) => Err(other.into()),
    }
}

fn unknown_region(trial: &mut Trial) -> Outcome {
    let mut session = with_slots(trial)?;
    let region = MemoryRegion {
        guest_addr: EXTRA,
        size: 1 << 20,
        user_addr: EXTRA + USER_OFFSET,
        mmap_offset: 0,
    };
    if !tolerated(session.vhost.remove_mem_region(region))? {
        return Ok(());
    }
    if !tolerated(session.vhost.barrier())? {
        return Ok(());
    }
    let span = session.ram.alloc(BYTES)?;
    memory_works(&mut session, span, 1)?;
    kit::works(&mut session)
}

fn offset_is_ignored(trial: &mut Trial) -> Outcome {
    let mut session = with_slots(trial)?;
    let (fd, region) = half_a_file()?;
    session.vhost.add_mem_region(region, fd.as_fd())?;
    session.vhost.barrier()?;
    half_works(&mut session, &fd, region)?;
    let elsewhere = MemoryRegion {
        mmap_offset: 0,
        ..region
    };
    session.gpu.detach_backing(1)?;
    session.vhost.remove_mem_region(elsewhere)?;
    session.vhost.barrier()?;
    let (at, span) = (3 * PAGE, Span::new(EXTRA + 3 * PAGE, BYTES));
    not_attached(&mut session, &fd, region.mmap_offset + at, span)?;
    kit::works(&mut session)
}

fn blob_without_memory(trial: &mut Trial) -> Outcome {
    let mut session = with_slots(trial)?;
    add(&mut session, EXTRA, 1 << 20)?;
    let span = session.ram.alloc_above(BYTES, EXTRA)?;
    session.gpu.create_blob_guest(2, BYTES as u64, &[span])?;
    session.gpu.set_scanout_blob(plain(2, 64, 64))?;
    session.gpu.flush(2, ALL)?;
    let (fd, at) = file_of(&session, span)?;
    remove(&mut session, EXTRA)?;
    not_shown(&mut session, &fd, at, 2)?;
    session.gpu.unref(2)?;
    session.gpu.set_scanout(0, 1, ALL)?;
    let span = session.ram.alloc(BYTES)?;
    memory_works(&mut session, span, 3)?;
    kit::works(&mut session)
}
