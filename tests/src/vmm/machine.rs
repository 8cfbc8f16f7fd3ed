//! The virtual machine: guest memory, one processor in 64-bit mode, and the guest on it.
//!
//! The processor runs in a thread of its own, so that a guest that never stops is a missed deadline
//! and not a hang. It stops at the end of each order.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use kvm_bindings::{Msrs, kvm_msr_entry};
use kvm_ioctls::{Kvm, VcpuExit};

use super::boot;
use super::guest::{ANSWER, Answer, KICK_PORT, LINUX_PAT, MAILBOX, Order, Pattern, REPORT_PORT};
use super::probe::{QUIRK_IGNORE_GUEST_PAT, Support};
use super::program;
use super::sys::{Backing, Vcpu, Vm};
use super::tables::{self, PatType};
use crate::frontend::error::wait_readable;
use crate::frontend::message::u64_at;
use crate::frontend::{Deadline, Error as FrontEndError, GuestRam, Span, patience};

/// The register IA32_PAT.
const IA32_PAT: u32 = 0x277;

/// Why the machine does not go on.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// KVM refused something.
    #[error("{what}: {source}")]
    Kvm {
        /// What was asked.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// Guest memory, or a wait for a device.
    #[error(transparent)]
    FrontEnd(#[from] FrontEndError),
    /// The guest did something that ends it.
    #[error("the guest stopped at {rip:#x}: {exit}")]
    Stopped {
        /// Address of the instruction.
        rip: u64,
        /// KVM's reason.
        exit: String,
    },
    /// The guest does not come back.
    #[error("the guest has not finished {0:?} in time")]
    Hangs(Order),
    /// The guest's mailbox has no answer in it.
    #[error("the guest did not understand {0:?}")]
    NoAnswer(Order),
}

/// Result of what the machine does.
pub type Result<T> = std::result::Result<T, MachineError>;

fn kvm(what: &'static str) -> impl FnOnce(io::Error) -> MachineError {
    move |source| MachineError::Kvm { what, source }
}

/// The eventfds of the device's queue.
#[derive(Debug)]
pub struct Doorbell {
    /// Written when the guest notifies the device.
    pub kick: OwnedFd,
    /// Readable when the device interrupts the guest.
    pub call: OwnedFd,
}

/// What the processor's registers say after an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registers {
    /// CR3.
    pub cr3: u64,
    /// IA32_PAT.
    pub pat: u64,
}

/// What the guest did where nothing is: guest-physical address, and whether it wrote.
type Strays = Arc<Mutex<Vec<(u64, bool)>>>;

/// A page of the guest's address space with its memory type, read from its own tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestPage {
    /// Guest-physical address.
    pub physical: u64,
    /// What the tables select from the page attribute table.
    pub memory_type: Option<PatType>,
    /// Whether the guest may write.
    pub writable: bool,
}

/// A virtual machine whose guest waits for an order.
#[derive(Debug)]
pub struct Machine {
    vm: Arc<Vm>,
    ram: Arc<GuestRam>,
    mailbox: Span,
    slots: u32,
    resume: Sender<()>,
    stops: Receiver<Result<Registers>>,
    registers: Registers,
    strays: Strays,
}

impl Machine {
    /// A machine with `ram` as its memory and a device's queue behind `doorbell`, if there is one.
    /// Where `support` wants KVM's quirk disabled, it is: before there is a processor.
    ///
    /// # Errors
    /// What KVM refused, or too little guest memory.
    pub fn new(
        host: &Kvm,
        ram: &Arc<GuestRam>,
        support: Support,
        doorbell: Option<Doorbell>,
    ) -> Result<Self> {
        let vm = Vm::new(host).map_err(kvm("making a virtual machine"))?;
        if support.needs_quirk() {
            vm.disable_quirk(QUIRK_IGNORE_GUEST_PAT)
                .map_err(kvm("disabling KVM_X86_QUIRK_IGNORE_GUEST_PAT"))?;
        }
        let slots = add_ram(&vm, ram)?;
        let tables = boot::identity_tables(ram)?;
        let mailbox = ram.alloc(MAILBOX)?;
        let program = ram.alloc(program::code().len())?;
        ram.write(program.addr, program::code())?;
        let cpu = vm.vcpu(0).map_err(kvm("making a processor"))?;
        boot::start_in_long_mode(host, &cpu, tables, program.addr, mailbox.addr)
            .map_err(kvm("setting the processor's registers"))?;
        let strays = Strays::default();
        let (resume, resumed) = channel();
        let (stop, stops) = channel();
        let runner = Runner {
            cpu,
            doorbell,
            strays: strays.clone(),
        };
        std::thread::spawn(move || runner.serve(&resumed, &stop));
        Ok(Self {
            vm,
            ram: ram.clone(),
            mailbox,
            slots,
            resume,
            stops,
            registers: Registers {
                cr3: tables,
                pat: 0,
            },
            strays,
        })
    }

    /// The virtual machine.
    #[must_use]
    pub fn vm(&self) -> &Arc<Vm> {
        &self.vm
    }

    /// The first memory slot that guest memory does not use.
    #[must_use]
    pub fn first_free_slot(&self) -> u32 {
        self.slots
    }

    /// The registers at the end of the last order.
    #[must_use]
    pub fn registers(&self) -> Registers {
        self.registers
    }

    /// Guest-physical addresses that the guest has touched where nothing is, and whether it wrote;
    /// reads there give ones.
    #[must_use]
    pub fn strays(&self) -> Vec<(u64, bool)> {
        let strays = self.strays.lock();
        strays.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has the guest do something.
    ///
    /// # Errors
    /// When the guest ends or hangs over it; it takes no more orders then.
    pub fn order(&mut self, order: Order) -> Result<Answer> {
        let words = order.words().map(u64::to_le_bytes).concat();
        self.ram.write(self.mailbox.addr, &words)?;
        let answer = self.mailbox.addr + ANSWER as u64;
        self.ram.fill(answer, MAILBOX - ANSWER, 0)?;
        // Fails when the thread has ended after an error, which the receiver then tells.
        let _ = self.resume.send(());
        match self.stops.recv_timeout(patience()) {
            Ok(registers) => self.registers = registers?,
            Err(RecvTimeoutError::Timeout) => return Err(MachineError::Hangs(order)),
            Err(RecvTimeoutError::Disconnected) => return Err(MachineError::NoAnswer(order)),
        }
        let answer = self.ram.read(self.mailbox.addr, MAILBOX)?;
        Answer::from_bytes(&answer[ANSWER..]).ok_or(MachineError::NoAnswer(order))
    }

    /// Has the guest do something that cannot fail but by ending it; gives the results.
    ///
    /// # Errors
    /// As [`Self::order`], and for any other answer.
    pub fn done(&mut self, order: Order) -> Result<[u64; 2]> {
        match self.order(order)? {
            Answer::Done(results) => Ok(results),
            Answer::BadMapInfo => Err(MachineError::NoAnswer(order)),
        }
    }

    /// Has the guest program its page attribute table as Linux does; gives what it reads back.
    ///
    /// # Errors
    /// As [`Self::done`].
    pub fn set_pat(&mut self) -> Result<u64> {
        Ok(self.done(Order::SetPat(LINUX_PAT))?[0])
    }

    /// Has the guest compare words with a pattern; gives how many differ, and the first.
    ///
    /// # Errors
    /// As [`Self::done`].
    pub fn check(&mut self, address: u64, words: u64, pattern: Pattern) -> Result<[u64; 2]> {
        self.done(Order::Check(address, words, pattern))
    }

    /// What the guest's own tables and registers say of an address; `None` where it maps no page of
    /// 4 KiB.
    ///
    /// # Errors
    /// When its tables lie outside of its memory.
    pub fn page(&self, address: u64) -> Result<Option<GuestPage>> {
        let mut failed = None;
        let found = tables::walk(self.registers.cr3, address, |at| {
            let entry = self.ram.read(at, 8).map(|bytes| u64_at(&bytes, 0));
            entry.unwrap_or_else(|error| {
                failed = Some(error);
                0
            })
        });
        if let Some(error) = failed {
            return Err(error.into());
        }
        Ok(found.map(|page| GuestPage {
            physical: page.physical,
            memory_type: PatType::of(self.registers.pat, page.pat_index),
            writable: page.writable,
        }))
    }
}

/// Gives the machine its memory; returns how many slots that takes.
fn add_ram(vm: &Vm, ram: &GuestRam) -> Result<u32> {
    let memory = ram.map();
    let mut slot = 0;
    for (region, _) in ram.regions()? {
        let (start, size) = (region.guest_addr, region.size);
        let backing = Backing::Ram(memory.clone(), start, size);
        vm.set_slot(slot, start, backing, 0, true)
            .map_err(kvm("adding guest memory"))?;
        slot += 1;
    }
    Ok(slot)
}

/// The thread that runs the processor.
struct Runner {
    cpu: Vcpu,
    doorbell: Option<Doorbell>,
    strays: Strays,
}

/// What an exit asks for, with nothing borrowed from it.
enum Exit {
    Report,
    Kick,
    Halt,
    Resume,
    Stop(String),
}

impl Runner {
    /// Runs the guest from order to order, until it ends or nobody listens.
    fn serve(mut self, resumed: &Receiver<()>, stop: &Sender<Result<Registers>>) {
        while resumed.recv().is_ok() {
            let stopped = self.run();
            let ended = stopped.is_err();
            if stop.send(stopped).is_err() || ended {
                return;
            }
        }
    }

    /// Runs the guest to the end of its order.
    fn run(&mut self) -> Result<Registers> {
        loop {
            match self.exit()? {
                Exit::Report => return self.registers(),
                Exit::Kick => self.kick()?,
                Exit::Halt => self.wait_for_interrupt()?,
                Exit::Resume => {}
                Exit::Stop(exit) => return Err(self.stopped(exit)),
            }
        }
    }

    fn exit(&mut self) -> Result<Exit> {
        let stray = |address, writes| {
            let strays = self.strays.lock();
            let mut strays = strays.unwrap_or_else(PoisonError::into_inner);
            strays.push((address, writes));
            Exit::Resume
        };
        Ok(match self.cpu.run() {
            Ok(VcpuExit::IoOut(REPORT_PORT, _)) => Exit::Report,
            Ok(VcpuExit::IoOut(KICK_PORT, _)) => Exit::Kick,
            Ok(VcpuExit::Hlt) => Exit::Halt,
            Ok(VcpuExit::MmioRead(address, data)) => {
                data.fill(0xff);
                stray(address, false)
            }
            Ok(VcpuExit::MmioWrite(address, _)) => stray(address, true),
            Ok(other) => Exit::Stop(format!("{other:?}")),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Exit::Resume,
            Err(error) => Exit::Stop(error.to_string()),
        })
    }

    fn registers(&self) -> Result<Registers> {
        use super::sys::error;
        let failed = || kvm("reading the processor's registers");
        let system = self.cpu.get_sregs().map_err(error).map_err(failed())?;
        let pat = kvm_msr_entry {
            index: IA32_PAT,
            ..kvm_msr_entry::default()
        };
        let mut values = Msrs::from_entries(&[pat]).expect("one entry fits");
        self.cpu
            .get_msrs(&mut values)
            .map_err(error)
            .map_err(failed())?;
        Ok(Registers {
            cr3: system.cr3,
            pat: values.as_slice()[0].data,
        })
    }

    fn kick(&self) -> Result<()> {
        if let Some(doorbell) = &self.doorbell {
            rustix::io::write(&doorbell.kick, &1_u64.to_ne_bytes())
                .map_err(|error| FrontEndError::io("kick", error))?;
        }
        Ok(())
    }

    /// The guest sleeps until the device interrupts it.
    fn wait_for_interrupt(&self) -> Result<()> {
        let Some(doorbell) = &self.doorbell else {
            let exit = "it sleeps, and no device could wake it".to_owned();
            return Err(self.stopped(exit));
        };
        let call = doorbell.call.as_fd();
        wait_readable([call], &Deadline::default(), "an interrupt for the guest")?;
        rustix::io::read(call, &mut [0; 8])
            .map_err(|error| FrontEndError::io("take an interrupt", error))?;
        Ok(())
    }

    fn stopped(&self, exit: String) -> MachineError {
        let rip = self.cpu.get_regs().map_or(0, |registers| registers.rip);
        MachineError::Stopped { rip, exit }
    }
}
