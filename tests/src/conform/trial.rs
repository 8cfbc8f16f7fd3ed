//! The back-end that a case runs against.

use std::path::{Path, PathBuf};

use super::case::{Outcome, Stop};
use crate::frontend::{Session, SessionOptions, VhostUser};

/// One case's run. The back-end was started for it (or, where it is not ours to start, is just
/// between two front-ends), and nobody is connected to it yet.
#[derive(Debug)]
pub struct Trial {
    socket: PathBuf,
    features: u64,
    protocol_features: u64,
}

impl Trial {
    /// A trial of the back-end that listens at `socket` and offers these features.
    #[must_use]
    pub fn new(socket: &Path, features: u64, protocol_features: u64) -> Self {
        Self {
            socket: socket.to_owned(),
            features,
            protocol_features,
        }
    }

    /// Where the back-end listens.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The virtio features that the back-end offers.
    #[must_use]
    pub fn features(&self) -> u64 {
        self.features
    }

    /// The protocol features that the back-end offers.
    #[must_use]
    pub fn protocol_features(&self) -> u64 {
        self.protocol_features
    }

    /// A bare connection, nothing said on it yet.
    ///
    /// # Errors
    /// [`Stop::Fail`] when the back-end does not accept one.
    pub fn connect(&mut self) -> Result<VhostUser, Stop> {
        Ok(VhostUser::connect(&self.socket)?)
    }

    /// A running device with a display, brought up as QEMU does.
    ///
    /// # Errors
    /// [`Stop::Fail`] with the step that failed.
    pub fn start(&mut self) -> Result<Session, Stop> {
        self.session(&SessionOptions::default())
    }

    /// A running device, brought up as `options` say.
    ///
    /// # Errors
    /// [`Stop::Fail`] with the step that failed.
    pub fn session(&mut self, options: &SessionOptions) -> Result<Session, Stop> {
        Ok(Session::connect(&self.socket, options)?)
    }

    /// Ends a case in which the device must have stayed usable: it answers GET_DISPLAY_INFO, and the
    /// rules of the display socket and of the shared-memory channel were kept so far.
    ///
    /// # Errors
    /// [`Stop::Fail`] with the rule.
    pub fn usable(session: &mut Session) -> Outcome {
        session.gpu.display_info()?;
        if session.has_display() {
            session.check_display()?;
        }
        Ok(session.check_shmem()?)
    }
}
