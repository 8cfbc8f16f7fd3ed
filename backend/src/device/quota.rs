//! What one guest may take of the host.

/// The widest and highest picture that an output shows, in pixels: EDID and drivers know no larger
/// one. Front-ends draw with libraries that know 16 bits of coordinates and end the virtual machine
/// where they cannot make a surface; and one row of it is scratch memory that no quota counts.
pub const MAX_EDGE: u32 = 16_384;

/// Entries of one resource's backing store: 1 GiB in pages of 4 KiB, the largest picture that
/// drivers make (16384 x 16384). An entry takes 24 bytes here, so one resource costs 6 MiB at most.
pub const MAX_BACKING_ENTRIES: usize = 262_144;

/// Entries of all backing stores together: 24 MiB of host memory, and enough for 4 GiB of guest
/// pictures in single pages.
pub const MAX_TOTAL_BACKING_ENTRIES: usize = 4 * MAX_BACKING_ENTRIES;

/// Host memory for pixels unless told otherwise: three 4K outputs with three buffers each.
pub const DEFAULT_HOSTMEM: u64 = 512 << 20;

/// Resources unless told otherwise: desktops use hundreds. One costs about 200 bytes of host
/// memory beside its backing entries and its pixels, which take whole pages: many tiny pictures can
/// cost 64 MiB more than [`Limits::hostmem`] counts.
pub const DEFAULT_RESOURCES: usize = 16_384;

/// Contexts of one device: one per guest process that uses the GPU. One costs some 100 bytes, and
/// its images; see [`MAX_ATTACHMENTS`] for what is attached to them.
pub const MAX_CONTEXTS: usize = 1024;

/// Image descriptions that one context may have got: allocators keep theirs and ask once for each
/// size and format. One costs some 40 bytes.
pub const MAX_IMAGES: usize = 1024;

/// Resources attached to contexts, each counted for each context: a resource is normally in one or
/// two. One costs some 10 bytes.
pub const MAX_ATTACHMENTS: usize = 65_536;

/// Bytes of one `SUBMIT_3D`: a cross-domain command takes 24 and drivers send one at a time. The
/// device serves nobody else meanwhile: some 2700 image requests, less than a millisecond.
pub const MAX_SUBMIT: usize = 64 << 10;

/// Bytes of one `SUBMIT_3D` to the renderer: Mesa's virgl driver sends 256 KiB at most (64 Ki words), and
/// others the same or less; twice that leaves room. The renderer gets a copy.
pub const MAX_RENDER_SUBMIT: usize = 512 << 10;

/// Contexts of the renderer among [`MAX_CONTEXTS`]: each is a GL context of the host's, with some MiB
/// of its own. Desktops have a few dozen.
pub const MAX_RENDERED_CONTEXTS: usize = 256;

/// File descriptors of a Vulkan context: virglrenderer's socket, ours of the same, the memory and the
/// event of its fences. Contexts of OpenGL take fewer.
pub const CONTEXT_DESCRIPTORS: usize = 4;

/// Bytes that are read back from the renderer at a time for a display: a picture of 1920 x 1080, so that
/// most are read before the display's picture is locked. Kept from one to the next, and counted by no
/// quota.
pub const READ_BACK_BYTES: u32 = 8 << 20;

/// Commands on one blob that may wait for the front-end's answer on an earlier one. A driver has one
/// or two; each one's answer is given from within the one before, which bounds the stack.
pub const MAX_WAITING: usize = 16;

/// Descriptors of a host blob: its own, and one for the memory region by which the front-end shares it
/// with us while it is mapped.
pub const HOST_BLOB_DESCRIPTORS: usize = 2;

/// Descriptors of a host blob that a renderer provides: beside those, the library's and the crate's.
pub const RENDERED_BLOB_DESCRIPTORS: usize = HOST_BLOB_DESCRIPTORS + 2;

/// Descriptors of a 3D resource: the crate keeps one where the driver exports memory. Counted everywhere,
/// as nobody says where that is.
pub const RENDERED_DESCRIPTORS: usize = 1;

/// The quotas of one device. A command that would exceed one gets `ERR_OUT_OF_MEMORY`.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of host memory for pixels: 2D resources, 3D resources as far as their size can be told,
    /// host blobs and the pictures of scanouts.
    pub hostmem: u64,
    /// Number of resources of any kind.
    pub resources: usize,
    /// File descriptors: [`HOST_BLOB_DESCRIPTORS`] of each host blob, those counted that are gone and not
    /// yet unmapped, [`RENDERED_BLOB_DESCRIPTORS`] of the renderer's, [`RENDERED_DESCRIPTORS`] of each 3D
    /// resource, and [`CONTEXT_DESCRIPTORS`] of each of the renderer's contexts.
    pub descriptors: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            hostmem: DEFAULT_HOSTMEM,
            resources: DEFAULT_RESOURCES,
            descriptors: HOST_BLOB_DESCRIPTORS.saturating_mul(DEFAULT_RESOURCES),
        }
    }
}
