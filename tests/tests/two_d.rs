//! 2D resources: creation, backing, transfers of any rectangle from any fragments, eight formats.
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
use nosnoop_tests::frontend::memory::PAGE;
use nosnoop_tests::frontend::pixels::{BGRX, FORMATS, Picture, Random, noise};
use nosnoop_tests::frontend::request;
use nosnoop_tests::frontend::response::resp;
use nosnoop_tests::frontend::{ChainShape, DisplayConfig, Rect, Result, Rig};

#[test]
fn each_of_the_eight_formats_shows_its_own_colours() -> Result<()> {
    let mut rig = Rig::new()?;
    for (at, (format, ..)) in FORMATS.into_iter().enumerate() {
        let id = 1 + at as u32;
        let resource = rig.gpu.create_picture(id, format, 33, 17)?;
        rig.gpu.set_scanout(0, id, resource.rect())?;
        let raw = noise(u64::from(format), resource.len());
        rig.gpu.show(&resource, &raw)?;
        rig.display()
            .wait_picture(0, &Picture::of(format, 33, 17, &raw))?;
    }
    rig.finish()
}

#[test]
fn sizes_from_one_pixel_to_wide_and_tall_show_every_pixel() -> Result<()> {
    let mut rig = Rig::new()?;
    let sizes = [
        (1, 1),
        (1, 300),
        (300, 1),
        (7, 5),
        (1280, 800),
        (4096, 3),
        (3, 4096),
    ];
    for (at, (width, height)) in sizes.into_iter().enumerate() {
        let id = 1 + at as u32;
        let resource = rig.gpu.create_picture(id, BGRX, width, height)?;
        rig.gpu.set_scanout(0, id, resource.rect())?;
        let raw = noise(u64::from(id), resource.len());
        rig.gpu.show(&resource, &raw)?;
        rig.display()
            .wait_picture(0, &Picture::of(BGRX, width, height, &raw))?;
    }
    rig.finish()
}

/// The reference for a transfer: rows of the rectangle from `offset` on, as far apart as the rows of
/// the resource, land at the rectangle's place.
fn transfer_model(host: &mut [u8], width: u32, backing: &[u8], rect: Rect, offset: usize) {
    let stride = 4 * width as usize;
    let row = 4 * rect.width as usize;
    for y in 0..rect.height as usize {
        let from = offset + y * stride;
        let to = (rect.y as usize + y) * stride + 4 * rect.x as usize;
        host[to..to + row].copy_from_slice(&backing[from..from + row]);
    }
}

#[test]
fn random_transfers_from_random_fragments_match_the_reference() -> Result<()> {
    let mut rig = Rig::new()?;
    for seed in 0..24 {
        let mut random = Random::new(seed);
        let (width, height) = (random.within(1, 90) as u32, random.within(1, 70) as u32);
        let (format, ..) = FORMATS[random.within(0, 7) as usize];
        let id = 1 + seed as u32;
        let len = 4 * width as usize * height as usize;
        // Fragments of odd lengths: a pixel may be cut in the middle.
        let lengths: Vec<usize> = (0..random.within(1, 6))
            .map(|_| random.within(1, 3000) as usize)
            .collect();
        let extra = random.within(0, 5000) as usize;
        let fragments = rig.ram.alloc_fragments(len + extra, &lengths)?;
        let backing = noise(seed + 100, len + extra);
        rig.ram.scatter(&fragments, 0, &backing)?;
        rig.gpu.create_2d(id, format, width, height)?;
        rig.gpu.attach_backing(id, &fragments)?;
        rig.gpu.set_scanout(0, id, Rect::sized(width, height))?;
        let mut host = vec![0; len];
        for step in 0..12 {
            let rect = random.rect(width, height);
            let row = 4 * width as usize;
            let needed = (rect.height as usize - 1) * row + 4 * rect.width as usize;
            let natural = rect.y as usize * row + 4 * rect.x as usize;
            let room = (len + extra - needed) as u64;
            let offset = if step % 2 == 0 {
                natural
            } else {
                random.within(0, room) as usize
            };
            rig.gpu.transfer(id, rect, offset as u64)?;
            transfer_model(&mut host, width, &backing, rect, offset);
        }
        rig.gpu.flush(id, Rect::sized(width, height))?;
        let expected = Picture::of(format, width, height, &host);
        rig.display()
            .wait_picture(0, &expected)
            .unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    }
    rig.finish()
}

#[test]
fn a_transfer_that_ends_at_the_last_byte_works_and_one_byte_more_is_refused() -> Result<()> {
    let mut rig = Rig::new()?;
    let resource = rig.gpu.create_picture(1, BGRX, 16, 16)?;
    rig.gpu.set_scanout(0, 1, resource.rect())?;
    let rect = Rect::new(3, 2, 5, 4);
    let needed = 3 * 64 + 20;
    let last = resource.len() as u64 - needed;
    let raw = noise(1, resource.len());
    rig.ram.scatter(&resource.backing, 0, &raw)?;
    rig.gpu.transfer(1, rect, last)?;
    let mut host = vec![0; resource.len()];
    transfer_model(&mut host, 16, &raw, rect, last as usize);
    rig.ram
        .scatter(&resource.backing, 0, &noise(2, resource.len()))?;
    for offset in [
        last + 1,
        last + 4,
        1024,
        1 << 31,
        1 << 32,
        u64::MAX - 3,
        u64::MAX,
    ] {
        let answer = rig
            .gpu
            .answer(&request::transfer_to_host_2d(1, rect, offset))?;
        assert_eq!(answer, resp::ERR_INVALID_PARAMETER, "offset {offset:#x}");
    }
    // What was refused has not been done in part either.
    rig.gpu.flush(1, resource.rect())?;
    rig.display()
        .wait_picture(0, &Picture::of(BGRX, 16, 16, &host))?;
    rig.finish()
}

#[test]
fn new_resources_are_black_until_transferred() -> Result<()> {
    let mut rig = Rig::new()?;
    let resource = rig.gpu.create_picture(1, BGRX, 40, 30)?;
    rig.gpu.set_scanout(0, 1, resource.rect())?;
    rig.gpu.show(&resource, &noise(1, resource.len()))?;
    rig.gpu.unref(1)?;
    // Same id, same size: nothing of the old pixels may show.
    rig.gpu.create_2d(1, BGRX, 40, 30)?;
    rig.gpu.set_scanout(0, 1, resource.rect())?;
    rig.gpu.flush(1, resource.rect())?;
    rig.display()
        .wait_for("a flush of the new resource", |state| {
            state.scanouts[0]
                .as_ref()
                .filter(|s| !s.updates.is_empty())
                .map(|_| ())
        })?;
    rig.display().wait_picture(0, &Picture::black(40, 30))?;
    rig.finish()
}

#[test]
fn backing_written_but_not_transferred_is_not_shown() -> Result<()> {
    let mut rig = Rig::new()?;
    let resource = rig.gpu.create_picture(1, BGRX, 40, 30)?;
    rig.gpu.set_scanout(0, 1, resource.rect())?;
    let first = noise(1, resource.len());
    let shown = Picture::of(BGRX, 40, 30, &first);
    rig.gpu.show(&resource, &first)?;
    rig.display().wait_picture(0, &shown)?;
    let before = rig.display().count(kind::UPDATE);
    rig.ram
        .scatter(&resource.backing, 0, &noise(2, resource.len()))?;
    rig.gpu.flush(1, resource.rect())?;
    rig.display().wait_for("the second flush", |state| {
        (state.counts[&kind::UPDATE] > before).then_some(())
    })?;
    rig.display().wait_picture(0, &shown)?;
    rig.finish()
}

#[test]
fn detached_backing_keeps_the_picture_and_can_be_replaced() -> Result<()> {
    let mut rig = Rig::new()?;
    let resource = rig.gpu.create_picture(1, BGRX, 32, 32)?;
    rig.gpu.set_scanout(0, 1, resource.rect())?;
    let raw = noise(4, resource.len());
    rig.gpu.show(&resource, &raw)?;
    rig.gpu.detach_backing(1)?;
    assert_eq!(
        rig.gpu.answer(&request::detach_backing(1))?,
        resp::ERR_UNSPEC
    );
    let whole = request::transfer_to_host_2d(1, resource.rect(), 0);
    assert_eq!(rig.gpu.answer(&whole)?, resp::ERR_UNSPEC);
    rig.gpu.flush(1, resource.rect())?;
    rig.display()
        .wait_picture(0, &Picture::of(BGRX, 32, 32, &raw))?;
    let other = rig.ram.alloc(resource.len())?;
    rig.gpu.attach_backing(1, &[other])?;
    let raw = noise(5, resource.len());
    rig.ram.write(other.addr, &raw)?;
    rig.gpu.transfer(1, resource.rect(), 0)?;
    rig.gpu.flush(1, resource.rect())?;
    rig.display()
        .wait_picture(0, &Picture::of(BGRX, 32, 32, &raw))?;
    rig.finish()
}

#[test]
fn a_backing_of_thousands_of_pages_in_reverse_order_is_read_in_list_order() -> Result<()> {
    let mut rig = Rig::with_display(DisplayConfig::sized(1920, 1080))?;
    let len = 1920 * 1080 * 4;
    let mut fragments = rig.ram.alloc_fragments(len, &[PAGE as usize])?;
    let last = fragments.pop();
    fragments.reverse();
    fragments.extend(last);
    let raw = noise(9, len);
    rig.ram.scatter(&fragments, 0, &raw)?;
    rig.gpu.create_2d(1, BGRX, 1920, 1080)?;
    rig.gpu.attach_backing(1, &fragments)?;
    rig.gpu.set_scanout(0, 1, Rect::sized(1920, 1080))?;
    rig.gpu.transfer(1, Rect::sized(1920, 1080), 0)?;
    rig.gpu.flush(1, Rect::sized(1920, 1080))?;
    rig.display()
        .wait_picture(0, &Picture::of(BGRX, 1920, 1080, &raw))?;
    rig.finish()
}

#[test]
fn the_same_page_many_times_in_a_backing_repeats_its_bytes() -> Result<()> {
    let mut rig = Rig::new()?;
    let page = rig.ram.alloc(PAGE as usize)?;
    let bytes = noise(8, PAGE as usize);
    rig.ram.write(page.addr, &bytes)?;
    // 64 x 64 pixels are four pages.
    rig.gpu.create_2d(1, BGRX, 64, 64)?;
    rig.gpu.attach_backing(1, &[page; 4])?;
    rig.gpu.set_scanout(0, 1, Rect::sized(64, 64))?;
    rig.gpu.transfer(1, Rect::sized(64, 64), 0)?;
    rig.gpu.flush(1, Rect::sized(64, 64))?;
    rig.display()
        .wait_picture(0, &Picture::of(BGRX, 64, 64, &bytes.repeat(4)))?;
    rig.finish()
}

#[test]
fn backing_in_both_memory_regions_is_read_across_the_hole() -> Result<()> {
    let mut rig = Rig::new()?;
    let low = rig.ram.alloc(6000)?;
    let high = rig.ram.alloc_above(4 * 64 * 64 - 6000, 0x1_0000_0000)?;
    assert!(high.addr >= 0x1_0000_0000);
    let raw = noise(6, 4 * 64 * 64);
    rig.ram.scatter(&[low, high], 0, &raw)?;
    rig.gpu.create_2d(1, BGRX, 64, 64)?;
    rig.gpu.attach_backing(1, &[low, high])?;
    rig.gpu.set_scanout(0, 1, Rect::sized(64, 64))?;
    rig.gpu.transfer(1, Rect::sized(64, 64), 0)?;
    rig.gpu.flush(1, Rect::sized(64, 64))?;
    rig.display()
        .wait_picture(0, &Picture::of(BGRX, 64, 64, &raw))?;
    rig.finish()
}

#[test]
fn many_commands_in_flight_are_done_in_order_with_one_kick() -> Result<()> {
    let mut rig = Rig::new()?;
    let resource = rig.gpu.create_picture(1, BGRX, 64, 64)?;
    rig.gpu.set_scanout(0, 1, resource.rect())?;
    let raw = noise(2, resource.len());
    rig.ram.scatter(&resource.backing, 0, &raw)?;
    let mut tickets = Vec::new();
    for y in 0..60 {
        let rect = Rect::new(0, y, 64, 1);
        let offset = u64::from(y) * 256;
        tickets.push(
            rig.gpu
                .queue(&request::transfer_to_host_2d(1, rect, offset))?,
        );
        tickets.push(rig.gpu.queue(&request::flush(1, rect))?);
    }
    rig.gpu.finish(&tickets)?;
    let mut expected = Picture::black(64, 64);
    expected.copy_from(&Picture::of(BGRX, 64, 64, &raw), Rect::sized(64, 60));
    rig.display().wait_picture(0, &expected)?;
    rig.finish()
}

#[test]
fn requests_and_responses_cut_into_any_descriptors_mean_the_same() -> Result<()> {
    let mut rig = Rig::new()?;
    let info = rig.gpu.display_info()?;
    let request = request::get_display_info();
    for indirect in [false, true] {
        for cuts in [vec![1], vec![4, 4, 8], vec![1; 23], vec![24], vec![23, 1]] {
            let shape = ChainShape {
                request_cuts: cuts.clone(),
                response_cuts: cuts.clone(),
                indirect,
            };
            let response = rig.gpu.control.call_shaped(&request, 408, &shape)?;
            assert_eq!(response.written(), 408, "{shape:?}");
            assert_eq!(response.displays(), info, "{shape:?}");
        }
    }
    rig.finish()
}

#[test]
fn bytes_behind_a_request_are_ignored_and_room_behind_a_response_is_untouched() -> Result<()> {
    let mut rig = Rig::new()?;
    let request = request::create_2d(1, BGRX, 16, 16).bytes(&[0xee; 500]);
    let response = rig.gpu.call(&request, 4096)?;
    assert_eq!((response.kind(), response.written()), (resp::OK_NODATA, 24));
    assert!(response.beyond_is_untouched());
    rig.finish()
}
