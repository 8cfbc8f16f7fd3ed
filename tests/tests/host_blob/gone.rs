//! Host blobs whose resource, context, device or front-end goes.

use super::*;

#[test]
fn a_mapped_blob_that_is_forgotten_is_unmapped_first() -> Result<()> {
    let (mut rig, context) = rig()?;
    let files = rig.daemon.open_files()?;
    context.blob_of(&mut rig.gpu, 200, 2 * PAGE)?;
    rig.gpu.map_blob(200, 0)?;
    rig.gpu.unref(200)?;
    assert_eq!(rig.shmem().mapped(), []);
    assert_eq!(rig.daemon.open_files()?, files);
    let gone = rig.gpu.answer(&request::unmap_blob(200))?;
    assert_eq!(gone, resp::ERR_INVALID_RESOURCE_ID);
    context.blob_of(&mut rig.gpu, 200, 2 * PAGE)?;
    rig.gpu.map_blob(200, 0)?;
    rig.finish()
}

#[test]
fn a_context_takes_the_mappings_of_its_blobs_along() -> Result<()> {
    let (mut rig, context) = rig()?;
    ImageContext::new(&mut rig.gpu, 2, 101)?;
    let info = context.blob_of(&mut rig.gpu, 200, PAGE)?;
    for n in 201..204 {
        context.create_blob(&mut rig.gpu, n, &info)?;
    }
    for n in 0..3 {
        rig.gpu.map_blob(200 + n, u64::from(n) * PAGE)?;
    }
    rig.gpu.attach_resource(1, 200)?;
    // Another context uses this one.
    rig.gpu.attach_resource(2, 201)?;
    rig.gpu.command("CTX_DESTROY", &request::ctx_destroy(1))?;
    rig.shmem().wait_mapped(&[(PAGE, PAGE)])?;
    // The resources live on, and can be mapped again.
    for n in [200, 202, 203] {
        rig.gpu.map_blob(n, u64::from(n) * PAGE)?;
    }
    rig.gpu.unmap_blob(201)?;
    rig.finish()
}

#[test]
fn a_reset_leaves_nothing_in_the_way_of_a_qemu_that_unmaps_by_itself() -> Result<()> {
    let (mut rig, context) = rig()?;
    let files = rig.daemon.open_files()?;
    context.blob_of(&mut rig.gpu, 200, 4 * PAGE)?;
    rig.gpu.map_blob(200, 0)?;
    for round in 0..4 {
        rig.shmem().drop_mappings();
        rig.reset_device()?;
        let context = ImageContext::new(&mut rig.gpu, 1, 100)?;
        let gone = rig.gpu.answer(&request::map_blob(200, 0))?;
        assert_eq!(gone, resp::ERR_INVALID_RESOURCE_ID);
        context.blob_of(&mut rig.gpu, 200, 4 * PAGE)?;
        rig.gpu.map_blob(200, round % 2 * 2 * PAGE)?;
    }
    rig.gpu.unref(200)?;
    assert_eq!(rig.daemon.open_files()?, files);
    rig.finish()
}

#[test]
fn a_reset_is_cleaned_up_after_for_a_crosvm_that_does_not() -> Result<()> {
    let mut rig = Rig::start(&["--shm-size", "8G"], &SessionOptions::crosvm_host_blobs())?;
    let context = ImageContext::new(&mut rig.gpu, 1, 100)?;
    let info = context.blob_of(&mut rig.gpu, 200, 4 * PAGE)?;
    context.create_blob(&mut rig.gpu, 201, &info)?;
    rig.gpu.map_blob(200, 0)?;
    rig.gpu.map_blob(201, 8 * PAGE)?;
    for index in [0, 1] {
        rig.stop_queue(index)?;
    }
    // It reads no request until the device is active again.
    rig.shmem().set_serving(false);
    rig.vhost.set_features(rig.features)?;
    for index in [0, 1] {
        rig.queue(index).reset()?;
    }
    rig.start_queue(0, 0)?;
    rig.start_queue(1, 0)?;
    rig.shmem().set_serving(true);
    // The driver starts anew with the same numbers. Without a RESET_DEVICE, which crosvm never
    // sends, the old ones may still be there: it frees them first.
    let _ = rig.gpu.answer(&request::unref(200))?;
    let _ = rig.gpu.answer(&request::unref(201))?;
    let _ = rig.gpu.answer(&request::ctx_destroy(1))?;
    let _ = rig.gpu.answer(&request::unref(100))?;
    let context = ImageContext::new(&mut rig.gpu, 1, 100)?;
    context.blob_of(&mut rig.gpu, 200, 16 * PAGE)?;
    rig.gpu.map_blob(200, 0)?;
    assert_eq!(rig.shmem().mapped(), [(0, 16 * PAGE)]);
    rig.finish()
}

#[test]
fn a_reset_with_the_mappings_still_there_unmaps_them_before_the_next_map() -> Result<()> {
    let (mut rig, context) = rig()?;
    let info = context.blob_of(&mut rig.gpu, 200, 4 * PAGE)?;
    context.create_blob(&mut rig.gpu, 201, &info)?;
    rig.gpu.map_blob(200, 0)?;
    rig.gpu.map_blob(201, 8 * PAGE)?;
    rig.reset_device()?;
    let context = ImageContext::new(&mut rig.gpu, 1, 100)?;
    context.blob_of(&mut rig.gpu, 200, 16 * PAGE)?;
    rig.gpu.map_blob(200, 0)?;
    assert_eq!(rig.shmem().mapped(), [(0, 16 * PAGE)]);
    rig.finish()
}

#[test]
fn a_front_end_that_leaves_takes_everything_along() -> Result<()> {
    let mut daemon = Daemon::start(&["--shm-size", "8G"])?;
    let mut counts = None;
    for _ in 0..5 {
        let mut session = Session::connect(daemon.socket(), &SessionOptions::host_blobs())?;
        let context = ImageContext::new(&mut session.gpu, 1, 100)?;
        let now = daemon.open_files()?;
        assert_eq!(*counts.get_or_insert(now), now);
        let info = context.blob_of(&mut session.gpu, 200, 64 * PAGE)?;
        for n in 1..10 {
            context.create_blob(&mut session.gpu, 200 + n, &info)?;
        }
        for n in 0..10 {
            session.gpu.map_blob(200 + n, u64::from(n) * info.size)?;
        }
        session.check_shmem()?;
    }
    daemon.check_alive()?;
    assert!(daemon.terminate()?.success());
    Ok(())
}
