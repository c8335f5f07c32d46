//! Stream processes that are restarted when they exit, as an orchestrator does.
//!
//! It must not know why a process exits, only which exit code is allowed.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::northbridge::Northbridge;

/// The exit code for unfinished work. A stream process exits with it when it is
/// fenced, when it loses its group membership, or when a call into librdkafka
/// does not return.
pub const UNSETTLED: i32 = 75;

const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// A thread that calls a closure at a fixed interval; dropping it stops it.
#[derive(Debug)]
pub struct Poller {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Poller {
    /// Calls `poll` every [`POLL_INTERVAL`] until the poller is dropped.
    pub fn start(poll: impl Fn() + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                poll();
                thread::sleep(POLL_INTERVAL);
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A stream process that is restarted whenever it exits with [`UNSETTLED`].
/// Dropping it kills the process, and fails the test if it exited with any other
/// code.
pub struct Supervised {
    restartable: Arc<Restartable>,
    poller: Option<Poller>,
}

struct Restartable {
    start: Box<dyn Fn() -> Northbridge + Send + Sync>,
    current: Mutex<Northbridge>,
    unexpected_exit: Mutex<Option<i32>>,
}

impl Supervised {
    /// Calls `start` now, and again for each restart.
    pub fn start(start: impl Fn() -> Northbridge + Send + Sync + 'static) -> Self {
        let restartable = Arc::new(Restartable {
            current: Mutex::new(start()),
            start: Box::new(start),
            unexpected_exit: Mutex::new(None),
        });
        let shared = Arc::clone(&restartable);
        let poller = Poller::start(move || shared.restart_if_exited());
        Self {
            restartable,
            poller: Some(poller),
        }
    }

    /// The current process; it is not restarted while the guard is held.
    pub fn process(&self) -> MutexGuard<'_, Northbridge> {
        lock(&self.restartable.current)
    }
}

impl Restartable {
    fn restart_if_exited(&self) {
        let mut current = lock(&self.current);
        match current.exit_code() {
            None => {}
            Some(UNSETTLED) => *current = (self.start)(),
            Some(code) => *lock(&self.unexpected_exit) = Some(code),
        }
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        drop(self.poller.take());
        let unexpected = *lock(&self.restartable.unexpected_exit);
        assert!(
            unexpected.is_none() || thread::panicking(),
            "a supervised process exited with {unexpected:?}"
        );
    }
}

impl fmt::Debug for Supervised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Supervised").field(&self.process()).finish()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
