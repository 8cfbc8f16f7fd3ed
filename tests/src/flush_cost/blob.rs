//! The cost of flushes in the life of a blob, with and without.
//!
//! The phases are those in which such a cost has been published for kernels that flush for assigned
//! devices: map, unmap, teardown. The daemon's own part of them is done by what does it in the
//! daemon, [`PlannedMemory`]:
//!
//! - map: the daemon flushes it if the plan says so, for the first exposure; the front-end maps it,
//!   and each of its pages is stored to once, as by a guest's first accesses.
//! - unmap: the front-end unmaps it.
//! - teardown: the daemon lets go of it, which ends the last exposure. If the plan says so, it
//!   flushes it again; then the pages go back to the host.
//!
//! Between map and unmap, all of it is written. A guest with a write-combining mapping leaves
//! nothing of that in the caches; this machine may have no way to map so, so that the same is had by
//! flushing it before the time is taken.

use std::fmt::Write;
use std::io;
use std::sync::{Arc, Mutex};

use nosnoop_gpu::memory::alloc::{HostMemory, memfd};
use nosnoop_gpu::memory::flush::{CacheFlusher, FlushError, FlushStats, Flusher};
use nosnoop_gpu::memory::kind::{PageKinds, Snooping, Traits};
use nosnoop_gpu::memory::plan::{Plan, PlatformFacts, Policy, VmmFacts, VmmMemtype, plan};
use nosnoop_gpu::memory::planned::PlannedMemory;
use nosnoop_gpu::memory::quarantine::Quarantine;
use nosnoop_protocol::MapCache;
use serde::Serialize;

use super::cpu::{self, Cpu, Instruction};
use super::{COLUMNS, Time, Times, map};

/// What a noncoherent blob of the host's RAM is recorded as. Memfds are not: their pages stand in for
/// those of a GPU's driver, and only the time is looked at.
const NONCOHERENT: Traits = Traits {
    host: Some(MapCache::Wc),
    kinds: PageKinds::Ram,
    snooping: Snooping::No,
    verified: true,
};

/// Plain memory, with these traits or its own.
pub(super) fn memory(len: u64, noncoherent: bool) -> io::Result<HostMemory> {
    let memory = memfd::allocate(len)?;
    if noncoherent {
        HostMemory::new(memory.fd().try_clone()?, 0, len, NONCOHERENT)
    } else {
        Ok(memory)
    }
}

/// The daemon's flusher, with a clock.
#[derive(Default)]
struct Clocked {
    flusher: CacheFlusher,
    times: Mutex<Vec<Time>>,
}

impl Flusher for Clocked {
    fn flush(&self, memory: &HostMemory) -> Result<(), FlushError> {
        let (time, result) = cpu::timed(|| self.flusher.flush(memory));
        self.times.lock().unwrap().push(time);
        result
    }

    fn stats(&self) -> FlushStats {
        self.flusher.stats()
    }
}

/// Which blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Case {
    /// Coherent: never flushed.
    Coherent,
    /// Noncoherent, and the guest leaves nothing of it in the caches.
    Noncoherent,
    /// Noncoherent, and the guest mapped it cached all the same.
    NoncoherentMappedCached,
}

impl Case {
    const ALL: [Self; 3] = [
        Self::Coherent,
        Self::Noncoherent,
        Self::NoncoherentMappedCached,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Coherent => "no flush",
            Self::Noncoherent => "flush, guest WC",
            Self::NoncoherentMappedCached => "flush, guest WB",
        }
    }
}

/// What was measured of one case.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Life {
    /// Which blob.
    pub case: Case,
    /// The first exposure, flush included.
    pub map: Times,
    /// The front-end's unmapping.
    pub unmap: Times,
    /// The end of the last exposure, flush included, and of the memory.
    pub teardown: Times,
    /// The flush in `map`.
    pub first_flush: Option<Times>,
    /// The flush in `teardown`.
    pub last_flush: Option<Times>,
}

/// One life's times.
struct Phases {
    map: Time,
    unmap: Time,
    teardown: Time,
    /// None, or the first and the last.
    flushes: Vec<Time>,
}

fn live(cpu: &Cpu, case: Case, len: u64) -> io::Result<Phases> {
    let memory = memory(len, case != Case::Coherent)?;
    let vmm = VmmFacts::new(
        &PlatformFacts::unknown("only the time is looked at"),
        VmmMemtype::Honored,
        false,
    );
    let plan = plan(&memory.traits(), &vmm, false, Policy::default());
    if let Plan::Refuse(refusal) = &plan {
        return Err(io::Error::other(refusal.to_string()));
    }
    let clocked = Arc::new(Clocked::default());
    let flusher = Arc::clone(&clocked);
    let blob = PlannedMemory::new(memory, plan, Arc::new(Quarantine::new(flusher)));
    let (map_time, mapping) = cpu::timed(|| {
        blob.expose().map_err(io::Error::other)?;
        let mapping = map(blob.memory())?;
        cpu::first_stores(&mapping);
        io::Result::Ok(mapping)
    });
    let mapping = mapping?;
    cpu::fill(&mapping, 0x5a);
    if case == Case::Noncoherent {
        cpu.flush(Instruction::Clflush, &mapping);
    }
    let (unmap, ()) = cpu::timed(|| drop(mapping));
    let (teardown, ()) = cpu::timed(|| drop(blob));
    let flushes = clocked.times.lock().unwrap().clone();
    Ok(Phases {
        map: map_time,
        unmap,
        teardown,
        flushes,
    })
}

/// Lets blobs of `len` bytes live by turns, `rounds` of each case.
///
/// # Errors
/// When memory cannot be had.
pub fn run(cpu: &Cpu, len: u64, rounds: usize) -> io::Result<Vec<Life>> {
    let mut lives = [const { Vec::<Phases>::new() }; Case::ALL.len()];
    for round in 0..rounds {
        for turn in 0..Case::ALL.len() {
            let case = (turn + round) % Case::ALL.len();
            lives[case].push(live(cpu, Case::ALL[case], len)?);
        }
    }
    let of_case = |(case, lives): (Case, &Vec<Phases>)| {
        let times = |phase: fn(&Phases) -> Option<Time>| {
            let times: Option<Vec<Time>> = lives.iter().map(phase).collect();
            times.map(|times| Times::of(&times))
        };
        Some(Life {
            case,
            map: times(|life| Some(life.map))?,
            unmap: times(|life| Some(life.unmap))?,
            teardown: times(|life| Some(life.teardown))?,
            first_flush: times(|life| life.flushes.first().copied()),
            last_flush: times(|life| life.flushes.get(1).copied()),
        })
    };
    Ok(Case::ALL
        .into_iter()
        .zip(&lives)
        .filter_map(of_case)
        .collect())
}

/// Finds a phase in a life that has it.
type Phase = fn(&Life) -> Option<Times>;

/// For people: a line for each phase and case, and how it compares with no flush.
#[must_use]
pub fn table(lives: &[Life], len: u64) -> String {
    let head = format!("blob of {} MiB", len >> 20);
    let mut text = format!("{head:<20}{:<18}{COLUMNS}  vs none\n", "");
    let phases: [(&str, Phase); 5] = [
        ("map", |life| Some(life.map)),
        ("  of it the flush", |life| life.first_flush),
        ("unmap", |life| Some(life.unmap)),
        ("teardown", |life| Some(life.teardown)),
        ("  of it the flush", |life| life.last_flush),
    ];
    for (name, phase) in phases {
        let base = lives.first().and_then(phase);
        for life in lives {
            let Some(times) = phase(life) else { continue };
            let ratio = base.map_or(String::new(), |base| format!("{:.2}", times.ratio(&base)));
            let _ = writeln!(
                text,
                "{name:<20}{:<18}{times}  {ratio:>7}",
                life.case.name()
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_noncoherent_blobs_are_flushed() {
        let cpu = Cpu::detect();
        let lives = run(&cpu, 1 << 20, 1).unwrap();
        assert_eq!(
            lives.iter().map(|life| life.case).collect::<Vec<_>>(),
            Case::ALL
        );
        for life in &lives {
            let flushed = life.case != Case::Coherent;
            assert_eq!(life.first_flush.is_some(), flushed, "{life:?}");
            assert_eq!(life.last_flush.is_some(), flushed, "{life:?}");
            let part = |flush: Option<Times>| flush.map_or(0, |times| times.cycles.median);
            assert!(part(life.first_flush) < life.map.cycles.median);
            assert!(part(life.last_flush) < life.teardown.cycles.median);
            assert!(life.unmap.cycles.median > 0);
        }
        assert_eq!(table(&lives, 1 << 20).lines().count(), 1 + 3 * 3 + 2 * 2);
    }
}
