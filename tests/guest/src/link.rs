//! The line to the host: the second serial port.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::Command;

use nosnoop_guest::wire::agent::Request;
use nosnoop_guest::wire::{self, Event, Order, PROGRAM};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use serde::Serialize;

use crate::Outcome;

/// The port that carries nothing but events and orders.
const PORT: &str = "/dev/ttyS1";

/// Both directions of the line to the host.
pub(crate) struct Link {
    port: File,
    orders: BufReader<File>,
}

impl Link {
    /// Opens the port and switches off echo and line editing.
    pub(crate) fn open() -> Outcome<Self> {
        let port = File::options()
            .read(true)
            .write(true)
            .open(PORT)
            .map_err(|error| format!("{PORT}: {error}"))?;
        let mut mode = tcgetattr(&port)?;
        mode.make_raw();
        tcsetattr(&port, OptionalActions::Now, &mode)?;
        let orders = BufReader::new(port.try_clone()?);
        Ok(Self { port, orders })
    }

    /// Sends one event.
    pub(crate) fn send(&mut self, event: &Event) -> Outcome<()> {
        self.send_value(event)
    }

    /// Sends one value in a line of its own.
    pub(crate) fn send_value(&mut self, value: &impl Serialize) -> Outcome<()> {
        self.port.write_all(wire::to_line(value)?.as_bytes())?;
        Ok(())
    }

    /// Waits for the next line from the host.
    pub(crate) fn line(&mut self) -> Outcome<String> {
        let mut line = String::new();
        self.orders.read_line(&mut line)?;
        Ok(line)
    }

    /// Waits for the next request to the agent.
    pub(crate) fn request(&mut self) -> Outcome<Request> {
        let line = self.line()?;
        wire::from_line(&line).ok_or_else(|| format!("no request: {line:?}").into())
    }

    /// Waits for the next order.
    pub(crate) fn order(&mut self) -> Outcome<Order> {
        let line = self.line()?;
        Order::from_line(&line).ok_or_else(|| format!("no order: {line:?}").into())
    }

    /// Runs the task's program to its end, with this line as its input and output.
    pub(crate) fn run_program(&self) -> Outcome<()> {
        let status = Command::new(PROGRAM)
            .stdin(self.port.try_clone()?)
            .stdout(self.port.try_clone()?)
            .status()
            .map_err(|error| format!("{PROGRAM}: {error}"))?;
        match status.success() {
            true => Ok(()),
            false => Err(format!("{PROGRAM} ended with {status}").into()),
        }
    }

    /// Waits for the order to go on; any other order ends the task as an error.
    pub(crate) fn wait_to_continue(&mut self) -> Outcome<()> {
        match self.order()? {
            Order::Continue => Ok(()),
            other => Err(format!("the host ends the task early: {}", other.word()).into()),
        }
    }
}
