//! The numbers of a run: answers by code, latency, and how both went over time.
//!
//! Knows nothing of how they are shown.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::platform::Answer;

/// Latencies are recorded in microseconds, up to ten minutes, to three digits.
const HIGHEST_US: u64 = 600_000_000;

/// How many answers of each kind.
pub type Answers = BTreeMap<Answer, u64>;

/// Everything counted so far.
#[derive(Debug)]
pub struct Tally {
    answers: Answers,
    latency: Histogram<u64>,
    longest_answer: Duration,
    second_answers: Answers,
    second_latency: Histogram<u64>,
    seconds: Vec<Second>,
}

/// What was answered in one second of the run.
#[derive(Debug, Clone, PartialEq)]
pub struct Second {
    /// Its end, since the start of the run.
    pub at: Duration,
    /// Its length.
    pub lasted: Duration,
    /// What was answered in it.
    pub answers: Answers,
    /// The latency of these answers.
    pub latency: Latency,
    /// What was under way at its end.
    pub in_flight: usize,
    /// Whether the host was blacklisted at its end.
    pub blacklisted: bool,
}

/// How many answers took between so long and so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bar {
    /// The shortest of them.
    pub from: Duration,
    /// What the longest stayed below.
    pub to: Duration,
    /// How many there were.
    pub count: u64,
}

/// Latency from the intended send time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Latency {
    /// Half of all answers took no longer.
    pub p50: Duration,
    /// Nine in ten.
    pub p90: Duration,
    /// Ninety-nine in a hundred.
    pub p99: Duration,
    /// 999 in a thousand.
    pub p999: Duration,
    /// The longest.
    pub max: Duration,
}

impl Tally {
    /// Nothing counted yet.
    pub fn new() -> Self {
        Self {
            answers: Answers::new(),
            latency: histogram(),
            longest_answer: Duration::ZERO,
            second_answers: Answers::new(),
            second_latency: histogram(),
            seconds: Vec::new(),
        }
    }

    /// Counts an answer that came so long after the push was due, and so long
    /// after it went out.
    pub fn count(&mut self, answer: Answer, latency: Duration, took: Duration) {
        if matches!(answer, Answer::Status(_)) {
            self.longest_answer = self.longest_answer.max(took);
        }
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        for histogram in [&mut self.latency, &mut self.second_latency] {
            histogram.saturating_record(us);
        }
        for answers in [&mut self.answers, &mut self.second_answers] {
            *answers.entry(answer).or_default() += 1;
        }
    }

    /// Closes a second of the run.
    pub fn end_second(&mut self, at: Duration, in_flight: usize, blacklisted: bool) -> &Second {
        let before = self.seconds.last().map_or(Duration::ZERO, |last| last.at);
        let second = Second {
            at,
            lasted: at.saturating_sub(before),
            answers: std::mem::take(&mut self.second_answers),
            latency: Latency::of(&self.second_latency),
            in_flight,
            blacklisted,
        };
        self.second_latency.reset();
        self.seconds.push(second);
        &self.seconds[self.seconds.len() - 1]
    }

    /// How many answers of each kind.
    pub fn answers(&self) -> &Answers {
        &self.answers
    }

    /// The longest that an answer took once its push had gone out.
    pub fn longest_answer(&self) -> Duration {
        self.longest_answer
    }

    /// The latency of all answers.
    pub fn latency(&self) -> Latency {
        Latency::of(&self.latency)
    }

    /// How the latency of all answers is spread; each bar is an eighth longer
    /// than the one before. Those without an answer are left out.
    pub fn distribution(&self) -> Vec<Bar> {
        let mut bars = Vec::new();
        let mut from = 1;
        while from <= self.latency.max() {
            let to = (from * 9 / 8).max(from + 1);
            // The library counts both bounds in.
            let count = self.latency.count_between(from, to - 1);
            if count > 0 {
                bars.push(Bar {
                    from: Duration::from_micros(from),
                    to: Duration::from_micros(to),
                    count,
                });
            }
            from = to;
        }
        bars
    }

    /// The run, second by second.
    pub fn seconds(&self) -> &[Second] {
        &self.seconds
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self::new()
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

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Status(status) => write!(f, "{status}"),
            Self::TimedOut => f.write_str("timeout"),
            Self::NoConnection => f.write_str("no-connection"),
        }
    }
}

#[expect(
    clippy::expect_used,
    reason = "the bounds are constants that the library documents as fit"
)]
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, HIGHEST_US, 3).expect("fixed bounds")
}
