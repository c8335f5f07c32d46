//! When a worker is to end: with its process, or because its stage starts again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

/// The longest time until a wait notices a stop.
const INTERVAL: Duration = Duration::from_millis(100);
/// How long a group's coordinator may take to answer that a member has left.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);
/// What a process needs to end after its stages have.
const EXIT_MARGIN: Duration = Duration::from_millis(500);

/// What a worker checks between its steps.
#[derive(Debug)]
pub(super) struct Stop {
    /// The deadline of the process, once it stops.
    process: Arc<OnceLock<Instant>>,
    new_start: AtomicBool,
}

impl Stop {
    /// A stop that is set with the deadline of the process, or by
    /// [`Stop::start_again`].
    pub(super) fn new(process: Arc<OnceLock<Instant>>) -> Self {
        Self {
            process,
            new_start: AtomicBool::new(false),
        }
    }

    pub(super) fn is_set(&self) -> bool {
        self.is_process_stopping() || self.new_start.load(Ordering::Relaxed)
    }

    pub(super) fn is_process_stopping(&self) -> bool {
        self.process.get().is_some()
    }

    /// Returns how long a worker that has ended may take to leave its group.
    pub(super) fn leave_timeout(&self) -> Duration {
        let until_exit = |deadline: &Instant| {
            let remaining = deadline.saturating_duration_since(Instant::now());
            remaining.saturating_sub(EXIT_MARGIN)
        };
        let remaining = self.process.get().map_or(LEAVE_TIMEOUT, until_exit);
        remaining.min(LEAVE_TIMEOUT)
    }

    /// Blocks for `duration`, or until it is set.
    pub(super) fn wait(&self, duration: Duration) {
        let end = Instant::now() + duration;
        while !self.is_set() && Instant::now() < end {
            thread::sleep(INTERVAL);
        }
    }

    /// Ends the worker, so that its stage starts again.
    pub(super) fn start_again(&self) {
        self.new_start.store(true, Ordering::Relaxed);
    }

    /// Returns whether the worker ended so that its stage starts again. Another
    /// worker may run after this call.
    pub(super) fn takes_new_start(&self) -> bool {
        self.new_start.swap(false, Ordering::Relaxed) && !self.is_process_stopping()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaving_a_group_ends_before_the_deadline_of_the_process() {
        let deadline = Arc::new(OnceLock::new());
        let stop = Stop::new(Arc::clone(&deadline));
        stop.start_again();
        assert_eq!(stop.leave_timeout(), LEAVE_TIMEOUT);
        let remaining = Duration::from_secs(1);
        deadline.set(Instant::now() + remaining).unwrap();
        assert!(stop.leave_timeout() + EXIT_MARGIN <= remaining);
    }

    #[test]
    fn a_process_at_its_deadline_does_not_wait() {
        let stop = Stop::new(Arc::new(OnceLock::from(Instant::now())));
        assert_eq!(stop.leave_timeout(), Duration::ZERO);
    }
}
