//! The workers of the connections: each takes a push from the shared queue,
//! derives its body, sends it and reports the answer.
//!
//! Of idle workers the last one that was busy gets the next push, as in most clients'
//! pools: no more connections are open than were needed at once.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::answer::Answer;
use super::client::{ClientConnection, Connector};
use super::delivery_rules::PendingPush;
use crate::simulate::pushes::PushGenerator;

/// A push to be sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct PushJob {
    pub(super) push: PendingPush,
    /// Its intended send time, since the start of the run.
    pub(super) due: Duration,
    pub(super) is_probe: bool,
}

/// A push that has ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct FinishedPush {
    pub(super) job: PushJob,
    /// `None` if the push was held back instead of sent.
    pub(super) answer: Option<Answer>,
    pub(super) answered_at: Instant,
    /// The time from sending the push to its answer.
    pub(super) service_time: Duration,
}

/// The queue to all workers, and their reports. Dropping it ends the workers.
pub(super) struct Workers {
    queue: Arc<Queue>,
    results: UnboundedReceiver<FinishedPush>,
    /// While set, workers return every push but a probe without sending it.
    hold_back: Arc<AtomicBool>,
}

impl Workers {
    /// Starts as many workers on each connection as it can carry pushes at a
    /// time.
    pub(super) fn spawn(connections: u16, connector: &Connector, generator: PushGenerator) -> Self {
        let queue = Arc::new(Queue::default());
        let (report, results) = unbounded_channel();
        let hold_back = Arc::new(AtomicBool::new(false));
        for _ in 0..connections {
            let connection = Arc::new(connector.connection());
            for _ in 0..connector.max_concurrent_pushes() {
                let worker = ConnectionWorker {
                    generator,
                    connection: Arc::clone(&connection),
                    queue: Arc::clone(&queue),
                    report: report.clone(),
                    hold_back: Arc::clone(&hold_back),
                };
                tokio::spawn(worker.run());
            }
        }
        Self {
            queue,
            results,
            hold_back,
        }
    }

    /// Gives a push to an idle worker, or to the next one that is.
    pub(super) fn send(&self, job: PushJob) {
        self.queue.push(job);
    }

    pub(super) async fn next_result(&mut self) -> Option<FinishedPush> {
        self.results.recv().await
    }

    pub(super) fn try_next_result(&mut self) -> Option<FinishedPush> {
        self.results.try_recv().ok()
    }

    /// Decides whether queued pushes other than probes are returned unsent.
    pub(super) fn hold_back(&self, hold_back: bool) {
        self.hold_back.store(hold_back, Ordering::Relaxed);
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// The pushes that wait for a worker, or the workers that wait for a push.
#[derive(Default)]
struct Queue(Mutex<QueueState>);

#[derive(Default)]
struct QueueState {
    pushes: VecDeque<PushJob>,
    idle: Vec<oneshot::Sender<PushJob>>,
    is_closed: bool,
}

impl Queue {
    fn push(&self, mut job: PushJob) {
        let mut state = self.lock();
        while let Some(worker) = state.idle.pop() {
            match worker.send(job) {
                Ok(()) => return,
                Err(returned) => job = returned,
            }
        }
        state.pushes.push_back(job);
    }

    /// The next push; `None` once the queue is closed.
    async fn next(&self) -> Option<PushJob> {
        let push = {
            let mut state = self.lock();
            if let Some(job) = state.pushes.pop_front() {
                return Some(job);
            }
            if state.is_closed {
                return None;
            }
            let (worker, push) = oneshot::channel();
            state.idle.push(worker);
            push
        };
        push.await.ok()
    }

    fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        state.idle.clear();
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        // Nothing under this lock can panic halfway through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct ConnectionWorker {
    generator: PushGenerator,
    connection: Arc<ClientConnection>,
    queue: Arc<Queue>,
    report: UnboundedSender<FinishedPush>,
    hold_back: Arc<AtomicBool>,
}

impl ConnectionWorker {
    async fn run(self) {
        while let Some(job) = self.queue.next().await {
            let sent_at = Instant::now();
            let answer = if self.hold_back.load(Ordering::Relaxed) && !job.is_probe {
                None
            } else {
                let push = self.generator.push(job.push.number.into());
                Some(self.connection.push(push.body).await)
            };
            let answered_at = Instant::now();
            let result = FinishedPush {
                job,
                answer,
                answered_at,
                service_time: answered_at - sent_at,
            };
            if self.report.send(result).is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(number: u32) -> PushJob {
        PushJob {
            push: PendingPush {
                number,
                bytes: 0,
                since: Duration::ZERO,
            },
            due: Duration::ZERO,
            is_probe: false,
        }
    }

    #[tokio::test]
    async fn the_worker_that_was_busy_last_gets_the_next_push() {
        let queue = Arc::new(Queue::default());
        let worker = || {
            let queue = Arc::clone(&queue);
            tokio::spawn(async move { queue.next().await.map(|job| job.push.number) })
        };
        let early = worker();
        tokio::task::yield_now().await;
        let late = worker();
        tokio::task::yield_now().await;
        queue.push(job(1));
        assert_eq!(late.await.unwrap(), Some(1));
        queue.push(job(2));
        assert_eq!(early.await.unwrap(), Some(2));
    }

    #[tokio::test]
    async fn pushes_wait_for_a_worker_in_their_order_and_are_sent_before_the_end() {
        let queue = Queue::default();
        for number in [1, 2] {
            queue.push(job(number));
        }
        queue.close();
        for number in [Some(1), Some(2), None] {
            let next = queue.next().await;
            assert_eq!(next.map(|job| job.push.number), number);
        }
    }
}
