//! How late the machine runs threads that are due.
//!
//! The laws compare times that only a machine with idle processors keeps. What
//! the machine itself was late is therefore measured beside them, and allowed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_millis(10);
/// The threads on the way of an answer from the product to its sender, each of
/// which may be as late.
const THREADS: u32 = 4;

/// The longest stall of the current phase, in microseconds.
#[derive(Debug, Default)]
pub(crate) struct Stalls(Arc<AtomicU64>);

impl Stalls {
    /// Measures until it is dropped.
    pub(crate) fn measure() -> Self {
        let stalls = Self::default();
        let observed = Arc::downgrade(&stalls.0);
        thread::spawn(move || observe(&observed));
        stalls
    }

    /// Forgets the stalls so far.
    pub(crate) fn begin_phase(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// How late an answer may have been because of the machine, in this phase.
    pub(crate) fn allowance(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed)) * THREADS
    }
}

fn observe(longest_us: &Weak<AtomicU64>) {
    let mut due = Instant::now();
    while let Some(longest_us) = longest_us.upgrade() {
        let late = u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX);
        longest_us.fetch_max(late, Ordering::Relaxed);
        due = Instant::now() + INTERVAL;
        thread::sleep(INTERVAL);
    }
}

mod tests {
    use super::*;

    #[test]
    fn the_longest_stall_of_a_phase_counts_for_each_thread() {
        let stalls = Stalls(Arc::new(AtomicU64::new(7_000)));
        assert_eq!(stalls.allowance(), Duration::from_millis(28));
        stalls.begin_phase();
        assert_eq!(stalls.allowance(), Duration::ZERO);
    }
}
