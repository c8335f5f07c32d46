//! The terminal while a view fills it: it has a screen of its own then, shows no keys
//! that are pressed, and gets back what it had before, however the process ends.
//!
//! The terminal is one for the whole process and outlives it. So its state is one as
//! well, and [`Exit::end`](super::Exit::end) restores it.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Read, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::termios::{
    InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize,
    tcsetattr,
};
use tokio::sync::oneshot;

/// Changes to the other screen, and hides the cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
/// Shows the cursor, and changes back.
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// Moves the cursor to the first column of the first line.
const HOME: &str = "\x1b[H";
/// Clears the rest of the line, so that nothing of the last picture is left.
const CLEAR_LINE: &str = "\x1b[K";
/// Clears the rest of the screen.
const CLEAR_REST: &str = "\x1b[J";

/// How much of the log is kept for the time after the view.
const MAX_LOG_BYTES: usize = 64 * 1024;

/// What a terminal has that does not know its size.
const DEFAULT_SIZE: Size = Size {
    columns: 79,
    lines: 24,
};

static OPEN: Mutex<Option<Open>> = Mutex::new(None);

/// A terminal that a view fills.
struct Open {
    before: Termios,
    log: HeldLog,
}

/// The log while it would destroy the picture: its newest lines.
#[derive(Debug, Default)]
struct HeldLog(Vec<u8>);

/// The room in the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    /// Without the last one: some terminals erase the character in it together with
    /// what is behind it.
    pub(crate) columns: usize,
    pub(crate) lines: usize,
}

/// The screen of a view. Dropping it restores the terminal.
#[derive(Debug)]
pub(crate) struct Screen(());

/// Returns whether standard output is a terminal that can show a view.
pub(crate) fn can_show_view() -> bool {
    let is_capable = std::env::var_os("TERM").is_some_and(|name| name != "dumb");
    is_capable && io::stdout().is_terminal()
}

impl Screen {
    /// Takes the terminal. Ctrl-C still sends SIGINT; the keys that would stop the
    /// process or its output have no effect.
    ///
    /// # Errors
    ///
    /// Returns the operating system's error if standard output is not a terminal.
    pub(crate) fn open() -> io::Result<Self> {
        let before = tcgetattr(io::stdout())?;
        let mut settings = before.clone();
        // On Linux, no key has the code 0.
        settings.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
        settings.input_modes -= InputModes::IXON;
        for (key, code) in [
            (SpecialCodeIndex::VMIN, 1),
            (SpecialCodeIndex::VTIME, 0),
            (SpecialCodeIndex::VSUSP, 0),
            (SpecialCodeIndex::VQUIT, 0),
        ] {
            settings.special_codes[key] = code;
        }
        let mut open = lock();
        tcsetattr(io::stdout(), OptionalActions::Now, &settings)?;
        let log = HeldLog::default();
        *open = Some(Open { before, log });
        write(ENTER);
        Ok(Self(()))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// Returns the room as it is now.
pub(crate) fn size() -> Size {
    let size = tcgetwinsize(io::stdout()).ok();
    let size = size.filter(|size| size.ws_col > 0 && size.ws_row > 0);
    size.map_or(DEFAULT_SIZE, |size| Size {
        columns: usize::from(size.ws_col) - 1,
        lines: size.ws_row.into(),
    })
}

/// Shows these lines, which must fit, if a view has the terminal.
pub(crate) fn draw(lines: &[String]) {
    let mut picture = HOME.to_owned();
    for (number, line) in lines.iter().enumerate() {
        let line_break = if number == 0 { "" } else { "\r\n" };
        // Writing to a `String` cannot fail.
        let _ = write!(picture, "{line_break}{line}{CLEAR_LINE}");
    }
    picture.push_str(CLEAR_REST);
    let open = lock();
    if open.is_some() {
        write(&picture);
    }
}

/// Gives the terminal back as it was, with the log below what it showed then. Does
/// nothing without a view.
pub(super) fn restore() {
    let Some(open) = lock().take() else {
        return;
    };
    write(LEAVE);
    let _ = tcsetattr(io::stdout(), OptionalActions::Now, &open.before);
    let _ = io::stderr().write_all(&open.log.0);
}

/// Waits until `q` is pressed; forever if standard input is not a terminal.
///
/// # Errors
///
/// Returns the operating system's error if no thread can be started.
pub(crate) fn quit_key() -> io::Result<oneshot::Receiver<()>> {
    let (pressed, is_pressed) = oneshot::channel();
    let watch = move || {
        let input = io::stdin();
        let is_quit = |key: u8| matches!(key, b'q' | b'Q');
        let mut keys = input.lock().bytes().map_while(Result::ok);
        if !io::stdin().is_terminal() || !keys.any(is_quit) {
            loop {
                thread::park();
            }
        }
        // Whoever waited may have ended for another reason.
        let _ = pressed.send(());
    };
    thread::Builder::new()
        .name("keyboard".to_owned())
        .spawn(watch)?;
    Ok(is_pressed)
}

/// Where the log goes: standard error, or memory while a view fills its terminal.
#[derive(Debug)]
pub(super) struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(open) = lock().as_mut().filter(|_| io::stderr().is_terminal()) {
            open.log.add(bytes);
            return Ok(bytes.len());
        }
        io::stderr().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl HeldLog {
    fn add(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        let excess = self.0.len().saturating_sub(MAX_LOG_BYTES);
        if excess > 0 {
            let first = self.0.iter().skip(excess);
            let cut = first.take_while(|byte| **byte != b'\n').count();
            self.0.drain(..(excess + cut + 1).min(self.0.len()));
        }
    }
}

fn lock() -> MutexGuard<'static, Option<Open>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A terminal that is gone cannot be written, and nobody would see it.
fn write(text: &str) {
    let mut output = io::stdout().lock();
    let _ = output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_held_from_a_whole_line_on() {
        let mut log = HeldLog::default();
        let line = |number: usize| format!("line {number:06}\n");
        let count = MAX_LOG_BYTES / 12 * 2;
        for number in 0..count {
            log.add(line(number).as_bytes());
        }
        assert!(log.0.len() <= MAX_LOG_BYTES);
        let held = String::from_utf8(log.0).unwrap();
        assert!(held.starts_with("line "), "{}", &held[..20]);
        assert_eq!(held.lines().next().unwrap().len(), 11);
        assert!(held.ends_with(&line(count - 1)));
    }
}
