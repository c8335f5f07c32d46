//! The view of `northbridge dev --watch`: gathers what it shows, and redraws it.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::Utc;
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, block_in_place};
use tokio::time::{MissedTickBehavior, interval};

use super::view::{Counts, View};
use crate::process::admin::AdminServer;
use crate::process::sample::{Family, Sample, by_label, sample};
use crate::process::terminal::{self, Screen, Size};
use crate::process::vital;

/// The time between two pictures.
const INTERVAL: Duration = Duration::from_millis(200);
/// The number of pictures over which the rate of pushes is the mean: two seconds.
const RATE_SAMPLES: usize = 10;
/// More than a terminal has lines.
const MAX_RECENT: usize = 500;

const RECEIVED: &str = "northbridge_pushes_received_total";
const OUTCOMES: &str = "northbridge_pushes_total";
const IN_FLIGHT: &str = "northbridge_pushes_in_flight";
const DEAD_LETTERS: &str = "northbridge_dead_letters_total";
const STREAM_RECORDS: &str = "northbridge_stream_records_total";

const FAMILIES: &[Family] = &[
    Family(RECEIVED, &[]),
    Family(OUTCOMES, &["outcome"]),
    Family(IN_FLIGHT, &[]),
    Family(DEAD_LETTERS, &["reason"]),
    Family(STREAM_RECORDS, &["result"]),
];

/// The lines of the last events, oldest first. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Recent(Arc<Mutex<VecDeque<String>>>);

/// What was received at the last pictures, oldest first.
#[derive(Debug, Default)]
struct Received(VecDeque<(Instant, f64)>);

impl Recent {
    /// Adds a line with the time of now.
    pub(super) fn add(&self, line: &str) {
        let mut lines = self.lock();
        lines.push_back(format!("{}  {line}", Utc::now().format("%H:%M:%SZ")));
        if lines.len() > MAX_RECENT {
            lines.pop_front();
        }
    }

    /// The lines.
    pub(super) fn lock(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The running view. Dropping it restores the terminal.
#[derive(Debug)]
pub(super) struct Watch {
    drawing: AbortHandle,
    quit: oneshot::Receiver<()>,
    _screen: Screen,
}

/// What is drawn again and again.
struct Source {
    admin: AdminServer,
    /// One line for each.
    addresses: Vec<String>,
    hint: String,
    recent: Recent,
    began: Instant,
    received: Received,
}

impl Watch {
    /// Takes the terminal. `addresses` are lines of the view, and `hint` stands in the
    /// place of events while there are none.
    ///
    /// # Errors
    ///
    /// Returns the operating system's error if the terminal cannot be used.
    pub(super) fn start(
        admin: AdminServer,
        addresses: Vec<String>,
        hint: String,
        recent: Recent,
    ) -> io::Result<Self> {
        let quit = terminal::quit_key()?;
        let screen = Screen::open()?;
        let source = Source {
            admin,
            addresses,
            hint,
            recent,
            began: Instant::now(),
            received: Received::default(),
        };
        Ok(Self {
            drawing: vital::spawn("view", source.draw()).abort_handle(),
            quit,
            _screen: screen,
        })
    }

    /// Waits until `q` is pressed.
    pub(super) async fn quit(&mut self) {
        // The other side never ends without a key.
        let _ = (&mut self.quit).await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.drawing.abort();
    }
}

impl Source {
    async fn draw(mut self) {
        let mut shown = None;
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // The terminal may be slow.
            block_in_place(|| {
                let picture = self.picture(terminal::size());
                // What the terminal shows already need not be sent again.
                if shown.as_ref() != Some(&picture) {
                    terminal::draw(&picture.1);
                    shown = Some(picture);
                }
            });
        }
    }

    fn picture(&mut self, size: Size) -> (Size, Vec<String>) {
        let sample = sample(&self.admin.metrics, FAMILIES);
        let view = View {
            uptime: self.began.elapsed(),
            readiness: self.admin.readiness.report(),
            addresses: &self.addresses,
            counts: counts(&sample, &mut self.received),
            hint: &self.hint,
        };
        (size, view.lines(&self.recent.lock(), size))
    }
}

fn counts(sample: &Sample, received: &mut Received) -> Counts {
    let value = |name: &str| sample.get(name).copied().unwrap_or_default();
    let by_label = |family| {
        let counts = by_label(sample, family).filter(|(_, count)| *count > 0.0);
        counts
            .map(|(label, count)| (label.to_owned(), count))
            .collect()
    };
    Counts {
        received: value(RECEIVED),
        received_per_second: received.rate(Instant::now(), value(RECEIVED)),
        in_flight: value(IN_FLIGHT),
        outcomes: by_label(OUTCOMES),
        dead_letters: by_label(DEAD_LETTERS),
        dead_letters_of_streams: value(&format!(r#"{STREAM_RECORDS}{{result="dead_lettered"}}"#)),
    }
}

impl Received {
    /// Adds what was received until now. Returns the mean rate of the last pictures.
    fn rate(&mut self, now: Instant, received: f64) -> f64 {
        self.0.push_back((now, received));
        if self.0.len() > RATE_SAMPLES + 1 {
            self.0.pop_front();
        }
        let oldest = self.0.front();
        oldest.map_or(0.0, |(then, before)| {
            let seconds = now.duration_since(*then).as_secs_f64();
            (received - before) / seconds.max(f64::MIN_POSITIVE)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn the_rate_is_the_mean_of_the_last_two_seconds() {
        let began = Instant::now();
        let mut received = Received::default();
        let mut at = |picture: u32, count: f64| {
            let rate = received.rate(began + INTERVAL * picture, count);
            format!("{rate:.1}")
        };
        assert_eq!(at(0, 100.0), "0.0");
        assert_eq!(at(1, 110.0), "50.0");
        for picture in 2..=10 {
            at(picture, 110.0);
        }
        assert_eq!(at(11, 110.0), "0.0");
    }

    #[test]
    fn counts_are_those_of_the_registry_without_what_never_happened() {
        let metrics = Metrics::new();
        metrics.counter("pushes_received_total", "Help.").inc_by(3);
        metrics.gauge("pushes_in_flight", "Help.").set(1);
        let outcomes = metrics.counters("pushes_total", "Help.", &["outcome", "notify_type"]);
        outcomes.with_label_values(&["stored", "other"]).inc();
        outcomes.with_label_values(&["rejected", "other"]);
        let reasons = metrics.counters("dead_letters_total", "Help.", &["reason"]);
        reasons.with_label_values(&["not-json"]).inc();
        let records = metrics.counters("stream_records_total", "Help.", &["stream", "result"]);
        for stream in ["command-status", "upgrade-result"] {
            records.with_label_values(&[stream, "dead_lettered"]).inc();
        }
        let counted = counts(&sample(&metrics, FAMILIES), &mut Received::default());
        let expected = Counts {
            received: 3.0,
            received_per_second: 0.0,
            in_flight: 1.0,
            outcomes: vec![("stored".to_owned(), 1.0)],
            dead_letters: vec![("not-json".to_owned(), 1.0)],
            dead_letters_of_streams: 2.0,
        };
        assert_eq!(counted, expected);
    }

    #[test]
    fn only_the_last_events_are_kept() {
        let recent = Recent::default();
        for number in 0..=MAX_RECENT {
            recent.add(&format!("event {number}"));
        }
        let lines = recent.lock();
        assert_eq!(lines.len(), MAX_RECENT);
        assert!(lines[0].ends_with("Z  event 1"), "{}", lines[0]);
    }
}
