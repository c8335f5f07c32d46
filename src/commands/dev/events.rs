//! Watches the process from outside: makes a line of each push that is stored and of
//! each state that changes, from the events that every northbridge process emits.
//! Knows nothing of what emits them.

use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::Context;

use super::fields::Fields;
use super::print;
use super::watch::Recent;
use crate::process::logging::{EVENTS, Observer};
use crate::process::output;

/// Where `dev` shows what happens.
#[derive(Debug, Clone)]
pub(super) enum Display {
    /// A line on standard output for each event.
    Lines,
    /// A view, with the last events.
    View(Recent),
}

/// The layer that shows events, whatever `log.level` is.
pub(super) fn observer(display: Display) -> Observer {
    let events = Targets::new().with_target(EVENTS, LevelFilter::DEBUG);
    display.with_filter(events).boxed()
}

impl<S: Subscriber> Layer<S> for Display {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let Some(line) = print::line(&fields) else {
            return;
        };
        match self {
            // What cannot be shown is stored all the same.
            Self::Lines => drop(output::print_line(line)),
            Self::View(recent) => recent.add(&line),
        }
    }
}
