//! The client's address: the allow list, `X-Forwarded-For` and the PROXY
//! protocol, and which peers are trusted to supply it.

use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use crate::protected_listener::{
    Headers, PATH, assert_counts, closed, failed_start, over_tls, push, read_until_closed, request,
    request_bytes, tls_ingress,
};
use crate::support::certificates::Certificates;
use crate::support::eventually;
use crate::support::http::{Connection, RawConnection, Version};
use crate::support::mock::Mock;
use crate::support::northbridge::Northbridge;

/// The tests' own connections count as those of a trusted proxy.
const PROXIED: [(&str, &str); 2] = [
    ("auth.trusted_proxies", "127.0.0.0/8"),
    ("auth.allowed_addresses", "192.0.2.0/24,2001:db8::/32"),
];
/// The tests' own connections count as those of an untrusted peer.
const NOT_PROXIED: [(&str, &str); 2] = [
    ("auth.trusted_proxies", "10.0.0.0/8"),
    ("auth.allowed_addresses", "192.0.2.0/24,2001:db8::/32"),
];
const BY_HEADER: (&str, &str) = ("auth.client_address", "x-forwarded-for");
const BY_PROXY_PROTOCOL: (&str, &str) = ("auth.client_address", "proxy-protocol");

/// The first bytes of every version 2 header (PROXY protocol, section 2.2).
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

#[test]
fn only_allowed_addresses_are_admitted_and_others_are_closed() {
    let rows = [
        ("127.0.0.0/8", true),
        ("127.0.0.1", true),
        ("::ffff:127.0.0.0/104", true),
        ("10.0.0.0/8,127.0.0.1/32", true),
        ("10.0.0.0/8", false),
        ("127.0.0.2/32", false),
        ("::1", false),
    ];
    for (allowed, is_admitted) in rows {
        let mock = Mock::start();
        let northbridge = mock.ingress(&[("auth.allowed_addresses", allowed)]);
        let status = pushed(&northbridge, b"");
        assert_eq!(status, is_admitted.then_some(200), "{allowed}");
        assert_counts(&northbridge, &mock, usize::from(is_admitted), 0);
    }
}

#[test]
fn a_trusted_proxy_s_forwarded_for_header_determines_the_client_address() {
    let mock = Mock::start();
    let northbridge = mock.ingress(&[PROXIED[0], PROXIED[1], BY_HEADER]);
    let rows: [(&[&str], u16); 13] = [
        (&["192.0.2.1"], 200),
        (&["192.0.2.1:4711"], 200),
        (&["2001:db8::1"], 200),
        (&["[2001:db8::1]"], 200),
        (&["[2001:db8::1]:4711"], 200),
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
    assert_counts(&northbridge, &mock, 7, 6);
}

#[test]
fn a_forwarded_for_header_is_ignored_from_untrusted_peers_and_in_other_modes() {
    let connection = ("auth.client_address", "connection");
    let modes = [
        [NOT_PROXIED[0], NOT_PROXIED[1], BY_HEADER],
        [NOT_PROXIED[0], NOT_PROXIED[1], BY_PROXY_PROTOCOL],
        [PROXIED[0], PROXIED[1], connection],
    ];
    for settings in modes {
        let mock = Mock::start();
        let northbridge = mock.ingress(&settings);
        let mut connection = RawConnection::open(northbridge.address());
        let claim = request_bytes(PATH, &[("x-forwarded-for", "192.0.2.1")]);
        let _ = connection.try_write(claim);
        assert!(connection.is_closed_or_reset(), "{settings:?}");
        assert_counts(&northbridge, &mock, 0, 0);
    }
}

#[test]
fn a_direct_client_is_identified_by_its_own_address() {
    for mode in [BY_HEADER, BY_PROXY_PROTOCOL] {
        let mock = Mock::start();
        let allowed = ("auth.allowed_addresses", "127.0.0.0/8");
        let northbridge = mock.ingress(&[NOT_PROXIED[0], allowed, mode]);
        let status = forwarded(&northbridge, &["203.0.113.1"]);
        assert_eq!(status, 200, "{mode:?}");
    }
}

#[test]
fn a_proxy_protocol_header_determines_the_client_address() {
    let rows = [
        (v4("192.0.2.1"), true),
        (v4("203.0.113.1"), false),
        (v6("2001:db8::1"), true),
        (v6("2001:db9::1"), false),
        (v6("::ffff:192.0.2.1"), true),
        (v1("TCP4 192.0.2.1 10.0.0.1 4711 8080"), true),
        (v1("TCP4 203.0.113.1 10.0.0.1 4711 8080"), false),
        (v1("TCP6 2001:db8::1 ::1 4711 8080"), true),
        // The proxy's own address, which is not allowed.
        (v1("UNKNOWN"), false),
        (local(), false),
    ];
    let mock = Mock::start();
    let northbridge = mock.ingress(&[PROXIED[0], PROXIED[1], BY_PROXY_PROTOCOL]);
    for (header, is_admitted) in rows {
        let status = pushed(&northbridge, &header);
        assert_eq!(status, is_admitted.then_some(200), "{header:?}");
    }
    assert_counts(&northbridge, &mock, 5, 0);
}

#[test]
fn a_local_proxy_header_keeps_the_proxy_s_own_address() {
    let mock = Mock::start();
    let allowed = ("auth.allowed_addresses", "127.0.0.1");
    let northbridge = mock.ingress(&[PROXIED[0], allowed, BY_PROXY_PROTOCOL]);
    let mut connection = RawConnection::open(northbridge.address());
    connection.write(local());
    connection.write(request_bytes(PATH, &[]));
    assert_eq!(connection.read_response().status, 200);
}

#[test]
fn a_proxy_header_may_arrive_in_pieces() {
    let mock = Mock::start();
    let northbridge = mock.ingress(&[PROXIED[0], PROXIED[1], BY_PROXY_PROTOCOL]);
    let mut connection = RawConnection::open(northbridge.address());
    let header = v4("192.0.2.1");
    for piece in header.chunks(7) {
        connection.write(piece);
        // Nothing reports that a piece was read; without a pause they would merge.
        thread::sleep(Duration::from_millis(20));
    }
    connection.write(request_bytes(PATH, &[]));
    assert_eq!(connection.read_response().status, 200);
}

#[test]
fn a_trusted_proxy_without_a_valid_header_is_closed_without_an_answer() {
    let mock = Mock::start();
    let quick = ("http.header_timeout_ms", "300");
    let northbridge = mock.ingress(&[PROXIED[0], PROXIED[1], BY_PROXY_PROTOCOL, quick]);
    let header = v4("192.0.2.1");
    let rows = [
        ("no header", request_bytes(PATH, &[]).into_bytes()),
        ("a line that is too long", v1(&"x".repeat(200))),
        ("a malformed line", v1("TCP4 192.0.2.1 10.0.0.1 1")),
        ("half a line", b"PROXY TCP4 192.0.2.1".to_vec()),
        ("half a header, then silence", header[..20].to_vec()),
        ("silence", vec![]),
        ("version 3", [SIGNATURE, &[0x31, 0x11, 0, 0]].concat()),
        ("too long", [SIGNATURE, &[0x21, 0x11, 0xff, 0xff]].concat()),
    ];
    for (what, sent) in &rows {
        let answer = read_until_closed(northbridge.address(), sent);
        assert_eq!(answer, b"", "{what}");
    }
    eventually("the connections are counted", || {
        (closed(&northbridge, "proxy-header") == rows.len()).then_some(())
    });
    assert_counts(&northbridge, &mock, 0, 0);
}

#[test]
fn a_proxy_header_from_an_untrusted_peer_is_not_accepted() {
    let mock = Mock::start();
    let northbridge = mock.ingress(&[NOT_PROXIED[0], NOT_PROXIED[1], BY_PROXY_PROTOCOL]);
    let mut connection = RawConnection::open(northbridge.address());
    connection.write([&v4("192.0.2.1"), request_bytes(PATH, &[]).as_bytes()].concat());
    let answer = connection.try_read_response();
    assert!(answer.is_none_or(|answer| answer.status == 400));
    assert_counts(&northbridge, &mock, 0, 0);
}

#[tokio::test]
async fn a_proxy_header_precedes_the_tls_handshake() {
    let (mock, certificates) = (Mock::start(), Certificates::new());
    let settings = [PROXIED[0], PROXIED[1], BY_PROXY_PROTOCOL];
    let northbridge = tls_ingress(&mock, &certificates, &settings);
    for (client, is_admitted) in [("192.0.2.1", true), ("203.0.113.1", false)] {
        let stream = proxied(northbridge.address(), &v4(client));
        let secured = over_tls(stream, certificates.client(), "localhost").await;
        assert_eq!(secured.is_ok(), is_admitted, "{client}");
        if let Ok(secured) = secured {
            let connection = Connection::over(secured, Version::Http1).await;
            let answer = connection.unwrap().send(request(PATH, &[])).await;
            assert_eq!(answer.unwrap().status, 200, "{client}");
        }
    }
    assert_counts(&northbridge, &mock, 1, 0);
}

#[test]
fn an_invalid_address_setting_fails_the_start_and_names_the_key() {
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
        let message = failed_start(settings);
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

/// The status of a push behind these bytes; `None` if the connection is closed
/// instead.
fn pushed(northbridge: &Northbridge, header: &[u8]) -> Option<u16> {
    let mut connection = RawConnection::open(northbridge.address());
    let _ = connection.try_write([header, request_bytes(PATH, &[]).as_bytes()].concat());
    connection.try_read_response().map(|answer| answer.status)
}

fn proxied(address: SocketAddr, header: &[u8]) -> tokio::net::TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(header).unwrap();
    stream.set_nonblocking(true).unwrap();
    tokio::net::TcpStream::from_std(stream).unwrap()
}

/// A PROXY header for a TCP connection over IPv4 from `source` to 10.0.0.1:8080.
fn v4(source: &str) -> Vec<u8> {
    let ends = [&octets(source)[..], &[10, 0, 0, 1, 0x12, 0x67, 0x1f, 0x90]].concat();
    [SIGNATURE, &[0x21, 0x11, 0, 12], &ends].concat()
}

/// A PROXY header of version 1 with these words.
fn v1(words: &str) -> Vec<u8> {
    format!("PROXY {words}\r\n").into_bytes()
}

/// A PROXY header for a TCP connection over IPv6 from `source` to `[::1]:8080`.
fn v6(source: &str) -> Vec<u8> {
    let ends = [
        &octets(source)[..],
        &octets("::1"),
        &[0x12, 0x67, 0x1f, 0x90],
    ]
    .concat();
    [SIGNATURE, &[0x21, 0x21, 0, 36], &ends].concat()
}

/// A LOCAL header, which carries no addresses; proxies use it for health checks.
fn local() -> Vec<u8> {
    [SIGNATURE, &[0x20, 0x00, 0, 0]].concat()
}

fn octets(address: &str) -> Vec<u8> {
    match address.parse().unwrap() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
