//! The back-end that a case runs against.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::case::Stop;
use super::probe::Probe;
use crate::frontend::{Error, Session, SessionOptions, VhostUser};

/// One case's run. The back-end was started for it (or, where it is not ours to start, is just
/// between two front-ends), and nobody is connected to it yet.
#[derive(Debug)]
pub struct Trial {
    socket: PathBuf,
    probe: Probe,
    connections: Connections,
}

/// The connections that a case has made, so that its deadline can end them.
#[derive(Clone, Debug, Default)]
pub struct Connections(Arc<Mutex<Vec<UnixStream>>>);

impl Connections {
    /// Connects to a back-end.
    ///
    /// # Errors
    /// As [`UnixStream::connect`].
    pub fn open(&self, socket: &Path) -> std::io::Result<UnixStream> {
        let stream = UnixStream::connect(socket)?;
        self.add(&stream);
        Ok(stream)
    }

    /// Remembers a connection.
    pub fn add(&self, stream: &UnixStream) {
        // Without a copy (out of descriptors) it ends with the case's thread.
        if let Ok(copy) = stream.try_clone() {
            self.lock().push(copy);
        }
    }

    /// Ends them all: who waits on one sees it closed.
    pub fn shut(&self) {
        for stream in self.lock().drain(..) {
            // It may be closed already.
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<UnixStream>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Trial {
    /// A trial of the back-end that listens at `socket` and offers these features.
    #[must_use]
    pub fn new(socket: &Path, features: u64, protocol_features: u64) -> Self {
        let probe = Probe {
            features,
            protocol_features,
            ..Probe::default()
        };
        Self::of(socket, &probe, Connections::default())
    }

    /// A trial of a probed back-end, whose connections go into `connections`.
    #[must_use]
    pub fn of(socket: &Path, probe: &Probe, connections: Connections) -> Self {
        Self {
            socket: socket.to_owned(),
            probe: probe.clone(),
            connections,
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
        self.probe.features
    }

    /// The protocol features that the back-end offers.
    #[must_use]
    pub fn protocol_features(&self) -> u64 {
        self.probe.protocol_features
    }

    /// The configuration space as the back-end gave it before the case, where it could be asked.
    #[must_use]
    pub fn config(&self) -> Option<&[u8]> {
        self.probe.config.as_deref()
    }

    /// A bare connection, nothing said on it yet.
    ///
    /// # Errors
    /// [`Stop::Fail`] when the back-end does not accept one.
    pub fn connect(&mut self) -> Result<VhostUser, Stop> {
        let connected = self.connections.open(&self.socket);
        let stream =
            connected.map_err(|e| Error::io(format!("connect to {}", self.socket.display()), e))?;
        Ok(VhostUser::over(stream))
    }

    /// Ends all connections made so far. Dropping a session does not: its deadline holds a copy.
    pub fn disconnect(&mut self) {
        self.connections.shut();
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
        let vhost = self.connect()?;
        Ok(Session::over(vhost, options)?)
    }
}
