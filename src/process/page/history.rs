//! The last quarter of an hour of some metrics, sampled from the registry.
//!
//! Without it the page could only show what happens while somebody looks, and in an
//! incident that is too late. Its size is bounded by the series, whose labels are closed
//! sets, and by the samples: about 2 kB for each series.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::process::sample::Sample;

/// The time between two samples: librdkafka's statistics and the gauges of the streams
/// change as often.
pub(super) const INTERVAL: Duration = Duration::from_secs(5);

/// A quarter of an hour, and its beginning.
const SAMPLES: usize = 15 * 60 / 5 + 1;

#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct History {
    /// When the samples were taken, oldest first: Unix times in milliseconds.
    times: VecDeque<i64>,
    /// The values at these times: NaN, in JSON null, if there was none.
    series: BTreeMap<String, VecDeque<f64>>,
}

impl History {
    /// Adds a sample, in the place of the oldest one if there are enough.
    pub(super) fn record(&mut self, at: DateTime<Utc>, sample: Sample) {
        let before = self.times.len();
        self.times.push_back(at.timestamp_millis());
        for (name, value) in sample {
            let values = self.series.entry(name).or_default();
            values.resize(before, f64::NAN);
            values.push_back(value);
        }
        let is_full = before == SAMPLES;
        for values in self.series.values_mut() {
            values.resize(before + 1, f64::NAN);
            values.drain(..usize::from(is_full));
        }
        self.times.drain(..usize::from(is_full));
        self.series
            .retain(|_, values| values.iter().any(|value| !value.is_nan()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample_of(values: &[(&str, f64)]) -> Sample {
        let owned = |(name, value): &(&str, f64)| ((*name).to_owned(), *value);
        values.iter().map(owned).collect()
    }

    #[test]
    fn a_series_has_a_value_or_null_at_every_time() {
        let mut history = History::default();
        let at = DateTime::from_timestamp_millis(1_000).unwrap();
        history.record(at, sample_of(&[("a", 1.0)]));
        history.record(at, sample_of(&[("a", 2.0), ("b", 3.0)]));
        history.record(at, sample_of(&[("b", 4.0)]));
        let json = serde_json::to_value(&history).unwrap();
        let expected = serde_json::json!({
            "times": [1000, 1000, 1000],
            "series": {"a": [1.0, 2.0, null], "b": [null, 3.0, 4.0]},
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn it_keeps_a_quarter_of_an_hour_and_forgets_series_without_a_value() {
        let mut history = History::default();
        let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
        history.record(at(0), sample_of(&[("revoked", 1.0)]));
        for seconds in (5..=1_000).step_by(5) {
            history.record(at(seconds), sample_of(&[("assigned", 1.0)]));
        }
        let (first, last) = (history.times[0], history.times[history.times.len() - 1]);
        assert_eq!(last - first, 15 * 60 * 1_000);
        assert_eq!(history.series.keys().collect::<Vec<_>>(), ["assigned"]);
        assert_eq!(history.series["assigned"].len(), history.times.len());
    }
}
