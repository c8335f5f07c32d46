//! An open-loop load generator: pushes at a constant rate, whether or not
//! earlier ones have been answered.
//!
//! Latency is measured from the intended send time, so a stall shows in every
//! push that it delays (no coordinated omission). The load runs on a thread and
//! an async runtime of its own, so both kinds of tests can use it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::http::{Connection, Version};
use super::{bodies, eventually};

/// How long the platform waits for an answer, according to its documentation.
const SENDER_TIMEOUT: Duration = Duration::from_secs(15);

/// What to send, where, and at which rate.
#[derive(Debug, Clone)]
pub struct Load {
    pub address: SocketAddr,
    pub path: String,
    /// Pushes per second over all connections.
    pub rate_per_s: u32,
    /// Persistent connections, each with one push in flight at a time.
    ///
    /// While all of them wait, further pushes are sent late. The rate times the
    /// longest latency is enough for none to be.
    pub connections: u32,
    /// The notification types, sent in rotation.
    pub kinds: &'static [Kind],
    pub until: Until,
    /// The prefix of all IDs in this load.
    pub prefix: String,
}

/// When a load ends, unless it is stopped before.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// Runs until it is stopped.
    Stopped,
    /// Ends after this many pushes.
    Pushes(u32),
    /// Ends after this time.
    Elapsed(Duration),
}

impl Load {
    /// 200 pushes per second of the two main types over 16 connections until
    /// stopped, to the default path; IDs are unique in this process.
    pub fn to(address: SocketAddr) -> Self {
        static LOADS: AtomicU32 = AtomicU32::new(0);
        Self {
            address,
            path: "/notifications".to_owned(),
            rate_per_s: 200,
            connections: 16,
            kinds: &[Kind::CommandStatus, Kind::UpgradeResult],
            until: Until::Stopped,
            prefix: format!("load{}", LOADS.fetch_add(1, Ordering::Relaxed)),
        }
    }

    /// Type, expected key and body of one push.
    fn notification(&self, number: u32) -> (Kind, String, Bytes) {
        let prefix = &self.prefix;
        let device = format!("{prefix}-device-{number}");
        let kind = self.kinds[usize::try_from(number).unwrap() % self.kinds.len()];
        let (key, body) = match kind {
            Kind::CommandStatus => {
                let request = format!("{prefix}-request-{number}");
                let body = bodies::message_confirm(&request, &device, "delivered");
                (request, body)
            }
            Kind::UpgradeResult => {
                let operation = format!("{prefix}-operation");
                let body = bodies::upgrade_result(&device, &operation, "SUCCESS");
                (device, body)
            }
            Kind::Other => {
                let body = bodies::device_data_changed(&device, 1);
                (device, body)
            }
        };
        (kind, key, body.into())
    }

    pub fn start(self) -> RunningLoad {
        let stop = CancellationToken::new();
        let progress = Arc::new(Progress::default());
        let thread = {
            let (stop, progress) = (stop.clone(), Arc::clone(&progress));
            thread::spawn(move || self.run(stop, progress))
        };
        RunningLoad {
            thread: Some(thread),
            stop,
            progress,
        }
    }

    fn run(self, stop: CancellationToken, progress: Arc<Progress>) -> Report {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(async {
            let run = Arc::new(LoadRun {
                load: self,
                start: Instant::now(),
                stop,
                progress,
            });
            let connections: JoinSet<_> = (0..run.load.connections)
                .map(|_| Arc::clone(&run).send_on_one_connection())
                .collect();
            let mut pushes: Vec<_> = connections.join_all().await.concat();
            pushes.sort_by_key(|push| push.number);
            Report { pushes }
        })
    }
}

/// A running load; dropping it stops it.
#[derive(Debug)]
pub struct RunningLoad {
    thread: Option<JoinHandle<Report>>,
    stop: CancellationToken,
    progress: Arc<Progress>,
}

impl RunningLoad {
    /// How many pushes have been answered or have failed so far.
    pub fn answered(&self) -> u32 {
        self.progress.answered.load(Ordering::Relaxed)
    }

    /// Waits until `more` further pushes have been answered or have failed.
    pub fn wait_for_answers(&self, more: u32) {
        let wanted = self.answered() + more;
        eventually("more pushes are answered", || {
            (self.answered() >= wanted).then_some(())
        });
    }

    /// Stops sending, waits for outstanding answers, and reports.
    pub fn stop(self) -> Report {
        self.stop.cancel();
        self.finish()
    }

    /// Waits until the load ends as its [`Until`] says, and reports.
    pub fn finish(mut self) -> Report {
        let thread = self.thread.take().expect("it is taken only here");
        thread.join().expect("the load does not panic")
    }
}

impl Drop for RunningLoad {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The result of every push, by intended send time.
#[derive(Debug, Clone)]
pub struct Report {
    pub pushes: Vec<Push>,
}

impl Report {
    /// How many pushes got each answer: a status such as `"200"`, or the error
    /// text if there was no answer.
    pub fn answers(&self) -> BTreeMap<String, usize> {
        let mut answers = BTreeMap::new();
        for push in &self.pushes {
            *answers.entry(push.answer.to_string()).or_default() += 1;
        }
        answers
    }

    /// The longest time from a push's intended send time to its answer.
    pub fn slowest(&self) -> Duration {
        let latencies = self.pushes.iter().map(|push| push.latency);
        latencies.max().unwrap_or_default()
    }

    /// The pushes that were answered 200; each must be in Kafka.
    pub fn acknowledged(&self) -> impl Iterator<Item = &Push> {
        let acknowledged = |push: &&Push| push.answer == Answer::Status(200);
        self.pushes.iter().filter(acknowledged)
    }

    /// The acknowledged pushes whose bodies are not in `stored`.
    pub fn missing_from<'a>(&self, stored: impl IntoIterator<Item = &'a [u8]>) -> Vec<&Push> {
        let stored: BTreeSet<_> = stored.into_iter().collect();
        let pushes = self.acknowledged();
        pushes
            .filter(|push| !stored.contains(&push.body[..]))
            .collect()
    }
}

/// One push and its result.
#[derive(Debug, Clone)]
pub struct Push {
    /// Its position in the load, from 0.
    pub number: u32,
    pub kind: Kind,
    /// The record key that it must be stored under.
    pub key: String,
    pub body: Bytes,
    /// The intended send time, relative to the start of the load.
    pub intended: Duration,
    /// The time from the intended send time to the answer or failure.
    pub latency: Duration,
    /// The time from when it was sent, which may be later, to the same.
    pub round_trip: Duration,
    pub answer: Answer,
}

/// A notification type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `messageConfirm`, keyed by request ID.
    CommandStatus,
    /// `swUpgradeResultNotify`, keyed by device ID.
    UpgradeResult,
    /// `deviceDataChanged`, keyed by device ID.
    Other,
}

/// How a push was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Status(u16),
    /// There was no answer, for this reason.
    Failed(String),
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Status(status) => write!(f, "{status}"),
            Self::Failed(reason) => f.write_str(reason),
        }
    }
}

#[derive(Debug, Default)]
struct Progress {
    claimed: AtomicU32,
    answered: AtomicU32,
}

#[derive(Debug)]
struct LoadRun {
    load: Load,
    start: Instant,
    stop: CancellationToken,
    progress: Arc<Progress>,
}

impl LoadRun {
    async fn send_on_one_connection(self: Arc<Self>) -> Vec<Push> {
        let mut connection = None;
        let mut pushes = Vec::new();
        while let Some((number, intended)) = self.next().await {
            pushes.push(self.push(&mut connection, number, intended).await);
            self.progress.answered.fetch_add(1, Ordering::Relaxed);
        }
        pushes
    }

    /// Claims the next push and waits until it is due.
    async fn next(&self) -> Option<(u32, Duration)> {
        let number = self.progress.claimed.fetch_add(1, Ordering::Relaxed);
        let intended = Duration::from_secs(1) * number / self.load.rate_per_s;
        let over = match self.load.until {
            Until::Stopped => false,
            Until::Pushes(count) => number >= count,
            Until::Elapsed(duration) => intended >= duration,
        };
        if over {
            return None;
        }
        tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            () = sleep_until(self.start + intended) => Some((number, intended)),
        }
    }

    async fn push(
        &self,
        connection: &mut Option<Connection>,
        number: u32,
        intended: Duration,
    ) -> Push {
        let (kind, key, body) = self.load.notification(number);
        let began = Instant::now();
        let sent = timeout(SENDER_TIMEOUT, self.post(connection, &body)).await;
        let answer = match sent {
            Ok(Ok(status)) => Answer::Status(status),
            Ok(Err(error)) => Answer::Failed(error.to_string()),
            Err(_) => Answer::Failed("timed out".to_owned()),
        };
        Push {
            number,
            kind,
            key,
            body,
            intended,
            latency: self.start.elapsed().saturating_sub(intended),
            round_trip: began.elapsed(),
            answer,
        }
    }

    /// A connection that failed or timed out is not reused.
    async fn post(
        &self,
        connection: &mut Option<Connection>,
        body: &Bytes,
    ) -> std::io::Result<u16> {
        loop {
            let kept = connection.take();
            let is_kept = kept.is_some();
            let mut current = match kept {
                Some(kept) => kept,
                None => Connection::open(self.load.address, Version::Http1).await?,
            };
            match current.post(&self.load.path, body.clone()).await {
                Ok(response) => {
                    *connection = Some(current);
                    return Ok(response.status);
                }
                // The server closed the idle connection and hyper guarantees that
                // nothing was sent, so a new connection is safe, as in any client.
                Err(error) if is_kept && (error.is_canceled() || error.is_closed()) => {}
                Err(error) => return Err(std::io::Error::other(error)),
            }
        }
    }
}
