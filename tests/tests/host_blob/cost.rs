//! What mapping costs, and that it leaves nothing behind.

use super::*;

#[test]
fn mapping_and_unmapping_often_leaks_nothing() -> Result<()> {
    let (mut rig, context) = rig()?;
    let round = |rig: &mut Rig, n: u64| {
        let info = context.image(&mut rig.gpu, ImageRequest::xrgb(1024, 16))?;
        context.create_blob(&mut rig.gpu, 200, &info)?;
        rig.gpu.map_blob(200, (n % 100) * info.size)?;
        if n.is_multiple_of(2) {
            rig.gpu.unmap_blob(200)?;
        }
        rig.gpu.unref(200)
    };
    for n in 0..50 {
        round(&mut rig, n)?;
    }
    let files = rig.daemon.open_files()?;
    let mappings = rig.daemon.mappings()?;
    let own = rig.daemon.own_bytes()?;
    for n in 0..2000 {
        round(&mut rig, n)?;
    }
    assert_eq!(rig.daemon.open_files()?, files);
    assert!(rig.daemon.mappings()? <= mappings + 1);
    let more = rig.daemon.own_bytes()?.saturating_sub(own);
    assert!(more < 512 << 10, "{more} bytes more");
    assert_eq!(rig.shmem().mapped(), []);
    rig.finish()
}

/// Median and 99th percentile.
fn percentiles(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

/// What the front-end's side alone costs: one request over a socket, a mapping, the answer.
fn bare_round_trips(len: u64, count: u64) -> Result<Vec<Duration>> {
    let (server, socket) = ShmemServer::start()?;
    server.set_size(REGION);
    server.set_serving(true);
    let file = memfd_create("bare", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&file, len).unwrap();
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL).unwrap();
    let vhost = VhostUser::over(socket);
    let ask = |request, fds: &[BorrowedFd<'_>]| {
        let fields = [1, 0, 0, len, FLAG_WRITABLE];
        let payload: Vec<u8> = fields
            .iter()
            .flat_map(|field| field.to_ne_bytes())
            .collect();
        let flags = FLAG_VERSION | FLAG_NEED_REPLY;
        let size = payload.len() as u32;
        vhost.send_raw(
            Header {
                request,
                flags,
                size,
            },
            &payload,
            fds,
        )?;
        vhost.receive("an acknowledgement")
    };
    let mut times = Vec::new();
    for _ in 0..count {
        let begin = Instant::now();
        ask(SHMEM_MAP, &[file.as_fd()])?;
        times.push(begin.elapsed());
        ask(SHMEM_UNMAP, &[])?;
    }
    assert_eq!(server.violations(), Vec::<String>::new());
    Ok(times)
}

#[test]
fn mapping_takes_little_longer_than_the_front_ends_part_of_it() -> Result<()> {
    let (mut rig, context) = rig()?;
    for (id, len) in [(200, PAGE), (201, 1 << 20), (202, 64 << 20)] {
        let count = 300;
        context.blob_of(&mut rig.gpu, id, len)?;
        let (mut maps, mut unmaps) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let begin = Instant::now();
            rig.gpu.map_blob(id, 0)?;
            maps.push(begin.elapsed());
            let begin = Instant::now();
            rig.gpu.unmap_blob(id)?;
            unmaps.push(begin.elapsed());
        }
        let bare = percentiles(bare_round_trips(len, count)?);
        let (map, unmap) = (percentiles(maps), percentiles(unmaps));
        println!("{len} bytes, p50 and p99: map {map:?}, unmap {unmap:?}, bare {bare:?}");
        // A deadline or a poll anywhere on the way would cost milliseconds each time.
        assert!(
            map.0 < bare.0 + Duration::from_millis(5),
            "{map:?} {bare:?}"
        );
        assert!(
            unmap.0 < bare.0 + Duration::from_millis(5),
            "{unmap:?} {bare:?}"
        );
    }
    rig.finish()
}
