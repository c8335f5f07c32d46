//! How late the machine runs threads that are due.
//!
//! The laws compare times that only a machine with idle processors keeps. What
//! the machine itself was late is therefore measured beside them, and allowed. The
//! thread that measures works a little, as those that it stands for: one that only
//! sleeps is preferred on busy processors.

use std::hint;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_millis(10);
/// How long the thread works each time.
const WORK: Duration = Duration::from_millis(1);
/// The wakes between the moment in which a push is due and its answer, each of which
/// may be as late: of the sender, of both sides of the balancer, of the product's timer
/// and worker, and back.
const WAKES: u32 = 8;

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
        Duration::from_micros(self.0.load(Ordering::Relaxed)) * WAKES
    }
}

fn observe(longest_us: &Weak<AtomicU64>) {
    let mut due = Instant::now();
    while let Some(longest_us) = longest_us.upgrade() {
        work(WORK);
        let late = due.elapsed().saturating_sub(WORK).as_micros();
        longest_us.fetch_max(u64::try_from(late).unwrap_or(u64::MAX), Ordering::Relaxed);
        due = Instant::now() + INTERVAL;
        thread::sleep(INTERVAL);
    }
}

fn work(time: Duration) {
    let began = Instant::now();
    while began.elapsed() < time {
        hint::spin_loop();
    }
}

mod tests {
    use super::*;

    #[test]
    fn the_longest_stall_of_a_phase_counts_for_each_wake() {
        let stalls = Stalls(Arc::new(AtomicU64::new(7_000)));
        assert_eq!(stalls.allowance(), Duration::from_millis(56));
        stalls.begin_phase();
        assert_eq!(stalls.allowance(), Duration::ZERO);
    }
}
