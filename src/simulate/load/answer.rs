//! How a push ended.

use std::fmt;

/// The response to a push, or the reason for its absence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Answer {
    /// The status code of a complete response.
    Status(u16),
    /// No complete response within 15 s.
    TimedOut,
    /// The connection could not be opened, or broke before the response was
    /// complete.
    NoConnection,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "{status}"),
            Self::TimedOut => f.write_str("timeout"),
            Self::NoConnection => f.write_str("no-connection"),
        }
    }
}
