//! A producer's transactions, and the three answers to their errors: the same
//! call again, abort, or end the process.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use rdkafka::{ClientContext, TopicPartitionList};

use super::transactional_config;
use crate::config::Settings;

/// How long one call into librdkafka may take before it is made again.
const CALL: Duration = Duration::from_secs(5);
/// The same for an abort, which waits for reports that are fetched between its calls.
const ABORT_CALL: Duration = Duration::from_millis(200);
/// How long a look at what librdkafka reports may take.
const GLANCE: Duration = Duration::from_millis(1);
/// The pause before a call is made again.
const PAUSE: Duration = Duration::from_millis(100);

/// A call that has not returned after so long may never do. librdkafka bounds
/// each by [`CALL`], but for one: while a transaction's offsets wait for a group
/// coordinator that is being elected, it asks three times at once who that is,
/// and then not again before some broker comes or goes. Idle connections go for
/// that reason, well before this.
const STUCK: Duration = Duration::from_secs(20);

/// The transactions of one transactional id.
pub struct Transactions {
    producer: BaseProducer<Context>,
    timeout: Duration,
    pulse: Pulse,
}

/// Tells, while a thread is within its transactions, whether it will come back.
#[derive(Debug, Clone, Default)]
pub struct Pulse {
    /// Since when the call that is under way waits.
    call: Arc<Mutex<Option<Instant>>>,
}

impl Pulse {
    /// Whether a call has not returned for so long that it may never do. Only
    /// the end of the process helps then; a successor aborts what is open.
    pub fn is_stuck(&self) -> bool {
        let since = *self.call.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_some_and(|since| since.elapsed() > STUCK)
    }

    /// Whether the transactions that it belongs to are gone.
    pub fn is_over(&self) -> bool {
        Arc::strong_count(&self.call) == 1
    }

    fn during<T>(&self, call: impl FnOnce() -> T) -> T {
        self.set(Some(Instant::now()));
        let result = call();
        self.set(None);
        result
    }

    fn set(&self, since: Option<Instant>) {
        *self.call.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }
}

/// A record to write within a transaction.
#[derive(Debug)]
pub struct Write<'a> {
    /// The topic's name on the cluster.
    pub topic: &'a str,
    /// The partition; chosen by the key where there is none.
    pub partition: Option<i32>,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value; none is a tombstone.
    pub value: Option<&'a [u8]>,
    /// The headers.
    pub headers: Option<OwnedHeaders>,
}

/// What an error asks for.
#[derive(Debug, thiserror::Error)]
pub enum TransactionError {
    /// The transaction is to be aborted; the next one may succeed.
    #[error("the transaction must be aborted: {0}")]
    Abort(KafkaError),
    /// The producer is of no use any more: fenced by another instance with the
    /// same transactional id, or in an unknown state.
    #[error("no further transaction is possible: {0}")]
    Fatal(KafkaError),
}

impl Transactions {
    /// A producer with this transactional id, which connects by itself.
    ///
    /// # Errors
    ///
    /// Where librdkafka does not accept an option.
    pub fn new(settings: &Settings, transactional_id: &str) -> Result<Self, KafkaError> {
        let config = transactional_config(settings, transactional_id);
        Ok(Self {
            producer: config.create_with_context(Context)?,
            timeout: settings.streams.transaction_timeout_ms.duration(),
            pulse: Pulse::default(),
        })
    }

    /// For whoever watches the thread that makes these transactions.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Takes the transactional id over: aborts what a predecessor left open,
    /// and fences it. Keeps trying while `go_on` says so; whether it is done.
    ///
    /// # Errors
    ///
    /// [`TransactionError::Fatal`] where trying again does not help.
    pub fn take_over(&self, go_on: impl Fn() -> bool) -> Result<bool, TransactionError> {
        while go_on() {
            match self.pulse.during(|| self.producer.init_transactions(CALL)) {
                Ok(()) => return Ok(true),
                Err(error) if is_retriable(&error) => self.pause(&error),
                Err(error) => return Err(TransactionError::Fatal(error)),
            }
        }
        Ok(false)
    }

    /// Takes note of what librdkafka reports while there is no transaction to
    /// wait for; otherwise that would pile up for as long as brokers are away.
    pub fn idle(&self) {
        self.producer.poll(GLANCE);
    }

    /// Begins a transaction.
    ///
    /// # Errors
    ///
    /// See [`TransactionError`].
    pub fn begin(&self) -> Result<(), TransactionError> {
        self.producer.begin_transaction().map_err(classify)
    }

    /// Hands a record over. It is written by [`Transactions::commit`].
    ///
    /// # Errors
    ///
    /// See [`TransactionError`].
    pub fn write(&self, write: Write<'_>) -> Result<(), TransactionError> {
        let mut record = BaseRecord::<[u8], [u8]>::to(write.topic);
        record.partition = write.partition;
        record.key = write.key;
        record.payload = write.value;
        record.headers = write.headers;
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((error, back))
                    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) =>
                {
                    record = back;
                    self.producer.poll(PAUSE);
                }
                Err((error, _)) => return Err(classify(error)),
            }
        }
    }

    /// Makes the consumer's offsets part of the transaction.
    ///
    /// # Errors
    ///
    /// See [`TransactionError`].
    pub fn send_offsets(
        &self,
        offsets: &TopicPartitionList,
        group: &ConsumerGroupMetadata,
    ) -> Result<(), TransactionError> {
        let give_up_at = Instant::now() + self.timeout;
        let call = || {
            self.producer
                .send_offsets_to_transaction(offsets, group, CALL)
        };
        self.settle(call, || Instant::now() < give_up_at)
    }

    /// Commits: all that was written and the offsets, or nothing.
    ///
    /// Waits as long as no broker answers: only they know how it ended.
    ///
    /// # Errors
    ///
    /// See [`TransactionError`].
    pub fn commit(&self) -> Result<(), TransactionError> {
        self.settle(|| self.producer.commit_transaction(CALL), || true)
    }

    /// Aborts the transaction that is open. Waits as long as no broker answers.
    ///
    /// # Errors
    ///
    /// Only [`TransactionError::Fatal`].
    pub fn abort(&self) -> Result<(), TransactionError> {
        // librdkafka waits for the reports of the records that it drops, but
        // whoever aborts must fetch them, and does in the pause between two
        // short calls; the commit does so by itself.
        let aborted = self.settle(|| self.producer.abort_transaction(ABORT_CALL), || true);
        aborted.map_err(|error| match error {
            TransactionError::Abort(error) | TransactionError::Fatal(error) => {
                TransactionError::Fatal(error)
            }
        })
    }

    /// Makes a call again while it may be repeated and `go_on` says so.
    fn settle(
        &self,
        call: impl Fn() -> Result<(), KafkaError>,
        go_on: impl Fn() -> bool,
    ) -> Result<(), TransactionError> {
        loop {
            match self.pulse.during(&call) {
                Ok(()) => return Ok(()),
                Err(error) if is_retriable(&error) && go_on() => self.pause(&error),
                Err(error) => return Err(classify(error)),
            }
        }
    }

    /// Fetches what librdkafka reports, until the next call.
    fn pause(&self, error: &KafkaError) {
        tracing::debug!(%error, "a call is made again");
        self.producer.poll(PAUSE);
    }
}

impl std::fmt::Debug for Transactions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transactions")
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

fn is_retriable(error: &KafkaError) -> bool {
    if let KafkaError::Transaction(error) = error {
        return error.is_retriable();
    }
    // `commit_transaction` flushes first, and says so when that takes longer.
    matches!(
        error,
        KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut)
    )
}

fn classify(error: KafkaError) -> TransactionError {
    let fatal = if let KafkaError::Transaction(error) = &error {
        error.is_fatal() || !(error.txn_requires_abort() || error.is_retriable())
    } else {
        let code = error.rdkafka_error_code();
        matches!(
            code,
            Some(RDKafkaErrorCode::Fatal | RDKafkaErrorCode::Fenced)
        )
    };
    if fatal {
        TransactionError::Fatal(error)
    } else {
        TransactionError::Abort(error)
    }
}

struct Context;

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        super::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka reports an error");
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = ();

    /// A record that fails fails its transaction, and the commit says so.
    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}
