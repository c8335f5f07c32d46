//! Limits on what one client can cost: time, head size, connections, streams,
//! memory.

use std::net::{SocketAddr, TcpStream};

use tokio::net::TcpSocket;

use crate::support::bodies::message_confirm;
use crate::support::eventually;
use crate::support::http::{RawConnection, post_head, post_with};
use crate::support::mock::Mock;
use crate::support::northbridge::Northbridge;

const PATH: &str = "/notifications";

#[test]
fn a_connection_without_a_complete_head_times_out() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[("http.header_timeout_ms", "300")]);
    for start in ["", "POST", "POST /notifications HTTP/1.1\r\nhost: x\r\n"] {
        let mut connection = RawConnection::open(northbridge.address());
        connection.write(start);
        assert!(connection.is_closed_or_reset(), "after {start:?}");
    }
    let closed = "northbridge_connections_closed_total";
    northbridge.wait_for_metric(closed, &[r#"reason="head-timeout""#], 3.0);
    assert!(northbridge.metric("northbridge_pushes_received_total", &[]) < 1.0);
}

#[test]
fn the_head_timeout_applies_to_every_request_of_a_connection() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[("http.header_timeout_ms", "300")]);
    let mut connection = RawConnection::open(northbridge.address());
    connection.write_post(PATH, &[], message_confirm("r", "d", "sent"));
    assert_eq!(connection.read_response().status, 200);
    connection.write("POST /noti");
    assert!(connection.is_closed_or_reset());
    let closed = "northbridge_connections_closed_total";
    northbridge.wait_for_metric(closed, &[r#"reason="head-timeout""#], 1.0);
}

#[test]
fn a_head_above_the_size_limit_is_answered_431() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[("http.max_head_bytes", "8192")]);
    let long = "x".repeat(10_000);
    let mut connection = RawConnection::open(northbridge.address());
    connection.write(post_head(PATH, &[("x-long", &long)], 0));
    assert_eq!(connection.read_response().status, 431);
    assert!(connection.is_closed_or_reset());
}

#[test]
fn an_idle_connection_is_closed_and_an_active_one_is_kept() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[("http.keep_alive_timeout_ms", "1000")]);
    let mut idle = RawConnection::open(northbridge.address());
    let mut used = RawConnection::open(northbridge.address());
    push(&mut idle);
    push(&mut used);
    let closed = "northbridge_connections_closed_total";
    eventually("the idle connection is closed", || {
        push(&mut used);
        let idle = northbridge.metric(closed, &[r#"reason="keep-alive""#]);
        (idle > 0.0).then_some(())
    });
    assert!(idle.is_closed_or_reset());
    push(&mut used);
}

#[test]
fn connections_above_the_limit_wait_for_a_free_slot() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[("limits.max_connections", "2")]);
    let mut first = RawConnection::open(northbridge.address());
    let mut second = RawConnection::open(northbridge.address());
    push(&mut first);
    push(&mut second);
    let mut third = RawConnection::open(northbridge.address());
    third.write_post(PATH, &[], message_confirm("third", "d", "sent"));
    // The first two stay served; the third's push is not received in the meantime.
    push(&mut first);
    push(&mut second);
    northbridge.wait_for_metric("northbridge_pushes_received_total", &[], 4.0);
    northbridge.wait_for_metric("northbridge_connections", &[], 2.0);
    drop(first);
    assert_eq!(third.read_response().status, 200);
}

#[test]
fn http_2_announces_its_maximum_concurrent_streams() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[("http.http2_max_streams", "4")]);
    let mut connection = RawConnection::open(northbridge.address());
    // RFC 9113: the preface (section 3.4), then an empty SETTINGS frame (6.5).
    connection.write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    connection.write([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    let head = connection.read_bytes(9);
    assert_eq!(head[3], 4, "the first frame is SETTINGS");
    let settings = connection.read_bytes(usize::from(head[2]));
    // SETTINGS_MAX_CONCURRENT_STREAMS has the identifier 3 (section 6.5.2).
    let expected = [0, 3, 0, 0, 0, 4];
    assert!(
        settings.chunks(6).any(|setting| setting == expected),
        "{settings:?}"
    );
}

/// Connections from an address of their own: so many from 127.0.0.1 would take the ports
/// on which other tests start and restart brokers.
fn connections_from_elsewhere(to: SocketAddr, many: u32) -> Vec<TcpStream> {
    let from = SocketAddr::from(([127, 0, 0, 9], 0));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(async {
        let mut connections = Vec::new();
        for _ in 0..many {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(from).unwrap();
            let connected = socket.connect(to).await.unwrap();
            connections.push(connected.into_std().unwrap());
        }
        connections
    })
}

/// Opens as many connections as the hard limit of open files allows; the limit
/// applies to this process and to the program alike.
#[test]
fn tens_of_thousands_of_idle_connections_do_not_block_pushes() {
    const OTHER_FILES: u64 = 1_000;
    const BYTES_EACH: f64 = 15_000.0;
    let mock = Mock::start();
    let files = rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let many = u32::try_from(files.min(21_000) - OTHER_FILES).unwrap();
    assert!(
        many >= 10_000,
        "a limit of {files} open files is too low (ulimit -Hn)"
    );
    let northbridge = mock.ready_ingress(&[
        ("http.header_timeout_ms", "120000"),
        ("limits.first_push_timeout_ms", "120000"),
        ("limits.max_connections", "30000"),
    ]);
    let resident = || northbridge.metric("process_resident_memory_bytes", &[]);
    let before = resident();
    let idle = connections_from_elsewhere(northbridge.address(), many);
    northbridge.wait_for_metric("northbridge_connections", &[], many.into());
    for number in 0..20 {
        let body = message_confirm(&format!("r-{number}"), "d", "sent");
        assert_eq!(
            post_with(northbridge.address(), PATH, &[], body).status,
            200
        );
    }
    let each = (resident() - before) / f64::from(many);
    assert!(each < BYTES_EACH, "{each} bytes a connection");
    drop(idle);
    northbridge.wait_for_metric("northbridge_connections", &[], 0.0);
}

#[test]
fn bytes_in_flight_are_bounded_and_released() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[
        ("http.max_body_bytes", "100000"),
        ("limits.max_in_flight_bytes", "100000"),
        ("limits.admission_timeout_ms", "50"),
    ]);
    let mut slow = RawConnection::open(northbridge.address());
    slow.write(post_head(PATH, &[], 90_000));
    slow.write(vec![b' '; 80_000]);
    northbridge.wait_for_metric("northbridge_pushes_in_flight", &[], 1.0);
    eventually("the slow push's bytes are counted", || {
        let held = northbridge.metric("northbridge_in_flight_bytes", &[]);
        (held >= 80_000.0).then_some(())
    });
    let other = " ".repeat(60_000);
    assert_eq!(
        post_with(northbridge.address(), PATH, &[], &other).status,
        503
    );
    drop(slow);
    northbridge.wait_for_metric("northbridge_in_flight_bytes", &[], 0.0);
    assert_eq!(
        post_with(northbridge.address(), PATH, &[], &other).status,
        200
    );
}

#[test]
fn the_administration_port_answers_at_the_connection_limit() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[("limits.max_connections", "1")]);
    let _only = RawConnection::open(northbridge.address());
    northbridge.wait_for_metric("northbridge_connections", &[], 1.0);
    assert!(is_live(&northbridge) && northbridge.is_ready());
}

fn is_live(northbridge: &Northbridge) -> bool {
    let answer = crate::support::http::get(northbridge.admin_address(), "/livez");
    answer.is_some_and(|answer| answer.status == 200)
}

fn push(connection: &mut RawConnection) {
    connection.write_post(PATH, &[], message_confirm("r", "d", "sent"));
    assert_eq!(connection.read_response().status, 200);
}
