//! TLS on the push listener: versions, certificates and their reload, client
//! certificates, and clients that never complete a handshake.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;

use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, ProtocolVersion};

use crate::protected_listener::{
    PATH, assert_counts, body, closed, connect_tls, failed_start, push_tls, read_until_closed,
    request_bytes, tls_ingress,
};
use crate::support::certificates::{Certificates, FIRST_END_YEAR};
use crate::support::http::{Connection, Version};
use crate::support::mock::Mock;
use crate::support::northbridge::Northbridge;
use crate::support::{TIMEOUT, eventually};

/// January 1 of [`FIRST_END_YEAR`] and of [`NEXT_EXPIRY_YEAR`], as Unix times.
const FIRST_EXPIRY: f64 = 2_208_988_800.0;
const NEXT_EXPIRY_YEAR: i32 = 2050;
const NEXT_EXPIRY: f64 = 2_524_608_000.0;

const FAST_RELOAD: [(&str, &str); 1] = [("tls.reload_interval_ms", "50")];

/// Record content types, an alert level and an alert (RFC 5246, sections 6.2.1
/// and 7.2).
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const FATAL: u8 = 2;
const PROTOCOL_VERSION: u8 = 70;

#[tokio::test]
async fn tls_1_2_and_1_3_are_accepted() {
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
    assert_counts(&northbridge, &mock, 2, 0);
}

#[test]
fn tls_1_1_is_rejected() {
    let (mock, certificates) = (Mock::start(), Certificates::new());
    let northbridge = tls_ingress(&mock, &certificates, &[]);
    let answer_to = |version| {
        let mut stream = TcpStream::connect(northbridge.address()).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.write_all(&client_hello(version)).unwrap();
        let mut answer = [0; 7];
        stream.read_exact(&mut answer).unwrap();
        answer
    };
    // The same ClientHello is accepted with the next version.
    assert_eq!(answer_to([3, 3])[0], HANDSHAKE);
    let refusal = answer_to([3, 2]);
    assert_eq!(refusal[0], ALERT);
    assert_eq!(refusal[5..], [FATAL, PROTOCOL_VERSION]);
}

#[tokio::test]
async fn the_same_certificate_is_served_for_any_sni() {
    let (mock, certificates) = (Mock::start(), Certificates::new());
    let northbridge = tls_ingress(&mock, &certificates, &[]);
    let own = certificate_in(&certificates);
    // A client sends no SNI for an IP address.
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
async fn alpn_selects_the_http_version() {
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
async fn http_2_multiplexes_pushes_over_one_tls_connection() {
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
    assert_counts(&northbridge, &mock, 8, 0);
}

#[tokio::test]
async fn a_renewed_certificate_is_served_to_new_connections_and_open_ones_continue() {
    let (mock, certificates) = (Mock::start(), Certificates::new());
    let northbridge = tls_ingress(&mock, &certificates, &FAST_RELOAD);
    let connected = connect_tls(northbridge.address(), certificates.client(), "localhost").await;
    let connection = Connection::over(connected.unwrap(), Version::Http1).await;
    let mut open = connection.unwrap();
    assert_eq!(open.post(PATH, body()).await.unwrap().status, 200);

    certificates.renew_server(NEXT_EXPIRY_YEAR);
    wait_for_expiry(&northbridge, NEXT_EXPIRY);
    let served = served_certificate(&northbridge, certificates.client()).await;
    assert_eq!(served, certificate_in(&certificates));
    assert_eq!(open.post(PATH, body()).await.unwrap().status, 200);
    assert_counts(&northbridge, &mock, 2, 0);
}

#[tokio::test]
async fn invalid_new_files_keep_the_old_certificate_and_are_counted_once() {
    let (mock, certificates) = (Mock::start(), Certificates::new());
    let northbridge = tls_ingress(&mock, &certificates, &FAST_RELOAD);
    wait_for_expiry(&northbridge, FIRST_EXPIRY);
    let first = certificate_in(&certificates);

    // Replaced atomically: each intermediate content would count as a failure.
    let broken = certificates.certificate_file().with_extension("new");
    fs::write(&broken, "half a certific").unwrap();
    fs::rename(&broken, certificates.certificate_file()).unwrap();
    eventually("the broken file is counted", || {
        (reload_failures(&northbridge) == 1).then_some(())
    });
    let served = served_certificate(&northbridge, certificates.client()).await;
    assert_eq!(served, first);
    wait_for_expiry(&northbridge, FIRST_EXPIRY);
    let complaint = "TLS files changed but cannot be used; keeping the previous certificate";
    let line = northbridge.wait_for_message(complaint).to_string();
    assert!(line.contains("server.pem"), "{line}");

    fs::remove_file(certificates.certificate_file()).unwrap();
    eventually("the missing file is counted", || {
        (reload_failures(&northbridge) == 2).then_some(())
    });
    certificates.renew_server(NEXT_EXPIRY_YEAR);
    wait_for_expiry(&northbridge, NEXT_EXPIRY);
    let served = served_certificate(&northbridge, certificates.client()).await;
    assert_eq!(served, certificate_in(&certificates));
}

#[tokio::test]
async fn after_a_client_ca_change_only_its_clients_are_admitted() {
    let (mock, certificates, newcomers) = (Mock::start(), Certificates::new(), Certificates::new());
    let northbridge = mutual_ingress(&mock, &certificates, &FAST_RELOAD);
    let old = certificates.client_with_certificate();
    let new = certificates.client_with_certificate_of(&newcomers);
    assert!(is_admitted(&northbridge, old.clone()).await);
    assert!(!is_admitted(&northbridge, new.clone()).await);

    fs::copy(newcomers.ca_file(), certificates.ca_file()).unwrap();
    northbridge.wait_for_message("TLS certificate replaced");
    // The old client has a session ticket, which must not bypass the new CA.
    assert!(!is_admitted(&northbridge, old).await);
    assert!(is_admitted(&northbridge, new).await);
}

#[tokio::test]
async fn the_certificate_expiry_is_a_metric_and_zero_without_tls() {
    let (mock, certificates) = (Mock::start(), Certificates::new());
    assert_eq!(FIRST_END_YEAR, 2040, "as FIRST_EXPIRY has it");
    wait_for_expiry(&tls_ingress(&mock, &certificates, &[]), FIRST_EXPIRY);
    wait_for_expiry(&mock.ingress(&[]), 0.0);
}

#[tokio::test]
async fn mutual_tls_admits_only_certificates_of_its_ca() {
    let (mock, certificates, strangers) = (Mock::start(), Certificates::new(), Certificates::new());
    let northbridge = mutual_ingress(&mock, &certificates, &[]);
    for version in [&TLS12, &TLS13] {
        let none = certificates.client_speaking(version);
        assert!(!is_admitted(&northbridge, none).await, "{version:?}");
    }
    let untrusted = certificates.client_with_certificate_of(&strangers);
    assert!(!is_admitted(&northbridge, untrusted).await);
    eventually("the rejected handshakes are counted", || {
        (closed(&northbridge, "handshake") == 3).then_some(())
    });
    assert_counts(&northbridge, &mock, 0, 0);

    assert!(is_admitted(&northbridge, certificates.client_with_certificate()).await);
    assert_counts(&northbridge, &mock, 1, 0);
}

#[tokio::test]
async fn only_clients_with_an_allowed_name_are_admitted() {
    let (mock, certificates) = (Mock::start(), Certificates::new());
    let [platform, other] = ["platform", "other"].map(|name| certificates.named_client(name));
    let allowed = ("tls.client_allowed_names", "someone.example,Platform");
    let northbridge = mutual_ingress(&mock, &certificates, &[allowed]);
    let client = |files: &(PathBuf, PathBuf)| certificates.client_presenting(files.clone());
    assert!(is_admitted(&northbridge, client(&platform)).await);
    assert!(!is_admitted(&northbridge, client(&other)).await);
}

#[tokio::test]
async fn a_revoked_client_is_rejected_also_while_the_process_runs() {
    let (mock, certificates) = (Mock::start(), Certificates::new());
    let [kept, revoked] = ["kept", "revoked"].map(|name| certificates.named_client(name));
    let list = certificates.revoke(&[]);
    let list = ("tls.client_crl_file", list.to_str().unwrap());
    let northbridge = mutual_ingress(&mock, &certificates, &[FAST_RELOAD[0], list]);
    let client = |files: &(PathBuf, PathBuf)| certificates.client_presenting(files.clone());
    // With a session to resume, if there were any.
    let resuming = client(&revoked);
    assert!(is_admitted(&northbridge, resuming.clone()).await);
    certificates.revoke(std::slice::from_ref(&revoked.0));
    northbridge.wait_for_message("TLS certificate replaced");
    assert!(!is_admitted(&northbridge, resuming).await);
    assert!(is_admitted(&northbridge, client(&kept)).await);
}

#[test]
fn invalid_tls_files_fail_the_start_and_are_named() {
    let other_key = fs::read_to_string(Certificates::new().key_file()).unwrap();
    let rows = [
        ("server.pem", None, "cannot read"),
        ("server.key", None, "cannot read"),
        ("ca.pem", None, "cannot read"),
        ("server.pem", Some("no PEM"), "contains no certificate"),
        ("server.key", Some("no PEM"), "contains no private key"),
        ("ca.pem", Some("no PEM"), "contains no certificate"),
        ("server.key", Some(&*other_key), "does not match"),
    ];
    for (name, content, expected) in rows {
        let certificates = Certificates::new();
        let file = certificates.ca_file().with_file_name(name);
        match content {
            Some(content) => fs::write(&file, content).unwrap(),
            None => fs::remove_file(&file).unwrap(),
        }
        let message = failed_start(&mutual_settings(&Files::of(&certificates)));
        assert!(message.contains(expected), "{message}");
        assert!(message.contains(&file.display().to_string()), "{message}");
    }
}

#[test]
fn incomplete_tls_settings_fail_the_start_and_name_the_missing_one() {
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
        let message = failed_start(&settings);
        assert!(message.contains(set), "{message}");
        assert!(
            message.contains(&format!("requires {missing}")),
            "{message}"
        );
    }
}

#[tokio::test]
async fn a_handshake_that_is_never_completed_times_out() {
    let (mock, certificates) = (Mock::start(), Certificates::new());
    let northbridge = tls_ingress(&mock, &certificates, &[("tls.handshake_timeout_ms", "300")]);
    let plain = request_bytes(PATH, &[]).into_bytes();
    let half = client_hello([3, 3])[..20].to_vec();
    let rows = [
        ("silence", vec![]),
        ("half a ClientHello", half),
        ("a ClientHello and nothing more", client_hello([3, 3])),
        ("zeros", vec![0; 64]),
        ("HTTP without TLS", plain),
    ];
    for (what, sent) in &rows {
        let answer = read_until_closed(northbridge.address(), sent);
        assert!(!answer.starts_with(b"HTTP"), "{what}");
    }
    eventually("the failed handshakes are counted", || {
        (closed(&northbridge, "handshake") == rows.len()).then_some(())
    });
    assert_counts(&northbridge, &mock, 0, 0);
    assert!(is_admitted(&northbridge, certificates.client()).await);
}

/// Paths as strings, which settings need.
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

async fn is_admitted(northbridge: &Northbridge, client: ClientConfig) -> bool {
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

fn wait_for_expiry(northbridge: &Northbridge, expected: f64) {
    let name = "northbridge_tls_certificate_not_after_timestamp_seconds";
    eventually("the certificate's expiry is exposed", || {
        let end = northbridge.metrics()[name];
        (end.to_bits() == expected.to_bits()).then_some(())
    });
}

fn reload_failures(northbridge: &Northbridge) -> usize {
    let failures = northbridge.metrics()["northbridge_tls_certificate_reload_failures_total"];
    failures.to_string().parse().unwrap()
}

/// A `ClientHello` that a TLS 1.2 server answers, with this `client_version`
/// (RFC 5246, section 7.4.1.2).
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
