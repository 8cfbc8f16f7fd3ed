//! The lines between the guest program and the host.
//!
//! Guest to host: `NOSNOOP ` and one [`Event`] as JSON. Host to guest: one [`Order`] word. Both
//! travel over the second serial port, so that kernel messages on the first cannot cut a line.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub mod agent;
pub mod commands;
pub mod vulkan;

/// What every line of the guest begins with.
pub const PREFIX: &str = "NOSNOOP ";

/// The kernel parameter that names the [`Task`].
pub const TASK_PARAMETER: &str = "nosnoop.task";

/// The kernel parameter that says how many rounds [`Task::Bench`] and [`Task::Blob`] run, and how many
/// GPUs [`Task::Chain`] finds.
pub const ROUNDS_PARAMETER: &str = "nosnoop.rounds";

/// The folder of the initial file system that holds the kernel modules.
pub const MODULE_FOLDER: &str = "/modules";

/// The program that [`Task::Program`] runs.
pub const PROGRAM: &str = "/bin/program";

/// Where [`PROGRAM`] finds the daemon.
pub const DAEMON: &str = "/bin/nosnoop-gpu";

/// The file that names the modules in the order to load them, one a line.
pub const MODULE_LIST: &str = "/modules/list";

/// What the guest does after boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Draws every [`Step`] but [`Step::Idle`] and waits for an order after each.
    Demo,
    /// Sets a mode and waits.
    Idle,
    /// Measures updates and page flips.
    Bench,
    /// Tells what the driver says and draws nothing.
    Info,
    /// Maps images in the host's memory and goes through every [`BlobStep`].
    Blob,
    /// Maps one image on each of several GPUs, one after the other: see [`Event::Gpu`].
    Chain,
    /// Needs no GPU: runs programs and looks at files as the host asks, see [`agent`].
    Agent,
    /// Runs [`PROGRAM`], which tells and waits by itself; needs no GPU.
    Program,
    /// Tells what the driver says and runs programs as the host asks, see [`commands`].
    Commands,
}

impl Task {
    /// All tasks.
    pub const ALL: [Self; 9] = [
        Self::Demo,
        Self::Idle,
        Self::Bench,
        Self::Info,
        Self::Blob,
        Self::Chain,
        Self::Agent,
        Self::Program,
        Self::Commands,
    ];

    /// The name on the kernel command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Demo => "demo",
            Self::Idle => "idle",
            Self::Bench => "bench",
            Self::Info => "info",
            Self::Blob => "blob",
            Self::Chain => "chain",
            Self::Agent => "agent",
            Self::Program => "program",
            Self::Commands => "commands",
        }
    }

    /// The task of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|task| task.name() == name)
    }
}

/// A picture on the screen that the host can check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// A mode is set on a buffer with the first picture.
    Mode,
    /// A page flip to a second buffer.
    Flip,
    /// Areas of the second buffer are drawn anew and declared as damage.
    Damage,
    /// A cursor is shown and moved; the picture below stays.
    Cursor,
    /// Another resolution with another picture.
    Resize,
    /// The idle task's one picture.
    Idle,
}

impl Step {
    /// The name in file names and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mode => "mode",
            Self::Flip => "flip",
            Self::Damage => "damage",
            Self::Cursor => "cursor",
            Self::Resize => "resize",
            Self::Idle => "idle",
        }
    }
}

/// Where the blob task waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BlobStep {
    /// One image is mapped and drawn; the host draws the next picture before the order.
    Drawn,
    /// Many images are mapped at once, each with its own picture.
    Many,
    /// Nothing is mapped.
    Empty,
    /// An image was made, mapped and given back many times; nothing is mapped.
    Looped,
    /// One image is mapped and stays so to the end of the machine.
    Left,
}

/// What the render node says about contexts and blobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenderNode {
    /// Whether contexts can submit.
    pub submissions: bool,
    /// Whether there are blobs.
    pub blobs: bool,
    /// Whether blobs in the host's memory can be mapped.
    pub host_visible: bool,
    /// Whether a context can be made for a capability set.
    pub context_init: bool,
    /// Bit n: capability set n is there.
    pub capsets: u32,
    /// The capability set of cross-domain contexts in hexadecimal digits; empty without it.
    pub cross_domain: String,
}

/// An image of 32-bit pixels in the host's memory that the guest has mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Bytes from row to row.
    pub stride: u32,
    /// Bytes of the blob.
    pub size: u64,
    /// The `map_info` of the description that the blob was made of: how the device says that it is
    /// to be mapped. A program is not told that of the blob itself.
    pub map_info: u32,
    /// Where it begins in the guest program's address space.
    pub address: u64,
    /// The number of the picture in it, see [`pattern`](crate::pattern::pattern).
    pub seed: u32,
}

/// A blob that a small VMM in this guest has mapped for a guest of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NestedBlob {
    /// Where the memory comes from.
    pub source: String,
    /// What the inner guest was told: 1 cached, 2 uncached, 3 write-combining.
    pub map_info: u32,
    /// Where the VMM has it in its address space.
    pub address: u64,
    /// Bytes.
    pub size: u64,
    /// The memory type that the inner guest's own page tables select.
    pub guest_type: String,
    /// Words in which the inner guest and the VMM saw something else than the other has written.
    pub wrong: u64,
}

/// One display mode as the kernel lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mode {
    /// Visible pixels per row.
    pub width: u32,
    /// Visible rows.
    pub height: u32,
    /// Refresh rate in hertz.
    pub refresh: u32,
}

/// What the guest's kernel says about the GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Driver {
    /// Name of the DRM driver.
    pub name: String,
    /// What the driver says it is.
    pub description: String,
    /// Major, minor and patch level of the driver.
    pub version: [i32; 3],
    /// Release of the kernel.
    pub kernel: String,
    /// Name of the first connected connector.
    pub connector: String,
    /// Its modes, the preferred one first.
    pub modes: Vec<Mode>,
    /// Its EDID in hexadecimal digits; empty without one.
    pub edid: String,
    /// The largest cursor in pixels.
    pub cursor: [u64; 2],
    /// The negotiated virtio feature bits, lowest first, as digits 0 and 1.
    pub features: String,
    /// The driver's own list of its features (debugfs), trimmed lines.
    pub debug: Vec<String>,
    /// Kernel log lines that name the driver.
    pub log: Vec<String>,
}

/// One line from the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The program runs; the drivers are not loaded yet.
    Started {
        /// Milliseconds since the kernel started.
        uptime_ms: u64,
    },
    /// The GPU driver is up.
    Driver {
        /// Milliseconds since the kernel started.
        uptime_ms: u64,
        /// What the driver says.
        driver: Box<Driver>,
    },
    /// A picture is complete; the guest waits for an [`Order`].
    Drawn {
        /// Which picture.
        step: Step,
        /// Width of the screen in pixels.
        width: u32,
        /// Height of the screen in pixels.
        height: u32,
        /// The DRM fourcc of the frame buffer.
        fourcc: String,
        /// Bytes per row of the buffer.
        pitch: u32,
        /// Milliseconds since the kernel started.
        uptime_ms: u64,
    },
    /// One measurement.
    Measured {
        /// What was repeated.
        what: String,
        /// How often.
        count: u64,
        /// Nanoseconds for all of them, by the guest's clock.
        nanos: u64,
    },
    /// What the render node can; no order is waited for.
    RenderNode {
        /// What it says.
        node: RenderNode,
    },
    /// A step of the blob task is reached; the guest waits for an [`Order`].
    Images {
        /// Which step.
        step: BlobStep,
        /// What is mapped.
        images: Vec<Image>,
        /// The kernel's list of memory types (debugfs), its lines.
        memory_types: Vec<String>,
        /// Milliseconds since the kernel started.
        uptime_ms: u64,
    },
    /// The chain task is through with a GPU: after [`BlobStep::Drawn`] and an order where its image
    /// could be mapped. No order is waited for.
    Gpu {
        /// The `map_info` with which the device has described the image; absent where it has not.
        described: Option<u32>,
        /// What failed; nothing where the guest has also found what the host has drawn.
        failure: Option<String>,
    },
    /// What a small VMM in this guest has found out about KVM; no order is waited for.
    Kvm {
        /// The answers, for people.
        answers: String,
        /// How each refused request was refused, for people.
        refusals: Vec<String>,
    },
    /// The small VMM has mapped a blob; it keeps the processor busy and waits for an [`Order`].
    Nested {
        /// Which blob.
        blob: NestedBlob,
    },
    /// The program that the host asked for has ended; the guest waits for the next one.
    Ran {
        /// How that went.
        ran: commands::Ran,
    },
    /// The task is complete; the guest waits for an [`Order`].
    Done,
    /// Something failed; the guest powers off.
    Failed {
        /// What failed, and why.
        what: String,
    },
}

/// The value in a line, with or without its end of line; `None` for other lines.
#[must_use]
pub fn from_line<T: DeserializeOwned>(line: &str) -> Option<T> {
    serde_json::from_str(line.trim().strip_prefix(PREFIX)?).ok()
}

/// The line for a value, with its end of line.
///
/// # Errors
/// When the value cannot be written as JSON, which no value of this module is.
pub fn to_line(value: &impl Serialize) -> Result<String, serde_json::Error> {
    Ok(format!("{PREFIX}{}\n", serde_json::to_string(value)?))
}

impl Event {
    /// The event in a line from the guest, without its end of line; `None` for other lines.
    #[must_use]
    pub fn from_line(line: &str) -> Option<Self> {
        from_line(line)
    }

    /// The line for the event, with its end of line.
    ///
    /// # Errors
    /// When the event cannot be written as JSON, which no event of this type is.
    pub fn to_line(&self) -> Result<String, serde_json::Error> {
        to_line(self)
    }
}

/// What the host tells a waiting guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Go on with the next step.
    Continue,
    /// Switch the machine off.
    PowerOff,
    /// Restart the machine.
    Reboot,
}

impl Order {
    /// The word on the line.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Continue => "continue",
            Self::PowerOff => "poweroff",
            Self::Reboot => "reboot",
        }
    }

    /// The order in a line from the host; `None` for anything else.
    #[must_use]
    pub fn from_line(line: &str) -> Option<Self> {
        [Self::Continue, Self::PowerOff, Self::Reboot]
            .into_iter()
            .find(|order| order.word() == line.trim())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_survives_its_line() {
        let event = Event::Drawn {
            step: Step::Flip,
            width: 1280,
            height: 800,
            fourcc: "XR24".into(),
            pitch: 5120,
            uptime_ms: 12,
        };
        let line = event.to_line().unwrap();
        assert!(
            line.starts_with("NOSNOOP {") && line.ends_with("}\n"),
            "{line}"
        );
        assert_eq!(Event::from_line(&line), Some(event));
    }

    #[test]
    fn other_lines_are_no_events() {
        for line in [
            "",
            "[    0.1] Linux",
            "NOSNOOP",
            "NOSNOOP {\"event\":\"drawn\"}",
        ] {
            assert_eq!(Event::from_line(line), None, "{line}");
        }
    }

    #[test]
    fn names_lead_back() {
        for task in Task::ALL {
            assert_eq!(Task::from_name(task.name()), Some(task));
        }
        for order in [Order::Continue, Order::PowerOff, Order::Reboot] {
            assert_eq!(
                Order::from_line(&format!("{}\n", order.word())),
                Some(order)
            );
        }
    }
}
