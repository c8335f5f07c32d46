//! Processes that are started again when they end, as an orchestrator does it.
//!
//! It must not know why a process ends, only with which code it may.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::northbridge::Northbridge;

/// What the product calls an end with work left over. A consumer ends so when
/// its transaction or its place was taken from it, and when a call into
/// librdkafka does not come back.
pub const UNSETTLED: i32 = 75;

/// How often a supervisor looks.
const LOOK: Duration = Duration::from_millis(200);

/// A thread that looks again and again; dropping it ends it.
#[derive(Debug)]
pub struct Supervisor {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Supervisor {
    /// Calls `look` until it is dropped.
    pub fn start(look: impl Fn() + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                look();
                thread::sleep(LOOK);
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A consumer in all its lives: each that ends with [`UNSETTLED`] is followed by
/// the next. Dropping it ends it, and fails the test where a life ended otherwise.
pub struct Supervised {
    lives: Arc<Lives>,
    supervisor: Option<Supervisor>,
}

struct Lives {
    start: Box<dyn Fn() -> Northbridge + Send + Sync>,
    process: Mutex<Northbridge>,
    unexpected: Mutex<Option<i32>>,
}

impl Supervised {
    /// Starts the first life now.
    pub fn start(start: impl Fn() -> Northbridge + Send + Sync + 'static) -> Self {
        let lives = Arc::new(Lives {
            process: Mutex::new(start()),
            start: Box::new(start),
            unexpected: Mutex::new(None),
        });
        let looked_after = Arc::clone(&lives);
        let supervisor = Supervisor::start(move || looked_after.look_after());
        Self {
            lives,
            supervisor: Some(supervisor),
        }
    }

    /// Its present life; the next one waits until this is given back.
    pub fn process(&self) -> MutexGuard<'_, Northbridge> {
        lock(&self.lives.process)
    }
}

impl Lives {
    fn look_after(&self) {
        let mut process = lock(&self.process);
        match process.exit_code() {
            None => {}
            Some(UNSETTLED) => *process = (self.start)(),
            Some(code) => *lock(&self.unexpected) = Some(code),
        }
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        drop(self.supervisor.take());
        let unexpected = *lock(&self.lives.unexpected);
        assert!(
            unexpected.is_none() || thread::panicking(),
            "a supervised process ended with {unexpected:?}"
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
