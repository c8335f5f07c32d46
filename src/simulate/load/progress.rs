//! Shows the progress of a run on standard error: a live line on a terminal, a
//! plain line every few seconds elsewhere. Standard output is left to the
//! summary.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::process::output;

use super::statistics::{AnswerCounts, Second};

const PLAIN_INTERVAL: Duration = Duration::from_secs(5);

/// A display of progress, suited to what standard error is.
#[derive(Debug)]
pub(crate) enum ProgressDisplay {
    /// A line that is redrawn.
    Live(ProgressBar),
    /// A line each, no earlier than this time since the start of the run.
    Plain { next: Duration },
}

/// A run at the end of a second.
#[derive(Debug)]
pub(crate) struct Snapshot<'a> {
    pub(crate) second: &'a Second,
    /// Since the start of the run.
    pub(crate) answers: &'a AnswerCounts,
    /// New pushes that have become due.
    pub(crate) offered: u32,
    /// New pushes in all; after a signal, as many as were offered.
    pub(crate) pushes: u32,
    /// Pushes that the delivery rules hold back.
    pub(crate) backlog: usize,
}

impl ProgressDisplay {
    pub(crate) fn new(pushes: u32) -> Self {
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

    pub(crate) fn show(&mut self, snapshot: &Snapshot<'_>) {
        match self {
            Self::Live(bar) => {
                bar.set_length(snapshot.pushes.into());
                bar.set_position(snapshot.offered.into());
                bar.set_message(line(snapshot));
            }
            Self::Plain { next } => {
                if snapshot.second.end >= *next {
                    *next = snapshot.second.end + PLAIN_INTERVAL;
                    let seconds = snapshot.second.end.as_secs();
                    output::note(format_args!("{seconds:>5} s  {}", line(snapshot)));
                }
            }
        }
    }

    /// Ends the display without clearing a live line.
    pub(crate) fn end(&self) {
        if let Self::Live(bar) = self {
            bar.abandon();
        }
    }
}

/// The most important figures first, since a terminal truncates the line.
fn line(snapshot: &Snapshot<'_>) -> String {
    let second = snapshot.second;
    let answered: u64 = second.answers.values().sum();
    let rate =
        u32::try_from(answered).map_or(0.0, f64::from) / second.duration.as_secs_f64().max(0.001);
    let answers: Vec<String> = snapshot
        .answers
        .iter()
        .map(|(answer, count)| format!("{answer}: {count}"))
        .collect();
    let state = if second.blacklisted {
        format!("BLACKLISTED, {} waiting  ", snapshot.backlog)
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
