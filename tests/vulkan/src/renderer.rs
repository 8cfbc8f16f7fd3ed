//! The calls into Vulkan: the only unsafe code of this program.

#![expect(
    unsafe_code,
    clippy::multiple_unsafe_ops_per_block,
    reason = "every call of Vulkan's is unsafe; each step is one block with one reason"
)]

use std::ffi::CStr;
use std::io::Cursor;

use ash::{Device, Entry, Instance, StaticFn, vk};

use crate::Outcome;
use crate::picture::{BACKGROUND, SIZE};

/// Vulkan's loader, as every Linux has it.
const LOADER: &CStr = c"libvulkan.so.1";

const TRIANGLE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/triangle.spv"));

const FORMAT: vk::Format = vk::Format::R8G8B8A8_UNORM;

/// What the memory has to be: written by the GPU, seen by the program without flushes.
const VISIBLE: vk::MemoryPropertyFlags = vk::MemoryPropertyFlags::from_raw(
    vk::MemoryPropertyFlags::HOST_VISIBLE.as_raw()
        | vk::MemoryPropertyFlags::HOST_COHERENT.as_raw(),
);

/// How long the GPU may take, in nanoseconds: an emulated processor compiles shaders first.
const LIMIT: u64 = 300_000_000_000;

/// Vulkan, and its first physical device.
pub(crate) struct Vulkan {
    instance: Instance,
    physical: vk::PhysicalDevice,
    /// The driver's name.
    pub(crate) driver: String,
    /// The device's name.
    pub(crate) name: String,
    // The instance calls into it.
    _entry: Entry,
}

/// A device with one queue.
pub(crate) struct Gpu<'a> {
    vulkan: &'a Vulkan,
    device: Device,
    family: u32,
}

/// Mapped memory with the picture in it.
pub(crate) struct Mapped {
    /// The properties of its type.
    pub(crate) properties: vk::MemoryPropertyFlags,
    /// Its bytes.
    pub(crate) size: u64,
    address: *const u8,
}

impl Mapped {
    /// Where it is mapped.
    pub(crate) fn address(&self) -> u64 {
        self.address as u64
    }

    /// What is in it now.
    pub(crate) fn read(&self) -> Vec<u8> {
        let bytes = SIZE[0] * SIZE[1] * 4;
        // SAFETY: the memory is mapped until the program ends, has room for the picture (Vulkan's
        // requirement for its buffer), and the GPU is done with it.
        (0..bytes as usize)
            .map(|at| unsafe { self.address.add(at).read_volatile() })
            .collect()
    }
}

impl Vulkan {
    /// Vulkan of this machine.
    pub(crate) fn open() -> Outcome<Self> {
        // SAFETY: the loader is a library whose initialisation is that of every Vulkan program, and the
        // symbol is the function that the specification names.
        let entry = unsafe {
            let library = libc::dlopen(LOADER.as_ptr(), libc::RTLD_NOW);
            if library.is_null() {
                return Err("there is no libvulkan.so.1".into());
            }
            let symbol = libc::dlsym(library, c"vkGetInstanceProcAddr".as_ptr());
            let get_instance_proc_addr = std::mem::transmute::<
                *mut libc::c_void,
                Option<vk::PFN_vkGetInstanceProcAddr>,
            >(symbol);
            let get_instance_proc_addr =
                get_instance_proc_addr.ok_or("libvulkan.so.1 has no vkGetInstanceProcAddr")?;
            Entry::from_static_fn(StaticFn {
                get_instance_proc_addr,
            })
        };
        let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
        let info = vk::InstanceCreateInfo::default().application_info(&application);
        // SAFETY: the structures live through the calls; the instance outlives what comes of it.
        unsafe {
            let instance = entry.create_instance(&info, None)?;
            let physical = instance.enumerate_physical_devices()?;
            let physical = *physical.first().ok_or("there is no Vulkan device")?;
            let mut driver = vk::PhysicalDeviceDriverProperties::default();
            let mut about = vk::PhysicalDeviceProperties2::default().push_next(&mut driver);
            instance.get_physical_device_properties2(physical, &mut about);
            let name = text(about.properties.device_name_as_c_str()?);
            Ok(Self {
                driver: text(driver.driver_name_as_c_str()?),
                name,
                instance,
                physical,
                _entry: entry,
            })
        }
    }

    /// A device with a queue that draws.
    pub(crate) fn device(&self) -> Outcome<Gpu<'_>> {
        let features = vk::PhysicalDeviceVulkan13Features::default().dynamic_rendering(true);
        // SAFETY: the physical device is this instance's; the structures live through the calls.
        unsafe {
            let families = self
                .instance
                .get_physical_device_queue_family_properties(self.physical);
            let draws = |family: &vk::QueueFamilyProperties| {
                family.queue_flags.contains(vk::QueueFlags::GRAPHICS)
            };
            let family = families.iter().position(draws);
            let family = u32::try_from(family.ok_or("no queue draws")?)?;
            let queues = [vk::DeviceQueueCreateInfo::default()
                .queue_family_index(family)
                .queue_priorities(&[1.0])];
            let mut features = features;
            let info = vk::DeviceCreateInfo::default()
                .queue_create_infos(&queues)
                .push_next(&mut features);
            let device = self.instance.create_device(self.physical, &info, None)?;
            Ok(Gpu {
                vulkan: self,
                device,
                family,
            })
        }
    }
}

impl Gpu<'_> {
    /// Draws into an image, copies it to memory that is mapped, and waits for that. Everything stays
    /// until the program ends.
    pub(crate) fn draw(&self) -> Outcome<Mapped> {
        let (image, view) = self.image()?;
        let (buffer, mapped) = self.buffer()?;
        let pipeline = self.pipeline()?;
        let device = &self.device;
        let pool = vk::CommandPoolCreateInfo::default().queue_family_index(self.family);
        // SAFETY: all handles are this device's, and stay; commands are recorded as the specification
        // orders them, and the structures live through the calls.
        unsafe {
            let pool = device.create_command_pool(&pool, None)?;
            let info = vk::CommandBufferAllocateInfo::default()
                .command_pool(pool)
                .command_buffer_count(1);
            let commands = device.allocate_command_buffers(&info)?;
            let once = vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT;
            for &list in &commands {
                let begin = vk::CommandBufferBeginInfo::default().flags(once);
                device.begin_command_buffer(list, &begin)?;
                self.record(list, image, view, pipeline);
                self.record_copy(list, image, buffer);
                device.end_command_buffer(list)?;
            }
            let fence = device.create_fence(&vk::FenceCreateInfo::default(), None)?;
            let queue = device.get_device_queue(self.family, 0);
            let submit = [vk::SubmitInfo::default().command_buffers(&commands)];
            device.queue_submit(queue, &submit, fence)?;
            device.wait_for_fences(&[fence], true, LIMIT)?;
        }
        Ok(mapped)
    }

    /// The memory type of these among `bits`, with its properties.
    fn memory_type(
        &self,
        bits: u32,
        wanted: vk::MemoryPropertyFlags,
    ) -> Outcome<(u32, vk::MemoryPropertyFlags)> {
        let vulkan = self.vulkan;
        // SAFETY: the physical device is this instance's.
        let all = unsafe {
            vulkan
                .instance
                .get_physical_device_memory_properties(vulkan.physical)
        };
        let types = (0..).zip(all.memory_types_as_slice());
        let mut fitting = types.filter(|(index, kind)| {
            bits & (1 << index) != 0 && kind.property_flags.contains(wanted)
        });
        let (index, kind) = fitting
            .next()
            .ok_or("no memory of the type that is needed")?;
        Ok((index, kind.property_flags))
    }

    fn memory(
        &self,
        needed: &vk::MemoryRequirements,
        wanted: vk::MemoryPropertyFlags,
    ) -> Outcome<(vk::DeviceMemory, vk::MemoryPropertyFlags)> {
        let (index, properties) = self.memory_type(needed.memory_type_bits, wanted)?;
        let info = vk::MemoryAllocateInfo::default()
            .allocation_size(needed.size)
            .memory_type_index(index);
        // SAFETY: the index is that of a type of this device's.
        let memory = unsafe { self.device.allocate_memory(&info, None)? };
        Ok((memory, properties))
    }

    /// An image to draw into.
    fn image(&self) -> Outcome<(vk::Image, vk::ImageView)> {
        let [width, height] = SIZE;
        let info = vk::ImageCreateInfo::default()
            .image_type(vk::ImageType::TYPE_2D)
            .format(FORMAT)
            .extent(vk::Extent3D {
                width,
                height,
                depth: 1,
            })
            .mip_levels(1)
            .array_layers(1)
            .samples(vk::SampleCountFlags::TYPE_1)
            .tiling(vk::ImageTiling::OPTIMAL)
            .usage(vk::ImageUsageFlags::COLOR_ATTACHMENT | vk::ImageUsageFlags::TRANSFER_SRC);
        // SAFETY: the memory is as large and of a type as the image needs; every device draws into
        // this format and copies from it.
        unsafe {
            let image = self.device.create_image(&info, None)?;
            let needed = self.device.get_image_memory_requirements(image);
            let (memory, _) = self.memory(&needed, vk::MemoryPropertyFlags::empty())?;
            self.device.bind_image_memory(image, memory, 0)?;
            let info = vk::ImageViewCreateInfo::default()
                .image(image)
                .view_type(vk::ImageViewType::TYPE_2D)
                .format(FORMAT)
                .subresource_range(whole());
            Ok((image, self.device.create_image_view(&info, None)?))
        }
    }

    /// A buffer for the picture in memory that is mapped.
    fn buffer(&self) -> Outcome<(vk::Buffer, Mapped)> {
        let size = u64::from(SIZE[0] * SIZE[1] * 4);
        let info = vk::BufferCreateInfo::default()
            .size(size)
            .usage(vk::BufferUsageFlags::TRANSFER_DST);
        // SAFETY: the memory is as large and of a type as the buffer needs, and can be mapped.
        unsafe {
            let buffer = self.device.create_buffer(&info, None)?;
            let needed = self.device.get_buffer_memory_requirements(buffer);
            let (memory, properties) = self.memory(&needed, VISIBLE)?;
            self.device.bind_buffer_memory(buffer, memory, 0)?;
            let flags = vk::MemoryMapFlags::empty();
            let address = self
                .device
                .map_memory(memory, 0, vk::WHOLE_SIZE, flags)?
                .cast::<u8>();
            // Another picture than the one that is to come.
            address.write_bytes(0x55, usize::try_from(size)?);
            let mapped = Mapped {
                properties,
                size: needed.size,
                address,
            };
            Ok((buffer, mapped))
        }
    }

    fn pipeline(&self) -> Outcome<vk::Pipeline> {
        let code = ash::util::read_spv(&mut Cursor::new(TRIANGLE))?;
        let code = vk::ShaderModuleCreateInfo::default().code(&code);
        let [width, height] = SIZE;
        let viewports = [vk::Viewport {
            x: 0.0,
            y: 0.0,
            width: width as f32,
            height: height as f32,
            min_depth: 0.0,
            max_depth: 1.0,
        }];
        let scissors = [vk::Rect2D {
            offset: vk::Offset2D::default(),
            extent: vk::Extent2D { width, height },
        }];
        let viewport = vk::PipelineViewportStateCreateInfo::default()
            .viewports(&viewports)
            .scissors(&scissors);
        let assembly = vk::PipelineInputAssemblyStateCreateInfo::default()
            .topology(vk::PrimitiveTopology::TRIANGLE_LIST);
        let raster = vk::PipelineRasterizationStateCreateInfo::default().line_width(1.0);
        let samples = vk::PipelineMultisampleStateCreateInfo::default()
            .rasterization_samples(vk::SampleCountFlags::TYPE_1);
        let blended = [vk::PipelineColorBlendAttachmentState::default()
            .color_write_mask(vk::ColorComponentFlags::RGBA)];
        let blend = vk::PipelineColorBlendStateCreateInfo::default().attachments(&blended);
        let mut rendering =
            vk::PipelineRenderingCreateInfo::default().color_attachment_formats(&[FORMAT]);
        let vertices = vk::PipelineVertexInputStateCreateInfo::default();
        // SAFETY: the module is valid SPIR-V with these entry points (naga has checked it); the
        // structures live through the calls.
        unsafe {
            let module = self.device.create_shader_module(&code, None)?;
            let stage = |stage, name| {
                vk::PipelineShaderStageCreateInfo::default()
                    .stage(stage)
                    .module(module)
                    .name(name)
            };
            let stages = [
                stage(vk::ShaderStageFlags::VERTEX, c"corner"),
                stage(vk::ShaderStageFlags::FRAGMENT, c"shade"),
            ];
            let layout = vk::PipelineLayoutCreateInfo::default();
            let layout = self.device.create_pipeline_layout(&layout, None)?;
            let info = [vk::GraphicsPipelineCreateInfo::default()
                .stages(&stages)
                .vertex_input_state(&vertices)
                .input_assembly_state(&assembly)
                .viewport_state(&viewport)
                .rasterization_state(&raster)
                .multisample_state(&samples)
                .color_blend_state(&blend)
                .layout(layout)
                .push_next(&mut rendering)];
            let cache = vk::PipelineCache::null();
            let made = self.device.create_graphics_pipelines(cache, &info, None);
            let made = made.map_err(|(_, error)| error)?;
            Ok(*made.first().ok_or("no pipeline")?)
        }
    }

    /// Records the triangle.
    ///
    /// # Safety
    /// The list is being recorded; all handles are this device's.
    unsafe fn record(
        &self,
        list: vk::CommandBuffer,
        image: vk::Image,
        view: vk::ImageView,
        pipeline: vk::Pipeline,
    ) {
        let [width, height] = SIZE;
        let color = BACKGROUND.map(|part| f32::from(part) / 255.0);
        let attachment = [vk::RenderingAttachmentInfo::default()
            .image_view(view)
            .image_layout(vk::ImageLayout::COLOR_ATTACHMENT_OPTIMAL)
            .load_op(vk::AttachmentLoadOp::CLEAR)
            .store_op(vk::AttachmentStoreOp::STORE)
            .clear_value(vk::ClearValue {
                color: vk::ClearColorValue { float32: color },
            })];
        let rendering = vk::RenderingInfo::default()
            .render_area(vk::Rect2D {
                offset: vk::Offset2D::default(),
                extent: vk::Extent2D { width, height },
            })
            .layer_count(1)
            .color_attachments(&attachment);
        let to_draw = vk::ImageMemoryBarrier::default()
            .dst_access_mask(vk::AccessFlags::COLOR_ATTACHMENT_WRITE)
            .old_layout(vk::ImageLayout::UNDEFINED)
            .new_layout(vk::ImageLayout::COLOR_ATTACHMENT_OPTIMAL)
            .image(image)
            .subresource_range(whole());
        // SAFETY: as the caller says.
        unsafe {
            self.device.cmd_pipeline_barrier(
                list,
                vk::PipelineStageFlags::TOP_OF_PIPE,
                vk::PipelineStageFlags::COLOR_ATTACHMENT_OUTPUT,
                vk::DependencyFlags::empty(),
                &[],
                &[],
                &[to_draw],
            );
            self.device.cmd_begin_rendering(list, &rendering);
            let graphics = vk::PipelineBindPoint::GRAPHICS;
            self.device.cmd_bind_pipeline(list, graphics, pipeline);
            self.device.cmd_draw(list, 3, 1, 0, 0);
            self.device.cmd_end_rendering(list);
        }
    }

    /// Records the copy to the buffer, for the program to read.
    ///
    /// # Safety
    /// As [`Self::record`].
    unsafe fn record_copy(&self, list: vk::CommandBuffer, image: vk::Image, buffer: vk::Buffer) {
        let [width, height] = SIZE;
        let to_copy = vk::ImageMemoryBarrier::default()
            .src_access_mask(vk::AccessFlags::COLOR_ATTACHMENT_WRITE)
            .dst_access_mask(vk::AccessFlags::TRANSFER_READ)
            .old_layout(vk::ImageLayout::COLOR_ATTACHMENT_OPTIMAL)
            .new_layout(vk::ImageLayout::TRANSFER_SRC_OPTIMAL)
            .image(image)
            .subresource_range(whole());
        let to_read = vk::BufferMemoryBarrier::default()
            .src_access_mask(vk::AccessFlags::TRANSFER_WRITE)
            .dst_access_mask(vk::AccessFlags::HOST_READ)
            .buffer(buffer)
            .size(vk::WHOLE_SIZE);
        let region = vk::BufferImageCopy::default()
            .image_subresource(vk::ImageSubresourceLayers {
                aspect_mask: vk::ImageAspectFlags::COLOR,
                mip_level: 0,
                base_array_layer: 0,
                layer_count: 1,
            })
            .image_extent(vk::Extent3D {
                width,
                height,
                depth: 1,
            });
        // SAFETY: as the caller says.
        unsafe {
            self.device.cmd_pipeline_barrier(
                list,
                vk::PipelineStageFlags::COLOR_ATTACHMENT_OUTPUT,
                vk::PipelineStageFlags::TRANSFER,
                vk::DependencyFlags::empty(),
                &[],
                &[],
                &[to_copy],
            );
            let layout = vk::ImageLayout::TRANSFER_SRC_OPTIMAL;
            self.device
                .cmd_copy_image_to_buffer(list, image, layout, buffer, &[region]);
            self.device.cmd_pipeline_barrier(
                list,
                vk::PipelineStageFlags::TRANSFER,
                vk::PipelineStageFlags::HOST,
                vk::DependencyFlags::empty(),
                &[],
                &[to_read],
                &[],
            );
        }
    }
}

/// The whole image.
fn whole() -> vk::ImageSubresourceRange {
    vk::ImageSubresourceRange {
        aspect_mask: vk::ImageAspectFlags::COLOR,
        base_mip_level: 0,
        level_count: 1,
        base_array_layer: 0,
        layer_count: 1,
    }
}

fn text(name: &CStr) -> String {
    name.to_string_lossy().into_owned()
}
