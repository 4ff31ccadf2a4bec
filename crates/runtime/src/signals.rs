//! What the operator asks of a running program.

use std::io;

use tokio::signal::unix::{self, SignalKind};

/// A request that arrived as a Unix signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Stop cleanly (SIGTERM, or SIGINT from a terminal).
    Stop,
    /// Read the policy again (SIGHUP).
    Reload,
}

/// The signals a program listens to.
#[derive(Debug)]
pub struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    hangup: unix::Signal,
}

impl Signals {
    /// Installs the handlers; from here on SIGTERM, SIGINT and SIGHUP no longer end the process.
    ///
    /// # Errors
    /// If the kernel refuses a handler, or outside a tokio runtime with I/O enabled.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: unix::signal(SignalKind::terminate())?,
            interrupt: unix::signal(SignalKind::interrupt())?,
            hangup: unix::signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next request.
    ///
    /// # Cancel safety
    /// Nothing is lost: a signal that arrived is reported by the next call.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Stop,
            _ = self.interrupt.recv() => Signal::Stop,
            _ = self.hangup.recv() => Signal::Reload,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hangup_asks_for_a_reload() {
        let mut signals = Signals::listen().unwrap();
        let own = std::process::id().to_string();
        let status = std::process::Command::new("kill").args(["-HUP", &own]).status().unwrap();
        assert!(status.success());
        assert_eq!(signals.next().await, Signal::Reload);
    }
}
