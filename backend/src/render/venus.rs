//! The few words of Vulkan in Venus's encoding that show whether a driver answers.
//!
//! A stream of commands is made of little-endian words without padding: a command's number, its flags,
//! then its parameters in order. A pointer is 64 bits, 0 for null, else what it points to follows; an
//! array is its length in 64 bits and its elements; a handle is a number that the sender chooses. An
//! answer repeats the number, then has the result, and what the command writes in the same encoding; it
//! goes to shared memory that the stream names first.
//!
//! Source: `VK_MESA_venus_protocol`, as in virglrenderer's `src/venus/venus-protocol`
//! (`vn_protocol_renderer_{defines,instance,device,transport}.h`).

use std::os::fd::OwnedFd;

use nosnoop_protocol::command::BlobFlags;
use nosnoop_protocol::ids::{BlobId, ContextId, ResourceId};
use zerocopy::IntoBytes;

use super::thread::RenderThread;
use super::{BlobRequest, ExportedBlob, HandleKind};

/// `VkCommandTypeEXT`.
mod command {
    pub(super) const CREATE_INSTANCE: u32 = 0;
    pub(super) const ENUMERATE_PHYSICAL_DEVICES: u32 = 2;
    pub(super) const SET_REPLY_COMMAND_STREAM: u32 = 178;
}

/// `VK_COMMAND_GENERATE_REPLY_BIT_EXT`.
const GENERATE_REPLY: u32 = 1;

/// `VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO`.
const INSTANCE_CREATE_INFO: u32 = 1;

/// `VK_SUCCESS`.
const SUCCESS: i32 = 0;

/// `VK_ERROR_INCOMPATIBLE_DRIVER`: what Vulkan's loader says without a driver.
const INCOMPATIBLE_DRIVER: i32 = -9;

/// What our instance is called.
const INSTANCE: u64 = 1;

/// Bytes for an answer; it takes a few dozen.
const REPLY_BYTES: u64 = 4096;

/// Where an answer has the result, and where what a pointer leads to begins.
const RESULT: u64 = 4;
const POINTED_TO: u64 = 16;

/// A stream of commands.
#[derive(Default)]
struct Stream(Vec<u8>);

impl Stream {
    fn command(number: u32, flags: u32) -> Self {
        Self::default().word(number).word(flags)
    }

    fn word(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn long(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn null(self) -> Self {
        self.long(0)
    }

    fn pointer(self) -> Self {
        self.long(1)
    }

    /// Answers go to the beginning of this resource from here on.
    fn answers_go_to(resource: ResourceId) -> Self {
        Self::command(command::SET_REPLY_COMMAND_STREAM, 0)
            .pointer()
            .word(resource.get())
            .long(0)
            .long(REPLY_BYTES)
    }

    /// An instance without application, layers and extensions.
    fn create_instance(self) -> Self {
        let Self(command) = Self::command(command::CREATE_INSTANCE, GENERATE_REPLY)
            .pointer()
            .word(INSTANCE_CREATE_INFO)
            .null()
            .word(0)
            .null()
            .word(0)
            .null()
            .word(0)
            .null()
            // No allocator.
            .null()
            .pointer()
            .long(INSTANCE);
        self.and(&command)
    }

    /// How many physical devices there are.
    fn count_devices(self) -> Self {
        let Self(command) = Self::command(command::ENUMERATE_PHYSICAL_DEVICES, GENERATE_REPLY)
            .long(INSTANCE)
            .pointer()
            .word(0)
            .null();
        self.and(&command)
    }

    fn and(mut self, command: &[u8]) -> Self {
        self.0.extend_from_slice(command);
        self
    }
}

/// How many devices Vulkan has, asked in a context of Venus: at least one. `execute` has a stream
/// executed and waits for it.
///
/// # Errors
/// One line: there is none, or no answer.
pub(super) fn devices(
    thread: &RenderThread,
    context: ContextId,
    execute: &mut dyn FnMut(Vec<u8>) -> Result<(), String>,
) -> Result<u32, String> {
    let resource = ResourceId::new(1).ok_or("there is no such id")?;
    let request = BlobRequest {
        context,
        blob: BlobId(0),
        flags: BlobFlags::MAPPABLE,
        size: REPLY_BYTES,
    };
    let blob = thread.call("RESOURCE_CREATE_BLOB", move |renderer| {
        renderer.create_blob(resource, &request)
    });
    let blob = blob.map_err(|error| format!("no shared memory can be made: {error}"))?;
    let ExportedBlob {
        fd,
        kind: HandleKind::Shm,
        ..
    } = blob
    else {
        return Err("its shared memory is something else".to_owned());
    };
    let asked = ask(&fd, resource, execute);
    thread.post("RESOURCE_UNREF", move |renderer| {
        renderer.destroy_resource(resource);
    });
    asked
}

fn ask(
    reply: &OwnedFd,
    resource: ResourceId,
    execute: &mut dyn FnMut(Vec<u8>) -> Result<(), String>,
) -> Result<u32, String> {
    let answers = || Stream::answers_go_to(resource);
    execute(answers().create_instance().0)?;
    check("vkCreateInstance", command::CREATE_INSTANCE, reply)?;
    execute(answers().count_devices().0)?;
    let what = "vkEnumeratePhysicalDevices";
    check(what, command::ENUMERATE_PHYSICAL_DEVICES, reply)?;
    match word(reply, POINTED_TO)? {
        0 => Err("Vulkan has a driver, but no device".to_owned()),
        count => Ok(count),
    }
}

/// Whether an answer is this command's, and that it succeeded.
fn check(what: &str, number: u32, reply: &OwnedFd) -> Result<(), String> {
    if word(reply, 0)? != number {
        return Err(format!("{what} is not answered"));
    }
    match word(reply, RESULT)?.cast_signed() {
        SUCCESS => Ok(()),
        INCOMPATIBLE_DRIVER => Err(format!(
            "{what} finds no Vulkan driver that works (VK_ERROR_INCOMPATIBLE_DRIVER): install \
             Mesa's, or look at VK_DRIVER_FILES if that is set"
        )),
        error => Err(format!("{what} fails with VkResult {error}")),
    }
}

/// A word of shared memory.
fn word(memory: &OwnedFd, at: u64) -> Result<u32, String> {
    let mut word = 0_u32;
    let read = rustix::io::pread(memory, word.as_mut_bytes(), at);
    read.map_err(|error| format!("the answer cannot be read: {error}"))?;
    Ok(u32::from_le(word))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::FileExt;

    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;

    fn answered(answers: &[&[u32]]) -> Result<u32, String> {
        let memory = memfd_create(c"nosnoop-test", MemfdFlags::CLOEXEC).unwrap();
        let mut file = std::fs::File::from(memory.try_clone().unwrap());
        file.write_all(&[0xff; 64]).unwrap();
        let mut answers = answers.iter();
        let resource = ResourceId::new(7).unwrap();
        ask(&memory, resource, &mut |words| {
            // The stream that says where answers go, to resource 7.
            assert_eq!(
                words[..20],
                [178, 0, 1, 0, 7].map(u32::to_le_bytes).concat()
            );
            let Some(answer) = answers.next() else {
                return Err("executed too much".to_owned());
            };
            let bytes: Vec<_> = answer.iter().flat_map(|word| word.to_le_bytes()).collect();
            file.write_all_at(&bytes, 0).unwrap();
            Ok(())
        })
    }

    #[test]
    fn only_an_instance_with_a_device_will_do() {
        let instance: &[u32] = &[0, 0, 1, 0, 1, 0];
        assert_eq!(answered(&[instance, &[2, 0, 1, 0, 3, 0, 0]]), Ok(3));
        let none = answered(&[instance, &[2, 0, 1, 0, 0, 0, 0]]).unwrap_err();
        assert!(none.contains("no device"), "{none}");
        let loader = answered(&[&[0, (-9_i32).cast_unsigned(), 1, 0, 1, 0]]).unwrap_err();
        assert!(loader.contains("VK_DRIVER_FILES"), "{loader}");
        let other = answered(&[&[0, (-3_i32).cast_unsigned()]]).unwrap_err();
        assert!(other.ends_with("VkResult -3"), "{other}");
        let silent = answered(&[&[]]).unwrap_err();
        assert!(silent.contains("not answered"), "{silent}");
        let silent = answered(&[instance, &[]]).unwrap_err();
        assert!(silent.contains("vkEnumeratePhysicalDevices"), "{silent}");
    }
}
