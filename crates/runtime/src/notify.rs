//! Messages to systemd (`Type=notify-reload`); silent when the program was not started by it.

use sd_notify::NotifyState;
use tracing::debug;

/// The start is complete: everything is checked, attached and served.
pub fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// A reload begins; [`ready`] ends it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(since) => send(&[NotifyState::Reloading, since]),
        Err(error) => debug!(%error, "no monotonic clock for systemd"),
    }
}

/// The program is on its way out.
pub fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// One line for `systemctl status`.
pub fn status(text: &str) {
    send(&[NotifyState::Status(text)]);
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!(%error, "systemd did not take the notification");
    }
}
