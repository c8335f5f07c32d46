//! The three plots of a report: latency over time, answers over time, and the
//! distribution of latency.

use std::time::Duration;

use super::annotations::Annotation;
use super::format::{axis_label, clock, clock_with_tenths, milliseconds};
use super::svg::{Plot, Scale, legend};
use crate::simulate::load::answer::Answer;
use crate::simulate::load::client::ANSWER_TIMEOUT;
use crate::simulate::load::statistics::{AnswerCounts, Second, Statistics};

/// The number of points across a plot; more would be less than two pixels wide.
const MAX_POINTS: usize = 480;
const PLOT_HEIGHT: f64 = 240.0;
const LANE_HEIGHT: f64 = 17.0;
/// The gap between a plot and its first lane.
const LANES_TOP: f64 = 10.0;
/// The width of a digit of an annotation's label, as a share of the plot's.
const DIGIT_WIDTH_SHARE: f64 = 0.0085;
/// The gap between two annotations' labels, as a share of the plot's width.
const LABEL_GAP_SHARE: f64 = 0.006;

/// A run over time, reduced to as many points as a plot can show.
#[derive(Debug)]
pub(super) struct Timeline<'a> {
    points: Vec<Point>,
    seconds_per_point: usize,
    duration_s: f64,
    annotations: &'a [Annotation],
}

/// One or more consecutive seconds of a run.
#[derive(Debug)]
struct Point {
    start_s: f64,
    end_s: f64,
    answers: AnswerCounts,
    /// Of the worst second; `None` if nothing was answered.
    latency: Option<PointLatency>,
    blacklisted: bool,
}

#[derive(Debug, Clone, Copy)]
struct PointLatency {
    p50: f64,
    p99: f64,
    max: f64,
}

impl<'a> Timeline<'a> {
    pub(super) fn new(statistics: &Statistics, annotations: &'a [Annotation]) -> Self {
        let seconds = statistics.seconds();
        let seconds_per_point = seconds.len().div_ceil(MAX_POINTS).max(1);
        let end = seconds.last().map_or(1.0, |last| last.end.as_secs_f64());
        Self {
            points: seconds.chunks(seconds_per_point).map(Point::of).collect(),
            seconds_per_point,
            duration_s: end.max(0.001),
            annotations,
        }
    }

    /// Describes what a point of the plots summarizes.
    pub(super) fn resolution(&self) -> String {
        match self.seconds_per_point {
            1 => "one second".to_owned(),
            more => format!("the worst of {more} seconds"),
        }
    }

    pub(super) fn latency_plot(&self) -> String {
        let latencies = || self.points.iter().filter_map(|point| point.latency);
        let low = latencies().map(|latency| latency.p50).fold(1.0, f64::min);
        let high = latencies().map(|latency| latency.max).fold(10.0, f64::max);
        let timeout_ms = millis(ANSWER_TIMEOUT);
        let shows_timeout = high > timeout_ms / 2.0;
        let y = powers_of_ten(low, high);
        let mut plot = self.plot("Latency over time", y, 0.0);
        latency_ticks(&mut plot, y, Plot::y_tick);
        if shows_timeout {
            let ends = [0.0, self.duration_s].into_iter();
            plot.line("limit", ends.map(|x| Some((x, timeout_ms))));
        }
        for class in ["max", "p99", "p50"] {
            let at = |point: &Point| Some((point.middle(), point.latency?.of_class(class)));
            plot.line(class, self.points.iter().map(at));
        }
        self.add_tooltips_and_annotations(&mut plot);
        let mut entries = vec![("p50", "p50"), ("p99", "p99"), ("max", "max")];
        if shows_timeout {
            entries.push(("limit", "15 s: answer timeout of the platform"));
        }
        legend(&entries) + &plot.finish()
    }

    pub(super) fn answers_plot(&self) -> String {
        let kinds = self.answer_kinds();
        let mut lanes = kinds.clone();
        lanes.retain(|kind| *kind != Answer::Status(200));
        let blacklisted = self.points.iter().any(|point| point.blacklisted);
        let lane_count = lanes.len() + usize::from(blacklisted);
        let lanes_height = if lane_count == 0 {
            0.0
        } else {
            lane_top(lane_count)
        };
        let rate = |point: &Point| point.per_second(point.answers.values().sum());
        let high = round_up(self.points.iter().map(rate).fold(1.0, f64::max));
        let y = Scale::Linear(0.0, high);
        let mut plot = self.plot("Answers per second over time", y, lanes_height);
        for quarter in 0..=4 {
            let value = high * f64::from(quarter) / 4.0;
            plot.y_tick(value, &axis_label(value));
        }
        self.add_answer_bars(&mut plot, &kinds);
        for (lane, kind) in lanes.iter().enumerate() {
            let occurs = |point: &Point| point.answers.contains_key(kind);
            self.add_lane(&mut plot, lane, &kind.to_string(), class_of(*kind), occurs);
        }
        if blacklisted {
            let (lane, class) = (lanes.len(), "blacklisted");
            self.add_lane(&mut plot, lane, class, class, |point| point.blacklisted);
        }
        self.add_tooltips_and_annotations(&mut plot);
        let labels = kinds.iter().map(|kind| (class_of(*kind), kind.to_string()));
        let labels: Vec<(&str, String)> = labels.collect();
        let entries = labels.iter().map(|(class, label)| (*class, label.as_str()));
        legend(&entries.collect::<Vec<_>>()) + &plot.finish()
    }

    /// The kinds of answers in the run, sorted.
    fn answer_kinds(&self) -> Vec<Answer> {
        let kinds = self.points.iter().flat_map(|point| point.answers.keys());
        let mut kinds: Vec<Answer> = kinds.copied().collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }

    fn plot(&self, title: &str, y: Scale, lanes_height: f64) -> Plot {
        let x = Scale::Linear(0.0, self.duration_s);
        let mut plot = Plot::new(title, x, y, PLOT_HEIGHT, lanes_height);
        let step = tick_interval_s(self.duration_s);
        let mut tick = 0.0;
        while tick <= self.duration_s {
            plot.x_tick(tick, &clock(tick));
            tick += step;
        }
        plot
    }

    /// Stacks the answers of each point by kind.
    fn add_answer_bars(&self, plot: &mut Plot, kinds: &[Answer]) {
        for point in &self.points {
            let mut bottom = 0.0;
            for kind in kinds {
                let count = point.answers.get(kind).copied().unwrap_or(0);
                if count > 0 {
                    let top = bottom + point.per_second(count);
                    plot.bar(class_of(*kind), point.span(), (bottom, top));
                    bottom = top;
                }
            }
        }
    }

    /// Marks the points to which `occurs` applies in a lane of their own.
    fn add_lane(
        &self,
        plot: &mut Plot,
        lane: usize,
        label: &str,
        class: &str,
        occurs: impl Fn(&Point) -> bool,
    ) {
        plot.lane_label(lane_top(lane), label);
        for point in self.points.iter().filter(|point| occurs(point)) {
            plot.lane_bar(class, lane_top(lane), point.span());
        }
    }

    fn add_tooltips_and_annotations(&self, plot: &mut Plot) {
        for point in &self.points {
            plot.tooltip(point.span(), &point.tooltip());
        }
        let mut last_label = f64::NEG_INFINITY;
        for (number, annotation) in (1_u32..).zip(self.annotations) {
            let at = annotation.at.as_secs_f64();
            let mut label = String::new();
            let width = LABEL_GAP_SHARE + DIGIT_WIDTH_SHARE * f64::from(number.ilog10() + 1);
            // A label that would overlap the previous one is left out.
            if at - last_label > self.duration_s * width {
                last_label = at;
                label = number.to_string();
            }
            let tooltip = format!("{} {}", clock_with_tenths(at), annotation.text);
            plot.vertical_line("annotation", at, ("middle", &label), &tooltip);
        }
    }
}

impl Point {
    fn of(seconds: &[Second]) -> Self {
        let start = seconds.first().map_or(Duration::ZERO, |first| {
            first.end.saturating_sub(first.duration)
        });
        let end = seconds.last().map_or(Duration::ZERO, |last| last.end);
        let mut answers = AnswerCounts::new();
        for (kind, count) in seconds.iter().flat_map(|second| &second.answers) {
            *answers.entry(*kind).or_default() += count;
        }
        let answered = seconds.iter().filter(|second| !second.answers.is_empty());
        Self {
            start_s: start.as_secs_f64(),
            end_s: end.as_secs_f64(),
            answers,
            latency: answered.map(PointLatency::of).reduce(PointLatency::worse),
            blacklisted: seconds.iter().any(|second| second.blacklisted),
        }
    }

    fn span(&self) -> (f64, f64) {
        (self.start_s, self.end_s)
    }

    fn middle(&self) -> f64 {
        f64::midpoint(self.start_s, self.end_s)
    }

    fn per_second(&self, count: u64) -> f64 {
        float(count) / (self.end_s - self.start_s).max(0.001)
    }

    fn tooltip(&self) -> String {
        let latency = self.latency.map(|PointLatency { p50, p99, max }| {
            let [p50, p99, max] = [p50, p99, max].map(milliseconds);
            format!("p50 {p50}, p99 {p99}, max {max}")
        });
        let answers = self.answers.iter();
        let answers = answers.map(|(kind, count)| format!("{kind}: {count}"));
        let blacklisted = self.blacklisted.then(|| "blacklisted".to_owned());
        let lines = [clock(self.start_s)].into_iter().chain(latency);
        let lines: Vec<String> = lines.chain(answers).chain(blacklisted).collect();
        lines.join("\n")
    }
}

impl PointLatency {
    fn of(second: &Second) -> Self {
        Self {
            p50: millis(second.latency.p50),
            p99: millis(second.latency.p99),
            max: millis(second.latency.max),
        }
    }

    fn of_class(self, class: &str) -> f64 {
        match class {
            "p50" => self.p50,
            "p99" => self.p99,
            _ => self.max,
        }
    }

    fn worse(self, other: Self) -> Self {
        Self {
            p50: self.p50.max(other.p50),
            p99: self.p99.max(other.p99),
            max: self.max.max(other.max),
        }
    }
}

/// Plots the number of answers by latency.
pub(super) fn distribution(statistics: &Statistics) -> String {
    let buckets = statistics.distribution();
    let low = buckets.first().map_or(1.0, |bucket| millis(bucket.from));
    let high = buckets.last().map_or(10.0, |bucket| millis(bucket.to));
    let x = powers_of_ten(low.max(0.01), high);
    let largest = buckets.iter().map(|bucket| bucket.count).max();
    let top = float(largest.unwrap_or(1)) * 1.5;
    // From 0.5, so that a bucket with a single answer is visible.
    let y = Scale::Log(0.5, 10_f64.powf(top.log10().ceil()));
    let mut plot = Plot::new("Distribution of latency", x, y, PLOT_HEIGHT, 0.0);
    latency_ticks(&mut plot, x, Plot::x_tick);
    let mut tick = 1.0;
    while tick <= top {
        plot.y_tick(tick, &axis_label(tick));
        tick *= 10.0;
    }
    for bucket in &buckets {
        let range = (millis(bucket.from), millis(bucket.to));
        plot.bar("ok", range, (0.5, float(bucket.count)));
        let (from, to) = (milliseconds(range.0), milliseconds(range.1));
        plot.tooltip(range, &format!("{from} to {to}: {}", bucket.count));
    }
    // Opposite anchors keep the labels of p99 and p99.9 apart.
    let latency = statistics.latency();
    for (anchor, label, value) in [
        ("end", "p50", latency.p50),
        ("end", "p99", latency.p99),
        ("start", "p99.9", latency.p999),
    ] {
        let value = millis(value);
        plot.vertical_line("quantile", value, (anchor, label), &milliseconds(value));
    }
    plot.finish()
}

/// The class in the style sheet.
fn class_of(answer: Answer) -> &'static str {
    match answer {
        Answer::Status(200) => "ok",
        Answer::Status(503) => "unavailable",
        Answer::Status(_) => "status",
        Answer::TimedOut => "timeout",
        Answer::NoConnection => "broken",
    }
}

/// A logarithmic scale from power of ten to power of ten that contains both.
fn powers_of_ten(low: f64, high: f64) -> Scale {
    let from = 10_f64.powf(low.max(0.01).log10().floor());
    let to = 10_f64.powf(high.log10().ceil());
    Scale::Log(from, to.max(from * 10.0))
}

fn latency_ticks(plot: &mut Plot, scale: Scale, draw: fn(&mut Plot, f64, &str)) {
    let (mut tick, to) = match scale {
        Scale::Linear(from, to) | Scale::Log(from, to) => (from, to),
    };
    // Rounding errors must not drop the last tick.
    while tick <= to * 1.001 {
        draw(plot, tick, &milliseconds(tick));
        tick *= 10.0;
    }
}

/// The smallest round interval that gives at most a dozen ticks.
fn tick_interval_s(duration_s: f64) -> f64 {
    let intervals = [
        1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1_800.0, 3_600.0,
        7_200.0, 14_400.0, 43_200.0,
    ];
    let fitting = intervals
        .into_iter()
        .find(|interval| duration_s / interval <= 12.0);
    fitting.unwrap_or(86_400.0)
}

/// Rounds up to 1, 2, 4 or 8 times a power of ten.
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let factors = [1.0, 2.0, 4.0, 8.0, 10.0];
    let fitting = factors.into_iter().find(|factor| power * factor >= value);
    power * fitting.unwrap_or(10.0)
}

/// The upper edge of a lane, from the x-axis downwards.
fn lane_top(lane: usize) -> f64 {
    LANES_TOP + u32::try_from(lane).map_or(0.0, f64::from) * LANE_HEIGHT
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

/// Saturates at 2^32, which no count here reaches.
fn float(count: u64) -> f64 {
    u32::try_from(count).map_or(f64::from(u32::MAX), f64::from)
}
