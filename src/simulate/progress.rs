//! What is seen while a run lasts: one live line on a terminal, a plain line
//! every few seconds elsewhere. Both on standard error, so that standard output
//! is the outcome alone.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::tally::{Answers, Second};

/// A plain line stands for so long.
const PLAIN_EVERY: Duration = Duration::from_secs(5);

/// Where progress is shown.
#[derive(Debug)]
pub enum Progress {
    /// A line that is drawn anew.
    Live(ProgressBar),
    /// Lines one below the other; the next not before this moment of the run.
    Plain {
        /// Since the start of the run.
        next: Duration,
    },
}

/// A moment of a run.
#[derive(Debug)]
pub struct Snapshot<'a> {
    /// The last second.
    pub second: &'a Second,
    /// All answers so far.
    pub answers: &'a Answers,
    /// New pushes so far.
    pub offered: u32,
    /// New pushes in all.
    pub pushes: u32,
    /// What waits for its turn at the platform.
    pub backlog: usize,
}

impl Progress {
    /// A live line where somebody looks at one.
    pub fn new(pushes: u32) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::Plain {
                next: Duration::ZERO,
            };
        }
        let bar = ProgressBar::new(pushes.into());
        if let Ok(style) =
            ProgressStyle::with_template("{elapsed} {bar:10} {percent:>3}%  {wide_msg}")
        {
            bar.set_style(style);
        }
        Self::Live(bar)
    }

    /// Shows how it goes.
    pub fn show(&mut self, snapshot: &Snapshot<'_>) {
        match self {
            Self::Live(bar) => {
                bar.set_length(snapshot.pushes.into());
                bar.set_position(snapshot.offered.into());
                bar.set_message(line(snapshot));
            }
            Self::Plain { next } => {
                if snapshot.second.at >= *next {
                    *next = snapshot.second.at + PLAIN_EVERY;
                    let seconds = snapshot.second.at.as_secs();
                    eprintln!("{seconds:>5} s  {}", line(snapshot));
                }
            }
        }
    }

    /// Leaves the last line standing.
    pub fn end(&self) {
        if let Self::Live(bar) = self {
            bar.abandon();
        }
    }
}

/// What matters most comes first: a terminal cuts off what does not fit.
fn line(snapshot: &Snapshot<'_>) -> String {
    let second = snapshot.second;
    let answered: u64 = second.answers.values().sum();
    let rate =
        u32::try_from(answered).map_or(0.0, f64::from) / second.lasted.as_secs_f64().max(0.001);
    let answers: Vec<String> = snapshot
        .answers
        .iter()
        .map(|(answer, count)| format!("{answer}: {count}"))
        .collect();
    let state = if second.blacklisted {
        format!("BLACKLISTED, {} wait  ", snapshot.backlog)
    } else if snapshot.backlog > 0 {
        format!("backlog {}  ", snapshot.backlog)
    } else {
        String::new()
    };
    let latency = if answered > 0 {
        let (p50, p99) = (second.latency.p50, second.latency.p99);
        format!("p50 {} ms  p99 {} ms  ", p50.as_millis(), p99.as_millis())
    } else {
        String::new()
    };
    format!(
        "{state}{rate:.0}/s  {in_flight} in flight  {latency}{answers}",
        in_flight = second.in_flight,
        answers = answers.join("  "),
    )
}
