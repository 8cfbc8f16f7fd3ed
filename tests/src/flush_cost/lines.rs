//! The cost of a mebibyte by instruction and by what the caches hold of it.

use std::fmt::Write;
use std::io;

use nosnoop_gpu::memory::alloc::HostMemory;
use nosnoop_gpu::memory::flush::{CacheFlusher, Flusher};
use serde::Serialize;
use vm_memory::MmapRegion;

use super::cpu::{self, Cpu, Instruction};
use super::{COLUMNS, MIB, Spread, Time, Times, blob, map};

/// What the caches hold of the memory beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// All of it, changed.
    Dirty,
    /// All of it, as it is in memory.
    Clean,
    /// Nothing.
    Absent,
}

/// What is done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Work {
    /// Copied to other memory.
    Memcpy,
    /// What the daemon does: maps it, flushes it, unmaps it.
    Flusher,
    /// One instruction for each line, between fences.
    #[serde(untagged)]
    Lines(Instruction),
}

impl Work {
    fn name(self) -> &'static str {
        match self {
            Self::Memcpy => "memcpy",
            Self::Lines(instruction) => instruction.name(),
            Self::Flusher => "the daemon's flush",
        }
    }
}

/// What was measured.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Cost {
    /// What was done.
    pub work: Work,
    /// To what.
    pub state: State,
    /// How long it took for one mebibyte.
    pub times: Times,
    /// Cycles to load one byte afterwards: whether the caches still have it.
    pub load_after: Spread,
}

struct Bench<'a> {
    cpu: &'a Cpu,
    memory: HostMemory,
    mapping: MmapRegion,
    copy: Vec<u8>,
    flusher: CacheFlusher,
}

impl Bench<'_> {
    fn prepare(&self, state: State) {
        cpu::fill(&self.mapping, 0x5a);
        if state != State::Dirty {
            self.cpu.flush(Instruction::Clflush, &self.mapping);
        }
        if state == State::Clean {
            cpu::touch(&self.mapping, self.cpu.line);
        }
    }

    fn run(&mut self, work: Work) -> io::Result<Time> {
        let (time, result) = cpu::timed(|| match work {
            Work::Memcpy => {
                cpu::copy(&self.mapping, &mut self.copy);
                Ok(())
            }
            Work::Lines(instruction) => {
                self.cpu.flush(instruction, &self.mapping);
                Ok(())
            }
            Work::Flusher => self.flusher.flush(&self.memory),
        });
        result.map_err(io::Error::other)?;
        Ok(time)
    }
}

/// Measures everything by turns, `rounds` times.
///
/// # Errors
/// When memory cannot be had.
pub fn run(cpu: &Cpu, rounds: usize) -> io::Result<Vec<Cost>> {
    let memory = blob::memory(MIB as u64, true)?;
    let mut bench = Bench {
        cpu,
        mapping: map(&memory)?,
        memory,
        copy: vec![0; MIB],
        flusher: CacheFlusher::default(),
    };
    let mut works = vec![Work::Memcpy, Work::Flusher];
    works.extend(cpu.instructions.iter().copied().map(Work::Lines));
    let cases: Vec<(Work, State)> = works
        .into_iter()
        .flat_map(|work| [State::Dirty, State::Clean, State::Absent].map(|state| (work, state)))
        .collect();
    let mut times = vec![Vec::new(); cases.len()];
    let mut loads = vec![Vec::new(); cases.len()];
    for round in 0..rounds {
        for turn in 0..cases.len() {
            let case = (turn + round) % cases.len();
            let (work, state) = cases[case];
            bench.prepare(state);
            times[case].push(bench.run(work)?);
            loads[case].extend(cpu::load_times(&bench.mapping));
        }
    }
    let measured = cases.into_iter().zip(times).zip(loads);
    Ok(measured
        .map(|(((work, state), times), loads)| Cost {
            work,
            state,
            times: Times::of(&times),
            load_after: Spread::of(loads),
        })
        .collect())
}

/// For people: a line for each case.
#[must_use]
pub fn table(costs: &[Cost]) -> String {
    let mut text = format!(
        "{:<20}{:<8}{COLUMNS}  vs memcpy  load after\n",
        "1 MiB", "lines"
    );
    for cost in costs {
        let copy = costs
            .iter()
            .find(|other| other.work == Work::Memcpy && other.state == cost.state);
        let ratio = copy.map_or(f64::NAN, |copy| cost.times.ratio(&copy.times));
        let _ = writeln!(
            text,
            "{:<20}{:<8}{}  {ratio:>9.2}  {:>10}",
            cost.work.name(),
            format!("{:?}", cost.state).to_lowercase(),
            cost.times,
            cost.load_after.median
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_is_measured_in_every_state() {
        let cpu = Cpu::detect();
        let costs = run(&cpu, 2).unwrap();
        assert_eq!(costs.len(), 3 * (2 + cpu.instructions.len()));
        for cost in &costs {
            let cycles = cost.times.cycles;
            assert!(cycles.p10 > 0 && cycles.p10 <= cycles.p90, "{cost:?}");
            assert!(cost.times.cpu_nanos.median > 0 && cost.load_after.median > 0);
        }
    }

    #[test]
    fn the_table_compares_with_the_copy_of_the_same_state() {
        let cost = |work, state, cycles| {
            let spread = Spread::of(vec![cycles]);
            Cost {
                work,
                state,
                times: Times {
                    cycles: spread,
                    cpu_nanos: spread,
                },
                load_after: Spread::of(vec![77]),
            }
        };
        let text = table(&[
            cost(Work::Memcpy, State::Dirty, 200_000),
            cost(Work::Memcpy, State::Clean, 100_000),
            cost(Work::Lines(Instruction::Clwb), State::Clean, 350_000),
        ]);
        let line = text.lines().find(|line| line.starts_with("clwb")).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(
            words,
            [
                "clwb", "clean", "350.0", "350.0", "350.0", "350.0", "3.50", "77"
            ]
        );
    }
}
