//! The fields of an event, as the lines that `dev` prints need them.

use std::collections::BTreeMap;
use std::fmt::Debug;

use tracing::field::{Field, Visit};

/// The fields of one event, as text; the event's own name is `message`.
#[derive(Debug, Default)]
pub(super) struct Fields(BTreeMap<&'static str, String>);

impl Fields {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The field's text, or a dash if the event does not have it.
    pub(super) fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or("-")
    }
}

#[cfg(test)]
impl<const N: usize> From<[(&'static str, &str); N]> for Fields {
    fn from(fields: [(&'static str, &str); N]) -> Self {
        Self(fields.map(|(name, text)| (name, text.to_owned())).into())
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }

    /// Numbers and the message arrive here as well.
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::{Event, Subscriber};
    use tracing_subscriber::Layer;
    use tracing_subscriber::layer::{Context, SubscriberExt};

    use super::*;

    /// Records the fields of all events.
    #[derive(Clone, Default)]
    struct Recorder(Arc<Mutex<Vec<Fields>>>);

    impl<S: Subscriber> Layer<S> for Recorder {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let mut fields = Fields::default();
            event.record(&mut fields);
            self.0.lock().unwrap().push(fields);
        }
    }

    #[test]
    fn fields_are_read_as_text_and_an_absent_one_is_a_dash() {
        let recorder = Recorder::default();
        let subscriber = tracing_subscriber::registry().with(recorder.clone());
        tracing::subscriber::with_default(subscriber, || {
            let (key, reason) = (Some("k \"1\""), None::<&str>);
            tracing::debug!(key, offset = 7_i64, reason, "stored");
        });
        let events = recorder.0.lock().unwrap();
        let [fields] = events.as_slice() else {
            panic!("one event, not {events:?}");
        };
        assert_eq!(fields.text("message"), "stored");
        assert_eq!(fields.text("key"), "k \"1\"");
        assert_eq!(fields.text("offset"), "7");
        assert_eq!(fields.text("reason"), "-");
    }
}
