//! Annotations of a run: moments that were recorded elsewhere meanwhile, such
//! as the faults that a test injected.

use std::fs;
use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::process::output;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Annotation {
    /// Since the start of the run.
    pub(crate) at: Duration,
    pub(crate) text: String,
}

/// Reads the annotations of a run that began at `start`, sorted by time: one in
/// each line, a time in RFC 3339, a blank and a text. Skips those of other
/// times, and reports lines that cannot be parsed on standard error.
///
/// # Errors
///
/// Returns an error if the file cannot be read.
pub(crate) fn read(
    file: &Path,
    start: DateTime<Utc>,
    duration: Duration,
) -> std::io::Result<Vec<Annotation>> {
    let text = fs::read_to_string(file)?;
    let lines = (1..).zip(text.lines());
    let mut annotations = Vec::new();
    for (number, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
        match parse(line) {
            Some((time, text)) => {
                let at = (time - start).to_std().ok();
                let at = at.filter(|at| *at <= duration);
                annotations.extend(at.map(|at| Annotation { at, text }));
            }
            None => output::note(format_args!(
                "{}: line {number} is not an annotation",
                file.display()
            )),
        }
    }
    annotations.sort_by_key(|annotation| annotation.at);
    Ok(annotations)
}

fn parse(line: &str) -> Option<(DateTime<Utc>, String)> {
    let (time, text) = line.trim().split_once(char::is_whitespace)?;
    let time = DateTime::parse_from_rfc3339(time).ok()?;
    Some((time.with_timezone(&Utc), text.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_from(text: &str) -> Vec<Annotation> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("annotations");
        fs::write(&file, text).unwrap();
        let start = DateTime::parse_from_rfc3339("2026-01-01T00:00:00Z").unwrap();
        read(&file, start.into(), Duration::from_secs(60)).unwrap()
    }

    #[test]
    fn an_annotation_is_a_time_in_any_zone_and_the_rest_of_its_line() {
        let annotations = read_from(
            "2026-01-01T01:00:20.5+01:00  broker 2 is killed\n\n2026-01-01T00:00:10Z cut\n",
        );
        let read: Vec<_> = annotations
            .iter()
            .map(|annotation| (annotation.at.as_millis(), annotation.text.as_str()))
            .collect();
        assert_eq!(read, [(10_000, "cut"), (20_500, "broker 2 is killed")]);
    }

    #[test]
    fn a_line_that_cannot_be_parsed_or_is_outside_the_run_is_skipped() {
        let annotations = read_from(
            "yesterday it rained\n2025-12-31T23:59:59Z before\n2026-01-01T00:01:01Z after\n",
        );
        assert_eq!(annotations, []);
    }
}
