//! The virtio-gpu driver's own calls for contexts and blobs (include/uapi/drm/virtgpu_drm.h).

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::io::{self, Errno};
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};

use crate::Outcome;
use crate::mapping::Mapping;

/// `VIRTGPU_PARAM_3D_FEATURES`: contexts and submissions are there.
pub(crate) const PARAM_3D: u64 = 1;
/// `VIRTGPU_PARAM_RESOURCE_BLOB`.
pub(crate) const PARAM_BLOB: u64 = 3;
/// `VIRTGPU_PARAM_HOST_VISIBLE`: host blobs can be mapped.
pub(crate) const PARAM_HOST_VISIBLE: u64 = 4;
/// `VIRTGPU_PARAM_CONTEXT_INIT`.
pub(crate) const PARAM_CONTEXT_INIT: u64 = 6;
/// `VIRTGPU_PARAM_SUPPORTED_CAPSET_IDs`, a bit mask.
pub(crate) const PARAM_CAPSETS: u64 = 7;

const CONTEXT_CAPSET: u64 = 1;
const CONTEXT_RINGS: u64 = 2;

/// How often a capability set is asked for. Each time the driver waits five seconds for the host, which
/// may be slower: it may itself be a guest, of an emulated machine.
const CAPS_TRIES: u32 = 6;

const BLOB_FLAG_MAPPABLE: u32 = 1;
const EXECBUF_RING_IDX: u32 = 4;

/// Where a blob's memory is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum BlobMemory {
    /// `VIRTGPU_BLOB_MEM_GUEST`.
    Guest,
    /// `VIRTGPU_BLOB_MEM_HOST3D`, by the id that the context has issued.
    Host(u64),
}

#[repr(C)]
struct Map {
    offset: u64,
    handle: u32,
    pad: u32,
}

#[repr(C)]
struct ExecBuffer {
    flags: u32,
    size: u32,
    command: u64,
    bo_handles: u64,
    num_bo_handles: u32,
    fence_fd: i32,
    ring_idx: u32,
    syncobj_stride: u32,
    num_in_syncobjs: u32,
    num_out_syncobjs: u32,
    in_syncobjs: u64,
    out_syncobjs: u64,
}

#[repr(C)]
struct GetParam {
    param: u64,
    value: u64,
}

#[repr(C)]
struct Wait {
    handle: u32,
    flags: u32,
}

#[repr(C)]
struct GetCaps {
    cap_set_id: u32,
    cap_set_ver: u32,
    addr: u64,
    size: u32,
    pad: u32,
}

#[repr(C)]
struct CreateBlob {
    blob_mem: u32,
    blob_flags: u32,
    bo_handle: u32,
    res_handle: u32,
    size: u64,
    pad: u32,
    cmd_size: u32,
    cmd: u64,
    blob_id: u64,
}

#[repr(C)]
struct ContextInit {
    num_params: u32,
    pad: u32,
    ctx_set_params: u64,
}

/// A call that hands one structure over and back; its number counts from `DRM_COMMAND_BASE`.
macro_rules! driver_call {
    ($name:ident, $number:literal, $request:ty, $size:literal) => {
        const _: () = assert!(size_of::<$request>() == $size, "the kernel's layout");

        fn $name(node: &File, request: &mut $request) -> io::Result<()> {
            const OPCODE: Opcode = opcode::read_write::<$request>(b'd', 0x40 + $number);
            #[expect(unsafe_code, reason = "an ioctl that no crate wraps")]
            // SAFETY: the opcode is the kernel's for exactly this structure, whose size is
            // asserted above; the kernel keeps no pointer to it.
            let call = unsafe { Updater::<OPCODE, _>::new(request) };
            #[expect(unsafe_code, reason = "an ioctl that no crate wraps")]
            // SAFETY: the call changes `request` and what its addresses point to: memory that
            // every caller below holds borrowed as long as the call takes.
            unsafe {
                ioctl(node.as_fd(), call)
            }
        }
    };
}

driver_call!(map, 0x01, Map, 16);
driver_call!(exec_buffer, 0x02, ExecBuffer, 64);
driver_call!(get_param, 0x03, GetParam, 16);
driver_call!(wait, 0x08, Wait, 8);
driver_call!(get_caps, 0x09, GetCaps, 24);
driver_call!(create_blob, 0x0a, CreateBlob, 48);
driver_call!(context_init, 0x0b, ContextInit, 16);

/// The GPU's render node: one context.
#[derive(Debug)]
pub(crate) struct Node(File);

impl Node {
    /// Opens the node; its context is made by [`Node::init`].
    pub(crate) fn open(path: &Path) -> Outcome<Self> {
        let file = File::options().read(true).write(true).open(path);
        Ok(Self(
            file.map_err(|error| format!("{}: {error}", path.display()))?,
        ))
    }

    /// A parameter of the driver; 0 for those it does not know.
    pub(crate) fn param(&self, param: u64) -> i32 {
        let mut value = 0_i32;
        let mut request = GetParam {
            param,
            value: (&raw mut value) as u64,
        };
        match get_param(&self.0, &mut request) {
            Ok(()) => value,
            Err(_) => 0,
        }
    }

    /// The first `size` bytes of a capability set.
    pub(crate) fn caps(&self, set: u32, version: u32, size: u32) -> Outcome<Vec<u8>> {
        let mut bytes = vec![0; size as usize];
        let mut request = GetCaps {
            cap_set_id: set,
            cap_set_ver: version,
            addr: bytes.as_mut_ptr() as u64,
            size,
            pad: 0,
        };
        let mut tries = CAPS_TRIES;
        loop {
            match get_caps(&self.0, &mut request) {
                Ok(()) => return Ok(bytes),
                Err(Errno::BUSY) if tries > 1 => tries -= 1,
                Err(error) => {
                    return Err(format!("capability set {set} version {version}: {error}").into());
                }
            }
        }
    }

    /// Makes the context of a capability set with `rings` rings.
    pub(crate) fn init(&self, set: u32, rings: u32) -> Outcome<()> {
        let parameters = [CONTEXT_CAPSET, set.into(), CONTEXT_RINGS, rings.into()];
        let mut request = ContextInit {
            num_params: 2,
            pad: 0,
            ctx_set_params: parameters.as_ptr() as u64,
        };
        context_init(&self.0, &mut request)
            .map_err(|error| format!("a context of capability set {set}: {error}"))?;
        Ok(())
    }

    /// Submits `command` on ring `ring` and waits until the device has done it; `blob` is what the
    /// device writes to.
    pub(crate) fn submit(&self, command: &[u8], ring: u32, blob: &Blob<'_>) -> Outcome<()> {
        let handles = [blob.handle];
        let mut request = ExecBuffer {
            flags: EXECBUF_RING_IDX,
            size: u32::try_from(command.len())?,
            command: command.as_ptr() as u64,
            bo_handles: handles.as_ptr() as u64,
            num_bo_handles: 1,
            fence_fd: -1,
            ring_idx: ring,
            syncobj_stride: 0,
            num_in_syncobjs: 0,
            num_out_syncobjs: 0,
            in_syncobjs: 0,
            out_syncobjs: 0,
        };
        exec_buffer(&self.0, &mut request).map_err(|error| format!("a submission: {error}"))?;
        let mut request = Wait {
            handle: blob.handle,
            flags: 0,
        };
        wait(&self.0, &mut request).map_err(|error| format!("the end of a submission: {error}"))?;
        Ok(())
    }

    /// Makes a blob of `size` bytes that can be mapped.
    pub(crate) fn blob(&self, memory: BlobMemory, size: u64) -> Outcome<Blob<'_>> {
        let (blob_mem, blob_id) = match memory {
            BlobMemory::Guest => (1, 0),
            BlobMemory::Host(id) => (2, id),
        };
        let mut request = CreateBlob {
            blob_mem,
            blob_flags: BLOB_FLAG_MAPPABLE,
            bo_handle: 0,
            res_handle: 0,
            size,
            pad: 0,
            cmd_size: 0,
            cmd: 0,
            blob_id,
        };
        create_blob(&self.0, &mut request)
            .map_err(|error| format!("a blob of {size} bytes ({memory:?}): {error}"))?;
        Ok(Blob {
            node: self,
            handle: request.bo_handle,
            resource: request.res_handle,
            size,
        })
    }
}

/// A blob; dropping it closes the only handle to it.
#[derive(Debug)]
pub(crate) struct Blob<'a> {
    node: &'a Node,
    handle: u32,
    /// The device's id of the resource.
    pub(crate) resource: u32,
    size: u64,
}

impl Blob<'_> {
    /// Maps the whole blob. The mapping keeps the blob's memory also when the blob is dropped.
    pub(crate) fn map(&self) -> Outcome<Mapping> {
        let mut request = Map {
            offset: 0,
            handle: self.handle,
            pad: 0,
        };
        map(&self.node.0, &mut request).map_err(|error| format!("where a blob lies: {error}"))?;
        Mapping::of(&self.node.0, request.offset, self.size)
            .map_err(|error| format!("mapping a blob: {error}").into())
    }
}

impl Drop for Blob<'_> {
    fn drop(&mut self) {
        // A handle that the kernel does not know is gone already.
        let _gone = drm_ffi::gem::close(self.node.0.as_fd(), self.handle);
    }
}
