//! What happened during a run: the faults with their times, and the violations.
//!
//! Each event is a line in the file that `northbridge simulate --annotations`
//! reads. Everything is also written to standard error at once, bypassing the
//! test harness's capture, to show the progress of a long run.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use chrono::{SecondsFormat, Utc};

use crate::stalls::Stalls;

/// The journal of a run; all its threads write to it.
#[derive(Debug)]
pub(crate) struct Journal {
    directory: PathBuf,
    started: Instant,
    verbose: bool,
    pub(crate) stalls: Stalls,
    entries: Mutex<Entries>,
}

#[derive(Debug)]
struct Entries {
    annotations: File,
    faults: BTreeMap<String, u32>,
    ended: BTreeMap<String, u32>,
    violations: Vec<String>,
    logs: BTreeMap<String, u32>,
}

impl Journal {
    /// Creates the directory; deletes an existing one.
    pub(crate) fn begin(directory: &Path) -> Self {
        let _ = fs::remove_dir_all(directory);
        fs::create_dir_all(directory).expect("a directory for the run");
        let annotations =
            File::create(directory.join("annotations")).expect("the annotations file");
        Self {
            directory: directory.to_owned(),
            started: Instant::now(),
            verbose: true,
            stalls: Stalls::measure(),
            entries: Mutex::new(Entries {
                annotations,
                faults: BTreeMap::new(),
                ended: BTreeMap::new(),
                violations: Vec::new(),
                logs: BTreeMap::new(),
            }),
        }
    }

    /// Like [`Journal::begin`], without standard error and without stalls, for tests
    /// of its users.
    pub(crate) fn silent(directory: &Path) -> Self {
        Self {
            verbose: false,
            stalls: Stalls::default(),
            ..Self::begin(directory)
        }
    }

    /// Records the start of a phase.
    pub(crate) fn phase(&self, name: &str) {
        self.stalls.begin_phase();
        self.annotate(&format!("phase: {name}"));
    }

    /// Records the start of a fault and counts it by kind.
    pub(crate) fn fault(&self, kind: &str, what: &str) {
        *self.entries().faults.entry(kind.to_owned()).or_default() += 1;
        self.annotate(&format!("{kind}: {what}"));
    }

    /// Counts a process that ended by itself, by cause.
    pub(crate) fn count_ended(&self, cause: String) {
        *self.entries().ended.entry(cause).or_default() += 1;
    }

    /// Records an event, such as the end of a fault.
    pub(crate) fn annotate(&self, what: &str) {
        let now = Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true);
        writeln!(self.entries().annotations, "{now} {what}").expect("the annotations file");
        self.print(what);
    }

    /// Records a violation; the run continues and fails at its end.
    pub(crate) fn violation(&self, what: String) {
        self.annotate(&format!("VIOLATION: {what}"));
        self.entries().violations.push(what);
    }

    /// Writes a line to standard error, with the time since the start.
    pub(crate) fn print(&self, what: &str) {
        let at = self.started.elapsed().as_secs_f64();
        if self.verbose {
            let _ = writeln!(std::io::stderr(), "{at:7.1} s  {what}");
        }
    }

    /// Writes a process's log to a numbered file.
    pub(crate) fn keep_log(&self, name: &str, lines: &[String]) {
        let number = {
            let mut entries = self.entries();
            let number = entries.logs.entry(name.to_owned()).or_default();
            *number += 1;
            *number
        };
        let path = self.directory.join(format!("{name}-{number}.log"));
        fs::write(path, lines.join("\n")).expect("the log");
    }

    /// Writes a file into the run's directory.
    pub(crate) fn keep(&self, name: &str, text: &str) {
        fs::write(self.directory.join(name), text).expect("the text");
    }

    /// How often each kind of fault was injected.
    pub(crate) fn faults(&self) -> BTreeMap<String, u32> {
        self.entries().faults.clone()
    }

    /// How many processes ended by themselves for each cause.
    pub(crate) fn ended(&self) -> BTreeMap<String, u32> {
        self.entries().ended.clone()
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        self.entries().violations.clone()
    }

    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
