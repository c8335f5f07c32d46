//! The central guarantee: a 200 is sent only after Kafka's acknowledgement, and
//! a push that arrived completely is stored even if its client has gone.

use std::time::{Duration, Instant};

use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use crate::support::bodies::message_confirm;
use crate::support::http::{Connection, RawConnection, Version, post_head, post_with};
use crate::support::mock::Mock;

const PATH: &str = "/notifications";
const TOPIC: &str = "iot.command-status";

#[test]
fn a_push_is_not_answered_before_its_acknowledgement() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let round_trip = Duration::from_millis(1500);
    mock.set_round_trip(round_trip);
    let sent = Instant::now();
    let answer = post_with(
        northbridge.address(),
        PATH,
        &[],
        message_confirm("r", "d", "sent"),
    );
    // The broker delays its acknowledgement by this time.
    assert!(sent.elapsed() >= round_trip, "{:?}", sent.elapsed());
    assert_eq!(answer.status, 200);
}

#[test]
fn a_push_is_retried_until_acknowledged_and_stored_once() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let errors = [
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR__TRANSPORT,
    ];
    mock.fail_requests(RDKafkaApiKey::Produce, &errors);
    let answer = post_with(
        northbridge.address(),
        PATH,
        &[],
        message_confirm("r", "d", "sent"),
    );
    assert_eq!(answer.status, 200);
    assert_eq!(mock.records(TOPIC).len(), 1);
    assert_eq!(
        northbridge
            .metric("northbridge_pushes_total", &[r#"outcome="stored""#])
            .to_bits(),
        1f64.to_bits()
    );
}

#[test]
fn a_push_is_retried_while_the_topic_is_not_authorized() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let denied = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    mock.fail_requests(RDKafkaApiKey::Produce, &[denied, denied]);
    let answer = post_with(
        northbridge.address(),
        PATH,
        &[],
        message_confirm("r", "d", "sent"),
    );
    assert_eq!(answer.status, 200);
    assert_eq!(mock.records(TOPIC).len(), 1);
}

#[test]
fn a_push_held_through_an_outage_is_answered_200_once_the_brokers_return() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    mock.go_down();
    let mut connection = RawConnection::open(northbridge.address());
    connection.write_post(PATH, &[], message_confirm("r", "d", "sent"));
    northbridge.wait_for_metric("northbridge_pushes_in_flight", &[], 1.0);
    mock.come_back();
    assert_eq!(connection.read_response().status, 200);
    assert_eq!(mock.records(TOPIC).len(), 1);
}

#[test]
fn a_complete_push_is_stored_and_counted_after_its_client_disconnects() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let address = northbridge.address();
    mock.set_round_trip(Duration::from_millis(1500));
    let mut http_1 = RawConnection::open(address);
    http_1.write_post(PATH, &[], message_confirm("r-1", "d", "sent"));
    // Over HTTP/2 the server notices a disconnect at once.
    let http_2 = tokio::runtime::Runtime::new().unwrap();
    http_2.spawn(async move {
        let mut connection = Connection::open(address, Version::Http2).await.unwrap();
        connection
            .post(PATH, message_confirm("r-2", "d", "sent"))
            .await
    });
    northbridge.wait_for_metric("northbridge_pushes_in_flight", &[], 2.0);
    drop(http_1);
    http_2.shutdown_background();
    northbridge.wait_for_outcome("stored", 2);
    mock.set_round_trip(Duration::ZERO);
    assert_eq!(mock.records(TOPIC).len(), 2);
}

#[test]
fn a_half_closed_client_gets_its_answer() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    mock.set_round_trip(Duration::from_secs(1));
    let mut connection = RawConnection::open(northbridge.address());
    connection.write_post(PATH, &[], message_confirm("r", "d", "sent"));
    connection.finish_writing();
    assert_eq!(connection.read_response().status, 200);
    assert!(connection.is_closed());
}

#[test]
fn an_incomplete_push_is_not_stored() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let body = message_confirm("r", "d", "sent");
    let declared = post_head(PATH, &[], body.len() + 1);
    let chunked = format!(
        "POST {PATH} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n",
        body.len()
    );
    for head in [declared, chunked] {
        let mut connection = RawConnection::open(northbridge.address());
        connection.write(format!("{head}{body}"));
        drop(connection);
    }
    northbridge.wait_for_outcome("disconnected", 2);
    assert!(mock.all_records().is_empty());
    northbridge.wait_for_metric("northbridge_pushes_in_flight", &[], 0.0);
}
