//! The encrypted listener: versions, certificates and their exchange, client
//! certificates, and clients that never finish a handshake.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, ProtocolVersion};

use crate::certificates::{Certificates, FIRST_END_YEAR};
use crate::pushes::{
    PATH, answer_until_closed, assert_books, body, closed, connect_tls, push_tls, refused_start,
    request_bytes, tls_ingress,
};
use crate::support::http::{Connection, Version};
use crate::support::mock::Mock;
use crate::support::northbridge::Northbridge;
use crate::support::{PATIENCE, eventually};

/// The first of January 2040 and of January 2050, as Unix times.
const FIRST_END: f64 = 2_208_988_800.0;
const NEXT_END_YEAR: i32 = 2050;
const NEXT_END: f64 = 2_524_608_000.0;

const WATCHED_CLOSELY: [(&str, &str); 1] = [("tls.reload_interval_ms", "50")];

/// What TLS calls its records and alerts (RFC 5246, 6.2.1 and 7.2).
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const FATAL: u8 = 2;
const PROTOCOL_VERSION: u8 = 70;

#[tokio::test]
async fn pushes_are_taken_over_tls_1_2_and_1_3() {
    let (mock, certificates) = (Mock::start(), Certificates::new());
    let northbridge = tls_ingress(&mock, &certificates, &[]);
    for (version, expected) in [
        (&TLS12, ProtocolVersion::TLSv1_2),
        (&TLS13, ProtocolVersion::TLSv1_3),
    ] {
        let client = certificates.client_speaking(version);
        let connected = connect_tls(northbridge.address(), client, "localhost").await;
        let stream = connected.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(expected));
        let mut connection = Connection::over(stream, Version::Http1).await.unwrap();
        assert_eq!(connection.post(PATH, body()).await.unwrap().status, 200);
    }
    assert_books(&northbridge, &mock, 2, 0);
}

#[test]
fn tls_1_1_is_refused() {
    let (mock, certificates) = (Mock::start(), Certificates::new());
    let northbridge = tls_ingress(&mock, &certificates, &[]);
    let answer_to = |version| {
        let mut stream = TcpStream::connect(northbridge.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&client_hello(version)).unwrap();
        let mut answer = [0; 7];
        stream.read_exact(&mut answer).unwrap();
        answer
    };
    // The same greeting with the next version is answered.
    assert_eq!(answer_to([3, 3])[0], HANDSHAKE);
    let refusal = answer_to([3, 2]);
    assert_eq!(refusal[0], ALERT);
    assert_eq!(refusal[5..], [FATAL, PROTOCOL_VERSION]);
}

#[tokio::test]
async fn one_certificate_is_served_whatever_name_is_asked_for() {
    let (mock, certificates) = (Mock::start(), Certificates::new());
    let northbridge = tls_ingress(&mock, &certificates, &[]);
    let own = certificate_in(&certificates);
    // For an address a client sends no SNI.
    for name in ["127.0.0.1", "localhost", "northbound.example", "a_b.test"] {
        let client = certificates.client_ignoring_names();
        let connected = connect_tls(northbridge.address(), client, name).await;
        let stream = connected.unwrap();
        let served = stream.get_ref().1.peer_certificates().unwrap();
        assert_eq!(served, std::slice::from_ref(&own), "{name}");
        let mut connection = Connection::over(stream, Version::Http1).await.unwrap();
        let answer = connection.post(PATH, body()).await.unwrap();
        assert_eq!(answer.status, 200, "{name}");
    }
}

#[tokio::test]
async fn alpn_chooses_the_http_that_is_then_spoken() {
    let (mock, certificates) = (Mock::start(), Certificates::new());
    let northbridge = tls_ingress(&mock, &certificates, &[]);
    let rows: [(&[&str], Option<&str>, Version); 5] = [
        (&["h2"], Some("h2"), Version::Http2),
        (&["http/1.1", "h2"], Some("h2"), Version::Http2),
        (&["http/1.1"], Some("http/1.1"), Version::Http1),
        (&[], None, Version::Http1),
        (&[], None, Version::Http2),
    ];
    for (offered, expected, version) in rows {
        let mut client = certificates.client();
        client.alpn_protocols = offered.iter().map(|name| name.as_bytes().into()).collect();
        let connected = connect_tls(northbridge.address(), client, "localhost").await;
        let stream = connected.unwrap();
        let chosen = stream.get_ref().1.alpn_protocol();
        assert_eq!(chosen, expected.map(str::as_bytes), "{offered:?}");
        let mut connection = Connection::over(stream, version).await.unwrap();
        let answer = connection.post(PATH, body()).await.unwrap();
        assert_eq!(answer.status, 200, "{offered:?}");
    }
}

#[tokio::test]
async fn several_pushes_share_one_connection_of_http_2_over_tls() {
    let (mock, certificates) = (Mock::start(), Certificates::new());
    let northbridge = tls_ingress(&mock, &certificates, &[]);
    let mut client = certificates.client();
    client.alpn_protocols = vec![b"h2".to_vec()];
    let connected = connect_tls(northbridge.address(), client, "localhost").await;
    let connection = Connection::over(connected.unwrap(), Version::Http2).await;
    let Connection::Http2(sender) = connection.unwrap() else {
        unreachable!("it was opened for HTTP/2");
    };
    let pushes = (0..8).map(|_| {
        let mut stream = Connection::Http2(sender.clone());
        tokio::spawn(async move { stream.post(PATH, body()).await.unwrap().status })
    });
    for push in pushes.collect::<Vec<_>>() {
        assert_eq!(push.await.unwrap(), 200);
    }
    assert_books(&northbridge, &mock, 8, 0);
}

#[tokio::test]
async fn a_new_certificate_is_served_to_new_connections_and_open_ones_go_on() {
    let (mock, certificates) = (Mock::start(), Certificates::new());
    let northbridge = tls_ingress(&mock, &certificates, &WATCHED_CLOSELY);
    let connected = connect_tls(northbridge.address(), certificates.client(), "localhost").await;
    let connection = Connection::over(connected.unwrap(), Version::Http1).await;
    let mut open = connection.unwrap();
    assert_eq!(open.post(PATH, body()).await.unwrap().status, 200);

    certificates.renew_server(NEXT_END_YEAR);
    wait_for_end(&northbridge, NEXT_END);
    let served = served_certificate(&northbridge, certificates.client()).await;
    assert_eq!(served, certificate_in(&certificates));
    assert_eq!(open.post(PATH, body()).await.unwrap().status, 200);
    assert_books(&northbridge, &mock, 2, 0);
}

#[tokio::test]
async fn broken_new_files_leave_the_old_certificate_and_are_counted_once() {
    let (mock, certificates) = (Mock::start(), Certificates::new());
    let northbridge = tls_ingress(&mock, &certificates, &WATCHED_CLOSELY);
    wait_for_end(&northbridge, FIRST_END);
    let first = certificate_in(&certificates);

    // In one step, for the broken file is counted as often as it is another one.
    let broken = certificates.certificate_file().with_extension("new");
    fs::write(&broken, "half a certific").unwrap();
    fs::rename(&broken, certificates.certificate_file()).unwrap();
    eventually("the broken file is counted", || {
        (reload_failures(&northbridge) == 1).then_some(())
    });
    let served = served_certificate(&northbridge, certificates.client()).await;
    assert_eq!(served, first);
    wait_for_end(&northbridge, FIRST_END);
    let complaint = "changed TLS files cannot be used, the old ones stay";
    let complaint = northbridge.wait_for_message(complaint).to_string();
    assert!(complaint.contains("server.pem"), "{complaint}");

    fs::remove_file(certificates.certificate_file()).unwrap();
    eventually("the missing file is counted", || {
        (reload_failures(&northbridge) == 2).then_some(())
    });
    certificates.renew_server(NEXT_END_YEAR);
    wait_for_end(&northbridge, NEXT_END);
    let served = served_certificate(&northbridge, certificates.client()).await;
    assert_eq!(served, certificate_in(&certificates));
}

#[tokio::test]
async fn a_new_client_authority_lets_its_clients_in_and_the_old_one_s_no_more() {
    let (mock, certificates, newcomers) = (Mock::start(), Certificates::new(), Certificates::new());
    let northbridge = mutual_ingress(&mock, &certificates, &WATCHED_CLOSELY);
    let old = certificates.client_with_certificate();
    let new = certificates.client_with_certificate_of(&newcomers);
    assert!(is_let_in(&northbridge, old.clone()).await);
    assert!(!is_let_in(&northbridge, new.clone()).await);

    fs::copy(newcomers.ca_file(), certificates.ca_file()).unwrap();
    northbridge.wait_for_message("TLS certificate replaced");
    // The old client holds a ticket of its first session, and it must not help.
    assert!(!is_let_in(&northbridge, old).await);
    assert!(is_let_in(&northbridge, new).await);
}

#[tokio::test]
async fn the_end_of_the_certificate_is_a_metric_and_zero_without_tls() {
    let (mock, certificates) = (Mock::start(), Certificates::new());
    assert_eq!(FIRST_END_YEAR, 2040, "as FIRST_END has it");
    wait_for_end(&tls_ingress(&mock, &certificates, &[]), FIRST_END);
    wait_for_end(&mock.ingress(&[]), 0.0);
}

#[tokio::test]
async fn mutual_tls_lets_in_who_shows_a_certificate_of_its_authority_alone() {
    let (mock, certificates, strangers) = (Mock::start(), Certificates::new(), Certificates::new());
    let northbridge = mutual_ingress(&mock, &certificates, &[]);
    for version in [&TLS12, &TLS13] {
        let none = certificates.client_speaking(version);
        assert!(!is_let_in(&northbridge, none).await, "{version:?}");
    }
    let another_s = certificates.client_with_certificate_of(&strangers);
    assert!(!is_let_in(&northbridge, another_s).await);
    eventually("the refused handshakes are counted", || {
        (closed(&northbridge, "handshake") == 3).then_some(())
    });
    assert_books(&northbridge, &mock, 0, 0);

    assert!(is_let_in(&northbridge, certificates.client_with_certificate()).await);
    assert_books(&northbridge, &mock, 1, 0);
}

#[test]
fn files_that_tls_cannot_be_set_up_from_end_the_start_with_a_message_that_names_them() {
    let other_key = fs::read_to_string(Certificates::new().key_file()).unwrap();
    let rows = [
        ("server.pem", None, "cannot read"),
        ("server.key", None, "cannot read"),
        ("ca.pem", None, "cannot read"),
        ("server.pem", Some("no PEM"), "holds no certificate"),
        ("server.key", Some("no PEM"), "holds no private key"),
        ("ca.pem", Some("no PEM"), "holds no certificate"),
        ("server.key", Some(&*other_key), "does not belong to"),
    ];
    for (name, content, expected) in rows {
        let certificates = Certificates::new();
        let file = certificates.ca_file().with_file_name(name);
        match content {
            Some(content) => fs::write(&file, content).unwrap(),
            None => fs::remove_file(&file).unwrap(),
        }
        let message = refused_start(&mutual_settings(&Files::of(&certificates)));
        assert!(message.contains(expected), "{message}");
        assert!(message.contains(&file.display().to_string()), "{message}");
    }
}

#[test]
fn half_of_the_tls_settings_end_the_start_with_a_message_that_names_the_other_half() {
    let files = Files::of(&Certificates::new());
    let [certificate, key, client_ca] = mutual_settings(&files);
    let rows = [
        (vec![certificate], "tls.certificate_file", "tls.key_file"),
        (vec![key], "tls.key_file", "tls.certificate_file"),
        (
            vec![client_ca],
            "tls.client_ca_file",
            "tls.certificate_file",
        ),
    ];
    for (settings, set, missing) in rows {
        let message = refused_start(&settings);
        assert!(message.contains(set), "{message}");
        assert!(message.contains(&format!("needs {missing}")), "{message}");
    }
}

#[tokio::test]
async fn who_never_finishes_a_handshake_is_closed() {
    let (mock, certificates) = (Mock::start(), Certificates::new());
    let northbridge = tls_ingress(&mock, &certificates, &[("tls.handshake_timeout_ms", "300")]);
    let plain = request_bytes(PATH, &[]).into_bytes();
    let half = client_hello([3, 3])[..20].to_vec();
    let rows = [
        ("silence", vec![]),
        ("half a greeting", half),
        ("a greeting and no more", client_hello([3, 3])),
        ("zeros", vec![0; 64]),
        ("HTTP without TLS", plain),
    ];
    for (what, sent) in &rows {
        let answer = answer_until_closed(northbridge.address(), sent);
        assert!(!answer.starts_with(b"HTTP"), "{what}");
    }
    eventually("the handshakes are counted", || {
        (closed(&northbridge, "handshake") == rows.len()).then_some(())
    });
    assert_books(&northbridge, &mock, 0, 0);
    assert!(is_let_in(&northbridge, certificates.client()).await);
}

/// Settings are texts, and these outlive the authority that wrote the files.
struct Files([String; 3]);

impl Files {
    fn of(certificates: &Certificates) -> Self {
        let files = [
            certificates.certificate_file(),
            certificates.key_file(),
            certificates.ca_file(),
        ];
        Self(files.map(|file| file.to_str().unwrap().to_owned()))
    }
}

fn mutual_settings(files: &Files) -> [(&str, &str); 3] {
    let [certificate, key, client_ca] = &files.0;
    [
        ("tls.certificate_file", certificate),
        ("tls.key_file", key),
        ("tls.client_ca_file", client_ca),
    ]
}

fn mutual_ingress(
    mock: &Mock,
    certificates: &Certificates,
    settings: &[(&str, &str)],
) -> Northbridge {
    let files = Files::of(certificates);
    let mut all = mutual_settings(&files).to_vec();
    all.extend(settings);
    mock.ingress(&all)
}

async fn is_let_in(northbridge: &Northbridge, client: ClientConfig) -> bool {
    let pushed = push_tls(northbridge.address(), client, PATH, &[]).await;
    pushed.is_ok_and(|answer| answer.status == 200)
}

fn certificate_in(certificates: &Certificates) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(certificates.certificate_file()).unwrap()
}

async fn served_certificate(
    northbridge: &Northbridge,
    client: ClientConfig,
) -> CertificateDer<'static> {
    let connected = connect_tls(northbridge.address(), client, "localhost").await;
    let stream = connected.unwrap();
    let served = stream.get_ref().1.peer_certificates().unwrap();
    served[0].clone().into_owned()
}

fn wait_for_end(northbridge: &Northbridge, expected: f64) {
    let name = "northbridge_tls_certificate_not_after_timestamp_seconds";
    eventually("the end of the certificate is known", || {
        let end = northbridge.metrics()[name];
        (end.to_bits() == expected.to_bits()).then_some(())
    });
}

fn reload_failures(northbridge: &Northbridge) -> usize {
    let failures = northbridge.metrics()["northbridge_tls_certificate_reload_failures_total"];
    failures.to_string().parse().unwrap()
}

/// A greeting that a TLS 1.2 server answers, with this `client_version`
/// (RFC 5246, 7.4.1.2).
fn client_hello(version: [u8; 2]) -> Vec<u8> {
    let suites = [0xc0, 0x2b, 0xc0, 0x09, 0x00, 0x2f];
    let groups = [0, 10, 0, 4, 0, 2, 0, 29];
    let point_formats = [0, 11, 0, 2, 1, 0];
    let signatures = [0, 13, 0, 4, 0, 2, 4, 3];
    let extensions = [&groups[..], &point_formats, &signatures].concat();
    let hello = [
        &version[..],
        &[7; 32],
        &[0],
        &[0, 6],
        &suites,
        &[1, 0],
        &[0, 22],
        &extensions,
    ]
    .concat();
    let length = u8::try_from(hello.len()).unwrap();
    let head = [HANDSHAKE, 3, 1, 0, length + 4, 1, 0, 0, length];
    [&head[..], &hello].concat()
}
