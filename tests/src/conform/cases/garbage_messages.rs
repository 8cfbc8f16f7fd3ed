//! Messages that no honest front-end sends. A back-end may refuse them, ignore them or close the
//! connection; it must not die of them, nor fall silent.

use std::os::fd::AsFd;
use std::time::Duration;

use super::hostile_rings::contained;
use crate::conform::case::{Case, Group, Outcome, Stop};
use crate::conform::trial::Trial;
use crate::frontend::memory::Span;
use crate::frontend::message::{
    FLAG_NEED_REPLY, FLAG_REPLY, FLAG_VERSION, Header, MemoryRegion, Request, VRING_NO_FD,
    VringAddr, feature, vring_state,
};
use crate::frontend::pixels::noise;
use crate::frontend::ring::{DESC_WRITE, Descriptor};
use crate::frontend::{Error, GuestRam, Session, VhostUser, patience};

const fn case(number: u32, name: &'static str, run: fn(&mut Trial) -> Outcome) -> Case {
    Group::Garbage.case(number, name, &["vu-4"], run)
}

/// The cases on messages, numbered on from those on the queues.
pub(super) const CASES: &[Case] = &[
    case(
        30,
        "a request number that is not defined does no harm",
        unknown_request,
    ),
    case(
        31,
        "a message of another version does no harm",
        other_version,
    ),
    case(
        32,
        "a reply that nobody asked for does no harm",
        stray_reply,
    ),
    case(
        33,
        "a payload longer than any message has does no harm",
        huge_payload,
    ),
    case(
        34,
        "a payload shorter than its message needs does no harm",
        short_payload,
    ),
    case(
        35,
        "features that were not offered do no harm",
        features_not_offered,
    ),
    case(36, "a queue that is not there does no harm", unknown_queue),
    case(
        37,
        "queue sizes of 0, 3, 65535 and more do no harm",
        queue_sizes,
    ),
    case(38, "ring addresses in no memory do no harm", ring_addresses),
    case(
        39,
        "memory regions that wrap around do no harm",
        wrapping_regions,
    ),
    case(
        40,
        "more regions than descriptors do no harm",
        missing_descriptors,
    ),
    case(
        41,
        "a display socket that is none does no harm",
        no_display_socket,
    ),
    case(
        42,
        "a connection that ends in mid-message does no harm",
        half_a_message,
    ),
    case(43, "noise on the connection does no harm", noisy_connection),
    case(
        44,
        "a queue started before anything is set up does no harm",
        too_early,
    ),
];

/// Puts a request and a response buffer on the control queue by hand and waits for the completion.
pub(super) fn by_hand(session: &mut Session, request: Span, response: Span) -> Outcome {
    let descriptor = |span: Span, flags| Descriptor {
        addr: span.addr,
        len: span.len,
        flags,
        next: 0,
    };
    let control = &mut session.gpu.control;
    let chain = [descriptor(request, 0), descriptor(response, DESC_WRITE)];
    let head = control.ring().submit(&chain)?;
    let ticket = control.track(head, vec![response], Vec::new());
    control.kick()?;
    control.set_patience(patience() / 8);
    let answer = control.wait(ticket);
    control.set_patience(patience());
    match answer {
        Err(error) if error.is_timeout() => contained(session, "little room"),
        answer => Ok(answer.map(|_| ())?),
    }
}

/// A connection on which the protocol's usual first messages have been exchanged.
fn open(trial: &mut Trial) -> Result<VhostUser, Stop> {
    let vhost = trial.connect()?;
    vhost.set_owner()?;
    let features = vhost.features()?;
    vhost.set_features(features & (feature::VERSION_1 | feature::PROTOCOL_FEATURES))?;
    Ok(vhost)
}

/// Checks that the back-end answers on, or has closed the connection: then a later one shows
/// whether it lives, and its end, if it was one, is found by the runner.
fn no_harm(vhost: &VhostUser) -> Outcome {
    let asked = Header {
        request: Request::GetFeatures.code(),
        flags: FLAG_VERSION,
        size: 0,
    };
    if vhost.send_raw(asked, &[], &[]).is_err() {
        return Ok(());
    }
    loop {
        match vhost.receive("an answer or the end of the connection") {
            Ok((header, _)) if header.request == Request::GetFeatures.code() => return Ok(()),
            // A reply to the message before.
            Ok(_) => {}
            Err(Error::Closed(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Ends a connection and gives the back-end the time to die of it, which the runner finds.
fn gone(vhost: VhostUser) {
    drop(vhost);
    std::thread::sleep(Duration::from_millis(100));
}

/// Sends a message, which a back-end that has closed already may not take.
fn send(vhost: &VhostUser, request: u32, flags: u32, size: u32, payload: &[u8]) {
    let header = Header {
        request,
        flags,
        size,
    };
    let _ = vhost.send_raw(header, payload, &[]);
}

/// Sends messages of this request, one connection's worth, with each of these payloads.
fn each(trial: &mut Trial, request: Request, payloads: &[Vec<u8>]) -> Outcome {
    let vhost = open(trial)?;
    for payload in payloads {
        let size = payload.len() as u32;
        send(&vhost, request.code(), FLAG_VERSION, size, payload);
    }
    no_harm(&vhost)
}

fn unknown_request(trial: &mut Trial) -> Outcome {
    let vhost = open(trial)?;
    send(&vhost, 9999, FLAG_VERSION, 8, &[0; 8]);
    no_harm(&vhost)
}

fn other_version(trial: &mut Trial) -> Outcome {
    let vhost = open(trial)?;
    send(&vhost, Request::SetOwner.code(), 2, 0, &[]);
    no_harm(&vhost)
}

fn stray_reply(trial: &mut Trial) -> Outcome {
    let vhost = open(trial)?;
    let flags = FLAG_VERSION | FLAG_REPLY;
    send(&vhost, Request::SetOwner.code(), flags, 8, &[0; 8]);
    no_harm(&vhost)
}

fn huge_payload(trial: &mut Trial) -> Outcome {
    let vhost = open(trial)?;
    // The whole is never sent: only a back-end that takes the length for what it is can answer or
    // close before the front-end goes.
    send(
        &vhost,
        Request::SetFeatures.code(),
        FLAG_VERSION,
        u32::MAX,
        &[0; 64],
    );
    gone(vhost);
    Ok(())
}

fn short_payload(trial: &mut Trial) -> Outcome {
    let vhost = open(trial)?;
    for request in [
        Request::SetVringNum,
        Request::SetVringAddr,
        Request::SetMemTable,
    ] {
        send(&vhost, request.code(), FLAG_VERSION, 4, &[0; 4]);
    }
    no_harm(&vhost)
}

fn features_not_offered(trial: &mut Trial) -> Outcome {
    each(trial, Request::SetFeatures, &[vec![0xff; 8]])
}

fn unknown_queue(trial: &mut Trial) -> Outcome {
    let vhost = open(trial)?;
    for index in [2, 7, 255, u32::MAX] {
        let num = vring_state(index, 64);
        send(&vhost, Request::SetVringNum.code(), FLAG_VERSION, 8, &num);
        let base = vring_state(index, 0);
        send(&vhost, Request::SetVringBase.code(), FLAG_VERSION, 8, &base);
    }
    for index in [2_u64, 7, 255] {
        let payload = (index | VRING_NO_FD).to_ne_bytes();
        send(
            &vhost,
            Request::SetVringKick.code(),
            FLAG_VERSION,
            8,
            &payload,
        );
    }
    no_harm(&vhost)
}

fn queue_sizes(trial: &mut Trial) -> Outcome {
    let sizes = [0, 3, 65_535, 65_536, u32::MAX].map(|size| vring_state(0, size));
    each(trial, Request::SetVringNum, &sizes)
}

fn ring_addresses(trial: &mut Trial) -> Outcome {
    let nowhere = |addr| VringAddr {
        descriptors: addr,
        used: addr,
        available: addr,
    };
    let payloads = [0, 0x1000, u64::MAX - 15, u64::MAX].map(|addr| nowhere(addr).to_bytes(0));
    each(trial, Request::SetVringAddr, &payloads)
}

/// The payload of SET_MEM_TABLE with these regions.
fn table(regions: &[MemoryRegion]) -> Vec<u8> {
    let mut payload = (regions.len() as u32).to_ne_bytes().to_vec();
    payload.extend([0; 4]);
    for region in regions {
        payload.extend(region.to_bytes());
    }
    payload
}

fn wrapping_regions(trial: &mut Trial) -> Outcome {
    let vhost = open(trial)?;
    let ram = GuestRam::new(&[(0, 1 << 20)])?;
    let regions = ram.regions()?;
    let good = regions[0].0;
    for bad in [
        MemoryRegion {
            guest_addr: u64::MAX - 4095,
            ..good
        },
        MemoryRegion {
            size: u64::MAX,
            ..good
        },
        MemoryRegion {
            mmap_offset: u64::MAX - 4095,
            ..good
        },
        MemoryRegion { size: 0, ..good },
    ] {
        let payload = table(&[bad]);
        let header = Header {
            request: Request::SetMemTable.code(),
            flags: FLAG_VERSION,
            size: payload.len() as u32,
        };
        if vhost
            .send_raw(header, &payload, &[regions[0].1.as_fd()])
            .is_err()
        {
            break;
        }
    }
    no_harm(&vhost)
}

fn missing_descriptors(trial: &mut Trial) -> Outcome {
    let region = MemoryRegion {
        guest_addr: 0,
        size: 4096,
        user_addr: 0x1000,
        mmap_offset: 0,
    };
    each(trial, Request::SetMemTable, &[table(&[region; 2])])
}

fn no_display_socket(trial: &mut Trial) -> Outcome {
    each(trial, Request::GpuSetSocket, &[Vec::new()])
}

fn half_a_message(trial: &mut Trial) -> Outcome {
    let vhost = open(trial)?;
    vhost.send_bytes(&[1, 0, 0, 0, 1], &[])?;
    gone(vhost);
    Ok(())
}

fn noisy_connection(trial: &mut Trial) -> Outcome {
    let vhost = trial.connect()?;
    // The back-end may close while this is being sent.
    let _ = vhost.send_bytes(&noise(5, 4096), &[]);
    gone(vhost);
    Ok(())
}

fn too_early(trial: &mut Trial) -> Outcome {
    let vhost = open(trial)?;
    for index in [0, 1] {
        let enable = vring_state(index, 1);
        let flags = FLAG_VERSION | FLAG_NEED_REPLY;
        send(&vhost, Request::SetVringEnable.code(), flags, 8, &enable);
        let payload = (u64::from(index) | VRING_NO_FD).to_ne_bytes();
        send(
            &vhost,
            Request::SetVringKick.code(),
            FLAG_VERSION,
            8,
            &payload,
        );
    }
    no_harm(&vhost)
}
