//! What cases of several groups share.

use super::common::answered;
pub(super) use super::common::{answers, begin, is_error, refused, show, works};
use crate::conform::case::{Outcome, Stop, check};
use crate::conform::trial::Trial;
use crate::frontend::cross_domain::CAPSET;
use crate::frontend::memory::{PAGE, Span};
use crate::frontend::message::{feature, u32_at};
use crate::frontend::pixels::{BGRX, Picture};
use crate::frontend::request::{self, RequestBytes, ScanoutBlob};
use crate::frontend::response::{self, resp};
use crate::frontend::ring::{DESC_WRITE, Descriptor};
use crate::frontend::{
    Deadline, DisplayConfig, Gpu, ImageContext, Rect, Response, Session, SessionOptions,
};

/// Whether a request succeeds, where the specification allows both; fails when the answer is neither
/// success nor an error.
pub(super) fn succeeds(
    session: &mut Session,
    what: &str,
    request: &RequestBytes,
) -> Result<bool, Stop> {
    Ok(!is_error(answered(session, what, request)?))
}

/// The default, and contexts where they are offered.
pub(super) fn with_contexts() -> SessionOptions {
    let mut options = SessionOptions::default();
    options.features |= feature::VIRGL | feature::CONTEXT_INIT;
    options
}

/// All that host blobs need, and a display.
pub(super) fn with_host_blobs() -> SessionOptions {
    SessionOptions {
        display: Some(DisplayConfig::default()),
        ..SessionOptions::host_blobs()
    }
}

/// What GET_CAPSET_INFO says of each capability set: id, highest version, bytes.
pub(super) fn capsets(session: &mut Session) -> Result<Vec<[u32; 3]>, Stop> {
    let config = session.vhost.config(0, 16)?;
    let count = u32_at(&config, 12);
    check(
        count <= 64,
        format_args!("num_capsets is {count}, more than contexts can name"),
    )?;
    let mut sets = Vec::new();
    for index in 0..count {
        let request = request::get_capset_info(index);
        let answer = session.gpu.call(&request, response::CAPSET_INFO)?;
        let answer = answer.expect("GET_CAPSET_INFO", resp::OK_CAPSET_INFO)?;
        check(
            answer.written() == response::CAPSET_INFO,
            format_args!("capset info of {} bytes, not 40", answer.written()),
        )?;
        sets.push(answer.capset_info());
    }
    Ok(sets)
}

/// A value for `context_init` that makes a context of some kind: the first capability set, or 0,
/// for the device to determine, where there is none.
pub(super) fn a_capset(session: &mut Session) -> Result<u32, Stop> {
    if session.features & feature::CONTEXT_INIT == 0 {
        return Ok(0);
    }
    let sets = capsets(session)?;
    Ok(sets.first().map_or(0, |set| set[0]))
}

/// Skips unless the device has the cross-domain capability set, the one way known here to allocate
/// memory on the host.
pub(super) fn need_cross_domain(session: &mut Session) -> Outcome {
    match capsets(session)?.iter().any(|set| set[0] == CAPSET) {
        true => Ok(()),
        false => Err(Stop::skip(
            "no cross-domain capability set (5), by which memory is allocated here",
        )),
    }
}

/// Asks of the shared-memory channel what the specification says, and not what our daemon does more.
pub(super) fn only_the_specification(session: &Session) {
    session.shmem().require_seals(false);
    session.shmem().require_replies(false);
}

/// Skips if the last request to the front-end asked for no acknowledgement, which is the back-end's
/// choice: it cannot know then what became of it.
pub(super) fn need_reply(session: &Session) -> Outcome {
    match session.shmem().requests().last() {
        Some(request) if !request.need_reply => Err(Stop::skip(
            "the back-end does not ask the front-end for acknowledgements",
        )),
        _ => Ok(()),
    }
}

/// A device with a display, the channel for shared memory, and context 1 for images with its query
/// ring, resource 100.
pub(super) fn host_blobs(trial: &mut Trial) -> Result<(Session, ImageContext), Stop> {
    let alignment = trial.config().and_then(|config| config.get(16..20));
    let alignment = alignment.map_or(1, |bytes| u32_at(bytes, 0));
    if u64::from(alignment) > PAGE {
        return Err(Stop::skip(format_args!(
            "blob_alignment is {alignment}, and blobs are mapped here at multiples of a page"
        )));
    }
    let mut session = trial.session(&with_host_blobs())?;
    need_cross_domain(&mut session)?;
    only_the_specification(&session);
    let context = ImageContext::new(&mut session.gpu, 1, 100)?;
    Ok((session, context))
}

/// A picture of `width` x `height` at the beginning of a blob, shown whole on scanout 0.
pub(super) fn plain(resource: u32, width: u32, height: u32) -> ScanoutBlob {
    ScanoutBlob {
        scanout: 0,
        resource,
        rect: Rect::sized(width, height),
        width,
        height,
        format: BGRX,
        stride: 4 * width,
        offset: 0,
    }
}

/// What a scanout of a blob with these bytes shows.
pub(super) fn shown(bytes: &[u8], blob: ScanoutBlob) -> Picture {
    let rect = blob.rect;
    let raw: Vec<u8> = (rect.y..rect.y + rect.height)
        .flat_map(|y| {
            let row = blob.offset as usize + y as usize * blob.stride as usize;
            let start = row + 4 * rect.x as usize;
            bytes[start..start + 4 * rect.width as usize].to_vec()
        })
        .collect();
    Picture::of(blob.format, rect.width, rect.height, &raw)
}

/// A descriptor that the device reads.
pub(super) fn readable(span: Span) -> Descriptor {
    Descriptor {
        addr: span.addr,
        len: span.len,
        flags: 0,
        next: 0,
    }
}

/// A descriptor that the device writes.
pub(super) fn writable(span: Span) -> Descriptor {
    Descriptor {
        flags: DESC_WRITE,
        ..readable(span)
    }
}

/// Commands on the control queue whose answers are wanted in the order in which they come.
#[derive(Debug, Default)]
pub(super) struct Batch {
    chains: Vec<(u16, Span)>,
}

impl Batch {
    /// Submits a request with `room` bytes for its response, without a kick.
    pub(super) fn push(&mut self, gpu: &mut Gpu, request: &[u8], room: usize) -> Outcome {
        let asked = gpu.ram.alloc(request.len())?;
        gpu.ram.write(asked.addr, request)?;
        let answer = gpu.ram.alloc(room)?;
        let chain = [readable(asked), writable(answer)];
        let head = gpu.control.ring().submit(&chain)?;
        self.chains.push((head, answer));
        Ok(())
    }

    /// Kicks and waits for all; each answer with the position of its request.
    pub(super) fn answers(self, gpu: &mut Gpu) -> Result<Vec<(usize, Response)>, Stop> {
        gpu.control.kick()?;
        let mut answers = Vec::new();
        for _ in &self.chains {
            let used = gpu.control.ring().wait_used(&Deadline::default())?;
            let at = self.chains.iter().position(|(head, _)| *head == used.head);
            let at = at.ok_or_else(|| Stop::fail("an answer to a chain of nobody's"))?;
            let answer = self.chains[at].1;
            let bytes = gpu.ram.read(answer.addr, answer.len as usize)?;
            check(
                used.len <= answer.len,
                format_args!("{} bytes written into {}", used.len, answer.len),
            )?;
            answers.push((at, Response::new(bytes, used.len)));
        }
        Ok(answers)
    }
}
