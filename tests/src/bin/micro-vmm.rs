//! The reference VMM as a program, for a guest that has a KVM of its own: maps blobs of several
//! kinds for a bare-metal guest, then one that the guest allocates from the daemon, and tells what
//! both of them see.
//!
//! It is what the lab's task `program` runs: events on standard output, orders on standard input. While a blob is mapped it keeps reading it, so that whoever looks at the processor's page
//! tables finds them.

#![allow(
    clippy::arithmetic_side_effects,
    reason = "test code: an overflow here is a bug of the test and may stop it"
)]

use std::fs::File;
use std::io::{BufRead, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::mpsc::{Receiver, TryRecvError, channel};

use drm::Device as _;
use kvm_ioctls::Kvm;
use nosnoop_guest::wire::{DAEMON, Event, NestedBlob, Order as HostOrder};
use nosnoop_tests::frontend::memory::PAGE;
use nosnoop_tests::frontend::memtype::{Cache, NONCOHERENT, WRITABLE};
use nosnoop_tests::frontend::response::resp;
use nosnoop_tests::frontend::{Daemon, ImageRequest, request};
use nosnoop_tests::vmm::by_hand::{ByHand, Bytes};
use nosnoop_tests::vmm::guest::{Answer, Order, Pattern};
use nosnoop_tests::vmm::host;
use nosnoop_tests::vmm::machine::Machine;
use nosnoop_tests::vmm::micro::MicroVm;
use nosnoop_tests::vmm::probe::Support;
use nosnoop_tests::vmm::sys::Reservation;
use nosnoop_tests::vmm::tables::PatType;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Bytes of each blob: 16 rows of 1024 pixels.
const BLOB: u64 = 16 * PAGE;
const WORDS: u64 = BLOB / 8;
/// Where the guest maps blobs.
const ADDRESS: u64 = 1 << 39;
/// Where they go in the region.
const OFFSET: u64 = 1 << 30;

/// The card node of vgem.
const VGEM: &str = "/dev/dri/card0";

/// The blob's resource there.
const RESOURCE: u32 = 10;

const HOSTS: Pattern = Pattern {
    first: 0x0123_4567_89ab_cdef,
    step: 0x1_0001,
};
const GUESTS: Pattern = Pattern {
    first: 0xfedc_ba98_7654_3210,
    step: 0x1_0000_0003,
};

/// Memory for a blob: a descriptor, and where the blob begins in it.
struct Source {
    name: &'static str,
    file: OwnedFd,
    file_offset: u64,
}

/// Plain memory, which is cached.
fn memfd() -> Outcome<Source> {
    let file = memfd_create("blob", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&file, BLOB)?;
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW)?;
    Ok(Source {
        name: "memfd",
        file,
        file_offset: 0,
    })
}

struct Card(File);

impl AsFd for Card {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl drm::Device for Card {}

/// A buffer of vgem, the kernel's graphics driver without hardware, which maps write-combining.
fn vgem() -> Outcome<Source> {
    let file = File::options().read(true).write(true).open(VGEM)?;
    let card = Card(file);
    let driver = card.get_driver()?.name().to_string_lossy().into_owned();
    if driver != "vgem" {
        return Err(format!("{VGEM} is {driver}'s, not vgem's").into());
    }
    let rows = u32::try_from(BLOB / PAGE)?;
    let buffer = drm_ffi::mode::dumbbuffer::create(card.as_fd(), 1024, rows, 32, 0)?;
    let map = drm_ffi::mode::dumbbuffer::map(card.as_fd(), buffer.handle, 0, 0)?;
    Ok(Source {
        name: "vgem",
        // The buffer lives as long as this open file.
        file: card.0.into(),
        file_offset: map.offset,
    })
}

fn tell(event: &Event) -> Outcome<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(event.to_line()?.as_bytes())?;
    Ok(out.flush()?)
}

/// Maps a blob by hand as this type, and has the guest do so.
fn show(
    vm: &mut ByHand,
    orders: &Receiver<HostOrder>,
    source: &Source,
    cache: Cache,
) -> Outcome<()> {
    let flags = match cache {
        Cache::Cached => WRITABLE | cache.flags(),
        _ => WRITABLE | cache.flags() | NONCOHERENT,
    };
    let code = vm.map(bytes(source), flags)?;
    if code != 0 {
        let why = vm.channel.refusals();
        return Err(format!("mapping {}: code {code}: {why:?}", source.name).into());
    }
    let map_info = cache as u32;
    if vm.guest_maps(OFFSET, BLOB, ADDRESS, map_info)? == Answer::BadMapInfo {
        return Err(format!("the guest knows no map_info {map_info}").into());
    }
    let window = vm.channel.window().reservation().clone();
    compare(&mut vm.machine, &window, orders, source.name, map_info)?;
    match vm.unmap(OFFSET, BLOB)? {
        0 => Ok(()),
        code => Err(format!("unmapping: code {code}").into()),
    }
}

/// Runs the daemon with these options, and has the guest allocate and map a blob there by itself.
fn show_daemon(
    kvm: &Kvm,
    support: Support,
    orders: &Receiver<HostOrder>,
    name: &str,
    options: &[&str],
) -> Outcome<()> {
    let mut command = Command::new(DAEMON);
    command.args(options);
    let mut daemon = Daemon::start_command(command, &["--socket-path"])?;
    let mut vm = MicroVm::connect(daemon.socket(), kvm, support)?;
    if !vm.is_extended() {
        return Err("the daemon does not offer the memory-type extension".into());
    }
    vm.machine.set_pat()?;
    vm.image_blob(
        RESOURCE,
        ImageRequest::xrgb(1024, u32::try_from(BLOB / PAGE)?),
    )?;
    let answer = vm.map_blob(RESOURCE, OFFSET, ADDRESS, BLOB / PAGE)?;
    if options.contains(&"--vmm-memtype=ignored") {
        // The operator's word stands against the VMM's: nothing but cached memory.
        if answer.kind() != resp::ERR_UNSPEC {
            return Err(format!("{name}: {answer:?} instead of a refusal").into());
        }
    } else {
        let map_info = answer
            .expect("RESOURCE_MAP_BLOB", resp::OK_MAP_INFO)?
            .map_info();
        let window = vm.channel.window().reservation().clone();
        compare(&mut vm.machine, &window, orders, name, map_info)?;
        vm.command("RESOURCE_UNMAP_BLOB", &request::unmap_blob(RESOURCE))?;
    }
    vm.command("RESOURCE_UNREF", &request::unref(RESOURCE))?;
    let status = daemon.terminate()?;
    match status.success() && vm.channel.refusals().is_empty() {
        true => Ok(()),
        false => Err(format!("the daemon ended with {status}: {}", daemon.stderr()).into()),
    }
}

/// Compares what guest and VMM see of the blob that both have mapped, tells it, and waits.
fn compare(
    machine: &mut Machine,
    window: &Reservation,
    orders: &Receiver<HostOrder>,
    source: &str,
    map_info: u32,
) -> Outcome<()> {
    // The guest comes first, by stores that no KVM can do in its place: the pages have to be
    // writable by now, without this program having written to them.
    machine.done(Order::FillMovq(ADDRESS, WORDS, GUESTS))?;
    let seen = window.read(OFFSET, usize::try_from(BLOB)?)?;
    let expected = GUESTS.bytes(WORDS);
    let words = seen.chunks(8).zip(expected.chunks(8));
    let host_wrong = words.filter(|(seen, expected)| seen != expected).count();
    window.write(OFFSET, &HOSTS.bytes(WORDS))?;
    let [guest_wrong, _] = machine.check(ADDRESS, WORDS, HOSTS)?;
    let page = machine.page(ADDRESS)?.ok_or("the guest maps nothing")?;
    tell(&Event::Nested {
        blob: NestedBlob {
            source: source.to_owned(),
            map_info,
            address: window.address() + OFFSET,
            size: BLOB,
            guest_type: page
                .memory_type
                .map_or("reserved", PatType::name)
                .to_owned(),
            wrong: guest_wrong + u64::try_from(host_wrong)?,
        },
    })?;
    let order = loop {
        window.read(OFFSET, usize::try_from(BLOB)?)?;
        match orders.try_recv() {
            Ok(order) => break order,
            Err(TryRecvError::Empty) => {}
            Err(error) => return Err(error.into()),
        }
    };
    match order {
        HostOrder::Continue => Ok(()),
        other => Err(format!("the host ends early: {}", other.word()).into()),
    }
}

fn bytes(source: &Source) -> Bytes<'_> {
    Bytes {
        file: source.file.as_fd(),
        file_offset: source.file_offset,
        offset: OFFSET,
        len: BLOB,
    }
}

/// What is refused as long as nobody vouches for the hypervisor below.
fn refusals(kvm: &Kvm) -> Outcome<Vec<String>> {
    let support = Support::new(&host::ask(kvm, Path::new("/"), false)?);
    let vm = ByHand::new(kvm, support)?;
    for source in [memfd()?, vgem()?] {
        vm.map(bytes(&source), WRITABLE | Cache::WriteCombining.flags())?;
    }
    let mapped = vm.channel.window().mapped();
    if !mapped.is_empty() {
        return Err(format!("mapped without anybody's word: {mapped:x?}").into());
    }
    Ok(vm.channel.refusals().into_iter().map(|r| r.why).collect())
}

fn run() -> Outcome<()> {
    let (sender, orders) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let order = line.ok().and_then(|line| HostOrder::from_line(&line));
            if order.is_none_or(|order| sender.send(order).is_err()) {
                return;
            }
        }
    });
    let kvm = Kvm::new()?;
    let answers = host::ask(&kvm, Path::new("/"), true)?;
    tell(&Event::Kvm {
        answers: format!("{answers:?}"),
        refusals: refusals(&kvm)?,
    })?;
    let support = Support::new(&answers);
    let mut vm = ByHand::new(&kvm, support)?;
    vm.machine.set_pat()?;
    for (source, cache) in [
        (vgem()?, Cache::WriteCombining),
        (memfd()?, Cache::Cached),
        // A daemon that is mistaken about its memory: two types for one page.
        (memfd()?, Cache::WriteCombining),
    ] {
        show(&mut vm, &orders, &source, cache)?;
    }
    let node = format!("--render-node={VGEM}");
    let ignored = [&node, "--vmm-memtype=ignored"];
    show_daemon(&kvm, support, &orders, "daemon", &[])?;
    show_daemon(&kvm, support, &orders, "daemon on vgem", &[&node])?;
    let udmabuf = ["--blob-memory=udmabuf"];
    show_daemon(&kvm, support, &orders, "daemon on udmabuf", &udmabuf)?;
    show_daemon(&kvm, support, &orders, "daemon, VMM ignored", &ignored)
}

fn main() -> ExitCode {
    let Err(error) = run() else {
        return ExitCode::SUCCESS;
    };
    let what = format!("micro-vmm: {error}");
    // Without the host nobody hears it.
    let _unheard = tell(&Event::Failed { what });
    ExitCode::FAILURE
}
