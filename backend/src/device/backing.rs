//! The guest pages behind a resource.

use nosnoop_protocol::command::MemEntries;
use nosnoop_protocol::reply::GpuError;
use vm_memory::{GuestAddress, GuestMemoryError};

use super::quota::MAX_BACKING_ENTRIES;
use crate::GuestMemory;
use crate::guest::Ram;
use crate::planted::{Bug, planted};

/// A resource's guest memory: ranges that together are its bytes from 0 to [`Backing::len`].
///
/// The ranges were guest memory when this was made. The front-end may take regions away at any
/// time, so each access is checked again against the memory of that moment.
#[derive(Debug)]
pub(super) struct Backing {
    ranges: Box<[Range]>,
    len: u64,
    entries: usize,
}

#[derive(Clone, Copy, Debug)]
struct Range {
    /// Offset of this range's first byte in the backing store.
    start: u64,
    address: GuestAddress,
    len: u64,
}

impl Backing {
    /// Takes over the guest's list; neighbours in guest memory become one range.
    ///
    /// # Errors
    /// `OutOfMemory` for more than [`MAX_BACKING_ENTRIES`] or `room` entries, `Unspec` for a range
    /// that is not guest memory.
    pub(super) fn new(
        entries: &MemEntries<'_>,
        memory: &GuestMemory,
        room: usize,
    ) -> Result<Self, GpuError> {
        if entries.len() > MAX_BACKING_ENTRIES.min(room) {
            return Err(GpuError::OutOfMemory);
        }
        let ram = Ram::new(memory);
        let mut ranges: Vec<Range> = Vec::new();
        let mut len = 0_u64;
        for entry in entries.iter().filter(|entry| entry.len > 0) {
            let address = GuestAddress(entry.addr);
            let bytes = usize::try_from(entry.len).map_err(|_| GpuError::Unspec)?;
            if !ram.has_range(address, bytes) {
                return Err(GpuError::Unspec);
            }
            let added = u64::from(entry.len);
            match ranges.last_mut() {
                Some(last)
                    if last.address.0.checked_add(last.len) == Some(address.0)
                        || planted(Bug::BackingContiguous) =>
                {
                    last.len = last.len.saturating_add(added);
                }
                _ => {
                    ranges.try_reserve(1).map_err(|_| GpuError::OutOfMemory)?;
                    ranges.push(Range {
                        start: len,
                        address,
                        len: added,
                    });
                }
            }
            len = len.checked_add(added).ok_or(GpuError::Unspec)?;
        }
        Ok(Self {
            ranges: ranges.into_boxed_slice(),
            len,
            entries: entries.len(),
        })
    }

    /// Bytes of all ranges together.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// How many entries the guest's list had: what counts against the quota.
    pub(super) fn entries(&self) -> usize {
        self.entries
    }

    /// Guest address and bytes of each piece, in order.
    pub(super) fn pieces(&self) -> Vec<(u64, usize)> {
        let piece = |range: &Range| (range.address.0, usize::try_from(range.len).unwrap_or(0));
        self.ranges.iter().map(piece).collect()
    }

    /// Copies the bytes from `offset` on into `into`.
    ///
    /// # Errors
    /// `InvalidParameter` beyond the end, `Unspec` if a range is no longer guest memory; `into` may
    /// then be written in part.
    pub(super) fn read(
        &self,
        memory: &Ram<'_>,
        offset: u64,
        into: &mut [u8],
    ) -> Result<(), GpuError> {
        let mut rest = into;
        self.each_piece(offset, rest.len(), |address, len| {
            let (part, after) = std::mem::take(&mut rest).split_at_mut(len);
            rest = after;
            memory.read(address, part)
        })
    }

    /// Copies `from` to the bytes from `offset` on.
    ///
    /// # Errors
    /// As [`Backing::read`].
    pub(super) fn write(&self, memory: &Ram<'_>, offset: u64, from: &[u8]) -> Result<(), GpuError> {
        let mut rest = from;
        self.each_piece(offset, rest.len(), |address, len| {
            let (part, after) = rest.split_at(len);
            rest = after;
            memory.write(address, part)
        })
    }

    /// Calls `access` with the guest address and length of each piece of `len` bytes from `offset`
    /// on; the lengths add up to `len`.
    fn each_piece(
        &self,
        offset: u64,
        len: usize,
        mut access: impl FnMut(GuestAddress, usize) -> Result<(), GuestMemoryError>,
    ) -> Result<(), GpuError> {
        let end = u64::try_from(len)
            .ok()
            .and_then(|len| offset.checked_add(len));
        if end.is_none_or(|end| end > self.len) {
            return Err(GpuError::InvalidParameter);
        }
        let next = self.ranges.partition_point(|range| range.start <= offset);
        let mut position = offset;
        let mut left = len;
        for range in self
            .ranges
            .get(next.saturating_sub(1)..)
            .unwrap_or_default()
        {
            if left == 0 {
                break;
            }
            let skip = position.saturating_sub(range.start);
            let available = usize::try_from(range.len.saturating_sub(skip)).unwrap_or(usize::MAX);
            let piece = available.min(left);
            let address = range.address.0.checked_add(skip).ok_or(GpuError::Unspec)?;
            access(GuestAddress(address), piece).map_err(|_| GpuError::Unspec)?;
            position = range.start.saturating_add(range.len);
            left = left.saturating_sub(piece);
        }
        Ok(())
    }
}
