//! Publishes pushes to Kafka, detached from their clients' connections.
//!
//! hyper drops a handler's future when its client hangs up. A push whose body
//! arrived is stored and counted all the same, so a tracked task of its own
//! publishes it. The task also holds the push's reservation until librdkafka
//! has let go of the record, which may be after the answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::header::HeaderValue;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admission::Reservation;
use super::answer::Refusal;
use super::metrics::{Outcome, PushMetrics};
use super::trail::Trail;
use crate::kafka::{Delivery, DeliveryError, Producer};
use crate::notification::NotifyType;
use crate::process::logging::EVENTS;
use crate::record::KeyedRecord;
use crate::topics::Topic;

/// Publishes records, and tracks those still in flight.
#[derive(Debug, Clone)]
pub(crate) struct Publisher {
    producer: Producer,
    tasks: TaskTracker,
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
    finished: bool,
}

/// What the trail says of a push that the gate has let pass.
#[derive(Debug)]
pub(crate) struct Authorized {
    pub(crate) trail: Arc<Trail>,
    pub(crate) request_id: HeaderValue,
    /// The path as configured, without a token.
    pub(crate) path: Arc<str>,
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
            finished: false,
        }
    }

    /// The gate has let the push pass: it leaves a trail if it fails.
    pub(crate) fn authorize(&mut self, authorized: Authorized) {
        self.authorized = Some(authorized);
    }

    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    pub(crate) fn finish(mut self, outcome: Outcome) {
        self.count(outcome);
    }

    fn count(&mut self, outcome: Outcome) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        let (took, is_authorized) = (self.started.elapsed(), self.authorized.is_some());
        self.metrics
            .finished(outcome, self.notify_type, took, is_authorized);
        if let Some(push) = &self.authorized
            && !outcome.is_success()
        {
            let request_id = push.request_id.to_str().unwrap_or("-");
            push.trail.log(request_id, &push.path, outcome);
        }
    }
}

impl Drop for InFlightPush {
    fn drop(&mut self) {
        self.count(Outcome::Disconnected);
    }
}

impl Publisher {
    /// A publisher through `producer`. Once `cancel_pending` is cancelled,
    /// pushes that are not acknowledged yet are answered at once.
    pub(crate) fn new(
        producer: Producer,
        cancel_pending: CancellationToken,
        answer_deadline: Duration,
    ) -> Self {
        Self {
            producer,
            tasks: TaskTracker::new(),
            cancel_pending,
            answer_deadline,
        }
    }

    /// Publishes a record in a task of its own. Its result is sent by the
    /// push's answer deadline; dropping the receiver does not stop the task.
    pub(crate) fn publish(
        &self,
        record: KeyedRecord,
        mut push: InFlightPush,
        reservation: Reservation,
    ) -> oneshot::Receiver<Result<Delivery, Refusal>> {
        let (answer, answered) = oneshot::channel();
        push.notify_type = record.notify_type();
        let event = StoredEvent::if_enabled(&record);
        let publisher = self.clone();
        self.tasks.spawn(async move {
            publisher.run(record, push, event, answer).await;
            drop(reservation);
        });
        answered
    }

    /// Waits until librdkafka has settled every record and all tasks have ended.
    pub(crate) async fn settled(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn run(
        &self,
        record: KeyedRecord,
        push: InFlightPush,
        event: Option<Box<StoredEvent>>,
        answer: oneshot::Sender<Result<Delivery, Refusal>>,
    ) {
        let deadline = push.started + self.answer_deadline;
        let reason = record.dead_letter_reason();
        let mut delivery = std::pin::pin!(self.producer.deliver(record, deadline));
        let (result, is_settled) = tokio::select! {
            biased;
            settled = &mut delivery => (settled.map_err(|error| refusal(&error)), true),
            () = tokio::time::sleep_until(deadline.into()) => (Err(Refusal::Unconfirmed), false),
            () = self.cancel_pending.cancelled() => (Err(Refusal::Draining), false),
        };
        if let (Some(event), Ok(delivery)) = (event, &result) {
            event.emit(delivery, push.started.elapsed());
        }
        if let (Some(reason), Ok(_)) = (reason, &result) {
            push.metrics.dead_lettered(reason);
        }
        push.finish(outcome(&result));
        // The receiver is gone if the client hung up.
        let _ = answer.send(result);
        if !is_settled {
            // librdkafka may still hold the record, so the reservation stays.
            let _late = delivery.await;
        }
    }
}

fn outcome(result: &Result<Delivery, Refusal>) -> Outcome {
    match result {
        Ok(delivery) if delivery.topic() == Topic::DeadLetter => Outcome::DeadLettered,
        Ok(_) => Outcome::Stored,
        Err(refusal) => refusal.outcome(),
    }
}

fn refusal(error: &DeliveryError) -> Refusal {
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
    fn if_enabled(record: &KeyedRecord) -> Option<Box<Self>> {
        tracing::enabled!(target: EVENTS, tracing::Level::DEBUG).then(|| {
            Box::new(Self {
                notify_type: record.notify_type(),
                key: record.key_bytes(),
                reason: record.dead_letter_reason(),
            })
        })
    }

    fn emit(self, delivery: &Delivery, took: Duration) {
        tracing::debug!(
            target: EVENTS,
            notify_type = self.notify_type.label(),
            topic = delivery.topic().label(),
            partition = delivery.partition(),
            offset = delivery.offset(),
            key = self.key.as_deref().map(String::from_utf8_lossy).as_deref(),
            took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            reason = self.reason,
            "stored"
        );
    }
}
