//! A compute shader: pipeline, descriptors, and the command buffer that runs it.

use nosnoop_shaders::{BindingKind, Shader};

use super::context::Venus;
use super::instance::Device;
use super::memory::{GENERAL, Image, PICTURE};
use super::wire::Words;
use super::{cmd, kind};
use crate::frontend::error::Result;
use crate::frontend::session::Session;

/// `VK_SHADER_STAGE_COMPUTE_BIT`.
const COMPUTE_STAGE: u32 = 1 << 5;
/// `VK_PIPELINE_BIND_POINT_COMPUTE`.
const COMPUTE_POINT: u32 = 1;
/// `VK_PIPELINE_STAGE_ALL_COMMANDS_BIT` and `VK_PIPELINE_STAGE_HOST_BIT`.
const ALL_COMMANDS: u32 = 1 << 16;
const HOST: u32 = 1 << 14;
/// `VK_ACCESS_MEMORY_READ_BIT | VK_ACCESS_MEMORY_WRITE_BIT`.
const ALL_MEMORY: u32 = 1 << 15 | 1 << 16;
/// `VK_QUEUE_FAMILY_IGNORED`.
const IGNORED: u32 = u32::MAX;

/// `VkDescriptorType` of a binding.
fn descriptor(kind: BindingKind) -> u32 {
    match kind {
        BindingKind::Uniform => 6,
        BindingKind::StorageRead | BindingKind::StorageReadWrite => 7,
    }
}

/// A shader that is ready to run on certain buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    pipeline: u64,
    layout: u64,
    set: u64,
}

impl Kernel {
    /// Compiles a shader and gives it these buffers, by rising binding number: object and bytes.
    ///
    /// # Errors
    /// As [`Venus::done`].
    pub fn new(
        session: &mut Session,
        venus: &mut Venus,
        device: &Device,
        shader: &Shader,
        buffers: &[(u64, u64)],
    ) -> Result<Self> {
        let set_layout = venus.set_layout(session, device, shader)?;
        let layout = venus.pipeline_layout(session, device, set_layout)?;
        let pipeline = venus.pipeline(session, device, shader, layout)?;
        let set = venus.descriptor_set(session, device, shader, set_layout)?;
        let bound = shader.bindings.iter().zip(buffers);
        for (binding, &(buffer, bytes)) in bound {
            let command = Words::command(cmd::UPDATE_DESCRIPTOR_SETS)
                .u64(device.id)
                .u32(1)
                .count(1)
                .structure(kind::WRITE_DESCRIPTOR_SET, &[])
                .u64(set)
                .u32s(&[binding.binding, 0, 1, descriptor(binding.kind)])
                .null()
                .count(1)
                .u64(buffer)
                .u64(0)
                .u64(bytes)
                .null()
                .u32(0)
                .null();
            venus.call(session, command)?;
        }
        Ok(Kernel {
            pipeline,
            layout,
            set,
        })
    }
}

impl Venus {
    fn set_layout(
        &mut self,
        session: &mut Session,
        device: &Device,
        shader: &Shader,
    ) -> Result<u64> {
        let id = self.object();
        let command = Words::command(cmd::CREATE_DESCRIPTOR_SET_LAYOUT)
            .u64(device.id)
            .pointer()
            .structure(kind::DESCRIPTOR_SET_LAYOUT_CREATE_INFO, &[])
            .u32(0)
            .u32(shader.bindings.len() as u32)
            .count(shader.bindings.len());
        let bindings = shader.bindings.iter();
        let command = bindings.fold(command, |command, binding| {
            let fields = [binding.binding, descriptor(binding.kind), 1, COMPUTE_STAGE];
            command.u32s(&fields).null()
        });
        self.done(session, command.null().pointer().u64(id))?;
        Ok(id)
    }

    fn pipeline_layout(
        &mut self,
        session: &mut Session,
        device: &Device,
        set_layout: u64,
    ) -> Result<u64> {
        let id = self.object();
        let command = Words::command(cmd::CREATE_PIPELINE_LAYOUT)
            .u64(device.id)
            .pointer()
            .structure(kind::PIPELINE_LAYOUT_CREATE_INFO, &[])
            .u32(0)
            .u32(1)
            .objects(&[set_layout])
            .u32(0)
            .null()
            .null()
            .pointer()
            .u64(id);
        self.done(session, command)?;
        Ok(id)
    }

    fn pipeline(
        &mut self,
        session: &mut Session,
        device: &Device,
        shader: &Shader,
        layout: u64,
    ) -> Result<u64> {
        let (module, id) = (self.object(), self.object());
        let words = shader.spirv.len();
        let command = Words::command(cmd::CREATE_SHADER_MODULE)
            .u64(device.id)
            .pointer()
            .structure(kind::SHADER_MODULE_CREATE_INFO, &[])
            .u32(0)
            .count(4 * words)
            .count(words)
            .u32s(shader.spirv)
            .null()
            .pointer()
            .u64(module);
        self.done(session, command)?;
        let command = Words::command(cmd::CREATE_COMPUTE_PIPELINES)
            .u64(device.id)
            .u64(0)
            .u32(1)
            .count(1)
            .structure(kind::COMPUTE_PIPELINE_CREATE_INFO, &[])
            .u32(0)
            .structure(kind::PIPELINE_SHADER_STAGE_CREATE_INFO, &[])
            .u32s(&[0, COMPUTE_STAGE])
            .u64(module)
            .text(shader.entry_point)
            .null()
            .u64(layout)
            .u64(0)
            .u32(0)
            .null()
            .objects(&[id]);
        self.done(session, command)?;
        Ok(id)
    }

    fn descriptor_set(
        &mut self,
        session: &mut Session,
        device: &Device,
        shader: &Shader,
        set_layout: u64,
    ) -> Result<u64> {
        let (pool, set) = (self.object(), self.object());
        let command = Words::command(cmd::CREATE_DESCRIPTOR_POOL)
            .u64(device.id)
            .pointer()
            .structure(kind::DESCRIPTOR_POOL_CREATE_INFO, &[])
            .u32s(&[0, 1, shader.bindings.len() as u32])
            .count(shader.bindings.len());
        let bindings = shader.bindings.iter();
        let command = bindings.fold(command, |command, binding| {
            command.u32s(&[descriptor(binding.kind), 1])
        });
        self.done(session, command.null().pointer().u64(pool))?;
        let command = Words::command(cmd::ALLOCATE_DESCRIPTOR_SETS)
            .u64(device.id)
            .pointer()
            .structure(kind::DESCRIPTOR_SET_ALLOCATE_INFO, &[])
            .u64(pool)
            .u32(1)
            .objects(&[set_layout])
            .objects(&[set]);
        self.done(session, command)?;
        Ok(set)
    }

    /// Makes a command buffer; its object.
    ///
    /// # Errors
    /// As [`Venus::done`].
    pub fn command_buffer(&mut self, session: &mut Session, device: &Device) -> Result<u64> {
        let (pool, buffer) = (self.object(), self.object());
        let command = Words::command(cmd::CREATE_COMMAND_POOL)
            .u64(device.id)
            .pointer()
            .structure(kind::COMMAND_POOL_CREATE_INFO, &[])
            .u32s(&[0, device.family])
            .null()
            .pointer()
            .u64(pool);
        self.done(session, command)?;
        let command = Words::command(cmd::ALLOCATE_COMMAND_BUFFERS)
            .u64(device.id)
            .pointer()
            .structure(kind::COMMAND_BUFFER_ALLOCATE_INFO, &[])
            .u64(pool)
            .u32s(&[0, 1])
            .objects(&[buffer]);
        self.done(session, command)?;
        Ok(buffer)
    }

    /// Records commands into a command buffer of its own, ready for [`submit`]; its object.
    ///
    /// # Errors
    /// As [`Venus::done`].
    pub fn record(
        &mut self,
        session: &mut Session,
        device: &Device,
        commands: impl FnOnce(Recording) -> Recording,
    ) -> Result<u64> {
        let buffer = self.command_buffer(session, device)?;
        let begin = Words::command(cmd::BEGIN_COMMAND_BUFFER)
            .u64(buffer)
            .pointer()
            .structure(kind::COMMAND_BUFFER_BEGIN_INFO, &[])
            .u32(0)
            .null();
        self.done(session, begin)?;
        let words = Words::new();
        let recorded = commands(Recording { buffer, words }).words;
        self.send(session, &recorded)?;
        self.done(session, Words::command(cmd::END_COMMAND_BUFFER).u64(buffer))?;
        Ok(buffer)
    }
}

/// QUEUE_SUBMIT of a recorded command buffer.
pub fn submit(device: &Device, command_buffer: u64) -> Words {
    Words::command(cmd::QUEUE_SUBMIT)
        .u64(device.queue)
        .u32(1)
        .count(1)
        .structure(kind::SUBMIT_INFO, &[])
        // Waits for no semaphore.
        .u32(0)
        .null()
        .null()
        .u32(1)
        .objects(&[command_buffer])
        .u32(0)
        .null()
        .u64(0)
}

/// Commands for a command buffer.
#[derive(Clone, Debug)]
pub struct Recording {
    buffer: u64,
    words: Words,
}

impl Recording {
    fn command(&self, kind: u32) -> Words {
        Words::command(kind).u64(self.buffer)
    }

    fn with(self, command: &Words) -> Self {
        let words = self.words.then(command);
        Recording { words, ..self }
    }

    /// Writes bytes (whole words, at most 65536) to the start of a buffer.
    #[must_use]
    pub fn update(self, buffer: u64, bytes: &[u8]) -> Self {
        let command = self.command(cmd::CMD_UPDATE_BUFFER);
        let command = command.u64(buffer).u64(0).u64(bytes.len() as u64);
        self.with(&command.blob(bytes))
    }

    /// What comes after sees what was written before.
    #[must_use]
    pub fn barrier(self) -> Self {
        let command = self
            .command(cmd::CMD_PIPELINE_BARRIER)
            .u32s(&[ALL_COMMANDS, ALL_COMMANDS | HOST, 0, 1])
            .count(1)
            .structure(kind::MEMORY_BARRIER, &[])
            .u32s(&[ALL_MEMORY, ALL_MEMORY, 0])
            .null()
            .u32(0)
            .null();
        self.with(&command)
    }

    /// Runs a shader in this many workgroups.
    #[must_use]
    pub fn dispatch(self, kernel: &Kernel, groups: u32) -> Self {
        let pipeline = self
            .command(cmd::CMD_BIND_PIPELINE)
            .u32(COMPUTE_POINT)
            .u64(kernel.pipeline);
        let set = self
            .command(cmd::CMD_BIND_DESCRIPTOR_SETS)
            .u32(COMPUTE_POINT)
            .u64(kernel.layout)
            .u32s(&[0, 1])
            .objects(&[kernel.set])
            .u32(0)
            .null();
        let run = self.command(cmd::CMD_DISPATCH).u32s(&[groups, 1, 1]);
        self.with(&pipeline.then(&set).then(&run))
    }

    /// Copies the words of a buffer into a picture, which the CPU can read afterwards.
    #[must_use]
    pub fn copy_to_image(self, buffer: u64, image: &Image) -> Self {
        let general = self
            .command(cmd::CMD_PIPELINE_BARRIER)
            .u32s(&[ALL_COMMANDS, ALL_COMMANDS, 0, 0])
            .null()
            .u32(0)
            .null()
            .u32(1)
            .count(1)
            .structure(kind::IMAGE_MEMORY_BARRIER, &[])
            .u32s(&[ALL_MEMORY, ALL_MEMORY, 0, GENERAL, IGNORED, IGNORED])
            .u64(image.id)
            .u32s(&[1, 0, 1, 0, 1]);
        let copy = self
            .command(cmd::CMD_COPY_BUFFER_TO_IMAGE)
            .u64(buffer)
            .u64(image.id)
            .u32s(&[GENERAL, 1])
            .count(1)
            .u64(0)
            .u32s(&[0, 0])
            .u32s(&PICTURE)
            .u32s(&[0, 0, 0, image.width, image.height, 1]);
        self.with(&general.then(&copy)).barrier()
    }
}
