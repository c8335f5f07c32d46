//! A fatal error of the producer, which it never recovers from: a fresh one
//! takes over.

use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use crate::support::bodies::message_confirm;
use crate::support::http::post_with;
use crate::support::load::{Load, Until};
use crate::support::mock::Mock;
use crate::support::northbridge::Northbridge;

/// Of the first request in flight: an idempotent producer cannot tell any more
/// what is in the log, and librdkafka makes it fatal.
const FATAL: RDKafkaRespErr = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;

#[test]
fn a_producer_that_is_refused_its_identity_is_replaced() {
    let mock = Mock::start();
    let denied = RDKafkaRespErr::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED;
    mock.fail(RDKafkaApiKey::InitProducerId, &[denied]);
    let northbridge = mock.ingress(&[]);
    assert_survived(&northbridge);
    northbridge.ready();
}

#[test]
fn the_push_that_met_the_fatal_error_is_stored_by_the_fresh_producer() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    mock.fail(RDKafkaApiKey::Produce, &[FATAL]);
    assert_survived(&northbridge);
    assert!(northbridge.is_ready());
    assert_eq!(mock.records("iot.command-status").len(), 2);
}

#[test]
fn under_load_a_fatal_error_costs_no_push() {
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
    mock.fail(RDKafkaApiKey::Produce, &[FATAL]);
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

fn assert_survived(northbridge: &Northbridge) {
    for number in 0..2 {
        let body = message_confirm(&format!("r-{number}"), "d", "sent");
        let answer = post_with(northbridge.address(), "/notifications", &[], body);
        assert_eq!(answer.status, 200);
    }
    northbridge.wait_for_metric("northbridge_producer_restarts_total", &[], 1.0);
    northbridge.wait_for_message("the producer met a fatal error; a fresh one took over");
}
