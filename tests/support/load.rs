//! Load for tests of behaviour under load: pushes at a constant rate, whether
//! or not earlier ones were answered (an open loop).
//!
//! A push's latency counts from when it was meant to be sent, so that a stall
//! shows in every push behind it and not in one alone. It runs on a thread and
//! a runtime of its own, beside tests of any kind.

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

/// How long the platform waits for an answer, by its documentation.
const SENDER_PATIENCE: Duration = Duration::from_secs(15);

/// What to send, and where.
#[derive(Debug, Clone)]
pub struct Load {
    /// Where pushes are received.
    pub address: SocketAddr,
    /// The path they are posted to.
    pub path: String,
    /// Pushes a second over all connections.
    pub rate_per_s: u32,
    /// Kept-alive connections, each with one push at a time.
    ///
    /// While all of them wait, further pushes are late: by rate times the
    /// longest wait there are enough of them for none to be.
    pub connections: u32,
    /// What to send, each in its turn.
    pub kinds: &'static [Kind],
    /// When to stop by itself.
    pub until: Until,
    /// What the ids of this load start with.
    pub prefix: String,
}

/// When a load ends, unless it is stopped before.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// Only when it is stopped.
    Stopped,
    /// After so many pushes.
    Pushes(u32),
    /// After so long.
    Elapsed(Duration),
}

impl Load {
    /// 200 pushes a second of the mission's two kinds over 16 connections until
    /// stopped, to the default path; ids differ from any other load's of this process.
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

    /// The push at this place: its kind, its key, its body.
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
                let body = device_data_changed(&device);
                (device, body)
            }
        };
        (kind, key, body.into())
    }

    /// Starts to send.
    pub fn start(self) -> Running {
        let stop = CancellationToken::new();
        let progress = Arc::new(Progress::default());
        let thread = {
            let (stop, progress) = (stop.clone(), Arc::clone(&progress));
            thread::spawn(move || self.run(stop, progress))
        };
        Running {
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
            let plan = Arc::new(Plan {
                load: self,
                start: Instant::now(),
                stop,
                progress,
            });
            let connections: JoinSet<_> = (0..plan.load.connections)
                .map(|_| Arc::clone(&plan).send_on_one_connection())
                .collect();
            let mut pushes: Vec<_> = connections.join_all().await.concat();
            pushes.sort_by_key(|push| push.number);
            Report { pushes }
        })
    }
}

/// A load under way; dropping it stops it.
#[derive(Debug)]
pub struct Running {
    thread: Option<JoinHandle<Report>>,
    stop: CancellationToken,
    progress: Arc<Progress>,
}

impl Running {
    /// How many pushes were answered, or failed, so far.
    pub fn answered(&self) -> u32 {
        self.progress.answered.load(Ordering::Relaxed)
    }

    /// Waits until so many more were.
    pub fn wait_for_answers(&self, more: u32) {
        let wanted = self.answered() + more;
        eventually("the load is answered", || {
            (self.answered() >= wanted).then_some(())
        });
    }

    /// Sends no more, waits for the answers to what was sent, and reports.
    pub fn stop(self) -> Report {
        self.stop.cancel();
        self.finish()
    }

    /// Waits for the end that the load has by itself, and reports.
    pub fn finish(mut self) -> Report {
        let thread = self.thread.take().expect("it is taken here alone");
        thread.join().expect("the load does not panic")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// What became of every push, in the order they were meant to be sent.
#[derive(Debug, Clone)]
pub struct Report {
    /// One entry a push.
    pub pushes: Vec<Push>,
}

impl Report {
    /// How many pushes had each answer, such as `"200"`; the text of the error
    /// stands for what has none.
    pub fn answers(&self) -> BTreeMap<String, usize> {
        let mut answers = BTreeMap::new();
        for push in &self.pushes {
            *answers.entry(push.answer.to_string()).or_default() += 1;
        }
        answers
    }

    /// The longest time from a push's intended sending to its answer.
    pub fn slowest(&self) -> Duration {
        let latencies = self.pushes.iter().map(|push| push.latency);
        latencies.max().unwrap_or_default()
    }

    /// Those that were answered 200: each must be found in Kafka.
    pub fn acknowledged(&self) -> impl Iterator<Item = &Push> {
        let acknowledged = |push: &&Push| push.answer == Answer::Status(200);
        self.pushes.iter().filter(acknowledged)
    }

    /// The acknowledged bodies that are not among these stored ones.
    pub fn missing_from<'a>(&self, stored: impl IntoIterator<Item = &'a [u8]>) -> Vec<&Push> {
        let stored: BTreeSet<_> = stored.into_iter().collect();
        let pushes = self.acknowledged();
        pushes
            .filter(|push| !stored.contains(&push.body[..]))
            .collect()
    }
}

/// One push and its fate.
#[derive(Debug, Clone)]
pub struct Push {
    /// Its place in the load, from 0.
    pub number: u32,
    /// Which notification it is.
    pub kind: Kind,
    /// The key under which it is to be stored.
    pub key: String,
    /// The bytes that were sent.
    pub body: Bytes,
    /// When it was meant to be sent, from the start of the load on.
    pub intended: Duration,
    /// From then until its answer was there, or failed.
    pub latency: Duration,
    /// The answer.
    pub answer: Answer,
}

/// A notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `messageConfirm`, keyed by its request.
    CommandStatus,
    /// `swUpgradeResultNotify`, keyed by its device.
    UpgradeResult,
    /// `deviceDataChanged`, keyed by its device.
    Other,
}

/// How a push was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// With this status.
    Status(u16),
    /// Not at all, for this reason.
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
    taken: AtomicU32,
    answered: AtomicU32,
}

#[derive(Debug)]
struct Plan {
    load: Load,
    start: Instant,
    stop: CancellationToken,
    progress: Arc<Progress>,
}

impl Plan {
    async fn send_on_one_connection(self: Arc<Self>) -> Vec<Push> {
        let mut connection = None;
        let mut pushes = Vec::new();
        while let Some((number, intended)) = self.next().await {
            pushes.push(self.push(&mut connection, number, intended).await);
            self.progress.answered.fetch_add(1, Ordering::Relaxed);
        }
        pushes
    }

    /// The next push that nobody has taken, once its time has come.
    async fn next(&self) -> Option<(u32, Duration)> {
        let number = self.progress.taken.fetch_add(1, Ordering::Relaxed);
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
        let sent = timeout(SENDER_PATIENCE, self.post(connection, &body)).await;
        let answer = match sent {
            Ok(Ok(status)) => Answer::Status(status),
            Ok(Err(error)) => Answer::Failed(error.to_string()),
            Err(_) => Answer::Failed("no answer in time".to_owned()),
        };
        Push {
            number,
            kind,
            key,
            body,
            intended,
            latency: self.start.elapsed().saturating_sub(intended),
            answer,
        }
    }

    /// A connection that failed, or was cut by the time-out, is not used again.
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
                // The server had closed it between two pushes, and hyper says
                // that nothing was sent: any client takes a new connection.
                Err(error) if is_kept && (error.is_canceled() || error.is_closed()) => {}
                Err(error) => return Err(std::io::Error::other(error)),
            }
        }
    }
}

/// A device reported data.
fn device_data_changed(device_id: &str) -> String {
    format!(
        "{{\"notifyType\":\"deviceDataChanged\",\
         \"deviceId\":\"{device_id}\",\
         \"gatewayId\":\"{device_id}\",\
         \"service\":{{\"serviceId\":\"Switch\",\"serviceType\":\"Switch\",\
         \"data\":{{\"on\":1}},\"eventTime\":\"20151212T121212Z\"}}}}"
    )
}
