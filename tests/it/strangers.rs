//! Connections that bring no authorized push: they are closed, and keep nobody out.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use hyper::Request;
use tokio::net::TcpSocket;
use tokio::time::sleep;

use crate::protected_listener::{PATH, body, closed, push, request, request_bytes};
use crate::support::eventually;
use crate::support::http::{Connection, RawConnection, Response, Version, post_head};
use crate::support::mock::Mock;
use crate::support::northbridge::Northbridge;

/// The tests' own connections come from 127.0.0.1.
const OTHERS_ONLY: (&str, &str) = ("auth.allowed_addresses", "127.0.0.2");

#[tokio::test(flavor = "multi_thread")]
async fn a_forbidden_address_is_closed_at_accept_and_takes_no_place() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[OTHERS_ONLY, ("limits.max_connections", "2")]);
    let mut strangers: Vec<_> = (0..5)
        .map(|_| RawConnection::open(northbridge.address()))
        .collect();
    for stranger in &mut strangers {
        assert!(stranger.is_closed_or_reset());
    }
    let answer = push_from("127.0.0.2", northbridge.address()).await;
    assert_eq!(answer.status, 200);
    wait_for_closed(&northbridge, "forbidden", 5);
    assert!(northbridge.metric("northbridge_pushes_received_total", &[]) < 1.5);
}

#[test]
fn a_refusal_closes_an_http_1_connection() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[("auth.token", "s3cret")]);
    let mut connection = RawConnection::open(northbridge.address());
    connection.write(request_bytes(PATH, &[]));
    let answer = connection.read_response();
    assert_eq!(
        (answer.status, answer.header("connection")),
        (401, Some("close"))
    );
    assert!(connection.is_closed_or_reset());
    wait_for_closed(&northbridge, "refused", 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_closes_an_http_2_connection_after_the_answers_to_all_its_requests() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[("auth.token", "s3cret")]);
    let stream = tokio::net::TcpStream::connect(northbridge.address())
        .await
        .unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    let ended = tokio::spawn(connection);
    let answers: Vec<_> = ["?token=s3cret", "", "?token=s3cret"]
        .into_iter()
        .map(|query| {
            let uri = format!("http://northbridge.test{PATH}{query}");
            let request = Request::post(uri).body(()).unwrap();
            let (answer, mut stream) = sender.send_request(request, false).unwrap();
            stream.send_data(Bytes::from(body()), true).unwrap();
            answer
        })
        .collect();
    let mut statuses = Vec::new();
    for answer in answers {
        statuses.push(answer.await.unwrap().status().as_u16());
    }
    assert_eq!(statuses, [200, 401, 200]);
    ended.await.unwrap().unwrap();
    wait_for_closed(&northbridge, "refused", 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_an_authorized_push_is_closed_in_time() {
    let mock = Mock::start();
    let settings = [
        ("auth.token", "s3cret"),
        ("limits.first_push_timeout_ms", "1000"),
        ("http.header_timeout_ms", "60000"),
    ];
    let northbridge = mock.ready_ingress(&settings);
    let with_token = format!("{PATH}?token=s3cret");
    let mut known = RawConnection::open(northbridge.address());
    known.write(request_bytes(&with_token, &[]));
    assert_eq!(known.read_response().status, 200);

    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let elsewhere = post_head("/elsewhere", &[], 0);
    let starts: [&[u8]; 4] = [b"", b"POST /notifi", preface, elsewhere.as_bytes()];
    let mut strangers: Vec<_> = starts
        .map(|start| {
            let mut stranger = RawConnection::open(northbridge.address());
            stranger.write(start);
            stranger
        })
        .into();
    wait_for_closed(&northbridge, "no-push", strangers.len());
    assert!(strangers[0].is_closed_or_reset());
    known.write(request_bytes(&with_token, &[]));
    assert_eq!(known.read_response().status, 200);
}

#[test]
fn at_the_limit_the_idlest_stranger_gives_way() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[("limits.max_connections", "3")]);
    let mut known = RawConnection::open(northbridge.address());
    known.write(request_bytes(PATH, &[]));
    assert_eq!(known.read_response().status, 200);
    let mut strangers: Vec<_> = (1..=2)
        .map(|number| {
            let stranger = RawConnection::open(northbridge.address());
            let open = f64::from(number + 1);
            northbridge.wait_for_metric("northbridge_connections", &[], open);
            stranger
        })
        .collect();
    // The second one has been idle longest then.
    strangers[0].write("POST");
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(push(northbridge.address(), PATH, &[]).status, 200);
    assert!(strangers[1].is_closed_or_reset());
    wait_for_closed(&northbridge, "evicted", 1);
    known.write(request_bytes(PATH, &[]));
    assert_eq!(known.read_response().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connections_of_one_address_are_limited() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[("limits.max_connections_per_address", "2")]);
    let mut near: Vec<_> = (0..3)
        .map(|_| RawConnection::open(northbridge.address()))
        .collect();
    wait_for_closed(&northbridge, "address-limit", 1);
    let answer = push_from("127.0.0.2", northbridge.address()).await;
    assert_eq!(answer.status, 200);
    drop(near.pop());
    drop(near.pop());
    drop(near.pop());
    eventually("a place is free", || {
        let mut connection = RawConnection::open(northbridge.address());
        connection.try_write(request_bytes(PATH, &[])).ok()?;
        let answer = connection.try_read_response()?;
        (answer.status == 200).then_some(())
    });
}

/// The platform opens a connection for a push, and every place is taken.
#[tokio::test(flavor = "multi_thread")]
async fn strangers_of_every_kind_keep_no_push_waiting() {
    const STRANGERS: u32 = 2_000;
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[
        ("auth.token", "s3cret"),
        ("limits.max_connections", "500"),
        ("limits.first_push_timeout_ms", "60000"),
        ("http.header_timeout_ms", "60000"),
    ]);
    let address = northbridge.address();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let unauthorized = request_bytes(PATH, &[]);
    let starts: [&[u8]; 4] = [b"", b"POST /no", preface, unauthorized.as_bytes()];
    let mut strangers = Vec::new();
    for number in 0..STRANGERS {
        let mut stranger = RawConnection::open(address);
        let start = starts[usize::try_from(number).unwrap() % starts.len()];
        // Another stranger may have taken its place.
        let _ = stranger.try_write(start);
        strangers.push(stranger);
        if number % 100 == 99 {
            let pushed = push(address, &format!("{PATH}?token=s3cret"), &[]);
            assert_eq!(pushed.status, 200, "after {number} strangers");
        }
    }
    let evicted = closed(&northbridge, "evicted");
    assert!(evicted > 500, "{evicted}");
}

/// Over HTTP/2 a client decides how much of an answer may be sent (RFC 9113, 5.2).
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_a_client_does_not_take_closes_its_connection() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    for window in [0, 1] {
        let stream = tokio::net::TcpStream::connect(northbridge.address())
            .await
            .unwrap();
        let mut client = h2::client::Builder::new();
        client.initial_window_size(window);
        let (mut sender, connection) = client.handshake::<_, Bytes>(stream).await.unwrap();
        let ended = tokio::spawn(connection);
        let request = |path: &str| {
            let uri = format!("http://northbridge.test{path}");
            Request::post(uri).body(()).unwrap()
        };
        // Other requests, whose answers have no body, go on meanwhile.
        let (stuck, _) = sender.send_request(request("/elsewhere"), true).unwrap();
        let answer = stuck.await.unwrap();
        assert_eq!(answer.status(), 404, "window {window}");
        while !ended.is_finished() {
            let Ok((answer, mut stream)) = sender.send_request(request(PATH), false) else {
                break;
            };
            if stream.send_data(Bytes::from(body()), true).is_err() || answer.await.is_err() {
                break;
            }
            sleep(Duration::from_millis(200)).await;
        }
    }
    wait_for_closed(&northbridge, "write-stalled", 2);
}

/// A head is a thousand times larger than on the wire if its fields are indexed
/// (RFC 7541), and its request may wait for a body that never comes.
#[tokio::test(flavor = "multi_thread")]
async fn heads_take_no_memory_while_their_requests_wait() {
    const FIELDS: usize = 300;
    // A kept head takes 37 kB more; what the allocator does not give back, 12 kB.
    const MOST_BYTES: f64 = 20_000.0;
    let [short, long] = [
        bytes_of_a_waiting_push(0).await,
        bytes_of_a_waiting_push(FIELDS).await,
    ];
    println!("{short} bytes a push with a short head, {long} with a long one");
    assert!(long - short < MOST_BYTES, "{short} and {long} bytes a push");
}

/// The memory of a push whose body does not come.
async fn bytes_of_a_waiting_push(fields: usize) -> f64 {
    const CONNECTIONS: u32 = 10;
    const STREAMS: u32 = 100;
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let resident = || northbridge.metric("process_resident_memory_bytes", &[]);
    let before = resident();
    let mut kept = Vec::new();
    for _ in 0..CONNECTIONS {
        let stream = tokio::net::TcpStream::connect(northbridge.address())
            .await
            .unwrap();
        let client = h2::client::Builder::new();
        let (mut sender, connection) = client.handshake::<_, Bytes>(stream).await.unwrap();
        tokio::spawn(connection);
        for _ in 0..STREAMS {
            let mut request = Request::post(format!("http://northbridge.test{PATH}"));
            for _ in 0..fields {
                request = request.header("x-field", "value");
            }
            let request = request.header("content-length", "1").body(()).unwrap();
            sender = sender.ready().await.unwrap();
            kept.push(sender.send_request(request, false).unwrap());
        }
    }
    let pushes = f64::from(CONNECTIONS * STREAMS);
    northbridge.wait_for_metric("northbridge_pushes_in_flight", &[], pushes);
    let reserved = northbridge.metric("northbridge_in_flight_bytes", &[]);
    assert!(reserved >= pushes * 6_144.0, "{reserved}");
    let each = (resident() - before) / pushes;
    drop(kept);
    each
}

#[test]
fn strangers_neither_raise_nor_hide_failed_pushes() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[("auth.token", "s3cret")]);
    let with_token = format!("{PATH}?token=s3cret");
    let failed = "northbridge_consecutive_failed_pushes";
    for _ in 0..3 {
        assert_eq!(push(northbridge.address(), PATH, &[]).status, 401);
    }
    let refusals = "northbridge_gate_refusals_total";
    northbridge.wait_for_metric(refusals, &[r#"reason="unauthorized""#], 3.0);
    assert!(northbridge.metric(failed, &[]) < 0.5);

    for (headers, status) in [(&[][..], 400), (&[("content-encoding", "br")], 415)] {
        let mut connection = RawConnection::open(northbridge.address());
        connection.write(post_head(&with_token, headers, 0));
        assert_eq!(connection.read_response().status, status);
    }
    northbridge.wait_for_metric(failed, &[], 2.0);
    push(northbridge.address(), PATH, &[]);
    northbridge.wait_for_metric(refusals, &[], 4.0);
    assert!((northbridge.metric(failed, &[]) - 2.0).abs() < 0.5);
}

async fn push_from(source: &str, address: SocketAddr) -> Response {
    let socket = TcpSocket::new_v4().unwrap();
    socket
        .bind(SocketAddr::new(source.parse().unwrap(), 0))
        .unwrap();
    let stream = socket.connect(address).await.unwrap();
    let connection = Connection::over(stream, Version::Http1).await;
    connection.unwrap().send(request(PATH, &[])).await.unwrap()
}

fn wait_for_closed(northbridge: &Northbridge, reason: &str, count: usize) {
    eventually(&format!("{count} connections are closed: {reason}"), || {
        (closed(northbridge, reason) == count).then_some(())
    });
}
