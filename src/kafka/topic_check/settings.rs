//! Compares the settings of a topic with its spec.
//!
//! A setting that the cluster does not show is not compared.

use super::{Difference, ObservedTopic, Replication, Severity};
use crate::topics::{STATE_SETTINGS, TIMESTAMP_TOLERANCE_MS, TopicSpec};

/// The settings in the line about a topic without a difference.
pub(super) const SHOWN: [&str; 5] = [
    "min.insync.replicas",
    "cleanup.policy",
    "max.message.bytes",
    "unclean.leader.election.enable",
    "retention.ms",
];

/// How much a timestamp may differ from the broker's clock. The third is the only
/// one before Kafka 3.6, and gone since 4.0.
const TIMESTAMP_LIMITS: [&str; 3] = [
    "message.timestamp.before.max.ms",
    "message.timestamp.after.max.ms",
    "message.timestamp.difference.max.ms",
];

/// The version of the brokers, or an older one.
const FORMAT_VERSION: &str = "message.format.version";
/// Brokers since then fence a transaction of a member that lost its partitions
/// (KIP-447).
const FIRST_WITH_FENCING: (u32, u32) = (2, 5);

/// Returns every difference between the settings of a topic and its spec.
pub(super) fn differences(
    spec: &TopicSpec,
    observed: &ObservedTopic,
    attainable: Replication,
) -> Vec<(Severity, String)> {
    let differences = [
        min_insync_replicas(observed, attainable),
        cleanup_policy(spec, observed),
        max_message_bytes(spec, observed),
        unclean_leader_election(observed),
        retention(spec, observed),
        timestamp_type(observed),
        restore(spec, observed),
        broker_version(observed),
    ];
    let limits = TIMESTAMP_LIMITS.map(|name| timestamp_limit(observed, name));
    differences.into_iter().chain(limits).flatten().collect()
}

fn min_insync_replicas(observed: &ObservedTopic, attainable: Replication) -> Difference {
    let (have, need) = (observed.min_insync_replicas()?, attainable.min_insync);
    let factor = observed.replication_factor;
    let text = if have < need {
        format!(
            "min.insync.replicas is {have}, must be at least {need}: an acknowledged push could be on a single broker"
        )
    } else if have > factor {
        format!(
            "min.insync.replicas is {have}, must be at most the replication factor {factor}: nothing can be written"
        )
    } else {
        return None;
    };
    Some((Severity::Problem, text))
}

fn cleanup_policy(spec: &TopicSpec, observed: &ObservedTopic) -> Difference {
    let have = observed.text("cleanup.policy")?;
    (!spec.cleanup.matches(have)).then(|| {
        let need = spec.cleanup.as_str();
        let text = format!(
            "cleanup.policy is {have}, must be {need}: Kafka would delete records that are needed, or keep them too long"
        );
        (Severity::Problem, text)
    })
}

fn max_message_bytes(spec: &TopicSpec, observed: &ObservedTopic) -> Difference {
    let have: u64 = observed.text("max.message.bytes")?.parse().ok()?;
    let need = spec.max_message_bytes;
    (have < need).then(|| {
        let largest = if spec.topic.is_written_by_streams() {
            "state of streams.max_state_bytes, or http.max_body_bytes if that is larger,"
        } else {
            "body of http.max_body_bytes"
        };
        let text = format!(
            "max.message.bytes is {have}, must be at least {need}, the size of a {largest} with its key and headers"
        );
        (Severity::Problem, text)
    })
}

fn unclean_leader_election(observed: &ObservedTopic) -> Difference {
    let have = observed.text("unclean.leader.election.enable")?;
    (have != "false").then(|| {
        let text = format!(
            "unclean.leader.election.enable is {have}, must be false: a replica that lacks acknowledged records could become leader, and they would be lost"
        );
        (Severity::Problem, text)
    })
}

fn retention(spec: &TopicSpec, observed: &ObservedTopic) -> Difference {
    let want = spec.retention_ms()?;
    let have = observed.number("retention.ms")?;
    // A negative value means that nothing is deleted for its age.
    let is_longer = have < 0 || have > want;
    if is_longer {
        let text = format!(
            "retention.ms is {have} but the configuration asks for {want}: records are kept longer, and take more space"
        );
        return Some((Severity::Warning, text));
    }
    (have < want).then(|| {
        let text = format!(
            "retention.ms is {have}, must be at least {want} as configured: Kafka would delete records before their time"
        );
        (Severity::Problem, text)
    })
}

fn timestamp_type(observed: &ObservedTopic) -> Difference {
    let have = observed.text("message.timestamp.type")?;
    (have != "CreateTime").then(|| {
        let text = format!(
            "message.timestamp.type is {have}, should be CreateTime: a record that is copied from another topic would count as received at the time of the copy"
        );
        (Severity::Warning, text)
    })
}

fn timestamp_limit(observed: &ObservedTopic, name: &str) -> Difference {
    let have = observed.number(name)?;
    // Kafka itself sets the timestamps otherwise, and limits nothing.
    let is_limited = observed.text("message.timestamp.type") != Some("LogAppendTime");
    (is_limited && have < TIMESTAMP_TOLERANCE_MS).then(|| {
        let text = format!(
            "{name} is {have}, must be at least {TIMESTAMP_TOLERANCE_MS}: Kafka would reject records that were delayed, or whose host's clock differs"
        );
        (Severity::Problem, text)
    })
}

/// The version of the brokers, where the topic shows it: its records' format is
/// that of the brokers unless somebody chose an older one. Gone since Kafka 4.0.
fn broker_version(observed: &ObservedTopic) -> Difference {
    let have = observed.text(FORMAT_VERSION)?;
    let (version, _) = have.split_once('-').unwrap_or((have, ""));
    let mut numbers = version.split('.').map(str::parse::<u32>);
    let (Ok(major), Ok(minor)) = (numbers.next()?, numbers.next()?) else {
        return None;
    };
    ((major, minor) < FIRST_WITH_FENCING).then(|| {
        let text = format!(
            "{FORMAT_VERSION} is {have}: the brokers are older than Kafka 2.5, which the streams need: an instance that was frozen and lost its partitions can still write"
        );
        (Severity::Warning, text)
    })
}

/// Compares what decides how many records a restore reads.
fn restore(spec: &TopicSpec, observed: &ObservedTopic) -> Difference {
    spec.topic.input()?;
    let larger: Vec<_> = STATE_SETTINGS
        .into_iter()
        .filter_map(|(name, max)| {
            let have = observed.text(name)?;
            let number = |text: &str| text.parse::<f64>().ok();
            (number(have)? > number(max)?).then(|| format!("{name} is {have} (at most {max})"))
        })
        .collect();
    (!larger.is_empty()).then(|| {
        let larger = larger.join(", ");
        let text = format!(
            "restores read more records than necessary: {larger}; change this with kafka-configs"
        );
        (Severity::Warning, text)
    })
}
