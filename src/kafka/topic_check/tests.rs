use super::*;
use crate::config::Settings;
use crate::kafka::cluster_size::Evidence;
use crate::topics::specs;

fn spec(topic: Topic) -> TopicSpec {
    specs(&Settings::default())[topic.index()].clone()
}

/// A topic as `topics create` makes it on three brokers.
fn observed(topic: Topic) -> ObservedTopic {
    let spec = spec(topic);
    let mut settings = spec.required_settings();
    settings.extend(spec.optional_settings());
    settings.push(("min.insync.replicas", "2".to_owned()));
    let owned = |(name, value): (&str, String)| (name.to_owned(), value);
    ObservedTopic {
        partitions: 6,
        replication_factor: 3,
        settings: settings.into_iter().map(owned).collect(),
    }
}

fn with(topic: Topic, settings: &[(&str, &str)]) -> ObservedTopic {
    let mut observed = observed(topic);
    for (name, value) in settings {
        observed
            .settings
            .insert((*name).to_owned(), (*value).to_owned());
    }
    observed
}

fn but(change: impl FnOnce(&mut ObservedTopic)) -> ObservedTopic {
    let mut topic = observed(Topic::CommandStatus);
    change(&mut topic);
    topic
}

/// The brokers with these ids are alive; `None` if the cluster does not show more.
fn size(alive: &[i32], replicas: &[i32], offsets_replication: Option<&str>) -> ClusterSize {
    let setting = |value: &str| {
        (
            "offsets.topic.replication.factor".to_owned(),
            value.to_owned(),
        )
    };
    let evidence = Evidence {
        alive: alive.iter().copied().collect(),
        replicas: replicas.iter().copied().collect(),
        settings: offsets_replication.map(|value| BTreeMap::from([setting(value)])),
    };
    evidence.size(3)
}

fn three() -> ClusterSize {
    size(&[1, 2, 3], &[], None)
}

/// Asserts that a topic has a finding with this text and severity, and none worse.
fn assert_finding(
    topic: Topic,
    observed: ObservedTopic,
    size: &ClusterSize,
    severity: Severity,
    text: &str,
) {
    let findings = compare(&[spec(topic)], &[Some(observed)], size);
    let is_expected =
        |finding: &Finding| finding.severity == severity && finding.text.contains(text);
    assert!(findings.iter().any(is_expected), "{text}: {findings:?}");
    let worst = findings.iter().map(|finding| finding.severity).max();
    assert_eq!(worst, Some(severity), "{text}: {findings:?}");
}

#[test]
fn a_topic_as_it_is_created_has_no_difference() {
    for topic in Topic::ALL {
        let text = "6 partitions, replication factor 3, min.insync.replicas 2";
        assert_finding(topic, observed(topic), &three(), Severity::Ok, text);
    }
}

#[test]
fn each_difference_of_the_partitions_is_a_finding_of_its_severity() {
    use Severity::{Ok, Problem, Warning};
    let partitions = |partitions| but(|topic| topic.partitions = partitions);
    let replicated = |replication_factor, min_insync_replicas: &str| {
        but(|topic| {
            topic.replication_factor = replication_factor;
            let name = "min.insync.replicas".to_owned();
            topic.settings.insert(name, min_insync_replicas.to_owned());
        })
    };
    let (one, two_of_three) = (size(&[1], &[], Some("1")), size(&[1, 2], &[1, 2, 3], None));
    let (hidden, by_setting) = (size(&[1], &[], None), size(&[1, 2], &[], Some("3")));
    let cases = [
        (partitions(3), three(), Warning, "has 3 partitions"),
        (partitions(12), three(), Warning, "has 12 partitions"),
        (
            replicated(1, "1"),
            three(),
            Problem,
            "replication factor is 1",
        ),
        (
            replicated(3, "1"),
            three(),
            Problem,
            "min.insync.replicas is 1",
        ),
        (
            replicated(3, "4"),
            three(),
            Problem,
            "nothing can be written",
        ),
        (replicated(1, "1"), one, Warning, "the cluster has 1 broker"),
        // One of three brokers is down.
        (
            replicated(3, "2"),
            two_of_three.clone(),
            Ok,
            "replication factor 3",
        ),
        (
            replicated(2, "2"),
            two_of_three,
            Problem,
            "replicas are on 3 too",
        ),
        (
            replicated(2, "2"),
            by_setting,
            Problem,
            "2 of 3 brokers are alive",
        ),
        // Whether it is down is not shown.
        (
            replicated(1, "1"),
            hidden,
            Warning,
            "does not show whether it has more",
        ),
    ];
    for (observed, size, severity, text) in cases {
        assert_finding(Topic::CommandStatus, observed, &size, severity, text);
    }
}

#[test]
fn each_difference_of_a_setting_is_a_finding_of_its_severity() {
    use Severity::{Ok, Partial, Problem, Warning};
    use Topic::{CommandState, CommandStatus, DeviceSoftware};
    const TYPE: &str = "message.timestamp.type";
    let cases = [
        (CommandStatus, "cleanup.policy", "compact", Problem),
        (CommandState, "cleanup.policy", "delete,compact", Ok),
        (CommandStatus, "max.message.bytes", "1048588", Problem),
        (
            CommandStatus,
            "unclean.leader.election.enable",
            "true",
            Problem,
        ),
        (CommandStatus, "retention.ms", "604799999", Problem),
        (CommandStatus, "retention.ms", "604800001", Warning),
        (CommandStatus, "retention.ms", "-1", Warning),
        (DeviceSoftware, "retention.ms", "1", Ok),
        (CommandStatus, TYPE, "LogAppendTime", Warning),
        (
            CommandStatus,
            "message.timestamp.before.max.ms",
            "3599999",
            Problem,
        ),
        (
            CommandStatus,
            "message.timestamp.before.max.ms",
            "3600000",
            Ok,
        ),
        (
            CommandStatus,
            "message.timestamp.after.max.ms",
            "1000",
            Problem,
        ),
        (
            CommandStatus,
            "message.timestamp.difference.max.ms",
            "1000",
            Problem,
        ),
        (CommandState, "segment.bytes", "1073741824", Warning),
        (CommandStatus, "segment.bytes", "1073741824", Ok),
        (CommandState, "segment.ms", "604800000", Warning),
        (CommandState, "min.cleanable.dirty.ratio", "0.5", Warning),
        (
            DeviceSoftware,
            "max.compaction.lag.ms",
            "9223372036854775807",
            Warning,
        ),
        (DeviceSoftware, "delete.retention.ms", "86400001", Warning),
        (DeviceSoftware, "delete.retention.ms", "1", Ok),
        (CommandState, "message.format.version", "2.4-IV1", Warning),
        (
            CommandState,
            "message.format.version",
            "0.11.0-IV2",
            Warning,
        ),
        (CommandState, "message.format.version", "2.5-IV0", Ok),
        (CommandState, "message.format.version", "3.0-IV1", Ok),
    ];
    for (topic, name, value, severity) in cases {
        let expected = match severity {
            Ok => "6 partitions".to_owned(),
            Warning | Partial | Problem => format!("{name} is {value}"),
        };
        let observed = with(topic, &[(name, value)]);
        assert_finding(topic, observed, &three(), severity, &expected);
    }
    let unlimited = [
        (TYPE, "LogAppendTime"),
        ("message.timestamp.before.max.ms", "1"),
    ];
    let observed = with(CommandStatus, &unlimited);
    assert_finding(CommandStatus, observed, &three(), Warning, TYPE);
}

#[test]
fn a_state_topic_has_as_many_partitions_as_its_input() {
    let input = spec(Topic::CommandStatus);
    for (partitions, severity) in [
        (5, Severity::Partial),
        (6, Severity::Ok),
        (7, Severity::Warning),
    ] {
        let state = TopicSpec {
            partitions,
            ..spec(Topic::CommandState)
        };
        let mut observed_state = observed(Topic::CommandState);
        observed_state.partitions = partitions;
        let topics = [Some(observed_state), Some(observed(Topic::CommandStatus))];
        let findings = compare(&[state, input.clone()], &topics, &three());
        let of_state = findings.first().unwrap();
        assert_eq!(of_state.severity, severity, "{findings:?}");
        let names_input = of_state.text.contains("iot.command-status has 6");
        assert_eq!(names_input, severity != Severity::Ok, "{findings:?}");
    }
}

#[test]
fn a_setting_that_is_not_shown_is_not_compared() {
    let hidden = but(|topic| topic.settings.clear());
    let text = "min.insync.replicas unknown";
    assert_finding(Topic::CommandStatus, hidden, &three(), Severity::Ok, text);
}
