//! A small Wayland client in the guest: shows a picture in shared memory.
//!
//! Written after wayland.xml (wayland 1.24) and xdg-shell.xml; requests and events by their numbers there.

use std::collections::HashMap;

use super::channel::Channel;
use super::cross_domain::ID_BLOB;
use super::driver::Gpu;
use super::error::{Error, Result};
use super::message::u32_at;

/// The object that every connection begins with.
pub const DISPLAY: u32 = 1;
/// Pixels of 32 bits: blue, green, red, nothing.
pub const XRGB8888: u32 = 1;

/// An argument of a request. Descriptors travel beside.
#[derive(Clone, Copy, Debug)]
pub enum Arg<'a> {
    /// A number, or an object.
    Word(u32),
    /// A string.
    Text(&'a str),
}

/// A request as it is sent.
pub fn request(object: u32, opcode: u16, args: &[Arg<'_>]) -> Vec<u8> {
    let mut body = Vec::new();
    for arg in args {
        match arg {
            Arg::Word(word) => body.extend(word.to_ne_bytes()),
            Arg::Text(text) => {
                body.extend((text.len() as u32 + 1).to_ne_bytes());
                body.extend(text.as_bytes());
                body.push(0);
                body.resize(body.len().next_multiple_of(4), 0);
            }
        }
    }
    let size = 8 + body.len() as u32;
    let head = [object, size << 16 | u32::from(opcode)];
    let head = head.iter().flat_map(|word| word.to_ne_bytes());
    head.chain(body).collect()
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Of which object.
    pub object: u32,
    /// Which one.
    pub opcode: u16,
    /// Its arguments.
    pub body: Vec<u8>,
}

impl Event {
    /// Takes the first whole event from `bytes`.
    pub fn take(bytes: &mut Vec<u8>) -> Option<Self> {
        if bytes.len() < 8 {
            return None;
        }
        let (object, word) = (u32_at(bytes, 0), u32_at(bytes, 4));
        let size = (word >> 16) as usize;
        if size < 8 || bytes.len() < size {
            return None;
        }
        let body = bytes.drain(..size).skip(8).collect();
        let opcode = word as u16;
        Some(Event {
            object,
            opcode,
            body,
        })
    }

    /// The string at a place of the body.
    fn text(&self, at: usize) -> String {
        let len = u32_at(&self.body, at) as usize;
        let bytes = &self.body[at + 4..at + 3 + len];
        String::from_utf8_lossy(bytes).into_owned()
    }
}

/// A client's connection.
#[derive(Debug)]
pub struct Client {
    /// What it goes through.
    pub channel: Channel,
    /// Name and version of each global, by its interface.
    pub globals: HashMap<String, (u32, u32)>,
    last: u32,
    received: Vec<u8>,
}

impl Client {
    /// A client that has got the registry.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub fn new(gpu: &mut Gpu, channel: Channel) -> Result<Self> {
        let mut client = Client {
            channel,
            globals: HashMap::new(),
            last: DISPLAY,
            received: Vec::new(),
        };
        let registry = client.fresh();
        client.send(gpu, DISPLAY, 1, &[Arg::Word(registry)])?;
        let done = client.sync(gpu)?;
        loop {
            let event = client.next(gpu)?;
            if event.object == done {
                return Ok(client);
            }
            if event.object == registry && event.opcode == 0 {
                let interface = event.text(4);
                let name = u32_at(&event.body, 0);
                let version = u32_at(&event.body, event.body.len() - 4);
                client.globals.insert(interface, (name, version));
            }
        }
    }

    /// A number for a new object.
    pub fn fresh(&mut self) -> u32 {
        self.last += 1;
        self.last
    }

    /// Sends a request.
    ///
    /// # Errors
    /// As [`Channel::send`].
    pub fn send(&self, gpu: &mut Gpu, object: u32, opcode: u16, args: &[Arg<'_>]) -> Result<()> {
        self.channel.send(gpu, &request(object, opcode, args), &[])
    }

    /// Sends a request whose last argument is a new object.
    ///
    /// # Errors
    /// As [`Channel::send`].
    pub fn make(
        &mut self,
        gpu: &mut Gpu,
        object: u32,
        opcode: u16,
        args: &[Arg<'_>],
    ) -> Result<u32> {
        let id = self.fresh();
        let args = [&[Arg::Word(id)], args].concat();
        self.send(gpu, object, opcode, &args)?;
        Ok(id)
    }

    /// Asks for a sign that all requests have been done; its object.
    ///
    /// # Errors
    /// As [`Channel::send`].
    pub fn sync(&mut self, gpu: &mut Gpu) -> Result<u32> {
        self.make(gpu, DISPLAY, 0, &[])
    }

    /// Binds a global, version 1.
    ///
    /// # Errors
    /// [`Error::Protocol`] if there is none.
    pub fn bind(&mut self, gpu: &mut Gpu, interface: &str) -> Result<u32> {
        let missing = || Error::Protocol(format!("the compositor has no {interface}"));
        let (name, _) = *self.globals.get(interface).ok_or_else(missing)?;
        let id = self.fresh();
        let registry = DISPLAY + 1;
        let args = [
            Arg::Word(name),
            Arg::Text(interface),
            Arg::Word(1),
            Arg::Word(id),
        ];
        self.send(gpu, registry, 0, &args)?;
        Ok(id)
    }

    /// The next event. Waits for it.
    ///
    /// # Errors
    /// [`Error::Protocol`] for an error of the compositor's; as [`Channel::receive`].
    pub fn next(&mut self, gpu: &mut Gpu) -> Result<Event> {
        loop {
            if let Some(event) = Event::take(&mut self.received) {
                if event.object == DISPLAY && event.opcode == 0 {
                    let what = event.text(8);
                    return Err(Error::Protocol(format!("the compositor says: {what}")));
                }
                return Ok(event);
            }
            let (bytes, _) = self.channel.receive(gpu)?;
            if bytes.is_empty() {
                return Err(Error::Closed("waiting for a Wayland event".to_owned()));
            }
            self.received.extend(bytes);
        }
    }

    /// The next event of this kind; others are passed over.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub fn wait(&mut self, gpu: &mut Gpu, object: u32, opcode: u16) -> Result<Event> {
        loop {
            let event = self.next(gpu)?;
            if (event.object, event.opcode) == (object, opcode) {
                return Ok(event);
            }
        }
    }

    /// Waits until all requests have been done.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub fn round_trip(&mut self, gpu: &mut Gpu) -> Result<()> {
        let done = self.sync(gpu)?;
        self.wait(gpu, done, 0).map(drop)
    }

    /// Opens a window, which is told its size: the surface, width and height.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub fn window(&mut self, gpu: &mut Gpu) -> Result<(u32, u32, u32)> {
        let compositor = self.bind(gpu, "wl_compositor")?;
        let shell = self.bind(gpu, "xdg_wm_base")?;
        let surface = self.make(gpu, compositor, 0, &[])?;
        let xdg_surface = self.make(gpu, shell, 2, &[Arg::Word(surface)])?;
        let toplevel = self.make(gpu, xdg_surface, 1, &[])?;
        self.send(gpu, surface, 6, &[])?;
        let configured = self.wait(gpu, toplevel, 0)?;
        let serial = self.wait(gpu, xdg_surface, 0)?;
        let ack = Arg::Word(u32_at(&serial.body, 0));
        self.send(gpu, xdg_surface, 4, &[ack])?;
        let size = |at| u32_at(&configured.body, at);
        Ok((surface, size(0), size(4)))
    }

    /// Shows a blob in a window: rows of `stride` bytes, [`XRGB8888`].
    ///
    /// # Errors
    /// As [`Self::round_trip`].
    pub fn show(
        &mut self,
        gpu: &mut Gpu,
        surface: u32,
        blob: (u32, u64),
        (width, height, stride): (u32, u32, u32),
    ) -> Result<()> {
        let (resource, size) = blob;
        let shm = self.bind(gpu, "wl_shm")?;
        let pool = self.fresh();
        let create = request(shm, 0, &[Arg::Word(pool), Arg::Word(size as u32)]);
        self.channel.send(gpu, &create, &[(resource, ID_BLOB)])?;
        let layout = [0, width, height, stride, XRGB8888].map(Arg::Word);
        let buffer = self.make(gpu, pool, 0, &layout)?;
        self.send(gpu, surface, 1, &[buffer, 0, 0].map(Arg::Word))?;
        self.send(gpu, surface, 2, &[0, 0, width, height].map(Arg::Word))?;
        self.send(gpu, surface, 6, &[])?;
        self.round_trip(gpu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_bytes_of_the_protocol() {
        let bind = request(2, 0, &[Arg::Word(1), Arg::Text("wl_shm"), Arg::Word(3)]);
        let mut expected = Vec::new();
        for word in [2_u32, 28 << 16, 1, 7] {
            expected.extend(word.to_ne_bytes());
        }
        expected.extend(b"wl_shm\0\0");
        expected.extend(3_u32.to_ne_bytes());
        assert_eq!(bind, expected);
    }

    #[test]
    fn events_are_taken_when_they_are_whole() {
        let mut bytes = request(3, 1, &[Arg::Word(9)]);
        let half = bytes.split_off(5);
        assert_eq!(Event::take(&mut bytes), None);
        bytes.extend(half);
        bytes.push(1);
        let event = Event::take(&mut bytes).unwrap();
        assert_eq!((event.object, event.opcode, event.body.len()), (3, 1, 4));
        assert_eq!(bytes, [1]);
    }
}
