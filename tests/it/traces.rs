//! Traces: the spans of a push and of its record, and what a collector that is away
//! costs.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::bodies::message_confirm;
use crate::support::certificates::Certificates;
use crate::support::collector::{Collector, Span};
use crate::support::eventually;
use crate::support::http::{RawConnection, post_with};
use crate::support::load::{Answer, Load};
use crate::support::mock::{Mock, TOPICS};
use crate::support::northbridge::Northbridge;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
const DROPPED: &str = "northbridge_telemetry_spans_dropped_total";
const EXPORTED: &str = "northbridge_telemetry_spans_exported_total";

#[test]
fn a_push_continues_its_trace_and_its_record_the_span_that_sends_it() {
    let (mock, collector) = (Mock::start(), Collector::start());
    let northbridge = ingress(&mock, &collector, &[("auth.token", "s3cret")]);
    let body = message_confirm("r-1", "d-1", "sent");
    let headers = [
        ("traceparent", &*traceparent("01")),
        ("x-request-id", "job-17"),
    ];
    let answer = post_with(
        northbridge.address(),
        "/notifications/?token=s3cret",
        &headers,
        &body,
    );
    assert_eq!(answer.status, 200);

    let server = collector.wait_for_span("POST /notifications");
    assert_eq!((&*server.trace, &*server.parent), (TRACE, PARENT));
    assert_eq!(server.kind, SpanKind::Server);
    assert!(!server.is_error && server.nanoseconds > 0);
    let client = ("client.address", "127.0.0.1");
    let expected = [
        ("http.request.method", "POST"),
        ("http.route", "/notifications"),
        ("url.path", "/notifications"),
        ("url.scheme", "http"),
        ("network.protocol.version", "1.1"),
        client,
        ("http.response.header.x-request-id", "[job-17]"),
        ("http.response.status_code", "200"),
    ];
    assert_eq!(attributes(&server), expected);

    let record = mock.records(TOPICS[0]).remove(0);
    let send = collector.wait_for_span("send iot.command-status");
    assert_eq!((&*send.trace, &send.parent), (TRACE, &server.id));
    assert_eq!(send.kind, SpanKind::Producer);
    assert!(!send.is_error && send.nanoseconds <= server.nanoseconds);
    let expected = [
        ("messaging.system", "kafka"),
        ("messaging.operation.name", "send"),
        ("messaging.operation.type", "send"),
        ("messaging.destination.name", "iot.command-status"),
        ("messaging.message.body.size", &*body.len().to_string()),
        ("messaging.kafka.message.key", "r-1"),
        (
            "messaging.destination.partition.id",
            &*record.partition.to_string(),
        ),
        ("messaging.kafka.offset", &*record.offset.to_string()),
    ];
    assert_eq!(attributes(&send), expected);
    let expected = format!("00-{TRACE}-{}-01", send.id);
    assert_eq!(record.header("traceparent"), Some(&*expected));
    northbridge.wait_for_metric(EXPORTED, &[], 2.0);
}

#[test]
fn a_request_that_reaches_the_collector_has_its_headers_and_no_secret_of_the_listener() {
    let (mock, collector) = (Mock::start(), Collector::start());
    let northbridge = ingress(
        &mock,
        &collector,
        &[
            ("auth.token", "s3cret"),
            ("auth.basic.username", "platform"),
            ("auth.basic.password", "passw0rd"),
            ("http.paths", "/push/{token}"),
            ("telemetry.headers", "Authorization: Bearer c0llector"),
        ],
    );
    let headers = [
        ("traceparent", &*traceparent("01")),
        // platform:passw0rd
        ("authorization", "Basic cGxhdGZvcm06cGFzc3cwcmQ="),
    ];
    let body = r#"{"notifyType":"bindDevice","deviceId":"d-1","secret":"of the body"}"#;
    let answer = post_with(northbridge.address(), "/push/s3cret", &headers, body);
    assert_eq!(answer.status, 200);
    collector.wait_for_span("POST /push/%7Btoken%7D");
    let request = collector.requests().remove(0);
    assert_eq!(request.path, "/v1/traces");
    assert_eq!(request.headers["content-type"], "application/x-protobuf");
    assert_eq!(request.headers["authorization"], "Bearer c0llector");
    let sent = String::from_utf8_lossy(&request.body).into_owned();
    for secret in ["s3cret", "passw0rd", "cGxhdG", "c0llector", "of the body"] {
        assert!(!sent.contains(secret), "{secret}");
    }
    let resource = request.resource();
    let named = |name: &str| resource.iter().find(|(found, _)| found == name).cloned();
    assert_eq!(named("service.name").unwrap().1, "northbridge-ingress");
    assert!(named("service.instance.id").is_some());
    let log = northbridge.log().join("\n");
    assert!(!log.contains("c0llector"), "{log}");
}

#[test]
fn a_push_that_is_not_sampled_has_no_span_and_its_record_what_the_request_had() {
    let (mock, collector) = (Mock::start(), Collector::start());
    let settings = [("telemetry.sampling_ratio", "0")];
    let northbridge = ingress(&mock, &collector, &settings);
    let unsampled = traceparent("00");
    push(&northbridge, "r-1", &[("traceparent", &unsampled)]);
    push(&northbridge, "r-2", &[]);
    push(&northbridge, "r-3", &[("traceparent", &traceparent("01"))]);
    collector.wait_for_span("send iot.command-status");
    assert_eq!(collector.spans().len(), 2);
    let records = mock.records(TOPICS[0]);
    let header = |key: &str| {
        let record = records.iter().find(|record| record.key_text() == key);
        record.unwrap().header("traceparent").map(str::to_owned)
    };
    assert_eq!(header("r-1"), Some(unsampled));
    assert_eq!(header("r-2"), None);
}

#[test]
fn a_push_without_a_traceparent_starts_a_trace_if_it_is_sampled() {
    let (mock, collector) = (Mock::start(), Collector::start());
    let settings = [("telemetry.sampling_ratio", "1")];
    let northbridge = ingress(&mock, &collector, &settings);
    push(&northbridge, "r-1", &[("traceparent", &traceparent("00"))]);
    push(&northbridge, "r-2", &[]);
    let server = collector.wait_for_span("POST /notifications");
    let send = collector.wait_for_span("send iot.command-status");
    assert_eq!(server.parent, "");
    assert_eq!((send.trace, send.parent), (server.trace.clone(), server.id));
    assert_eq!(collector.spans().len(), 2);
    assert_ne!(server.trace, TRACE);
}

#[test]
fn a_push_that_the_gate_refuses_is_not_traced_and_one_that_fails_says_why() {
    let (mock, collector) = (Mock::start(), Collector::start());
    let settings = [
        ("auth.token", "s3cret"),
        ("http.answer_deadline_ms", "3000"),
        ("http.body_timeout_ms", "1000"),
    ];
    let northbridge = ingress(&mock, &collector, &settings);
    let sampled = traceparent("01");
    let headers = [("traceparent", &*sampled)];
    let post = |token: &str, body: &str| {
        let path = format!("/notifications?token={token}");
        post_with(northbridge.address(), &path, &headers, body).status
    };
    assert_eq!(post("wrong", "{}"), 401);
    assert_eq!(post("s3cret", ""), 400);
    mock.go_down();
    assert_eq!(post("s3cret", &message_confirm("r", "d", "sent")), 503);
    let mut connection = RawConnection::open(northbridge.address());
    connection.write(format!(
        "POST /notifications?token=s3cret HTTP/1.1\r\nhost: a\r\ntraceparent: {sampled}\r\ncontent-length: 9\r\n\r\n{{"
    ));
    drop(connection);
    northbridge.wait_for_outcome("disconnected", 1);
    mock.come_back();
    let send = collector.wait_for_span("send iot.command-status");
    northbridge.wait_for_metric(EXPORTED, &[], 4.0);
    let status = |span: &Span| {
        span.attribute("http.response.status_code")
            .map(str::to_owned)
    };
    let error = |span: &Span| span.attribute("error.type").map(str::to_owned);
    let spans = collector.spans();
    let servers = spans.iter().filter(|span| span.kind == SpanKind::Server);
    let mut servers: Vec<_> = servers
        .map(|span| (status(span), error(span), span.is_error))
        .collect();
    servers.sort();
    let some = |text: &str| Some(text.to_owned());
    let expected = [
        (None, some("disconnected"), true),
        (some("400"), None, false),
        (some("503"), some("unconfirmed"), true),
    ];
    assert_eq!(servers, expected);
    // Kafka took the record after the answer.
    assert_eq!(error(&send), None);
    assert!(send.nanoseconds > 2_000_000_000);
}

#[test]
fn without_an_endpoint_the_header_is_passed_on_and_nothing_is_exported() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    // A trace of no id is none, but this is not for northbridge to decide.
    let header = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";
    push(&northbridge, "r-1", &[("traceparent", header)]);
    let record = mock.records(TOPICS[0]).remove(0);
    assert_eq!(record.header("traceparent"), Some(header));
    northbridge.wait_for_metric(EXPORTED, &[], 0.0);
    northbridge.wait_for_metric(DROPPED, &[], 0.0);
}

#[test]
fn a_collector_that_is_away_costs_no_push_and_no_clean_end() {
    let mock = Mock::start();
    let away = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", away.local_addr().unwrap());
    drop(away);
    let northbridge = mock.ready_ingress(&[
        ("telemetry.otlp_endpoint", &*endpoint),
        ("telemetry.sampling_ratio", "1"),
    ]);
    let load = Load {
        rate_per_s: 400,
        connections: 8,
        ..Load::to(northbridge.address())
    };
    let running = load.start();
    for _ in 0..5 {
        running.wait_for_answers(500);
    }
    let report = running.stop();
    let failed = report
        .pushes
        .iter()
        .find(|push| push.answer != Answer::Status(200));
    assert!(failed.is_none(), "{failed:?}");
    // Two spans for each push, of which the queue and one batch hold 4,608.
    let dropped = northbridge.metric(DROPPED, &[]);
    assert!(dropped >= 2.0 * 2_500.0 - 4_608.0, "{dropped}");
    let began = Instant::now();
    northbridge.signal(Signal::TERM);
    assert_eq!(northbridge.wait(), 0);
    assert!(began.elapsed() < Duration::from_secs(5));
    let log = northbridge.log();
    let lines = log.iter().filter(|line| line.contains("to the collector"));
    assert_eq!(lines.count(), 1);
}

#[test]
fn spans_wait_for_a_collector_that_comes_back() {
    let (mock, collector) = (Mock::start(), Collector::start());
    collector.set_status(503);
    let northbridge = ingress(&mock, &collector, &[]);
    push(&northbridge, "r-1", &[("traceparent", &traceparent("01"))]);
    northbridge.wait_for_log(|line| line.contains("cannot send traces to the collector"));
    collector.set_status(200);
    collector.wait_for_span("send iot.command-status");
    northbridge.wait_for_log(|line| line.contains("collector accepts traces again"));
    northbridge.wait_for_metric(DROPPED, &[], 0.0);
}

#[test]
fn spans_that_the_collector_rejects_are_dropped_and_counted() {
    let (mock, collector) = (Mock::start(), Collector::start());
    let northbridge = ingress(&mock, &collector, &[]);
    collector.reject_spans(1);
    push(&northbridge, "r-1", &[("traceparent", &traceparent("01"))]);
    northbridge.wait_for_metric(DROPPED, &[], 1.0);
    northbridge.wait_for_metric(EXPORTED, &[], 1.0);
    collector.set_status(401);
    push(&northbridge, "r-2", &[("traceparent", &traceparent("01"))]);
    northbridge.wait_for_metric(DROPPED, &[], 3.0);
    northbridge.wait_for_log(|line| line.contains("collector rejects traces"));
    assert_eq!(collector.requests().len(), 2);
}

#[test]
fn a_drain_sends_the_last_spans_and_waits_at_most_a_second_for_it() {
    let (mock, collector) = (Mock::start(), Collector::start());
    let sampled = traceparent("01");
    let headers = [("traceparent", &*sampled)];
    let northbridge = ingress(&mock, &collector, &[]);
    push(&northbridge, "r-1", &headers);
    northbridge.signal(Signal::TERM);
    assert_eq!(northbridge.wait(), 0);
    assert_eq!(collector.spans().len(), 2);
    let is_late = |line: &str| line.contains("did not take the last spans in time");
    assert!(!northbridge.log().iter().any(|line| is_late(line)));

    collector.set_delay(Duration::from_secs(60));
    let northbridge = ingress(&mock, &collector, &[]);
    push(&northbridge, "r-2", &headers);
    let began = Instant::now();
    northbridge.signal(Signal::TERM);
    assert_eq!(northbridge.wait(), 0);
    assert!(began.elapsed() < Duration::from_secs(5));
    northbridge.wait_for_log(is_late);
}

#[tokio::test]
async fn a_batch_of_a_stream_links_to_the_spans_that_sent_its_records() {
    let collector = Collector::start();
    let endpoint = collector.endpoint();
    let dev = Northbridge::start(
        &["dev"],
        &[
            ("telemetry.otlp_endpoint", &*endpoint),
            ("telemetry.sampling_ratio", "0"),
            ("log.level", "info"),
        ],
    );
    dev.wait_until_ready();
    push(&dev, "r-0", &[("traceparent", &traceparent("00"))]);
    dev.wait_for_output(|line| line.contains("state   command-status  key r-0"));
    push(&dev, "r-1", &[("traceparent", &traceparent("01"))]);
    let process = collector.wait_for_span("process iot.command-status");
    let send = collector.wait_for_span("send iot.command-status");
    assert_eq!(process.kind, SpanKind::Consumer);
    assert_eq!(process.links, [(send.trace.clone(), send.id.clone())]);
    assert_eq!(process.parent, "");
    assert_ne!(process.trace, TRACE);
    let partition = send
        .attribute("messaging.destination.partition.id")
        .unwrap();
    let expected = [
        ("messaging.system", "kafka"),
        ("messaging.operation.name", "process"),
        ("messaging.operation.type", "process"),
        ("messaging.destination.name", "iot.command-status"),
        (
            "messaging.consumer.group.name",
            "northbridge.iot.command-status",
        ),
        ("messaging.destination.partition.id", partition),
        ("messaging.batch.message_count", "1"),
    ];
    assert_eq!(attributes(&process), expected);
    // The batch of the push that is not sampled has no span.
    let spans = collector.spans();
    let batches = spans.iter().filter(|span| span.kind == SpanKind::Consumer);
    assert_eq!(batches.count(), 1);
}

#[test]
fn a_collector_is_trusted_if_its_certificate_is_from_an_authority_of_the_system() {
    let (mock, certificates) = (Mock::start(), Certificates::new());
    let collector = Collector::start_with_tls(&certificates);
    let endpoint = collector.endpoint();
    let settings = [("telemetry.otlp_endpoint", &*endpoint)];
    let ca = certificates.ca_file().display().to_string();
    let trusting = mock.ingress_in_environment(&settings, &[("SSL_CERT_FILE", ca)]);
    trusting.wait_until_ready();
    push(&trusting, "r-1", &[("traceparent", &traceparent("01"))]);
    collector.wait_for_span("send iot.command-status");

    let others = Certificates::new();
    let ca = others.ca_file().display().to_string();
    let strict = mock.ingress_in_environment(&settings, &[("SSL_CERT_FILE", ca)]);
    strict.wait_until_ready();
    push(&strict, "r-2", &[("traceparent", &traceparent("01"))]);
    strict.wait_for_log(|line| line.contains("cannot send traces") && line.contains("certificate"));
    assert_eq!(collector.spans().len(), 2);
}

#[test]
fn a_spooled_push_says_so_and_its_record_continues_the_same_span() {
    let (mock, collector) = (Mock::start(), Collector::start());
    let spool = TempDir::new().unwrap();
    let northbridge = ingress(
        &mock,
        &collector,
        &[
            ("spool.directory", spool.path().to_str().unwrap()),
            ("spool.after_ms", "200"),
            ("http.body_timeout_ms", "1000"),
            ("http.answer_deadline_ms", "4000"),
        ],
    );
    mock.go_down();
    // librdkafka may hold the first one already, of which a copy is spooled.
    for request_id in ["r-1", "r-2"] {
        let headers = [("traceparent", &*traceparent("01"))];
        push(&northbridge, request_id, &headers);
    }
    let send = eventually("a record is spooled", || {
        let spans = collector.spans().into_iter();
        let mut sends = spans.filter(|span| span.kind == SpanKind::Producer);
        sends.find(|span| span.attribute("northbridge.stored") == Some("spool"))
    });
    assert_eq!(send.attribute("messaging.kafka.offset"), None);
    assert!(!send.is_error);
    eventually("both pushes have a span that says so", || {
        let spans = collector.spans();
        let servers = spans.iter().filter(|span| {
            span.kind == SpanKind::Server && span.attribute("northbridge.stored") == Some("spool")
        });
        (servers.count() == 2).then_some(())
    });
    mock.come_back();
    northbridge.wait_for_metric("northbridge_spool_records", &[], 0.0);
    let records = mock.records(TOPICS[0]);
    let key = send.attribute("messaging.kafka.message.key").unwrap();
    let record = records.iter().find(|record| record.key_text() == key);
    let expected = format!("00-{TRACE}-{}-01", send.id);
    assert_eq!(record.unwrap().header("traceparent"), Some(&*expected));
}

fn ingress(mock: &Mock, collector: &Collector, settings: &[(&str, &str)]) -> Northbridge {
    let endpoint = collector.endpoint();
    let mut all = vec![("telemetry.otlp_endpoint", &*endpoint)];
    all.extend(settings);
    mock.ready_ingress(&all)
}

fn traceparent(flags: &str) -> String {
    format!("00-{TRACE}-{PARENT}-{flags}")
}

fn push(northbridge: &Northbridge, request_id: &str, headers: &[(&str, &str)]) {
    let body = message_confirm(request_id, "d-1", "sent");
    let answer = post_with(northbridge.address(), "/notifications", headers, body);
    assert_eq!(answer.status, 200);
}

fn attributes(span: &Span) -> Vec<(&str, &str)> {
    let attributes = span.attributes.iter();
    attributes
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}
