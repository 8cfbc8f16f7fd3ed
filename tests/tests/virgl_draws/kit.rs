//! A device with a 3D renderer, and what is drawn with it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

pub(crate) use nosnoop_tests::frontend::batch::Batch;
use nosnoop_tests::frontend::message::feature;
use nosnoop_tests::frontend::response::resp;
use nosnoop_tests::frontend::three_d::{Create3d, Line, Transfer3d, fenced_submit};
use nosnoop_tests::frontend::virgl::{self, Stage, Stream, Vertex};
use nosnoop_tests::frontend::{
    Daemon, DisplayConfig, Gpu, Rect, Response, Result, Rig, SessionOptions, Span,
};
use nosnoop_tests::lab::LabError;
use nosnoop_tests::lab::gl::GlRoot;
use nosnoop_tests::lab::programs::Profile;

/// The daemon with virgl on software Mesa, `None` after a line that says why there is none.
fn program() -> Option<&'static Path> {
    static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
    let built = || GlRoot::find_or_fetch()?.daemon(Profile::Quick);
    let found = PROGRAM.get_or_init(|| match built() {
        Ok(path) => Some(path),
        Err(LabError::Unavailable(why)) => {
            println!("SKIPPED: no virgl: {why}");
            None
        }
        Err(error) => panic!("{error}"),
    });
    found.as_deref()
}

/// A daemon of its own with a device on it; `None` where there can be none.
pub(crate) fn start(options: &SessionOptions) -> Option<Rig> {
    let mut command = Command::new(program()?);
    command.arg("--virgl=software");
    let daemon = Daemon::start_command(command, &["--socket-path"]).unwrap();
    Some(Rig::on(daemon, options).unwrap())
}

/// B8G8R8A8 and R8G8B8A8.
pub(crate) const BGRA: u32 = 1;
pub(crate) const RGBA: u32 = 67;

/// What is opaque and only red, green or blue.
pub(crate) const RED: [f32; 4] = [1.0, 0.0, 0.0, 1.0];
pub(crate) const GREEN: [f32; 4] = [0.0, 1.0, 0.0, 1.0];
pub(crate) const BLUE: [f32; 4] = [0.0, 0.0, 1.0, 1.0];

/// The sub-context and the objects of every picture.
const SUB_CONTEXT: u32 = 1;
const SURFACE: u32 = 10;
const VERTEX_SHADER: u32 = 11;
const FRAGMENT_SHADER: u32 = 12;
const STATE: u32 = 13;
const ELEMENTS: u32 = 20;

/// A session with contexts, as QEMU's GPU with a screen passes it on: without capability sets of
/// contexts, which are all virgl.
pub(crate) fn plain(display: Option<DisplayConfig>) -> SessionOptions {
    let mut options = SessionOptions::default();
    options.features |= feature::VIRGL;
    options.display = display;
    options
}

/// A session whose contexts have capability sets and rings.
pub(crate) fn typed(display: Option<DisplayConfig>) -> SessionOptions {
    let mut options = plain(display);
    options.features |= feature::CONTEXT_INIT;
    options
}

/// A texture that a context draws into, with guest memory behind it.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) context: u32,
    pub(crate) id: u32,
    pub(crate) format: u32,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) backing: Vec<Span>,
}

impl Target {
    /// Makes it in a context that is there.
    pub(crate) fn new(
        gpu: &mut Gpu,
        context: u32,
        id: u32,
        format: u32,
        size: (u32, u32),
    ) -> Result<Self> {
        let (width, height) = size;
        let create = virgl::render_target(id, format, width, height);
        Self::of(gpu, context, &create)
    }

    /// Makes it as `create` says.
    pub(crate) fn of(gpu: &mut Gpu, context: u32, create: &Create3d) -> Result<Self> {
        let &Create3d {
            width,
            height,
            format,
            resource: id,
            ..
        } = create;
        let backing = gpu.create_3d_in(context, create, 4 * width as usize * height as usize)?;
        Ok(Target {
            context,
            id,
            format,
            width,
            height,
            backing,
        })
    }

    pub(crate) fn rect(&self) -> Rect {
        Rect::sized(self.width, self.height)
    }

    /// A stream that draws into it from here on; once for each context.
    pub(crate) fn begin(&self) -> Stream {
        Stream::new()
            .sub_context(SUB_CONTEXT)
            .surface(SURFACE, self.id, self.format)
            .framebuffer(SURFACE)
            .viewport(self.width, self.height)
    }

    /// The same, ready to draw triangles from a buffer.
    pub(crate) fn begin_triangles(&self, buffer: u32) -> Stream {
        self.begin()
            .shader(VERTEX_SHADER, Stage::Vertex, virgl::PASS_VERTEX)
            .shader(FRAGMENT_SHADER, Stage::Fragment, virgl::PASS_COLOR)
            .plain_state(STATE)
            .vertices(ELEMENTS, buffer)
    }

    /// Its pixels, each four bytes: all that is drawn before is in them.
    pub(crate) fn read(&self, gpu: &mut Gpu) -> Result<Vec<u8>> {
        let len = 4 * self.width as usize * self.height as usize;
        let span = self.backing[0];
        gpu.ram.fill(span.addr, len, 0x5a)?;
        gpu.transfer_from_host_3d(&Transfer3d::flat(self.context, self.id, self.rect()))?;
        gpu.ram.read(span.addr, len)
    }

    /// The pixels at these places.
    pub(crate) fn pixel(&self, pixels: &[u8], x: u32, y: u32) -> [u8; 4] {
        let at = 4 * (y * self.width + x) as usize;
        pixels[at..at + 4].try_into().unwrap()
    }
}

/// A colour as a pixel of a format.
pub(crate) fn pixel_of(format: u32, color: [f32; 4]) -> [u8; 4] {
    let [r, g, b, a] = color.map(|part| (part * 255.0).round() as u8);
    match format {
        BGRA => [b, g, r, a],
        RGBA => [r, g, b, a],
        other => panic!("format {other}"),
    }
}

/// Makes a buffer with these corners in a context.
pub(crate) fn corners(gpu: &mut Gpu, context: u32, id: u32, corners: &[Vertex]) -> Result<()> {
    let bytes = Vertex::to_bytes(corners);
    let len = bytes.len() as u32;
    let create = virgl::vertex_buffer(id, len);
    let backing = gpu.create_3d_in(context, &create, bytes.len())?;
    gpu.ram.scatter(&backing, 0, &bytes)?;
    gpu.transfer_to_host_3d(&Transfer3d::flat(context, id, Rect::sized(len, 1)))
}

/// Submits and waits for the fence.
pub(crate) fn draw(gpu: &mut Gpu, context: u32, stream: &Stream) -> Result<()> {
    let request = fenced_submit(context, &stream.bytes(), 1, Line::Global);
    gpu.command("SUBMIT_3D", &request)
}

/// Checks that a context, resources and drawing work, in ids that nothing else uses, and takes all
/// away again.
pub(crate) fn check_draws(gpu: &mut Gpu) -> Result<()> {
    const ID: u32 = 4000;
    gpu.create_context(ID, 0)?;
    let target = Target::new(gpu, ID, ID, BGRA, (16, 16))?;
    draw(gpu, ID, &target.begin().clear(GREEN))?;
    let pixels = target.read(gpu)?;
    assert_eq!(pixels, pixel_of(BGRA, GREEN).repeat(256));
    gpu.destroy_context(ID)?;
    gpu.unref(ID)?;
    target.backing.iter().for_each(|span| gpu.ram.free(*span));
    Ok(())
}

/// All answers are good ones.
pub(crate) fn all_good(answers: &[(usize, Response)]) {
    for (at, answer) in answers {
        assert_eq!(answer.kind(), resp::OK_NODATA, "request {at}");
    }
}
