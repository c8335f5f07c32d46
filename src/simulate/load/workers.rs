//! The workers of the connections: each takes a push from the shared queue,
//! derives its body, sends it and reports the answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
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
    jobs: UnboundedSender<PushJob>,
    results: UnboundedReceiver<FinishedPush>,
    /// While set, workers return every push but a probe without sending it.
    hold_back: Arc<AtomicBool>,
}

impl Workers {
    /// Starts as many workers on each connection as it can carry pushes at a
    /// time.
    pub(super) fn spawn(connections: u16, connector: &Connector, generator: PushGenerator) -> Self {
        let (jobs, queue) = unbounded_channel();
        let (report, results) = unbounded_channel();
        let queue = Arc::new(Mutex::new(queue));
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
            jobs,
            results,
            hold_back,
        }
    }

    /// Queues a push for the next idle worker.
    pub(super) fn send(&self, job: PushJob) {
        // Cannot fail: the workers live as long as this end of the channel.
        let _ = self.jobs.send(job);
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

struct ConnectionWorker {
    generator: PushGenerator,
    connection: Arc<ClientConnection>,
    queue: Arc<Mutex<UnboundedReceiver<PushJob>>>,
    report: UnboundedSender<FinishedPush>,
    hold_back: Arc<AtomicBool>,
}

impl ConnectionWorker {
    async fn run(self) {
        loop {
            let job = self.queue.lock().await.recv().await;
            let Some(job) = job else { return };
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
