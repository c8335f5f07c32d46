//! Whether librdkafka accepts the settings of every kind of client.
//!
//! Creates one client of each kind, without a broker's address, so that nothing is
//! connected to. Knows nothing of what the clients do (`client` has their settings).

mod files;

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, ProducerContext};
use rdkafka::{ClientConfig, ClientContext};

use super::{
    admin_config, group_consumer_config, producer_config, reader_config, transactional_config,
};
use crate::config::Settings;

/// The facility of librdkafka's warnings about properties that have no effect or not
/// the one that was meant.
const WARNING_FACILITY: &str = "CONFWARN";

/// Why the clients cannot be created, or would not do what the options say.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct CheckError {
    /// The options that the reason is about, as the operator named them.
    pub options: Vec<String>,
    /// Mostly in librdkafka's words.
    pub reason: String,
}

/// Tries the settings on a client of each kind: properties that contradict each other,
/// files that cannot be used, and whatever librdkafka would warn about are errors.
/// Connects to nothing.
///
/// # Errors
///
/// Returns librdkafka's reason if it rejects the settings of some kind of client.
pub fn check(settings: &Settings) -> Result<(), CheckError> {
    for (name, file) in settings.kafka.options.files() {
        files::check(name, file).map_err(|reason| CheckError {
            options: vec![name.to_owned()],
            reason,
        })?;
    }
    try_clients(settings).map_err(|reason| CheckError {
        options: settings.kafka.options.named_in(&reason),
        reason: format!("rejected by librdkafka: {}", explained(&reason)),
    })
}

/// librdkafka's words, and what they mean to somebody who knows only our settings.
fn explained(reason: &str) -> String {
    let mut hints = HINTS.iter();
    match hints.find(|(words, _)| reason.contains(words)) {
        Some((_, hint)) => format!("{reason}; {hint}"),
        None => reason.to_owned(),
    }
}

/// Words of librdkafka's, and what to add to them; the first that match count.
const HINTS: &[(&str, &str)] = &[
    (
        "key values mismatch",
        "it is not the key of the certificate",
    ),
    (
        "ssl.key.",
        "if the key is encrypted, kafka.options.ssl.key.password must be its password",
    ),
    (
        "transaction.timeout.ms",
        "transaction.timeout.ms is streams.transaction_timeout_ms",
    ),
    (
        "session.timeout.ms",
        "session.timeout.ms is streams.session_timeout_ms",
    ),
];

fn try_clients(settings: &Settings) -> Result<(), String> {
    type Producer = BaseProducer<Warnings>;
    type Consumer = BaseConsumer<Warnings>;
    let producer = |client: &Producer| {
        client.poll(Duration::ZERO);
    };
    let consumer = |client: &Consumer| drop(client.poll(Duration::ZERO));
    try_client(producer_config(settings), producer)
        .and_then(|()| try_client(transactional_config(settings, "check"), producer))
        .and_then(|()| try_client(group_consumer_config(settings, "check"), consumer))
        .and_then(|()| try_client(reader_config(settings, "read_committed"), consumer))
        .and_then(|()| try_client(admin_config(settings), producer))
}

/// Creates a client, and polls it once for the warnings of its creation.
fn try_client<C>(mut config: ClientConfig, poll: impl Fn(&C)) -> Result<(), String>
where
    C: FromClientConfigAndContext<Warnings> + Send + 'static,
{
    config.remove("bootstrap.servers");
    let warnings = Warnings::default();
    let client: C = config
        .create_with_context(warnings.clone())
        .map_err(reason)?;
    poll(&client);
    // rdkafka takes 100 ms to close a consumer, for which no start has to wait; without a
    // thread it is closed here.
    drop(thread::Builder::new().spawn(move || drop(client)));
    match warnings.first() {
        Some(warning) => Err(warning),
        None => Ok(()),
    }
}

/// librdkafka's words, without the values that rdkafka adds to some of them: one may
/// be a secret.
fn reason(error: KafkaError) -> String {
    if let KafkaError::ClientCreation(reason) | KafkaError::ClientConfig(_, reason, _, _) = error {
        return reason;
    }
    error.to_string()
}

/// Collects librdkafka's warnings about the configuration of a client.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    fn first(&self) -> Option<String> {
        let warnings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        warnings.first().cloned()
    }
}

impl ClientContext for Warnings {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // That there is no broker's address is a notice.
        let is_warning = matches!(level, RDKafkaLogLevel::Warning);
        if is_warning && facility == WARNING_FACILITY {
            let mut warnings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // The text begins with the thread: `[thrd:app]: `.
            let text = message.split_once("]: ").map_or(message, |(_, text)| text);
            warnings.push(text.to_owned());
        }
    }

    fn error(&self, _error: KafkaError, _reason: &str) {}
}

impl ConsumerContext for Warnings {}

impl ProducerContext for Warnings {
    type DeliveryOpaque = ();

    fn delivery(&self, _result: &DeliveryResult<'_>, (): ()) {}
}
