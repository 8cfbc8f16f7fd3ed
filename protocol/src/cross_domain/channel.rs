//! Messages of a channel: commands that carry them from the guest, records that bring them to it.
//!
//! A record stands at the start of the channel ring when the fence that waited for it is signalled.

use zerocopy::FromBytes;
use zerocopy::little_endian::U32;

use crate::ids::ResourceId;
use crate::reply::GpuError;
use crate::wire::{
    CROSS_DOMAIN_CHANNEL_RING, CROSS_DOMAIN_CHANNEL_TYPE_WAYLAND, CROSS_DOMAIN_CMD_READ,
    CROSS_DOMAIN_CMD_RECEIVE, CROSS_DOMAIN_ID_TYPE_READ_PIPE, CROSS_DOMAIN_ID_TYPE_VIRTGPU_BLOB,
    CROSS_DOMAIN_ID_TYPE_WRITE_PIPE, CROSS_DOMAIN_MAX_IDENTIFIERS, CROSS_DOMAIN_PIPE_READ_START,
    CrossDomainHeader, CrossDomainReadWrite, CrossDomainSendReceive,
};

/// The channel type of Wayland compositors.
pub const WAYLAND: u32 = CROSS_DOMAIN_CHANNEL_TYPE_WAYLAND;

/// The ring (of `ring_idx` in virtio-gpu's header) whose fences wait for the channel.
pub const RING: u8 = CROSS_DOMAIN_CHANNEL_RING;

/// Descriptors that go with one message at most.
pub const MAX_IDENTIFIERS: usize = CROSS_DOMAIN_MAX_IDENTIFIERS;

/// Bytes of a RECEIVE record before the message.
pub const RECEIVE_HEADER: usize = size_of::<CrossDomainSendReceive>();

/// Bytes of a READ record before what came through the pipe.
pub const READ_HEADER: usize = size_of::<CrossDomainReadWrite>();

/// A pipe of the channel, as guest and host call it. Those that the guest reads have the highest bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PipeId(u32);

impl PipeId {
    /// The pipe's number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }

    /// A pipe that the guest reads, if the number is one of those.
    #[must_use]
    pub fn read_by_guest(number: u32) -> Option<Self> {
        (number >= CROSS_DOMAIN_PIPE_READ_START).then_some(Self(number))
    }

    /// A pipe that the guest writes, if the number is one of those.
    #[must_use]
    pub fn written_by_guest(number: u32) -> Option<Self> {
        (number < CROSS_DOMAIN_PIPE_READ_START).then_some(Self(number))
    }
}

/// What a guest sends in place of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The memory of a resource of the context.
    Blob(ResourceId),
    /// The end to write to of a new pipe, which the guest reads under this number.
    ReadPipe(PipeId),
}

impl Sent {
    fn parse(id: U32, kind: U32) -> Result<Self, GpuError> {
        match kind.get() {
            CROSS_DOMAIN_ID_TYPE_VIRTGPU_BLOB => {
                let id = ResourceId::new(id.get()).ok_or(GpuError::InvalidResourceId)?;
                Ok(Self::Blob(id))
            }
            CROSS_DOMAIN_ID_TYPE_READ_PIPE => {
                let pipe = PipeId::read_by_guest(id.get()).ok_or(GpuError::InvalidParameter)?;
                Ok(Self::ReadPipe(pipe))
            }
            _ => Err(GpuError::InvalidParameter),
        }
    }
}

/// CROSS_DOMAIN_CMD_SEND.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Send<'a> {
    /// The message's bytes. There are some where there are descriptors, which travel with a byte.
    pub data: &'a [u8],
    /// Numbers and types, each of which [`Sent::parse`] understands.
    identifiers: &'a [U32],
    types: &'a [U32],
}

impl<'a> Send<'a> {
    /// In place of the message's descriptors, in order.
    pub fn descriptors(&self) -> impl Iterator<Item = Sent> + use<'a> {
        let sent = self.identifiers.iter().zip(self.types);
        sent.flat_map(|(id, kind)| Sent::parse(*id, *kind))
    }

    /// # Errors
    /// `Unspec` for more identifiers than there can be, or more bytes than the command has;
    /// `InvalidResourceId` for resource 0; `InvalidParameter` for other types of identifiers than
    /// those of [`Sent`], for a pipe whose number is none, and for descriptors without a byte.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, GpuError> {
        let (raw, rest) =
            CrossDomainSendReceive::ref_from_prefix(bytes).map_err(|_| GpuError::Unspec)?;
        let data = part(rest, raw.opaque_data_size)?;
        let count = usize::try_from(raw.num_identifiers.get()).map_err(|_| GpuError::Unspec)?;
        let identifiers = raw.identifiers.get(..count).ok_or(GpuError::Unspec)?;
        let types = raw.identifier_types.get(..count).ok_or(GpuError::Unspec)?;
        if count > 0 && data.is_empty() {
            return Err(GpuError::InvalidParameter);
        }
        for (id, kind) in identifiers.iter().zip(types) {
            Sent::parse(*id, *kind)?;
        }
        Ok(Self {
            data,
            identifiers,
            types,
        })
    }
}

/// CROSS_DOMAIN_CMD_WRITE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write<'a> {
    /// The pipe.
    pub pipe: PipeId,
    /// What goes into it.
    pub data: &'a [u8],
    /// Nothing comes after that.
    pub hang_up: bool,
}

impl<'a> Write<'a> {
    /// # Errors
    /// `Unspec` for more bytes than the command has; `InvalidParameter` for a pipe that guests cannot
    /// write.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, GpuError> {
        let (raw, rest) =
            CrossDomainReadWrite::ref_from_prefix(bytes).map_err(|_| GpuError::Unspec)?;
        let pipe = PipeId::written_by_guest(raw.identifier.get());
        Ok(Self {
            pipe: pipe.ok_or(GpuError::InvalidParameter)?,
            data: part(rest, raw.opaque_data_size)?,
            hang_up: raw.hang_up.get() != 0,
        })
    }
}

/// As many of the bytes as are said to count; the rest of a command is padding.
fn part(rest: &[u8], size: U32) -> Result<&[u8], GpuError> {
    let size = usize::try_from(size.get()).map_err(|_| GpuError::Unspec)?;
    rest.get(..size).ok_or(GpuError::Unspec)
}

/// What a guest is given in place of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// Memory: a blob of this size, a multiple of 4096, can be made by this `blob_id`, once.
    Blob {
        /// The `blob_id`.
        id: u32,
        /// Bytes.
        size: u32,
    },
    /// A pipe for the guest to write.
    WritePipe(PipeId),
}

/// What comes before the message in a RECEIVE record. Descriptors beyond [`MAX_IDENTIFIERS`] are left
/// out.
#[must_use]
pub fn receive_header(received: &[Received], message: u32) -> [u8; RECEIVE_HEADER] {
    let count = received.len().min(MAX_IDENTIFIERS);
    let mut raw = CrossDomainSendReceive {
        hdr: header(CROSS_DOMAIN_CMD_RECEIVE),
        num_identifiers: u32::try_from(count).unwrap_or(0).into(),
        opaque_data_size: message.into(),
        ..CrossDomainSendReceive::default()
    };
    let slots = raw
        .identifiers
        .iter_mut()
        .zip(&mut raw.identifier_types)
        .zip(&mut raw.identifier_sizes);
    for (((id, kind), size), received) in slots.zip(received) {
        match *received {
            Received::Blob { id: blob, size: of } => {
                *id = blob.into();
                *kind = CROSS_DOMAIN_ID_TYPE_VIRTGPU_BLOB.into();
                *size = of.into();
            }
            Received::WritePipe(pipe) => {
                *id = pipe.get().into();
                *kind = CROSS_DOMAIN_ID_TYPE_WRITE_PIPE.into();
            }
        }
    }
    zerocopy::transmute!(raw)
}

/// What comes before the bytes in a READ record.
#[must_use]
pub fn read_header(pipe: PipeId, hang_up: bool, bytes: u32) -> [u8; READ_HEADER] {
    zerocopy::transmute!(CrossDomainReadWrite {
        hdr: header(CROSS_DOMAIN_CMD_READ),
        identifier: pipe.get().into(),
        hang_up: u32::from(hang_up).into(),
        opaque_data_size: bytes.into(),
        ..CrossDomainReadWrite::default()
    })
}

fn header(cmd: u8) -> CrossDomainHeader {
    CrossDomainHeader {
        cmd,
        ..CrossDomainHeader::default()
    }
}

#[cfg(test)]
mod tests;
