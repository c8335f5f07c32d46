//! What librdkafka reports about a transactional producer.

use std::sync::atomic::{AtomicBool, Ordering};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::ProducerContext;
use rdkafka::{ClientContext, Statistics};

use crate::kafka::client;
use crate::kafka::failure::{ConnectionFailure, Denial, Operation};
use crate::kafka::failures::Failures;

/// The context of one transactional producer.
pub(super) struct TransactionalContext {
    failures: Failures,
    has_lost_requests: AtomicBool,
}

impl TransactionalContext {
    pub(super) fn new(failures: Failures) -> Self {
        Self {
            failures,
            has_lost_requests: AtomicBool::default(),
        }
    }

    /// Returns whether a request may have been lost on its way, or may arrive
    /// late. librdkafka sends such a request again, so that a broker may see it
    /// twice, the second time when another transaction is open.
    pub(super) fn has_lost_requests(&self) -> bool {
        self.has_lost_requests.load(Ordering::Relaxed)
    }

    /// Forgets the requests before the producer had an epoch: nothing of them
    /// can end or change a transaction.
    pub(super) fn forget_lost_requests(&self) {
        self.has_lost_requests.store(false, Ordering::Relaxed);
    }
}

impl ClientContext for TransactionalContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // librdkafka logs before it sends a request again.
        if is_lost_request(level, facility, message) {
            self.has_lost_requests.store(true, Ordering::Relaxed);
        }
        client::log(&self.failures, level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.failures.observe_error(&error, reason, None);
    }

    fn stats(&self, statistics: Statistics) {
        self.failures.observe_statistics(&statistics);
    }
}

impl ProducerContext for TransactionalContext {
    type DeliveryOpaque = ();

    /// A record that cannot be delivered fails its transaction, and the commit
    /// returns the error, which does not name the topic. A right that was missing
    /// before the transaction has no report but a line of the log.
    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, record)) = result {
            let attempt = Denial::on_topic(Operation::Write, record.topic());
            self.failures.observe_denial(error, attempt);
        }
    }
}

/// Returns whether a line of librdkafka's log is about a request without an
/// answer, or a connection that was lost with the requests on it. With `debug`
/// set, the same facility also logs connections that were closed while idle.
fn is_lost_request(level: RDKafkaLogLevel, facility: &str, message: &str) -> bool {
    match facility {
        "REQTMOUT" => true,
        "FAIL" if !matches!(level, RDKafkaLogLevel::Debug) => {
            ConnectionFailure::parse(message).is_none_or(|failure| failure.was_connected())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_lost(facility: &str, message: &str) -> bool {
        is_lost_request(RDKafkaLogLevel::Info, facility, message)
    }

    #[test]
    fn a_lost_connection_may_have_lost_requests() {
        let lost =
            "[thrd:TxnCoordinator]: TxnCoordinator: h:9092: Disconnected (after 9ms in state UP)";
        assert!(is_lost("FAIL", lost));
        assert!(!is_lost_request(RDKafkaLogLevel::Debug, "FAIL", lost));
        assert!(is_lost(
            "FAIL",
            "[thrd:h:9092/1]: h:9092/1: a text that leaves no room for the state"
        ));
    }

    #[test]
    fn a_request_that_is_not_answered_in_time_may_be_late() {
        assert!(is_lost(
            "REQTMOUT",
            "[thrd:TxnCoordinator]: TxnCoordinator: Timed out EndTxnRequest in flight (after 3000ms, timeout #0)"
        ));
    }

    #[test]
    fn a_connection_that_was_never_established_has_lost_none() {
        for state in ["TRY_CONNECT", "CONNECT"] {
            let refused = format!(
                "[thrd:h:9092/1]: h:9092/1: Connect to ipv4#127.0.0.1:9092 failed: Connection refused (after 0ms in state {state})"
            );
            assert!(!is_lost("FAIL", &refused), "{state}");
        }
        assert!(!is_lost("CONFWARN", "anything"));
    }
}
