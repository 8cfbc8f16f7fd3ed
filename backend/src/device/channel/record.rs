//! Events as they stand in the channel ring.

use nosnoop_protocol::cross_domain::channel::{
    RECEIVE_HEADER, Received, read_header, receive_header,
};
use nosnoop_protocol::reply::GpuError;

use super::inlet::{Descriptor, Event};
use super::{Channel, MAX_ALL_ITEMS, MAX_ITEMS};
use crate::device::State;

/// A message of no bytes.
pub(super) fn empty() -> [u8; RECEIVE_HEADER] {
    receive_header(&[], 0)
}

impl State {
    /// Writes an event to its channel's ring. `channel` is not in the table meanwhile.
    ///
    /// # Errors
    /// What the fence is answered, and the event again: see [`State::write_ring`].
    pub(super) fn bring(
        &mut self,
        channel: &mut Channel,
        event: Event,
    ) -> Result<(), (GpuError, Event)> {
        let ring = (channel.context, channel.ring);
        match event {
            Event::Piped { pipe, bytes } => {
                let header = read_header(pipe, bytes.is_empty(), len(&bytes));
                let record = [&header[..], &bytes].concat();
                self.write_ring(ring, &record)
                    .map_err(|error| (error, Event::Piped { pipe, bytes }))
            }
            Event::Message { bytes, descriptors } => {
                let descriptors = self.affordable(channel, descriptors);
                let named: Vec<_> = descriptors
                    .into_iter()
                    .map(|descriptor| (channel.name(&descriptor), descriptor))
                    .collect();
                let received: Vec<_> = named.iter().map(|(name, _)| *name).collect();
                let record = [&receive_header(&received, len(&bytes))[..], &bytes].concat();
                if let Err(error) = self.write_ring(ring, &record) {
                    let descriptors = named.into_iter().map(|(_, it)| it).collect();
                    return Err((error, Event::Message { bytes, descriptors }));
                }
                for (name, descriptor) in named {
                    channel.keep(name, descriptor);
                }
                Ok(())
            }
        }
    }

    /// The descriptors, with nothing in place of those that are beyond a limit.
    fn affordable(&self, channel: &Channel, descriptors: Vec<Descriptor>) -> Vec<Descriptor> {
        let all = self.channels.items().saturating_add(channel.items());
        let mut room = MAX_ALL_ITEMS
            .saturating_sub(all)
            .min(MAX_ITEMS.saturating_sub(channel.items()));
        let mut bytes = channel.received_bytes();
        let mut afford = |descriptor| {
            let more = match &descriptor {
                Descriptor::Memory(memory) => bytes.saturating_add(memory.len()),
                Descriptor::Pipe(_) | Descriptor::Nothing => bytes,
            };
            if room == 0 || self.check_hostmem(more, 0).is_err() {
                return Descriptor::Nothing;
            }
            room = room.saturating_sub(1);
            bytes = more;
            descriptor
        };
        descriptors.into_iter().map(&mut afford).collect()
    }
}

impl Channel {
    /// What a descriptor is called. What cannot be passed on is a pipe that is not there.
    fn name(&mut self, descriptor: &Descriptor) -> Received {
        let id = self.fresh_id();
        match descriptor {
            Descriptor::Memory(memory) => Received::Blob {
                id: id.get(),
                size: u32::try_from(memory.len()).unwrap_or(u32::MAX),
            },
            Descriptor::Pipe(_) | Descriptor::Nothing => Received::WritePipe(id),
        }
    }

    fn keep(&mut self, name: Received, descriptor: Descriptor) {
        match (name, descriptor) {
            (Received::Blob { id, .. }, Descriptor::Memory(memory)) => {
                self.memory.insert(id, memory);
            }
            (Received::WritePipe(id), Descriptor::Pipe(file)) => self.outlet.add_pipe(id, file),
            _ => {}
        }
    }
}

fn len(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(0)
}
