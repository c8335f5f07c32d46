//! Watches the process from outside: prints a line for each push that is
//! stored and for each state that changes, from the events that every
//! northbridge process emits. Knows nothing of what emits them.

use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::Context;

use super::fields::Fields;
use super::print;
use crate::process::logging::{EVENTS, Observer};

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
        match fields.text("message") {
            "stored" => print::stored(&fields),
            "spooled" => print::spooled(&fields),
            "state changed" => print::state_changed(&fields),
            _ => {}
        }
    }
}
