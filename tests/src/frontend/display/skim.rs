//! Reading messages without keeping them: for displays that only count.

use crate::frontend::message::u32_at;

/// Bytes of a message header on the display socket: request, flags, size.
pub(super) const MESSAGE_HEADER: usize = 12;
/// How much of a payload is looked at: an update's rectangle and its first pixel.
const HEAD: usize = 24;

/// A message, as far as it was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Skimmed {
    pub(super) request: u32,
    /// Bytes of the payload.
    pub(super) size: usize,
    head: [u8; HEAD],
    kept: usize,
}

impl Skimmed {
    /// The beginning of the payload.
    pub(super) fn head(&self) -> &[u8] {
        &self.head[..self.kept]
    }
}

/// Cuts a stream of bytes into messages and forgets most of each.
#[derive(Debug, Default)]
pub(super) struct Skimmer {
    front: Vec<u8>,
    skip: usize,
}

impl Skimmer {
    /// Takes the next bytes; `each` gets every message that ends in them, until it returns false.
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(Skimmed) -> bool) -> bool {
        loop {
            let wanted = self.wanted();
            let take = (wanted - self.front.len()).min(bytes.len());
            self.front.extend_from_slice(&bytes[..take]);
            bytes = &bytes[take..];
            if self.front.len() < wanted {
                return true;
            }
            if wanted < self.wanted() {
                // The header is there only now, and says how much more to keep.
                self.skip = self.size() - (self.wanted() - MESSAGE_HEADER);
                continue;
            }
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if self.skip > 0 {
                return true;
            }
            let mut head = [0; HEAD];
            let kept = self.front.len() - MESSAGE_HEADER;
            head[..kept].copy_from_slice(&self.front[MESSAGE_HEADER..]);
            let message = Skimmed {
                request: u32_at(&self.front, 0),
                size: self.size(),
                head,
                kept,
            };
            self.front.clear();
            if !each(message) {
                return false;
            }
        }
    }

    fn size(&self) -> usize {
        u32_at(&self.front, 8) as usize
    }

    /// Bytes to keep of the present message, as far as is known.
    fn wanted(&self) -> usize {
        if self.front.len() < MESSAGE_HEADER {
            return MESSAGE_HEADER;
        }
        MESSAGE_HEADER + self.size().min(HEAD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(request: u32, payload: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = [request, 0, payload as u32]
            .iter()
            .flat_map(|field| field.to_ne_bytes())
            .collect();
        bytes.extend((0..payload).map(|n| n as u8));
        bytes
    }

    #[test]
    fn messages_are_found_however_the_bytes_are_cut() {
        let sizes = [0, 8, 12, 24, 25, 5000, 0, 20];
        let stream: Vec<u8> = (0..).zip(sizes).flat_map(|(n, s)| message(n, s)).collect();
        for step in [1, 2, 7, 11, 12, 13, 36, 37, 64, 4096, stream.len()] {
            let mut found = Vec::new();
            let mut skimmer = Skimmer::default();
            for part in stream.chunks(step) {
                assert!(skimmer.feed(part, |message| {
                    found.push((message.request, message.head().to_vec()));
                    true
                }));
            }
            let expected: Vec<_> = (0..)
                .zip(sizes)
                .map(|(n, size)| (n, (0..size.min(HEAD)).map(|n| n as u8).collect::<Vec<_>>()))
                .collect();
            assert_eq!(found, expected, "in steps of {step}");
        }
    }

    #[test]
    fn nothing_is_read_after_the_reader_has_enough() {
        let stream = [message(1, 3), message(2, 3)].concat();
        let mut count = 0;
        let more = Skimmer::default().feed(&stream, |_| {
            count += 1;
            false
        });
        assert_eq!((more, count), (false, 1));
    }
}
