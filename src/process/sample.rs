//! The values of some metrics at one time, from the registry.

use std::collections::BTreeMap;

use prometheus::proto::{Metric, MetricType};

use crate::metrics::Metrics;

/// A metric, and the labels that are kept of it, in alphabetical order. Its series are
/// summed over the others.
pub(crate) struct Family(pub(crate) &'static str, pub(crate) &'static [&'static str]);

/// The values of some series at one time, by their names as in `/metrics`.
pub(crate) type Sample = BTreeMap<String, f64>;

/// Returns the present values of `families`. Of a histogram these are its buckets, once
/// it has observed anything.
pub(crate) fn sample(metrics: &Metrics, families: &[Family]) -> Sample {
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

/// Returns the series of a family that is kept by one label: the label's value, and the
/// series' value.
pub(crate) fn by_label<'s>(
    sample: &'s Sample,
    family: &'s str,
) -> impl Iterator<Item = (&'s str, f64)> {
    sample.iter().filter_map(move |(name, value)| {
        let labels = name.strip_prefix(family)?.strip_prefix('{')?;
        Some((labels.split('"').nth(1)?, *value))
    })
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
        let expected: [(&str, f64); 5] = [
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
        let expected = expected.map(|(name, value)| (name.to_owned(), value));
        let sampled = sample(&metrics, &families);
        assert_eq!(sampled, Sample::from(expected));
        let outcomes: Vec<_> = by_label(&sampled, "northbridge_pushes_total").collect();
        assert_eq!(outcomes, [("rejected", 1.0), ("stored", 2.0)]);
    }
}
