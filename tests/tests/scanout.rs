//! Scanouts: parts of resources, several outputs, damage, page flips, resources that go away.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::cast_lossless,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "test code: a broken expectation is to stop the test loudly"
)]

use nosnoop_tests::frontend::display::kind;
use nosnoop_tests::frontend::pixels::{BGRX, Picture, Random, noise};
use nosnoop_tests::frontend::request;
use nosnoop_tests::frontend::response::resp;
use nosnoop_tests::frontend::{DisplayConfig, Rect, Result, Rig, SessionOptions};

#[test]
fn any_part_of_a_resource_can_be_a_scanout() -> Result<()> {
    let mut rig = Rig::new()?;
    let resource = rig.gpu.create_picture(1, BGRX, 200, 150)?;
    let raw = noise(1, resource.len());
    rig.gpu.paint(&resource, &raw)?;
    let picture = Picture::of(BGRX, 200, 150, &raw);
    let mut random = Random::new(5);
    let edges = [
        Rect::new(199, 149, 1, 1),
        Rect::new(0, 149, 200, 1),
        Rect::new(17, 0, 1, 150),
    ];
    for rect in edges
        .into_iter()
        .chain((0..12).map(|_| random.rect(200, 150)))
    {
        rig.gpu.set_scanout(0, 1, rect)?;
        rig.gpu.flush(1, resource.rect())?;
        rig.display().wait_picture(0, &picture.crop(rect))?;
    }
    rig.finish()
}

#[test]
fn one_resource_on_several_scanouts_shows_each_its_part() -> Result<()> {
    let args = ["--output=64x64"; 4];
    let mut display = DisplayConfig::sized(64, 64);
    display.displays = vec![display.displays[0]; 4];
    let mut rig = Rig::start(&args, &SessionOptions::with_display(display))?;
    let resource = rig.gpu.create_picture(1, BGRX, 160, 120)?;
    let parts = [
        Rect::new(0, 0, 160, 120),
        Rect::new(40, 30, 64, 64),
        Rect::new(96, 56, 64, 64),
        Rect::new(0, 0, 1, 1),
    ];
    for (at, rect) in parts.into_iter().enumerate() {
        rig.gpu.set_scanout(at as u32, 1, rect)?;
    }
    let mut shown = vec![0; resource.len()];
    let mut random = Random::new(11);
    for round in 0..10 {
        let raw = noise(round, resource.len());
        rig.ram.scatter(&resource.backing, 0, &raw)?;
        let rect = random.rect(160, 120);
        let offset = u64::from(rect.y) * 640 + u64::from(rect.x) * 4;
        rig.gpu.transfer(1, rect, offset)?;
        rig.gpu.flush(1, rect)?;
        let mut picture = Picture::of(BGRX, 160, 120, &shown);
        picture.copy_from(&Picture::of(BGRX, 160, 120, &raw), rect);
        for (at, part) in parts.into_iter().enumerate() {
            rig.display().wait_picture(at, &picture.crop(part))?;
        }
        shown = picture.bytes;
    }
    rig.finish()
}

#[test]
fn flushed_damage_alone_is_shown_and_lies_inside_the_scanout() -> Result<()> {
    let mut rig = Rig::new()?;
    let resource = rig.gpu.create_picture(1, BGRX, 100, 100)?;
    let view = Rect::new(20, 30, 50, 40);
    rig.gpu.set_scanout(0, 1, view)?;
    let first = noise(1, resource.len());
    rig.gpu.show(&resource, &first)?;
    let mut whole = Picture::of(BGRX, 100, 100, &first);
    rig.display().wait_picture(0, &whole.crop(view))?;
    let mut random = Random::new(3);
    for round in 0..20 {
        // Everything is transferred, but only the damage may appear.
        let raw = noise(100 + round, resource.len());
        rig.gpu.paint(&resource, &raw)?;
        let damage = random.rect(100, 100);
        rig.gpu.flush(1, damage)?;
        whole.copy_from(&Picture::of(BGRX, 100, 100, &raw), damage);
        rig.display().wait_picture(0, &whole.crop(view))?;
        // What the shadow kept must agree with the resource before the next round starts.
        rig.gpu.flush(1, resource.rect())?;
        whole = Picture::of(BGRX, 100, 100, &raw);
        rig.display().wait_picture(0, &whole.crop(view))?;
    }
    rig.finish()
}

#[test]
fn a_flush_beside_the_scanout_sends_nothing() -> Result<()> {
    let mut rig = Rig::new()?;
    let resource = rig.gpu.create_picture(1, BGRX, 100, 100)?;
    rig.gpu.set_scanout(0, 1, Rect::new(0, 0, 50, 50))?;
    let raw = noise(1, resource.len());
    rig.gpu.show(&resource, &raw)?;
    rig.display().wait_picture(
        0,
        &Picture::of(BGRX, 100, 100, &raw).crop(Rect::sized(50, 50)),
    )?;
    let before = rig.display().count(kind::UPDATE);
    for rect in [
        Rect::new(50, 0, 50, 100),
        Rect::new(0, 50, 100, 50),
        Rect::new(99, 99, 1, 1),
    ] {
        rig.gpu.flush(1, rect)?;
    }
    // A request that the sender answers comes after anything it had to send.
    rig.gpu.display_info()?;
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert_eq!(rig.display().count(kind::UPDATE), before);
    rig.finish()
}

#[test]
fn page_flips_show_the_new_buffer_each_time() -> Result<()> {
    let mut rig = Rig::new()?;
    let buffers = [
        rig.gpu.create_picture(1, BGRX, 320, 200)?,
        rig.gpu.create_picture(2, BGRX, 320, 200)?,
    ];
    for frame in 0..30 {
        let buffer = &buffers[frame % 2];
        let raw = noise(frame as u64, buffer.len());
        rig.gpu.paint(buffer, &raw)?;
        rig.gpu.set_scanout(0, buffer.id, buffer.rect())?;
        rig.gpu.flush(buffer.id, buffer.rect())?;
        rig.display()
            .wait_picture(0, &Picture::of(BGRX, 320, 200, &raw))?;
    }
    rig.finish()
}

#[test]
fn flushing_a_resource_that_is_not_shown_is_fine_and_shows_nothing() -> Result<()> {
    let mut rig = Rig::new()?;
    let resource = rig.gpu.create_picture(1, BGRX, 64, 64)?;
    rig.gpu.show(&resource, &noise(1, resource.len()))?;
    rig.gpu.display_info()?;
    assert_eq!(rig.display().count(kind::UPDATE), 0);
    rig.finish()
}

fn wait_off(rig: &Rig, scanout: usize) -> Result<()> {
    rig.display().wait_for("the scanout to go off", |s| {
        s.scanouts[scanout].is_none().then_some(())
    })
}

#[test]
fn resource_0_turns_a_scanout_off_and_it_can_come_back() -> Result<()> {
    let mut rig = Rig::new()?;
    let resource = rig.gpu.create_picture(1, BGRX, 64, 64)?;
    let raw = noise(1, resource.len());
    for _ in 0..3 {
        rig.gpu.set_scanout(0, 1, resource.rect())?;
        rig.gpu.show(&resource, &raw)?;
        rig.display()
            .wait_picture(0, &Picture::of(BGRX, 64, 64, &raw))?;
        rig.gpu.set_scanout(0, 0, Rect::default())?;
        wait_off(&rig, 0)?;
    }
    rig.finish()
}

#[test]
fn unref_of_a_shown_resource_turns_its_scanouts_off() -> Result<()> {
    let mut display = DisplayConfig::sized(64, 64);
    display.displays = vec![display.displays[0]; 2];
    let options = SessionOptions::with_display(display);
    let mut rig = Rig::start(&["--output=64x64"; 2], &options)?;
    let resource = rig.gpu.create_picture(1, BGRX, 64, 64)?;
    let raw = noise(1, resource.len());
    rig.gpu.set_scanout(0, 1, resource.rect())?;
    rig.gpu.set_scanout(1, 1, resource.rect())?;
    rig.gpu.show(&resource, &raw)?;
    rig.display()
        .wait_picture(1, &Picture::of(BGRX, 64, 64, &raw))?;
    rig.gpu.unref(1)?;
    wait_off(&rig, 0)?;
    wait_off(&rig, 1)?;
    assert_eq!(
        rig.gpu.answer(&request::flush(1, resource.rect()))?,
        resp::ERR_INVALID_RESOURCE_ID
    );
    rig.finish()
}

#[test]
fn a_scanout_beyond_the_outputs_is_refused() -> Result<()> {
    let mut rig = Rig::headless(&["--output=64x64", "--output=64x64"])?;
    let resource = rig.gpu.create_picture(1, BGRX, 64, 64)?;
    rig.gpu.set_scanout(1, 1, resource.rect())?;
    for scanout in [2, 15, 16, 255, 256, u32::MAX] {
        let set = request::set_scanout(scanout, 1, resource.rect());
        assert_eq!(
            rig.gpu.answer(&set)?,
            resp::ERR_INVALID_SCANOUT_ID,
            "{scanout}"
        );
        let off = request::set_scanout(scanout, 0, resource.rect());
        assert_eq!(
            rig.gpu.answer(&off)?,
            resp::ERR_INVALID_SCANOUT_ID,
            "{scanout} off"
        );
        let cursor = request::move_cursor(request::Cursor {
            scanout,
            ..request::Cursor::default()
        });
        assert_eq!(
            rig.gpu.cursor.call(&cursor, 24)?.kind(),
            resp::ERR_INVALID_SCANOUT_ID,
            "{scanout} cursor"
        );
    }
    rig.finish()
}

#[test]
fn outputs_that_the_display_has_switched_off_are_there_for_the_guest() -> Result<()> {
    // As with QEMU's max_outputs=4: Linux asks for each EDID and switches each unused output off.
    let mut rig = Rig::with_display(DisplayConfig::sized(640, 480))?;
    rig.gpu.display_info()?;
    for scanout in 0..4 {
        assert_eq!(
            &rig.gpu.edid(scanout)?[..8],
            if scanout == 0 {
                [0, 1, 2, 3, 4, 5, 6, 7]
            } else {
                [0, 255, 255, 255, 255, 255, 255, 0]
            }
        );
        rig.gpu.set_scanout(scanout, 0, Rect::new(0, 0, 0, 0))?;
    }
    // A front-end need not answer for an output that it does not have.
    assert_eq!(rig.display().count(kind::GET_EDID), 1);
    rig.finish()
}

#[test]
fn a_scanout_larger_than_any_display_is_refused() -> Result<()> {
    let mut rig = Rig::new()?;
    for (width, height, expected) in [
        (16_384, 1, resp::OK_NODATA),
        (1, 16_384, resp::OK_NODATA),
        (16_385, 1, resp::ERR_INVALID_PARAMETER),
        (1, 16_385, resp::ERR_INVALID_PARAMETER),
        (100_000_000, 1, resp::ERR_INVALID_PARAMETER),
    ] {
        rig.gpu.create_2d(1, BGRX, width, height)?;
        let set = request::set_scanout(0, 1, Rect::sized(width, height));
        assert_eq!(rig.gpu.answer(&set)?, expected, "{width}x{height}");
        rig.gpu.unref(1)?;
    }
    rig.finish()
}

#[test]
fn a_resize_sends_the_new_size_before_any_update_in_it() -> Result<()> {
    let mut rig = Rig::new()?;
    // The display checks that every update lies inside the size last announced.
    for round in 0..40_u32 {
        let (width, height) = (16 + 37 * round % 500, 16 + 91 * round % 400);
        let id = 1 + round;
        let resource = rig.gpu.create_picture(id, BGRX, width, height)?;
        rig.gpu.set_scanout(0, id, resource.rect())?;
        let raw = noise(u64::from(round), resource.len());
        rig.gpu.show(&resource, &raw)?;
        if round % 4 == 3 {
            rig.display()
                .wait_picture(0, &Picture::of(BGRX, width, height, &raw))?;
        }
        rig.check_display()?;
        rig.gpu.unref(id)?;
    }
    rig.finish()
}
