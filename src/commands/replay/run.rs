//! One run of a replay: read, route, send and mark in one transaction.
//!
//! ```text
//! 1 initialize the transactional id: an earlier replay that is still running is
//!   fenced, and its open transaction is aborted
//! 2 for each partition: read its markers to the end
//! 3 gather a batch of selected dead letters without a marker; begin a transaction
//! 4 for each of them: write the record to its topic, and a marker to the dead
//!   letter's own partition
//! 5 commit, and count the batch only now; continue with 3
//! ```
//!
//! A dead letter is replayed if and only if its marker is committed. The markers
//! are read after step 1, so that no other replay can add one afterwards. The
//! fault tests kill the process after each of the numbered steps.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use rdkafka::error::KafkaError;

use super::dead_letter::{DeadLetter, Entry, Location};
use super::report::Report;
use super::route::{Outgoing, Router};
use super::selection::{Selection, SelectionError};
use crate::kafka::log_reader::{Isolation, LogReader, Ranges, ReadError};
use crate::kafka::transactions::{TransactionError, Transactions, Write};
use crate::process::fail_point::fail_point;

/// How long step 1, and the transaction of one batch, may be retried.
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);
/// The pause after a failed transaction.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

pub(super) struct ReplayRun {
    pub(super) reader: LogReader,
    pub(super) router: Router,
    pub(super) selection: Selection,
    /// The most dead letters to replay.
    pub(super) limit: u64,
    pub(super) max_batch_records: usize,
    pub(super) max_batch_bytes: usize,
    pub(super) sender: Sender,
}

/// Sends batches in transactions, and counts what was sent.
pub(super) struct Sender {
    /// `None` in a dry run, which counts without sending.
    pub(super) transactions: Option<Transactions>,
    pub(super) dead_letter_topic: String,
    /// Set when a signal asks the run to stop.
    pub(super) stop: Arc<AtomicBool>,
    pub(super) report: Report,
}

/// Why a run ended before it had handled every selected dead letter.
#[derive(Debug, thiserror::Error)]
pub(super) enum Interrupted {
    #[error(transparent)]
    Selection(#[from] SelectionError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Transaction(KafkaError),
    #[error(
        "whether the last batch was replayed is unknown; run the same command again, which replays it if it was not: {0}"
    )]
    Unknown(KafkaError),
    #[error("no transaction coordinator answered for {} s", RETRY_TIMEOUT.as_secs())]
    NoCoordinator,
    #[error("another replay of the same dead-letter topic has started and fenced this one")]
    Fenced,
    #[error("stopped by a signal")]
    Stopped,
}

/// Why the rest of a partition is not read.
enum Ended {
    LimitReached,
    Interrupted(Interrupted),
}

/// The dead letters of one transaction.
#[derive(Default)]
struct Batch {
    items: Vec<Item>,
    bytes: usize,
}

struct Item {
    location: Location,
    reason: String,
    written_at: DateTime<Utc>,
    outgoing: Outgoing,
}

impl ReplayRun {
    /// Replays the selected dead letters. After an error, the report counts
    /// those of the committed transactions.
    pub(super) fn run(&mut self) -> Result<(), Interrupted> {
        self.sender.prepare()?;
        fail_point(1);
        let topic = &self.sender.dead_letter_topic;
        let bounds = self.reader.bounds(topic, Isolation::Uncommitted)?;
        for (partition, selected) in self.selection.ranges(&bounds)? {
            let end = bounds
                .get(&partition)
                .map_or(selected.end, |bounds| bounds.end);
            let replayed = self.read_markers(partition, selected.start..end)?;
            fail_point(2);
            self.replay_partition(partition, selected, &replayed)?;
            if self.sender.report.replayed >= self.limit {
                break;
            }
        }
        Ok(())
    }

    /// Step 2. Returns the offsets of the replayed dead letters. A marker
    /// follows its dead letter in the same partition, so those before the
    /// selection are not needed.
    fn read_markers(&self, partition: i32, range: Range<i64>) -> Result<HashSet<i64>, Interrupted> {
        let mut replayed = HashSet::new();
        self.reader.read(
            &self.sender.dead_letter_topic,
            Ranges::from([(partition, range)]),
            Isolation::Committed,
            |record| {
                if let Entry::Marker(location) = Entry::of(record)
                    && location.partition == partition
                {
                    replayed.insert(location.offset);
                }
                self.sender.check_stop()
            },
            |_| self.sender.check_stop(),
        )?;
        Ok(replayed)
    }

    /// Steps 3 to 5.
    fn replay_partition(
        &mut self,
        partition: i32,
        range: Range<i64>,
        replayed: &HashSet<i64>,
    ) -> Result<(), Interrupted> {
        let stop = Arc::clone(&self.sender.stop);
        let topic = self.sender.dead_letter_topic.clone();
        let mut batch = Batch::default();
        let Self {
            reader,
            router,
            selection,
            limit,
            max_batch_records,
            max_batch_bytes,
            sender,
        } = self;
        let read = reader.read(
            &topic,
            Ranges::from([(partition, range)]),
            Isolation::Committed,
            |record| {
                check_stop(&stop)?;
                let Entry::DeadLetter(letter) = Entry::of(record) else {
                    return Ok(());
                };
                let report = &mut sender.report;
                if let Some(item) = selected(&letter, selection, replayed, router, report) {
                    batch.add(item, letter.value);
                }
                if sender.report.replayed + batch.count() >= *limit {
                    return Err(Ended::LimitReached);
                }
                if batch.is_full(*max_batch_records, *max_batch_bytes) {
                    sender.send(&mut batch)?;
                }
                Ok(())
            },
            |_| Ok(check_stop(&stop)?),
        );
        match read {
            Ok(()) | Err(Ended::LimitReached) => sender.send(&mut batch),
            Err(Ended::Interrupted(interrupted)) => Err(interrupted),
        }
    }
}

/// Returns what to send for a dead letter, or `None` if the report says why not.
fn selected(
    letter: &DeadLetter<'_>,
    selection: &Selection,
    replayed: &HashSet<i64>,
    router: &Router,
    report: &mut Report,
) -> Option<Item> {
    let reason = letter.reason();
    report.add_reason(&reason);
    if !selection.matches(letter) {
        return None;
    }
    if replayed.contains(&letter.location.offset) {
        report.already_replayed += 1;
        return None;
    }
    match router.route(letter) {
        Ok(outgoing) => Some(Item {
            location: letter.location,
            reason,
            written_at: letter.written_at,
            outgoing,
        }),
        Err(cause) => {
            report.add_not_replayable(reason, letter.written_at, &cause);
            None
        }
    }
}

impl Sender {
    fn check_stop(&self) -> Result<(), Interrupted> {
        check_stop(&self.stop)
    }

    /// Step 1, and again before each batch: what an earlier transaction left
    /// behind has ended then.
    fn prepare(&mut self) -> Result<(), Interrupted> {
        let Some(transactions) = &mut self.transactions else {
            return Ok(());
        };
        let (stop, deadline) = (&self.stop, Instant::now() + RETRY_TIMEOUT);
        let keep_trying = || check_stop(stop).is_ok() && Instant::now() < deadline;
        if transactions.prepare(keep_trying)? {
            return Ok(());
        }
        self.check_stop()?;
        Err(Interrupted::NoCoordinator)
    }

    /// Sends a batch and counts it. Sends it again after a failure: nothing of a
    /// failed transaction is visible to `read_committed` consumers.
    fn send(&mut self, batch: &mut Batch) -> Result<(), Interrupted> {
        if self.transactions.is_some() && !batch.items.is_empty() {
            self.commit(batch)?;
            fail_point(5);
        }
        batch.bytes = 0;
        for item in batch.items.drain(..) {
            let topic = &item.outgoing.topic;
            self.report
                .add_replayed(item.reason, item.written_at, topic);
        }
        Ok(())
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), Interrupted> {
        let deadline = Instant::now() + RETRY_TIMEOUT;
        loop {
            self.prepare()?;
            let Some(transactions) = &self.transactions else {
                return Ok(());
            };
            let cause = match self.transact(transactions, batch) {
                Ok(()) => return Ok(()),
                Err(TransactionError::Failed(cause)) => cause,
                Err(error) => return Err(error.into()),
            };
            tracing::debug!(error = %cause, "transaction failed; retrying it");
            self.check_stop()?;
            if transactions.denial().is_some() || Instant::now() >= deadline {
                return Err(Interrupted::Transaction(cause));
            }
            std::thread::sleep(RETRY_PAUSE);
        }
    }

    fn transact(&self, transactions: &Transactions, batch: &Batch) -> Result<(), TransactionError> {
        let deadline = transactions.deadline();
        transactions.begin()?;
        fail_point(3);
        for item in &batch.items {
            self.write(transactions, item)?;
        }
        fail_point(4);
        transactions.commit(|| Instant::now() < deadline)
    }

    /// Step 4. Retention removes a partition's oldest records first, so a marker
    /// in the dead letter's own partition never disappears before it.
    fn write(&self, transactions: &Transactions, item: &Item) -> Result<(), TransactionError> {
        let Item {
            location, outgoing, ..
        } = item;
        transactions.write(Write {
            topic: &outgoing.topic,
            partition: None,
            key: outgoing.key.as_deref(),
            value: outgoing.value.as_deref(),
            headers: Some(outgoing.headers.clone()),
        })?;
        transactions.write(Write {
            topic: &self.dead_letter_topic,
            partition: Some(location.partition),
            key: Some(location.to_string().as_bytes()),
            value: None,
            headers: Some(location.marker_headers(&outgoing.topic)),
        })
    }
}

impl Batch {
    fn add(&mut self, item: Item, value: Option<&[u8]>) {
        self.bytes += value.map_or(0, <[u8]>::len);
        self.items.push(item);
    }

    fn count(&self) -> u64 {
        u64::try_from(self.items.len()).unwrap_or(u64::MAX)
    }

    fn is_full(&self, max_records: usize, max_bytes: usize) -> bool {
        self.items.len() >= max_records || self.bytes >= max_bytes
    }
}

impl From<TransactionError> for Interrupted {
    fn from(error: TransactionError) -> Self {
        match error {
            TransactionError::Fenced(_) => Self::Fenced,
            TransactionError::Unknown(error) => Self::Unknown(error),
            TransactionError::Failed(error) | TransactionError::Denied(error) => {
                Self::Transaction(error)
            }
        }
    }
}

impl From<Interrupted> for Ended {
    fn from(interrupted: Interrupted) -> Self {
        Self::Interrupted(interrupted)
    }
}

impl From<ReadError> for Ended {
    fn from(error: ReadError) -> Self {
        Self::Interrupted(error.into())
    }
}

fn check_stop(stop: &AtomicBool) -> Result<(), Interrupted> {
    if stop.load(Ordering::Relaxed) {
        return Err(Interrupted::Stopped);
    }
    Ok(())
}
