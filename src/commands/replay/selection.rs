//! Which dead letters a replay selects.

use std::ops::Range;

use chrono::{DateTime, TimeDelta, Utc};

use super::dead_letter::DeadLetter;
use crate::kafka::log_reader::Ranges;

/// The dead letters to replay: those that match every criterion.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Has one of these reasons; empty matches any.
    pub reasons: Vec<String>,
    /// Written to the dead-letter topic at or after this time.
    pub since: Option<DateTime<Utc>>,
    /// Written to the dead-letter topic before this time.
    pub until: Option<DateTime<Utc>>,
    /// In this partition of the dead-letter topic.
    pub partition: Option<i32>,
    /// At or after this offset.
    pub from_offset: Option<i64>,
    /// At or before this offset.
    pub to_offset: Option<i64>,
}

/// Why a selection is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectionError {
    /// No time is in the interval.
    #[error("--since {since} must be before --until {until}")]
    Times {
        /// `--since`.
        since: DateTime<Utc>,
        /// `--until`.
        until: DateTime<Utc>,
    },
    /// No offset is in the interval.
    #[error("--from-offset {from} must not be greater than --to-offset {to}")]
    Offsets {
        /// `--from-offset`.
        from: i64,
        /// `--to-offset`.
        to: i64,
    },
    /// The dead-letter topic has fewer partitions.
    #[error(
        "--partition {partition} does not exist: the dead-letter topic has partitions 0 to {last}"
    )]
    Partition {
        /// `--partition`.
        partition: i32,
        /// The partition with the highest number.
        last: i32,
    },
}

impl Selection {
    /// Checks that the criteria can be met together.
    ///
    /// # Errors
    ///
    /// Returns [`SelectionError::Times`] or [`SelectionError::Offsets`] if an
    /// interval is empty.
    pub fn check(&self) -> Result<(), SelectionError> {
        if let (Some(since), Some(until)) = (self.since, self.until)
            && since >= until
        {
            return Err(SelectionError::Times { since, until });
        }
        if let (Some(from), Some(to)) = (self.from_offset, self.to_offset)
            && from > to
        {
            return Err(SelectionError::Offsets { from, to });
        }
        Ok(())
    }

    /// Returns the part of `bounds` that is selected by partition and offset,
    /// without the partitions of which that is nothing.
    ///
    /// # Errors
    ///
    /// Returns [`SelectionError::Partition`] if `bounds` lacks the partition.
    pub(super) fn ranges(&self, bounds: &Ranges) -> Result<Ranges, SelectionError> {
        if let Some(partition) = self.partition
            && !bounds.contains_key(&partition)
        {
            let last = bounds.keys().next_back().copied().unwrap_or(0);
            return Err(SelectionError::Partition { partition, last });
        }
        let selected = bounds
            .iter()
            .filter(|(partition, _)| {
                self.partition
                    .is_none_or(|selected| selected == **partition)
            })
            .map(|(partition, bounds)| (*partition, self.offsets(bounds)));
        Ok(selected.filter(|(_, range)| !range.is_empty()).collect())
    }

    /// Returns whether a dead letter in a selected range matches the reason and
    /// the times.
    pub(super) fn matches(&self, letter: &DeadLetter<'_>) -> bool {
        let reason = letter.reason();
        (self.reasons.is_empty() || self.reasons.contains(&reason))
            && self.since.is_none_or(|since| letter.written_at >= since)
            && self.until.is_none_or(|until| letter.written_at < until)
    }

    fn offsets(&self, bounds: &Range<i64>) -> Range<i64> {
        let start = self.from_offset.unwrap_or(0).max(bounds.start);
        let end = self.to_offset.map_or(i64::MAX, |to| to.saturating_add(1));
        start..end.min(bounds.end)
    }
}

/// Parses a time in RFC 3339, or an age before `now` such as `90s`, `30m`, `2h`
/// or `7d`.
///
/// # Errors
///
/// Returns a text that shows both forms if `text` has neither.
pub fn parse_time(text: &str, now: DateTime<Utc>) -> Result<DateTime<Utc>, String> {
    let absolute = || Some(DateTime::parse_from_rfc3339(text).ok()?.to_utc());
    let ago = || now.checked_sub_signed(duration(text)?);
    absolute().or_else(ago).ok_or_else(|| {
        "expected a time such as 2026-01-31T08:00:00Z, or an age such as 90s, 30m, 2h or 7d"
            .to_owned()
    })
}

fn duration(text: &str) -> Option<TimeDelta> {
    let (unit_at, unit) = text.char_indices().next_back()?;
    let count: u32 = text[..unit_at].parse().ok()?;
    match unit {
        's' => TimeDelta::try_seconds(count.into()),
        'm' => TimeDelta::try_minutes(count.into()),
        'h' => TimeDelta::try_hours(count.into()),
        'd' => TimeDelta::try_days(count.into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        DateTime::parse_from_rfc3339(text).unwrap().to_utc()
    }

    #[test]
    fn a_time_is_rfc_3339_or_an_age() {
        let now = at("2026-02-01T00:00:00Z");
        let cases = [
            ("2026-01-31T08:00:00Z", Some("2026-01-31T08:00:00Z")),
            (
                "2026-01-31T08:00:00.5+01:00",
                Some("2026-01-31T07:00:00.5Z"),
            ),
            ("90s", Some("2026-01-31T23:58:30Z")),
            ("30m", Some("2026-01-31T23:30:00Z")),
            ("2h", Some("2026-01-31T22:00:00Z")),
            ("7d", Some("2026-01-25T00:00:00Z")),
            ("4294967295d", None),
            ("2026-01-31", None),
            ("-2h", None),
            ("2 h", None),
            ("h", None),
            ("2", None),
            ("2ü", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_time(text, now).ok(), expected.map(at), "{text}");
        }
    }

    #[test]
    fn offsets_are_clipped_to_the_log_and_both_ends_are_included() {
        let bounds = Ranges::from([(0, 10..20), (1, 0..5), (2, 7..7)]);
        let all = Selection::default();
        let within = |from_offset, to_offset| Selection {
            partition: Some(0),
            from_offset,
            to_offset,
            ..Selection::default()
        };
        let cases = [
            (all, Ranges::from([(0, 10..20), (1, 0..5)])),
            (within(None, None), Ranges::from([(0, 10..20)])),
            (within(Some(12), Some(12)), Ranges::from([(0, 12..13)])),
            (within(Some(3), None), Ranges::from([(0, 10..20)])),
            (within(None, Some(i64::MAX)), Ranges::from([(0, 10..20)])),
            (within(Some(20), None), Ranges::new()),
            (within(None, Some(9)), Ranges::new()),
        ];
        for (selection, expected) in cases {
            assert_eq!(selection.ranges(&bounds), Ok(expected), "{selection:?}");
        }
    }

    #[test]
    fn a_selection_that_matches_nothing_is_an_error() {
        let early = at("2026-01-01T00:00:00Z");
        let times = Selection {
            since: Some(early),
            until: Some(early),
            ..Selection::default()
        };
        assert!(matches!(times.check(), Err(SelectionError::Times { .. })));
        let offsets = Selection {
            from_offset: Some(2),
            to_offset: Some(1),
            ..Selection::default()
        };
        assert!(matches!(
            offsets.check(),
            Err(SelectionError::Offsets { .. })
        ));
        let partition = Selection {
            partition: Some(2),
            ..Selection::default()
        };
        let bounds = Ranges::from([(0, 0..1), (1, 0..0)]);
        assert_eq!(
            partition.ranges(&bounds),
            Err(SelectionError::Partition {
                partition: 2,
                last: 1
            })
        );
    }
}
