//! QEMU's qtest protocol: a line for each access to the machine's ports and memory, from outside
//! and without its processor (QEMU docs/devel/testing/qtest.rst).

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::lines::{Lines, Next};
use super::{LabError, Result};

/// How long QEMU may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// A qtest connection.
#[derive(Debug)]
pub(super) struct Qtest {
    stream: UnixStream,
    lines: Lines,
}

impl Qtest {
    /// Takes over a fresh connection.
    pub(super) fn new(stream: UnixStream) -> Result<Self> {
        let reader = stream
            .try_clone()
            .map_err(LabError::context("qtest connection"))?;
        Ok(Self {
            stream,
            lines: Lines::read(reader),
        })
    }

    /// Writes 4 bytes to an I/O port.
    pub(super) fn write_port(&mut self, port: u16, value: u32) -> Result<()> {
        self.command(&format!("outl {port:#x} {value:#x}"))?;
        Ok(())
    }

    /// Reads 4 bytes from an I/O port.
    pub(super) fn read_port(&mut self, port: u16) -> Result<u32> {
        let command = format!("inl {port:#x}");
        let answer = self.command(&command)?;
        let digits = answer.strip_prefix("0x");
        let value = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        value.ok_or_else(|| strange(&command, &answer))
    }

    /// Writes a byte to a guest physical address.
    pub(super) fn write_u8(&mut self, address: u64, value: u8) -> Result<()> {
        self.command(&format!("writeb {address:#x} {value:#x}"))?;
        Ok(())
    }

    /// Writes 4 bytes, little-endian, to a guest physical address.
    pub(super) fn write_u32(&mut self, address: u64, value: u32) -> Result<()> {
        self.command(&format!("writel {address:#x} {value:#x}"))?;
        Ok(())
    }

    /// Reads bytes from a guest physical address, in one go as a device would.
    pub(super) fn read(&mut self, address: u64, len: usize) -> Result<Vec<u8>> {
        let command = format!("read {address:#x} {len:#x}");
        let answer = self.command(&command)?;
        let digits = answer.strip_prefix("0x").unwrap_or_default();
        let bytes = (0..len).map(|at| {
            let digits = digits.get(2 * at..2 * at + 2)?;
            u8::from_str_radix(digits, 16).ok()
        });
        let bytes = bytes.collect::<Option<Vec<_>>>();
        bytes.ok_or_else(|| strange(&command, &answer))
    }

    /// Runs one command and returns what follows the OK.
    fn command(&mut self, command: &str) -> Result<String> {
        let sent = self.stream.write_all(format!("{command}\n").as_bytes());
        sent.map_err(LabError::context(format_args!("QEMU does not {command}")))?;
        match self.lines.next(ANSWER_LIMIT) {
            Next::Line(line) => match line.strip_prefix("OK") {
                Some(rest) => Ok(rest.trim().to_owned()),
                None => Err(strange(command, &line)),
            },
            Next::Nothing => Err(LabError::failed(format!(
                "QEMU has not answered '{command}' for {} s",
                ANSWER_LIMIT.as_secs()
            ))),
            Next::Closed => Err(LabError::failed(format!("QEMU has gone over '{command}'"))),
        }
    }
}

fn strange(command: &str, answer: &str) -> LabError {
    LabError::failed(format!("QEMU answers '{command}' with '{answer}'"))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::thread;

    use super::*;

    #[test]
    fn commands_are_lines_and_answers_are_read_whole() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let server = thread::spawn(move || {
            let mut lines = BufReader::new(theirs.try_clone().unwrap()).lines();
            let mut writer = theirs;
            let answers = ["OK\n", "OK 0x00a4\n", "OK 0x00fe12\n", "OK 0x00\n"];
            let mut heard = Vec::new();
            for answer in answers {
                heard.push(lines.next().unwrap().unwrap());
                writer.write_all(answer.as_bytes()).unwrap();
            }
            heard
        });
        let mut qtest = Qtest::new(ours).unwrap();
        qtest.write_port(0xcf8, 0x8000_0000).unwrap();
        assert_eq!(qtest.read_port(0xcfc).unwrap(), 0xa4);
        assert_eq!(qtest.read(0x8_0000_0000, 3).unwrap(), [0, 0xfe, 0x12]);
        let short = qtest.read(0, 2).unwrap_err().to_string();
        assert_eq!(short, "QEMU answers 'read 0x0 0x2' with '0x00'");
        let heard = server.join().unwrap();
        assert_eq!(heard[0], "outl 0xcf8 0x80000000");
        assert_eq!(heard[2], "read 0x800000000 0x3");
        let gone = qtest.write_u8(0, 1).unwrap_err().to_string();
        assert!(gone.contains("writeb 0x0 0x1"), "{gone}");
    }
}
