//! A compute shader's words: what the guest reads back is what the shader was to write.

use super::kit::{self, QUEUE_RING, device, memory_maps};
use nosnoop_shaders::{PATTERN_WRITE, Params, pattern};
use nosnoop_tests::frontend::cross_domain::host_blob;
use nosnoop_tests::frontend::response::resp;
use nosnoop_tests::frontend::venus::instance::HOST_COHERENT;
use nosnoop_tests::frontend::venus::{Device, Image, Kernel, Venus, submit};
use nosnoop_tests::frontend::{Result, Rig};

/// Words of the buffer: a picture of 128 times 128.
const WORDS: u32 = 128 * 128;
const BYTES: u64 = 4 * WORDS as u64;

/// The shader with a buffer in memory that can be mapped, and a picture to read it by.
pub(crate) struct Writer {
    kernel: Kernel,
    params: u64,
    buffer: u64,
    memory: u64,
    image: Image,
}

impl Writer {
    pub(crate) fn new(rig: &mut Rig, venus: &mut Venus, device: &Device) -> Result<Self> {
        let (buffer, memory) = venus.buffer_in(rig, device, BYTES, HOST_COHERENT)?;
        let size = Params::SIZE as u64;
        let (params, _) = venus.buffer_in(rig, device, size, 0)?;
        let buffers = [(buffer, BYTES), (params, size)];
        let kernel = Kernel::new(rig, venus, device, &PATTERN_WRITE, &buffers)?;
        let image = venus.image(rig, device, 128, 128)?;
        Ok(Writer {
            kernel,
            params,
            buffer,
            memory,
            image,
        })
    }

    /// A command buffer that writes the pattern of a seed.
    pub(crate) fn record(
        &self,
        rig: &mut Rig,
        venus: &mut Venus,
        device: &Device,
        seed: u32,
    ) -> Result<u64> {
        let params = Params {
            seed,
            first_index: 0,
            count: WORDS,
        };
        venus.record(rig, device, |commands| {
            commands
                .update(self.params, &params.to_bytes())
                .barrier()
                .dispatch(&self.kernel, 16)
                .barrier()
                .copy_to_image(self.buffer, &self.image)
        })
    }

    /// A command buffer that writes the same words again and again, millions of times.
    pub(crate) fn record_long(
        &self,
        rig: &mut Rig,
        venus: &mut Venus,
        device: &Device,
    ) -> Result<u64> {
        let params = Params {
            seed: 1,
            first_index: 0,
            count: WORDS,
        };
        venus.record(rig, device, |commands| {
            let commands = commands.update(self.params, &params.to_bytes()).barrier();
            let times = 0..4;
            times.fold(commands, |commands, _| {
                commands.dispatch(&self.kernel, 65_535).barrier()
            })
        })
    }

    /// Checks every word of the buffer, read by way of the picture.
    pub(crate) fn check(
        &self,
        rig: &mut Rig,
        venus: &mut Venus,
        device: &Device,
        seed: u32,
    ) -> Result<()> {
        let words = venus.read_image(rig, device, &self.image)?;
        assert_pattern(&words, seed);
        Ok(())
    }
}

#[track_caller]
fn assert_pattern(words: &[u32], seed: u32) {
    assert_eq!(words.len(), WORDS as usize);
    for (at, (got, expected)) in words.iter().zip(pattern::words(0, seed)).enumerate() {
        assert_eq!(*got, expected, "word {at} of seed {seed:#x}");
    }
}

#[test]
fn a_shader_writes_its_pattern() -> Result<()> {
    let Some(mut rig) = kit::start() else {
        return Ok(());
    };
    let (mut venus, device) = device(&mut rig, 1)?;
    let writer = Writer::new(&mut rig, &mut venus, &device)?;
    for seed in [1, 0xdead_beef] {
        let commands = writer.record(&mut rig, &mut venus, &device, seed)?;
        venus.fenced(&mut rig, &submit(&device, commands), QUEUE_RING)?;
        writer.check(&mut rig, &mut venus, &device, seed)?;
    }
    rig.finish()
}

#[test]
fn a_mapping_of_the_memory_shows_the_pattern_or_is_refused() -> Result<()> {
    let Some(mut rig) = kit::start() else {
        return Ok(());
    };
    let (mut venus, device) = device(&mut rig, 1)?;
    let writer = Writer::new(&mut rig, &mut venus, &device)?;
    let blob = host_blob(venus.id, 50, writer.memory, BYTES);
    let answer = rig.gpu.answer(&blob)?;
    if !memory_maps() {
        println!("no /dev/udmabuf: Vulkan's memory is no dma-buf here and is not mapped");
        assert_eq!(answer, resp::ERR_UNSPEC);
        assert_eq!(venus.version(&mut rig)? >> 22, 1);
        return rig.finish();
    }
    assert_eq!(answer, resp::OK_NODATA);
    rig.gpu.attach_resource(venus.id, 50)?;
    rig.gpu.map_blob(50, 0)?;
    for seed in [1, 0xdead_beef] {
        let commands = writer.record(&mut rig, &mut venus, &device, seed)?;
        venus.fenced(&mut rig, &submit(&device, commands), QUEUE_RING)?;
        let mapped = rig.shmem().read(0, BYTES as usize);
        let words = mapped.as_chunks().0.iter().copied().map(u32::from_le_bytes);
        assert_pattern(&words.collect::<Vec<_>>(), seed);
    }
    rig.gpu.unmap_blob(50)?;
    rig.gpu.unref(50)?;
    rig.finish()
}
