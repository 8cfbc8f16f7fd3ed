//! A vhost-user front-end and a virtio-gpu driver in one process, for tests and programs.
//!
//! It drives any vhost-user-gpu daemon over its real socket, the way a VMM and a guest do together:
//!
//! * [`daemon`] starts a daemon process and watches it from outside (status, memory, open files);
//! * [`vhost_user`] speaks the vhost-user protocol, also with values no honest front-end sends;
//! * [`memory`] is the guest's memory: memfds that both processes map;
//! * [`ring`] is the driver's side of a split virtqueue, with raw access for hostile rings;
//! * [`queue`] sends commands over a ring and collects their responses;
//! * [`batch`] is for the order in which many of them are answered;
//! * [`request`] builds the bytes of every virtio-gpu command, [`response`] reads the answers;
//! * [`driver`] is a small virtio-gpu driver on top: one method per command;
//! * [`display`] is the other end of the vhost-user-gpu display socket, with a shadow picture per scanout;
//! * [`shmem`] is the other end of the shared-memory channel: it maps what the daemon asks it to, and
//!   [`memtype`] reads the flags of its requests;
//! * [`cross_domain`] is what a guest says to allocate images on the host;
//! * [`three_d`] is what it says about 3D resources, [`virgl`] what it says to draw into them, and [`venus`]
//!   what it says to use Vulkan;
//! * [`pixels`] holds test pictures and the reference conversion of pixel formats;
//! * [`session`] ties these together: bring-up in QEMU's or crosvm's order of messages.
//! * [`rig`] adds the daemon: what nearly every test needs.
//!
//! Nothing here uses the daemon's own protocol crate: requests are encoded and answers decoded a second
//! time, from the specification, so that a mistake on one side cannot hide on the other.
//! Every wait has a deadline, and the error says what was awaited.

pub mod batch;
pub mod cross_domain;
pub mod daemon;
pub mod display;
pub mod driver;
pub mod error;
pub mod memory;
pub mod memtype;
pub mod message;
pub mod pixels;
pub mod process;
pub mod queue;
pub mod request;
pub mod response;
pub mod rig;
pub mod ring;
pub mod session;
pub mod shmem;
pub mod three_d;
pub mod venus;
pub mod vhost_user;
pub mod virgl;

pub use cross_domain::{ImageContext, ImageInfo, ImageRequest};
pub use daemon::Daemon;
pub use display::{DisplayConfig, DisplayServer};
pub use driver::Gpu;
pub use error::{Deadline, Error, Result, patience, set_patience};
pub use memory::{GuestRam, Span};
pub use queue::{ChainShape, CommandQueue};
pub use request::Rect;
pub use response::Response;
pub use rig::Rig;
pub use ring::SplitRing;
pub use session::{Profile, Session, SessionOptions};
pub use shmem::{Ack, ShmemServer};
pub use vhost_user::VhostUser;
