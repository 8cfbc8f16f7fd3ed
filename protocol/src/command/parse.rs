//! From bytes to [`Command`].

use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::{
    BlobFlags, BlobMem, Box3d, Command, Create3d, Header, MemEntries, Request, Transfer3d,
};
use crate::format::Format;
use crate::geometry::Size;
use crate::ids::{BlobId, CapsetId, ContextId, ResourceId, ScanoutId};
use crate::reply::GpuError;
use crate::wire::{
    VirtioGpuCmdGetEdid, VirtioGpuCmdSubmit, VirtioGpuCtrlHdr, VirtioGpuCtxCreate,
    VirtioGpuCtxResource, VirtioGpuGetCapset, VirtioGpuGetCapsetInfo, VirtioGpuMemEntry,
    VirtioGpuResourceAssignUuid, VirtioGpuResourceAttachBacking, VirtioGpuResourceCreate2d,
    VirtioGpuResourceCreate3d, VirtioGpuResourceCreateBlob, VirtioGpuResourceDetachBacking,
    VirtioGpuResourceFlush, VirtioGpuResourceMapBlob, VirtioGpuResourceUnmapBlob,
    VirtioGpuResourceUnref, VirtioGpuSetScanout, VirtioGpuSetScanoutBlob, VirtioGpuTransferHost3d,
    VirtioGpuTransferToHost2d, VirtioGpuUpdateCursor, cmd,
};

impl<'a> Request<'a> {
    /// Reads one request. Any bytes give an answer; nothing is allocated. Bytes after the request
    /// and unknown bits of the header's `flags` are ignored.
    ///
    /// `command` is an error for
    /// - [`GpuError::Unspec`]: less than the 24 bytes of a header (then `header` is the default),
    ///   unknown command, or fewer bytes than the command and its counts promise;
    /// - [`GpuError::InvalidResourceId`], [`GpuError::InvalidContextId`]: 0 where one is needed;
    /// - [`GpuError::InvalidScanoutId`]: [`crate::MAX_SCANOUTS`] or more;
    /// - [`GpuError::InvalidParameter`]: unknown format, blob memory or blob flag, or a ring
    ///   above 63.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Self {
        let Ok((raw, _)) = VirtioGpuCtrlHdr::ref_from_prefix(bytes) else {
            return Self {
                header: Header::default(),
                command: Err(GpuError::Unspec),
            };
        };
        let header = Header { raw: *raw };
        let command = if header.has_bad_ring() {
            Err(GpuError::InvalidParameter)
        } else {
            Command::parse(&header, bytes)
        };
        Self { header, command }
    }
}

impl<'a> Command<'a> {
    /// One call per command; `bytes` begin with the header.
    fn parse(header: &Header, bytes: &'a [u8]) -> Result<Self, GpuError> {
        match header.command_type() {
            cmd::GET_DISPLAY_INFO => Ok(Self::GetDisplayInfo),
            cmd::GET_EDID => get_edid(bytes),
            cmd::RESOURCE_CREATE_2D => resource_create_2d(bytes),
            cmd::RESOURCE_UNREF => resource_unref(bytes),
            cmd::SET_SCANOUT => set_scanout(bytes),
            cmd::RESOURCE_FLUSH => resource_flush(bytes),
            cmd::TRANSFER_TO_HOST_2D => transfer_to_host_2d(bytes),
            cmd::RESOURCE_ATTACH_BACKING => resource_attach_backing(bytes),
            cmd::RESOURCE_DETACH_BACKING => resource_detach_backing(bytes),
            cmd::GET_CAPSET_INFO => get_capset_info(bytes),
            cmd::GET_CAPSET => get_capset(bytes),
            cmd::RESOURCE_ASSIGN_UUID => resource_assign_uuid(bytes),
            cmd::RESOURCE_CREATE_BLOB => resource_create_blob(header, bytes),
            cmd::SET_SCANOUT_BLOB => set_scanout_blob(bytes),
            cmd::CTX_CREATE => ctx_create(header, bytes),
            cmd::CTX_DESTROY => Ok(Self::CtxDestroy {
                context: context(header)?,
            }),
            cmd::CTX_ATTACH_RESOURCE => ctx_resource(header, bytes)
                .map(|(context, resource)| Self::CtxAttachResource { context, resource }),
            cmd::CTX_DETACH_RESOURCE => ctx_resource(header, bytes)
                .map(|(context, resource)| Self::CtxDetachResource { context, resource }),
            cmd::RESOURCE_CREATE_3D => resource_create_3d(bytes),
            cmd::TRANSFER_TO_HOST_3D => transfer_3d(header, bytes).map(Self::TransferToHost3d),
            cmd::TRANSFER_FROM_HOST_3D => transfer_3d(header, bytes).map(Self::TransferFromHost3d),
            cmd::SUBMIT_3D => submit_3d(header, bytes),
            cmd::RESOURCE_MAP_BLOB => resource_map_blob(bytes),
            cmd::RESOURCE_UNMAP_BLOB => resource_unmap_blob(bytes),
            cmd::UPDATE_CURSOR => update_cursor(bytes),
            cmd::MOVE_CURSOR => move_cursor(bytes),
            _ => Err(GpuError::Unspec),
        }
    }
}

/// The fixed part of a request, and the bytes after it.
fn read<T: FromBytes + KnownLayout + Immutable>(bytes: &[u8]) -> Result<(&T, &[u8]), GpuError> {
    T::ref_from_prefix(bytes).map_err(|_| GpuError::Unspec)
}

fn resource(raw: impl Into<u32>) -> Result<ResourceId, GpuError> {
    ResourceId::new(raw.into()).ok_or(GpuError::InvalidResourceId)
}

fn scanout(raw: impl Into<u32>) -> Result<ScanoutId, GpuError> {
    ScanoutId::new(raw.into()).ok_or(GpuError::InvalidScanoutId)
}

fn context(header: &Header) -> Result<ContextId, GpuError> {
    header.context().ok_or(GpuError::InvalidContextId)
}

fn format(raw: impl Into<u32>) -> Result<Format, GpuError> {
    Format::from_wire(raw.into()).ok_or(GpuError::InvalidParameter)
}

/// A view of `count` entries at the start of `bytes`; the multiplication is checked by zerocopy.
fn mem_entries(bytes: &[u8], count: impl Into<u32>) -> Result<MemEntries<'_>, GpuError> {
    let count = usize::try_from(count.into()).map_err(|_| GpuError::Unspec)?;
    let (entries, _) = <[VirtioGpuMemEntry]>::ref_from_prefix_with_elems(bytes, count)
        .map_err(|_| GpuError::Unspec)?;
    Ok(MemEntries(entries))
}

fn get_edid(bytes: &[u8]) -> Result<Command<'_>, GpuError> {
    let (raw, _) = read::<VirtioGpuCmdGetEdid>(bytes)?;
    Ok(Command::GetEdid {
        scanout: scanout(raw.scanout)?,
    })
}

fn resource_create_2d(bytes: &[u8]) -> Result<Command<'_>, GpuError> {
    let (raw, _) = read::<VirtioGpuResourceCreate2d>(bytes)?;
    Ok(Command::ResourceCreate2d {
        resource: resource(raw.resource_id)?,
        format: format(raw.format)?,
        size: Size::new(raw.width.get(), raw.height.get()),
    })
}

fn resource_unref(bytes: &[u8]) -> Result<Command<'_>, GpuError> {
    let (raw, _) = read::<VirtioGpuResourceUnref>(bytes)?;
    Ok(Command::ResourceUnref {
        resource: resource(raw.resource_id)?,
    })
}

fn set_scanout(bytes: &[u8]) -> Result<Command<'_>, GpuError> {
    let (raw, _) = read::<VirtioGpuSetScanout>(bytes)?;
    Ok(Command::SetScanout {
        scanout: scanout(raw.scanout_id)?,
        rect: raw.r.into(),
        resource: ResourceId::new(raw.resource_id.get()),
    })
}

fn resource_flush(bytes: &[u8]) -> Result<Command<'_>, GpuError> {
    let (raw, _) = read::<VirtioGpuResourceFlush>(bytes)?;
    Ok(Command::ResourceFlush {
        resource: resource(raw.resource_id)?,
        rect: raw.r.into(),
    })
}

fn transfer_to_host_2d(bytes: &[u8]) -> Result<Command<'_>, GpuError> {
    let (raw, _) = read::<VirtioGpuTransferToHost2d>(bytes)?;
    Ok(Command::TransferToHost2d {
        resource: resource(raw.resource_id)?,
        rect: raw.r.into(),
        offset: raw.offset.get(),
    })
}

fn resource_attach_backing(bytes: &[u8]) -> Result<Command<'_>, GpuError> {
    let (raw, rest) = read::<VirtioGpuResourceAttachBacking>(bytes)?;
    Ok(Command::ResourceAttachBacking {
        resource: resource(raw.resource_id)?,
        entries: mem_entries(rest, raw.nr_entries)?,
    })
}

fn resource_detach_backing(bytes: &[u8]) -> Result<Command<'_>, GpuError> {
    let (raw, _) = read::<VirtioGpuResourceDetachBacking>(bytes)?;
    Ok(Command::ResourceDetachBacking {
        resource: resource(raw.resource_id)?,
    })
}

fn get_capset_info(bytes: &[u8]) -> Result<Command<'_>, GpuError> {
    let (raw, _) = read::<VirtioGpuGetCapsetInfo>(bytes)?;
    Ok(Command::GetCapsetInfo {
        index: raw.capset_index.get(),
    })
}

fn get_capset(bytes: &[u8]) -> Result<Command<'_>, GpuError> {
    let (raw, _) = read::<VirtioGpuGetCapset>(bytes)?;
    Ok(Command::GetCapset {
        id: CapsetId(raw.capset_id.get()),
        version: raw.capset_version.get(),
    })
}

fn resource_assign_uuid(bytes: &[u8]) -> Result<Command<'_>, GpuError> {
    let (raw, _) = read::<VirtioGpuResourceAssignUuid>(bytes)?;
    Ok(Command::ResourceAssignUuid {
        resource: resource(raw.resource_id)?,
    })
}

fn resource_create_blob<'a>(header: &Header, bytes: &'a [u8]) -> Result<Command<'a>, GpuError> {
    let (raw, rest) = read::<VirtioGpuResourceCreateBlob>(bytes)?;
    Ok(Command::ResourceCreateBlob {
        resource: resource(raw.resource_id)?,
        context: header.context(),
        blob_id: BlobId(raw.blob_id.get()),
        mem: BlobMem::from_wire(raw.blob_mem.get()).ok_or(GpuError::InvalidParameter)?,
        flags: BlobFlags::from_bits(raw.blob_flags.get()).ok_or(GpuError::InvalidParameter)?,
        size: raw.size.get(),
        entries: mem_entries(rest, raw.nr_entries)?,
    })
}

fn set_scanout_blob(bytes: &[u8]) -> Result<Command<'_>, GpuError> {
    let (raw, _) = read::<VirtioGpuSetScanoutBlob>(bytes)?;
    let scanout = scanout(raw.scanout_id)?;
    let resource = ResourceId::new(raw.resource_id.get());
    let format = match (format(raw.format), resource) {
        // A scanout that shows nothing has no format.
        (Err(_), None) => Format::B8g8r8x8,
        (format, _) => format?,
    };
    // Only single-plane formats exist here: plane 0 is all of the picture.
    let ([stride, ..], [offset, ..]) = (raw.strides, raw.offsets);
    Ok(Command::SetScanoutBlob {
        scanout,
        rect: raw.r.into(),
        resource,
        size: Size::new(raw.width.get(), raw.height.get()),
        format,
        stride: stride.get(),
        offset: offset.get(),
    })
}

fn ctx_create<'a>(header: &Header, bytes: &'a [u8]) -> Result<Command<'a>, GpuError> {
    let (raw, _) = read::<VirtioGpuCtxCreate>(bytes)?;
    // A longer name than the field holds is cut, as Linux' strscpy on the other side does.
    let name = usize::try_from(raw.nlen.get())
        .ok()
        .and_then(|length| raw.debug_name.get(..length))
        .unwrap_or(&raw.debug_name);
    Ok(Command::CtxCreate {
        context: context(header)?,
        context_init: raw.context_init.get(),
        name,
    })
}

fn ctx_resource(header: &Header, bytes: &[u8]) -> Result<(ContextId, ResourceId), GpuError> {
    let (raw, _) = read::<VirtioGpuCtxResource>(bytes)?;
    Ok((context(header)?, resource(raw.resource_id)?))
}

fn resource_create_3d(bytes: &[u8]) -> Result<Command<'_>, GpuError> {
    let (raw, _) = read::<VirtioGpuResourceCreate3d>(bytes)?;
    Ok(Command::ResourceCreate3d(Create3d {
        resource: resource(raw.resource_id)?,
        target: raw.target.get(),
        format: raw.format.get(),
        bind: raw.bind.get(),
        width: raw.width.get(),
        height: raw.height.get(),
        depth: raw.depth.get(),
        array_size: raw.array_size.get(),
        last_level: raw.last_level.get(),
        nr_samples: raw.nr_samples.get(),
        flags: raw.flags.get(),
    }))
}

fn transfer_3d(header: &Header, bytes: &[u8]) -> Result<Transfer3d, GpuError> {
    let (raw, _) = read::<VirtioGpuTransferHost3d>(bytes)?;
    Ok(Transfer3d {
        resource: resource(raw.resource_id)?,
        context: header.context(),
        region: Box3d {
            x: raw.r#box.x.get(),
            y: raw.r#box.y.get(),
            z: raw.r#box.z.get(),
            width: raw.r#box.w.get(),
            height: raw.r#box.h.get(),
            depth: raw.r#box.d.get(),
        },
        offset: raw.offset.get(),
        level: raw.level.get(),
        stride: raw.stride.get(),
        layer_stride: raw.layer_stride.get(),
    })
}

fn submit_3d<'a>(header: &Header, bytes: &'a [u8]) -> Result<Command<'a>, GpuError> {
    let (raw, rest) = read::<VirtioGpuCmdSubmit>(bytes)?;
    let data = usize::try_from(raw.size.get())
        .ok()
        .and_then(|size| rest.get(..size))
        .ok_or(GpuError::Unspec)?;
    Ok(Command::Submit3d {
        context: context(header)?,
        data,
    })
}

fn resource_map_blob(bytes: &[u8]) -> Result<Command<'_>, GpuError> {
    let (raw, _) = read::<VirtioGpuResourceMapBlob>(bytes)?;
    Ok(Command::ResourceMapBlob {
        resource: resource(raw.resource_id)?,
        offset: raw.offset.get(),
    })
}

fn resource_unmap_blob(bytes: &[u8]) -> Result<Command<'_>, GpuError> {
    let (raw, _) = read::<VirtioGpuResourceUnmapBlob>(bytes)?;
    Ok(Command::ResourceUnmapBlob {
        resource: resource(raw.resource_id)?,
    })
}

fn update_cursor(bytes: &[u8]) -> Result<Command<'_>, GpuError> {
    let (raw, _) = read::<VirtioGpuUpdateCursor>(bytes)?;
    Ok(Command::UpdateCursor {
        scanout: scanout(raw.pos.scanout_id)?,
        x: raw.pos.x.get(),
        y: raw.pos.y.get(),
        resource: ResourceId::new(raw.resource_id.get()),
        hot_x: raw.hot_x.get(),
        hot_y: raw.hot_y.get(),
    })
}

fn move_cursor(bytes: &[u8]) -> Result<Command<'_>, GpuError> {
    let (raw, _) = read::<VirtioGpuUpdateCursor>(bytes)?;
    Ok(Command::MoveCursor {
        scanout: scanout(raw.pos.scanout_id)?,
        x: raw.pos.x.get(),
        y: raw.pos.y.get(),
    })
}
