//! What every long-running process shares: logging, signals, readiness, and
//! the administration server. Knows nothing of pushes or topics.

pub mod admin;
pub(crate) mod fail_point;
pub mod health;
pub mod logging;
pub mod signals;

/// The exit codes of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// Something that must be mended was found.
    Findings,
    /// Wrong usage or configuration.
    Usage,
    /// Kafka or another service was not available to a one-shot command.
    Unavailable,
    /// A bug.
    Bug,
    /// Stopped before everything in flight was settled.
    Unsettled,
}

impl Exit {
    /// The number, as in sysexits.h.
    pub const fn code(self) -> i32 {
        match self {
            Self::Done => 0,
            Self::Findings => 1,
            Self::Usage => 64,
            Self::Unavailable => 69,
            Self::Bug => 70,
            Self::Unsettled => 75,
        }
    }
}
