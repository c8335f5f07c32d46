//! The promise: a 200 is sent after the acknowledgement and never before, and
//! what arrived whole is stored whether or not its client still listens.

use std::time::{Duration, Instant};

use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use crate::support::bodies::message_confirm;
use crate::support::http::{Connection, RawConnection, Version, post_head, post_with};
use crate::support::mock::Mock;

const PATH: &str = "/notifications";
const TOPIC: &str = "iot.command-status";

#[test]
fn there_is_no_answer_before_the_acknowledgement() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let round_trip = Duration::from_millis(1500);
    mock.round_trip(round_trip);
    let sent = Instant::now();
    let answer = post_with(
        northbridge.address(),
        PATH,
        &[],
        message_confirm("r", "d", "sent"),
    );
    // The broker holds its acknowledgement back for so long.
    assert!(sent.elapsed() >= round_trip, "{:?}", sent.elapsed());
    assert_eq!(answer.status, 200);
}

#[test]
fn a_push_is_answered_when_a_broker_takes_it_at_last_and_is_stored_once() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let errors = [
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR__TRANSPORT,
    ];
    mock.fail(RDKafkaApiKey::Produce, &errors);
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
fn a_push_without_permission_for_its_topic_waits_for_it() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let denied = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    mock.fail(RDKafkaApiKey::Produce, &[denied, denied]);
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
fn a_push_that_waits_while_every_broker_is_away_is_answered_200_when_they_are_back() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    mock.go_away();
    let mut connection = RawConnection::open(northbridge.address());
    connection.write_post(PATH, &[], message_confirm("r", "d", "sent"));
    northbridge.wait_for_metric("northbridge_pushes_in_flight", &[], 1.0);
    mock.come_back();
    assert_eq!(connection.read_response().status, 200);
    assert_eq!(mock.records(TOPIC).len(), 1);
}

#[test]
fn a_push_that_arrived_whole_is_stored_and_counted_when_its_client_is_gone() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let address = northbridge.address();
    mock.round_trip(Duration::from_millis(1500));
    let mut http_1 = RawConnection::open(address);
    http_1.write_post(PATH, &[], message_confirm("r-1", "d", "sent"));
    // Of a client over HTTP/2 the server knows at once that it is gone.
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
    mock.round_trip(Duration::ZERO);
    assert_eq!(mock.records(TOPIC).len(), 2);
}

#[test]
fn a_client_that_closed_only_its_sending_side_gets_its_answer() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    mock.round_trip(Duration::from_secs(1));
    let mut connection = RawConnection::open(northbridge.address());
    connection.write_post(PATH, &[], message_confirm("r", "d", "sent"));
    connection.finish_writing();
    assert_eq!(connection.read_response().status, 200);
    assert!(connection.is_closed());
}

#[test]
fn a_push_that_did_not_arrive_whole_is_not_stored() {
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
