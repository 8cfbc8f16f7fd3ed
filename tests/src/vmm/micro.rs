//! A daemon, a virtual machine and a guest together: a guest that drives the daemon's control queue
//! and maps blobs with the memory type that it is told.
//!
//! The front-end's side of vhost-user is [`Session`]'s, but for the channel of the daemon's
//! requests, which is this VMM's own. The guest makes descriptors and indices by itself, notifies
//! by an OUT, which this VMM turns into the queue's kick, and sleeps until the daemon's call.
//!
//! A VMM whose guests pass blobs on as backing also tells the daemon of each mapped blob as guest
//! memory, as QEMU does; this guest passes on none.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use kvm_ioctls::Kvm;

use super::by_hand::REGION;
use super::channel::Channel;
use super::guest::{Answer, Order, queue_words};
use super::machine::{Doorbell, Machine, MachineError, Result};
use super::probe::Support;
use super::slots::Window;
use super::sys::Vm;
use crate::frontend::cross_domain::{self, ANSWER, CAPSET, ImageInfo, ImageRequest, MAPPABLE};
use crate::frontend::memory::PAGE;
use crate::frontend::message::{feature, protocol};
use crate::frontend::request::{self, BLOB_MEM_GUEST, CreateBlob};
use crate::frontend::response::{HEADER, MAP_INFO, resp};
use crate::frontend::{Error, Response, Session, SessionOptions, Span};

/// A running guest on a daemon.
#[derive(Debug)]
pub struct MicroVm {
    /// The virtual machine.
    pub machine: Machine,
    /// The channel of the daemon's requests.
    pub channel: Channel<Arc<Vm>>,
    /// The vhost-user connection. The control queue is the guest's.
    pub session: Session,
    queue: u64,
    tables: u64,
}

impl MicroVm {
    /// Connects to a daemon that offers shared memory, and starts the guest. `support` is what the
    /// host's KVM can do; the extension is agreed on where the daemon offers it.
    ///
    /// # Errors
    /// Any step that failed.
    pub fn connect(socket: &Path, kvm: &Kvm, support: Support) -> Result<Self> {
        let mut options = SessionOptions::host_blobs();
        // The guest's driver is a simple one: each request is notified and answered by itself.
        options.features &= !(feature::EVENT_IDX | feature::INDIRECT_DESC);
        options.protocol_features |= protocol::MEMTYPE;
        options.backend_channel = false;
        options.layout = vec![(1 << 20, 64 << 20)];
        let mut session = Session::connect(socket, &options)?;
        let regions = session.vhost.shmem_config()?;
        let [(_, size)] = regions[..] else {
            let what = format!("one shared-memory region is needed, not {regions:?}");
            return Err(Error::Protocol(what).into());
        };
        let ring = session.gpu.control.ring();
        let words = queue_words(ring.parts(), ring.size());
        let duplicate = |fd: std::os::fd::BorrowedFd<'_>| {
            let copy = fd.try_clone_to_owned();
            copy.map_err(|error| Error::io("duplicate an eventfd", error))
        };
        let doorbell = Doorbell {
            kick: duplicate(ring.kick_fd())?,
            call: duplicate(ring.call_fd())?,
        };
        let machine = Machine::new(kvm, &session.ram, support, Some(doorbell))?;
        let slot = machine.first_free_slot();
        let window = Window::new(machine.vm().clone(), REGION, size, slot, support);
        let window = window.map_err(|source| MachineError::Kvm {
            what: "reserving the shared-memory region",
            source,
        })?;
        let extended = session.protocol_features & protocol::MEMTYPE != 0;
        let (channel, socket) = Channel::start(window, extended)?;
        session.vhost.set_backend_req_fd(socket.as_fd())?;
        let queue = session.ram.alloc(8 * words.len())?.addr;
        let bytes = words.map(u64::to_le_bytes).concat();
        session.ram.write(queue, &bytes)?;
        let tables = session.ram.alloc(3 * PAGE as usize)?.addr;
        Ok(Self {
            machine,
            channel,
            session,
            queue,
            tables,
        })
    }

    /// Whether the memory-type extension is in use.
    #[must_use]
    pub fn is_extended(&self) -> bool {
        self.session.protocol_features & protocol::MEMTYPE != 0
    }

    /// Has the guest send a request; gives the answer and where it lies in the guest's memory,
    /// which the caller gives back.
    fn submit(&mut self, bytes: &[u8], room: usize) -> Result<(Response, Span)> {
        let ram = self.session.ram.clone();
        let request = ram.alloc(bytes.len())?;
        ram.write(request.addr, bytes)?;
        let answer = ram.alloc(room)?;
        ram.fill(answer.addr, room, Response::UNTOUCHED)?;
        let order = Order::Submit {
            queue: self.queue,
            request,
            answer,
        };
        let [id, written] = self.machine.done(order)?;
        ram.free(request);
        if id != 0 || written > room as u64 {
            let what = format!("chain {id} completed with {written} bytes in {room}");
            return Err(Error::Ring { ring: 0, what }.into());
        }
        let bytes = ram.read(answer.addr, room)?;
        Ok((Response::new(bytes, written as u32), answer))
    }

    /// Has the guest send a request with room for `room` bytes of answer; an error answer is no
    /// error here.
    ///
    /// # Errors
    /// When the guest or the queue fails.
    pub fn call(&mut self, bytes: &[u8], room: usize) -> Result<Response> {
        let (response, answer) = self.submit(bytes, room)?;
        self.session.ram.free(answer);
        Ok(response)
    }

    /// Has the guest send a request that is answered OK_NODATA.
    ///
    /// # Errors
    /// [`Error::Refused`] for another answer.
    pub fn command(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let response = self.call(bytes, HEADER)?;
        response.expect(name, resp::OK_NODATA)?;
        Ok(())
    }

    /// Has the guest allocate an image on the host, in a cross-domain context of its own with a
    /// query ring: what minigbm does. Context and ring get the numbers of the resource and the one
    /// after.
    ///
    /// # Errors
    /// [`Error::Refused`] for any step, or no answer in the ring.
    pub fn image_blob(&mut self, resource: u32, image: ImageRequest) -> Result<ImageInfo> {
        let (context, ring) = (resource, resource + 1);
        let memory = self.session.ram.alloc(PAGE as usize)?;
        let blob = CreateBlob {
            resource: ring,
            mem: BLOB_MEM_GUEST,
            flags: MAPPABLE,
            count: 1,
            blob_id: 0,
            size: PAGE,
        };
        let attach = request::cmd::CTX_ATTACH_RESOURCE;
        let init = cross_domain::init(ring, 0, 0);
        for (name, bytes) in [
            ("CTX_CREATE", request::ctx_create(context, CAPSET, b"guest")),
            (
                "RESOURCE_CREATE_BLOB",
                request::create_blob(blob, &[memory.into()]),
            ),
            (
                "CTX_ATTACH_RESOURCE",
                request::ctx_resource(attach, context, ring),
            ),
            ("SUBMIT_3D", request::submit_3d(context, &init)),
            ("SUBMIT_3D", request::submit_3d(context, &image.to_bytes())),
        ] {
            self.command(name, &bytes)?;
        }
        let answer = self.session.ram.read(memory.addr, ANSWER)?;
        let info = ImageInfo::from_bytes(&answer);
        let blob_id = u64::from(info.blob_id);
        let create = cross_domain::host_blob(context, resource, blob_id, info.blob_size());
        self.command("RESOURCE_CREATE_BLOB", &create)?;
        Ok(info)
    }

    /// Has the guest map a blob at an offset of the region, and then, if the device has done so,
    /// `pages` pages at `address`, with the type in the device's answer, which the guest itself
    /// reads. Gives the answer.
    ///
    /// # Errors
    /// When the guest fails, or is told a memory type that does not exist.
    pub fn map_blob(
        &mut self,
        resource: u32,
        offset: u64,
        address: u64,
        pages: u64,
    ) -> Result<Response> {
        let map = request::map_blob(resource, offset);
        let (response, answer) = self.submit(&map, MAP_INFO)?;
        if response.kind() == resp::OK_MAP_INFO {
            let order = Order::Map {
                address,
                physical: REGION + offset,
                pages,
                map_info: answer.addr + HEADER as u64,
                tables: self.tables,
            };
            if self.machine.order(order)? == Answer::BadMapInfo {
                let what = format!("map_info {:#x}", response.map_info());
                return Err(Error::Protocol(what).into());
            }
        }
        self.session.ram.free(answer);
        Ok(response)
    }
}
