//! The picture of `northbridge dev --watch`, line by line. Pure: `watch` gathers what
//! is in it, and the terminal shows it.

use std::collections::VecDeque;
use std::time::Duration;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::commands::printable::printable;
use crate::process::readiness::Report;
use crate::process::terminal::Size;

const BOLD: &str = "\x1b[1m";
const REVERSED: &str = "\x1b[7m";
const PLAIN: &str = "\x1b[m";

/// Stands for the rest of a line that does not fit.
const CUT: &str = "…";

/// What the picture shows.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) uptime: Duration,
    pub(super) readiness: Report,
    /// One line for each address.
    pub(super) addresses: &'a [String],
    pub(super) counts: Counts,
    /// Stands in the place of the last events while there are none.
    pub(super) hint: &'a str,
}

/// What has happened since the start.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Counts {
    pub(super) received: f64,
    pub(super) received_per_second: f64,
    pub(super) in_flight: f64,
    /// The outcomes of pushes that have occurred.
    pub(super) outcomes: Vec<(String, f64)>,
    /// The reasons of the ingress's dead letters that have occurred.
    pub(super) dead_letters: Vec<(String, f64)>,
    pub(super) dead_letters_of_streams: f64,
}

impl View<'_> {
    /// Returns at most as many lines as there is room for, each of which fits. `recent`
    /// are the last events, oldest first.
    pub(super) fn lines(&self, recent: &VecDeque<String>, size: Size) -> Vec<String> {
        let mut lines = vec![self.title()];
        lines.extend(self.unmet_conditions());
        lines.push(String::new());
        lines.extend_from_slice(self.addresses);
        lines.push(String::new());
        lines.extend(self.counts.lines());
        lines.push(String::new());
        let room = size.lines.saturating_sub(lines.len());
        if recent.is_empty() {
            lines.push(format!("  {}", self.hint));
        }
        let newest = recent.iter().skip(recent.len().saturating_sub(room));
        lines.extend(newest.cloned());
        lines.truncate(size.lines);
        let mut lines: Vec<String> = lines.iter().map(|line| fit(line, size.columns)).collect();
        if let Some(title) = lines.first_mut() {
            let style = if self.readiness.ready { BOLD } else { REVERSED };
            *title = format!("{style}{title}{PLAIN}");
        }
        lines
    }

    fn title(&self) -> String {
        let is_ready = if self.readiness.ready {
            "ready"
        } else {
            "not ready"
        };
        let seconds = self.uptime.as_secs();
        let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        format!(
            "northbridge dev: {is_ready}, running for {hours}:{minutes:02}:{seconds:02}  (q or Ctrl-C stops)"
        )
    }

    fn unmet_conditions(&self) -> impl Iterator<Item = String> {
        let conditions = self.readiness.conditions.iter();
        let unmet = conditions.filter(|condition| !condition.met);
        unmet.map(|condition| format!("  {}: {}", condition.name, condition.why))
    }
}

impl Counts {
    fn lines(&self) -> [String; 3] {
        let list = |counts: &[(String, f64)]| {
            let counts = counts.iter().map(|(name, count)| format!("{name} {count}"));
            counts.collect::<Vec<_>>().join(", ")
        };
        let mut dead_letters = self.dead_letters.clone();
        if self.dead_letters_of_streams > 0.0 {
            dead_letters.push(("of the streams".to_owned(), self.dead_letters_of_streams));
        }
        let or_none = |list: String| {
            if list.is_empty() {
                "none".to_owned()
            } else {
                list
            }
        };
        [
            format!(
                "  received        {:.1} a second, {} in total, {} in flight",
                self.received_per_second, self.received, self.in_flight
            ),
            format!("  answers         {}", or_none(list(&self.outcomes))),
            format!("  dead letters    {}", or_none(list(&dead_letters))),
        ]
    }
}

/// Returns the line without control characters, cut to this number of columns.
fn fit(line: &str, columns: usize) -> String {
    let line = printable(line.as_bytes());
    if line.width() <= columns {
        return line;
    }
    let mut left = columns.saturating_sub(CUT.width());
    let fits = |character: &char| {
        let width = character.width().unwrap_or_default();
        let rest = left.checked_sub(width);
        left = rest.unwrap_or_default();
        rest.is_some()
    };
    let mut cut: String = line.chars().take_while(fits).collect();
    cut.push_str(CUT);
    cut
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::readiness::ConditionReport;

    const SIZE: Size = Size {
        columns: 80,
        lines: 24,
    };

    fn condition(name: &'static str, met: bool, why: &str) -> ConditionReport {
        ConditionReport {
            name: name.into(),
            met,
            since: String::new(),
            why: why.to_owned(),
        }
    }

    fn view(addresses: &[String], conditions: Vec<ConditionReport>) -> View<'_> {
        View {
            uptime: Duration::from_secs(3_725),
            readiness: Report {
                ready: conditions.iter().all(|condition| condition.met),
                conditions,
            },
            addresses,
            counts: Counts::default(),
            hint: "Nothing is stored yet.",
        }
    }

    fn events(count: usize) -> VecDeque<String> {
        (0..count).map(|number| format!("event {number}")).collect()
    }

    #[test]
    fn a_picture_shows_readiness_addresses_counts_and_events() {
        let addresses = ["  pushes          http://x/".to_owned()];
        let mut view = view(&addresses, vec![condition("kafka", true, "well")]);
        view.counts = Counts {
            received: 1_234.0,
            received_per_second: 12.34,
            in_flight: 3.0,
            outcomes: vec![("stored".to_owned(), 1_230.0), ("rejected".to_owned(), 1.0)],
            dead_letters: vec![("not-json".to_owned(), 2.0)],
            dead_letters_of_streams: 1.0,
        };
        let expected = "\
\x1b[1mnorthbridge dev: ready, running for 1:02:05  (q or Ctrl-C stops)\x1b[m

  pushes          http://x/

  received        12.3 a second, 1234 in total, 3 in flight
  answers         stored 1230, rejected 1
  dead letters    not-json 2, of the streams 1

event 0
event 1";
        assert_eq!(view.lines(&events(2), SIZE).join("\n"), expected);
    }

    #[test]
    fn a_picture_says_why_it_is_not_ready_and_what_to_do_while_nothing_is_stored() {
        let conditions = vec![
            condition("kafka", false, "no broker is reachable"),
            condition("topics", true, "all topics meet their requirements"),
        ];
        let expected = "\
\x1b[7mnorthbridge dev: not ready, running for 1:02:05  (q or Ctrl-C stops)\x1b[m
  kafka: no broker is reachable


  received        0.0 a second, 0 in total, 0 in flight
  answers         none
  dead letters    none

  Nothing is stored yet.";
        let view = view(&[], conditions);
        assert_eq!(view.lines(&events(0), SIZE).join("\n"), expected);
    }

    #[test]
    fn the_newest_events_fill_the_room_that_is_left() {
        let view = view(&[], Vec::new());
        for lines in 0..40 {
            let size = Size { lines, ..SIZE };
            let picture = view.lines(&events(100), size);
            assert_eq!(picture.len(), lines);
            if lines > 7 {
                assert_eq!(picture.last().unwrap(), "event 99");
            }
        }
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_or_has_control_characters() {
        let why = "设备\u{1b}[2J\n".repeat(40);
        let view = view(&[], vec![condition("kafka", false, &why)]);
        for columns in 0..200 {
            let size = Size { columns, ..SIZE };
            for line in view.lines(&events(3), size) {
                let line = line.replace(REVERSED, "").replace(PLAIN, "");
                assert!(line.width() <= columns.max(1), "{columns}: {line}");
                assert!(!line.contains(char::is_control), "{line}");
            }
        }
        assert_eq!(fit("设备1", 4), "设…");
        assert_eq!(fit("设备1", 5), "设备1");
    }
}
