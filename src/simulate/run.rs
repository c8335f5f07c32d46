//! The run: pushes at their intended times, whatever the answers do.
//!
//! One task holds the plan, the rules and the numbers; each connection has
//! workers that derive a body, push it and report the answer. A late answer
//! delays no other push as long as a worker is free, and its wait counts from
//! the time at which it was due.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until};

use super::client::{Connection, Connector};
use super::ledger::Numbers;
use super::platform::{Answer, Counts, Message, Platform, Step};
use super::progress::{Progress, Snapshot};
use super::tally::Tally;
use super::world::World;
use crate::process::signals::Signals;

/// Pushes at a time on one connection of HTTP/2.
const STREAMS: usize = 64;

/// What is to be pushed, and how fast.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// The pushes.
    pub world: World,
    /// How many of them.
    pub pushes: u32,
    /// How many a second.
    pub rate: f64,
    /// Connections.
    pub connections: u16,
    /// Whether each connection takes many pushes at a time.
    pub http2: bool,
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// New pushes that came due.
    pub pushes: u32,
    /// Those answered 200.
    pub answered: Numbers,
    /// Answers and latency.
    pub tally: Tally,
    /// What the delivery rules led to.
    pub counts: Counts,
    /// What was still waiting at the end.
    pub backlog: usize,
    /// What had gone out when a second signal ended the run.
    pub unanswered: usize,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// How long it took.
    pub lasted: Duration,
}

/// Pushes until the plan is fulfilled and everything is answered, or a signal.
///
/// After the last new push a backlog is flushed; a blacklisted host gets one
/// more probe.
pub async fn run(
    plan: Plan,
    platform: Platform,
    connector: &Connector,
    progress: &mut Progress,
    signals: &mut Signals,
) -> Outcome {
    let hold = Arc::new(AtomicBool::new(false));
    let (jobs, answers) = workers(plan, connector, &hold);
    let (started_at, start) = (Utc::now(), Instant::now());
    let mut run = Run {
        plan,
        platform,
        start,
        jobs,
        answers,
        hold,
        pushes: plan.pushes,
        offered: 0,
        in_flight: 0,
        answered: Numbers::default(),
        tally: Tally::new(),
        last_probes: None,
    };
    let mut seconds = interval_at(start + Duration::from_secs(1), Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    run.play(&mut seconds, progress, signals).await;
    run.end_second(progress);
    Outcome {
        pushes: run.offered,
        answered: run.answered,
        counts: run.platform.counts(),
        backlog: run.platform.backlog(),
        unanswered: run.in_flight,
        tally: run.tally,
        started_at,
        lasted: start.elapsed(),
    }
}

struct Run {
    plan: Plan,
    platform: Platform,
    start: Instant,
    jobs: UnboundedSender<Job>,
    answers: UnboundedReceiver<Answered>,
    /// While the host is blacklisted, what waits for a connection stays here.
    hold: Arc<AtomicBool>,
    pushes: u32,
    offered: u32,
    in_flight: usize,
    answered: Numbers,
    tally: Tally,
    /// Probes until the last new push.
    last_probes: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Job {
    message: Message,
    due: Duration,
    is_probe: bool,
}

#[derive(Debug, Clone, Copy)]
struct Answered {
    job: Job,
    /// None where the push was held back.
    answer: Option<Answer>,
    at: Instant,
    /// Since it went out.
    took: Duration,
}

impl Run {
    async fn play(
        &mut self,
        seconds: &mut Interval,
        progress: &mut Progress,
        signals: &mut Signals,
    ) {
        loop {
            let wake = self.push_what_is_due();
            if self.is_over() {
                return;
            }
            tokio::select! {
                Some(answered) = self.answers.recv() => self.take(answered),
                () = sleep_until(wake) => {}
                _ = seconds.tick() => self.end_second(progress),
                _ = signals.next() => {
                    if self.pushes == self.offered {
                        return;
                    }
                    self.pushes = self.offered;
                }
            }
            while let Ok(answered) = self.answers.try_recv() {
                self.take(answered);
            }
        }
    }

    /// When there is something to do again, besides answers.
    fn push_what_is_due(&mut self) -> Instant {
        let now = self.start.elapsed();
        while self.offered < self.pushes && self.due(self.offered) <= now {
            self.offer();
        }
        let mut wake = now + Duration::from_secs(1);
        loop {
            match self.platform.next(now) {
                Step::Send { message, due } => self.send(message, due),
                Step::Wait(until) => {
                    wake = wake.min(until);
                    break;
                }
                Step::Idle => break,
            }
        }
        if self.offered < self.pushes {
            wake = wake.min(self.due(self.offered));
        }
        self.start + wake
    }

    fn offer(&mut self) {
        let (number, due) = (self.offered, self.due(self.offered));
        let holds_back = self.platform.is_blacklisted() || self.platform.backlog() > 0;
        let bytes = if holds_back {
            let body = self.plan.world.push(number.into()).body;
            u32::try_from(body.len()).unwrap_or(u32::MAX)
        } else {
            0
        };
        let message = Message {
            number,
            bytes,
            since: due,
        };
        self.offered += 1;
        if let Some(message) = self.platform.offer(message) {
            self.send(message, due);
        }
    }

    fn send(&mut self, message: Message, due: Duration) {
        self.in_flight += 1;
        let is_probe = self.platform.is_blacklisted();
        // The workers are there as long as this end of their channel.
        let _ = self.jobs.send(Job {
            message,
            due,
            is_probe,
        });
    }

    fn take(&mut self, answered: Answered) {
        let Answered {
            job,
            answer,
            at,
            took,
        } = answered;
        self.in_flight -= 1;
        let Some(answer) = answer else {
            self.platform.take_back(job.message);
            return;
        };
        let at = at.saturating_duration_since(self.start);
        self.tally.count(answer, at.saturating_sub(job.due), took);
        if answer == Answer::Status(200) {
            self.answered.insert(job.message.number);
        }
        self.platform
            .answered(job.message, answer, self.start.elapsed());
        self.hold
            .store(self.platform.is_blacklisted(), Ordering::Relaxed);
    }

    fn is_over(&mut self) -> bool {
        if self.offered < self.pushes || self.in_flight > 0 {
            return false;
        }
        let probes = self.platform.counts().probes;
        let until_now = *self.last_probes.get_or_insert(probes);
        self.platform.backlog() == 0 || (self.platform.is_blacklisted() && probes > until_now)
    }

    fn end_second(&mut self, progress: &mut Progress) {
        let blacklisted = self.platform.is_blacklisted();
        let at = self.start.elapsed();
        let second = self
            .tally
            .end_second(at, self.in_flight, blacklisted)
            .clone();
        progress.show(&Snapshot {
            second: &second,
            answers: self.tally.answers(),
            offered: self.offered,
            pushes: self.pushes,
            backlog: self.platform.backlog(),
        });
    }

    /// When a push is due; the rate has no bound on its precision.
    fn due(&self, number: u32) -> Duration {
        Duration::from_secs_f64(f64::from(number) / self.plan.rate)
    }
}

fn workers(
    plan: Plan,
    connector: &Connector,
    hold: &Arc<AtomicBool>,
) -> (UnboundedSender<Job>, UnboundedReceiver<Answered>) {
    let (jobs, queue) = unbounded_channel();
    let (report, answers) = unbounded_channel();
    let queue = Arc::new(Mutex::new(queue));
    let each = if plan.http2 { STREAMS } else { 1 };
    for _ in 0..plan.connections {
        let connection = Arc::new(connector.connection());
        for _ in 0..each {
            let worker = Worker {
                world: plan.world,
                connection: Arc::clone(&connection),
                queue: Arc::clone(&queue),
                report: report.clone(),
                hold: Arc::clone(hold),
            };
            tokio::spawn(worker.work());
        }
    }
    (jobs, answers)
}

struct Worker {
    world: World,
    connection: Arc<Connection>,
    queue: Arc<Mutex<UnboundedReceiver<Job>>>,
    report: UnboundedSender<Answered>,
    hold: Arc<AtomicBool>,
}

impl Worker {
    async fn work(self) {
        loop {
            let job = self.queue.lock().await.recv().await;
            let Some(job) = job else { return };
            let begin = Instant::now();
            let answer = if self.hold.load(Ordering::Relaxed) && !job.is_probe {
                None
            } else {
                let push = self.world.push(job.message.number.into());
                Some(self.connection.push(push.body).await)
            };
            let at = Instant::now();
            let answered = Answered {
                job,
                answer,
                at,
                took: at - begin,
            };
            if self.report.send(answered).is_err() {
                return;
            }
        }
    }
}
