//! What every process shares: the log, what it prints, the terminal, signals, readiness, the
//! admin server, the service manager and the exit codes. Knows nothing of pushes or topics.

pub(crate) mod admin;
pub(crate) mod fail_point;
pub mod last_errors;
pub mod logging;
pub mod output;
mod page;
pub mod readiness;
pub mod reload;
pub(crate) mod sample;
pub(crate) mod service_manager;
pub(crate) mod signals;
pub(crate) mod system_roots;
pub(crate) mod terminal;
pub(crate) mod vital;

/// How a process ends. Operators rely on the codes; from 64 on they have the
/// meaning that `sysexits.h` gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Everything asked for was done.
    Done,
    /// A check found a problem that needs fixing.
    Findings,
    /// The command line or the configuration is not valid.
    Usage,
    /// A one-shot command could not reach Kafka or another service.
    Unavailable,
    /// The process ended because of a bug.
    Bug,
    /// The process stopped before everything in flight was settled.
    Unsettled,
}

impl Exit {
    /// Returns the exit code.
    const fn code(self) -> i32 {
        match self {
            Self::Done => 0,
            Self::Findings => 1,
            Self::Usage => 64,
            Self::Unavailable => 69,
            Self::Bug => 70,
            Self::Unsettled => 75,
        }
    }

    /// Ends the process with this code, without the C library's exit handlers:
    /// OpenSSL's frees what librdkafka's threads still use, and such a process
    /// would die of a signal instead. So nothing is flushed here either, but a terminal
    /// that a view fills gets back what it had.
    pub fn end(self) -> ! {
        terminal::restore();
        signal_hook::low_level::exit(self.code())
    }
}
