//! Instance, physical device, device and queue.

use super::context::Venus;
use super::wire::Words;
use super::{cmd, kind};
use crate::frontend::error::{Error, Result};
use crate::frontend::session::Session;

/// `VK_API_VERSION_1_3`.
pub const VERSION: u32 = 1 << 22 | 3 << 12;

/// `VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT`.
pub const HOST_COHERENT: u32 = 1 << 1 | 1 << 2;

/// `VK_QUEUE_COMPUTE_BIT`.
const COMPUTE: u32 = 1 << 1;

/// `VK_MAX_MEMORY_TYPES` and `VK_MAX_MEMORY_HEAPS`.
const MEMORY_TYPES: usize = 32;
const MEMORY_HEAPS: usize = 16;

/// At most this many queue families are asked for.
const FAMILIES: usize = 8;

/// Copies an image into memory on the CPU: the one way in which bytes come back in a reply.
const HOST_IMAGE_COPY: &str = "VK_EXT_host_image_copy";

/// A device with one queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The physical device's object.
    pub physical: u64,
    /// The device's object.
    pub id: u64,
    /// The queue's object.
    pub queue: u64,
    /// Which family the queue is of.
    pub family: u32,
    /// `VkMemoryPropertyFlags` by memory type.
    pub memory_types: Vec<u32>,
}

impl Device {
    /// Makes an instance and a device, whose queue has fences on this ring of the context (from 1 to 63).
    ///
    /// # Errors
    /// As [`Venus::call`]; [`Error::Protocol`] where there is no device, or none that can compute.
    pub fn new(session: &mut Session, venus: &mut Venus, ring: u32) -> Result<Self> {
        let instance = venus.create_instance(session)?;
        let physical = venus.physical_device(session, instance)?;
        let memory_types = venus.memory_types(session, physical)?;
        let family = venus.compute_family(session, physical)?;
        let id = venus.create_device(session, physical, family)?;
        let queue = venus.object();
        let bound = (kind::DEVICE_QUEUE_TIMELINE_INFO, Words::new().u32(ring));
        let get = Words::command(cmd::GET_DEVICE_QUEUE_2)
            .u64(id)
            .pointer()
            .structure(kind::DEVICE_QUEUE_INFO_2, &[bound])
            .u32s(&[0, family, 0])
            .pointer()
            .u64(queue);
        venus.call(session, get)?;
        Ok(Device {
            physical,
            id,
            queue,
            family,
            memory_types,
        })
    }

    /// A memory type out of `allowed` (a bit for each) that has all these properties.
    ///
    /// # Errors
    /// [`Error::Protocol`] where there is none.
    pub fn memory_type(&self, allowed: u32, properties: u32) -> Result<u32> {
        let fits = |&at: &u32| {
            let flags = self.memory_types.get(at as usize).copied();
            allowed & (1 << at) != 0 && flags.is_some_and(|flags| flags & properties == properties)
        };
        let none = || Error::Protocol(format!("no memory type with properties {properties:#x}"));
        (0..MEMORY_TYPES as u32).find(fits).ok_or_else(none)
    }
}

impl Venus {
    /// The version of Vulkan (`VK_MAKE_API_VERSION`): the smallest command with a reply.
    ///
    /// # Errors
    /// As [`Venus::call`].
    pub fn version(&mut self, session: &mut Session) -> Result<u32> {
        let command = Words::command(cmd::ENUMERATE_INSTANCE_VERSION).pointer();
        let mut reply = self.call(session, command)?;
        reply.success()?;
        reply.u64()?;
        reply.u32()
    }

    /// Makes an instance of [`VERSION`]; its object.
    ///
    /// # Errors
    /// As [`Venus::done`].
    pub fn create_instance(&mut self, session: &mut Session) -> Result<u64> {
        let instance = self.object();
        let command = Words::command(cmd::CREATE_INSTANCE)
            .pointer()
            .structure(kind::INSTANCE_CREATE_INFO, &[])
            .u32(0)
            .pointer()
            .structure(kind::APPLICATION_INFO, &[])
            .text("nosnoop-tests")
            .u32(0)
            .text("nosnoop")
            .u32(0)
            .u32(VERSION)
            // No layers and no extensions.
            .u32(0)
            .null()
            .u32(0)
            .null()
            .null()
            .pointer()
            .u64(instance);
        self.done(session, command)?;
        Ok(instance)
    }

    /// The first physical device of an instance.
    ///
    /// # Errors
    /// As [`Venus::done`], and where there is none.
    pub fn physical_device(&mut self, session: &mut Session, instance: u64) -> Result<u64> {
        let physical = self.object();
        let command = Words::command(cmd::ENUMERATE_PHYSICAL_DEVICES)
            .u64(instance)
            .pointer()
            .u32(1)
            .objects(&[physical]);
        let mut reply = self.call(session, command)?;
        reply.success()?;
        reply.u64()?;
        match reply.u32()? {
            0 => Err(Error::Protocol("no Vulkan device".to_owned())),
            _ => Ok(physical),
        }
    }

    /// `VkMemoryPropertyFlags` by memory type.
    fn memory_types(&mut self, session: &mut Session, physical: u64) -> Result<Vec<u32>> {
        let command = Words::command(cmd::GET_MEMORY_PROPERTIES)
            .u64(physical)
            .pointer()
            .count(MEMORY_TYPES)
            .count(MEMORY_HEAPS);
        let mut reply = self.call(session, command)?;
        reply.u64()?;
        let count = reply.u32()? as usize;
        reply.u64()?;
        let flags = (0..MEMORY_TYPES).map(|_| {
            let flags = reply.u32()?;
            reply.u32()?;
            Ok(flags)
        });
        let mut flags = flags.collect::<Result<Vec<u32>>>()?;
        flags.truncate(count);
        Ok(flags)
    }

    /// The first queue family that can compute.
    fn compute_family(&mut self, session: &mut Session, physical: u64) -> Result<u32> {
        let command = Words::command(cmd::GET_QUEUE_FAMILY_PROPERTIES)
            .u64(physical)
            .pointer()
            .u32(FAMILIES as u32)
            .count(FAMILIES);
        let mut reply = self.call(session, command)?;
        reply.u64()?;
        reply.u32()?;
        for family in 0..reply.u64()? {
            if reply.u32()? & COMPUTE != 0 {
                return Ok(family as u32);
            }
            // The number of queues, their timestamps' bits and an extent.
            reply.take(4 * 5)?;
        }
        Err(Error::Protocol("no queue that computes".to_owned()))
    }

    /// Makes a device with one queue and copies of images to memory; its object.
    fn create_device(&mut self, session: &mut Session, physical: u64, family: u32) -> Result<u64> {
        let device = self.object();
        let copies = (kind::HOST_IMAGE_COPY_FEATURES, Words::new().u32(1));
        let command = Words::command(cmd::CREATE_DEVICE)
            .u64(physical)
            .pointer()
            .structure(kind::DEVICE_CREATE_INFO, &[copies])
            .u32(0)
            .u32(1)
            .count(1)
            .structure(kind::DEVICE_QUEUE_CREATE_INFO, &[])
            .u32s(&[0, family, 1])
            .count(1)
            .u32(1_f32.to_bits())
            // No layers, one extension, no further features.
            .u32(0)
            .null()
            .u32(1)
            .count(1)
            .text(HOST_IMAGE_COPY)
            .null()
            .null()
            .pointer()
            .u64(device);
        self.done(session, command)?;
        Ok(device)
    }
}
