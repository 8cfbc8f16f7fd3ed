use super::*;
use piaf::{ExtensionLibrary, ScreenSize, capabilities_from_edid, parse_edid};
use proptest::prelude::*;

const DEFAULT: Mode = Mode::new(1280, 800, 60);

fn spec<'a>(preferred: Mode, modes: &'a [Mode]) -> EdidSpec<'a> {
    EdidSpec {
        preferred,
        modes,
        name: "nosnoop 1",
        serial: 0x0102_0304,
    }
}

/// Reads with a parser that is not ours, which must have nothing to complain about.
fn read(edid: &Edid) -> piaf::DisplayCapabilities {
    let library = ExtensionLibrary::with_standard_handlers();
    let parsed = parse_edid(edid.as_bytes(), &library).unwrap();
    let capabilities = capabilities_from_edid(&parsed, &library);
    let warnings: Vec<String> = capabilities
        .iter_warnings()
        .map(|warning| format!("{warning:?}"))
        .collect();
    assert!(warnings.is_empty(), "{warnings:?}");
    capabilities
}

/// Width, height and refresh, as the parser sees them.
fn offers(capabilities: &piaf::DisplayCapabilities) -> Vec<Mode> {
    let mut modes: Vec<Mode> = capabilities
        .supported_modes
        .iter()
        .map(|mode| {
            // Whole Hz: the parser cuts what the pixel clock adds to that.
            let rate = mode.refresh_rate.unwrap();
            let hz = rate.numer().div_euclid(rate.denom());
            Mode::new(mode.width.into(), mode.height.into(), hz)
        })
        .collect();
    modes.sort_by_key(|mode| (mode.width, mode.height, mode.refresh_hz));
    modes.dedup();
    modes
}

fn offers_with(preferred: Mode, modes: &[Mode]) -> Vec<Mode> {
    offers(&read(&generate(&spec(preferred, modes))))
}

fn sorted(mut modes: Vec<Mode>) -> Vec<Mode> {
    modes.sort_by_key(|mode| (mode.width, mode.height, mode.refresh_hz));
    modes
}

#[test]
fn default_output_is_one_block_that_says_what_was_asked() {
    let edid = generate(&spec(DEFAULT, &[]));
    assert_eq!(edid.as_bytes().len(), 128);
    let seen = read(&edid);
    assert_eq!(offers(&seen), [DEFAULT]);
    assert_eq!(seen.display_name.as_deref(), Some("nosnoop 1"));
    assert_eq!(seen.serial_number, Some(0x0102_0304));
    assert_eq!(seen.serial_number_string.as_deref(), Some("16909060"));
    assert!(seen.digital);
    let Some(ScreenSize::Physical {
        width_cm,
        height_cm,
    }) = seen.screen_size
    else {
        panic!("{:?}", seen.screen_size);
    };
    // 12.8 and 8 inches.
    assert_eq!((width_cm, height_cm), (33, 20));
    assert_eq!(
        (
            seen.min_v_rate,
            seen.max_v_rate,
            seen.min_h_rate_khz,
            seen.max_h_rate_khz
        ),
        (Some(59), Some(61), Some(49), Some(50))
    );
}

#[test]
fn timing_is_cvt_reduced_blanking() {
    // From `cvt -r 1920 1080 60`: 138.50 MHz 1920 1968 2000 2080 1080 1083 1088 1111; the clock
    // differs by its step of 10 kHz.
    let timing = Timing::cvt_reduced(Mode::new(1920, 1080, 60)).unwrap();
    assert_eq!(
        timing,
        Timing {
            clock_10khz: 13866,
            width: 1920,
            height: 1080,
            h_blank: 160,
            v_blank: 31,
            h_front_porch: 48,
            h_sync: 32,
            v_front_porch: 3,
            v_sync: 5,
        }
    );
    // Sync length tells the aspect ratio.
    for (width, height, v_sync) in [
        (1024, 768, 4),
        (1366, 768, 5),
        (1920, 1200, 6),
        (1280, 1024, 7),
        (1280, 768, 7),
        (1000, 1000, 10),
    ] {
        let timing = Timing::cvt_reduced(Mode::new(width, height, 60)).unwrap();
        assert_eq!(timing.v_sync, v_sync, "{width}x{height}");
    }
    assert_eq!(
        Timing::cvt_reduced(Mode::new(640, 480, 60)),
        Some(Timing::FALLBACK)
    );
}

#[test]
fn detailed_timing_is_byte_exact() {
    let edid = generate(&spec(Mode::new(1920, 1080, 60), &[]));
    assert_eq!(
        edid.as_bytes()[54..72],
        [
            0x2a, 0x36, 0x80, 0xa0, 0x70, 0x38, 0x1f, 0x40, 0x30, 0x20, 0x35, 0x00, 0xe7, 0x12,
            0x11, 0x00, 0x00, 0x1a
        ]
    );
}

#[test]
fn further_modes_fill_the_base_block_first() {
    let modes = [
        Mode::new(1024, 768, 60),  // established
        Mode::new(1280, 1024, 75), // established
        Mode::new(1920, 1080, 60), // standard
        Mode::new(1600, 1200, 70), // standard
        Mode::new(1366, 768, 60),  // detailed
    ];
    let edid = generate(&spec(DEFAULT, &modes));
    assert_eq!(edid.as_bytes().len(), 128);
    let mut expected = modes.to_vec();
    expected.push(DEFAULT);
    assert_eq!(offers(&read(&edid)), sorted(expected));
}

#[test]
fn extension_takes_what_the_base_block_cannot() {
    let mut modes: Vec<Mode> = (1..=7).map(|i| Mode::new(1000 + i * 16, 700, 50)).collect();
    let edid = generate(&spec(DEFAULT, &modes));
    assert_eq!(edid.as_bytes().len(), 256);
    assert_eq!((edid.as_bytes()[126], edid.as_bytes()[128]), (1, 2));
    let mut expected = modes.clone();
    expected.extend([DEFAULT, Mode::new(640, 480, 60)]);
    assert_eq!(offers(&read(&edid)), sorted(expected.clone()));
    // An eighth finds no room, nor does a repeated one take any.
    modes.insert(3, modes[0]);
    modes.push(Mode::new(2000, 700, 50));
    assert_eq!(offers_with(DEFAULT, &modes), sorted(expected));
}

#[test]
fn more_standard_modes_than_slots_become_detailed() {
    let modes = [
        Mode::new(1280, 720, 60),
        Mode::new(1280, 960, 60),
        Mode::new(1280, 1024, 60),
        Mode::new(1440, 900, 60),
        Mode::new(1600, 900, 60),
        Mode::new(1600, 1200, 60),
        Mode::new(1680, 1050, 60),
        Mode::new(1920, 1080, 60),
        Mode::new(1920, 1200, 60),
        Mode::new(1920, 1440, 60),
    ];
    let mut expected = modes.to_vec();
    expected.extend([DEFAULT, Mode::new(640, 480, 60)]);
    assert_eq!(offers_with(DEFAULT, &modes), sorted(expected));
}

#[test]
fn modes_that_do_not_fit_are_left_out() {
    let modes = [
        Mode::new(5120, 2880, 60),
        Mode::new(3840, 2160, 144),
        Mode::new(63, 480, 60),
        Mode::new(800, 0, 60),
        Mode::new(800, 600, 0),
        Mode::new(800, 600, 2173),
        Mode::new(u32::MAX, u32::MAX, u32::MAX),
        DEFAULT,
    ];
    let edid = generate(&spec(DEFAULT, &modes));
    assert_eq!(edid.as_bytes().len(), 128);
    assert_eq!(offers(&read(&edid)), [DEFAULT]);
}

#[test]
fn preferred_mode_that_does_not_fit_is_reduced() {
    for (asked, expected) in [
        ((3840, 2160, 60), (3840, 2160, 60)),
        ((3840, 2160, 144), (3840, 2160, 73)),
        ((4095, 4095, 60), (4095, 4095, 36)),
        ((5120, 2880, 60), (4088, 2299, 60)),
        ((7680, 4320, 60), (4088, 2299, 60)),
        ((2160, 5120, 60), (1720, 4077, 60)),
        ((1024, 768, 0), (1024, 768, 60)),
        ((0, 0, 0), (64, 64, 60)),
        ((1, 5000, 60), (64, 4095, 60)),
        ((1920, 1080, 240), (1920, 1080, 240)),
    ] {
        let [asked, expected] = [asked, expected].map(|(w, h, hz)| Mode::new(w, h, hz));
        assert_eq!(offers_with(asked, &[]), [expected], "{asked:?}");
    }
}

#[test]
fn name_and_serial_fit_their_descriptors() {
    for (name, shown) in [
        ("", "Display"),
        ("\u{e9}\n\t", "Display"),
        ("exactly 13 ch", "exactly 13 ch"),
        ("a name that is too long", "a name that i"),
        ("cut at a space", "cut at a spac"),
        (" trim \u{1F600}", "trim"),
    ] {
        let edid = generate(&EdidSpec {
            preferred: DEFAULT,
            modes: &[],
            name,
            serial: 0,
        });
        let seen = read(&edid);
        assert_eq!(seen.display_name.as_deref(), Some(shown));
        assert_eq!(seen.serial_number_string, None);
    }
}

#[test]
fn from_bytes_takes_one_to_1024() {
    assert_eq!(Edid::from_bytes(&[]), None);
    assert_eq!(Edid::from_bytes(&[0; 1025]), None);
    for length in [1, 128, 1024] {
        let bytes = vec![7; length];
        assert_eq!(Edid::from_bytes(&bytes).unwrap().as_bytes(), bytes);
    }
}

fn any_mode() -> impl Strategy<Value = Mode> {
    let usual = (64..4200u32, 64..4200u32, 1..400u32);
    let any = (any::<u32>(), any::<u32>(), any::<u32>());
    let known = prop::sample::select(vec![
        (640, 480, 60),
        (800, 600, 72),
        (1280, 1024, 75),
        (1600, 1200, 70),
        (1920, 1080, 60),
    ]);
    prop_oneof![6 => usual, 1 => any, 3 => known].prop_map(|(w, h, hz)| Mode::new(w, h, hz))
}

proptest! {
    #[test]
    fn any_modes_give_a_valid_edid(
        preferred in any_mode(),
        modes in prop::collection::vec(any_mode(), 0..40),
        name in any::<String>(),
        serial: u32,
    ) {
        let edid = generate(&EdidSpec { preferred, modes: &modes, name: &name, serial });
        let bytes = edid.as_bytes();
        prop_assert!(matches!(bytes.len(), 128 | 256));
        for block in bytes.chunks(128) {
            prop_assert_eq!(block.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0);
        }
        let seen = read(&edid);
        // Nothing is offered that was not asked for.
        let (fitted, _) = fit(preferred);
        for mode in seen.supported_modes.iter() {
            let (w, h) = (u32::from(mode.width), u32::from(mode.height));
            let known = std::iter::once(&fitted)
                .chain(&modes)
                .chain(&[Mode::new(640, 480, 60)])
                .any(|asked| (asked.width, asked.height) == (w, h));
            prop_assert!(known, "{mode:?}");
        }
    }
}
