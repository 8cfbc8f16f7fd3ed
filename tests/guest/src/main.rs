//! `/init` of the lab's guests: sets the machine up, runs one task, switches it off.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "test code: an overflow here is a bug of the test and may stop it"
)]

mod agent;
mod blobs;
mod chain;
mod commands;
mod image;
mod link;
mod mapping;
mod screen;
mod setup;
mod tasks;
mod transfer;
mod virtgpu;

use std::error::Error;

use link::Link;
use nosnoop_guest::wire::{Event, Order, Task};
use rustix::system::RebootCommand;

/// Any failure of the guest program, told to the host as text.
type Outcome<T> = Result<T, Box<dyn Error>>;

/// Runs the task and returns what to do with the machine afterwards.
fn run(link: &mut Link) -> Outcome<Order> {
    link.send(&Event::Started {
        uptime_ms: setup::uptime_ms(),
    })?;
    setup::load_modules()?;
    let parameters = setup::Parameters::read()?;
    match parameters.task {
        Task::Program => link.run_program()?,
        Task::Commands => return commands::serve(setup::wait_for_card()?, link),
        Task::Chain => chain::run(parameters.rounds, link)?,
        Task::Agent => {
            agent::serve(link)?;
            return Ok(Order::PowerOff);
        }
        _ => {
            let card = setup::wait_for_card()?;
            tasks::run(&parameters, &card, link)?;
        }
    }
    link.send(&Event::Done)?;
    link.order()
}

fn main() {
    let order = setup::mount_all().and_then(|()| {
        let mut link = Link::open()?;
        run(&mut link).or_else(|error| {
            link.send(&Event::Failed {
                what: error.to_string(),
            })?;
            Ok(Order::PowerOff)
        })
    });
    let command = match order {
        Ok(Order::Reboot) => RebootCommand::Restart,
        Ok(_) => RebootCommand::PowerOff,
        Err(error) => {
            setup::console(&format!("init cannot reach the host: {error}"));
            RebootCommand::PowerOff
        }
    };
    rustix::fs::sync();
    if let Err(error) = rustix::system::reboot(command) {
        setup::console(&format!("the machine does not end: {error}"));
    }
}
