//! What this program takes the kernel's interface to be, for comparing it with the kernel's headers.

pub use crate::sys::uapi::{Constant, FieldLayout, HEADERS, Header, StructLayout};
