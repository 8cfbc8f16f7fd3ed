//! The kernel's structures and command numbers, as its headers have them: `drm/drm.h`,
//! `drm/drm_mode.h`, `drm/i915_drm.h`, `drm/xe_drm.h`, `drm/amdgpu_drm.h`, `linux/udmabuf.h`.
//!
//! Nothing here is unsafe; [`super::ioctl`] alone hands it to the kernel. Each structure and each
//! number stands in a table too, which a test compares with the headers themselves.

pub(crate) mod amdgpu;
pub(crate) mod drm;
pub(crate) mod i915;
pub(crate) mod udmabuf;
pub(crate) mod xe;

#[cfg(not(target_pointer_width = "64"))]
compile_error!("structures with pointers are laid out here as 64-bit kernels have them");

/// A structure of the kernel's, as this program lays it out.
#[derive(Clone, Copy, Debug)]
pub struct StructLayout {
    /// Its name in the headers, without `struct`.
    pub name: &'static str,
    /// Bytes; `None` where only the beginning of the structure is known here.
    pub size: Option<usize>,
    /// Its fields in order, without those whose name begins with `_`: padding that the headers do
    /// not name.
    pub fields: &'static [FieldLayout],
}

/// A field of a structure.
#[derive(Clone, Copy, Debug)]
pub struct FieldLayout {
    /// Its name in the headers.
    pub name: &'static str,
    /// Where it begins, in bytes from the structure's beginning.
    pub offset: usize,
    /// Bytes.
    pub size: usize,
}

/// A number of the headers: a command, a flag, an index.
#[derive(Clone, Copy, Debug)]
pub struct Constant {
    /// Its name in the headers.
    pub name: &'static str,
    /// What this program takes it to be.
    pub value: u32,
}

/// Structures: `name [size] { field: type, ... }`, or `name [size of ...]` for one of which only the
/// beginning is declared.
macro_rules! structures {
    (@size $size:literal) => { Some($size) };
    (@size $size:literal begins) => { None };
    ($($(#[$doc:meta])* $name:ident [$size:literal $($begins:ident)?] { $($field:ident: $type:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(
                Clone, Copy, Debug, Default,
                zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout,
            )]
            #[repr(C)]
            pub(crate) struct $name {
                $(pub(crate) $field: $type,)*
            }
            const _: () = assert!(size_of::<$name>() == $size);
        )*

        /// The layouts of this header's structures.
        pub(crate) const STRUCTURES: &[super::StructLayout] = &[$(super::StructLayout {
            name: stringify!($name),
            size: $crate::sys::uapi::structures!(@size $size $($begins)?),
            fields: &[$(super::FieldLayout {
                name: stringify!($field),
                offset: std::mem::offset_of!($name, $field),
                size: size_of::<$type>(),
            },)*],
        },)*];
    };
}
pub(crate) use structures;

/// Constants: `NAME = value,`, all `u32`.
macro_rules! constants {
    ($($(#[$doc:meta])* $name:ident = $value:expr,)*) => {
        $($(#[$doc])* pub(crate) const $name: u32 = $value;)*

        /// This header's constants.
        pub(crate) const CONSTANTS: &[super::Constant] = &[$(super::Constant {
            name: stringify!($name),
            value: $name,
        },)*];
    };
}
pub(crate) use constants;

/// One header's part of what is declared here.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// Its path below an include folder.
    pub path: &'static str,
    /// Its structures.
    pub structures: &'static [StructLayout],
    /// Its constants.
    pub constants: &'static [Constant],
}

/// Everything that is declared here, by header.
pub const HEADERS: &[Header] = &[
    Header {
        path: "drm/drm.h",
        structures: drm::STRUCTURES,
        constants: drm::CONSTANTS,
    },
    Header {
        path: "drm/i915_drm.h",
        structures: i915::STRUCTURES,
        constants: i915::CONSTANTS,
    },
    Header {
        path: "drm/xe_drm.h",
        structures: xe::STRUCTURES,
        constants: xe::CONSTANTS,
    },
    Header {
        path: "drm/amdgpu_drm.h",
        structures: amdgpu::STRUCTURES,
        constants: amdgpu::CONSTANTS,
    },
    Header {
        path: "linux/udmabuf.h",
        structures: udmabuf::STRUCTURES,
        constants: udmabuf::CONSTANTS,
    },
];
