//! What the streams report to the process's metrics.
//!
//! Each stage takes the children of its label values once, when it starts, so
//! that every series is there from the first scrape and the loop never looks
//! one up. Only the lag of a partition appears and disappears, with its
//! assignment.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use prometheus::{Gauge, GaugeVec, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::states::command::Status;
use super::states::operation::UpgradeResult;
use super::store::OpenCommands;
use super::stream::Effect;
use crate::metrics::{Metrics, signed};

/// Buckets for the transitions of a command: from a second to a week.
const TRANSITION_SECONDS: &[f64] = &[
    1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 86_400.0, 604_800.0,
];

/// The shortest time between two log lines about overdue commands.
const OVERDUE_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The metric families that the stages of a process share.
#[derive(Debug)]
pub(super) struct StreamFamilies {
    metrics: Metrics,
    records: IntCounterVec,
    lost: IntCounterVec,
    lag: IntGaugeVec,
    event_age: GaugeVec,
    transactions: IntCounterVec,
    entries: IntGaugeVec,
    max_entries_exceeded: IntGaugeVec,
    bytes: IntGaugeVec,
    restore_seconds: GaugeVec,
    restored_records: IntCounterVec,
}

/// The metrics of one stage.
#[derive(Debug)]
pub(super) struct StreamMetrics {
    stream: &'static str,
    applied: IntCounter,
    dead_lettered: IntCounter,
    lost: IntCounter,
    committed: IntCounter,
    aborted: IntCounter,
    lag: IntGaugeVec,
    lag_by_partition: BTreeMap<i32, IntGauge>,
    event_age: Gauge,
    entries: IntGauge,
    max_entries_exceeded: IntGauge,
    bytes: IntGauge,
    restore_seconds: Gauge,
    restored_records: IntCounter,
    /// Records of the running restore that `restored_records` includes.
    counted_of_restore: u64,
    commands: Option<CommandMetrics>,
    upgrades: Option<UpgradeMetrics>,
}

#[derive(Debug)]
struct CommandMetrics {
    unknown_status: IntCounter,
    sent: IntGauge,
    delivered: IntGauge,
    overdue: IntGauge,
    sent_to_delivered: Histogram,
    delivered_to_executed: Histogram,
    sent_to_executed: Histogram,
    next_overdue_log: Instant,
}

#[derive(Debug)]
struct UpgradeMetrics {
    succeeded: IntCounter,
    failed: IntCounter,
}

impl StreamFamilies {
    pub(super) fn register(metrics: &Metrics) -> Self {
        let by_stream = ["stream"];
        Self {
            metrics: metrics.clone(),
            records: metrics.counters(
                "stream_records_total",
                "Input records of committed transactions, by result.",
                &["stream", "result"],
            ),
            lost: metrics.counters(
                "stream_records_lost_total",
                "Input records that Kafka deleted before they were processed.",
                &by_stream,
            ),
            lag: metrics.gauges(
                "stream_lag_records",
                "Records of a partition that are not processed yet.",
                &["stream", "partition"],
            ),
            event_age: metrics.float_gauges(
                "stream_event_age_seconds",
                "Age of the last processed record, counted from its receipt.",
                &by_stream,
            ),
            transactions: metrics.counters(
                "stream_transactions_total",
                "Transactions, by result.",
                &["stream", "result"],
            ),
            entries: metrics.gauges("stream_state_entries", "States in memory.", &by_stream),
            max_entries_exceeded: metrics.gauges(
                "stream_state_max_entries_exceeded",
                "1 while more states are in memory than max_entries.",
                &by_stream,
            ),
            bytes: metrics.gauges(
                "stream_state_bytes",
                "Bytes of the keys and values of the states in memory.",
                &by_stream,
            ),
            restore_seconds: metrics.float_gauges(
                "stream_restore_seconds",
                "Duration of the last restore of states.",
                &by_stream,
            ),
            restored_records: metrics.counters(
                "stream_restored_records_total",
                "Records of the state topic that were read to restore states.",
                &by_stream,
            ),
        }
    }

    /// The metrics that every stage has.
    pub(super) fn of_stream(&self, stream: &'static str) -> StreamMetrics {
        let records = |result| self.records.with_label_values(&[stream, result]);
        let transactions = |result| self.transactions.with_label_values(&[stream, result]);
        StreamMetrics {
            stream,
            applied: records("applied"),
            dead_lettered: records("dead_lettered"),
            lost: self.lost.with_label_values(&[stream]),
            committed: transactions("committed"),
            aborted: transactions("aborted"),
            lag: self.lag.clone(),
            lag_by_partition: BTreeMap::new(),
            event_age: self.event_age.with_label_values(&[stream]),
            entries: self.entries.with_label_values(&[stream]),
            max_entries_exceeded: self.max_entries_exceeded.with_label_values(&[stream]),
            bytes: self.bytes.with_label_values(&[stream]),
            restore_seconds: self.restore_seconds.with_label_values(&[stream]),
            restored_records: self.restored_records.with_label_values(&[stream]),
            counted_of_restore: 0,
            commands: None,
            upgrades: None,
        }
    }

    /// Those of a stage whose states are commands.
    pub(super) fn of_commands(&self, stream: &'static str) -> StreamMetrics {
        let open = self.metrics.gauges(
            "commands_open",
            "Commands that are not executed yet, by their furthest status.",
            &["status"],
        );
        let transitions = self.metrics.histograms(
            "command_transition_seconds",
            "Time that commands took from one status to another, by the platform's clock.",
            &["from", "to"],
            TRANSITION_SECONDS,
        );
        let open = |status: Status| open.with_label_values(&[status.label()]);
        let transition =
            |from: Status, to: Status| transitions.with_label_values(&[from.label(), to.label()]);
        let commands = CommandMetrics {
            unknown_status: self.records.with_label_values(&[stream, "unknown_status"]),
            sent: open(Status::Sent),
            delivered: open(Status::Delivered),
            overdue: self.metrics.gauge(
                "commands_overdue",
                "Open commands older than streams.command_status.overdue_after_s.",
            ),
            sent_to_delivered: transition(Status::Sent, Status::Delivered),
            delivered_to_executed: transition(Status::Delivered, Status::Executed),
            sent_to_executed: transition(Status::Sent, Status::Executed),
            next_overdue_log: Instant::now(),
        };
        StreamMetrics {
            commands: Some(commands),
            ..self.of_stream(stream)
        }
    }

    /// Those of a stage whose records are upgrade results.
    pub(super) fn of_upgrades(&self, stream: &'static str) -> StreamMetrics {
        let upgrades = self.metrics.counters(
            "upgrades_total",
            "Upgrade attempts that were not seen before, by result.",
            &["result"],
        );
        let counter = |result: UpgradeResult| upgrades.with_label_values(&[result.label()]);
        StreamMetrics {
            upgrades: Some(UpgradeMetrics {
                succeeded: counter(UpgradeResult::Success),
                failed: counter(UpgradeResult::Fail),
            }),
            ..self.of_stream(stream)
        }
    }
}

impl StreamMetrics {
    /// Counts a committed transaction and its input records.
    pub(super) fn count_committed(&self, applied: usize, dead_lettered: usize) {
        self.committed.inc();
        self.applied.inc_by(unsigned(applied));
        self.dead_lettered.inc_by(unsigned(dead_lettered));
    }

    /// Counts offsets that were deleted before they were processed.
    pub(super) fn count_lost(&self, count: i64) {
        self.lost.inc_by(u64::try_from(count).unwrap_or(0));
    }

    pub(super) fn count_aborted(&self) {
        self.aborted.inc();
    }

    /// Counts what a committed record did.
    pub(super) fn count(&self, effect: Effect) {
        match effect {
            Effect::UnknownStatus => {
                if let Some(commands) = &self.commands {
                    commands.unknown_status.inc();
                }
            }
            Effect::Transition { from, to, seconds } => {
                let commands = self.commands.as_ref();
                if let Some(histogram) = commands.and_then(|commands| commands.histogram(from, to))
                {
                    histogram.observe(seconds);
                }
            }
            Effect::Upgrade(result) => {
                if let Some(upgrades) = &self.upgrades {
                    upgrades.counter(result).inc();
                }
            }
        }
    }

    pub(super) fn set_event_age(&self, age: Duration) {
        self.event_age.set(age.as_secs_f64());
    }

    /// Sets the lag of a partition that is processed up to `next_offset` and
    /// has records up to `end_offset`.
    pub(super) fn set_lag(&mut self, partition: i32, next_offset: i64, end_offset: i64) {
        let gauge = self.lag_by_partition.entry(partition).or_insert_with(|| {
            self.lag
                .with_label_values(&[self.stream, &partition.to_string()])
        });
        gauge.set((end_offset - next_offset).max(0));
    }

    /// Removes the lag of a partition that was revoked; its next owner reports
    /// it.
    pub(super) fn remove_lag(&mut self, partition: i32) {
        if self.lag_by_partition.remove(&partition).is_some() {
            // Fails only for a series that does not exist.
            let _ = self
                .lag
                .remove_label_values(&[self.stream, &partition.to_string()]);
        }
    }

    /// Counts the records that a restore has read so far. A number that is
    /// lower than the last one is that of another attempt.
    pub(super) fn count_restored(&mut self, read: u64) {
        let counted = std::mem::replace(&mut self.counted_of_restore, read);
        self.restored_records
            .inc_by(read.checked_sub(counted).unwrap_or(read));
    }

    /// Notes that a restore is complete.
    pub(super) fn set_restore_duration(&mut self, took: Duration) {
        self.counted_of_restore = 0;
        self.restore_seconds.set(took.as_secs_f64());
    }

    /// Sets the size of the states in memory. Logs a warning when they begin to
    /// exceed `max_entries`.
    pub(super) fn set_state_size(&self, entries: usize, bytes: usize, max_entries: usize) {
        self.entries.set(signed(entries));
        self.bytes.set(signed(bytes));
        let exceeded = i64::from(entries > max_entries);
        if exceeded > self.max_entries_exceeded.get() {
            tracing::warn!(
                stream = self.stream,
                entries,
                max_entries,
                "more states in memory than max_entries; nothing is dropped, but memory grows"
            );
        }
        self.max_entries_exceeded.set(exceeded);
    }

    /// Sets the gauges of open commands, for a stage that has them. Logs a
    /// warning if any is overdue, once a minute at most.
    pub(super) fn set_open_commands(&mut self, open: OpenCommands) {
        let Some(commands) = &mut self.commands else {
            return;
        };
        commands.sent.set(signed(open.sent));
        commands.delivered.set(signed(open.delivered));
        commands.overdue.set(signed(open.overdue));
        let now = Instant::now();
        if open.overdue > 0 && now >= commands.next_overdue_log {
            commands.next_overdue_log = now + OVERDUE_LOG_INTERVAL;
            tracing::warn!(
                stream = self.stream,
                commands = open.overdue,
                "commands are overdue"
            );
        }
    }
}

impl CommandMetrics {
    fn histogram(&self, from: Status, to: Status) -> Option<&Histogram> {
        match (from, to) {
            (Status::Sent, Status::Delivered) => Some(&self.sent_to_delivered),
            (Status::Delivered, Status::Executed) => Some(&self.delivered_to_executed),
            (Status::Sent, Status::Executed) => Some(&self.sent_to_executed),
            // No transition: a status never goes backwards.
            (Status::Sent, Status::Sent)
            | (Status::Delivered, Status::Sent | Status::Delivered)
            | (Status::Executed, Status::Sent | Status::Delivered | Status::Executed) => None,
        }
    }
}

impl UpgradeMetrics {
    fn counter(&self, result: UpgradeResult) -> &IntCounter {
        match result {
            UpgradeResult::Success => &self.succeeded,
            UpgradeResult::Fail => &self.failed,
        }
    }
}

fn unsigned(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
