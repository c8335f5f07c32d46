//! Moments that somebody else noted while a run lasted, such as the faults that
//! a test caused: one a line, a time in RFC 3339 and a text.

use std::fs;
use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, Utc};

/// A moment of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Since the start of the run.
    pub at: Duration,
    /// What happened.
    pub text: String,
}

/// Reads the marks of a run that began and ended then, in the order of their
/// times. What is no mark is told on standard error, and left out.
///
/// # Errors
///
/// Where the file cannot be read.
pub fn read(file: &Path, start: DateTime<Utc>, lasted: Duration) -> std::io::Result<Vec<Mark>> {
    let text = fs::read_to_string(file)?;
    let lines = text.lines().zip(1..).map(|(line, number)| (number, line));
    let mut marks = Vec::new();
    for (number, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
        match mark(line) {
            Some((time, text)) => {
                let at = (time - start).to_std().ok();
                let at = at.filter(|at| *at <= lasted);
                marks.extend(at.map(|at| Mark { at, text }));
            }
            None => eprintln!("{}: line {number} is no mark", file.display()),
        }
    }
    marks.sort_by_key(|mark| mark.at);
    Ok(marks)
}

fn mark(line: &str) -> Option<(DateTime<Utc>, String)> {
    let (time, text) = line.trim().split_once(char::is_whitespace)?;
    let time = DateTime::parse_from_rfc3339(time).ok()?;
    Some((time.with_timezone(&Utc), text.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_from(text: &str) -> Vec<Mark> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("marks");
        fs::write(&file, text).unwrap();
        let start = DateTime::parse_from_rfc3339("2026-01-01T00:00:00Z").unwrap();
        read(&file, start.into(), Duration::from_secs(60)).unwrap()
    }

    #[test]
    fn a_mark_is_a_time_in_any_zone_and_the_rest_of_its_line() {
        let marks = read_from(
            "2026-01-01T01:00:20.5+01:00  broker 2 is killed\n\n2026-01-01T00:00:10Z cut\n",
        );
        let told: Vec<_> = marks
            .iter()
            .map(|mark| (mark.at.as_millis(), mark.text.as_str()))
            .collect();
        assert_eq!(told, [(10_000, "cut"), (20_500, "broker 2 is killed")]);
    }

    #[test]
    fn what_is_no_mark_or_not_of_the_run_is_left_out() {
        let marks = read_from(
            "yesterday it rained\n2025-12-31T23:59:59Z before\n2026-01-01T00:01:01Z after\n",
        );
        assert_eq!(marks, []);
    }
}
