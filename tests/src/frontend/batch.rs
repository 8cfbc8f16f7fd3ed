//! Many commands at once, and the order in which they are answered.

use super::driver::Gpu;
use super::error::{Deadline, Error, Result};
use super::memory::Span;
use super::response::{HEADER, Response};
use super::ring::{DESC_WRITE, Descriptor};

/// Requests on the control queue whose answers are wanted in the order in which they come, each
/// exactly once.
#[derive(Debug, Default)]
pub struct Batch {
    chains: Vec<(u16, Span, Span)>,
}

impl Batch {
    /// Submits a request with room for a bare header as its answer, without a kick.
    ///
    /// # Errors
    /// Out of guest memory or descriptors.
    pub fn push(&mut self, gpu: &mut Gpu, request: &[u8]) -> Result<()> {
        let asked = gpu.ram.alloc(request.len())?;
        gpu.ram.write(asked.addr, request)?;
        let answer = gpu.ram.alloc(HEADER)?;
        let descriptor = |span: Span, flags: u16| Descriptor {
            addr: span.addr,
            len: span.len,
            flags,
            next: 0,
        };
        let chain = [descriptor(asked, 0), descriptor(answer, DESC_WRITE)];
        let head = gpu.control.ring().submit(&chain)?;
        self.chains.push((head, asked, answer));
        Ok(())
    }

    /// Kicks and waits for all; each answer with the position of its request.
    ///
    /// # Errors
    /// [`Error::Timeout`] for one that does not come; [`Error::Ring`] for one that is nobody's.
    pub fn answers(self, gpu: &mut Gpu) -> Result<Vec<(usize, Response)>> {
        gpu.control.kick()?;
        let mut answers: Vec<(usize, Response)> = Vec::new();
        for _ in &self.chains {
            let used = gpu.control.ring().wait_used(&Deadline::default())?;
            let mut chains = self.chains.iter().enumerate();
            let found = chains.find(|(at, (head, ..))| {
                *head == used.head && answers.iter().all(|(other, _)| other != at)
            });
            let stranger = || Error::Ring {
                ring: 0,
                what: format!("chain {} is nobody's, or answered twice", used.head),
            };
            let (at, (_, _, answer)) = found.ok_or_else(stranger)?;
            let bytes = gpu.ram.read(answer.addr, answer.len as usize)?;
            answers.push((at, Response::new(bytes, used.len)));
        }
        for (_, asked, answer) in self.chains {
            gpu.ram.free(asked);
            gpu.ram.free(answer);
        }
        Ok(answers)
    }
}
