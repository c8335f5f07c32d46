//! The open commands of a partition, counted as they change: a gauge costs
//! nothing that grows with their number.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::streams::states::command::Status;

/// How many commands are open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct OpenCommands {
    pub(crate) sent: usize,
    pub(crate) delivered: usize,
    /// Those of both that are older than a limit.
    pub(crate) overdue: usize,
}

/// The open commands of one partition.
#[derive(Debug)]
pub(super) struct OpenIndex {
    counts: OpenCommands,
    /// By the second since which they are open.
    by_second: BTreeMap<i64, usize>,
    /// `counts.overdue` are those that are open since before this second.
    horizon: i64,
}

impl OpenIndex {
    pub(super) fn new() -> Self {
        Self {
            counts: OpenCommands::default(),
            by_second: BTreeMap::new(),
            horizon: i64::MIN,
        }
    }

    pub(super) fn add(&mut self, status: Status, since_ms: i64) {
        let second = second_of(since_ms);
        if let Some(count) = self.counts.of(status) {
            *count += 1;
        }
        *self.by_second.entry(second).or_default() += 1;
        self.counts.overdue += usize::from(second < self.horizon);
    }

    /// Removes a command that was added with these values.
    pub(super) fn remove(&mut self, status: Status, since_ms: i64) {
        let second = second_of(since_ms);
        if let Some(count) = self.counts.of(status) {
            *count -= 1;
        }
        if let Some(count) = self.by_second.get_mut(&second) {
            *count -= 1;
            if *count == 0 {
                self.by_second.remove(&second);
            }
        }
        self.counts.overdue -= usize::from(second < self.horizon);
    }

    /// Returns the counts. A command is overdue if it is open since before the
    /// second of `horizon_ms`.
    ///
    /// Looks only at the seconds between this horizon and that of the last call.
    pub(super) fn counts(&mut self, horizon_ms: i64) -> OpenCommands {
        let horizon = second_of(horizon_ms);
        if horizon >= self.horizon {
            self.counts.overdue += self.open_since(self.horizon..horizon);
        } else {
            // The host's clock went back.
            self.counts.overdue -= self.open_since(horizon..self.horizon);
        }
        self.horizon = horizon;
        self.counts
    }

    fn open_since(&self, seconds: Range<i64>) -> usize {
        self.by_second.range(seconds).map(|(_, count)| count).sum()
    }
}

impl OpenCommands {
    /// The count of a status; an executed command is not open.
    fn of(&mut self, status: Status) -> Option<&mut usize> {
        match status {
            Status::Sent => Some(&mut self.sent),
            Status::Delivered => Some(&mut self.delivered),
            Status::Executed => None,
        }
    }
}

impl std::ops::AddAssign for OpenCommands {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.delivered += other.delivered;
        self.overdue += other.overdue;
    }
}

fn second_of(time_ms: i64) -> i64 {
    time_ms.div_euclid(1_000)
}
