//! Blobs in host memory: MAP_BLOB, UNMAP_BLOB and the shared-memory region.

use super::kit::{self, host_blobs, plain, shown, succeeds};
use crate::conform::case::{Case, Group, Needs, Outcome, Stop, check, equal};
use crate::conform::trial::Trial;
use crate::frontend::memory::PAGE;
use crate::frontend::pixels::{BGRX, noise};
use crate::frontend::request;
use crate::frontend::response::{self, resp};
use crate::frontend::shmem::{HOST_VISIBLE, SHMEM_MAP, SHMEM_UNMAP};
use crate::frontend::{ImageContext, ImageRequest, Session};

/// The cases of this group.
pub(super) const CASES: &[Case] = &[
    Group::HostBlob.case_needing(
        Needs::HOST_BLOBS,
        1,
        "there is one region, host visible, of whole pages, the same at each ask",
        &[
            "gpu-init-4",
            "gpu-init-5",
            "shm-3",
            "vu-34",
            "vu-35",
            "vu-36",
        ],
        region,
    ),
    Group::HostBlob.case_needing(
        Needs::HOST_BLOBS,
        2,
        "a blob is mapped at the offset that the guest names, whole, and then the guest is told",
        &["gpu-map-1", "shm-2", "vu-37", "vu-40"],
        map_at_offset,
    ),
    Group::HostBlob.case_needing(
        Needs::HOST_BLOBS,
        3,
        "map_info holds a cache type and no unknown bits",
        &["gpu-map-3"],
        map_info,
    ),
    Group::HostBlob.case_needing(
        Needs::HOST_BLOBS,
        4,
        "what the guest writes through the mapping is what the device shows",
        &["gpu-map-1", "gpu-blob-12"],
        device_sees_writes,
    ),
    Group::HostBlob.case_needing(
        Needs::HOST_BLOBS,
        5,
        "the guest may write to what is mapped",
        &["gpu-map-1"],
        mapping_is_writable,
    ),
    Group::HostBlob.case_needing(
        Needs::HOST_BLOBS,
        6,
        "two blobs have memory of their own, with nothing in it",
        &["gpu-map-1", "gpu-blob-8"],
        own_memory,
    ),
    Group::HostBlob.case_needing(
        Needs::HOST_BLOBS,
        7,
        "unmapping takes the whole mapping away, and nothing else",
        &["gpu-map-5", "vu-39"],
        unmap,
    ),
    Group::HostBlob.case_needing(
        Needs::HOST_BLOBS,
        8,
        "a blob that was unmapped is mapped elsewhere with its contents",
        &["gpu-map-1", "gpu-map-5"],
        map_elsewhere,
    ),
    Group::HostBlob.case_needing(
        Needs::HOST_BLOBS,
        11,
        "neighbours touch each other and do not overlap",
        &["gpu-map-1", "vu-38"],
        neighbours,
    ),
    Group::HostBlob.case_needing(
        Needs::HOST_BLOBS,
        12,
        "a blob fits at the very end of the region",
        &["gpu-map-1", "vu-34"],
        end_of_region,
    ),
    Group::HostBlob.case_needing(
        Needs::HOST_BLOBS,
        16,
        "a mapped blob that goes is unmapped",
        &["gpu-2d-4", "vu-39"],
        unref_while_mapped,
    ),
    Group::HostBlob.case_needing(
        Needs::HOST_BLOBS,
        22,
        "48 blobs are mapped at a time",
        &["gpu-map-1"],
        many,
    ),
];

/// Pages of each blob here.
pub(super) const PAGES: u64 = 4;

/// Bytes of each blob here.
pub(super) const SIZE: u64 = PAGES * PAGE;

/// A device with blobs 200 to 199 + `count`, each of [`SIZE`].
pub(super) fn with_blobs(trial: &mut Trial, count: u32) -> Result<(Session, ImageContext), Stop> {
    let (mut session, context) = host_blobs(trial)?;
    let info = context.image(&mut session.gpu, ImageRequest::xrgb(1024, PAGES as u32))?;
    if info.blob_size() != SIZE {
        return Err(Stop::skip(format_args!(
            "an image of 1024 x {PAGES} pixels takes {:#x} bytes here, these cases want {SIZE:#x}",
            info.blob_size()
        )));
    }
    for id in 200..200 + count {
        context.create_blob(&mut session.gpu, id, &info)?;
    }
    Ok((session, context))
}

/// Fails unless exactly this is mapped.
pub(super) fn mapped(session: &Session, when: &str, expected: &[(u64, u64)]) -> Outcome {
    equal(
        &format!("mapped {when}"),
        session.shmem().mapped(),
        expected.to_vec(),
    )
}

fn region(trial: &mut Trial) -> Outcome {
    let (mut session, _) = host_blobs(trial)?;
    let regions = session.vhost.shmem_config()?;
    check(
        regions
            .iter()
            .all(|(id, size)| *id <= HOST_VISIBLE && size.is_multiple_of(PAGE)),
        format_args!("regions (shmid, bytes) {regions:x?}"),
    )?;
    let visible = regions.iter().any(|(id, _)| *id == HOST_VISIBLE);
    check(
        visible,
        format_args!("none of {regions:x?} is host visible"),
    )?;
    equal(
        "regions at the second ask",
        session.vhost.shmem_config()?,
        regions,
    )?;
    kit::works(&mut session)
}

fn map_at_offset(trial: &mut Trial) -> Outcome {
    let (mut session, _) = with_blobs(trial, 3)?;
    for (id, offset) in [(200, 0), (201, 7 * PAGE), (202, 1 << 20)] {
        let before = session.shmem().count();
        session.gpu.map_blob(id, offset)?;
        let requests = session.shmem().requests();
        let asked: Vec<_> = requests[before..]
            .iter()
            .map(|r| (r.kind, r.offset, r.len))
            .collect();
        equal(
            "asked of the front-end",
            asked,
            vec![(SHMEM_MAP, offset, SIZE)],
        )?;
    }
    mapped(
        &session,
        "in the end",
        &[(0, SIZE), (7 * PAGE, SIZE), (1 << 20, SIZE)],
    )?;
    kit::works(&mut session)
}

fn map_info(trial: &mut Trial) -> Outcome {
    let (mut session, _) = with_blobs(trial, 1)?;
    let request = request::map_blob(200, 0);
    let answer = session.gpu.call(&request, response::MAP_INFO + 16)?;
    let answer = answer.expect("RESOURCE_MAP_BLOB", resp::OK_MAP_INFO)?;
    equal("bytes of the answer", answer.written(), response::MAP_INFO)?;
    let info = answer.map_info();
    check(info <= 3, format_args!("map_info is {info:#x}"))?;
    kit::works(&mut session)
}

fn device_sees_writes(trial: &mut Trial) -> Outcome {
    let (mut session, context) = host_blobs(trial)?;
    let image = context.image(&mut session.gpu, ImageRequest::xrgb(128, 64))?;
    context.create_blob(&mut session.gpu, 200, &image)?;
    session.gpu.map_blob(200, PAGE)?;
    let mut blob = plain(200, 128, 64);
    (blob.stride, blob.offset, blob.format) = (image.strides[0], image.offsets[0], BGRX);
    let scanout = request::set_scanout_blob(blob);
    if !succeeds(&mut session, "SET_SCANOUT_BLOB of a host blob", &scanout)? {
        return Err(Stop::skip("host blobs are not shown"));
    }
    for frame in 0..3 {
        let bytes = noise(frame, image.size as usize);
        session.shmem().try_write(PAGE, &bytes)?;
        session.gpu.flush(200, blob.rect)?;
        session.display().wait_picture(0, &shown(&bytes, blob))?;
    }
    kit::works(&mut session)
}

fn mapping_is_writable(trial: &mut Trial) -> Outcome {
    let (mut session, _) = with_blobs(trial, 1)?;
    session.gpu.map_blob(200, 0)?;
    let requests = session.shmem().requests();
    let writable = requests
        .first()
        .is_some_and(|request| request.flags & 1 == 1);
    check(writable, "the front-end was asked for a read-only mapping")?;
    let bytes = noise(1, SIZE as usize);
    session.shmem().try_write(0, &bytes)?;
    equal(
        "what was written",
        session.shmem().try_read(0, SIZE as usize)? == bytes,
        true,
    )?;
    kit::works(&mut session)
}

fn own_memory(trial: &mut Trial) -> Outcome {
    let (mut session, _) = with_blobs(trial, 4)?;
    let offset = |id: u32| u64::from(id - 200) * SIZE;
    for id in 200..204 {
        session.gpu.map_blob(id, offset(id))?;
        let bytes = session.shmem().try_read(offset(id), SIZE as usize)?;
        check(
            bytes.iter().all(|byte| *byte == 0),
            format_args!("blob {id} is not empty when it is new"),
        )?;
        session
            .shmem()
            .try_write(offset(id), &vec![id as u8; SIZE as usize])?;
    }
    for id in 200..204 {
        let bytes = session.shmem().try_read(offset(id), SIZE as usize)?;
        check(
            bytes.iter().all(|byte| *byte == id as u8),
            format_args!("blob {id} has bytes of another"),
        )?;
    }
    kit::works(&mut session)
}

fn unmap(trial: &mut Trial) -> Outcome {
    let (mut session, _) = with_blobs(trial, 3)?;
    for (id, offset) in [(200, 0), (201, SIZE), (202, 2 * SIZE)] {
        session.gpu.map_blob(id, offset)?;
    }
    session.gpu.unmap_blob(201)?;
    mapped(&session, "after UNMAP_BLOB", &[(0, SIZE), (2 * SIZE, SIZE)])?;
    let last = session.shmem().requests().last().copied();
    let last = last.map(|request| (request.kind, request.offset, request.len));
    equal("the last request", last, Some((SHMEM_UNMAP, SIZE, SIZE)))?;
    session.gpu.unmap_blob(200)?;
    session.gpu.unmap_blob(202)?;
    mapped(&session, "in the end", &[])?;
    kit::works(&mut session)
}

fn map_elsewhere(trial: &mut Trial) -> Outcome {
    let (mut session, _) = with_blobs(trial, 1)?;
    session.gpu.map_blob(200, 0)?;
    let bytes = noise(5, SIZE as usize);
    session.shmem().try_write(0, &bytes)?;
    for offset in [64 * PAGE, 0, 3 * PAGE] {
        session.gpu.unmap_blob(200)?;
        session.gpu.map_blob(200, offset)?;
        let read = session.shmem().try_read(offset, SIZE as usize)?;
        check(read == bytes, format_args!("other contents at {offset:#x}"))?;
    }
    kit::works(&mut session)
}

fn neighbours(trial: &mut Trial) -> Outcome {
    let (mut session, _) = with_blobs(trial, 3)?;
    for (id, page) in [(200, 8), (201, 8 - PAGES), (202, 8 + PAGES)] {
        session.gpu.map_blob(id, page * PAGE)?;
    }
    let pages = [8 - PAGES, 8, 8 + PAGES];
    mapped(
        &session,
        "side by side",
        &pages.map(|page| (page * PAGE, SIZE)),
    )?;
    // The middle one goes, and its place takes another.
    session.gpu.unref(200)?;
    session.gpu.unmap_blob(201)?;
    session.gpu.map_blob(201, 8 * PAGE)?;
    kit::works(&mut session)
}

fn end_of_region(trial: &mut Trial) -> Outcome {
    let (mut session, _) = with_blobs(trial, 1)?;
    let end = session.shmem().size() - SIZE;
    session.gpu.map_blob(200, end)?;
    mapped(&session, "at the end", &[(end, SIZE)])?;
    kit::works(&mut session)
}

fn unref_while_mapped(trial: &mut Trial) -> Outcome {
    let (mut session, _) = with_blobs(trial, 2)?;
    session.gpu.map_blob(200, 0)?;
    session.gpu.map_blob(201, SIZE)?;
    session.gpu.unref(200)?;
    session.shmem().wait_mapped(&[(SIZE, SIZE)])?;
    session.gpu.unref(201)?;
    session.shmem().wait_mapped(&[])?;
    kit::works(&mut session)
}

fn many(trial: &mut Trial) -> Outcome {
    const COUNT: u32 = 48;
    let (mut session, _) = with_blobs(trial, COUNT)?;
    let offset = |n: u32| u64::from(n) * 2 * SIZE;
    for n in 0..COUNT {
        session.gpu.map_blob(200 + n, offset(n))?;
        session.shmem().try_write(offset(n), &[n as u8 + 1])?;
    }
    let all: Vec<_> = (0..COUNT).map(|n| (offset(n), SIZE)).collect();
    mapped(&session, "at a time", &all)?;
    for n in 0..COUNT {
        equal(
            "first byte",
            session.shmem().try_read(offset(n), 1)?,
            vec![n as u8 + 1],
        )?;
        session.gpu.unmap_blob(200 + n)?;
    }
    mapped(&session, "in the end", &[])?;
    kit::works(&mut session)
}
