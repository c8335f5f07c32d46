//! A fatal error ends a librdkafka producer permanently; a new producer takes over.

use std::time::Duration;

use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use crate::support::bodies::message_confirm;
use crate::support::eventually;
use crate::support::http::{get, post_with};
use crate::support::load::{Load, Until};
use crate::support::mock::Mock;
use crate::support::northbridge::Northbridge;
use crate::support::ordered::{PushesInOrder, first_values};

/// On the first request in flight it leaves an idempotent producer unsure of what
/// is in the log, so librdkafka treats it as fatal.
const FATAL: RDKafkaRespErr = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;

#[test]
fn a_producer_that_gets_no_producer_id_is_replaced() {
    let mock = Mock::start();
    let denied = RDKafkaRespErr::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED;
    mock.fail_requests(RDKafkaApiKey::InitProducerId, &[denied]);
    let northbridge = mock.ingress(&[]);
    assert_stored_after_restart(&northbridge);
    northbridge.wait_until_ready();
}

#[test]
fn a_producer_that_is_denied_its_id_says_so_once() {
    let mock = Mock::start();
    let denied = RDKafkaRespErr::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED;
    mock.fail_requests(RDKafkaApiKey::InitProducerId, &[denied; 3]);
    let northbridge = mock.ingress(&[]);
    let reason = "not authorized: `IdempotentWrite` on the cluster";
    eventually("the reason is known", || {
        let answer = get(northbridge.admin_address(), "/readyz")?;
        (answer.status == 503 && answer.text().contains(reason)).then_some(())
    });
    northbridge.wait_for_metric("northbridge_producer_restarts_total", &[], 3.0);
    northbridge.wait_until_ready();
    let log = northbridge.log();
    for message in [
        "replaced the producer",
        "Kafka request or connection failed",
    ] {
        let said = log.iter().filter(|line| line.contains(message));
        assert_eq!(said.count(), 1, "{message}: {log:#?}");
    }
}

#[test]
fn a_push_that_hits_a_fatal_error_is_stored_by_the_new_producer() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    mock.fail_requests(RDKafkaApiKey::Produce, &[FATAL]);
    assert_stored_after_restart(&northbridge);
    assert!(northbridge.is_ready());
    assert_eq!(mock.records("iot.command-status").len(), 2);
}

#[test]
fn a_fatal_error_under_load_loses_no_push() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let load = Load {
        rate_per_s: 200,
        connections: 400,
        until: Until::Pushes(800),
        ..Load::to(northbridge.address())
    };
    let running = load.start();
    running.wait_for_answers(200);
    mock.fail_requests(RDKafkaApiKey::Produce, &[FATAL]);
    let report = running.finish();
    let answers: Vec<_> = report.answers().into_iter().collect();
    assert_eq!(answers, [("200".to_owned(), 800)]);
    northbridge.wait_for_metric("northbridge_producer_restarts_total", &[], 1.0);
    let stored = mock.all_records();
    let values = stored
        .iter()
        .filter_map(|(_, record)| record.value.as_deref());
    assert!(report.missing_from(values).is_empty());
}

/// The first push is in flight and the others wait for its acknowledgement when
/// the producer fails.
#[test]
fn pushes_of_a_key_keep_their_order_across_a_fatal_error() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    mock.fail_requests(RDKafkaApiKey::Produce, &[FATAL]);
    mock.set_round_trip(Duration::from_secs(1));
    let bodies: Vec<String> = (0..8)
        .map(|number| message_confirm("r", &number.to_string(), "sent"))
        .collect();
    let in_order = PushesInOrder::send(&northbridge, &bodies);
    mock.set_round_trip(Duration::ZERO);
    assert_eq!(in_order.statuses(), [200; 8]);
    northbridge.wait_for_metric("northbridge_producer_restarts_total", &[], 1.0);
    assert_eq!(
        first_values(&mock.records("iot.command-status"), "r"),
        bodies
    );
}

fn assert_stored_after_restart(northbridge: &Northbridge) {
    for number in 0..2 {
        let body = message_confirm(&format!("r-{number}"), "d", "sent");
        let answer = post_with(northbridge.address(), "/notifications", &[], body);
        assert_eq!(answer.status, 200);
    }
    northbridge.wait_for_metric("northbridge_producer_restarts_total", &[], 1.0);
    northbridge
        .wait_for_message("replaced the producer; the new one resends what was not acknowledged");
}
