//! The three plots: latency over time, answers over time, and how long answers
//! took.

use std::time::Duration;

use super::super::marks::Mark;
use super::super::platform::Answer;
use super::super::tally::{Answers, Second, Tally};
use super::svg::{Plot, Scale, legend};

/// So many points across a plot are as fine as anybody sees.
const POINTS: usize = 480;
const HEIGHT: f64 = 240.0;
const LANE: f64 = 17.0;
const LANE_GAP: f64 = 10.0;
/// The width of a digit of a mark's label, as a share of the plot's.
const DIGIT_SHARE: f64 = 0.0085;
/// The gap between the labels of two marks, as a share of the plot's width.
const GAP_SHARE: f64 = 0.006;
/// The platform waits so long for an answer, in milliseconds.
const GIVEN_UP_MS: f64 = 15_000.0;

/// A run over time.
#[derive(Debug)]
pub(super) struct Timeline<'a> {
    points: Vec<Point>,
    seconds_each: usize,
    lasted: f64,
    marks: &'a [Mark],
}

/// A second of a run, or several.
#[derive(Debug)]
struct Point {
    from: f64,
    to: f64,
    answers: Answers,
    /// In milliseconds, of the worst second; none where nothing was answered.
    latency: Option<Latency>,
    blacklisted: bool,
}

#[derive(Debug, Clone, Copy)]
struct Latency {
    p50: f64,
    p99: f64,
    max: f64,
}

impl<'a> Timeline<'a> {
    pub(super) fn of(tally: &Tally, marks: &'a [Mark]) -> Self {
        let seconds = tally.seconds();
        let seconds_each = seconds.len().div_ceil(POINTS).max(1);
        let last = seconds.last().map_or(1.0, |last| last.at.as_secs_f64());
        Self {
            points: seconds.chunks(seconds_each).map(Point::of).collect(),
            seconds_each,
            lasted: last.max(0.001),
            marks,
        }
    }

    /// What a point stands for.
    pub(super) fn point(&self) -> String {
        match self.seconds_each {
            1 => "one second".to_owned(),
            more => format!("the worst of {more} seconds"),
        }
    }

    pub(super) fn latency(&self) -> String {
        let all = || self.points.iter().filter_map(|point| point.latency);
        let low = all().map(|latency| latency.p50).fold(1.0, f64::min);
        let high = all().map(|latency| latency.max).fold(10.0, f64::max);
        let y = decades(low, high);
        let mut plot = self.plot("Latency over time", y, 0.0);
        time_ticks(&mut plot, y, Plot::y_tick);
        if high > GIVEN_UP_MS / 2.0 {
            plot.line(
                "limit",
                [0.0, self.lasted]
                    .into_iter()
                    .map(|x| Some((x, GIVEN_UP_MS))),
            );
        }
        for class in ["max", "p99", "p50"] {
            let at = |point: &Point| Some((point.middle(), point.latency?.of(class)));
            plot.line(class, self.points.iter().map(at));
        }
        self.mark(&mut plot);
        let mut entries = vec![("p50", "p50"), ("p99", "p99"), ("max", "longest")];
        if high > GIVEN_UP_MS / 2.0 {
            entries.push(("limit", "15 s: the platform gives up"));
        }
        legend(&entries) + &plot.finish()
    }

    pub(super) fn answers(&self) -> String {
        let kinds = self.kinds();
        let rate = |point: &Point| point.rate(point.answers.values().sum());
        let high = nice(self.points.iter().map(rate).fold(1.0, f64::max));
        let blacklisted = self.points.iter().any(|point| point.blacklisted);
        let mut lanes: Vec<Answer> = kinds.clone();
        lanes.retain(|kind| *kind != Answer::Status(200));
        let count = lanes.len() + usize::from(blacklisted);
        let height = if count == 0 { 0.0 } else { lane(count) };
        let mut plot = self.plot(
            "Answers a second over time",
            Scale::Linear(0.0, high),
            height,
        );
        for tick in 0..=4 {
            let value = high * f64::from(tick) / 4.0;
            plot.y_tick(value, &number(value));
        }
        for point in &self.points {
            let mut stacked = 0.0;
            for kind in &kinds {
                let count = point.answers.get(kind).copied().unwrap_or(0);
                if count > 0 {
                    let top = stacked + point.rate(count);
                    plot.bar(class_of(*kind), (point.from, point.to), (stacked, top));
                    stacked = top;
                }
            }
        }
        for (place, kind) in lanes.iter().enumerate() {
            plot.lane_label(lane(place), &kind.to_string());
            for point in &self.points {
                if point.answers.contains_key(kind) {
                    plot.lane_bar(class_of(*kind), lane(place), (point.from, point.to));
                }
            }
        }
        if blacklisted {
            plot.lane_label(lane(lanes.len()), "blacklisted");
            for point in self.points.iter().filter(|point| point.blacklisted) {
                plot.lane_bar("blacklisted", lane(lanes.len()), (point.from, point.to));
            }
        }
        self.mark(&mut plot);
        let labels: Vec<(&str, String)> = kinds
            .iter()
            .map(|kind| (class_of(*kind), kind.to_string()))
            .collect();
        let entries: Vec<(&str, &str)> = labels
            .iter()
            .map(|(class, label)| (*class, label.as_str()))
            .collect();
        legend(&entries) + &plot.finish()
    }

    fn kinds(&self) -> Vec<Answer> {
        let all = self.points.iter().flat_map(|point| point.answers.keys());
        let mut kinds: Vec<Answer> = all.copied().collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }

    fn plot(&self, what: &str, y: Scale, lanes: f64) -> Plot {
        let x = Scale::Linear(0.0, self.lasted);
        let mut plot = Plot::new(what, x, y, HEIGHT, lanes);
        let step = step_of_time(self.lasted);
        let mut tick = 0.0;
        while tick <= self.lasted {
            plot.x_tick(tick, &clock(tick));
            tick += step;
        }
        plot
    }

    /// What was noted, and what the pointer tells.
    fn mark(&self, plot: &mut Plot) {
        for point in &self.points {
            plot.says((point.from, point.to), &point.says());
        }
        let mut labelled = f64::NEG_INFINITY;
        for (number, mark) in (1_u32..).zip(self.marks) {
            let at = mark.at.as_secs_f64();
            let mut label = String::new();
            let width = GAP_SHARE + DIGIT_SHARE * f64::from(number.ilog10() + 1);
            if at - labelled > self.lasted * width {
                labelled = at;
                label = format!("{number}");
            }
            let says = format!("{} {}", moment(at), mark.text);
            plot.upright("mark", at, ("middle", &label), &says);
        }
    }
}

impl Point {
    fn of(seconds: &[Second]) -> Self {
        let first = seconds.first().map_or(Duration::ZERO, |first| {
            first.at.saturating_sub(first.lasted)
        });
        let last = seconds.last().map_or(Duration::ZERO, |last| last.at);
        let mut answers = Answers::new();
        for (kind, count) in seconds.iter().flat_map(|second| &second.answers) {
            *answers.entry(*kind).or_default() += count;
        }
        let latency = seconds.iter().filter(|second| !second.answers.is_empty());
        Self {
            from: first.as_secs_f64(),
            to: last.as_secs_f64(),
            answers,
            latency: latency.map(Latency::in_second).reduce(Latency::worse),
            blacklisted: seconds.iter().any(|second| second.blacklisted),
        }
    }

    fn middle(&self) -> f64 {
        f64::midpoint(self.from, self.to)
    }

    fn rate(&self, count: u64) -> f64 {
        float(count) / (self.to - self.from).max(0.001)
    }

    fn says(&self) -> String {
        let latency = self.latency.map(|Latency { p50, p99, max }| {
            let (p50, p99, max) = (time(p50), time(p99), time(max));
            format!("p50 {p50}, p99 {p99}, longest {max}")
        });
        let answers = self.answers.iter();
        let answers = answers.map(|(kind, count)| format!("{kind}: {count}"));
        let blacklisted = self.blacklisted.then(|| "blacklisted".to_owned());
        let lines = [clock(self.from)].into_iter().chain(latency);
        let lines: Vec<String> = lines.chain(answers).chain(blacklisted).collect();
        lines.join("\n")
    }
}

impl Latency {
    fn of(self, class: &str) -> f64 {
        match class {
            "p50" => self.p50,
            "p99" => self.p99,
            _ => self.max,
        }
    }

    fn in_second(second: &Second) -> Self {
        Self {
            p50: millis(second.latency.p50),
            p99: millis(second.latency.p99),
            max: millis(second.latency.max),
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

/// How many answers took how long.
pub(super) fn distribution(tally: &Tally) -> String {
    let bars = tally.distribution();
    let latency = tally.latency();
    let low = bars.first().map_or(1.0, |bar| millis(bar.from));
    let high = bars.last().map_or(10.0, |bar| millis(bar.to));
    let x = decades(low.max(0.01), high);
    let most = bars.iter().map(|bar| bar.count).max().unwrap_or(1);
    let y = Scale::Decades(0.5, 10_f64.powf((float(most) * 1.5).log10().ceil()));
    let mut plot = Plot::new("How long answers took", x, y, HEIGHT, 0.0);
    time_ticks(&mut plot, x, Plot::x_tick);
    let mut tick = 1.0;
    while tick <= float(most) * 1.5 {
        plot.y_tick(tick, &number(tick));
        tick *= 10.0;
    }
    for bar in &bars {
        let range = (millis(bar.from), millis(bar.to));
        plot.bar("ok", range, (0.5, float(bar.count)));
        let (from, to) = (time(range.0), time(range.1));
        plot.says(range, &format!("{from} to {to}: {}", bar.count));
    }
    // Near each other they keep out of each other's way.
    for (anchor, label, at) in [
        ("end", "p50", latency.p50),
        ("end", "p99", latency.p99),
        ("start", "p99.9", latency.p999),
    ] {
        let at = millis(at);
        plot.upright("quantile", at, (anchor, label), &time(at));
    }
    plot.finish()
}

fn class_of(answer: Answer) -> &'static str {
    match answer {
        Answer::Status(200) => "ok",
        Answer::Status(503) => "unavailable",
        Answer::Status(_) => "status",
        Answer::TimedOut => "timeout",
        Answer::NoConnection => "broken",
    }
}

/// The decades that hold both, in milliseconds.
fn decades(low: f64, high: f64) -> Scale {
    let from = 10_f64.powf(low.max(0.01).log10().floor());
    let to = 10_f64.powf(high.log10().ceil());
    Scale::Decades(from, to.max(from * 10.0))
}

fn time_ticks(plot: &mut Plot, scale: Scale, draw: fn(&mut Plot, f64, &str)) {
    let (mut tick, to) = match scale {
        Scale::Linear(from, to) | Scale::Decades(from, to) => (from, to),
    };
    while tick <= to * 1.001 {
        draw(plot, tick, &time(tick));
        tick *= 10.0;
    }
}

/// A step that gives at most a dozen labels.
fn step_of_time(lasted: f64) -> f64 {
    let steps = [
        1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1_800.0, 3_600.0,
        7_200.0, 14_400.0, 43_200.0,
    ];
    let fits = steps.into_iter().find(|step| lasted / step <= 12.0);
    fits.unwrap_or(86_400.0)
}

/// The next of 1, 2, 4 and 8, times a power of ten.
fn nice(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let factors = [1.0, 2.0, 4.0, 8.0, 10.0];
    let fits = factors.into_iter().find(|factor| power * factor >= value);
    power * fits.unwrap_or(10.0)
}

/// Where a lane begins below the axis.
fn lane(place: usize) -> f64 {
    LANE_GAP + u32::try_from(place).map_or(0.0, f64::from) * LANE
}

/// Milliseconds in the unit that reads best.
pub(super) fn time(ms: f64) -> String {
    match ms {
        ms if ms < 1.0 => format!("{} ms", trimmed(ms, 2)),
        ms if ms < 10.0 => format!("{} ms", trimmed(ms, 1)),
        ms if ms < 1_000.0 => format!("{ms:.0} ms"),
        ms => format!("{} s", trimmed(ms / 1_000.0, 1)),
    }
}

fn trimmed(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Seconds since the start as a clock shows them.
pub(super) fn clock(seconds: f64) -> String {
    let seconds = Duration::from_secs_f64(seconds.max(0.0)).as_secs();
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("{minutes}:{seconds:02}")
    }
}

/// As [`clock`], to a tenth.
pub(super) fn moment(seconds: f64) -> String {
    let tenth = Duration::from_secs_f64(seconds.max(0.0)).subsec_millis() / 100;
    format!("{}.{tenth}", clock(seconds))
}

fn number(value: f64) -> String {
    match value {
        value if value >= 1_000_000.0 => format!("{}M", trimmed(value / 1_000_000.0, 1)),
        value if value >= 10_000.0 => format!("{}k", trimmed(value / 1_000.0, 1)),
        value => trimmed(value, 2),
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

/// Exact up to 4 milliards, which no count here reaches.
fn float(count: u64) -> f64 {
    u32::try_from(count).map_or(f64::from(u32::MAX), f64::from)
}
