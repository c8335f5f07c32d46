//! What the platform does with a push that failed: its two published delivery
//! rules, with the blacklist, the probe and the backlog.
//!
//! Pure: time is what it is told, since the start of the run. It must not know
//! how a push is sent or what is in it.

use std::collections::VecDeque;
use std::time::Duration;

/// So many failures in a row end all pushes.
pub const FAILURES_TO_BLACKLIST: u32 = 10;
/// What is kept for a host that is blacklisted, in bytes: the oldest goes first.
const BACKLOG_BYTES: u64 = 1 << 30;
/// How long the newer rules keep what piles up while the host is blacklisted.
const KEPT_WHILE_BLACKLISTED: Duration = Duration::from_secs(24 * 3_600);
/// How long the older rules keep a push that failed.
const KEPT_FOR_RETRY: Duration = Duration::from_secs(600);
/// The gap between two pushes of the backlog: 800 a second.
const FLUSH_GAP: Duration = Duration::from_micros(1_250);

/// One of the published rules, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Nothing follows from a failure: plain load.
    None,
    /// The newer text: what is not answered 200 is lost.
    Discard,
    /// The older text: what is not answered, or 501 to 504, is pushed again.
    Retry {
        /// After so long.
        after: Duration,
    },
}

/// A push on its way, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// The number from which its bytes follow.
    pub number: u32,
    /// The length of its body, in bytes.
    pub bytes: u32,
    /// When the platform first had it.
    pub since: Duration,
}

/// What came of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Answer {
    /// A status of HTTP.
    Status(u16),
    /// None within 15 seconds.
    TimedOut,
    /// No connection, or one that broke.
    NoConnection,
}

/// What the platform does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It pushes.
    Send {
        /// What.
        message: Message,
        /// When it was due.
        due: Duration,
    },
    /// Nothing before this moment.
    Wait(Duration),
    /// Nothing before an answer or a new push.
    Idle,
}

/// The sender's side of the rules.
#[derive(Debug)]
pub struct Platform {
    policy: Policy,
    probe_interval: Duration,
    failures_in_row: u32,
    host: Host,
    /// What is due as soon as the host is open, oldest first.
    backlog: VecDeque<Message>,
    backlog_bytes: u64,
    /// What failed and is pushed again later, in the order of its time.
    retries: VecDeque<(Duration, Message)>,
    /// When the backlog may be touched next.
    flush_at: Duration,
    counts: Counts,
}

/// What the rules led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// How often the host was blacklisted.
    pub blacklistings: u64,
    /// Pushes that the platform gave up, for whatever reason.
    pub lost: u64,
    /// Of these, those that were too many or too old for the backlog.
    pub dropped_from_backlog: u64,
    /// Probes of a blacklisted host.
    pub probes: u64,
    /// Pushes after the first of the same message.
    pub retries: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Host {
    Open,
    Blacklisted { probe_at: Duration },
    Probing { number: u32 },
}

impl Platform {
    /// A platform that has not pushed yet.
    pub fn new(policy: Policy, probe_interval: Duration) -> Self {
        Self {
            policy,
            probe_interval,
            failures_in_row: 0,
            host: Host::Open,
            backlog: VecDeque::new(),
            backlog_bytes: 0,
            retries: VecDeque::new(),
            flush_at: Duration::ZERO,
            counts: Counts::default(),
        }
    }

    /// What the rules led to so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether the host is blacklisted.
    pub fn is_blacklisted(&self) -> bool {
        self.host != Host::Open
    }

    /// What waits for its turn.
    pub fn backlog(&self) -> usize {
        self.backlog.len() + self.retries.len()
    }

    /// A new push: what to do with it now, if not to let it wait.
    pub fn offer(&mut self, message: Message) -> Option<Message> {
        if self.host == Host::Open && self.backlog.is_empty() {
            return Some(message);
        }
        self.pile_up(message);
        None
    }

    /// A push that had not gone out when the host was blacklisted: it waits
    /// with those that are as old.
    pub fn take_back(&mut self, message: Message) {
        let place = self
            .backlog
            .partition_point(|waiting| waiting.since <= message.since);
        self.backlog.insert(place, message);
        self.backlog_bytes += u64::from(message.bytes);
    }

    /// What the platform does now of its own accord.
    pub fn next(&mut self, now: Duration) -> Step {
        self.take_up_retries(now);
        self.drop_old(now);
        match self.host {
            Host::Probing { .. } => Step::Idle,
            Host::Blacklisted { probe_at } if now < probe_at => Step::Wait(probe_at),
            Host::Blacklisted { probe_at } => self.probe(probe_at),
            Host::Open => self.flush(now),
        }
    }

    /// What came of a push.
    pub fn answered(&mut self, message: Message, answer: Answer, now: Duration) {
        if self.host
            == (Host::Probing {
                number: message.number,
            })
        {
            self.probed(message, answer, now);
            return;
        }
        match self.judge(answer) {
            Judgement::Success => {
                if self.host == Host::Open {
                    self.failures_in_row = 0;
                }
            }
            Judgement::Refused => self.counts.lost += 1,
            Judgement::Failure => self.failed(message, now),
        }
    }

    fn judge(&self, answer: Answer) -> Judgement {
        match (self.policy, answer) {
            (Policy::None, _) | (_, Answer::Status(200)) => Judgement::Success,
            (Policy::Discard, _)
            | (Policy::Retry { .. }, Answer::Status(501..=504))
            | (Policy::Retry { .. }, Answer::TimedOut | Answer::NoConnection) => Judgement::Failure,
            (Policy::Retry { .. }, Answer::Status(_)) => Judgement::Refused,
        }
    }

    fn failed(&mut self, message: Message, now: Duration) {
        match self.policy {
            Policy::None => {}
            Policy::Discard => self.counts.lost += 1,
            Policy::Retry { after } => self.retries.push_back((now + after, message)),
        }
        if self.host != Host::Open {
            return;
        }
        self.failures_in_row += 1;
        if self.failures_in_row == FAILURES_TO_BLACKLIST {
            self.counts.blacklistings += 1;
            self.host = Host::Blacklisted {
                probe_at: now + self.probe_interval,
            };
        }
    }

    /// How the platform probes is not published; here the oldest push that
    /// waits is the probe, and stays where it is until it is answered 200.
    fn probe(&mut self, due: Duration) -> Step {
        let Some(message) = self.backlog.front().copied() else {
            return Step::Idle;
        };
        self.counts.probes += 1;
        self.host = Host::Probing {
            number: message.number,
        };
        Step::Send { message, due }
    }

    fn probed(&mut self, message: Message, answer: Answer, now: Duration) {
        if self.judge(answer) == Judgement::Failure {
            self.host = Host::Blacklisted {
                probe_at: now + self.probe_interval,
            };
            return;
        }
        let waiting = self.backlog.iter();
        let mut places = waiting.map(|waiting| waiting.number);
        if let Some(place) = places.position(|number| number == message.number) {
            self.remove(place);
        }
        if answer != Answer::Status(200) {
            self.counts.lost += 1;
        }
        self.host = Host::Open;
        self.failures_in_row = 0;
        self.flush_at = now;
    }

    fn flush(&mut self, now: Duration) -> Step {
        if self.backlog.is_empty() {
            return self
                .retries
                .front()
                .map_or(Step::Idle, |(at, _)| Step::Wait(*at));
        }
        if now < self.flush_at {
            return Step::Wait(self.flush_at);
        }
        let due = self.flush_at;
        self.flush_at += FLUSH_GAP;
        self.pop()
            .map_or(Step::Idle, |message| Step::Send { message, due })
    }

    fn pile_up(&mut self, message: Message) {
        self.backlog.push_back(message);
        self.backlog_bytes += u64::from(message.bytes);
        while self.backlog_bytes > BACKLOG_BYTES && self.pop().is_some() {
            self.counts.dropped_from_backlog += 1;
            self.counts.lost += 1;
        }
    }

    fn take_up_retries(&mut self, now: Duration) {
        while let Some((at, message)) = self.retries.front().copied() {
            if at > now {
                break;
            }
            self.retries.pop_front();
            if self.backlog.is_empty() && self.host == Host::Open {
                self.flush_at = self.flush_at.max(at);
            }
            self.counts.retries += 1;
            self.pile_up(message);
        }
    }

    fn drop_old(&mut self, now: Duration) {
        let kept = match self.policy {
            Policy::None => return,
            Policy::Discard => KEPT_WHILE_BLACKLISTED,
            Policy::Retry { .. } => KEPT_FOR_RETRY,
        };
        let is_old = |message: &Message| message.since + kept < now;
        while !matches!(self.host, Host::Probing { .. }) && self.backlog.front().is_some_and(is_old)
        {
            self.pop();
            self.counts.dropped_from_backlog += 1;
            self.counts.lost += 1;
        }
    }

    fn pop(&mut self) -> Option<Message> {
        self.remove(0)
    }

    fn remove(&mut self, place: usize) -> Option<Message> {
        let message = self.backlog.remove(place)?;
        self.backlog_bytes -= u64::from(message.bytes);
        Some(message)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Judgement {
    Success,
    /// Counts towards the blacklist.
    Failure,
    /// Lost, and of no consequence: the older text says nothing of such answers.
    Refused,
}

#[cfg(test)]
mod tests;
