//! Watches the process from outside: makes a line of each push that is stored and of
//! each state that changes, from the events that every northbridge process emits.
//! Knows nothing of what emits them.

use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::Context;

use super::fields::Fields;
use super::print;
use crate::process::logging::{EVENTS, Observer};
use crate::process::output;

/// The layer that prints, whatever `log.level` is.
pub(super) fn printer() -> Observer {
    let events = Targets::new().with_target(EVENTS, LevelFilter::DEBUG);
    Printer.with_filter(events).boxed()
}

struct Printer;

impl<S: Subscriber> Layer<S> for Printer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        if let Some(line) = print::line(&fields) {
            // What cannot be shown is stored all the same.
            let _ = output::print_line(line);
        }
    }
}
