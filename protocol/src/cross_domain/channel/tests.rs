use proptest::prelude::*;

use super::super::{CrossDomainCommand, commands};
use super::*;

/// SEND with these identifiers (number, type), this many claimed, and these bytes.
fn send(ids: &[(u32, u32)], claimed: u32, size: u32, data: &[u8]) -> Vec<u8> {
    let total = u16::try_from(RECEIVE_HEADER.saturating_add(data.len())).unwrap();
    let mut bytes = vec![4, 0];
    bytes.extend(total.to_le_bytes());
    bytes.extend([0; 4]);
    let mut words = vec![claimed, size];
    let column = |pick: fn(&(u32, u32)) -> u32| {
        let mut column: Vec<u32> = ids.iter().map(pick).collect();
        column.resize(28, 0);
        column
    };
    words.extend(column(|id| id.0));
    words.extend(column(|id| id.1));
    words.extend([0; 28]);
    bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    bytes.extend(data);
    bytes
}

fn write(pipe: u32, hang_up: u32, size: u32, data: &[u8]) -> Vec<u8> {
    let total = u16::try_from(READ_HEADER.saturating_add(data.len())).unwrap();
    let mut bytes = vec![7, 0];
    bytes.extend(total.to_le_bytes());
    bytes.extend([0; 4]);
    let words = [pipe, hang_up, size, 0];
    bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    bytes.extend(data);
    bytes
}

fn only(bytes: &[u8]) -> Result<CrossDomainCommand<'_>, GpuError> {
    let mut items = commands(bytes);
    let first = items.next().unwrap();
    assert_eq!(items.next(), None);
    first
}

#[test]
fn messages_have_their_bytes_and_descriptors_in_order() {
    let bytes = send(&[(7, 1), (0x8000_0001, 3), (9, 1)], 3, 4, b"wire");
    let Ok(CrossDomainCommand::Send(send)) = only(&bytes) else {
        panic!()
    };
    assert_eq!(send.data, b"wire");
    let expected = [
        Sent::Blob(ResourceId::new(7).unwrap()),
        Sent::ReadPipe(PipeId(0x8000_0001)),
        Sent::Blob(ResourceId::new(9).unwrap()),
    ];
    assert_eq!(send.descriptors().collect::<Vec<_>>(), expected);
}

#[test]
fn only_what_is_claimed_counts() {
    let bytes = send(&[(7, 1), (8, 99)], 1, 2, b"wire");
    let Ok(CrossDomainCommand::Send(send)) = only(&bytes) else {
        panic!()
    };
    assert_eq!((send.data, send.descriptors().count()), (&b"wi"[..], 1));
    let all = [(5, 1); 28];
    let bytes = self::send(&all, 28, 1, b"x");
    let Ok(CrossDomainCommand::Send(send)) = only(&bytes) else {
        panic!()
    };
    assert_eq!(send.descriptors().count(), 28);
}

#[test]
fn messages_that_cannot_be_are_refused() {
    for (bytes, error) in [
        (send(&[(7, 1)], 29, 1, b"x"), GpuError::Unspec),
        (send(&[(7, 1)], u32::MAX, 1, b"x"), GpuError::Unspec),
        (send(&[], 0, 2, b"x"), GpuError::Unspec),
        (send(&[], 0, u32::MAX, b"x"), GpuError::Unspec),
        (send(&[(7, 1)], 1, 0, b"x"), GpuError::InvalidParameter),
        (send(&[(0, 1)], 1, 1, b"x"), GpuError::InvalidResourceId),
        (send(&[(7, 3)], 1, 1, b"x"), GpuError::InvalidParameter),
        (send(&[(7, 0)], 1, 1, b"x"), GpuError::InvalidParameter),
        (send(&[(7, 2)], 1, 1, b"x"), GpuError::InvalidParameter),
        (send(&[(7, 4)], 1, 1, b"x"), GpuError::InvalidParameter),
        (write(5, 0, 2, b"x"), GpuError::Unspec),
        (write(5, 0, u32::MAX, b"x"), GpuError::Unspec),
        (write(0x8000_0000, 0, 1, b"x"), GpuError::InvalidParameter),
    ] {
        assert_eq!(only(&bytes), Err(error), "{bytes:?}");
    }
}

#[test]
fn every_truncation_is_an_error() {
    for whole in [send(&[(7, 1)], 1, 1, b"x"), write(5, 1, 1, b"x")] {
        for end in 1..whole.len() {
            assert_eq!(only(&whole[..end]), Err(GpuError::Unspec), "{end}");
            let mut shorter = whole[..end].to_vec();
            if end >= 4 {
                shorter[2..4].copy_from_slice(&u16::try_from(end).unwrap().to_le_bytes());
            }
            assert_eq!(only(&shorter), Err(GpuError::Unspec), "{end}");
        }
    }
}

#[test]
fn writes_and_polls_are_read() {
    let bytes = [
        &write(5, 0, 2, b"abc")[..],
        &write(6, 1, 0, b""),
        &[3, 1, 8, 0, 0, 0, 0, 0],
        &[3, 1, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ]
    .concat();
    let expected = [
        CrossDomainCommand::Write(Write {
            pipe: PipeId(5),
            data: b"ab",
            hang_up: false,
        }),
        CrossDomainCommand::Write(Write {
            pipe: PipeId(6),
            data: b"",
            hang_up: true,
        }),
        CrossDomainCommand::Poll,
        CrossDomainCommand::Poll,
    ];
    let read: Result<Vec<_>, _> = commands(&bytes).collect();
    assert_eq!(read.unwrap(), expected);
}

#[test]
fn records_are_written_byte_for_byte() {
    let received = [
        Received::Blob {
            id: 0x0102_0304,
            size: 0x5000,
        },
        Received::WritePipe(PipeId(0x0a0b)),
    ];
    let mut expected = [0; 352];
    expected[0] = 5;
    expected[8] = 2;
    expected[12..14].copy_from_slice(&[0x34, 0x12]);
    expected[16..20].copy_from_slice(&[4, 3, 2, 1]);
    expected[20..22].copy_from_slice(&[0x0b, 0x0a]);
    expected[16 + 112] = 1;
    expected[20 + 112] = 4;
    expected[16 + 224 + 1] = 0x50;
    assert_eq!(receive_header(&received, 0x1234), expected);
    assert_eq!(receive_header(&[received[1]; 40], 0)[8], 28);
    #[rustfmt::skip]
    assert_eq!(read_header(PipeId(0x8000_0001), true, 0x0203), [
        6, 0, 0, 0, 0, 0, 0, 0,  1, 0, 0, 0x80,  1, 0, 0, 0,  3, 2, 0, 0,  0, 0, 0, 0,
    ]);
}

proptest! {
    /// What is read lies in the command, whatever the sizes say.
    #[test]
    fn any_sizes_give_an_answer(
        claimed in prop_oneof![0..40_u32, any::<u32>()],
        size in prop_oneof![0..80_u32, any::<u32>()],
        kinds in proptest::collection::vec((any::<u32>(), 0..6_u32), 0..28),
        data in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let length = usize::try_from(size).unwrap();
        for bytes in [send(&kinds, claimed, size, &data), write(claimed, 0, size, &data)] {
            match only(&bytes) {
                Ok(CrossDomainCommand::Send(send)) => {
                    prop_assert_eq!(send.data, &data[..length]);
                    prop_assert_eq!(send.descriptors().count(), usize::try_from(claimed).unwrap());
                }
                Ok(CrossDomainCommand::Write(write)) => prop_assert_eq!(write.data, &data[..length]),
                Ok(other) => prop_assert!(false, "{:?}", other),
                Err(_) => {}
            }
        }
    }
}
