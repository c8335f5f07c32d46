//! SIGTERM and SIGINT: the first one drains, the second one exits at once.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Exit;

/// A listener for the signals that end a process.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Replaces the signals' default action, which would kill the process.
    ///
    /// # Errors
    ///
    /// Returns the operating system's error if it rejects a handler.
    pub(crate) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for a signal and returns its name.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// Makes the next signal exit the process with [`Exit::Unsettled`].
    pub(crate) fn stop_at_next(mut self) {
        tokio::spawn(async move {
            let signal = self.next().await;
            tracing::warn!(signal, "exiting at once; what is in flight is not settled");
            Exit::Unsettled.end()
        });
    }
}
