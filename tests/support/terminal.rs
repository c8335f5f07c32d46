//! A pseudo terminal, and what a program draws on it.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::fs::OFlags;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use super::eventually;

/// Moves the cursor to the first line: a picture begins.
const HOME: &str = "\x1b[H";
/// Clears what is left of the picture before: a picture ends.
const CLEAR_REST: &str = "\x1b[J";

/// A terminal. A thread reads what programs write to it.
#[derive(Debug)]
pub struct Terminal {
    /// The side of the person in front of it.
    person: File,
    /// The side of the programs, open so that it outlives each of them.
    programs: File,
    path: PathBuf,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Opens a terminal of this size.
    pub fn open(columns: u16, lines: u16) -> Self {
        let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo terminal");
        grantpt(&person).expect("a pseudo terminal");
        unlockpt(&person).expect("a pseudo terminal");
        let path = ptsname(&person, Vec::new()).expect("its name");
        let path = PathBuf::from(path.to_str().expect("UTF-8"));
        let flags = OFlags::RDWR | OFlags::NOCTTY;
        let programs = rustix::fs::open(&path, flags, rustix::fs::Mode::empty());
        let terminal = Self {
            person: File::from(person),
            programs: File::from(programs.expect("the other side")),
            path,
            written: Arc::default(),
        };
        terminal.resize(columns, lines);
        terminal.read();
        terminal
    }

    /// The path that programs open.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Changes the size.
    pub fn resize(&self, columns: u16, lines: u16) {
        let size = Winsize {
            ws_row: lines,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&self.programs, size).expect("a terminal");
    }

    /// Presses keys.
    pub fn press(&self, keys: &str) {
        (&self.person)
            .write_all(keys.as_bytes())
            .expect("a terminal");
    }

    /// Returns whether it shows the keys that are pressed, and hands them on line by
    /// line, as for a shell.
    pub fn is_for_a_shell(&self) -> bool {
        let modes = tcgetattr(&self.programs).expect("a terminal").local_modes;
        modes.contains(LocalModes::ECHO | LocalModes::ICANON)
    }

    /// All that was written so far.
    pub fn written(&self) -> String {
        String::from_utf8_lossy(&self.lock()).into_owned()
    }

    /// Waits for a picture that matches, and returns its lines. Only whole pictures
    /// count.
    ///
    /// # Panics
    ///
    /// Panics after [`TIMEOUT`](super::TIMEOUT).
    pub fn wait_for_picture(&self, matches: impl Fn(&[String]) -> bool) -> Vec<String> {
        eventually("the picture appears", || {
            let written = self.written();
            let (whole, _) = written.rsplit_once(CLEAR_REST)?;
            let (_, picture) = whole.rsplit_once(HOME)?;
            let lines = picture.split('\n').map(|line| line.trim_end_matches('\r'));
            let lines: Vec<String> = lines.map(without_escapes).collect();
            matches(&lines).then_some(lines)
        })
    }

    fn read(&self) {
        let mut person = self.person.try_clone().expect("a descriptor");
        let written = Arc::clone(&self.written);
        thread::spawn(move || {
            let mut bytes = [0; 4_096];
            while let Ok(count @ 1..) = person.read(&mut bytes) {
                let mut written = written.lock().unwrap_or_else(PoisonError::into_inner);
                written.extend_from_slice(&bytes[..count]);
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes control sequences, which end with a letter.
fn without_escapes(line: &str) -> String {
    let (first, others) = line.split_once('\x1b').unwrap_or((line, ""));
    let others = others.split('\x1b');
    let texts = others.map(|sequence| {
        let end = sequence.find(|c: char| c.is_ascii_alphabetic());
        end.map_or("", |end| &sequence[end + 1..])
    });
    first.to_owned() + &texts.collect::<String>()
}
