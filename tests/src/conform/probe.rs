//! What a back-end offers, asked before any case runs.

use crate::frontend::message::{feature, protocol};
use crate::frontend::{Error, VhostUser};

/// Bytes of `struct virtio_gpu_config`, and with `blob_alignment`, which is there with its feature.
const CONFIG: [u32; 2] = [16, 20];

/// What a back-end offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probe {
    /// Virtio feature bits.
    pub features: u64,
    /// Vhost-user protocol feature bits.
    pub protocol_features: u64,
    /// Its configuration space, 16 bytes or 20, where it can be asked for.
    pub config: Option<Vec<u8>>,
    /// Whether a picture reaches the display, where some case needs to know; else false.
    pub pictures: bool,
}

impl Probe {
    /// Asks a back-end that has just accepted this connection.
    ///
    /// # Errors
    /// When it does not answer as vhost-user back-ends do.
    pub fn of(mut vhost: VhostUser) -> Result<Self, Error> {
        let features = vhost.features()?;
        let mut probe = Self {
            features,
            ..Self::default()
        };
        if features & feature::PROTOCOL_FEATURES == 0 {
            return Ok(probe);
        }
        probe.protocol_features = vhost.protocol_features()?;
        if probe.protocol_features & protocol::CONFIG != 0 {
            vhost.set_protocol_features(protocol::CONFIG)?;
            let size = CONFIG[usize::from(features & feature::BLOB_ALIGNMENT != 0)];
            let config = vhost.config(0, size).ok();
            probe.config = config.filter(|config| config.len() == size as usize);
        }
        Ok(probe)
    }

    /// The names of all features offered, those without a name here as numbers.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let mut names = names(self.features, feature_name);
        names.extend(self::names(self.protocol_features, protocol_name));
        names
    }
}

fn names(bits: u64, name: fn(u32) -> Option<&'static str>) -> Vec<String> {
    (0..u64::BITS)
        .filter(|bit| bits >> bit & 1 != 0)
        .map(|bit| name(bit).map_or_else(|| format!("bit {bit}"), str::to_owned))
        .collect()
}

/// The names of virtio feature bits.
#[must_use]
pub fn feature_names(bits: u64) -> Vec<String> {
    names(bits, feature_name)
}

/// The names of protocol feature bits.
#[must_use]
pub fn protocol_names(bits: u64) -> Vec<String> {
    names(bits, protocol_name)
}

fn feature_name(bit: u32) -> Option<&'static str> {
    Some(match bit {
        0 => "VIRGL",
        1 => "EDID",
        2 => "RESOURCE_UUID",
        3 => "RESOURCE_BLOB",
        4 => "CONTEXT_INIT",
        5 => "BLOB_ALIGNMENT",
        24 => "NOTIFY_ON_EMPTY",
        26 => "LOG_ALL",
        27 => "ANY_LAYOUT",
        28 => "INDIRECT_DESC",
        29 => "EVENT_IDX",
        30 => "PROTOCOL_FEATURES",
        32 => "VERSION_1",
        33 => "ACCESS_PLATFORM",
        34 => "RING_PACKED",
        35 => "IN_ORDER",
        40 => "RING_RESET",
        _ => return None,
    })
}

fn protocol_name(bit: u32) -> Option<&'static str> {
    Some(match bit {
        0 => "MQ",
        1 => "LOG_SHMFD",
        3 => "REPLY_ACK",
        5 => "BACKEND_REQ",
        8 => "PAGEFAULT",
        9 => "CONFIG",
        10 => "BACKEND_SEND_FD",
        11 => "HOST_NOTIFIER",
        12 => "INFLIGHT_SHMFD",
        13 => "RESET_DEVICE",
        14 => "INBAND_NOTIFICATIONS",
        15 => "CONFIGURE_MEM_SLOTS",
        16 => "STATUS",
        17 => "XEN_MMAP",
        18 => "SHARED_OBJECT",
        19 => "DEVICE_STATE",
        20 => "GET_VRING_BASE_INFLIGHT",
        22 => "SHMEM",
        56 => "NOSNOOP_MEMTYPE",
        _ => return None,
    })
}
