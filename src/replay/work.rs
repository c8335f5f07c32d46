//! The work itself: read, decide, send and mark in one transaction.
//!
//! ```text
//! 1 take the transactional id over: a replay that ran before is fenced, and
//!   what it had open is aborted
//! 2 each partition: read its marks to the end
//! 3 gather a batch of selected dead letters without a mark; begin a transaction
//! 4 each: write the record to where it belongs, and the mark for it to the
//!   dead letter's own partition
//! 5 commit, and only then count it; 3
//! ```
//!
//! A dead letter is replayed if its mark is committed, and only then. The marks
//! are read after the take-over, so that nobody else's can come any more. The
//! fault tests kill the process behind each of the numbered steps.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::dead_letter::{DeadLetter, Entry, Place};
use super::report::Report;
use super::route::{Fate, Outgoing, Router};
use super::selection::{Selection, SelectionError};
use crate::kafka::reader::{ReadError, Reader};
use crate::kafka::transactions::{TransactionError, Transactions, Write};
use crate::process::fail_point::fail_point;

/// For so long it is tried to begin, and to commit a batch.
const PATIENCE: Duration = Duration::from_secs(60);
/// The pause after an aborted transaction.
const ABORT_PAUSE: Duration = Duration::from_millis(500);
/// The most bytes of one transaction, give or take a record.
const MAX_BATCH_BYTES: usize = 8 * 1024 * 1024;

/// One replay.
pub(super) struct Work {
    pub(super) reader: Reader,
    pub(super) router: Router,
    pub(super) selection: Selection,
    /// How many may be sent in all.
    pub(super) limit: u64,
    pub(super) max_batch_records: usize,
    pub(super) sink: Sink,
}

/// Where batches go.
pub(super) struct Sink {
    /// None shows what would be done.
    pub(super) transactions: Option<Transactions>,
    pub(super) dead_letter_topic: String,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) report: Report,
}

/// Why a replay ended before it was through.
#[derive(Debug, thiserror::Error)]
pub(super) enum Interrupted {
    #[error(transparent)]
    Selection(#[from] SelectionError),
    #[error("{0}")]
    Unavailable(String),
    #[error("another replay of the same dead-letter topic has taken over")]
    TakenOver,
    #[error("stopped by a signal")]
    Stopped,
}

/// What one transaction is to send.
#[derive(Default)]
struct Batch {
    items: Vec<Item>,
    bytes: usize,
}

struct Item {
    place: Place,
    reason: String,
    written_at: DateTime<Utc>,
    outgoing: Outgoing,
}

impl Work {
    /// Replays what is selected, as far as it gets; the report says how far.
    pub(super) fn run(&mut self) -> Result<(), Interrupted> {
        self.sink.take_over()?;
        fail_point(1);
        let bounds = self.reader.bounds()?;
        for (partition, selected) in self.selection.ranges(&bounds)? {
            let kept_until = bounds.get(&partition).map_or(selected.end, |kept| kept.end);
            let marked = self.marked(partition, selected.start..kept_until)?;
            fail_point(2);
            self.partition(partition, selected, &marked)?;
            if self.sink.report.sent >= self.limit {
                break;
            }
        }
        Ok(())
    }

    /// Step 2. A mark stands behind its dead letter, in the same partition.
    fn marked(&self, partition: i32, range: Range<i64>) -> Result<HashSet<i64>, ReadError> {
        let mut section = self.reader.section(partition, range)?;
        let mut marked = HashSet::new();
        while let Some(record) = section.next(&|| self.sink.goes_on())? {
            if let Entry::Mark(place) = Entry::of(&record)
                && place.partition == partition
            {
                marked.insert(place.offset);
            }
        }
        Ok(marked)
    }

    /// Steps 3 to 5.
    fn partition(
        &mut self,
        partition: i32,
        selected: Range<i64>,
        marked: &HashSet<i64>,
    ) -> Result<(), Interrupted> {
        let (router, selection, sink) = (&self.router, &self.selection, &mut self.sink);
        let stop = Arc::clone(&sink.stop);
        let goes_on = move || !stop.load(Ordering::Relaxed);
        let mut section = self.reader.section(partition, selected)?;
        let mut batch = Batch::default();
        let room = |sink: &Sink, batch: &Batch| {
            let sent = sink.report.sent + u64::try_from(batch.items.len()).unwrap_or(u64::MAX);
            sent < self.limit
        };
        while room(sink, &batch)
            && let Some(record) = section.next(&goes_on)?
        {
            let Entry::DeadLetter(letter) = Entry::of(&record) else {
                continue;
            };
            let reason = letter.reason();
            sink.report.saw(&reason);
            if !selection.takes(&letter) {
                continue;
            }
            if marked.contains(&letter.place.offset) {
                sink.report.before += 1;
                continue;
            }
            match router.fate(&letter) {
                Fate::Goes(outgoing) => batch.add(&letter, reason, outgoing),
                Fate::Stays(why) => sink.report.stays(reason, letter.written_at, &why),
            }
            if batch.items.len() >= self.max_batch_records || batch.bytes >= MAX_BATCH_BYTES {
                sink.send(&mut batch)?;
            }
        }
        sink.send(&mut batch)
    }
}

impl Sink {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// Step 1.
    fn take_over(&self) -> Result<(), Interrupted> {
        let Some(transactions) = &self.transactions else {
            return Ok(());
        };
        let give_up_at = Instant::now() + PATIENCE;
        if transactions.take_over(|| self.goes_on() && Instant::now() < give_up_at)? {
            return Ok(());
        }
        if self.goes_on() {
            let text = "no coordinator for the transactions";
            return Err(Interrupted::Unavailable(text.to_owned()));
        }
        Err(Interrupted::Stopped)
    }

    /// Sends a batch, again and again while it was surely aborted, and counts it.
    fn send(&mut self, batch: &mut Batch) -> Result<(), Interrupted> {
        let give_up_at = Instant::now() + PATIENCE;
        if let Some(transactions) = &self.transactions
            && !batch.items.is_empty()
        {
            while let Err(error) = self.transact(transactions, batch) {
                let TransactionError::Abort(cause) = error else {
                    return Err(error.into());
                };
                tracing::debug!(error = %cause, "a transaction is aborted");
                transactions.abort()?;
                if !self.goes_on() {
                    return Err(Interrupted::Stopped);
                }
                if Instant::now() >= give_up_at {
                    return Err(Interrupted::Unavailable(cause.to_string()));
                }
                std::thread::sleep(ABORT_PAUSE);
            }
            fail_point(5);
        }
        batch.bytes = 0;
        for item in batch.items.drain(..) {
            let topic = &item.outgoing.topic;
            self.report.goes(item.reason, item.written_at, topic);
        }
        Ok(())
    }

    fn transact(&self, transactions: &Transactions, batch: &Batch) -> Result<(), TransactionError> {
        transactions.begin()?;
        fail_point(3);
        for item in &batch.items {
            self.write(transactions, item)?;
        }
        fail_point(4);
        transactions.commit()
    }

    /// Step 4. The mark goes to the dead letter's own partition, behind it, so
    /// that retention, which cuts a partition at its front, never takes the
    /// mark first.
    fn write(&self, transactions: &Transactions, item: &Item) -> Result<(), TransactionError> {
        let Item {
            place, outgoing, ..
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
            partition: Some(place.partition),
            key: Some(place.to_string().as_bytes()),
            value: None,
            headers: Some(place.mark(&outgoing.topic)),
        })
    }
}

impl Batch {
    fn add(&mut self, letter: &DeadLetter<'_>, reason: String, outgoing: Outgoing) {
        self.bytes += letter.value.map_or(0, <[u8]>::len);
        self.items.push(Item {
            place: letter.place,
            reason,
            written_at: letter.written_at,
            outgoing,
        });
    }
}

impl From<ReadError> for Interrupted {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Stopped => Self::Stopped,
            ReadError::Kafka(_) | ReadError::Silent { .. } => Self::Unavailable(error.to_string()),
        }
    }
}

impl From<TransactionError> for Interrupted {
    fn from(error: TransactionError) -> Self {
        match error {
            TransactionError::Fatal(error) if is_fenced(&error) => Self::TakenOver,
            TransactionError::Abort(error) | TransactionError::Fatal(error) => {
                Self::Unavailable(error.to_string())
            }
        }
    }
}

fn is_fenced(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::Fenced
                | RDKafkaErrorCode::ProducerFenced
                | RDKafkaErrorCode::InvalidProducerEpoch
        )
    )
}
