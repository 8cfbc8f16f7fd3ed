//! What the cases of several groups share.

use std::time::Duration;

use crate::conform::case::{Outcome, Stop, check};
use crate::conform::trial::Trial;
use crate::frontend::driver::Resource;
use crate::frontend::message::u32_at;
use crate::frontend::pixels::{BGRX, Picture, noise};
use crate::frontend::request::{self, Cursor};
use crate::frontend::response::{self, resp};
use crate::frontend::{DisplayConfig, Rect, Response, Session, SessionOptions, patience};

/// How long a display is watched for what must not come. Whatever a back-end sends without being
/// asked has come by then, as it has answered a request after.
const QUIET: Duration = Duration::from_millis(30);

/// A rectangle that overflows any resource: most values of 32 bits that could wrap around.
pub(super) fn bad_rects(width: u32, height: u32) -> Vec<Rect> {
    let max = u32::MAX;
    vec![
        Rect::new(0, 0, width + 1, height),
        Rect::new(0, 0, width, height + 1),
        Rect::new(1, 0, width, height),
        Rect::new(0, 1, width, height),
        Rect::new(width, height, 1, 1),
        Rect::new(max, 0, 1, 1),
        Rect::new(0, max, 1, 1),
        Rect::new(0, 0, max, max),
        Rect::new(1, 1, max, max),
        Rect::new(max, 0, 2, 1),
        Rect::new(0x8000_0000, 0, 0x8000_0000, 1),
        Rect::new(max - 31, 0, 64, 64),
    ]
}

/// Whether a response type is one of those that the specification knows for errors.
pub(super) fn is_error(kind: u32) -> bool {
    (resp::ERR_UNSPEC..=resp::ERR_INVALID_PARAMETER).contains(&kind)
}

/// Checks that a request is answered with an error; the specification does not say which.
pub(super) fn refused(session: &mut Session, what: &str, request: &[u8]) -> Outcome {
    let kind = session.gpu.call(request, response::EDID)?.kind();
    check(
        is_error(kind),
        format_args!("{what}: answered {kind:#06x}, no error"),
    )
}

/// Checks that a request is answered at all, with any type that the specification knows.
pub(super) fn answered(session: &mut Session, what: &str, request: &[u8]) -> Result<u32, Stop> {
    let kind = session.gpu.call(request, response::EDID)?.kind();
    let known = is_error(kind) || (resp::OK_NODATA..=resp::OK_MAP_INFO).contains(&kind);
    check(known, format_args!("{what}: answered {kind:#06x}"))?;
    Ok(kind)
}

/// Checks type and length of a response.
pub(super) fn whole(what: &str, response: &Response, kind: u32, len: usize) -> Outcome {
    check(
        response.kind() == kind,
        format_args!(
            "{what}: answered {:#06x}, expected {kind:#06x}",
            response.kind()
        ),
    )?;
    check(
        response.written() == len,
        format_args!(
            "{what}: {} bytes of response, expected {len}",
            response.written()
        ),
    )
}

/// Ends a case in which the device must have stayed usable: both queues answer, whatever it is, and
/// the rules of the display socket and of the shared-memory channel were kept so far.
pub(super) fn works(session: &mut Session) -> Outcome {
    answers(session)?;
    session.gpu.move_cursor(Cursor::default())?;
    if session.has_display() {
        let broken = session
            .display()
            .with(|state| state.violations.first().cloned());
        if let Some(rule) = broken {
            return Err(Stop::fail(format_args!("display socket: {rule}")));
        }
    }
    Ok(session.check_shmem()?)
}

/// Checks that the control queue answers: what, is the affair of other cases.
pub(super) fn answers(session: &mut Session) -> Outcome {
    let nobody = request::unref(0x7fff_fff0);
    answered(session, "RESOURCE_UNREF of no resource", &nobody).map(|_| ())
}

/// The picture that a case begins with, where it is about something else.
///
/// # Errors
/// [`Stop::Skip`] when it is not shown: nothing can be said then about what the case is about.
pub(super) fn begin<T>(shown: Result<T, Stop>) -> Result<T, Stop> {
    shown.map_err(|stop| match stop {
        Stop::Fail(why) => Stop::skip(format_args!(
            "the picture that it begins with is not shown (2d-01 is about that): {why}"
        )),
        skip => skip,
    })
}

/// Shows resource 1, of 64 x 64 pixels of noise, on scanout 0.
pub(super) fn show(session: &mut Session, seed: u64) -> Outcome {
    let resource = show_new(session, 64, 64)?;
    paint(session, &resource, seed).map(drop)
}

/// Resource 1 of this size, all of it on scanout 0, with nothing in it yet.
fn show_new(session: &mut Session, width: u32, height: u32) -> Result<Resource, Stop> {
    let resource = session.gpu.create_picture(1, BGRX, width, height)?;
    session.gpu.set_scanout(0, 1, resource.rect())?;
    Ok(resource)
}

/// Fills a resource on scanout 0 with noise, and waits until the display shows it.
fn paint(session: &mut Session, resource: &Resource, seed: u64) -> Result<Picture, Stop> {
    let raw = noise(seed, resource.len());
    session.gpu.show(resource, &raw)?;
    let picture = Picture::of(BGRX, resource.width, resource.height, &raw);
    session.display().wait_picture(0, &picture)?;
    Ok(picture)
}

/// A picture on scanout 0 that the display has been seen to show.
pub(super) struct Shown {
    pub(super) session: Session,
    pub(super) resource: Resource,
    pub(super) picture: Picture,
}

impl Shown {
    /// Resource 1 of this size, all of it on scanout 0, with noise in it: what a case begins with
    /// that is about something else.
    ///
    /// # Errors
    /// [`Stop::Skip`] when it is not shown: nothing can be said then about what the case is about.
    pub(super) fn new(trial: &mut Trial, width: u32, height: u32) -> Result<Self, Stop> {
        begin(Self::on(trial.start()?, width, height))
    }

    /// The same on a device that runs already, by a case that is about this.
    ///
    /// # Errors
    /// [`Stop::Fail`] when it is not shown.
    pub(super) fn on(mut session: Session, width: u32, height: u32) -> Result<Self, Stop> {
        let resource = show_new(&mut session, width, height)?;
        let picture = paint(&mut session, &resource, 1)?;
        Ok(Self {
            session,
            resource,
            picture,
        })
    }

    /// Shows other noise.
    pub(super) fn paint(&mut self, seed: u64) -> Outcome {
        self.picture = paint(&mut self.session, &self.resource, seed)?;
        Ok(())
    }

    /// Checks that the display shows the picture, now that everything sent is through.
    pub(super) fn still(&mut self) -> Outcome {
        settle(&mut self.session)?;
        let different = self
            .session
            .display()
            .with(|state| match &state.scanouts[0] {
                None => Some("the scanout is off".to_owned()),
                Some(shown) if shown.picture == self.picture => None,
                Some(shown) => Some(shown.picture.difference(&self.picture)),
            });
        match different {
            None => Ok(()),
            Some(how) => Err(Stop::fail(format_args!("the picture has changed: {how}"))),
        }
    }

    /// Checks that the picture is still there, and that the next one can be shown.
    pub(super) fn finish(mut self) -> Outcome {
        self.still()?;
        self.paint(99)?;
        works(&mut self.session)
    }
}

/// Waits until everything that the back-end had to send to the display has come.
pub(super) fn settle(session: &mut Session) -> Outcome {
    session
        .gpu
        .call(&request::get_display_info(), response::EDID)?;
    std::thread::sleep(QUIET);
    Ok(())
}

/// How many scanouts the back-end says that it has. Zero, which no device may say, is how a back-end
/// leaves the number to the front-end; a case of its own is about that.
pub(super) fn scanouts(trial: &Trial) -> Option<u32> {
    let count = u32_at(trial.config()?.get(8..12)?, 0);
    (count > 0).then_some(count)
}

/// A device without a display socket, and how many scanouts it has. With one, the front-end decides
/// how many the guest is told of, and a back-end has to take all sixteen.
///
/// # Errors
/// [`Stop::Skip`] when the back-end does not say, or does not work like this.
pub(super) fn headless(trial: &mut Trial) -> Result<(Session, u32), Stop> {
    let count = scanouts(trial).filter(|count| *count <= 16);
    let count =
        count.ok_or_else(|| Stop::skip("the back-end does not say how many scanouts it has"))?;
    let mut session = trial.session(&SessionOptions::headless())?;
    session.gpu.control.set_patience(patience() / 4);
    match session.gpu.display_info() {
        Err(error) if error.is_timeout() => Err(Stop::skip(
            "the back-end answers no command before it has a display socket",
        )),
        Err(error) => Err(error.into()),
        Ok(_) => Ok((session, count)),
    }
}

/// A device with `count` displays of 640 x 480 side by side, each with an EDID of its own.
///
/// # Errors
/// [`Stop::Skip`] when the back-end has fewer scanouts.
pub(super) fn displays(trial: &mut Trial, count: u32) -> Result<Session, Stop> {
    if let Some(have) = scanouts(trial).filter(|have| *have < count) {
        return Err(Stop::skip(format_args!(
            "the back-end has {have} scanouts, {count} are needed"
        )));
    }
    trial.session(&SessionOptions::with_display(side_by_side(count)))
}

/// The configuration of such displays.
pub(super) fn side_by_side(count: u32) -> DisplayConfig {
    let mut config = DisplayConfig::sized(640, 480);
    let one = config.displays[0];
    config.displays = (0..count)
        .map(|at| {
            let mut display = one;
            display.rect.x = 640 * at;
            display
        })
        .collect();
    config.edids = (0..count).map(|at| edid(at as u8, 0)).collect();
    config
}

/// An EDID that VESA's rules allow, 1.4 without descriptors, recognisable by its serial number,
/// followed by as many empty extension blocks.
pub(super) fn edid(serial: u8, extensions: u8) -> Vec<u8> {
    let mut base = vec![0; 128];
    base[..8].copy_from_slice(&[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]);
    // The vendor "NOS" in five bits a letter, product 1.
    base[8..12].copy_from_slice(&[0x39, 0xf3, 1, 0]);
    base[12] = serial;
    // Week 1 of 2026, version 1.4, a digital input of 8 bits a colour.
    base[16..21].copy_from_slice(&[1, 36, 1, 4, 0xa0]);
    // 640 x 480 at 60 Hz; the standard timings are unused.
    base[35] = 0x20;
    base[38..54].copy_from_slice(&[1; 16]);
    for descriptor in 0..4 {
        // A dummy descriptor.
        base[54 + 18 * descriptor + 3] = 0x10;
    }
    base[126] = extensions;
    close(&mut base);
    for _ in 0..extensions {
        // An extension of CTA-861, revision 3, with nothing in it.
        let mut block = vec![0; 128];
        block[..3].copy_from_slice(&[2, 3, 4]);
        close(&mut block);
        base.extend(block);
    }
    base
}

/// Sets the last byte so that all 128 add up to zero.
fn close(block: &mut [u8]) {
    let sum = block[..127]
        .iter()
        .fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    block[127] = sum.wrapping_neg();
}
