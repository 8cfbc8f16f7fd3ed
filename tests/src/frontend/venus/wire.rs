//! The words of Venus: commands being put together, and replies being read.
//!
//! Everything is little-endian and a multiple of four bytes. A pointer is a 64-bit word, 1 if what it
//! points to follows and 0 if it is null; an array begins with its length as a 64-bit word; an object is a
//! 64-bit id that the guest chooses. A structure begins with its type and a pointer to the next one of its
//! chain, whose own fields end before the first one's begin. (virglrenderer's
//! `venus-protocol/vn_protocol_renderer_types.h`.)

use crate::frontend::error::{Error, Result};

/// `VK_COMMAND_GENERATE_REPLY_BIT_EXT`: the command is to be replied to.
const GENERATE_REPLY: u8 = 1;

/// A command, or some fields of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words(Vec<u8>);

impl Words {
    /// No fields.
    pub fn new() -> Self {
        Words::default()
    }

    /// A command's first words: its type (`VK_COMMAND_TYPE_*`) and no flags.
    pub fn command(kind: u32) -> Self {
        Words::new().u32(kind).u32(0)
    }

    /// The command, to be replied to.
    #[must_use]
    pub fn replied(mut self) -> Self {
        self.0[4] |= GENERATE_REPLY;
        self
    }

    /// The command's type.
    pub fn kind(&self) -> u32 {
        u32::from_le_bytes([self.0[0], self.0[1], self.0[2], self.0[3]])
    }

    /// The bytes of a SUBMIT_3D.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Appends other fields, or another command.
    #[must_use]
    pub fn then(mut self, other: &Words) -> Self {
        self.0.extend_from_slice(&other.0);
        self
    }

    /// Appends a 32-bit word: an unsigned number, flags, an enumeration.
    #[must_use]
    pub fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    /// Appends several 32-bit words.
    #[must_use]
    pub fn u32s(self, values: &[u32]) -> Self {
        values.iter().fold(self, |words, value| words.u32(*value))
    }

    /// Appends a 64-bit word: a size, an offset, an object.
    #[must_use]
    pub fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    /// Appends a null pointer, or an array that is not there.
    #[must_use]
    pub fn null(self) -> Self {
        self.u64(0)
    }

    /// Appends a pointer to what is appended next.
    #[must_use]
    pub fn pointer(self) -> Self {
        self.u64(1)
    }

    /// Appends an array's length.
    #[must_use]
    pub fn count(self, count: usize) -> Self {
        self.u64(count as u64)
    }

    /// Appends an array of objects.
    #[must_use]
    pub fn objects(self, ids: &[u64]) -> Self {
        let words = self.count(ids.len());
        ids.iter().fold(words, |words, id| words.u64(*id))
    }

    /// Appends an array of bytes.
    #[must_use]
    pub fn blob(self, bytes: &[u8]) -> Self {
        let mut words = self.count(bytes.len());
        words.0.extend_from_slice(bytes);
        words.0.resize(words.0.len().next_multiple_of(4), 0);
        words
    }

    /// Appends a text, with the zero at its end.
    #[must_use]
    pub fn text(self, text: &str) -> Self {
        self.blob(&[text.as_bytes(), &[0]].concat())
    }

    /// Appends a structure's beginning: its type and its chain of further structures, each its type and
    /// its fields. The structure's own fields are to be appended next.
    #[must_use]
    pub fn structure(self, kind: u32, chain: &[(u32, Words)]) -> Self {
        let words = self.u32(kind);
        let words = chain
            .iter()
            .fold(words, |words, (kind, _)| words.pointer().u32(*kind));
        let fields = chain.iter().rev().map(|(_, fields)| fields);
        fields.fold(words.null(), Words::then)
    }
}

/// What the renderer has written about a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    kind: u32,
    bytes: Vec<u8>,
    at: usize,
}

impl Reply {
    /// Begins to read the reply to a command of this type.
    ///
    /// # Errors
    /// [`Error::Protocol`] when there is another one or none.
    pub fn new(kind: u32, bytes: Vec<u8>) -> Result<Self> {
        let mut reply = Reply { kind, bytes, at: 0 };
        match reply.u32()? {
            found if found == kind => Ok(reply),
            found => Err(Error::Protocol(format!(
                "no reply to Venus command {kind}: its first word is {found:#x}"
            ))),
        }
    }

    /// The next bytes.
    ///
    /// # Errors
    /// [`Error::Protocol`] at the end of the stream.
    pub fn take(&mut self, len: usize) -> Result<&[u8]> {
        let kind = self.kind;
        let part = self.bytes.get(self.at..).and_then(|left| left.get(..len));
        let ended = || Error::Protocol(format!("the reply to Venus command {kind} ends early"));
        self.at += len;
        part.ok_or_else(ended)
    }

    /// The next 32-bit word.
    ///
    /// # Errors
    /// As [`Reply::take`].
    pub fn u32(&mut self) -> Result<u32> {
        let bytes = self.take(4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// The next 64-bit word.
    ///
    /// # Errors
    /// As [`Reply::take`].
    pub fn u64(&mut self) -> Result<u64> {
        let (low, high) = (self.u32()?, self.u32()?);
        Ok(u64::from(low) | u64::from(high) << 32)
    }

    /// The next word as a `VkResult`.
    ///
    /// # Errors
    /// As [`Reply::take`].
    pub fn result(&mut self) -> Result<i32> {
        Ok(self.u32()?.cast_signed())
    }

    /// Reads a `VkResult`, which must not be an error.
    ///
    /// # Errors
    /// [`Error::Protocol`].
    pub fn success(&mut self) -> Result<()> {
        match self.result()? {
            good if good >= 0 => Ok(()),
            bad => {
                let kind = self.kind;
                let what = format!("Venus command {kind} was replied to with VkResult {bad}");
                Err(Error::Protocol(what))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_has_its_types_first_and_its_fields_last_to_first() {
        let chain = [(7, Words::new().u32(70)), (8, Words::new().u32(80))];
        let words = Words::new().structure(6, &chain).u32(60);
        let expected = Words::new()
            .u32(6)
            .u64(1)
            .u32(7)
            .u64(1)
            .u32(8)
            .u64(0)
            .u32(80)
            .u32(70)
            .u32(60);
        assert_eq!(words, expected);
    }

    #[test]
    fn texts_end_with_a_zero_and_fill_whole_words() {
        let four = Words::new().text("abcd");
        assert_eq!(four.bytes(), *b"\x05\0\0\0\0\0\0\0abcd\0\0\0\0");
        let three = Words::new().text("abc");
        assert_eq!(three.bytes(), *b"\x04\0\0\0\0\0\0\0abc\0");
    }

    #[test]
    fn a_reply_is_to_its_command_and_no_longer_than_it_is() {
        let words = Words::command(9).replied();
        assert_eq!((words.kind(), words.bytes()[4]), (9, 1));
        let bytes = Words::new().u32(9).u32(-3_i32 as u32).u64(1 << 40);
        let mut reply = Reply::new(9, bytes.bytes().to_vec()).unwrap();
        assert_eq!(reply.result().unwrap(), -3);
        assert_eq!(reply.u64().unwrap(), 1 << 40);
        assert!(reply.u32().is_err());
        assert!(Reply::new(8, bytes.bytes().to_vec()).is_err());
        let mut failed = Reply::new(9, bytes.bytes().to_vec()).unwrap();
        assert!(failed.success().is_err());
    }
}
