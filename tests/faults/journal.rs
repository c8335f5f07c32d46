//! What happened in a run: the faults with their times, and what should not
//! have been.
//!
//! Faults go to a file of marks for `northbridge simulate --marks`, a line each.
//! Everything goes to standard error at once, past the test harness: who waits
//! for minutes wants to see what for.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use chrono::{SecondsFormat, Utc};

/// A run's journal; written to by all its threads.
#[derive(Debug)]
pub(crate) struct Journal {
    directory: PathBuf,
    started: Instant,
    aloud: bool,
    pages: Mutex<Pages>,
}

#[derive(Debug)]
struct Pages {
    marks: File,
    faults: BTreeMap<String, u32>,
    problems: Vec<String>,
    logs: BTreeMap<String, u32>,
}

impl Journal {
    /// Begins one in this directory.
    pub(crate) fn begin(directory: &Path) -> Self {
        let _ = fs::remove_dir_all(directory);
        fs::create_dir_all(directory).expect("a directory for the run");
        let marks = File::create(directory.join("marks")).expect("the file of marks");
        Self {
            directory: directory.to_owned(),
            started: Instant::now(),
            aloud: true,
            pages: Mutex::new(Pages {
                marks,
                faults: BTreeMap::new(),
                problems: Vec::new(),
                logs: BTreeMap::new(),
            }),
        }
    }

    /// As [`Journal::begin`], for tests of what writes into it.
    pub(crate) fn silent(directory: &Path) -> Self {
        Self {
            aloud: false,
            ..Self::begin(directory)
        }
    }

    /// A fault begins; it is counted by its kind.
    pub(crate) fn fault(&self, kind: &str, what: &str) {
        *self.pages().faults.entry(kind.to_owned()).or_default() += 1;
        self.mark(&format!("{kind}: {what}"));
    }

    /// A moment worth a mark, such as a fault's end.
    pub(crate) fn mark(&self, what: &str) {
        let now = Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true);
        writeln!(self.pages().marks, "{now} {what}").expect("the file of marks");
        self.say(what);
    }

    /// Something that must not be; the run goes on, and fails at its end.
    pub(crate) fn problem(&self, what: String) {
        self.mark(&format!("PROBLEM: {what}"));
        self.pages().problems.push(what);
    }

    /// A line for whoever looks on.
    pub(crate) fn say(&self, what: &str) {
        let at = self.started.elapsed().as_secs_f64();
        if self.aloud {
            let _ = writeln!(std::io::stderr(), "{at:7.1} s  {what}");
        }
    }

    /// Keeps a process's log.
    pub(crate) fn keep_log(&self, name: &str, lines: &[String]) {
        let number = {
            let mut pages = self.pages();
            let number = pages.logs.entry(name.to_owned()).or_default();
            *number += 1;
            *number
        };
        let path = self.directory.join(format!("{name}-{number}.log"));
        fs::write(path, lines.join("\n")).expect("the log");
    }

    /// Keeps a text under a name.
    pub(crate) fn keep(&self, name: &str, text: &str) {
        fs::write(self.directory.join(name), text).expect("the text");
    }

    /// How often each kind of fault was.
    pub(crate) fn faults(&self) -> BTreeMap<String, u32> {
        self.pages().faults.clone()
    }

    /// What must not have been.
    pub(crate) fn problems(&self) -> Vec<String> {
        self.pages().problems.clone()
    }

    /// When the run began.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
