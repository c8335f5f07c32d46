//! The trail of pushes that may be lost: authorized pushes that were not answered
//! 200, in the log at `warn`, at most ten lines a second.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::metrics::Outcome;

const MAX_LINES: u32 = 10;
const WINDOW: Duration = Duration::from_secs(1);

/// The lines of the current second.
#[derive(Debug)]
pub(crate) struct Trail(Mutex<Lines>);

#[derive(Debug)]
struct Lines {
    since: Instant,
    written: u32,
    left_out: u64,
}

impl Trail {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Lines {
            since: Instant::now(),
            written: 0,
            left_out: 0,
        }))
    }

    /// Logs a push that was not answered 200, unless ten lines were written within
    /// the second. `left_out` says how many pushes have none since the last line.
    pub(crate) fn log(&self, request_id: &str, path: &str, outcome: Outcome) {
        let left_out = self.lines().next(Instant::now());
        if let Some(left_out) = left_out {
            let outcome = outcome.label();
            tracing::warn!(request_id, outcome, path, left_out, "push not answered 200");
        }
    }

    /// Logs how many pushes have no line, if there are any.
    pub(crate) fn log_left_out(&self) {
        let left_out = std::mem::take(&mut self.lines().left_out);
        if left_out > 0 {
            tracing::warn!(left_out, "further pushes were not answered 200");
        }
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    /// Returns how many were left out before this line, or `None` if it is left out.
    fn next(&mut self, now: Instant) -> Option<u64> {
        if now.duration_since(self.since) >= WINDOW {
            self.since = now;
            self.written = 0;
        }
        if self.written == MAX_LINES {
            self.left_out += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_lines_a_second_are_written_and_the_others_are_counted() {
        let began = Instant::now();
        let mut lines = Lines {
            since: began,
            written: 0,
            left_out: 0,
        };
        let mut written = |pushes: usize, millis| {
            let at = began + Duration::from_millis(millis);
            let lines: Vec<_> = (0..pushes).filter_map(|_| lines.next(at)).collect();
            lines
        };
        assert_eq!(written(9, 0), [0; 9]);
        assert_eq!(written(5, 999), [0]);
        assert_eq!(written(2, 1_000), [4, 0]);
    }
}
