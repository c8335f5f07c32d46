//! What a process prints, on standard output and standard error.
//!
//! A reader may go away before the end, as in `northbridge topics verify | head -1`,
//! and `println!` and `eprintln!` panic then. Here that is no error: what nobody reads
//! is dropped, and the exit code stays the one of what the command found.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;
use tokio::sync::oneshot;

/// Standard output cannot take what was printed, for example because a disk is full.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output: {0}")]
pub struct OutputError(io::Error);

/// Prints text as it is.
///
/// # Errors
///
/// Returns an error if the output has a reader and cannot be written.
pub fn print(text: impl Display) -> Result<(), OutputError> {
    let mut output = io::stdout().lock();
    let written = write!(output, "{text}").and_then(|()| output.flush());
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(OutputError(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Prints one line.
///
/// # Errors
///
/// The same as of [`print()`].
pub fn print_line(line: impl Display) -> Result<(), OutputError> {
    print(format_args!("{line}\n"))
}

/// Prints one line to standard error, if that is possible.
pub fn note(line: impl Display) {
    // There is nowhere left to report that.
    let _ = writeln!(io::stderr(), "{line}");
}

/// Waits until nobody reads standard output any more; forever if it is a file.
///
/// # Errors
///
/// Returns an error if no thread can be started.
pub(crate) fn reader_is_gone() -> io::Result<oneshot::Receiver<()>> {
    let (gone, noticed) = oneshot::channel();
    let watch = move || {
        if let Err(error) = wait_for_hangup() {
            tracing::debug!(%error, "cannot watch standard output");
            thread::park();
        }
        // Whoever waited may have ended for another reason.
        let _ = gone.send(());
    };
    thread::Builder::new()
        .name("output-watch".to_owned())
        .spawn(watch)?;
    Ok(noticed)
}

/// Polls for nothing: an end of the other side is reported all the same.
fn wait_for_hangup() -> rustix::io::Result<()> {
    let output = io::stdout();
    let mut output = [PollFd::new(&output, PollFlags::empty())];
    retry_on_intr(|| poll(&mut output, None)).map(drop)
}
