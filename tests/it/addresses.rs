//! Whose address counts: the allow-list, `X-Forwarded-For` and the PROXY
//! protocol, and who is believed.

use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use crate::certificates::Certificates;
use crate::pushes::{
    Headers, PATH, answer_until_closed, assert_books, closed, over_tls, push, refused_start,
    request, request_bytes, tls_ingress,
};
use crate::support::eventually;
use crate::support::http::{Connection, RawConnection, Version};
use crate::support::mock::Mock;
use crate::support::northbridge::Northbridge;

/// The tests' own connections come from a trusted proxy.
const PROXIED: [(&str, &str); 2] = [
    ("auth.trusted_proxies", "127.0.0.0/8"),
    ("auth.allowed_addresses", "192.0.2.0/24,2001:db8::/32"),
];
/// They come from somebody else.
const NOT_PROXIED: [(&str, &str); 2] = [
    ("auth.trusted_proxies", "10.0.0.0/8"),
    ("auth.allowed_addresses", "192.0.2.0/24,2001:db8::/32"),
];
const BY_HEADER: (&str, &str) = ("auth.client_address", "x-forwarded-for");
const BY_PROXY_PROTOCOL: (&str, &str) = ("auth.client_address", "proxy-protocol");

/// How every header of version 2 begins (the PROXY protocol, 2.2).
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

#[test]
fn an_address_of_an_allowed_network_is_let_in_and_any_other_is_answered_403() {
    let rows = [
        ("127.0.0.0/8", 200),
        ("127.0.0.1", 200),
        ("::ffff:127.0.0.0/104", 200),
        ("10.0.0.0/8,127.0.0.1/32", 200),
        ("10.0.0.0/8", 403),
        ("127.0.0.2/32", 403),
        ("::1", 403),
    ];
    for (allowed, expected) in rows {
        let mock = Mock::start();
        let northbridge = mock.ingress(&[("auth.allowed_addresses", allowed)]);
        let answer = push(northbridge.address(), PATH, &[]);
        assert_eq!(answer.status, expected, "{allowed}");
        let stored = usize::from(expected == 200);
        assert_books(&northbridge, &mock, stored, 1 - stored);
    }
}

#[test]
fn a_trusted_proxy_is_believed_about_the_address_before_it() {
    let mock = Mock::start();
    let northbridge = mock.ingress(&[PROXIED[0], PROXIED[1], BY_HEADER]);
    let rows: [(&[&str], u16); 11] = [
        (&["192.0.2.1"], 200),
        (&["192.0.2.1:4711"], 200),
        (&["2001:db8::1"], 200),
        (&["203.0.113.1, 192.0.2.1"], 200),
        (&["203.0.113.1", "192.0.2.1, 127.0.0.9"], 200),
        (&["192.0.2.1, 203.0.113.1"], 403),
        (&["192.0.2.1", "203.0.113.1"], 403),
        (&["unknown"], 403),
        (&["192.0.2.1, unknown"], 403),
        (&[""], 403),
        (&[], 403),
    ];
    for (lines, expected) in rows {
        let status = forwarded(&northbridge, lines);
        assert_eq!(status, expected, "{lines:?}");
    }
    assert_books(&northbridge, &mock, 5, 6);
}

#[test]
fn the_header_is_not_believed_from_anybody_else_nor_in_another_mode() {
    let connection = ("auth.client_address", "connection");
    let modes = [
        [NOT_PROXIED[0], NOT_PROXIED[1], BY_HEADER],
        [NOT_PROXIED[0], NOT_PROXIED[1], BY_PROXY_PROTOCOL],
        [PROXIED[0], PROXIED[1], connection],
    ];
    for settings in modes {
        let mock = Mock::start();
        let northbridge = mock.ingress(&settings);
        let status = forwarded(&northbridge, &["192.0.2.1"]);
        assert_eq!(status, 403, "{settings:?}");
        assert_books(&northbridge, &mock, 0, 1);
    }
}

#[test]
fn who_connects_directly_counts_by_the_own_address_and_needs_no_header() {
    for mode in [BY_HEADER, BY_PROXY_PROTOCOL] {
        let mock = Mock::start();
        let allowed = ("auth.allowed_addresses", "127.0.0.0/8");
        let northbridge = mock.ingress(&[NOT_PROXIED[0], allowed, mode]);
        let status = forwarded(&northbridge, &["203.0.113.1"]);
        assert_eq!(status, 200, "{mode:?}");
    }
}

#[test]
fn a_proxy_header_tells_the_client_s_address() {
    let rows = [
        (v4("192.0.2.1"), 200),
        (v4("203.0.113.1"), 403),
        (v6("2001:db8::1"), 200),
        (v6("2001:db9::1"), 403),
        (v6("::ffff:192.0.2.1"), 200),
        // The address of the proxy itself, which is not allowed.
        (local(), 403),
    ];
    let mock = Mock::start();
    let northbridge = mock.ingress(&[PROXIED[0], PROXIED[1], BY_PROXY_PROTOCOL]);
    for (header, expected) in rows {
        let mut connection = RawConnection::open(northbridge.address());
        connection.write([&header[..], request_bytes(PATH, &[]).as_bytes()].concat());
        let answer = connection.read_response();
        assert_eq!(answer.status, expected, "{header:?}");
        // It holds for the connection, not for its first request alone.
        connection.write(request_bytes(PATH, &[("x-forwarded-for", "192.0.2.1")]));
        let answer = connection.read_response();
        assert_eq!(answer.status, expected, "{header:?}");
    }
    assert_books(&northbridge, &mock, 6, 6);
}

#[test]
fn a_proxy_that_checks_the_listener_s_health_counts_by_its_own_address() {
    let mock = Mock::start();
    let allowed = ("auth.allowed_addresses", "127.0.0.1");
    let northbridge = mock.ingress(&[PROXIED[0], allowed, BY_PROXY_PROTOCOL]);
    let mut connection = RawConnection::open(northbridge.address());
    connection.write(local());
    connection.write(request_bytes(PATH, &[]));
    assert_eq!(connection.read_response().status, 200);
}

#[test]
fn a_proxy_header_may_come_in_pieces() {
    let mock = Mock::start();
    let northbridge = mock.ingress(&[PROXIED[0], PROXIED[1], BY_PROXY_PROTOCOL]);
    let mut connection = RawConnection::open(northbridge.address());
    let header = v4("192.0.2.1");
    for piece in header.chunks(7) {
        connection.write(piece);
        // Nothing tells when a piece was read; together they would be no pieces.
        thread::sleep(Duration::from_millis(20));
    }
    connection.write(request_bytes(PATH, &[]));
    assert_eq!(connection.read_response().status, 200);
}

#[test]
fn a_trusted_proxy_without_a_whole_header_is_closed_without_an_answer() {
    let mock = Mock::start();
    let quick = ("http.header_timeout_ms", "300");
    let northbridge = mock.ingress(&[PROXIED[0], PROXIED[1], BY_PROXY_PROTOCOL, quick]);
    let header = v4("192.0.2.1");
    let rows = [
        ("no header", request_bytes(PATH, &[]).into_bytes()),
        (
            "version 1",
            b"PROXY TCP4 192.0.2.1 10.0.0.1 1 2\r\n".to_vec(),
        ),
        ("half a header, then silence", header[..20].to_vec()),
        ("silence", vec![]),
        ("version 3", [SIGNATURE, &[0x31, 0x11, 0, 0]].concat()),
        ("too long", [SIGNATURE, &[0x21, 0x11, 0xff, 0xff]].concat()),
    ];
    for (what, sent) in &rows {
        let answer = answer_until_closed(northbridge.address(), sent);
        assert_eq!(answer, b"", "{what}");
    }
    eventually("the connections are counted", || {
        (closed(&northbridge, "proxy-header") == rows.len()).then_some(())
    });
    assert_books(&northbridge, &mock, 0, 0);
}

#[test]
fn a_proxy_header_is_not_believed_from_anybody_else() {
    let mock = Mock::start();
    let northbridge = mock.ingress(&[NOT_PROXIED[0], NOT_PROXIED[1], BY_PROXY_PROTOCOL]);
    let mut connection = RawConnection::open(northbridge.address());
    connection.write([&v4("192.0.2.1"), request_bytes(PATH, &[]).as_bytes()].concat());
    let answer = connection.try_read_response();
    assert!(answer.is_none_or(|answer| answer.status == 400));
    assert_books(&northbridge, &mock, 0, 0);
}

#[tokio::test]
async fn a_proxy_header_comes_before_the_tls_handshake() {
    let (mock, certificates) = (Mock::start(), Certificates::new());
    let settings = [PROXIED[0], PROXIED[1], BY_PROXY_PROTOCOL];
    let northbridge = tls_ingress(&mock, &certificates, &settings);
    for (client, expected) in [("192.0.2.1", 200), ("203.0.113.1", 403)] {
        let stream = proxied(northbridge.address(), &v4(client));
        let secured = over_tls(stream, certificates.client(), "localhost").await;
        let connection = Connection::over(secured.unwrap(), Version::Http1).await;
        let answer = connection.unwrap().send(request(PATH, &[])).await;
        assert_eq!(answer.unwrap().status, expected, "{client}");
    }
    assert_books(&northbridge, &mock, 1, 1);
}

#[test]
fn addresses_that_would_protect_nothing_end_the_start_with_a_message_that_names_the_key() {
    let rows: [(&[(&str, &str)], &str); 5] = [
        (
            &[("auth.allowed_addresses", "10.0.0.0/33")],
            "auth.allowed_addresses",
        ),
        (
            &[("auth.allowed_addresses", "example.com")],
            "auth.allowed_addresses",
        ),
        (
            &[("auth.trusted_proxies", "10.0.0")],
            "auth.trusted_proxies",
        ),
        (&[BY_HEADER], "auth.trusted_proxies"),
        (&[BY_PROXY_PROTOCOL], "auth.trusted_proxies"),
    ];
    for (settings, key) in rows {
        let message = refused_start(settings);
        assert!(message.contains(key), "{message}");
    }
}

fn forwarded(northbridge: &Northbridge, lines: &[&str]) -> u16 {
    let headers: Vec<_> = lines
        .iter()
        .map(|line| ("x-forwarded-for", *line))
        .collect();
    let headers: Headers<'_> = &headers;
    push(northbridge.address(), PATH, headers).status
}

fn proxied(address: SocketAddr, header: &[u8]) -> tokio::net::TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(header).unwrap();
    stream.set_nonblocking(true).unwrap();
    tokio::net::TcpStream::from_std(stream).unwrap()
}

/// Command PROXY, a stream over IPv4 from this source to 10.0.0.1:8080.
fn v4(source: &str) -> Vec<u8> {
    let ends = [&octets(source)[..], &[10, 0, 0, 1, 0x12, 0x67, 0x1f, 0x90]].concat();
    [SIGNATURE, &[0x21, 0x11, 0, 12], &ends].concat()
}

/// Command PROXY, a stream over IPv6 from this source to `[::1]:8080`.
fn v6(source: &str) -> Vec<u8> {
    let ends = [
        &octets(source)[..],
        &octets("::1"),
        &[0x12, 0x67, 0x1f, 0x90],
    ]
    .concat();
    [SIGNATURE, &[0x21, 0x21, 0, 36], &ends].concat()
}

/// Command LOCAL, which names nobody.
fn local() -> Vec<u8> {
    [SIGNATURE, &[0x20, 0x00, 0, 0]].concat()
}

fn octets(address: &str) -> Vec<u8> {
    match address.parse().unwrap() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
