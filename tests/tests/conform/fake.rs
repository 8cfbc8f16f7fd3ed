//! A back-end without a device, which can be wrong in what it says about itself: each of the cases
//! on that must find its fault.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use nosnoop_tests::conform::run::{self, Verdict};
use nosnoop_tests::conform::target::Target;
use nosnoop_tests::conform::{Case, cases};
use nosnoop_tests::frontend::message::{
    FLAG_NEED_REPLY, FLAG_REPLY, FLAG_VERSION, Header, Request, feature, protocol, u32_at,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Honest,
    NoVersion1,
    ContextInitAlone,
    AlignmentAlone,
    FeaturesChange,
    OtherVersion,
    OneQueue,
    TooManyScanouts,
    OddAlignment,
    ConfigAlwaysWhole,
    ConfigOffsetIgnored,
    ConfigCutShort,
    ConfigWritable,
    Refusal,
    SecondReply,
    UnaskedReply,
}

use Fault::*;

/// Each fault and the case that must find it.
const FAULTS: [(Fault, &str); 15] = [
    (NoVersion1, "negotiation-01"),
    (ContextInitAlone, "negotiation-02"),
    (AlignmentAlone, "negotiation-03"),
    (FeaturesChange, "negotiation-04"),
    (OtherVersion, "negotiation-05"),
    (OneQueue, "negotiation-06"),
    (TooManyScanouts, "negotiation-07"),
    (OddAlignment, "negotiation-08"),
    (ConfigAlwaysWhole, "negotiation-09"),
    (ConfigOffsetIgnored, "negotiation-10"),
    (ConfigCutShort, "negotiation-11"),
    (ConfigWritable, "negotiation-12"),
    (Refusal, "negotiation-14"),
    (SecondReply, "negotiation-15"),
    (UnaskedReply, "negotiation-16"),
];

struct Fake {
    fault: Fault,
    config: Vec<u8>,
    asked: u64,
}

impl Fake {
    fn new(fault: Fault) -> Self {
        let scanouts = if fault == TooManyScanouts { 17 } else { 2 };
        let alignment = if fault == OddAlignment { 3 } else { 4096 };
        let config = [0_u32, 0, scanouts, 0, alignment];
        Self {
            fault,
            config: config.into_iter().flat_map(u32::to_le_bytes).collect(),
            asked: 0,
        }
    }

    fn features(&mut self) -> u64 {
        self.asked += 1;
        let honest = feature::VERSION_1
            | feature::PROTOCOL_FEATURES
            | feature::RESOURCE_BLOB
            | feature::BLOB_ALIGNMENT;
        match self.fault {
            NoVersion1 => honest & !feature::VERSION_1,
            ContextInitAlone => honest | feature::CONTEXT_INIT,
            AlignmentAlone => honest & !feature::RESOURCE_BLOB,
            FeaturesChange => honest | (self.asked & 1) << 50,
            _ => honest,
        }
    }

    /// The answer to GET_CONFIG: its header, and the bytes asked for, zeros behind the end.
    fn get_config(&self, payload: &[u8]) -> Vec<u8> {
        let [mut from, mut size] = [0, 4].map(|at| u32_at(payload, at) as usize);
        match self.fault {
            ConfigOffsetIgnored => from = 0,
            ConfigAlwaysWhole if from == 0 && size < 16 => size = 16,
            ConfigCutShort => size = size.min(20),
            _ => {}
        }
        let mut answer = payload[..12].to_vec();
        answer[4..8].copy_from_slice(&(size as u32).to_ne_bytes());
        let tail = self.config.iter().skip(from).chain(std::iter::repeat(&0));
        answer.extend(tail.take(size));
        answer
    }

    fn set_config(&mut self, payload: &[u8]) {
        if self.fault == ConfigWritable {
            let from = u32_at(payload, 0) as usize;
            let bytes = &payload[12..];
            self.config[from..from + bytes.len()].copy_from_slice(bytes);
        }
    }

    /// The payloads of the replies to a message.
    fn replies(&mut self, request: u32, flags: u32, payload: &[u8]) -> Vec<Vec<u8>> {
        let asked = flags & FLAG_NEED_REPLY != 0;
        let number = |number: u64| number.to_ne_bytes().to_vec();
        let reply = match request {
            _ if request == Request::GetFeatures.code() => number(self.features()),
            _ if request == Request::GetProtocolFeatures.code() => {
                number(protocol::MQ | protocol::REPLY_ACK | protocol::CONFIG)
            }
            _ if request == Request::GetQueueNum.code() => {
                number(if self.fault == OneQueue { 1 } else { 2 })
            }
            _ if request == Request::GetConfig.code() => self.get_config(payload),
            _ => {
                if request == Request::SetConfig.code() {
                    self.set_config(payload);
                }
                let unasked = self.fault == UnaskedReply && request == Request::SetOwner.code();
                return match (asked, unasked) {
                    (true, _) => vec![number(u64::from(self.fault == Refusal))],
                    (false, true) => vec![number(0)],
                    (false, false) => Vec::new(),
                };
            }
        };
        match self.fault {
            SecondReply if asked => vec![reply, number(0)],
            _ => vec![reply],
        }
    }

    fn serve(&mut self, mut stream: UnixStream) {
        let mut header = [0; Header::SIZE];
        while stream.read_exact(&mut header).is_ok() {
            let Header {
                request,
                flags,
                size,
            } = Header::from_bytes(header);
            let mut payload = vec![0; size as usize];
            if stream.read_exact(&mut payload).is_err() {
                return;
            }
            let version = if self.fault == OtherVersion {
                2
            } else {
                FLAG_VERSION
            };
            for reply in self.replies(request, flags, &payload) {
                let header = Header {
                    request,
                    flags: version | FLAG_REPLY,
                    size: reply.len() as u32,
                };
                let bytes = [&header.to_bytes()[..], &reply].concat();
                if stream.write_all(&bytes).is_err() {
                    return;
                }
            }
        }
    }
}

/// What the cases say of a back-end with this fault.
fn verdicts(fault: Fault, chosen: &[Case]) -> Vec<(String, Verdict)> {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("fake.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        let mut fake = Fake::new(fault);
        for stream in listener.incoming().map_while(Result::ok) {
            fake.serve(stream);
        }
    });
    let target = Target::socket(&socket.display().to_string()).unwrap();
    let patience = Duration::from_secs(10);
    let probe = run::probe(&target, patience).unwrap();
    let run = run::run(&target, probe, chosen, patience, &mut |_| {});
    let found = run.findings.into_iter();
    found.map(|one| (one.case.id(), one.verdict)).collect()
}

#[test]
fn each_fault_in_what_a_back_end_says_of_itself_is_found_by_its_case() {
    let of_faults = |case: &Case| FAULTS.iter().any(|(_, id)| *id == case.id());
    let chosen: Vec<_> = cases::all().into_iter().filter(of_faults).collect();
    assert_eq!(chosen.len(), FAULTS.len());
    for (id, verdict) in verdicts(Honest, &chosen) {
        assert_eq!(verdict, Verdict::Pass, "{id} on a back-end without fault");
    }
    for (fault, id) in FAULTS {
        let case: Vec<_> = chosen
            .iter()
            .filter(|case| case.id() == id)
            .copied()
            .collect();
        let [(_, verdict)] = &verdicts(fault, &case)[..] else {
            panic!("one case, one verdict");
        };
        assert!(
            matches!(verdict, Verdict::Fail(_)),
            "{id} on {fault:?}: {verdict:?}"
        );
    }
}
