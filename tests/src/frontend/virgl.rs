//! The command streams of virgl, in which a guest's driver says what is to be drawn.
//!
//! Written from the protocol's numbers and layouts (virglrenderer's `virgl_protocol.h` and
//! `virgl_hw.h`): as much of it as a triangle needs, and [`Stream::command`] for everything else. A
//! stream is a row of 32-bit words; each command begins with its number, an object type and the
//! number of words that follow.

use super::three_d::Create3d;

/// `VIRTIO_GPU_CAPSET_VIRGL`.
pub const CAPSET_VIRGL: u32 = 1;
/// `VIRTIO_GPU_CAPSET_VIRGL2`.
pub const CAPSET_VIRGL2: u32 = 2;

/// Targets of resources (`PIPE_BUFFER`).
pub const BUFFER: u32 = 0;
/// `PIPE_TEXTURE_2D`.
pub const TEXTURE_2D: u32 = 2;

/// `VIRGL_FORMAT_R32G32B32A32_FLOAT`.
pub const RGBA_FLOAT: u32 = 31;
/// `VIRGL_FORMAT_R8_UNORM`, the format of buffers.
pub const R8: u32 = 64;

/// What a resource may be used for (`VIRGL_BIND_*`).
#[expect(missing_docs, reason = "named as in virgl_hw.h")]
pub mod bind {
    pub const RENDER_TARGET: u32 = 1 << 1;
    pub const SAMPLER_VIEW: u32 = 1 << 3;
    pub const VERTEX_BUFFER: u32 = 1 << 4;
    pub const CUSTOM: u32 = 1 << 17;
    pub const SCANOUT: u32 = 1 << 18;
}

/// Command numbers (`VIRGL_CCMD_*`).
#[expect(missing_docs, reason = "named as in virgl_protocol.h")]
pub mod ccmd {
    pub const NOP: u8 = 0;
    pub const CREATE_OBJECT: u8 = 1;
    pub const BIND_OBJECT: u8 = 2;
    pub const DESTROY_OBJECT: u8 = 3;
    pub const SET_VIEWPORT_STATE: u8 = 4;
    pub const SET_FRAMEBUFFER_STATE: u8 = 5;
    pub const SET_VERTEX_BUFFERS: u8 = 6;
    pub const CLEAR: u8 = 7;
    pub const DRAW_VBO: u8 = 8;
    pub const RESOURCE_INLINE_WRITE: u8 = 9;
    pub const RESOURCE_COPY_REGION: u8 = 17;
    pub const BEGIN_QUERY: u8 = 19;
    pub const END_QUERY: u8 = 20;
    pub const GET_QUERY_RESULT: u8 = 21;
    pub const SET_SUB_CTX: u8 = 28;
    pub const CREATE_SUB_CTX: u8 = 29;
    pub const DESTROY_SUB_CTX: u8 = 30;
    pub const BIND_SHADER: u8 = 31;
    /// The first number that no command has.
    pub const NONE: u8 = 200;
}

/// Object types (`VIRGL_OBJECT_*`).
#[expect(missing_docs, reason = "named as in virgl_protocol.h")]
pub mod object {
    pub const NULL: u8 = 0;
    pub const BLEND: u8 = 1;
    pub const RASTERIZER: u8 = 2;
    pub const DSA: u8 = 3;
    pub const SHADER: u8 = 4;
    pub const VERTEX_ELEMENTS: u8 = 5;
    pub const SURFACE: u8 = 8;
    pub const QUERY: u8 = 9;
}

/// `PIPE_CLEAR_COLOR0`.
const CLEAR_COLOR: u32 = 1 << 2;
/// `PIPE_PRIM_TRIANGLES`.
const TRIANGLES: u32 = 4;
/// Depth clipping, and pixels whose centres lie at halves (`VIRGL_OBJ_RS_S0_*`).
const RASTERIZER_FLAGS: u32 = 1 << 1 | 1 << 29;
/// All four channels are written (`VIRGL_OBJ_BLEND_S2_RT_COLORMASK`).
const ALL_CHANNELS: u32 = 0xf << 27;
/// Room for a shader's tokens that the renderer is to reserve.
const TOKENS: u32 = 300;

/// What a shader is for (`PIPE_SHADER_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Vertices.
    Vertex = 0,
    /// Pixels.
    Fragment = 1,
}

/// A vertex shader that passes position and colour on, as TGSI text.
pub const PASS_VERTEX: &str = "VERT\n\
    DCL IN[0]\n\
    DCL IN[1]\n\
    DCL OUT[0], POSITION\n\
    DCL OUT[1], GENERIC[0]\n\
    \x20 0: MOV OUT[0], IN[0]\n\
    \x20 1: MOV OUT[1], IN[1]\n\
    \x20 2: END\n";

/// A fragment shader that shows the colour of the vertices, as TGSI text.
pub const PASS_COLOR: &str = "FRAG\n\
    DCL IN[0], GENERIC[0], PERSPECTIVE\n\
    DCL OUT[0], COLOR\n\
    \x20 0: MOV OUT[0], IN[0]\n\
    \x20 1: END\n";

/// A texture that can be drawn into, sampled and shown.
pub fn render_target(resource: u32, format: u32, width: u32, height: u32) -> Create3d {
    Create3d {
        resource,
        target: TEXTURE_2D,
        format,
        bind: bind::RENDER_TARGET | bind::SAMPLER_VIEW | bind::SCANOUT,
        width,
        height,
        depth: 1,
        array_size: 1,
        last_level: 0,
        samples: 0,
        flags: 0,
    }
}

/// A buffer for vertices.
pub fn vertex_buffer(resource: u32, bytes: u32) -> Create3d {
    Create3d {
        target: BUFFER,
        format: R8,
        bind: bind::VERTEX_BUFFER,
        ..render_target(resource, R8, bytes, 1)
    }
}

/// Bytes of what a query ends with (`struct virgl_host_query_state`): state, size, result.
pub const QUERY_BYTES: u32 = 16;
/// `VIRGL_QUERY_STATE_DONE`.
pub const QUERY_DONE: u32 = 1;

/// A buffer for the result of a query.
pub fn query_buffer(resource: u32) -> Create3d {
    Create3d {
        bind: bind::CUSTOM,
        ..vertex_buffer(resource, QUERY_BYTES)
    }
}

/// One corner: a position in clip space and a colour (red, green, blue, alpha from 0 to 1).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Vertex {
    /// x, y, z, w.
    pub position: [f32; 4],
    /// The colour.
    pub color: [f32; 4],
}

impl Vertex {
    /// Bytes of one in a buffer.
    pub const SIZE: u32 = 32;

    /// A corner in the plane z = 0.
    pub fn new(x: f32, y: f32, color: [f32; 4]) -> Self {
        Vertex {
            position: [x, y, 0.0, 1.0],
            color,
        }
    }

    /// Corners as they lie in a buffer.
    pub fn to_bytes(corners: &[Vertex]) -> Vec<u8> {
        let numbers = corners
            .iter()
            .flat_map(|corner| corner.position.into_iter().chain(corner.color));
        numbers.flat_map(f32::to_le_bytes).collect()
    }
}

/// A command stream being put together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stream(Vec<u32>);

impl Stream {
    /// An empty one.
    pub fn new() -> Self {
        Stream::default()
    }

    /// Appends any command: its number, an object type and its words.
    #[must_use]
    pub fn command(self, number: u8, object: u8, words: &[u32]) -> Self {
        self.claiming(number, object, words.len() as u16, words)
    }

    /// Appends a command that says that `len` words follow, whatever follows.
    #[must_use]
    pub fn claiming(mut self, number: u8, object: u8, len: u16, words: &[u32]) -> Self {
        let head = u32::from(number) | u32::from(object) << 8 | u32::from(len) << 16;
        self.0.push(head);
        self.0.extend_from_slice(words);
        self
    }

    /// The bytes of a SUBMIT_3D.
    pub fn bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// Makes a sub-context and works in it: a driver's first two commands.
    #[must_use]
    pub fn sub_context(self, id: u32) -> Self {
        self.command(ccmd::CREATE_SUB_CTX, 0, &[id])
            .command(ccmd::SET_SUB_CTX, 0, &[id])
    }

    /// Makes level 0 of a texture something to draw into.
    #[must_use]
    pub fn surface(self, handle: u32, resource: u32, format: u32) -> Self {
        let words = [handle, resource, format, 0, 0];
        self.command(ccmd::CREATE_OBJECT, object::SURFACE, &words)
    }

    /// Draws into a surface from here on, without depth.
    #[must_use]
    pub fn framebuffer(self, surface: u32) -> Self {
        self.command(ccmd::SET_FRAMEBUFFER_STATE, 0, &[1, 0, surface])
    }

    /// Clip space is this many pixels: y = -1 is the first row in memory.
    #[must_use]
    pub fn viewport(self, width: u32, height: u32) -> Self {
        let half = |size: u32| (size as f32 / 2.0).to_bits();
        let (x, y, z) = (half(width), half(height), 0.5_f32.to_bits());
        self.command(ccmd::SET_VIEWPORT_STATE, 0, &[0, x, y, z, x, y, z])
    }

    /// Clears what is drawn into to a colour (red, green, blue, alpha).
    #[must_use]
    pub fn clear(self, color: [f32; 4]) -> Self {
        let [r, g, b, a] = color.map(f32::to_bits);
        self.command(ccmd::CLEAR, 0, &[CLEAR_COLOR, r, g, b, a, 0, 0, 0])
    }

    /// Makes a shader from TGSI text and uses it.
    #[must_use]
    pub fn shader(self, handle: u32, stage: Stage, text: &str) -> Self {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        let len = bytes.len() as u32;
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        let mut words = vec![handle, stage as u32, len, TOKENS, 0];
        words.extend(words_of(&bytes));
        self.command(ccmd::CREATE_OBJECT, object::SHADER, &words)
            .command(ccmd::BIND_SHADER, 0, &[handle, stage as u32])
    }

    /// Makes an object of state and uses it.
    #[must_use]
    fn state(self, kind: u8, handle: u32, words: &[u32]) -> Self {
        let words = [&[handle], words].concat();
        self.command(ccmd::CREATE_OBJECT, kind, &words)
            .command(ccmd::BIND_OBJECT, kind, &[handle])
    }

    /// No blending, no depth, triangles filled: handles from `first` to `first + 2` are used.
    #[must_use]
    pub fn plain_state(self, first: u32) -> Self {
        let one = 1_f32.to_bits();
        let mut blend = [0; 10];
        blend[2..].fill(ALL_CHANNELS);
        let rasterizer = [RASTERIZER_FLAGS, one, 0, 0, one, 0, 0, 0];
        self.state(object::BLEND, first, &blend)
            .state(object::DSA, first + 1, &[0; 4])
            .state(object::RASTERIZER, first + 2, &rasterizer)
    }

    /// Takes the corners for drawing from a buffer of [`Vertex`].
    #[must_use]
    pub fn vertices(self, handle: u32, buffer: u32) -> Self {
        let elements = [0, 0, 0, RGBA_FLOAT, Vertex::SIZE / 2, 0, 0, RGBA_FLOAT];
        self.state(object::VERTEX_ELEMENTS, handle, &elements)
            .command(ccmd::SET_VERTEX_BUFFERS, 0, &[Vertex::SIZE, 0, buffer])
    }

    /// Writes bytes into a buffer, from its first on; the last word is filled up.
    #[must_use]
    pub fn write_buffer(self, buffer: u32, bytes: &[u8]) -> Self {
        let len = bytes.len() as u32;
        let mut words = vec![buffer, 0, 0, 0, 0, 0, 0, 0, len, 1, 1];
        let mut bytes = bytes.to_vec();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        words.extend(words_of(&bytes));
        self.command(ccmd::RESOURCE_INLINE_WRITE, 0, &words)
    }

    /// Draws triangles, three corners each.
    #[must_use]
    pub fn draw_triangles(self, corners: u32) -> Self {
        let last = corners.saturating_sub(1);
        let words = [0, corners, TRIANGLES, 0, 1, 0, 0, 0, 0, 0, last, 0];
        self.command(ccmd::DRAW_VBO, 0, &words)
    }

    /// Makes a query for the number of pixels that are drawn (`PIPE_QUERY_OCCLUSION_COUNTER`), which goes to
    /// a [`query_buffer`].
    #[must_use]
    pub fn pixel_query(self, handle: u32, buffer: u32) -> Self {
        let words = [handle, 0, 0, buffer];
        self.command(ccmd::CREATE_OBJECT, object::QUERY, &words)
    }

    /// Begins a query.
    #[must_use]
    pub fn begin_query(self, handle: u32) -> Self {
        self.command(ccmd::BEGIN_QUERY, 0, &[handle])
    }

    /// Ends it, and asks for its result without waiting.
    #[must_use]
    pub fn end_query(self, handle: u32) -> Self {
        self.command(ccmd::END_QUERY, 0, &[handle])
            .command(ccmd::GET_QUERY_RESULT, 0, &[handle, 0])
    }

    /// Removes an object.
    #[must_use]
    pub fn destroy(self, kind: u8, handle: u32) -> Self {
        self.command(ccmd::DESTROY_OBJECT, kind, &[handle])
    }
}

/// Whole words of bytes.
fn words_of(bytes: &[u8]) -> Vec<u32> {
    let words = bytes.chunks_exact(4);
    words
        .map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_begins_with_number_type_and_length() {
        let stream = Stream::new().surface(7, 3, 1);
        let expected = [0x0005_0801, 7, 3, 1, 0, 0_u32];
        let expected: Vec<u8> = expected.into_iter().flat_map(u32::to_le_bytes).collect();
        assert_eq!(stream.bytes(), expected);
        let claimed = Stream::new().claiming(ccmd::CLEAR, 0, 0xffff, &[1]);
        assert_eq!(claimed.bytes(), [7, 0, 0xff, 0xff, 1, 0, 0, 0]);
    }

    #[test]
    fn a_shader_says_its_length_with_the_zero_at_its_end() {
        let bytes = Stream::new().shader(9, Stage::Fragment, "FRAG").bytes();
        let words = words_of(&bytes);
        let text = [u32::from_le_bytes(*b"FRAG"), 0];
        let made = [7 << 16 | 0x0401, 9, 1, 5, TOKENS, 0];
        let bound = [2 << 16 | 31, 9, 1];
        let expected = [&made[..], &text, &bound].concat();
        assert_eq!(words, expected);
    }

    #[test]
    fn lengths_are_those_of_the_protocol() {
        // Of blend, depth and rasterizer objects, vertex elements, draws, clears and viewports.
        let stream = Stream::new()
            .plain_state(1)
            .vertices(4, 5)
            .viewport(4, 4)
            .clear([0.0; 4])
            .draw_triangles(3);
        let mut words = &words_of(&stream.bytes())[..];
        let mut lengths = Vec::new();
        while let Some((head, rest)) = words.split_first() {
            let len = (head >> 16) as usize;
            lengths.push((head & 0xffff, len));
            words = &rest[len..];
        }
        let expected = [
            (0x0101, 11),
            (0x0102, 1),
            (0x0301, 5),
            (0x0302, 1),
            (0x0201, 9),
            (0x0202, 1),
            (0x0501, 9),
            (0x0502, 1),
            (6, 3),
            (4, 7),
            (7, 8),
            (8, 12),
        ];
        assert_eq!(lengths, expected);
    }
}
