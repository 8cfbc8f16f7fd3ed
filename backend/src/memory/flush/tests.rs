use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use nosnoop_protocol::MapCache;

use super::*;
use crate::memory::PAGE_SIZE;
use crate::memory::kind::{Snooping, Traits};
use crate::sync::lock;
use crate::sys::mmap::tests::populates;

/// Says what it is asked to flush instead of flushing it, and then answers what it is told to. It
/// refuses what [`CacheFlusher`] refuses.
pub(crate) struct Recorder {
    #[expect(clippy::type_complexity, reason = "the signature of a flush")]
    tell: Box<dyn Fn(&HostMemory) -> Result<(), FlushError> + Send + Sync>,
}

impl Recorder {
    pub(crate) fn new(
        tell: impl Fn(&HostMemory) -> Result<(), FlushError> + Send + Sync + 'static,
    ) -> Self {
        Self {
            tell: Box::new(tell),
        }
    }
}

impl Flusher for Recorder {
    fn flush(&self, memory: &HostMemory) -> Result<(), FlushError> {
        permit(memory)?;
        (self.tell)(memory)
    }

    fn stats(&self) -> FlushStats {
        FlushStats::default()
    }
}

/// A file of pages 0, 1, 2 and 3, filled with their numbers, and the memory of the middle two.
pub(crate) fn middle() -> (File, HostMemory) {
    let file = rustix::fs::memfd_create(c"nosnoop-test", rustix::fs::MemfdFlags::CLOEXEC);
    let file = File::from(file.unwrap());
    for page in 0..4_u8 {
        file.write_all_at(&[page; 4096], u64::from(page) * PAGE_SIZE)
            .unwrap();
    }
    let fd = file.try_clone().unwrap().into();
    let memory = HostMemory::new(fd, PAGE_SIZE, 8192, traits(PageKinds::Ram)).unwrap();
    (file, memory)
}

fn traits(kinds: PageKinds) -> Traits {
    Traits {
        host: Some(MapCache::Wc),
        kinds,
        snooping: Snooping::No,
        verified: false,
    }
}

#[test]
fn a_flush_leaves_the_bytes_and_is_counted() {
    if !available().is_yes() {
        println!("SKIPPED: {}", available());
        return;
    }
    let (file, memory) = middle();
    let flusher = CacheFlusher::default();
    assert_eq!(flusher.stats(), FlushStats::default());
    for count in 1..=3 {
        memory.write(4000, &[4; 200]).unwrap();
        flusher.flush(&memory).unwrap();
        let stats = flusher.stats();
        assert_eq!((stats.flushes, stats.bytes), (count, count * 8192));
        assert!(stats.nanos > count * 100, "{stats:?}");
    }
    let mut expected = [[0; 4096], [1; 4096], [2; 4096], [3; 4096]].concat();
    expected[8096..8296].fill(4);
    let mut bytes = vec![9; 4 * 4096];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == expected);
}

#[test]
fn pages_are_there_before_they_are_flushed() {
    if !populates() {
        return;
    }
    if !available().is_yes() {
        println!("SKIPPED: {}", available());
        return;
    }
    let memory = crate::memory::alloc::memfd::allocate(5 * PAGE_SIZE).unwrap();
    let flusher = CacheFlusher::default();
    flusher.flush(&memory).unwrap();
    let taken = rustix::fs::fstat(memory.fd()).unwrap().st_blocks;
    assert_eq!(taken, 5 * 8);
}

/// As a GPU driver's buffer whose file can only be mapped to read.
#[test]
fn memory_that_is_only_mapped_to_read_is_flushed() {
    if !available().is_yes() {
        println!("SKIPPED: {}", available());
        return;
    }
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&[7; 4096]).unwrap();
    let fd = File::open(file.path()).unwrap().into();
    let memory = HostMemory::new(fd, 0, PAGE_SIZE, traits(PageKinds::Ram)).unwrap();
    assert!(Mapping::read_write(&memory.fd(), 0, PAGE_SIZE).is_err());
    let flusher = CacheFlusher::default();
    flusher.flush(&memory).unwrap();
    assert_eq!(flusher.stats().bytes, 4096);
}

#[test]
fn only_ram_is_flushed() {
    let (_, memory) = middle();
    let of = |kinds| {
        let fd = memory.fd().try_clone().unwrap();
        HostMemory::new(fd, PAGE_SIZE, 8192, traits(kinds)).unwrap()
    };
    let flushed = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&flushed);
    let recorder = Recorder::new(move |memory| {
        lock(&log).push((memory.offset(), memory.len()));
        Ok(())
    });
    let cpu = CacheFlusher::default();
    let flushers: [&dyn Flusher; 2] = [&cpu, &recorder];
    for flusher in flushers {
        for kinds in [PageKinds::Mmio, PageKinds::Either] {
            let refused = flusher.flush(&of(kinds)).unwrap_err();
            assert!(matches!(refused, FlushError::DeviceMemory), "{kinds:?}");
        }
        let refused = flusher.flush(&of(PageKinds::Unknown));
        assert!(matches!(refused, Err(FlushError::UnknownPages)));
    }
    assert_eq!(cpu.stats(), FlushStats::default());
    assert_eq!(*lock(&flushed), []);
    recorder.flush(&memory).unwrap();
    assert_eq!(*lock(&flushed), [(4096, 8192)]);
}

#[test]
fn memory_without_its_pages_is_an_error() {
    if !available().is_yes() {
        println!("SKIPPED: {}", available());
        return;
    }
    let flusher = CacheFlusher::default();
    let (pipe, _other_end) = rustix::pipe::pipe().unwrap();
    let unmappable = HostMemory::new(pipe, 0, PAGE_SIZE, traits(PageKinds::Ram)).unwrap();
    let failed = flusher.flush(&unmappable);
    assert!(matches!(failed, Err(FlushError::Map(_))), "{failed:?}");

    if populates() {
        let (file, shrunk) = middle();
        file.set_len(8192).unwrap();
        let failed = flusher.flush(&shrunk);
        assert!(matches!(failed, Err(FlushError::Map(_))), "{failed:?}");
    }
    assert_eq!(flusher.stats(), FlushStats::default());
}

#[test]
fn this_machine_says_how_it_flushes() {
    let fact = available();
    if cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
        assert!(fact.is_yes(), "{fact}");
        assert!(fact.source().ends_with("bytes a line"), "{fact}");
    } else {
        assert!(fact.is_no(), "{fact}");
    }
}
