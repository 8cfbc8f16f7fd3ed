//! Numbers and payload layouts of the vhost-user protocol (QEMU's docs/interop/vhost-user.rst).

/// Requests a front-end sends, by their number in the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[expect(
    missing_docs,
    reason = "named as in vhost-user.rst, which documents them"
)]
pub enum Request {
    GetFeatures = 1,
    SetFeatures = 2,
    SetOwner = 3,
    ResetOwner = 4,
    SetMemTable = 5,
    SetVringNum = 8,
    SetVringAddr = 9,
    SetVringBase = 10,
    GetVringBase = 11,
    SetVringKick = 12,
    SetVringCall = 13,
    SetVringErr = 14,
    GetProtocolFeatures = 15,
    SetProtocolFeatures = 16,
    GetQueueNum = 17,
    SetVringEnable = 18,
    SetBackendReqFd = 21,
    GetConfig = 24,
    SetConfig = 25,
    GpuSetSocket = 33,
    ResetDevice = 34,
    GetMaxMemSlots = 36,
    AddMemReg = 37,
    RemMemReg = 38,
    GetShmemConfig = 44,
}

impl Request {
    /// The number on the wire.
    pub fn code(self) -> u32 {
        self as u32
    }
}

/// Header flags: version 1 in the low two bits.
pub const FLAG_VERSION: u32 = 1;
/// Header flag: this message is a reply.
pub const FLAG_REPLY: u32 = 1 << 2;
/// Header flag: the front-end wants an acknowledgement (needs [`protocol::REPLY_ACK`]).
pub const FLAG_NEED_REPLY: u32 = 1 << 3;
/// Bit of the kick/call/err payload that says that no file descriptor comes along.
pub const VRING_NO_FD: u64 = 1 << 8;

/// Virtio feature bits that matter to this device.
pub mod feature {
    /// VIRTIO_GPU_F_VIRGL.
    pub const VIRGL: u64 = 1 << 0;
    /// VIRTIO_GPU_F_EDID.
    pub const EDID: u64 = 1 << 1;
    /// VIRTIO_GPU_F_RESOURCE_UUID.
    pub const RESOURCE_UUID: u64 = 1 << 2;
    /// VIRTIO_GPU_F_RESOURCE_BLOB.
    pub const RESOURCE_BLOB: u64 = 1 << 3;
    /// VIRTIO_GPU_F_CONTEXT_INIT.
    pub const CONTEXT_INIT: u64 = 1 << 4;
    /// VIRTIO_GPU_F_BLOB_ALIGNMENT.
    pub const BLOB_ALIGNMENT: u64 = 1 << 5;
    /// VIRTIO_F_INDIRECT_DESC.
    pub const INDIRECT_DESC: u64 = 1 << 28;
    /// VIRTIO_F_EVENT_IDX.
    pub const EVENT_IDX: u64 = 1 << 29;
    /// VHOST_USER_F_PROTOCOL_FEATURES.
    pub const PROTOCOL_FEATURES: u64 = 1 << 30;
    /// VIRTIO_F_VERSION_1.
    pub const VERSION_1: u64 = 1 << 32;
    /// VIRTIO_F_RING_RESET.
    pub const RING_RESET: u64 = 1 << 40;
}

/// Vhost-user protocol feature bits.
pub mod protocol {
    /// VHOST_USER_PROTOCOL_F_MQ.
    pub const MQ: u64 = 1 << 0;
    /// VHOST_USER_PROTOCOL_F_REPLY_ACK.
    pub const REPLY_ACK: u64 = 1 << 3;
    /// VHOST_USER_PROTOCOL_F_BACKEND_REQ.
    pub const BACKEND_REQ: u64 = 1 << 5;
    /// VHOST_USER_PROTOCOL_F_CONFIG.
    pub const CONFIG: u64 = 1 << 9;
    /// VHOST_USER_PROTOCOL_F_RESET_DEVICE.
    pub const RESET_DEVICE: u64 = 1 << 13;
    /// VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS.
    pub const CONFIGURE_MEM_SLOTS: u64 = 1 << 15;
    /// VHOST_USER_PROTOCOL_F_SHMEM.
    pub const SHMEM: u64 = 1 << 22;
    /// NOSNOOP_MEMTYPE, not assigned upstream: map requests carry a memory type.
    pub const MEMTYPE: u64 = 1 << 56;
    /// What [`MEMTYPE`] needs; without all of these it is neither offered nor used.
    pub const MEMTYPE_NEEDS: u64 = SHMEM | BACKEND_REQ | REPLY_ACK;
}

/// The twelve bytes in front of every message, native endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Request number.
    pub request: u32,
    /// Version and flags.
    pub flags: u32,
    /// Bytes of payload that follow.
    pub size: u32,
}

impl Header {
    /// Bytes of a header on the wire.
    pub const SIZE: usize = 12;

    /// The header as bytes.
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[0..4].copy_from_slice(&self.request.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.flags.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.size.to_ne_bytes());
        bytes
    }

    /// Reads a header.
    pub fn from_bytes(bytes: [u8; Self::SIZE]) -> Self {
        Header {
            request: u32_at(&bytes, 0),
            flags: u32_at(&bytes, 4),
            size: u32_at(&bytes, 8),
        }
    }
}

/// Reads a native-endian u32 at a byte offset; panics when it is out of bounds.
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// Reads a native-endian u64 at a byte offset; panics when it is out of bounds.
pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Payload of SET_VRING_NUM, SET_VRING_BASE, SET_VRING_ENABLE, GET_VRING_BASE.
pub fn vring_state(index: u32, value: u32) -> Vec<u8> {
    [index.to_ne_bytes(), value.to_ne_bytes()].concat()
}

/// Addresses of a ring in the front-end's own address space (SET_VRING_ADDR).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VringAddr {
    /// User address of the descriptor table.
    pub descriptors: u64,
    /// User address of the used ring.
    pub used: u64,
    /// User address of the available ring.
    pub available: u64,
}

impl VringAddr {
    /// The payload for queue `index`.
    pub fn to_bytes(self, index: u32) -> Vec<u8> {
        let mut bytes = vring_state(index, 0);
        for value in [self.descriptors, self.used, self.available, 0] {
            bytes.extend(value.to_ne_bytes());
        }
        bytes
    }
}

/// One region of guest memory as the memory messages describe it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRegion {
    /// Guest physical address.
    pub guest_addr: u64,
    /// Bytes.
    pub size: u64,
    /// Address in the front-end's address space.
    pub user_addr: u64,
    /// Where the region begins in its file.
    pub mmap_offset: u64,
}

impl MemoryRegion {
    /// The 32 bytes on the wire.
    pub fn to_bytes(self) -> Vec<u8> {
        [self.guest_addr, self.size, self.user_addr, self.mmap_offset]
            .iter()
            .flat_map(|value| value.to_ne_bytes())
            .collect()
    }
}
