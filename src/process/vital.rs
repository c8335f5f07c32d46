//! The tasks and threads without which a process does nothing, although it still
//! runs: a panic in one of them ends the process, so that a supervisor starts
//! another.

use std::io;
use std::thread::{self, JoinHandle};

use super::Exit;
use super::fail_point::panic_in;

/// Spawns a task whose panic ends the process with [`Exit::Bug`].
pub(crate) fn spawn<T>(
    name: &'static str,
    task: impl Future<Output = T> + Send + 'static,
) -> tokio::task::JoinHandle<T>
where
    T: Send + 'static,
{
    tokio::spawn(async move {
        let _vital = Vital(name);
        panic_in(name);
        task.await
    })
}

/// Starts a thread whose panic ends the process with [`Exit::Bug`].
///
/// # Errors
///
/// Returns the operating system's error if no thread can be started.
pub(crate) fn start_thread(
    name: &'static str,
    run: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        let _vital = Vital(name);
        panic_in(name);
        run();
    })
}

/// Dropped by the unwinding of a panic, or at a normal end.
struct Vital(&'static str);

impl Drop for Vital {
    fn drop(&mut self) {
        if thread::panicking() {
            tracing::error!(part = self.0, "a part of the process has panicked; exiting");
            Exit::Bug.end()
        }
    }
}
