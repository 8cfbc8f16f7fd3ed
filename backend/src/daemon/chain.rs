//! One descriptor chain: the guest's request bytes and where the response goes.

use nosnoop_protocol::wire::VirtioGpuCtrlHdr;
use virtio_queue::DescriptorChain;
use vm_memory::GuestAddress;

use crate::device::quota::MAX_BACKING_ENTRIES;
use crate::guest::Ram;
use crate::planted::{Bug, planted};

/// The most bytes of a request that are looked at: a `RESOURCE_ATTACH_BACKING` with the most
/// entries that a resource may have, 16 bytes each, and one page for everything else. What lies
/// beyond is never read, so a request that needs it counts as short.
pub const MAX_REQUEST: usize = MAX_BACKING_ENTRIES * 16 + 4096;

/// Bytes of the shortest response, the bare header.
pub const MIN_RESPONSE: usize = size_of::<VirtioGpuCtrlHdr>();

/// The buffers of the request in work, kept from request to request.
#[derive(Debug, Default)]
pub struct Buffers {
    /// The device-readable part, copied out of guest memory once.
    pub(super) request: Vec<u8>,
    /// The response to write.
    pub(super) response: Vec<u8>,
    writable: Vec<Segment>,
    readable: Vec<Segment>,
    malformed: bool,
}

/// Where a response goes.
#[derive(Debug)]
pub(super) struct ResponsePlace {
    segments: Vec<Segment>,
}

impl ResponsePlace {
    /// Bytes that the guest leaves for the response.
    pub(super) fn room(&self) -> usize {
        room(&self.segments)
    }

    /// As [`Buffers::write_response`].
    pub(super) fn write(&self, response: &[u8], memory: &Ram<'_>) -> u32 {
        write(response, &self.segments, memory)
    }
}

fn room(segments: &[Segment]) -> usize {
    segments
        .iter()
        .fold(0, |sum, segment| sum.saturating_add(segment.len))
}

fn write(response: &[u8], segments: &[Segment], memory: &Ram<'_>) -> u32 {
    let mut rest = response;
    let mut written = 0_u32;
    for segment in segments {
        let (part, after) = rest.split_at(segment.len.min(rest.len()));
        if memory.write(segment.address, part).is_err() {
            break;
        }
        written = written.saturating_add(u32::try_from(part.len()).unwrap_or(u32::MAX));
        rest = after;
        if planted(Bug::ResponseNotScattered) {
            break;
        }
    }
    written
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    address: GuestAddress,
    len: usize,
}

impl Buffers {
    /// Reads a chain. Afterwards [`Buffers::malformed`] says whether it was one.
    pub(super) fn load(&mut self, chain: DescriptorChain<&Ram<'_>>, memory: &Ram<'_>) {
        self.request.clear();
        self.readable.clear();
        self.writable.clear();
        self.malformed = self.walk(chain, memory).is_none() || self.copy_request(memory).is_none();
    }

    /// Whether the chain broke a rule of the rings: a loop, an index out of range, a nested or torn
    /// indirect table, a device-readable descriptor after a device-writable one, more than 2^32
    /// bytes, or a buffer outside guest memory. Such a request has no meaning and no place for
    /// an answer.
    pub(super) fn malformed(&self) -> bool {
        self.malformed
    }

    /// Bytes that the guest leaves for the response.
    pub(super) fn room(&self) -> usize {
        room(&self.writable)
    }

    /// Writes the response, which must fit the [`Buffers::room`]; returns the bytes written.
    pub(super) fn write_response(&self, memory: &Ram<'_>) -> u32 {
        write(&self.response, &self.writable, memory)
    }

    /// Where the response goes, for one that is written later.
    pub(super) fn place(&self) -> ResponsePlace {
        ResponsePlace {
            segments: self.writable.clone(),
        }
    }

    fn walk(&mut self, chain: DescriptorChain<&Ram<'_>>, memory: &Ram<'_>) -> Option<()> {
        // The iterator ends early on what it finds wrong, so a chain is whole only if the last
        // descriptor that it gave says so.
        let mut more = true;
        for descriptor in chain {
            more = descriptor.has_next();
            let address = descriptor.addr();
            let len = usize::try_from(descriptor.len()).ok()?;
            if len == 0 {
                continue;
            }
            let segment = Segment { address, len };
            if !memory.has_range(address, len) {
                return None;
            }
            if descriptor.is_write_only() {
                self.writable.push(segment);
            } else if self.writable.is_empty() {
                self.readable.push(segment);
            } else {
                return None;
            }
        }
        (!more).then_some(())
    }

    fn copy_request(&mut self, memory: &Ram<'_>) -> Option<()> {
        for segment in &self.readable {
            let start = self.request.len();
            let len = segment.len.min(MAX_REQUEST.saturating_sub(start));
            self.request.resize(start.saturating_add(len), 0);
            let bytes = self.request.get_mut(start..)?;
            memory.read(segment.address, bytes).ok()?;
        }
        Some(())
    }
}
