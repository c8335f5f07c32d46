//! The statistics of a run: answers by kind and latency, in total and for each
//! second.
//!
//! Does not know how they are shown.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::answer::Answer;

/// Ten minutes; a longer latency is recorded as this one.
const MAX_LATENCY_US: u64 = 600_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;

/// The number of answers of each kind.
pub(crate) type AnswerCounts = BTreeMap<Answer, u64>;

/// Everything that has been counted since the start of the run.
#[derive(Debug)]
pub(crate) struct Statistics {
    answers: AnswerCounts,
    latency: Histogram<u64>,
    longest_answer: Duration,
    /// Since the last closed second.
    current_answers: AnswerCounts,
    current_latency: Histogram<u64>,
    seconds: Vec<Second>,
}

/// One second of the run, more or less: it ends when its timer is served.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Second {
    /// Its end, since the start of the run.
    pub(crate) end: Duration,
    pub(crate) duration: Duration,
    pub(crate) answers: AnswerCounts,
    /// Of the answers in this second.
    pub(crate) latency: Latency,
    /// Pushes without an answer at its end.
    pub(crate) in_flight: usize,
    /// True if the host was blacklisted when the second ended.
    pub(crate) blacklisted: bool,
}

/// Latency from the intended send time to the complete response, or to the
/// failure of the push.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Latency {
    pub(crate) p50: Duration,
    pub(crate) p90: Duration,
    pub(crate) p99: Duration,
    pub(crate) p999: Duration,
    pub(crate) max: Duration,
}

/// A bucket of the latency distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bucket {
    /// Inclusive.
    pub(crate) from: Duration,
    /// Exclusive.
    pub(crate) to: Duration,
    pub(crate) count: u64,
}

impl Statistics {
    pub(crate) fn new() -> Self {
        Self {
            answers: AnswerCounts::new(),
            latency: histogram(),
            longest_answer: Duration::ZERO,
            current_answers: AnswerCounts::new(),
            current_latency: histogram(),
            seconds: Vec::new(),
        }
    }

    /// Counts an answer: `latency` from the intended send time, `service_time`
    /// from the actual one.
    pub(crate) fn record(&mut self, answer: Answer, latency: Duration, service_time: Duration) {
        if matches!(answer, Answer::Status(_)) {
            self.longest_answer = self.longest_answer.max(service_time);
        }
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        for histogram in [&mut self.latency, &mut self.current_latency] {
            histogram.saturating_record(us);
        }
        for answers in [&mut self.answers, &mut self.current_answers] {
            *answers.entry(answer).or_default() += 1;
        }
    }

    /// Closes the current second at `end`, and returns it.
    pub(crate) fn close_second(
        &mut self,
        end: Duration,
        in_flight: usize,
        blacklisted: bool,
    ) -> &Second {
        let start = self.seconds.last().map_or(Duration::ZERO, |last| last.end);
        let second = Second {
            end,
            duration: end.saturating_sub(start),
            answers: std::mem::take(&mut self.current_answers),
            latency: Latency::of(&self.current_latency),
            in_flight,
            blacklisted,
        };
        self.current_latency.reset();
        self.seconds.push(second);
        &self.seconds[self.seconds.len() - 1]
    }

    pub(crate) fn answers(&self) -> &AnswerCounts {
        &self.answers
    }

    /// Returns whether no push has had any answer but 200.
    pub(crate) fn is_all_200(&self) -> bool {
        self.answers
            .keys()
            .all(|answer| *answer == Answer::Status(200))
    }

    /// The longest time from the actual send time to a complete response.
    pub(crate) fn longest_answer(&self) -> Duration {
        self.longest_answer
    }

    pub(crate) fn latency(&self) -> Latency {
        Latency::of(&self.latency)
    }

    /// Returns the non-empty buckets of the latency distribution; each bucket
    /// is an eighth wider than the one before.
    pub(crate) fn distribution(&self) -> Vec<Bucket> {
        let mut buckets = Vec::new();
        let mut from = 1;
        while from <= self.latency.max() {
            let to = (from * 9 / 8).max(from + 1);
            // `count_between` includes both bounds.
            let count = self.latency.count_between(from, to - 1);
            if count > 0 {
                buckets.push(Bucket {
                    from: Duration::from_micros(from),
                    to: Duration::from_micros(to),
                    count,
                });
            }
            from = to;
        }
        buckets
    }

    pub(crate) fn seconds(&self) -> &[Second] {
        &self.seconds
    }
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| Duration::from_micros(histogram.value_at_quantile(quantile));
        Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: Duration::from_micros(histogram.max()),
        }
    }
}

#[expect(
    clippy::expect_used,
    reason = "the library documents these constant bounds as valid"
)]
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MAX_LATENCY_US, SIGNIFICANT_DIGITS).expect("constant bounds")
}
