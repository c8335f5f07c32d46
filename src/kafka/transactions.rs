//! The transactions of one transactional id, and what their errors require.
//!
//! A retriable call is repeated. After any other error a new producer takes the place
//! of the old one, and its initialization ends what is open and fences what is still
//! under way, as the restart of a process does. The same follows a transaction during
//! which a request may have been lost: librdkafka sends it again under the same epoch
//! (it has no KIP-890), and a late copy, above all of an `EndTxn`, would act on the next
//! transaction.
//!
//! Knows nothing of what is written.

mod context;

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{ClientConfig, TopicPartitionList};

use super::failure::{Denial, Failure, Operation, Resource};
use super::failures::Failures;
use super::transactional_config;
use crate::config::Settings;
use context::TransactionalContext;

/// The timeout of one call into librdkafka; a call that times out is repeated.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How many events are served at once, at most.
const EVENTS: i32 = 100;
/// How often a commit looks whether brokers have answered all records.
const RECORDS_INTERVAL: Duration = Duration::from_millis(1);
/// The property with the addresses of the brokers.
const SERVERS: &str = "bootstrap.servers";
/// The pause before a call is repeated, spent serving events.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// The pause between two looks of a watchdog.
pub(crate) const WATCHDOG_INTERVAL: Duration = Duration::from_secs(1);
/// The number of looks, one each [`WATCHDOG_INTERVAL`], after which a call counts
/// as stuck.
///
/// librdkafka bounds every call by [`CALL_TIMEOUT`], with one exception: while
/// offsets wait for a group coordinator that is being elected, it looks for the
/// coordinator three times in a row, then not again until a broker connection
/// opens or closes. `connections.max.idle.ms` closes idle ones, and so ends the
/// wait, well before this.
const STUCK_AFTER_LOOKS: u32 = 20;

/// The transactions of one transactional id, one at a time.
pub(crate) struct Transactions {
    config: ClientConfig,
    current_servers: CurrentServers,
    producer: BaseProducer<TransactionalContext>,
    state: Cell<ProducerState>,
    transactional_id: String,
    failures: Failures,
    timeout: Duration,
    watchdog: Watchdog,
}

/// Returns the value of `bootstrap.servers` for a producer that takes the place of
/// another, or `None` if no broker answers: all brokers may have moved since
/// `kafka.bootstrap_servers` was written.
pub(crate) type CurrentServers = Box<dyn Fn() -> Option<String> + Send>;

/// What a producer can be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ProducerState {
    /// It has no epoch.
    New,
    Initialized,
    /// A transaction is open, or a call has failed: unless it commits, another producer
    /// must take its place.
    Spent,
}

/// Observes [`Transactions`] from another thread.
///
/// It counts looks and not time: a process that was frozen has waited for nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watchdog {
    /// The number of calls that began and that ended; odd during a call.
    calls: Arc<AtomicU64>,
    /// Its value at the last look, and how many looks have found it.
    seen: u64,
    looks: u32,
}

impl Watchdog {
    /// Takes one look, each [`WATCHDOG_INTERVAL`]. Returns whether a call into
    /// librdkafka has lasted so long that it may never return. Only ending the
    /// process helps then: its successor aborts the open transaction.
    pub(crate) fn finds_stuck_call(&mut self) -> bool {
        let calls = self.calls.load(Ordering::Relaxed);
        let is_same_call = calls % 2 == 1 && calls == self.seen;
        self.looks = if is_same_call { self.looks + 1 } else { 0 };
        self.seen = calls;
        self.looks >= STUCK_AFTER_LOOKS
    }

    /// Returns whether the [`Transactions`] no longer exist.
    pub(crate) fn is_finished(&self) -> bool {
        Arc::strong_count(&self.calls) == 1
    }

    fn observe<T>(&self, call: impl FnOnce() -> T) -> T {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let result = call();
        self.calls.fetch_add(1, Ordering::Relaxed);
        result
    }
}

/// A record to write within a transaction.
#[derive(Debug)]
pub(crate) struct Write<'a> {
    /// The topic's name on the cluster.
    pub(crate) topic: &'a str,
    /// The partition; `None` leaves it to the partitioner.
    pub(crate) partition: Option<i32>,
    /// The key that the partitioner and compaction use.
    pub(crate) key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone.
    pub(crate) value: Option<&'a [u8]>,
    /// The headers, in the order in which they are written.
    pub(crate) headers: Option<OwnedHeaders>,
}

/// What became of a transaction, and what its error requires of the caller.
/// [`Transactions::prepare`] makes the next one possible.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransactionError {
    /// Nothing of the transaction is committed, or will be.
    #[error("the transaction failed: {0}")]
    Failed(#[source] KafkaError),
    /// The transaction may have been committed. Once the next one is prepared,
    /// its offsets show whether it was.
    #[error("the outcome of the transaction is unknown: {0}")]
    Unknown(#[source] KafkaError),
    /// A producer with the same transactional id was initialized after this one,
    /// or brokers ended the transaction because it took too long. Which of the
    /// two, brokers do not say.
    #[error(
        "another producer has the same transactional id, or the transaction took too long: {0}"
    )]
    Fenced(#[source] KafkaError),
    /// The cluster denies the transactional id.
    #[error("the cluster denies the transactions: {0}")]
    Denied(#[source] KafkaError),
}

impl Transactions {
    /// Creates a producer with this transactional id. Returns at once: librdkafka
    /// connects in the background.
    ///
    /// # Errors
    ///
    /// Returns an error if librdkafka rejects the configuration.
    pub(crate) fn new(
        settings: &Settings,
        transactional_id: &str,
        failures: Failures,
        current_servers: CurrentServers,
    ) -> Result<Self, KafkaError> {
        let config = transactional_config(settings, transactional_id);
        Ok(Self {
            producer: create(&config, &failures)?,
            config,
            current_servers,
            state: Cell::new(ProducerState::New),
            transactional_id: transactional_id.to_owned(),
            failures,
            timeout: settings.streams.transaction_timeout_ms.duration(),
            watchdog: Watchdog::default(),
        })
    }

    /// Returns the right that these transactions lack, until one is committed.
    pub(crate) fn denial(&self) -> Option<Failure> {
        // Reports are events, which only a poll takes off their queue.
        self.serve_events();
        self.failures.denial_of(Operation::Write)
    }

    /// Returns the watchdog of the thread that runs these transactions.
    pub(crate) fn watchdog(&self) -> Watchdog {
        self.watchdog.clone()
    }

    /// Prepares for the next transaction, if necessary with a new producer: no
    /// earlier transaction is open then, whatever its caller has made of it, and no
    /// request of one can arrive any more. Retries for as long as `keep_trying`
    /// returns true. Returns whether it succeeded.
    ///
    /// # Errors
    ///
    /// Returns [`TransactionError::Denied`] if the cluster denies the
    /// transactional id, and [`TransactionError::Failed`] if another retry of the
    /// same producer cannot succeed.
    pub(crate) fn prepare(
        &mut self,
        keep_trying: impl Fn() -> bool,
    ) -> Result<bool, TransactionError> {
        match self.state.get() {
            ProducerState::New => self.init(keep_trying),
            ProducerState::Initialized if !self.context().has_lost_requests() => Ok(true),
            ProducerState::Initialized | ProducerState::Spent => {
                self.update_servers();
                self.renew()?;
                self.init(keep_trying)
            }
        }
    }

    /// Takes over the addresses that the brokers advertise now. Returns whether
    /// they have changed.
    fn update_servers(&mut self) -> bool {
        let Some(servers) = (self.current_servers)() else {
            return false;
        };
        if self.config.get(SERVERS) == Some(&servers) {
            return false;
        }
        self.config.set(SERVERS, servers);
        true
    }

    fn renew(&mut self) -> Result<(), TransactionError> {
        tracing::debug!(
            id = self.transactional_id,
            "replacing the transactional producer"
        );
        let created = create(&self.config, &self.failures).map_err(TransactionError::Failed)?;
        let abandoned = std::mem::replace(&mut self.producer, created);
        self.state.set(ProducerState::New);
        // It first gives up what it holds, and waits for its own threads.
        std::thread::spawn(move || drop(abandoned));
        Ok(())
    }

    /// Initializes the transactional id: the coordinator aborts what an earlier
    /// producer with this id left open and fences it with a higher epoch.
    fn init(&mut self, keep_trying: impl Fn() -> bool) -> Result<bool, TransactionError> {
        while keep_trying() {
            let init = || self.producer.init_transactions(CALL_TIMEOUT);
            match self.watchdog.observe(init) {
                Ok(()) => {
                    self.failures.allowed(|| self.write_to_id());
                    self.context().forget_lost_requests();
                    self.state.set(ProducerState::Initialized);
                    return Ok(true);
                }
                Err(error) if is_retriable(&error) => {
                    self.pause_before_retry(&error);
                    // No broker answered when this producer was created.
                    if self.update_servers() {
                        self.renew()?;
                    }
                }
                Err(error) => {
                    self.state.set(ProducerState::Spent);
                    return Err(if self.is_denied_id(&error) {
                        TransactionError::Denied(error)
                    } else {
                        TransactionError::Failed(error)
                    });
                }
            }
        }
        Ok(false)
    }

    /// Serves the events of librdkafka while no transaction is open. Nothing
    /// else takes them off their queue, which grows for as long as brokers are
    /// away.
    pub(crate) fn serve_events(&self) {
        // A poll of any length spins for the rest of its last millisecond.
        for _ in 0..self.producer.in_flight_count().min(EVENTS) {
            self.producer.poll(Duration::ZERO);
        }
    }

    /// Begins a transaction. Local: no broker learns of it before the first
    /// record or offset.
    ///
    /// # Errors
    ///
    /// Returns a [`TransactionError`], which says what to do.
    pub(crate) fn begin(&self) -> Result<(), TransactionError> {
        self.state.set(ProducerState::Spent);
        self.producer
            .begin_transaction()
            .map_err(|error| self.fail(error))
    }

    /// Queues a record, which [`Transactions::commit`] sends at the latest.
    /// Waits while librdkafka's queue is full.
    ///
    /// # Errors
    ///
    /// Returns a [`TransactionError`], which says what to do.
    pub(crate) fn write(&self, write: Write<'_>) -> Result<(), TransactionError> {
        let mut record = BaseRecord::<[u8], [u8]>::to(write.topic);
        record.partition = write.partition;
        record.key = write.key;
        record.payload = write.value;
        record.headers = write.headers;
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((error, returned))
                    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) =>
                {
                    record = returned;
                    self.producer.poll(RETRY_PAUSE);
                }
                Err((error, _)) => return Err(self.fail(error)),
            }
        }
    }

    /// Makes the consumer's offsets part of the transaction. Retries for as long
    /// as the transaction may last.
    ///
    /// # Errors
    ///
    /// Returns a [`TransactionError`], which says what to do.
    pub(crate) fn send_offsets(
        &self,
        offsets: &TopicPartitionList,
        group: &ConsumerGroupMetadata,
    ) -> Result<(), TransactionError> {
        let deadline = Instant::now() + self.timeout;
        let send = || {
            self.producer
                .send_offsets_to_transaction(offsets, group, CALL_TIMEOUT)
        };
        self.call(send, || Instant::now() < deadline)
    }

    /// Returns when brokers end a transaction that begins now, if it is not
    /// committed by then.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    /// Commits everything written and the offsets, or nothing. Retries for as long
    /// as `keep_trying` returns true: only the coordinator knows the outcome of a
    /// commit that it may have received.
    ///
    /// # Errors
    ///
    /// Returns a [`TransactionError`], which says what to do, and
    /// [`TransactionError::Unknown`] if it stops retrying.
    pub(crate) fn commit(&self, keep_trying: impl Fn() -> bool) -> Result<(), TransactionError> {
        let commit = || {
            self.await_records()?;
            self.producer.commit_transaction(CALL_TIMEOUT)
        };
        self.call(commit, keep_trying).map_err(unless_committed)?;
        self.state.set(ProducerState::Initialized);
        self.failures.all_allowed(Operation::Write);
        Ok(())
    }

    /// Waits until brokers have answered all records. A commit waits for them too, but
    /// rdkafka's looks only every 100 ms.
    fn await_records(&self) -> Result<(), KafkaError> {
        let deadline = Instant::now() + CALL_TIMEOUT;
        while self.producer.in_flight_count() > 0 {
            if Instant::now() >= deadline {
                return Err(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut));
            }
            self.serve_events();
            std::thread::sleep(RECORDS_INTERVAL);
        }
        Ok(())
    }

    /// Makes a call into librdkafka. Repeats it while its error is retriable and
    /// `keep_trying` returns true: librdkafka continues the same operation.
    fn call(
        &self,
        call: impl Fn() -> Result<(), KafkaError>,
        keep_trying: impl Fn() -> bool,
    ) -> Result<(), TransactionError> {
        loop {
            match self.watchdog.observe(&call) {
                Ok(()) => return Ok(()),
                Err(error) if is_retriable(&error) && keep_trying() => {
                    self.pause_before_retry(&error);
                }
                Err(error) => return Err(self.fail(error)),
            }
        }
    }

    fn fail(&self, error: KafkaError) -> TransactionError {
        if self.is_denied_id(&error) {
            return TransactionError::Denied(error);
        }
        classify(error)
    }

    /// Returns whether the error is that the cluster denied the transactional id,
    /// and reports that.
    fn is_denied_id(&self, error: &KafkaError) -> bool {
        self.failures.observe_denial(error, self.write_to_id())
    }

    fn write_to_id(&self) -> Denial {
        let id = Resource::TransactionalId(self.transactional_id.clone());
        Denial::new(Operation::Write, id)
    }

    fn context(&self) -> &TransactionalContext {
        self.producer.context()
    }

    fn pause_before_retry(&self, error: &KafkaError) {
        tracing::debug!(%error, "transactional call failed; retrying");
        self.producer.poll(RETRY_PAUSE);
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
    // A commit first flushes, and reports a flush that outlasts the call as its own error.
    matches!(
        error,
        KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut)
    )
}

fn create(
    config: &ClientConfig,
    failures: &Failures,
) -> Result<BaseProducer<TransactionalContext>, KafkaError> {
    config.create_with_context(TransactionalContext::new(failures.clone()))
}

fn classify(error: KafkaError) -> TransactionError {
    match error.rdkafka_error_code() {
        Some(
            RDKafkaErrorCode::Fenced
            | RDKafkaErrorCode::ProducerFenced
            | RDKafkaErrorCode::InvalidProducerEpoch,
        ) => TransactionError::Fenced(error),
        _ if is_abortable(&error) => TransactionError::Failed(error),
        _ => TransactionError::Unknown(error),
    }
}

/// Returns the error of a commit that nobody retries: it may have arrived.
fn unless_committed(error: TransactionError) -> TransactionError {
    match error {
        TransactionError::Failed(error) if is_retriable(&error) => TransactionError::Unknown(error),
        TransactionError::Failed(_)
        | TransactionError::Unknown(_)
        | TransactionError::Fenced(_)
        | TransactionError::Denied(_) => error,
    }
}

/// Returns whether librdkafka knows that the transaction is not committed.
fn is_abortable(error: &KafkaError) -> bool {
    if let KafkaError::Transaction(error) = error {
        // A retriable one gets here only if its caller has stopped retrying.
        return error.txn_requires_abort() || error.is_retriable();
    }
    // That of a record that could not be queued.
    error.rdkafka_error_code() != Some(RDKafkaErrorCode::Fatal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_lasts_is_stuck() {
        let watchdog = Watchdog::default();
        let mut looks = watchdog.clone();
        let mut finds = || (0..=STUCK_AFTER_LOOKS).any(|_| looks.finds_stuck_call());
        assert!(!finds());
        assert!(watchdog.observe(&mut finds));
        assert!(!finds());
    }

    #[test]
    fn many_short_calls_are_not_stuck() {
        let watchdog = Watchdog::default();
        let mut looks = watchdog.clone();
        for _ in 0..=STUCK_AFTER_LOOKS {
            assert!(!watchdog.observe(|| looks.finds_stuck_call()));
        }
    }
}
