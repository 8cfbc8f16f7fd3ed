//! Connection, features, configuration space.

use super::common::{Shown, headless, refused, works};
use crate::conform::case::{Case, Group, Needs, Outcome, Stop, check, equal};
use crate::conform::trial::Trial;
use crate::frontend::message::{
    FLAG_NEED_REPLY, FLAG_REPLY, FLAG_VERSION, Header, Request, feature, protocol, u32_at,
};
use crate::frontend::pixels::BGRX;
use crate::frontend::request;
use crate::frontend::{Error, Profile, SessionOptions, VhostUser};

/// Bytes of the configuration that every GPU has; `blob_alignment` follows where it is offered.
const CONFIG: u32 = 16;

const CONFIG_SPACE: Needs = Needs::protocol(protocol::CONFIG);
const ACKS: Needs = Needs::protocol(protocol::REPLY_ACK);

/// The cases of this group.
pub(super) const CASES: &[Case] = &[
    Group::Negotiation.case(1, "VIRTIO_F_VERSION_1 is offered", &["base-2"], version_1),
    Group::Negotiation.case(
        2,
        "CONTEXT_INIT is offered only together with VIRGL",
        &["gpu-feature-1", "base-1"],
        context_init_with_virgl,
    ),
    Group::Negotiation.case(
        3,
        "BLOB_ALIGNMENT is offered only together with RESOURCE_BLOB",
        &["gpu-feature-2", "base-1"],
        alignment_with_blobs,
    ),
    Group::Negotiation.case(
        4,
        "features can be asked for again and again, before any is set",
        &["vu-3", "vu-15"],
        features_stay,
    ),
    Group::Negotiation.case(
        5,
        "replies have version 1, the reply flag, the request's number and eight bytes",
        &["vu-1", "vu-2", "vu-3"],
        reply_header,
    ),
    Group::Negotiation.case_needing(
        Needs::protocol(protocol::MQ),
        6,
        "there are two queues",
        &["vu-13", "gpu-feature-3"],
        two_queues,
    ),
    Group::Negotiation.case_needing(
        CONFIG_SPACE,
        7,
        "num_scanouts is from 1 to 16",
        &["gpu-config-3"],
        scanouts,
    ),
    Group::Negotiation.case_needing(
        CONFIG_SPACE.and(Needs::features(feature::BLOB_ALIGNMENT)),
        8,
        "blob_alignment is a power of two",
        &["gpu-config-5"],
        alignment,
    ),
    Group::Negotiation.case_needing(
        CONFIG_SPACE,
        9,
        "GET_CONFIG answers as many bytes as were asked for",
        &["vu-23"],
        config_sizes,
    ),
    Group::Negotiation.case_needing(
        CONFIG_SPACE,
        10,
        "GET_CONFIG from an offset answers the bytes that are there",
        &["vu-47"],
        config_offsets,
    ),
    Group::Negotiation.case_needing(
        CONFIG_SPACE,
        11,
        "GET_CONFIG of more than there is answers that many bytes, or none for an error",
        &["vu-23", "vu-24"],
        config_too_long,
    ),
    Group::Negotiation.case_needing(
        CONFIG_SPACE,
        12,
        "SET_CONFIG does not change a read-only field",
        &["vu-25"],
        config_read_only,
    ),
    Group::Negotiation.case_needing(
        CONFIG_SPACE,
        13,
        "SET_CONFIG of events_clear is taken, and the event is then not pending",
        &["gpu-config-2"],
        events_clear,
    ),
    Group::Negotiation.case_needing(
        ACKS,
        14,
        "a message with need_reply is acknowledged with zero",
        &["vu-32"],
        acknowledged,
    ),
    Group::Negotiation.case_needing(
        ACKS,
        15,
        "need_reply on a message with a reply of its own makes no second reply",
        &["vu-33"],
        no_second_reply,
    ),
    Group::Negotiation.case_needing(
        ACKS,
        16,
        "a message without need_reply is not acknowledged",
        &["vu-32"],
        no_reply,
    ),
    Group::Negotiation.case_needing(
        Needs::PICTURES,
        17,
        "a driver that takes no optional feature gets its picture",
        &["base-5"],
        plainest,
    ),
    Group::Negotiation.case_needing(
        Needs::PICTURES,
        18,
        "without PROTOCOL_FEATURES the rings are enabled from the start",
        &["vu-9"],
        without_protocol_features,
    ),
    Group::Negotiation.case_needing(
        Needs::PICTURES,
        19,
        "features may be set as late as at activation, memory as one table",
        &["vu-16", "vu-17"],
        late_features,
    ),
    Group::Negotiation.case_needing(
        ACKS.and(Needs::PICTURES),
        20,
        "a front-end that wants no acknowledgements gets its picture",
        &["vu-32"],
        without_acks,
    ),
    Group::Negotiation.case_needing(
        CONFIG_SPACE,
        21,
        "without a display socket exactly the scanouts below num_scanouts can be set",
        &["gpu-config-3"],
        counted_scanouts,
    ),
    Group::Negotiation.case_needing(
        CONFIG_SPACE,
        22,
        "the configuration can be read before features are set, and its numbers are little-endian",
        &["base-3", "base-4"],
        early_config,
    ),
];

fn version_1(trial: &mut Trial) -> Outcome {
    let offered = trial.features();
    check(
        offered & feature::VERSION_1 != 0,
        format_args!("the features are {offered:#x}"),
    )
}

fn context_init_with_virgl(trial: &mut Trial) -> Outcome {
    let offered = trial.features();
    let both = feature::CONTEXT_INIT | feature::VIRGL;
    check(
        offered & both != feature::CONTEXT_INIT,
        format_args!("the features are {offered:#x}"),
    )
}

fn alignment_with_blobs(trial: &mut Trial) -> Outcome {
    let offered = trial.features();
    let both = feature::BLOB_ALIGNMENT | feature::RESOURCE_BLOB;
    check(
        offered & both != feature::BLOB_ALIGNMENT,
        format_args!("the features are {offered:#x}"),
    )
}

fn features_stay(trial: &mut Trial) -> Outcome {
    let vhost = trial.connect()?;
    for _ in 0..3 {
        equal("features", vhost.features()?, trial.features())?;
        if trial.features() & feature::PROTOCOL_FEATURES != 0 {
            let now = vhost.protocol_features()?;
            equal("protocol features", now, trial.protocol_features())?;
        }
    }
    Ok(())
}

fn bare(request: Request, flags: u32) -> Header {
    Header {
        request: request.code(),
        flags,
        size: 0,
    }
}

fn reply_header(trial: &mut Trial) -> Outcome {
    let vhost = trial.connect()?;
    let mut requests = vec![Request::GetFeatures];
    if trial.features() & feature::PROTOCOL_FEATURES != 0 {
        requests.push(Request::GetProtocolFeatures);
    }
    for request in requests {
        vhost.send_raw(bare(request, FLAG_VERSION), &[], &[])?;
        let (header, payload) = vhost.receive("a reply")?;
        equal("request", header.request, request.code())?;
        equal("version", header.flags & 3, 1)?;
        check(header.flags & FLAG_REPLY != 0, "no reply flag")?;
        equal("bytes of payload", payload.len(), 8)?;
    }
    Ok(())
}

fn two_queues(trial: &mut Trial) -> Outcome {
    let mut vhost = trial.connect()?;
    // Protocol features are legal only where GET_FEATURES has shown that there are any.
    vhost.features()?;
    vhost.set_protocol_features(protocol::MQ)?;
    let queues = vhost.queue_num()?;
    check(queues >= 2, format_args!("there are {queues}"))
}

/// A connection on which the configuration space can be asked for.
fn with_config(trial: &mut Trial) -> Result<VhostUser, Stop> {
    let mut vhost = trial.connect()?;
    // Protocol features are legal only where GET_FEATURES has shown that there are any.
    vhost.features()?;
    vhost.set_protocol_features(protocol::CONFIG)?;
    Ok(vhost)
}

fn scanouts(trial: &mut Trial) -> Outcome {
    let config = with_config(trial)?.config(0, CONFIG)?;
    equal("bytes of configuration", config.len(), CONFIG as usize)?;
    let count = u32::from_le_bytes([config[8], config[9], config[10], config[11]]);
    check(
        (1..=16).contains(&count),
        format_args!("num_scanouts is {count}"),
    )
}

fn early_config(trial: &mut Trial) -> Outcome {
    let config = with_config(trial)?.config(0, CONFIG)?;
    equal("bytes of configuration", config.len(), CONFIG as usize)?;
    // In the other order of bytes any but 0 would be millions.
    for (name, at) in [("num_scanouts", 8), ("num_capsets", 12)] {
        let count = u32_at(&config, at);
        check(count < 1 << 16, format_args!("{name} is {count}"))?;
    }
    Ok(())
}

fn counted_scanouts(trial: &mut Trial) -> Outcome {
    let (mut session, count) = headless(trial)?;
    let resource = session.gpu.create_picture(1, BGRX, 16, 16)?;
    for scanout in 0..count {
        session.gpu.set_scanout(scanout, 1, resource.rect())?;
    }
    for scanout in count..16 {
        let set = request::set_scanout(scanout, 1, resource.rect());
        refused(&mut session, &format!("scanout {scanout} of {count}"), &set)?;
    }
    works(&mut session)
}

fn alignment(trial: &mut Trial) -> Outcome {
    let config = with_config(trial)?.config(CONFIG, 4)?;
    equal("bytes of configuration", config.len(), 4)?;
    let alignment = u32_at(&config, 0);
    check(
        alignment.is_power_of_two(),
        format_args!("blob_alignment is {alignment}"),
    )
}

fn config_sizes(trial: &mut Trial) -> Outcome {
    let vhost = with_config(trial)?;
    let whole = vhost.config(0, CONFIG)?;
    for size in [4, 8, 12, CONFIG] {
        let some = vhost.config(0, size)?;
        equal("the first bytes", some, whole[..size as usize].to_vec())?;
    }
    Ok(())
}

fn config_offsets(trial: &mut Trial) -> Outcome {
    let vhost = with_config(trial)?;
    let whole = vhost.config(0, CONFIG)?;
    for offset in [4, 8, 12] {
        let part = vhost.config(offset, 4)?;
        let at = offset as usize;
        let expected = whole[at..at + 4].to_vec();
        equal(&format!("the field at {offset}"), part, expected)?;
    }
    Ok(())
}

fn config_too_long(trial: &mut Trial) -> Outcome {
    let vhost = with_config(trial)?;
    let mut payload = [0_u32.to_ne_bytes(), 256_u32.to_ne_bytes(), [0; 4]].concat();
    payload.resize(12 + 256, 0);
    let answer = match vhost.ask(Request::GetConfig, &payload) {
        // Closing the connection is for exceptional errors, which this may be.
        Err(Error::Closed(_)) => return Ok(()),
        answer => answer?,
    };
    // Two readings of "zero length of payload": no message body, or a body without contents.
    check(
        [0, 12, payload.len()].contains(&answer.len()),
        format_args!("the answer has {} bytes", answer.len()),
    )
}

fn config_read_only(trial: &mut Trial) -> Outcome {
    let vhost = with_config(trial)?;
    let before = vhost.config(0, CONFIG)?;
    let other = (u32_at(&before, 8) ^ 3).to_ne_bytes();
    match vhost.set_config(8, &other) {
        Ok(()) | Err(Error::Nack { .. }) => {}
        Err(other) => return Err(other.into()),
    }
    match vhost.config(0, CONFIG) {
        Err(Error::Closed(_)) => Ok(()),
        after => equal("the configuration", after?, before),
    }
}

fn events_clear(trial: &mut Trial) -> Outcome {
    let mut session = trial.start()?;
    session.vhost.set_config(4, &1_u32.to_ne_bytes())?;
    let config = session.vhost.config(0, CONFIG)?;
    equal("events_read, bit 0", u32_at(&config, 0) & 1, 0)?;
    works(&mut session)
}

fn with_acks(trial: &mut Trial) -> Result<VhostUser, Stop> {
    let mut vhost = trial.connect()?;
    // Protocol features are legal only where GET_FEATURES has shown that there are any.
    vhost.features()?;
    vhost.set_protocol_features(protocol::REPLY_ACK)?;
    Ok(vhost)
}

fn acknowledged(trial: &mut Trial) -> Outcome {
    let vhost = with_acks(trial)?;
    vhost.set_owner()?;
    let features = trial.features() & (feature::VERSION_1 | feature::PROTOCOL_FEATURES);
    vhost.set_features(features)?;
    vhost.set_vring_num(0, 64)?;
    Ok(vhost.set_vring_num(1, 16)?)
}

fn no_second_reply(trial: &mut Trial) -> Outcome {
    let vhost = with_acks(trial)?;
    let asking = FLAG_VERSION | FLAG_NEED_REPLY;
    vhost.send_raw(bare(Request::GetFeatures, asking), &[], &[])?;
    let (header, payload) = vhost.receive("the reply to GET_FEATURES")?;
    equal("request", header.request, Request::GetFeatures.code())?;
    equal("bytes of payload", payload.len(), 8)?;
    // A second reply would come in front of this one's.
    equal(
        "protocol features",
        vhost.protocol_features()?,
        trial.protocol_features(),
    )
}

fn no_reply(trial: &mut Trial) -> Outcome {
    let mut vhost = with_acks(trial)?;
    vhost.set_acks(false);
    vhost.set_owner()?;
    vhost.set_vring_num(0, 64)?;
    equal("features", vhost.features()?, trial.features())
}

fn plainest(trial: &mut Trial) -> Outcome {
    let session = trial.session(&SessionOptions {
        features: feature::VERSION_1 | feature::PROTOCOL_FEATURES,
        protocol_features: 0,
        ..SessionOptions::default()
    })?;
    Shown::on(session, 64, 48)?.finish()
}

fn without_protocol_features(trial: &mut Trial) -> Outcome {
    let session = trial.session(&SessionOptions {
        features: feature::VERSION_1,
        ..SessionOptions::default()
    })?;
    Shown::on(session, 64, 48)?.finish()
}

fn late_features(trial: &mut Trial) -> Outcome {
    let session = trial.session(&SessionOptions {
        profile: Profile::Crosvm,
        protocol_features: protocol::MQ | protocol::REPLY_ACK | protocol::CONFIG,
        ..SessionOptions::default()
    })?;
    Shown::on(session, 64, 48)?.finish()
}

fn without_acks(trial: &mut Trial) -> Outcome {
    let session = trial.session(&SessionOptions {
        protocol_features: protocol::MQ | protocol::CONFIG,
        ..SessionOptions::default()
    })?;
    Shown::on(session, 64, 48)?.finish()
}
