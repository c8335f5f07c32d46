//! Publishing one push: from the bytes to what became of it, detached from
//! the client's connection.
//!
//! hyper drops a handler when its client hangs up. A push that arrived whole is
//! stored and counted all the same, so each is published by a tracked task of
//! its own, which also holds its room until Kafka has settled the record.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admission::Reservation;
use super::answer::Refusal;
use crate::kafka::{Delivery, DeliveryError, Producer};
use crate::metrics::{Outcome, PushMetrics};
use crate::notification::NotifyType;
use crate::record::KeyedRecord;
use crate::topics::Topic;

/// Publishes records, and knows those it has not finished with.
#[derive(Debug, Clone)]
pub struct Publisher {
    producer: Producer,
    tasks: TaskTracker,
    last_call: CancellationToken,
    answer_deadline: Duration,
    stored: Option<Stored>,
}

/// Told of every record that was stored; `dev` shows them.
pub type Stored = fn(&KeyedRecordSummary);

/// What `dev` shows of a stored record.
#[derive(Debug, Clone)]
pub struct KeyedRecordSummary {
    /// Where it stands.
    pub delivery: Delivery,
    /// Its type.
    pub notify_type: NotifyType,
    /// Its key.
    pub key: Option<String>,
    /// Why it is a dead letter, where it is one.
    pub reason: Option<&'static str>,
    /// From the head of the request to the acknowledgement.
    pub took: Duration,
}

/// One push in the books, from the head of its request until what became of it
/// is known. Dropped before that, it counts as disconnected.
#[derive(Debug)]
pub struct Entry {
    metrics: Arc<PushMetrics>,
    started: Instant,
    notify_type: NotifyType,
    open: bool,
}

impl Entry {
    /// Opens the entry of a push whose head is complete now.
    pub fn open(metrics: Arc<PushMetrics>) -> Self {
        metrics.received();
        Self {
            metrics,
            started: Instant::now(),
            notify_type: NotifyType::Other,
            open: true,
        }
    }

    /// When the head was complete.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Writes down what became of it.
    pub fn close(mut self, outcome: Outcome) {
        self.settle(outcome);
    }

    fn settle(&mut self, outcome: Outcome) {
        if std::mem::take(&mut self.open) {
            self.metrics
                .finished(outcome, self.notify_type, self.started.elapsed());
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.settle(Outcome::Disconnected);
    }
}

impl Publisher {
    /// Publishes through `producer`. When `last_call` is cancelled, whatever
    /// still waits is answered at once.
    pub fn new(
        producer: Producer,
        last_call: CancellationToken,
        answer_deadline: Duration,
        stored: Option<Stored>,
    ) -> Self {
        Self {
            producer,
            tasks: TaskTracker::new(),
            last_call,
            answer_deadline,
            stored,
        }
    }

    /// Publishes a record. What becomes of it arrives on the channel by the
    /// answer's deadline, whoever still listens.
    pub fn publish(
        &self,
        record: KeyedRecord,
        mut entry: Entry,
        reservation: Reservation,
    ) -> oneshot::Receiver<Result<Delivery, Refusal>> {
        let (answer, answered) = oneshot::channel();
        entry.notify_type = record.notify_type();
        let publisher = self.clone();
        self.tasks.spawn(async move {
            publisher.run(record, entry, answer).await;
            drop(reservation);
        });
        answered
    }

    /// Waits until every publish task has ended.
    pub async fn settled(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn run(
        &self,
        record: KeyedRecord,
        entry: Entry,
        answer: oneshot::Sender<Result<Delivery, Refusal>>,
    ) {
        let deadline = entry.started + self.answer_deadline;
        let reason = record.dead_letter_reason();
        let shown = self.stored.map(|stored| (stored, Shown::of(&record)));
        let mut delivery = std::pin::pin!(self.producer.deliver(record, deadline));
        let result = tokio::select! {
            biased;
            settled = &mut delivery => settled.map_err(|error| refusal(&error)),
            () = tokio::time::sleep_until(deadline.into()) => Err(Refusal::Unconfirmed),
            () = self.last_call.cancelled() => Err(Refusal::Draining),
        };
        if let (Some((stored, shown)), Ok(delivery)) = (shown, &result) {
            stored(&shown.with(*delivery, entry.started.elapsed()));
        }
        if let (Some(reason), Ok(_)) = (reason, &result) {
            entry.metrics.dead_lettered(reason);
        }
        let unsettled = matches!(result, Err(Refusal::Unconfirmed | Refusal::Draining));
        entry.close(match &result {
            Ok(delivery) if delivery.topic() == Topic::DeadLetter => Outcome::DeadLettered,
            Ok(_) => Outcome::Stored,
            Err(refusal) => refusal.outcome(),
        });
        // The client may have hung up; the record is stored and counted.
        let _ = answer.send(result);
        if unsettled {
            // What librdkafka holds takes room until it has settled it.
            let _late = delivery.await;
        }
    }
}

fn refusal(error: &DeliveryError) -> Refusal {
    match error {
        DeliveryError::KnownDown { .. } | DeliveryError::NoTopic => Refusal::Unavailable,
        DeliveryError::Refused(code) => {
            tracing::error!(%code, "Kafka refuses a record for what it is; its topic's settings do not fit");
            Refusal::Unavailable
        }
        DeliveryError::Failed(_) => Refusal::Unconfirmed,
    }
}

struct Shown {
    notify_type: NotifyType,
    key: Option<String>,
    reason: Option<&'static str>,
}

impl Shown {
    fn of(record: &KeyedRecord) -> Self {
        Self {
            notify_type: record.notify_type(),
            key: record
                .key()
                .map(|key| String::from_utf8_lossy(key).into_owned()),
            reason: record.dead_letter_reason(),
        }
    }

    fn with(self, delivery: Delivery, took: Duration) -> KeyedRecordSummary {
        KeyedRecordSummary {
            delivery,
            notify_type: self.notify_type,
            key: self.key,
            reason: self.reason,
            took,
        }
    }
}
