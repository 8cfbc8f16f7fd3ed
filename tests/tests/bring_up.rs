//! Bring-up over vhost-user: features, configuration space, memory, orders of messages.
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

use std::os::fd::AsFd;

use nosnoop_tests::frontend::message::{
    FLAG_NEED_REPLY, FLAG_REPLY, FLAG_VERSION, Header, Request, feature, protocol, u32_at,
};
use nosnoop_tests::frontend::pixels::{BGRX, Picture, noise};
use nosnoop_tests::frontend::{
    Daemon, DisplayConfig, Error, Profile, Result, Rig, Session, SessionOptions, VhostUser,
};

#[test]
fn features_offered_without_shared_memory_are_exactly_those_implemented() -> Result<()> {
    let daemon = Daemon::start(&["--shm-size", "0"])?;
    let vhost = VhostUser::connect(daemon.socket())?;
    let expected = feature::VERSION_1
        | feature::EVENT_IDX
        | feature::INDIRECT_DESC
        | feature::RING_RESET
        | feature::PROTOCOL_FEATURES
        | feature::EDID
        | feature::RESOURCE_UUID
        | feature::RESOURCE_BLOB;
    assert_eq!(vhost.features()?, expected);
    let expected = protocol::MQ
        | protocol::CONFIG
        | protocol::REPLY_ACK
        | protocol::RESET_DEVICE
        | protocol::CONFIGURE_MEM_SLOTS;
    assert_eq!(vhost.protocol_features()?, expected);
    Ok(())
}

#[test]
fn a_feature_that_was_not_offered_is_refused() -> Result<()> {
    let daemon = Daemon::start(&["--shm-size", "0"])?;
    let mut vhost = VhostUser::connect(daemon.socket())?;
    vhost.set_owner()?;
    vhost.features()?;
    vhost.set_protocol_features(protocol::REPLY_ACK)?;
    let refused = vhost.set_features(feature::VERSION_1 | feature::VIRGL);
    assert!(
        matches!(refused, Err(Error::Nack { .. } | Error::Closed(_))),
        "{refused:?}"
    );
    Ok(())
}

#[test]
fn without_memory_slots_the_memory_table_is_shared_as_a_whole() -> Result<()> {
    let mut rig = Rig::headless(&["--no-mem-slots"])?;
    let offered = rig.vhost.protocol_features()?;
    assert_eq!(offered & protocol::CONFIGURE_MEM_SLOTS, 0);
    rig.gpu.display_info()?;
    rig.finish()
}

#[test]
fn queue_number_is_two_and_memory_slots_suffice_for_qemu() -> Result<()> {
    let rig = Rig::new()?;
    assert_eq!(rig.vhost.queue_num()?, 2);
    assert!(rig.vhost.max_mem_slots()? >= 509);
    rig.finish()
}

#[test]
fn config_of_20_bytes_counts_the_outputs_given() -> Result<()> {
    for outputs in 1_u32..=16 {
        let args = vec!["--output=640x480"; outputs as usize];
        let rig = Rig::headless(&args)?;
        let config = rig.vhost.config(0, 20)?;
        assert_eq!(config.len(), 20);
        assert_eq!(u32_at(&config, 8), outputs);
        let others: Vec<u32> = [0, 4, 12, 16].map(|at| u32_at(&config, at)).to_vec();
        // One capability set; blobs are made of pages.
        assert_eq!(others, [0, 0, 1, 4096]);
        rig.finish()?;
    }
    Ok(())
}

#[test]
fn config_longer_than_the_structure_is_zero_padded() -> Result<()> {
    let rig = Rig::headless(&["--output=640x480", "--output=640x480"])?;
    let config = rig.vhost.config(0, 24)?;
    assert_eq!(config.len(), 24);
    assert_eq!(u32_at(&config, 8), 2);
    assert_eq!(config[20..], [0; 4]);
    let long = rig.vhost.config(0, 256)?;
    assert_eq!(long.len(), 256);
    assert_eq!(long[20..], [0; 236]);
    rig.finish()
}

#[test]
fn config_from_an_offset_is_the_same_bytes() -> Result<()> {
    let rig = Rig::headless(&["--output=640x480", "--output=640x480", "--output=640x480"])?;
    let whole = rig.vhost.config(0, 24)?;
    for offset in 0..24 {
        for size in 1..=24 - offset {
            let part = rig.vhost.config(offset, size)?;
            assert_eq!(
                part,
                whole[offset as usize..(offset + size) as usize],
                "{offset}+{size}"
            );
        }
    }
    rig.finish()
}

#[test]
fn config_writes_change_nothing_but_events_clear() -> Result<()> {
    let rig = Rig::headless(&[])?;
    let before = rig.vhost.config(0, 24)?;
    rig.vhost.set_config(4, &[0xff; 4])?;
    // A write to a field that is read-only may be refused; it must not stick.
    let _ = rig.vhost.set_config(8, &[7, 0, 0, 0]);
    assert_eq!(rig.vhost.config(0, 24)?, before);
    rig.finish()
}

fn show_noise(rig: &mut Rig) -> Result<()> {
    let resource = rig.gpu.create_picture(1, BGRX, 128, 64)?;
    rig.gpu.set_scanout(0, 1, resource.rect())?;
    let raw = noise(7, resource.len());
    rig.gpu.show(&resource, &raw)?;
    rig.display()
        .wait_picture(0, &Picture::of(BGRX, 128, 64, &raw))
}

#[test]
fn qemu_order_brings_a_picture_to_the_display() -> Result<()> {
    let mut rig = Rig::new()?;
    show_noise(&mut rig)?;
    rig.finish()
}

#[test]
fn crosvm_order_brings_a_picture_to_the_display() -> Result<()> {
    let options = SessionOptions {
        profile: Profile::Crosvm,
        protocol_features: protocol::MQ | protocol::REPLY_ACK | protocol::CONFIG,
        features: feature::VERSION_1
            | feature::PROTOCOL_FEATURES
            | feature::EVENT_IDX
            | feature::EDID
            | feature::RESOURCE_BLOB,
        ..SessionOptions::default()
    };
    let mut rig = Rig::start(&[], &options)?;
    show_noise(&mut rig)?;
    rig.finish()
}

#[test]
fn a_front_end_without_acknowledgements_is_served() -> Result<()> {
    let options = SessionOptions {
        protocol_features: protocol::MQ | protocol::CONFIG,
        ..SessionOptions::default()
    };
    let mut rig = Rig::start(&[], &options)?;
    show_noise(&mut rig)?;
    rig.finish()
}

#[test]
fn without_protocol_features_rings_are_enabled_from_the_start() -> Result<()> {
    let mut options = SessionOptions::default();
    options.features &= !feature::PROTOCOL_FEATURES;
    let mut rig = Rig::start(&[], &options)?;
    assert_eq!(rig.protocol_features, 0);
    show_noise(&mut rig)?;
    rig.pause_and_resume()?;
    rig.gpu
        .flush(1, nosnoop_tests::frontend::Rect::sized(128, 64))?;
    rig.finish()
}

#[test]
fn a_display_socket_after_the_rings_have_started_shows_what_comes_after() -> Result<()> {
    let mut rig = Rig::headless(&[])?;
    let resource = rig.gpu.create_picture(1, BGRX, 64, 64)?;
    rig.gpu.set_scanout(0, 1, resource.rect())?;
    let raw = noise(3, resource.len());
    rig.gpu.show(&resource, &raw)?;
    rig.replace_display(DisplayConfig::sized(64, 64))?;
    // What was flushed before belongs to the screen: a display that comes late sees it too.
    rig.display()
        .wait_picture(0, &Picture::of(BGRX, 64, 64, &raw))?;
    rig.check_display()?;
    rig.finish()
}

#[test]
fn a_second_display_socket_replaces_the_first() -> Result<()> {
    let mut rig = Rig::new()?;
    show_noise(&mut rig)?;
    rig.replace_display(DisplayConfig::sized(320, 200))?;
    let raw = noise(7, 128 * 64 * 4);
    rig.display()
        .wait_picture(0, &Picture::of(BGRX, 128, 64, &raw))?;
    assert_eq!(rig.gpu.display_info()?[0].rect.width, 320);
    rig.finish()
}

#[test]
fn memory_regions_added_and_removed_while_running_are_followed() -> Result<()> {
    let mut rig = Rig::new()?;
    let extra = 0x20_0000_0000;
    for round in 0..20 {
        let (region, fd) = rig.ram.add_region(extra, 1 << 20)?;
        rig.vhost.add_mem_region(region, fd.as_fd())?;
        let span = rig.ram.alloc_above(4 * 64 * 64, extra)?;
        assert!(span.addr >= extra);
        let id = 1 + round;
        rig.gpu.create_2d(id, BGRX, 64, 64)?;
        rig.gpu.attach_backing(id, &[span])?;
        rig.gpu
            .set_scanout(0, id, nosnoop_tests::frontend::Rect::sized(64, 64))?;
        let raw = noise(u64::from(round), 4 * 64 * 64);
        rig.ram.write(span.addr, &raw)?;
        rig.gpu
            .transfer(id, nosnoop_tests::frontend::Rect::sized(64, 64), 0)?;
        rig.gpu
            .flush(id, nosnoop_tests::frontend::Rect::sized(64, 64))?;
        rig.display()
            .wait_picture(0, &Picture::of(BGRX, 64, 64, &raw))?;
        let region = rig.ram.remove_region(extra)?;
        rig.vhost.remove_mem_region(region)?;
        // The backing is gone now: an error, and nothing worse.
        let gone = rig
            .gpu
            .transfer(id, nosnoop_tests::frontend::Rect::sized(64, 64), 0);
        assert!(matches!(gone, Err(Error::Refused { .. })), "{gone:?}");
    }
    rig.finish()
}

#[test]
fn the_whole_memory_table_sent_again_changes_nothing() -> Result<()> {
    let mut rig = Rig::new()?;
    show_noise(&mut rig)?;
    for _ in 0..10 {
        rig.share_memory_table()?;
        rig.gpu.display_info()?;
    }
    let raw = noise(7, 128 * 64 * 4);
    rig.display()
        .wait_picture(0, &Picture::of(BGRX, 128, 64, &raw))?;
    rig.finish()
}

#[test]
fn hostile_vhost_user_messages_end_the_connection_at_worst() -> Result<()> {
    let mut daemon = Daemon::start(&[])?;
    let hostile: Vec<Vec<u8>> = vec![
        Header {
            request: 0,
            flags: FLAG_VERSION,
            size: 0,
        }
        .to_bytes()
        .to_vec(),
        Header {
            request: 1,
            flags: 0,
            size: 0,
        }
        .to_bytes()
        .to_vec(),
        Header {
            request: 1,
            flags: FLAG_VERSION | FLAG_REPLY,
            size: 0,
        }
        .to_bytes()
        .to_vec(),
        Header {
            request: 1,
            flags: u32::MAX,
            size: 0,
        }
        .to_bytes()
        .to_vec(),
        Header {
            request: 9999,
            flags: FLAG_VERSION | FLAG_NEED_REPLY,
            size: 8,
        }
        .to_bytes()
        .iter()
        .copied()
        .chain([0; 8])
        .collect(),
        Header {
            request: Request::SetFeatures.code(),
            flags: FLAG_VERSION,
            size: u32::MAX,
        }
        .to_bytes()
        .to_vec(),
        Header {
            request: Request::SetVringNum.code(),
            flags: FLAG_VERSION,
            size: 8,
        }
        .to_bytes()
        .iter()
        .copied()
        .chain([0xff; 8])
        .collect(),
        Header {
            request: Request::SetMemTable.code(),
            flags: FLAG_VERSION,
            size: 8,
        }
        .to_bytes()
        .iter()
        .copied()
        .chain([0xff; 8])
        .collect(),
        Header {
            request: Request::SetVringAddr.code(),
            flags: FLAG_VERSION,
            size: 40,
        }
        .to_bytes()
        .iter()
        .copied()
        .chain([0xff; 40])
        .collect(),
        Header {
            request: Request::GpuSetSocket.code(),
            flags: FLAG_VERSION,
            size: 0,
        }
        .to_bytes()
        .to_vec(),
        Header {
            request: Request::GetConfig.code(),
            flags: FLAG_VERSION,
            size: 12,
        }
        .to_bytes()
        .iter()
        .copied()
        .chain([0xff; 12])
        .collect(),
        vec![1, 2, 3],
        noise(5, 4096),
    ];
    for bytes in hostile {
        let vhost = VhostUser::connect(daemon.socket())?;
        // The daemon may close while we are still sending.
        let _ = vhost.send_bytes(&bytes, &[]);
        drop(vhost);
        daemon.check_alive()?;
    }
    let mut session = Session::start(daemon.socket())?;
    session.gpu.display_info()?;
    assert!(daemon.terminate()?.success());
    Ok(())
}

#[test]
fn a_memory_table_in_any_order_is_taken() -> Result<()> {
    let mut rig = Rig::new()?;
    let regions = rig.ram.regions()?;
    assert!(regions.len() > 1, "there is an order");
    let table: Vec<_> = regions
        .iter()
        .rev()
        .map(|(region, fd)| (*region, fd.as_fd()))
        .collect();
    rig.vhost.set_mem_table(&table)?;
    let resource = rig.gpu.create_picture(1, BGRX, 32, 32)?;
    rig.gpu.set_scanout(0, 1, resource.rect())?;
    let raw = noise(1, resource.len());
    rig.gpu.show(&resource, &raw)?;
    rig.display()
        .wait_picture(0, &Picture::of(BGRX, 32, 32, &raw))?;
    rig.finish()
}
