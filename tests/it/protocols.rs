//! The HTTP versions on the push port, and the ways each can deliver a push.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;

use crate::support::bodies::message_confirm;
use crate::support::http::{Connection, RawConnection, Version, post_head};
use crate::support::mock::Mock;
use crate::support::records::Record;

const PATH: &str = "/notifications";
const TOPIC: &str = "iot.command-status";

#[test]
fn http_1_0_closes_after_the_answer_unless_keep_alive_is_requested() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let body = message_confirm("r", "d", "sent");
    let head = format!("POST {PATH} HTTP/1.0\r\ncontent-length: {}\r\n", body.len());
    let mut connection = RawConnection::open(northbridge.address());
    connection.write(format!("{head}\r\n{body}"));
    assert_eq!(connection.read_response().status, 200);
    assert!(connection.is_closed());

    let mut connection = RawConnection::open(northbridge.address());
    for _ in 0..2 {
        connection.write(format!("{head}connection: keep-alive\r\n\r\n{body}"));
        assert_eq!(connection.read_response().status, 200);
    }
    assert_eq!(mock.records(TOPIC).len(), 3);
}

#[test]
fn a_connection_is_kept_alive_after_any_status_if_the_body_was_read() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let mut connection = RawConnection::open(northbridge.address());
    for (path, body, status) in [
        (PATH, message_confirm("r", "d", "sent"), 200),
        (PATH, String::new(), 400),
        ("/elsewhere", String::new(), 404),
        (PATH, "no JSON".to_owned(), 200),
    ] {
        connection.write_post(path, &[], body);
        let answer = connection.read_response();
        assert_eq!((answer.status, answer.header("connection")), (status, None));
    }
    northbridge.wait_for_metric("northbridge_connections", &[], 1.0);
}

#[test]
fn a_refusal_over_an_unread_body_closes_the_connection() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[("http.max_body_bytes", "10")]);
    for (path, status) in [("/elsewhere", 404), (PATH, 413)] {
        for headers in [&[][..], &[("expect", "100-continue")]] {
            let mut connection = RawConnection::open(northbridge.address());
            connection.write(post_head(path, headers, 5_000));
            if headers.is_empty() {
                connection.write([b'x'; 5_000]);
            }
            let answer = connection.read_response();
            assert_eq!(answer.status, status, "{headers:?}");
            assert_eq!(answer.header("connection"), Some("close"), "{headers:?}");
            assert!(connection.is_closed_or_reset(), "{headers:?}");
        }
    }
}

#[test]
fn a_head_that_leaves_doubt_is_rejected_and_the_connection_closed() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let rows = [
        ("", 400),
        ("host: a\r\nhost: b\r\n", 400),
        ("host: a\r\ntransfer-encoding: gzip, chunked\r\n", 501),
        (
            "host: a\r\ntransfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n",
            501,
        ),
    ];
    for (fields, status) in rows {
        let mut connection = RawConnection::open(northbridge.address());
        connection.write(format!("POST {PATH} HTTP/1.1\r\n{fields}\r\n"));
        let answer = connection.read_response();
        assert_eq!(answer.status, status, "{fields}");
        assert_eq!(answer.header("connection"), Some("close"), "{fields}");
        assert!(connection.is_closed_or_reset(), "{fields}");
    }
    assert!(northbridge.metric("northbridge_pushes_received_total", &[]) < 0.5);
}

#[test]
fn responses_of_the_http_library_are_counted() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let long = "x".repeat(20_000);
    for (head, status) in [
        ("NONSENSE\r\n\r\n".to_owned(), 400),
        (post_head(PATH, &[("x-long", &long)], 0), 431),
    ] {
        let mut connection = RawConnection::open(northbridge.address());
        connection.write(head);
        assert_eq!(connection.read_response().status, status);
        let code = format!(r#"code="{status}""#);
        northbridge.wait_for_metric("northbridge_http_responses_total", &[&code], 1.0);
    }
}

#[test]
fn a_path_is_the_same_with_needless_escapes_and_dot_segments() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    for (path, status) in [
        ("/%6Eotifications", 200),
        ("/x/../notifications/", 200),
        ("/./notifications", 200),
        ("/notifications%2F", 404),
        ("/Notifications", 404),
    ] {
        let mut connection = RawConnection::open(northbridge.address());
        connection.write_post(path, &[], message_confirm("r", "d", "sent"));
        assert_eq!(connection.read_response().status, status, "{path}");
    }
}

#[test]
fn pipelined_pushes_are_answered_in_order() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let mut pipeline = String::new();
    for id in ["one", "two", "three"] {
        let body = message_confirm(id, "d", "sent");
        pipeline += &post_head(PATH, &[("x-request-id", id)], body.len());
        pipeline += &body;
    }
    let mut connection = RawConnection::open(northbridge.address());
    connection.write(pipeline);
    for id in ["one", "two", "three"] {
        let answer = connection.read_response();
        assert_eq!(
            (answer.status, answer.header("x-request-id")),
            (200, Some(id))
        );
    }
    assert_eq!(mock.records(TOPIC).len(), 3);
}

#[test]
fn a_chunked_body_is_stored_without_its_transfer_coding() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let body = message_confirm("r", "d", "sent");
    let mut connection = RawConnection::open(northbridge.address());
    let head = format!("POST {PATH} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
    connection.write(head);
    for byte in body.as_bytes() {
        connection.write(format!("1;extension=x\r\n{}\r\n", char::from(*byte)));
    }
    connection.write("0\r\ntrailer: x\r\n\r\n");
    let answer = connection.read_response();
    assert_eq!((answer.status, answer.header("connection")), (200, None));
    assert_eq!(only_value(&mock.records(TOPIC)), body);
    let empty =
        format!("POST {PATH} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n");
    connection.write(empty);
    let answer = connection.read_response();
    assert_eq!((answer.status, answer.header("connection")), (400, None));
}

#[test]
fn a_push_that_arrives_byte_by_byte_is_stored() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let body = message_confirm("r", "d", "sent");
    let mut connection = RawConnection::open(northbridge.address());
    for byte in format!("{}{body}", post_head(PATH, &[], body.len())).as_bytes() {
        connection.write([*byte]);
    }
    assert_eq!(connection.read_response().status, 200);
    assert_eq!(only_value(&mock.records(TOPIC)), body);
}

#[test]
fn expect_100_continue_is_answered_100() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let body = message_confirm("r", "d", "sent");
    let mut connection = RawConnection::open(northbridge.address());
    connection.write(post_head(PATH, &[("expect", "100-continue")], body.len()));
    assert_eq!(connection.read_response().status, 100);
    connection.write(&body);
    assert_eq!(connection.read_response().status, 200);
    assert_eq!(only_value(&mock.records(TOPIC)), body);
}

#[test]
fn expect_100_continue_is_answered_with_the_rejection_if_there_is_one() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let brotli = ("content-encoding", "br");
    for (path, header, length, status) in [
        (PATH, ("x", "y"), 2_000_000, 413),
        (PATH, brotli, 10, 415),
        ("/elsewhere", ("x", "y"), 10, 404),
    ] {
        let mut connection = RawConnection::open(northbridge.address());
        let head = post_head(path, &[("expect", "100-continue"), header], length);
        connection.write(head);
        assert_eq!(connection.read_response().status, status);
    }
}

#[tokio::test]
async fn http_2_carries_concurrent_pushes_on_one_connection() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    mock.set_round_trip(Duration::from_millis(1500));
    let connection = Connection::open(northbridge.address(), Version::Http2).await;
    let Ok(Connection::Http2(sender)) = connection else {
        panic!("{connection:?}")
    };
    let mut pushes = tokio::task::JoinSet::new();
    for number in 0..20 {
        let body = message_confirm(&format!("r-{number}"), "d", "sent");
        let request = Request::post(format!("http://northbridge.test{PATH}"));
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        let mut sender = sender.clone();
        pushes.spawn(async move { sender.send_request(request).await.unwrap().status() });
    }
    let all_in_flight = tokio::task::spawn_blocking(move || {
        northbridge.wait_for_metric("northbridge_pushes_in_flight", &[], 20.0);
        northbridge
    });
    let _northbridge = all_in_flight.await.unwrap();
    let answers: BTreeSet<_> = pushes.join_all().await.into_iter().collect();
    assert_eq!(answers, BTreeSet::from([hyper::StatusCode::OK]));
    mock.set_round_trip(Duration::ZERO);
    assert_eq!(mock.records(TOPIC).len(), 20);
}

#[tokio::test]
async fn http_2_rejects_with_the_same_statuses() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[("http.max_body_bytes", "1000")]);
    let mut connection = Connection::open(northbridge.address(), Version::Http2)
        .await
        .unwrap();
    for (path, body, status) in [
        (PATH, message_confirm("r", "d", "sent"), 200),
        (PATH, String::new(), 400),
        ("/elsewhere", "x".to_owned(), 404),
        (PATH, "x".repeat(1001), 413),
        (PATH, message_confirm("r", "d", "executed"), 200),
    ] {
        assert_eq!(connection.post(path, body).await.unwrap().status, status);
    }
}

fn only_value(records: &[Record]) -> String {
    assert_eq!(records.len(), 1);
    records[0].value_text()
}
