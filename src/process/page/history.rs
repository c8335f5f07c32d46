//! The last quarter of an hour of some metrics, sampled from the registry.
//!
//! Without it the page could only show what happens while somebody looks, and in an
//! incident that is too late. Its size is bounded by the series, whose labels are closed
//! sets, and by the samples: about 2 kB for each series.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use chrono::{DateTime, Utc};
use prometheus::proto::{Metric, MetricType};
use serde::Serialize;

use crate::metrics::Metrics;

/// The time between two samples: librdkafka's statistics and the gauges of the streams
/// change as often.
pub(super) const INTERVAL: Duration = Duration::from_secs(5);

/// A quarter of an hour, and its beginning.
const SAMPLES: usize = 15 * 60 / 5 + 1;

/// A metric, and the labels that are kept of it, in alphabetical order. Its series are
/// summed over the others.
pub(super) struct Family(pub(super) &'static str, pub(super) &'static [&'static str]);

/// The values of some series at one time, by their names as in `/metrics`.
pub(super) type Sample = BTreeMap<String, f64>;

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

/// Returns the present values of `families`. Of a histogram these are its buckets, once
/// it has observed anything.
pub(super) fn sample(metrics: &Metrics, families: &[Family]) -> Sample {
    let mut sample = Sample::new();
    for family in metrics.gather() {
        let kept = families
            .iter()
            .find(|Family(name, _)| *name == family.name());
        let Some(Family(name, labels)) = kept else {
            continue;
        };
        for metric in family.get_metric() {
            let kept = kept_labels(metric, labels);
            let mut add = |name: &str, labels: &[String], value: f64| {
                *sample.entry(series(name, labels)).or_default() += value;
            };
            match family.get_field_type() {
                MetricType::COUNTER => add(name, &kept, metric.get_counter().get_value()),
                MetricType::GAUGE => add(name, &kept, metric.get_gauge().get_value()),
                MetricType::HISTOGRAM => {
                    let name = format!("{name}_bucket");
                    for (bound, count) in buckets(metric) {
                        let labels = [vec![format!("le=\"{bound}\"")], kept.clone()].concat();
                        add(&name, &labels, count);
                    }
                }
                // No metric of this crate is one of these.
                MetricType::SUMMARY | MetricType::UNTYPED => {}
            }
        }
    }
    sample
}

fn kept_labels(metric: &Metric, names: &[&str]) -> Vec<String> {
    let kept = metric.get_label().iter();
    let kept = kept.filter(|label| names.contains(&label.name()));
    kept.map(|label| format!("{}=\"{}\"", label.name(), label.value()))
        .collect()
}

/// The upper bounds and cumulative counts of a histogram that has observed anything.
fn buckets(metric: &Metric) -> Vec<(String, f64)> {
    #[expect(
        clippy::as_conversions,
        clippy::cast_precision_loss,
        reason = "Prometheus's own format has counts as floats"
    )]
    let float = |count: u64| count as f64;
    let histogram = metric.get_histogram();
    let all = histogram.get_sample_count();
    if all == 0 {
        return Vec::new();
    }
    let bounded = histogram.get_bucket().iter();
    bounded
        .map(|bucket| {
            (
                bucket.upper_bound().to_string(),
                float(bucket.cumulative_count()),
            )
        })
        .chain([("+Inf".to_owned(), float(all))])
        .collect()
}

fn series(name: &str, labels: &[String]) -> String {
    if labels.is_empty() {
        return name.to_owned();
    }
    format!("{name}{{{}}}", labels.join(","))
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

    #[test]
    fn a_sample_is_summed_over_the_labels_that_are_not_kept() {
        let metrics = Metrics::new();
        let pushes = metrics.counters("pushes_total", "Help.", &["outcome", "notify_type"]);
        for labels in [["stored", "a"], ["stored", "b"], ["rejected", "b"]] {
            pushes.with_label_values(&labels).inc();
        }
        let seconds = metrics.histograms("seconds", "Help.", &["outcome"], &[0.5, 1.0]);
        for outcome in ["stored", "rejected"] {
            seconds.with_label_values(&[outcome]);
        }
        for value in [0.1, 0.7, 3.0] {
            seconds.with_label_values(&["stored"]).observe(value);
        }
        let families = [
            Family("northbridge_pushes_total", &["outcome"]),
            Family("northbridge_seconds", &["outcome"]),
            Family("northbridge_absent", &[]),
        ];
        let expected = [
            (r#"northbridge_pushes_total{outcome="rejected"}"#, 1.0),
            (r#"northbridge_pushes_total{outcome="stored"}"#, 2.0),
            (
                r#"northbridge_seconds_bucket{le="0.5",outcome="stored"}"#,
                1.0,
            ),
            (
                r#"northbridge_seconds_bucket{le="1",outcome="stored"}"#,
                2.0,
            ),
            (
                r#"northbridge_seconds_bucket{le="+Inf",outcome="stored"}"#,
                3.0,
            ),
        ];
        assert_eq!(sample(&metrics, &families), sample_of(&expected));
    }
}
