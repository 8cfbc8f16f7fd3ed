//! The sender thread of one display socket.
//!
//! It alone reads the socket, and writes what does not go out at once. It waits for nothing but its
//! two descriptors. While there is nothing to do it sleeps without a timer.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use epoll::{ControlOptions, Event, Events};

use super::inbox::{Inbox, LinkError};
use super::link::{Link, Slots};
use super::outbox::Progress;

const WAKE: u64 = 0;
const SOCKET: u64 = 1;

/// Starts the sender for `socket`.
///
/// # Errors
/// No descriptor or thread to be had, or `socket` is none that can be waited for.
pub(super) fn start(
    socket: Arc<UnixStream>,
    link: Arc<Link>,
    slots: Arc<Slots>,
) -> io::Result<JoinHandle<()>> {
    let poll = Poll::new(&link, &socket)?;
    let sender = Sender {
        socket,
        link,
        slots,
        poll,
        inbox: Inbox::new(),
    };
    std::thread::Builder::new()
        .name("display".into())
        .spawn(move || sender.run())
}

struct Sender {
    socket: Arc<UnixStream>,
    link: Arc<Link>,
    slots: Arc<Slots>,
    poll: Poll,
    inbox: Inbox,
}

impl Sender {
    fn run(mut self) {
        let result = self.serve();
        self.link.close();
        match result {
            Ok(()) => {}
            Err(LinkError::Closed) => {
                log::info!("display socket closed by the front-end: going on without a display");
            }
            Err(error) => {
                log::warn!("display socket closed: {error}; going on without a display");
            }
        }
    }

    fn serve(&mut self) -> Result<(), LinkError> {
        let mut full = false;
        while !self.link.is_stopping() {
            let progress = if full { Progress::Full } else { self.step()? };
            let timeout = match progress {
                // Replies are read also while there is always something to send.
                Progress::Sent => Some(Duration::ZERO),
                Progress::Idle | Progress::Full => self.link.requests.handshake_left(),
            };
            let ready = self.poll.wait(progress == Progress::Full, timeout)?;
            if ready.wake {
                self.link.drain();
            }
            if ready.socket {
                self.inbox.read(&self.socket, &self.link.requests)?;
            }
            // While the display does not read, each signal but the first is saved: `step` is
            // what asks for more of them.
            full = progress == Progress::Full && !ready.room;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<Progress, LinkError> {
        match self.link.step(&self.slots) {
            Err(error) if is_gone(&error) => Err(LinkError::Closed),
            other => Ok(other?),
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

/// Waits for the two descriptors of a sender.
struct Poll {
    epoll: RawFd,
    socket: RawFd,
    for_writing: bool,
}

#[derive(Default)]
struct Ready {
    wake: bool,
    /// There is something to read, or the socket is broken.
    socket: bool,
    /// There is room to write.
    room: bool,
}

impl Poll {
    fn new(link: &Link, socket: &UnixStream) -> io::Result<Self> {
        let epoll = epoll::create(true)?;
        let poll = Self {
            epoll,
            socket: socket.as_raw_fd(),
            for_writing: false,
        };
        poll.control(
            ControlOptions::EPOLL_CTL_ADD,
            link.as_fd(),
            Event::new(Events::EPOLLIN, WAKE),
        )?;
        poll.control(
            ControlOptions::EPOLL_CTL_ADD,
            socket.as_fd(),
            socket_event(false),
        )?;
        Ok(poll)
    }

    fn control(&self, what: ControlOptions, fd: BorrowedFd<'_>, event: Event) -> io::Result<()> {
        epoll::ctl(self.epoll, what, fd.as_raw_fd(), event)
    }

    /// Waits for the link, for something to read, and with `for_writing` for room to write.
    fn wait(&mut self, for_writing: bool, timeout: Option<Duration>) -> io::Result<Ready> {
        if for_writing != self.for_writing {
            let event = socket_event(for_writing);
            epoll::ctl(
                self.epoll,
                ControlOptions::EPOLL_CTL_MOD,
                self.socket,
                event,
            )?;
            self.for_writing = for_writing;
        }
        let timeout = timeout.map_or(-1, to_milliseconds);
        let mut events = [Event::new(Events::empty(), 0); 2];
        let count = match epoll::wait(self.epoll, timeout, &mut events) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            other => other?,
        };
        let mut ready = Ready::default();
        for event in events.iter().take(count) {
            let events = Events::from_bits_retain(event.events);
            if event.data == WAKE {
                ready.wake = true;
            } else {
                ready.room = events.intersects(!Events::EPOLLIN);
                ready.socket = events.intersects(!Events::EPOLLOUT);
            }
        }
        Ok(ready)
    }
}

impl Drop for Poll {
    fn drop(&mut self) {
        let _ = epoll::close(self.epoll);
    }
}

fn socket_event(for_writing: bool) -> Event {
    let events = if for_writing {
        Events::EPOLLIN | Events::EPOLLOUT
    } else {
        Events::EPOLLIN
    };
    Event::new(events, SOCKET)
}

/// Rounded up, so that a wait is not over before its time.
fn to_milliseconds(timeout: Duration) -> i32 {
    let whole = timeout.as_micros().div_ceil(1000);
    i32::try_from(whole).unwrap_or(i32::MAX)
}
