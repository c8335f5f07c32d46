//! Which dead letters are meant. Pure.

use std::ops::Range;

use chrono::{DateTime, TimeDelta, Utc};

use super::dead_letter::DeadLetter;
use crate::kafka::reader::Bounds;

/// Which dead letters are meant: those that fit everything that is said here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// One of these reasons; any where there is none.
    pub reasons: Vec<String>,
    /// Written to the dead-letter topic then or later.
    pub since: Option<DateTime<Utc>>,
    /// Written to the dead-letter topic before then.
    pub until: Option<DateTime<Utc>>,
    /// In this partition.
    pub partition: Option<i32>,
    /// At this offset or behind it.
    pub from_offset: Option<i64>,
    /// At this offset or before it.
    pub to_offset: Option<i64>,
}

/// What cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectionError {
    /// The times exclude each other.
    #[error("--since {since} is not before --until {until}: nothing would be selected")]
    Times {
        /// `--since`.
        since: DateTime<Utc>,
        /// `--until`.
        until: DateTime<Utc>,
    },
    /// The offsets exclude each other.
    #[error("--from-offset {from} is behind --to-offset {to}: nothing would be selected")]
    Offsets {
        /// `--from-offset`.
        from: i64,
        /// `--to-offset`.
        to: i64,
    },
    /// There is no such partition.
    #[error("--partition {partition}: the dead-letter topic has the partitions 0 to {last}")]
    Partition {
        /// `--partition`.
        partition: i32,
        /// The last one there is.
        last: i32,
    },
}

impl Selection {
    /// Whether anything can fit.
    ///
    /// # Errors
    ///
    /// Names the two that exclude each other.
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

    /// The selected offsets of each partition that has any.
    ///
    /// # Errors
    ///
    /// Where the selected partition is not there.
    pub(super) fn ranges(&self, bounds: &Bounds) -> Result<Bounds, SelectionError> {
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
            .map(|(partition, kept)| (*partition, self.offsets(kept)));
        Ok(selected.filter(|(_, range)| !range.is_empty()).collect())
    }

    /// Whether a dead letter of a selected range fits the rest.
    pub(super) fn takes(&self, letter: &DeadLetter<'_>) -> bool {
        let reason = letter.reason();
        (self.reasons.is_empty() || self.reasons.contains(&reason))
            && self.since.is_none_or(|since| letter.written_at >= since)
            && self.until.is_none_or(|until| letter.written_at < until)
    }

    fn offsets(&self, kept: &Range<i64>) -> Range<i64> {
        let start = self.from_offset.unwrap_or(0).max(kept.start);
        let end = self.to_offset.map_or(i64::MAX, |to| to.saturating_add(1));
        start..end.min(kept.end)
    }
}

/// Reads a time: RFC 3339, or how long ago, such as `90s`, `30m`, `2h` or `7d`.
///
/// # Errors
///
/// Says what a time looks like.
pub fn moment(text: &str, now: DateTime<Utc>) -> Result<DateTime<Utc>, String> {
    let absolute = || Some(DateTime::parse_from_rfc3339(text).ok()?.to_utc());
    let ago = || now.checked_sub_signed(duration(text)?);
    absolute().or_else(ago).ok_or_else(|| {
        "is neither a time like 2026-01-31T08:00:00Z nor a time ago like 90s, 30m, 2h or 7d"
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
    fn a_time_is_rfc_3339_or_so_long_ago() {
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
            assert_eq!(moment(text, now).ok(), expected.map(at), "{text}");
        }
    }

    #[test]
    fn offsets_are_cut_to_what_is_kept_and_both_ends_are_meant() {
        let bounds = Bounds::from([(0, 10..20), (1, 0..5), (2, 7..7)]);
        let all = Selection::default();
        let within = |from_offset, to_offset| Selection {
            partition: Some(0),
            from_offset,
            to_offset,
            ..Selection::default()
        };
        let cases = [
            (all, Bounds::from([(0, 10..20), (1, 0..5)])),
            (within(None, None), Bounds::from([(0, 10..20)])),
            (within(Some(12), Some(12)), Bounds::from([(0, 12..13)])),
            (within(Some(3), None), Bounds::from([(0, 10..20)])),
            (within(None, Some(i64::MAX)), Bounds::from([(0, 10..20)])),
            (within(Some(20), None), Bounds::new()),
            (within(None, Some(9)), Bounds::new()),
        ];
        for (selection, expected) in cases {
            assert_eq!(selection.ranges(&bounds), Ok(expected), "{selection:?}");
        }
    }

    #[test]
    fn what_excludes_everything_is_an_error() {
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
        let bounds = Bounds::from([(0, 0..1), (1, 0..0)]);
        assert_eq!(
            partition.ranges(&bounds),
            Err(SelectionError::Partition {
                partition: 2,
                last: 1
            })
        );
    }
}
