//! Contexts, capability sets and fences, over the real socket.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::cast_lossless,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "test code: a broken expectation is to stop the test loudly"
)]

use nosnoop_tests::frontend::cross_domain::{self, CAPSET, ring_blob};
use nosnoop_tests::frontend::memory::PAGE;
use nosnoop_tests::frontend::message::{feature, protocol, u32_at};
use nosnoop_tests::frontend::pixels::BGRX;
use nosnoop_tests::frontend::request::{self, FLAG_FENCE, FLAG_INFO_RING_IDX, cmd};
use nosnoop_tests::frontend::response::{self, resp};
use nosnoop_tests::frontend::{
    Daemon, ImageContext, ImageRequest, Result, Rig, Session, SessionOptions, VhostUser,
};

#[test]
fn host_blob_features_are_offered_by_default() -> Result<()> {
    let daemon = Daemon::start(&[])?;
    let mut vhost = VhostUser::connect(daemon.socket())?;
    let expected = feature::VERSION_1
        | feature::EVENT_IDX
        | feature::INDIRECT_DESC
        | feature::RING_RESET
        | feature::PROTOCOL_FEATURES
        | feature::EDID
        | feature::RESOURCE_UUID
        | feature::RESOURCE_BLOB
        | feature::VIRGL
        | feature::CONTEXT_INIT
        | feature::BLOB_ALIGNMENT;
    assert_eq!(vhost.features()?, expected);
    let expected = protocol::MQ
        | protocol::CONFIG
        | protocol::REPLY_ACK
        | protocol::RESET_DEVICE
        | protocol::CONFIGURE_MEM_SLOTS
        | protocol::BACKEND_REQ
        | protocol::SHMEM
        | protocol::MEMTYPE;
    assert_eq!(vhost.protocol_features()?, expected);
    vhost.set_protocol_features(expected)?;
    assert_eq!(vhost.shmem_config()?, [(1, 8 << 30)]);
    let config = vhost.config(0, 24)?;
    let words: Vec<u32> = (0..6).map(|at| u32_at(&config, 4 * at)).collect();
    assert_eq!(words, [0, 0, 1, 1, 4096, 0]);
    Ok(())
}

#[test]
fn the_region_has_the_size_that_was_asked_for() -> Result<()> {
    let daemon = Daemon::start(&["--shm-size", "1G"])?;
    let mut vhost = VhostUser::connect(daemon.socket())?;
    let offered = vhost.protocol_features()?;
    vhost.set_protocol_features(offered)?;
    assert_eq!(vhost.shmem_config()?, [(1, 1 << 30)]);
    Ok(())
}

#[test]
fn there_is_one_capability_set_of_sixteen_bytes() -> Result<()> {
    let mut rig = Rig::host_blobs(&[])?;
    let info = request::get_capset_info(0);
    let info = rig.gpu.call(&info, response::CAPSET_INFO)?;
    let info = info.expect("GET_CAPSET_INFO", resp::OK_CAPSET_INFO)?;
    assert_eq!(info.capset_info(), [CAPSET, 1, 16]);
    for version in [0, 1] {
        let set = request::get_capset(CAPSET, version);
        let set = rig.gpu.call(&set, response::CAPSET)?;
        let set = set.expect("GET_CAPSET", resp::OK_CAPSET)?;
        let expected: Vec<u8> = [1_u32, 0, 0, 0]
            .iter()
            .flat_map(|n| n.to_le_bytes())
            .collect();
        assert_eq!(set.bytes()[response::HEADER..], expected);
    }
    rig.finish()
}

#[test]
fn capability_sets_that_do_not_exist_are_refused() -> Result<()> {
    let mut rig = Rig::host_blobs(&[])?;
    for index in [1, 2, 255, u32::MAX] {
        let answer = rig.gpu.answer(&request::get_capset_info(index))?;
        assert_eq!(answer, resp::ERR_INVALID_PARAMETER, "{index}");
    }
    for (id, version) in [
        (0, 1),
        (1, 1),
        (4, 1),
        (6, 0),
        (u32::MAX, 1),
        (5, 2),
        (5, u32::MAX),
    ] {
        let answer = rig.gpu.answer(&request::get_capset(id, version))?;
        assert_eq!(answer, resp::ERR_INVALID_PARAMETER, "{id} {version}");
    }
    rig.finish()
}

#[test]
fn contexts_need_an_id_of_their_own_and_a_capability_set() -> Result<()> {
    let mut rig = Rig::host_blobs(&[])?;
    let mut create = |id, init| rig.gpu.answer(&request::ctx_create(id, init, b"x"));
    assert_eq!(create(0, CAPSET)?, resp::ERR_INVALID_CONTEXT_ID);
    for init in [1, 2, 4, 6, 255, 0x101] {
        assert_eq!(create(1, init)?, resp::ERR_INVALID_PARAMETER, "{init}");
    }
    assert_eq!(create(1, CAPSET)?, resp::OK_NODATA);
    // The device decides.
    assert_eq!(create(3, 0)?, resp::OK_NODATA);
    assert_eq!(create(1, CAPSET)?, resp::ERR_INVALID_CONTEXT_ID);
    assert_eq!(create(u32::MAX, CAPSET)?, resp::OK_NODATA);
    let mut destroy = |id| rig.gpu.answer(&request::ctx_destroy(id));
    for id in [0, 2] {
        assert_eq!(destroy(id)?, resp::ERR_INVALID_CONTEXT_ID, "{id}");
    }
    assert_eq!(destroy(1)?, resp::OK_NODATA);
    assert_eq!(destroy(1)?, resp::ERR_INVALID_CONTEXT_ID);
    rig.gpu.create_context(1, CAPSET)?;
    rig.finish()
}

#[test]
fn there_are_1024_contexts_and_no_more() -> Result<()> {
    let mut rig = Rig::host_blobs(&[])?;
    for id in 1..=1024 {
        rig.gpu.create_context(id, CAPSET)?;
    }
    let create = request::ctx_create(1025, CAPSET, b"one too many");
    assert_eq!(rig.gpu.answer(&create)?, resp::ERR_OUT_OF_MEMORY);
    rig.gpu.command("CTX_DESTROY", &request::ctx_destroy(7))?;
    assert_eq!(rig.gpu.answer(&create)?, resp::OK_NODATA);
    rig.finish()
}

#[test]
fn any_resource_can_be_attached_any_number_of_times() -> Result<()> {
    let mut rig = Rig::host_blobs(&[])?;
    rig.gpu.create_context(1, CAPSET)?;
    rig.gpu.create_picture(10, BGRX, 16, 16)?;
    ring_blob(&mut rig.gpu, 11, PAGE)?;
    for resource in [10, 11] {
        rig.gpu.attach_resource(1, resource)?;
        rig.gpu.attach_resource(1, resource)?;
        rig.gpu.detach_resource(1, resource)?;
        rig.gpu.detach_resource(1, resource)?;
    }
    for kind in [cmd::CTX_ATTACH_RESOURCE, cmd::CTX_DETACH_RESOURCE] {
        for (context, resource, expected) in [
            (2, 10, resp::ERR_INVALID_CONTEXT_ID),
            (0, 10, resp::ERR_INVALID_CONTEXT_ID),
            (1, 12, resp::ERR_INVALID_RESOURCE_ID),
            (1, 0, resp::ERR_INVALID_RESOURCE_ID),
        ] {
            let request = request::ctx_resource(kind, context, resource);
            assert_eq!(rig.gpu.answer(&request)?, expected, "{context} {resource}");
        }
    }
    rig.finish()
}

#[test]
fn what_was_attached_is_not_once_the_context_or_the_resource_is_new() -> Result<()> {
    let mut rig = Rig::host_blobs(&[])?;
    let context = ImageContext::new(&mut rig.gpu, 1, 100)?;
    context.image(&mut rig.gpu, ImageRequest::xrgb(16, 16))?;
    rig.gpu.command("CTX_DESTROY", &request::ctx_destroy(1))?;
    rig.gpu.create_context(1, CAPSET)?;
    let init = request::submit_3d(1, &cross_domain::init(100, 0, 0));
    assert_eq!(rig.gpu.answer(&init)?, resp::ERR_INVALID_RESOURCE_ID);
    rig.gpu.attach_resource(1, 100)?;
    rig.gpu.unref(100)?;
    ring_blob(&mut rig.gpu, 100, PAGE)?;
    assert_eq!(rig.gpu.answer(&init)?, resp::ERR_INVALID_RESOURCE_ID);
    rig.gpu.attach_resource(1, 100)?;
    assert_eq!(rig.gpu.answer(&init)?, resp::OK_NODATA);
    rig.finish()
}

#[test]
fn a_submission_needs_a_context() -> Result<()> {
    let mut rig = Rig::host_blobs(&[])?;
    rig.gpu.create_context(1, CAPSET)?;
    for id in [0, 2, u32::MAX] {
        let answer = rig.gpu.answer(&request::submit_3d(id, &[]))?;
        assert_eq!(answer, resp::ERR_INVALID_CONTEXT_ID, "{id}");
    }
    rig.gpu.submit_3d(1, &[])?;
    rig.finish()
}

#[test]
fn a_submission_is_bounded() -> Result<()> {
    let mut rig = Rig::host_blobs(&[])?;
    let context = ImageContext::new(&mut rig.gpu, 1, 100)?;
    let image = ImageRequest::xrgb(64, 64).to_bytes();
    let most = image.repeat((64 << 10) / image.len());
    rig.gpu.submit_3d(context.id, &most)?;
    let mut larger = most;
    larger.resize((64 << 10) + 1, 0);
    let answer = rig.gpu.answer(&request::submit_3d(context.id, &larger))?;
    assert_eq!(answer, resp::ERR_INVALID_PARAMETER);
    rig.finish()
}

#[test]
fn fences_of_each_ring_come_back_in_order_and_whole() -> Result<()> {
    let mut rig = Rig::host_blobs(&[])?;
    let context = ImageContext::new(&mut rig.gpu, 1, 100)?;
    let image = ImageRequest::xrgb(8, 8).to_bytes();
    let mut tickets = Vec::new();
    for n in 0..60_u64 {
        // Ids above 32 bits, on several rings and on none.
        let id = (n << 32) + 1000 - n;
        let request = request::submit_3d(context.id, &image).fenced(id);
        let ring = (n % 4) as u8 * 21;
        let request = if n.is_multiple_of(5) {
            request
        } else {
            request.on_ring(ring)
        };
        tickets.push((rig.gpu.queue(&request)?, id, ring, n % 5 != 0));
    }
    rig.gpu.control.kick()?;
    for (ticket, id, ring, on_ring) in tickets {
        let response = rig.gpu.control.wait(ticket)?;
        let response = response.expect("SUBMIT_3D", resp::OK_NODATA)?;
        assert_eq!(response.fence_id(), id);
        assert_eq!(response.context(), context.id);
        if on_ring {
            assert_eq!(response.flags(), FLAG_FENCE | FLAG_INFO_RING_IDX);
            assert_eq!(response.ring_idx(), ring);
        } else {
            assert_eq!(response.flags(), FLAG_FENCE);
        }
    }
    rig.finish()
}

#[test]
fn a_fence_on_a_ring_that_cannot_exist_is_refused() -> Result<()> {
    let mut rig = Rig::host_blobs(&[])?;
    let context = ImageContext::new(&mut rig.gpu, 1, 100)?;
    let image = ImageRequest::xrgb(8, 8).to_bytes();
    for ring in [64, 65, 128, 255] {
        let request = request::submit_3d(context.id, &image)
            .fenced(9)
            .on_ring(ring);
        let response = rig.gpu.call(&request, response::HEADER)?;
        assert_eq!(response.kind(), resp::ERR_INVALID_PARAMETER, "{ring}");
        assert_eq!(response.fence_id(), 9);
    }
    for ring in [0, 63] {
        let request = request::submit_3d(context.id, &image)
            .fenced(9)
            .on_ring(ring);
        assert_eq!(rig.gpu.answer(&request)?, resp::OK_NODATA, "{ring}");
    }
    rig.finish()
}

#[test]
fn a_reset_forgets_all_contexts() -> Result<()> {
    let mut rig = Rig::host_blobs(&[])?;
    for round in 0..3 {
        let context = ImageContext::new(&mut rig.gpu, 1, 100)?;
        let image = ImageRequest::xrgb(16 + round, 16);
        let image = context.image(&mut rig.gpu, image)?;
        context.create_blob(&mut rig.gpu, 101, &image)?;
        rig.reset_device()?;
        let answer = rig.gpu.answer(&request::submit_3d(1, &[]))?;
        assert_eq!(answer, resp::ERR_INVALID_CONTEXT_ID);
    }
    rig.finish()
}

#[test]
fn another_connection_has_no_contexts_of_the_one_before() -> Result<()> {
    let mut daemon = Daemon::start(&["--shm-size", "1G"])?;
    for _ in 0..3 {
        let mut session = Session::connect(daemon.socket(), &SessionOptions::host_blobs())?;
        ImageContext::new(&mut session.gpu, 1, 100)?;
    }
    daemon.check_alive()?;
    assert!(daemon.terminate()?.success());
    Ok(())
}
