//! Publishes pushes, detached from their clients' connections.
//!
//! hyper drops a handler's future when its client hangs up. A push whose body
//! arrived is stored and counted all the same: librdkafka holds, with the record,
//! what counts the push, resolves its handler, and holds its reservation, until the
//! record is settled, which may be after the answer. There is no task in between.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::header::HeaderValue;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::admission::Reservation;
use super::answer::Refusal;
use super::metrics::{Outcome, PushMetrics};
use super::spans::{SendSpan, ServerSpan};
use super::trail::Trail;
use crate::config::SPOOL_TIME_MS;
use crate::kafka::DeliveryError;
use crate::notification::NotifyType;
use crate::process::logging::EVENTS;
use crate::record::KeyedRecord;
use crate::spool::{Storage, StorageError, Stored};
use crate::topics::Topic;

const SPOOL_TIME: Duration = Duration::from_millis(SPOOL_TIME_MS);

/// Publishes records, and tracks those still in flight.
#[derive(Debug, Clone)]
pub(crate) struct Publisher {
    storage: Storage,
    unsettled: TaskTracker,
    cancel_pending: CancellationToken,
    answer_deadline: Duration,
}

/// A push from the end of its request's head until its outcome is known.
///
/// Counts itself as received, and later under exactly one outcome: as
/// disconnected if it is dropped without another.
#[derive(Debug)]
pub(crate) struct InFlightPush {
    metrics: Arc<PushMetrics>,
    started: Instant,
    notify_type: NotifyType,
    authorized: Option<Authorized>,
    is_finished: AtomicBool,
    /// Of a record that is not known to be stored.
    tracked: Mutex<Option<TaskTrackerToken>>,
}

/// What librdkafka holds with a push's record.
struct Unsettled {
    push: Arc<InFlightPush>,
    answer: oneshot::Sender<Result<Stored, Refusal>>,
    event: Option<StoredEvent>,
    dead_letter_reason: Option<&'static str>,
    /// `None` if the push is not traced.
    span: Option<Box<SendSpan>>,
    _reservation: Reservation,
}

/// What the trail and the trace say of a push that the gate has let pass.
#[derive(Debug)]
pub(crate) struct Authorized {
    pub(crate) trail: Arc<Trail>,
    pub(crate) request_id: HeaderValue,
    /// The path as configured, without a token.
    pub(crate) path: Arc<str>,
    /// `None` if the push is not traced.
    pub(crate) span: Option<Box<ServerSpan>>,
}

/// The fields of the event `stored` that are known before delivery.
struct StoredEvent {
    notify_type: NotifyType,
    key: Option<Bytes>,
    reason: Option<&'static str>,
}

impl InFlightPush {
    /// Starts the clock: the head of the request is complete now.
    pub(crate) fn start(metrics: Arc<PushMetrics>) -> Self {
        metrics.received();
        Self {
            metrics,
            started: Instant::now(),
            notify_type: NotifyType::Other,
            authorized: None,
            is_finished: AtomicBool::new(false),
            tracked: Mutex::new(None),
        }
    }

    /// The gate has let the push pass: it leaves a trail if it fails.
    pub(crate) fn authorize(&mut self, authorized: Authorized) {
        self.authorized = Some(authorized);
    }

    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// Starts the span of the push's record. `None` if the push is not traced.
    fn start_send(&self, record: &KeyedRecord) -> Option<Box<SendSpan>> {
        let span = self.authorized.as_ref()?.span.as_ref()?;
        Some(span.send(record))
    }

    fn track(&self, token: Option<TaskTrackerToken>) {
        *self.tracked.lock().unwrap_or_else(PoisonError::into_inner) = token;
    }

    /// Counts the push under its outcome, unless it has one. Returns whether it had none.
    pub(crate) fn finish(&self, result: Result<&Stored, Refusal>) -> bool {
        if self.is_finished.swap(true, Ordering::Relaxed) {
            return false;
        }
        let outcome = outcome(result);
        if outcome.is_success() {
            self.track(None);
        }
        let (took, is_authorized) = (self.started.elapsed(), self.authorized.is_some());
        self.metrics
            .finished(outcome, self.notify_type, took, is_authorized);
        let Some(push) = &self.authorized else {
            return true;
        };
        if !outcome.is_success() {
            let request_id = push.request_id.to_str().unwrap_or("-");
            push.trail.log(request_id, &push.path, outcome);
        }
        if let Some(span) = &push.span {
            span.end(&push.path, &push.request_id, result);
        }
        true
    }
}

impl Drop for InFlightPush {
    fn drop(&mut self) {
        self.finish(Err(Refusal::Disconnected));
    }
}

impl Publisher {
    /// A publisher to `storage`. Once `cancel_pending` is cancelled,
    /// pushes that are not acknowledged yet are answered at once.
    pub(crate) fn new(
        storage: Storage,
        cancel_pending: CancellationToken,
        answer_deadline: Duration,
    ) -> Self {
        Self {
            storage,
            unsettled: TaskTracker::new(),
            cancel_pending,
            answer_deadline,
        }
    }

    /// Publishes a record, and returns its result by the push's answer deadline.
    /// Dropping the future does not end the push, which is counted when its record is
    /// settled.
    pub(crate) async fn publish(
        &self,
        mut record: KeyedRecord,
        mut push: InFlightPush,
        reservation: Reservation,
    ) -> Result<Stored, Refusal> {
        let deadline = push.started + self.answer_deadline;
        push.notify_type = record.notify_type();
        push.track(Some(self.unsettled.token()));
        let span = push.start_send(&record);
        if let Some(span) = &span {
            record.set_traceparent(span.traceparent());
        }
        let push = Arc::new(push);
        let (answer, mut answered) = oneshot::channel();
        let unsettled = Unsettled {
            push: Arc::clone(&push),
            answer,
            event: StoredEvent::if_enabled(&record),
            dead_letter_reason: record.dead_letter_reason(),
            span,
            _reservation: reservation,
        };
        let copy = self.storage.has_spool().then(|| record.clone());
        let give_up = if copy.is_some() {
            deadline.checked_sub(SPOOL_TIME).unwrap_or(deadline)
        } else {
            deadline
        };
        let on_stored = Box::new(move |result| unsettled.settle(result));
        self.storage.store(record, deadline, on_stored);
        let refusal = tokio::select! {
            biased;
            result = &mut answered => return result.unwrap_or(Err(Refusal::Unconfirmed)),
            () = tokio::time::sleep_until(give_up.into()) => Refusal::Unconfirmed,
            () = self.cancel_pending.cancelled() => Refusal::Draining,
        };
        let mut result = Err(refusal);
        if let Some(copy) = copy {
            tokio::select! {
                biased;
                result = &mut answered => return result.unwrap_or(Err(Refusal::Unconfirmed)),
                spooled = self.spool(&copy) => result = spooled.ok_or(refusal),
            }
        }
        if push.finish(as_ref(&result)) {
            return result;
        }
        // The record was settled in this moment.
        answered.await.unwrap_or(Err(Refusal::Unconfirmed))
    }

    /// Spools a copy of a record that there is no time left to wait for.
    async fn spool(&self, copy: &KeyedRecord) -> Option<Stored> {
        let (told, spooled) = oneshot::channel();
        let on_stored = Box::new(move |result| drop(told.send(result)));
        self.storage.spool_copy(copy, on_stored);
        let spooled = tokio::time::timeout(SPOOL_TIME, spooled).await;
        spooled.ok()?.ok()?.ok()
    }

    /// Waits until every record is stored, or librdkafka has settled it.
    pub(crate) async fn settled(&self) {
        self.unsettled.close();
        self.unsettled.wait().await;
    }
}

impl Unsettled {
    fn settle(self, result: Result<Stored, StorageError>) {
        let result = result.map_err(|error| refusal(&error));
        let took = self.push.started.elapsed();
        if let Some(span) = self.span {
            span.end(as_ref(&result));
        }
        if !self.push.finish(as_ref(&result)) {
            return;
        }
        if let Ok(stored) = &result {
            if let Some(event) = self.event {
                event.emit(stored, took);
            }
            if let Some(reason) = self.dead_letter_reason {
                self.push.metrics.dead_lettered(reason);
            }
        }
        // The receiver is gone if the client hung up.
        let _ = self.answer.send(result);
    }
}

fn as_ref(result: &Result<Stored, Refusal>) -> Result<&Stored, Refusal> {
    result.as_ref().map_err(|refusal| *refusal)
}

fn outcome(result: Result<&Stored, Refusal>) -> Outcome {
    match result {
        Ok(Stored::Spooled(_)) => Outcome::Spooled,
        Ok(Stored::InKafka(delivery)) if delivery.topic() == Topic::DeadLetter => {
            Outcome::DeadLettered
        }
        Ok(Stored::InKafka(_)) => Outcome::Stored,
        Err(refusal) => refusal.outcome(),
    }
}

fn refusal(error: &StorageError) -> Refusal {
    match error {
        StorageError::Kafka(error) => refusal_of_kafka(error),
        StorageError::Spool(_) => Refusal::Unavailable,
    }
}

fn refusal_of_kafka(error: &DeliveryError) -> Refusal {
    match error {
        DeliveryError::Unavailable { .. } | DeliveryError::UnknownTopic(_) => Refusal::Unavailable,
        DeliveryError::Rejected { partition, source } => {
            tracing::error!(
                topic = partition.0.label(),
                partition = partition.1,
                error = %source,
                "broker rejected a record permanently; check the topic's settings"
            );
            Refusal::Unavailable
        }
        DeliveryError::Unconfirmed { .. } => Refusal::Unconfirmed,
    }
}

impl StoredEvent {
    /// Captures what delivery consumes, but only if something listens: a push
    /// must not pay for an event that nobody sees.
    fn if_enabled(record: &KeyedRecord) -> Option<Self> {
        tracing::enabled!(target: EVENTS, tracing::Level::DEBUG).then(|| Self {
            notify_type: record.notify_type(),
            key: record.key_bytes(),
            reason: record.dead_letter_reason(),
        })
    }

    fn emit(self, stored: &Stored, took: Duration) {
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let key = self.key.as_deref().map(String::from_utf8_lossy);
        match stored {
            Stored::InKafka(delivery) => tracing::debug!(
                target: EVENTS,
                notify_type = self.notify_type.label(),
                topic = delivery.topic().label(),
                partition = delivery.partition(),
                offset = delivery.offset(),
                key = key.as_deref(),
                took_ms,
                reason = self.reason,
                "stored"
            ),
            Stored::Spooled(spooled) => tracing::debug!(
                target: EVENTS,
                notify_type = self.notify_type.label(),
                topic = spooled.slot().topic.label(),
                key = key.as_deref(),
                took_ms,
                reason = self.reason,
                "spooled"
            ),
        }
    }
}
