//! What the platform does with a push that failed: its two published delivery
//! rules, with the blacklist, the probe and the backlog.
//!
//! Pure: times are passed in, as durations since the start of the run. It must
//! not know how a push is sent or what is in it.

use std::collections::VecDeque;
use std::time::Duration;

use super::answer::Answer;

/// Consecutive failures after which the host is blacklisted.
const FAILURES_TO_BLACKLIST: u32 = 10;
/// The capacity of the backlog; beyond it, the oldest pushes are dropped.
const MAX_BACKLOG_BYTES: u64 = 1 << 30;
/// Under the newer rules, the age at which a push is dropped from the backlog.
const MAX_AGE_WHILE_BLACKLISTED: Duration = Duration::from_secs(24 * 3_600);
/// Under the older rules, the age at which a failed push is no longer retried.
const MAX_AGE_FOR_RETRY: Duration = Duration::from_secs(600);
/// The interval between two pushes of the backlog: 800 a second.
const FLUSH_INTERVAL: Duration = Duration::from_micros(1_250);

/// One of the platform's published delivery rules, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    /// A failure has no consequence.
    None,
    /// The rule published in 2024: a push that is not answered 200 is lost.
    Discard,
    /// The rule published before: a push without an answer, or answered 501 to
    /// 504, is retried.
    Retry {
        /// The delay between a failure and the retry.
        after: Duration,
    },
}

/// A push that has not been answered, identified by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PendingPush {
    pub(crate) number: u32,
    /// The length of its body if it joined the backlog when it was new; 0 if it
    /// was sent at once, whose body is not derived for its length alone.
    pub(crate) bytes: u32,
    /// When the platform received it from the device.
    pub(crate) since: Duration,
}

/// What the platform does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Send {
        push: PendingPush,
        /// When the rules released it.
        due: Duration,
    },
    /// Nothing until this time.
    Wait(Duration),
    /// Nothing until an answer or a new push arrives.
    Idle,
}

/// The sender's state under the rules.
#[derive(Debug)]
pub(crate) struct DeliveryRules {
    policy: Policy,
    probe_interval: Duration,
    consecutive_failures: u32,
    host: Host,
    /// Pushes to be sent as soon as the host is available, oldest first.
    backlog: VecDeque<PendingPush>,
    backlog_bytes: u64,
    /// Failed pushes and the times of their retries, in the order of these.
    retries: VecDeque<(Duration, PendingPush)>,
    /// The earliest time of the next push from the backlog.
    next_flush: Duration,
    counts: DeliveryCounts,
}

/// The consequences of the rules so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct DeliveryCounts {
    pub(crate) blacklistings: u64,
    /// Pushes that will not be sent again and were not answered 200.
    pub(crate) lost: u64,
    /// Lost pushes that exceeded the backlog's size or age.
    pub(crate) dropped_from_backlog: u64,
    pub(crate) probes: u64,
    pub(crate) retries: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Host {
    Available,
    Blacklisted {
        probe_at: Duration,
    },
    /// Blacklisted, and the probe with this number has not been answered.
    Probing {
        number: u32,
    },
}

/// What an answer means under a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AnswerClass {
    Success,
    /// Counts towards the blacklist.
    Failure,
    /// The push is lost, but the older rule does not count it as a failure.
    Rejection,
}

impl DeliveryRules {
    pub(crate) fn new(policy: Policy, probe_interval: Duration) -> Self {
        Self {
            policy,
            probe_interval,
            consecutive_failures: 0,
            host: Host::Available,
            backlog: VecDeque::new(),
            backlog_bytes: 0,
            retries: VecDeque::new(),
            next_flush: Duration::ZERO,
            counts: DeliveryCounts::default(),
        }
    }

    pub(crate) fn counts(&self) -> DeliveryCounts {
        self.counts
    }

    /// Returns whether the host is blacklisted, which includes probing it.
    pub(crate) fn is_blacklisted(&self) -> bool {
        self.host != Host::Available
    }

    /// Returns how many pushes wait to be sent or retried.
    pub(crate) fn backlog(&self) -> usize {
        self.backlog.len() + self.retries.len()
    }

    /// Accepts a new push. Returns it if it is to be sent at once; otherwise it
    /// joins the backlog.
    pub(crate) fn offer(&mut self, push: PendingPush) -> Option<PendingPush> {
        if self.host == Host::Available && self.backlog.is_empty() {
            return Some(push);
        }
        self.add_to_backlog(push);
        None
    }

    /// Puts a push that was not sent into the backlog, in the order of age.
    pub(crate) fn return_unsent(&mut self, push: PendingPush) {
        let position = self
            .backlog
            .partition_point(|waiting| waiting.since <= push.since);
        self.backlog.insert(position, push);
        self.backlog_bytes += u64::from(push.bytes);
    }

    /// Returns what to do at `now`, other than sending new pushes. To be called
    /// until it returns something else than [`Action::Send`].
    pub(crate) fn next_action(&mut self, now: Duration) -> Action {
        self.enqueue_due_retries(now);
        self.drop_expired(now);
        match self.host {
            Host::Probing { .. } => Action::Idle,
            Host::Blacklisted { probe_at } if now < probe_at => Action::Wait(probe_at),
            Host::Blacklisted { probe_at } => self.probe(probe_at),
            Host::Available => self.flush(now),
        }
    }

    /// Applies the rules to the answer of a push.
    pub(crate) fn on_answer(&mut self, push: PendingPush, answer: Answer, now: Duration) {
        let probe = Host::Probing {
            number: push.number,
        };
        if self.host == probe {
            self.on_probe_answer(push, answer, now);
            return;
        }
        match self.classify(answer) {
            AnswerClass::Success => {
                // A late success does not lift the blacklist.
                if self.host == Host::Available {
                    self.consecutive_failures = 0;
                }
            }
            AnswerClass::Rejection => self.counts.lost += 1,
            AnswerClass::Failure => self.on_failure(push, now),
        }
    }

    fn classify(&self, answer: Answer) -> AnswerClass {
        match (self.policy, answer) {
            (Policy::None, _) | (_, Answer::Status(200)) => AnswerClass::Success,
            (Policy::Discard, _)
            | (Policy::Retry { .. }, Answer::Status(501..=504))
            | (Policy::Retry { .. }, Answer::TimedOut | Answer::NoConnection) => {
                AnswerClass::Failure
            }
            (Policy::Retry { .. }, Answer::Status(_)) => AnswerClass::Rejection,
        }
    }

    fn on_failure(&mut self, push: PendingPush, now: Duration) {
        match self.policy {
            Policy::None => {}
            Policy::Discard => self.counts.lost += 1,
            Policy::Retry { after } => self.retries.push_back((now + after, push)),
        }
        if self.host != Host::Available {
            return;
        }
        self.consecutive_failures += 1;
        if self.consecutive_failures == FAILURES_TO_BLACKLIST {
            self.counts.blacklistings += 1;
            self.blacklist(now);
        }
    }

    fn blacklist(&mut self, now: Duration) {
        self.host = Host::Blacklisted {
            probe_at: now + self.probe_interval,
        };
    }

    /// The documents do not say what a probe is. Here it is the oldest push of
    /// the backlog, which stays there until it is answered 200.
    fn probe(&mut self, due: Duration) -> Action {
        let Some(push) = self.backlog.front().copied() else {
            return Action::Idle;
        };
        self.counts.probes += 1;
        self.host = Host::Probing {
            number: push.number,
        };
        Action::Send { push, due }
    }

    fn on_probe_answer(&mut self, push: PendingPush, answer: Answer, now: Duration) {
        if self.classify(answer) == AnswerClass::Failure {
            self.blacklist(now);
            return;
        }
        // A push that was returned unsent may have moved in front of the probe.
        let mut numbers = self.backlog.iter().map(|waiting| waiting.number);
        if let Some(position) = numbers.position(|number| number == push.number) {
            self.remove(position);
        }
        if answer != Answer::Status(200) {
            self.counts.lost += 1;
        }
        self.host = Host::Available;
        self.consecutive_failures = 0;
        self.next_flush = now;
    }

    fn flush(&mut self, now: Duration) -> Action {
        if self.backlog.is_empty() {
            let next_retry = self.retries.front();
            return next_retry.map_or(Action::Idle, |(at, _)| Action::Wait(*at));
        }
        if now < self.next_flush {
            return Action::Wait(self.next_flush);
        }
        let due = self.next_flush;
        self.next_flush += FLUSH_INTERVAL;
        self.remove(0)
            .map_or(Action::Idle, |push| Action::Send { push, due })
    }

    fn add_to_backlog(&mut self, push: PendingPush) {
        self.backlog.push_back(push);
        self.backlog_bytes += u64::from(push.bytes);
        while self.backlog_bytes > MAX_BACKLOG_BYTES && self.remove(0).is_some() {
            self.count_dropped();
        }
    }

    fn enqueue_due_retries(&mut self, now: Duration) {
        while let Some((at, push)) = self.retries.front().copied() {
            if at > now {
                break;
            }
            self.retries.pop_front();
            if self.backlog.is_empty() && self.host == Host::Available {
                self.next_flush = self.next_flush.max(at);
            }
            self.counts.retries += 1;
            self.add_to_backlog(push);
        }
    }

    fn drop_expired(&mut self, now: Duration) {
        let max_age = match self.policy {
            Policy::None => return,
            Policy::Discard => MAX_AGE_WHILE_BLACKLISTED,
            Policy::Retry { .. } => MAX_AGE_FOR_RETRY,
        };
        // The oldest push must stay while it is the probe in flight.
        if matches!(self.host, Host::Probing { .. }) {
            return;
        }
        let is_expired = |push: &PendingPush| push.since + max_age < now;
        while self.backlog.front().is_some_and(is_expired) {
            self.remove(0);
            self.count_dropped();
        }
    }

    fn count_dropped(&mut self) {
        self.counts.dropped_from_backlog += 1;
        self.counts.lost += 1;
    }

    fn remove(&mut self, position: usize) -> Option<PendingPush> {
        let push = self.backlog.remove(position)?;
        self.backlog_bytes -= u64::from(push.bytes);
        Some(push)
    }
}

#[cfg(test)]
mod tests;
