//! Guest memory: memfds that this process and the daemon both map, and a page allocator over them.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::MemfdFlags;
use vm_memory::mmap::GuestRegionMmap;
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};

use super::error::{Error, Result};
use super::message::MemoryRegion;

/// Bytes per page of the allocator.
pub const PAGE: u64 = 4096;

/// What is added to a guest address to get the "user address" told to the daemon. It never is a
/// real address of this process: a daemon that confuses the two spaces fails at once.
pub const USER_OFFSET: u64 = 0x5000_0000_0000;

/// A stretch of guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Guest physical address.
    pub addr: u64,
    /// Bytes.
    pub len: u32,
}

impl Span {
    /// A span; `len` above 4 GiB panics.
    pub fn new(addr: u64, len: usize) -> Self {
        Span {
            addr,
            len: u32::try_from(len).expect("a span below 4 GiB"),
        }
    }
}

/// Guest memory in one or several regions with holes between them.
#[derive(Debug)]
pub struct GuestRam {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    map: GuestMemoryMmap,
    regions: Vec<(MemoryRegion, Arc<File>)>,
    /// Free page runs: first address -> bytes.
    free: BTreeMap<u64, u64>,
    /// What is handed out: first address -> bytes.
    used: BTreeMap<u64, u64>,
}

/// Two regions of 256 MiB, one below and one above 4 GiB; pages cost nothing until touched.
pub const DEFAULT_LAYOUT: [(u64, u64); 2] = [(0x10_0000, 256 << 20), (0x1_0000_0000, 256 << 20)];

impl GuestRam {
    /// Memory with the given regions: (guest address, bytes), sorted, whole pages.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Memory`] if a region cannot be made.
    pub fn new(layout: &[(u64, u64)]) -> Result<Arc<Self>> {
        let mut parts = Vec::new();
        let mut regions = Vec::new();
        for &(addr, size) in layout {
            let (region, file, mapped) = make_region(addr, size)?;
            regions.push((region, file));
            parts.push(mapped);
        }
        let map = GuestMemoryMmap::from_regions(parts)
            .map_err(|e| Error::Memory(format!("layout {layout:x?}: {e}")))?;
        let free = layout.iter().copied().collect();
        let state = State {
            map,
            regions,
            free,
            used: BTreeMap::new(),
        };
        Ok(Arc::new(GuestRam {
            state: Mutex::new(state),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The present mapping; later changes of the regions do not show in it.
    pub fn map(&self) -> GuestMemoryMmap {
        self.state().map.clone()
    }

    /// The regions as a front-end describes them, each with a file descriptor of its own.
    pub fn regions(&self) -> Result<Vec<(MemoryRegion, OwnedFd)>> {
        let duplicate = |file: &Arc<File>| {
            file.as_fd()
                .try_clone_to_owned()
                .map_err(|e| Error::io("duplicate a memfd", e))
        };
        self.state()
            .regions
            .iter()
            .map(|(r, file)| Ok((*r, duplicate(file)?)))
            .collect()
    }

    /// Adds a region; its pages become free for allocation. The daemon must be told separately.
    pub fn add_region(&self, addr: u64, size: u64) -> Result<(MemoryRegion, OwnedFd)> {
        let (region, file, mapped) = make_region(addr, size)?;
        let mut state = self.state();
        state.map = state
            .map
            .insert_region(Arc::new(mapped))
            .map_err(|e| Error::Memory(format!("region at {addr:#x}: {e}")))?;
        let fd = file
            .as_fd()
            .try_clone_to_owned()
            .map_err(|e| Error::io("duplicate a memfd", e))?;
        state.regions.push((region, file));
        state.regions.sort_by_key(|(region, _)| region.guest_addr);
        state.free.insert(addr, size);
        Ok((region, fd))
    }

    /// Removes the region that begins at `addr`, with all that was allocated in it.
    pub fn remove_region(&self, addr: u64) -> Result<MemoryRegion> {
        let mut state = self.state();
        let at = state
            .regions
            .iter()
            .position(|(region, _)| region.guest_addr == addr);
        let at = at.ok_or_else(|| Error::Memory(format!("no region at {addr:#x}")))?;
        let (region, _) = state.regions.remove(at);
        let (map, _) = state
            .map
            .remove_region(GuestAddress(addr), region.size)
            .map_err(|e| Error::Memory(format!("region at {addr:#x}: {e}")))?;
        state.map = map;
        let inside = |start: &u64| (addr..addr + region.size).contains(start);
        state.free.retain(|start, _| !inside(start));
        state.used.retain(|start, _| !inside(start));
        Ok(region)
    }

    /// Takes whole pages for `len` bytes, contiguous and zeroed; first fit.
    pub fn alloc(&self, len: usize) -> Result<Span> {
        self.alloc_above(len, 0)
    }

    /// As [`Self::alloc`], at or above a guest address (to pick a region).
    pub fn alloc_above(&self, len: usize, floor: u64) -> Result<Span> {
        let size = (len.max(1) as u64).next_multiple_of(PAGE);
        let mut state = self.state();
        let found = state.free.range(floor..).find(|(_, free)| **free >= size);
        let (&start, &free) =
            found.ok_or_else(|| Error::Memory(format!("no {size} contiguous bytes are free")))?;
        state.free.remove(&start);
        if free > size {
            state.free.insert(start + size, free - size);
        }
        state.used.insert(start, size);
        drop(state);
        self.fill(start, size as usize, 0)?;
        Ok(Span::new(start, len))
    }

    /// Gives back a span that [`Self::alloc`] returned. Unknown spans are ignored (their region may
    /// be gone).
    pub fn free(&self, span: Span) {
        let mut state = self.state();
        let Some(size) = state.used.remove(&span.addr) else {
            return;
        };
        let (mut start, mut end) = (span.addr, span.addr + size);
        if state.region_of(start) == state.region_of(end)
            && let Some(after) = state.free.remove(&end)
        {
            end += after;
        }
        let before = state.free.range(..start).next_back().map(|(s, l)| (*s, *l));
        if let Some((before, len)) = before
            && before + len == start
            && state.region_of(before) == state.region_of(start)
        {
            start = before;
        }
        state.free.insert(start, end - start);
    }

    /// Takes pages for `len` bytes as a list of fragments of the given lengths (the last lengths are
    /// repeated until `len` is reached), deliberately not in address order.
    pub fn alloc_fragments(&self, len: usize, lengths: &[usize]) -> Result<Vec<Span>> {
        let mut wanted = Vec::new();
        let mut left = len;
        let mut cycle = lengths.iter().copied().filter(|l| *l > 0).cycle();
        while left > 0 {
            let part = cycle.next().unwrap_or(left).min(left);
            wanted.push(part);
            left -= part;
        }
        let mut spans = wanted
            .iter()
            .map(|l| self.alloc(*l))
            .collect::<Result<Vec<_>>>()?;
        // Same lengths may trade places: neighbours in the list are then no neighbours in memory.
        for at in (1..spans.len()).step_by(2) {
            if spans[at].len == spans[at - 1].len {
                spans.swap(at, at - 1);
            }
        }
        Ok(spans)
    }

    /// Writes bytes at a guest address.
    pub fn write(&self, addr: u64, bytes: &[u8]) -> Result<()> {
        let map = self.map();
        map.write_slice(bytes, GuestAddress(addr))
            .map_err(|e| outside(addr, bytes.len(), &e))
    }

    /// Reads `len` bytes from a guest address.
    pub fn read(&self, addr: u64, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        let map = self.map();
        map.read_slice(&mut bytes, GuestAddress(addr))
            .map_err(|e| outside(addr, len, &e))?;
        Ok(bytes)
    }

    /// Fills memory with one byte.
    pub fn fill(&self, addr: u64, len: usize, byte: u8) -> Result<()> {
        self.write(addr, &vec![byte; len])
    }

    /// Writes bytes across a list of fragments, from byte `offset` of their concatenation.
    pub fn scatter(&self, spans: &[Span], offset: usize, bytes: &[u8]) -> Result<()> {
        let (mut skip, mut rest) = (offset, bytes);
        for span in spans {
            let len = span.len as usize;
            if skip < len {
                let part = rest.len().min(len - skip);
                self.write(span.addr + skip as u64, &rest[..part])?;
                rest = &rest[part..];
            }
            skip = skip.saturating_sub(len);
        }
        match rest.len() {
            0 => Ok(()),
            left => Err(Error::Memory(format!(
                "{left} bytes do not fit in the fragments"
            ))),
        }
    }

    /// Reads a little-endian u16 with acquire ordering: another process may be writing it.
    pub fn load_u16(&self, addr: u64) -> Result<u16> {
        let value: u16 = self
            .map()
            .load(GuestAddress(addr), Ordering::Acquire)
            .map_err(|e| outside(addr, 2, &e))?;
        Ok(u16::from_le(value))
    }
}

impl State {
    fn region_of(&self, addr: u64) -> Option<usize> {
        self.regions
            .iter()
            .position(|(r, _)| (r.guest_addr..r.guest_addr + r.size).contains(&addr))
    }
}

fn outside(addr: u64, len: usize, error: &vm_memory::GuestMemoryError) -> Error {
    Error::Memory(format!("{len} bytes at {addr:#x}: {error}"))
}

fn make_region(addr: u64, size: u64) -> Result<(MemoryRegion, Arc<File>, GuestRegionMmap)> {
    let fd = rustix::fs::memfd_create("guest-ram", MemfdFlags::CLOEXEC)
        .map_err(|e| Error::io("memfd_create", e))?;
    let file = Arc::new(File::from(fd));
    file.set_len(size)
        .map_err(|e| Error::io("size a memfd", e))?;
    let offset = FileOffset::from_arc(file.clone(), 0);
    let mapped = GuestRegionMmap::from_range(GuestAddress(addr), size as usize, Some(offset))
        .map_err(|e| Error::Memory(format!("map {size} bytes for {addr:#x}: {e}")))?;
    let user_addr = addr + USER_OFFSET;
    Ok((
        MemoryRegion {
            guest_addr: addr,
            size,
            user_addr,
            mmap_offset: 0,
        },
        file,
        mapped,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freed_pages_join_again_and_regions_stay_apart() {
        // Two regions that touch: no span may lie across their border.
        let ram = GuestRam::new(&[(0, 4 * PAGE), (4 * PAGE, 4 * PAGE)]).unwrap();
        for _ in 0..3 {
            let spans: Vec<_> = (0..8).map(|_| ram.alloc(1).unwrap()).collect();
            assert!(ram.alloc(1).is_err());
            spans.iter().for_each(|span| ram.free(*span));
            let whole = [ram.alloc(4 * PAGE as usize), ram.alloc(4 * PAGE as usize)];
            whole.into_iter().for_each(|span| ram.free(span.unwrap()));
            assert!(ram.alloc(5 * PAGE as usize).is_err());
        }
    }

    #[test]
    fn fragments_are_out_of_order_and_scatter_fills_them_in_list_order() {
        let ram = GuestRam::new(&[(0, 64 * PAGE)]).unwrap();
        let spans = ram.alloc_fragments(1000, &[100]).unwrap();
        assert_eq!(spans.len(), 10);
        assert!(spans[0].addr > spans[1].addr);
        let bytes: Vec<u8> = (0..1000).map(|n| (n % 251) as u8).collect();
        ram.scatter(&spans, 0, &bytes).unwrap();
        let read: Vec<u8> = spans
            .iter()
            .flat_map(|s| ram.read(s.addr, s.len as usize).unwrap())
            .collect();
        assert_eq!(read, bytes);
        ram.scatter(&spans, 995, &[1; 5]).unwrap();
        assert!(ram.scatter(&spans, 996, &[1; 5]).is_err());
    }
}
