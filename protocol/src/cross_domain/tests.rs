use proptest::prelude::*;

use super::*;

const LEGACY: [u8; 16] = [1, 0, 16, 0, 0, 0, 0, 0, 7, 0, 0, 0, 3, 0, 0, 0];
const V1: [u8; 20] = [
    1, 0, 20, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0x08, 0x01, 0, 0, 0, 0, 0, 0,
];
const CURRENT: [u8; 36] = [
    1, 0xff, 36, 0, 9, 9, 9, 9, 7, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4, 5, 6,
    7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
];
const IMAGE: [u8; 24] = [
    2, 0, 24, 0, 0, 0, 0, 0, 0x80, 0x07, 0, 0, 0x38, 0x04, 0, 0, b'X', b'R', b'2', b'4', 0x15,
    0x0a, 0, 0,
];

type Item<'a> = Result<CrossDomainCommand<'a>, GpuError>;

fn read(data: &[u8]) -> Vec<Item<'_>> {
    commands(data).collect()
}

fn init(channel_ring: Option<u32>, channel_type: u32) -> Item<'static> {
    Ok(CrossDomainCommand::Init {
        query_ring: ResourceId::new(7).unwrap(),
        channel_ring: channel_ring.map(|id| ResourceId::new(id).unwrap()),
        channel_type,
    })
}

fn image() -> Item<'static> {
    Ok(CrossDomainCommand::GetImageRequirements(ImageRequest {
        width: 1920,
        height: 1080,
        fourcc: 0x3432_5258,
        flags: ImageFlags::SCANOUT
            | ImageFlags::RENDERING
            | ImageFlags::LINEAR
            | ImageFlags::SW_READ_OFTEN
            | ImageFlags::SW_WRITE_OFTEN,
    }))
}

/// `bytes` with `size` for `cmd_size`.
fn sized(bytes: &[u8], size: u16) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[2..4].copy_from_slice(&size.to_le_bytes());
    bytes
}

#[test]
fn init_is_read_in_each_of_its_forms() {
    assert_eq!(read(&LEGACY), [init(Some(7), 3)]);
    assert_eq!(read(&V1), [init(Some(0x108), 0)]);
    assert_eq!(read(&CURRENT), [init(None, u32::MAX)]);
}

#[test]
fn image_requests_are_read() {
    assert_eq!(read(&IMAGE), [image()]);
}

#[test]
fn several_commands_are_read_in_order() {
    let data = [&V1[..], &IMAGE, &LEGACY, &IMAGE].concat();
    assert_eq!(
        read(&data),
        [init(Some(0x108), 0), image(), init(Some(7), 3), image()]
    );
    assert_eq!(read(&[]), []);
}

#[test]
fn reading_ends_at_the_first_error() {
    for bad in [
        // Less than a header.
        vec![2],
        vec![2, 0, 24, 0, 0, 0, 0],
        // A size that leads nowhere, or past the end.
        sized(&IMAGE, 0),
        sized(&IMAGE, 7),
        sized(&IMAGE, 25 + 24),
        sized(&IMAGE, u16::MAX),
        // A size that the command cannot have.
        sized(&IMAGE, 8),
        sized(&IMAGE, 16),
        sized(&IMAGE, 23),
        sized(&[&IMAGE[..], &[0; 4]].concat(), 28),
        sized(&CURRENT, 8),
        sized(&CURRENT, 24),
        sized(&CURRENT, 35),
        sized(&[&CURRENT[..], &[0]].concat(), 37),
        // A header alone, where there is more to it.
        vec![4, 0, 8, 0, 0, 0, 0, 0],
        vec![7, 0, 8, 0, 0, 0, 0, 0],
        vec![3, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        // Commands that do not exist, or that are the host's (RECEIVE, READ).
        vec![0, 0, 8, 0, 0, 0, 0, 0],
        vec![5, 0, 8, 0, 0, 0, 0, 0],
        vec![6, 0, 8, 0, 0, 0, 0, 0],
        vec![14, 0, 8, 0, 0, 0, 0, 0],
        vec![255, 0, 8, 0, 0, 0, 0, 0],
    ] {
        let last = Err(GpuError::Unspec);
        let alone = read(&bad);
        assert_eq!(alone, [last], "{bad:?}");
        let after = [&IMAGE[..], &bad].concat();
        assert_eq!(read(&after), [image(), last], "{bad:?}");
    }
    let between = [&sized(&IMAGE, 0)[..], &IMAGE].concat();
    assert_eq!(read(&between), [Err(GpuError::Unspec)]);
}

#[test]
fn every_truncation_is_an_error() {
    for whole in [&LEGACY[..], &V1, &CURRENT, &IMAGE] {
        for end in 1..whole.len() {
            assert_eq!(read(&whole[..end]), [Err(GpuError::Unspec)], "{end}");
        }
    }
}

#[test]
fn zero_is_no_query_ring() {
    for whole in [&LEGACY[..], &V1, &CURRENT] {
        let mut bytes = [whole, &IMAGE].concat();
        bytes[8] = 0;
        assert_eq!(read(&bytes), [Err(GpuError::InvalidResourceId)]);
    }
}

#[test]
fn unknown_image_flags_are_refused() {
    for (byte, bit) in [(22, 0x10), (22, 0x80), (23, 0x80)] {
        let mut bytes = [IMAGE, IMAGE].concat();
        bytes[byte] |= bit;
        assert_eq!(read(&bytes), [Err(GpuError::InvalidParameter)], "{byte}");
    }
    let mut all = IMAGE;
    all[20..].copy_from_slice(&0x000f_ffff_u32.to_le_bytes());
    let Ok(CrossDomainCommand::GetImageRequirements(request)) = read(&all)[0] else {
        panic!("no image request");
    };
    assert_eq!(request.flags, ImageFlags::all());
}

#[test]
fn requirements_are_written_byte_for_byte() {
    let requirements = ImageRequirements {
        strides: [0x1e00, 2, 3, 4],
        offsets: [5, 6, 7, 0x0807_0605],
        modifier: 0x0102_0304_0506_0708,
        size: 0x7e9000,
        blob_id: 0x0a0b,
        map_info: MapCache::Wc,
        memory_index: -1,
        physical_device_index: -2,
    };
    #[rustfmt::skip]
    assert_eq!(requirements.to_bytes(), [
        0x00, 0x1e, 0, 0,  2, 0, 0, 0,  3, 0, 0, 0,  4, 0, 0, 0,
        5, 0, 0, 0,  6, 0, 0, 0,  7, 0, 0, 0,  5, 6, 7, 8,
        8, 7, 6, 5, 4, 3, 2, 1,  0x00, 0x90, 0x7e, 0, 0, 0, 0, 0,
        0x0b, 0x0a, 0, 0,  3, 0, 0, 0,  255, 255, 255, 255,  254, 255, 255, 255,
    ]);
}

#[test]
fn the_capability_set_is_version_one_with_or_without_wayland() {
    let mut bytes = [0; 16];
    bytes[0] = 1;
    assert_eq!(capabilities(false), bytes);
    bytes[4] = 2;
    assert_eq!(capabilities(true), bytes);
    assert_eq!(CAPSET, CapsetId(5));
}

proptest! {
    #[test]
    fn any_bytes_are_read_to_an_end(
        data in proptest::collection::vec(
            // Headers come up often enough for several commands in a row.
            prop_oneof![
                any::<u8>().prop_map(|byte| vec![byte]),
                Just(LEGACY.to_vec()),
                Just(IMAGE.to_vec()),
                (0..9_u8, 0..40_u8).prop_map(|(cmd, size)| vec![cmd, 0, size, 0, 0, 0, 0, 0]),
            ],
            0..40,
        ),
    ) {
        let data = data.concat();
        let items = read(&data);
        // No command is shorter than a header; an error may be the last item.
        prop_assert!(items.len() <= data.chunks(8).count());
        prop_assert_eq!(items.is_empty(), data.is_empty());
        prop_assert!(items.iter().rev().skip(1).all(Result::is_ok));
    }

    #[test]
    fn commands_stay_what_they_are_whatever_follows(
        rest in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let data = [&V1[..], &rest].concat();
        prop_assert_eq!(read(&data)[0], init(Some(0x108), 0));
    }
}
