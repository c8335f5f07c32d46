//! Readiness and its reasons, with and without Kafka; liveness in any case.

use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use serde_json::Value;

use crate::support::bodies::message_confirm;
use crate::support::eventually;
use crate::support::http::{RawConnection, get, post_with};
use crate::support::mock::{Mock, PARTITIONS, TOPICS};
use crate::support::northbridge::Northbridge;

const PATH: &str = "/notifications";

/// Settings for an answer deadline of one second.
const SHORT_DEADLINE: [(&str, &str); 3] = [
    ("http.answer_deadline_ms", "1000"),
    ("http.body_timeout_ms", "500"),
    ("limits.admission_timeout_ms", "100"),
];

#[test]
fn without_kafka_it_is_live_but_not_ready_and_warns_once() {
    let mock = Mock::start();
    mock.go_down();
    let northbridge = mock.ingress(&SHORT_DEADLINE);
    let silent = "Kafka is unreachable; pushes wait until their deadline, then get 503";
    northbridge.wait_for_message(silent);
    northbridge.wait_for_metric("northbridge_ready", &[r#"condition="kafka""#], 0.0);
    let outage = "northbridge_kafka_outage_seconds";
    eventually("the outage has outlasted several checks", || {
        (northbridge.metric(outage, &[]) > 4.0).then_some(())
    });
    assert_eq!(
        get(northbridge.admin_address(), "/livez").unwrap().status,
        200
    );
    assert!(!northbridge.is_ready());
    let log = northbridge.log();
    assert_eq!(log.iter().filter(|line| line.contains(silent)).count(), 1);

    mock.come_back();
    northbridge.wait_until_ready();
    northbridge.wait_for_message("Kafka is reachable again");
    assert_eq!(push(&northbridge), 200);
}

#[test]
fn every_readiness_condition_has_a_time_and_a_reason() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let report = conditions(&northbridge);
    let names: Vec<_> = report
        .iter()
        .map(|condition| condition["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["accepting", "kafka", "topics", "connections"]);
    for condition in report {
        assert_eq!(condition["met"], true, "{condition}");
        assert!(
            condition["since"].as_str().unwrap().ends_with('Z'),
            "{condition}"
        );
        assert!(
            !condition["why"].as_str().unwrap().is_empty(),
            "{condition}"
        );
    }
}

#[test]
fn unreadable_topic_settings_cause_one_warning_and_do_not_block_readiness() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let warned = northbridge.wait_for_log(|line| line.contains("does not show the settings"));
    assert!(warned.contains("WARN"), "{warned}");
    let lines = northbridge.log();
    assert_eq!(
        lines
            .iter()
            .filter(|line| line.contains("does not show"))
            .count(),
        1
    );
}

#[test]
fn a_missing_topic_is_named_until_it_is_created() {
    let mock = Mock::without_topics();
    let missing = "iot.dead-letter";
    for topic in TOPICS.into_iter().filter(|topic| *topic != missing) {
        mock.create_topic(topic);
    }
    let northbridge = mock.ingress(&[]);
    eventually("the topic is named", || {
        let topics = condition(&northbridge, "topics");
        topics["why"].as_str()?.contains(missing).then_some(())
    });
    assert!(!northbridge.is_ready());
    northbridge.wait_for_log(|line| line.contains("ERROR") && line.contains(missing));
    // Pushes for the existing topics are stored in the meantime.
    assert_eq!(push(&northbridge), 200);
    mock.create_topic(missing);
    northbridge.wait_until_ready();
}

#[test]
fn a_push_waits_for_its_topic_to_be_created() {
    let mock = Mock::without_topics();
    let northbridge = mock.ingress(&[]);
    let address = northbridge.address();
    let pushing = std::thread::spawn(move || {
        post_with(address, PATH, &[], message_confirm("r", "d", "sent")).status
    });
    northbridge.wait_for_metric("northbridge_pushes_in_flight", &[], 1.0);
    for topic in TOPICS {
        mock.create_topic(topic);
    }
    assert_eq!(pushing.join().unwrap(), 200);
}

#[test]
fn an_outage_longer_than_the_deadline_ends_readiness_until_kafka_returns() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    mock.go_down();
    northbridge.wait_until_not_ready();
    let outage = northbridge.metric("northbridge_kafka_outage_seconds", &[]);
    assert!(outage >= 13.0, "not ready after {outage} s");
    let kafka = condition(&northbridge, "kafka");
    assert!(
        kafka["why"]
            .as_str()
            .unwrap()
            .contains("no partition has accepted records"),
        "{kafka}"
    );
    // A push held until its deadline would be counted as "unconfirmed".
    assert_eq!(push(&northbridge), 503);
    northbridge.wait_for_outcome("unavailable", 1);

    mock.come_back();
    northbridge.wait_until_ready();
    assert_eq!(push(&northbridge), 200);
}

/// A broker that starts acknowledges its partitions one after the other, seconds after
/// the metadata shows them as available.
#[test]
fn a_push_waits_once_its_partition_is_available_though_nothing_is_acknowledged_yet() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[
        ("http.answer_deadline_ms", "4000"),
        ("http.body_timeout_ms", "1000"),
        ("limits.admission_timeout_ms", "100"),
    ]);
    mock.go_down();
    assert_eq!(push(&northbridge), 503);
    assert_eq!(push(&northbridge), 503);
    northbridge.wait_for_outcome("unavailable", 1);
    northbridge.wait_until_not_ready();
    let too_few = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS;
    mock.fail_requests(RDKafkaApiKey::Produce, &vec![too_few; 1_000]);
    mock.come_back();
    northbridge.wait_until_ready();
    let mut connection = RawConnection::open(northbridge.address());
    connection.write_post(PATH, &[], message_confirm("r", "d", "sent"));
    northbridge.wait_for_metric("northbridge_pushes_in_flight", &[], 1.0);
    mock.stop_failing(RDKafkaApiKey::Produce);
    assert_eq!(connection.read_response().status, 200);
    northbridge.wait_for_outcome("unavailable", 1);
}

#[test]
fn an_outage_shorter_than_the_deadline_does_not_end_readiness() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    mock.go_down();
    let outage = "northbridge_kafka_outage_seconds";
    eventually("the outage is noticed", || {
        (northbridge.metric(outage, &[]) > 1.0).then_some(())
    });
    assert!(northbridge.is_ready());
    mock.come_back();
    northbridge.wait_for_metric(outage, &[], 0.0);
    assert!(northbridge.is_ready());
    assert_eq!(push(&northbridge), 200);
}

#[test]
fn one_available_partition_ends_the_outage() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&SHORT_DEADLINE);
    for topic in TOPICS {
        (0..PARTITIONS).for_each(|partition| mock.set_leader(topic, partition, None));
    }
    northbridge.wait_until_not_ready();
    mock.set_leader(TOPICS[0], 0, Some(1));
    northbridge.wait_until_ready();
    let kafka = condition(&northbridge, "kafka");
    assert!(
        kafka["why"].as_str().unwrap().contains("some partitions"),
        "{kafka}"
    );
}

#[test]
fn a_single_failed_produce_does_not_end_readiness() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let too_large = RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
    mock.fail_requests(RDKafkaApiKey::Produce, &[too_large]);
    assert_eq!(push(&northbridge), 503);
    assert!(northbridge.is_ready());
    assert_eq!(push(&northbridge), 200);
}

fn push(northbridge: &Northbridge) -> u16 {
    let body = message_confirm("r", "d", "sent");
    post_with(northbridge.address(), PATH, &[], body).status
}

fn condition(northbridge: &Northbridge, name: &str) -> Value {
    let found = conditions(northbridge)
        .into_iter()
        .find(|condition| condition["name"] == name);
    found.expect("the condition is named")
}

fn conditions(northbridge: &Northbridge) -> Vec<Value> {
    let answer = get(northbridge.admin_address(), "/readyz").unwrap();
    let report: Value = serde_json::from_slice(&answer.body).unwrap();
    report["conditions"].as_array().unwrap().clone()
}
