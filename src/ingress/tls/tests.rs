#[path = "../../../tests/support/certificates.rs"]
mod certificates;

use super::*;
use certificates::{Certificates, FIRST_END_YEAR};

use std::fs;

use chrono::{TimeZone, Utc};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::timeout;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{
    ClientConfig, HandshakeKind, ProtocolVersion, SupportedProtocolVersion,
};
use tokio_rustls::{TlsConnector, client};

fn files(certificates: &Certificates) -> TlsFiles {
    TlsFiles {
        certificate: certificates.certificate_file(),
        key: certificates.key_file(),
        client_ca: None,
        client_crl: None,
    }
}

fn mutual(certificates: &Certificates) -> TlsFiles {
    TlsFiles {
        client_ca: Some(certificates.ca_file()),
        ..files(certificates)
    }
}

fn terminator(files: TlsFiles) -> Arc<TlsTerminator> {
    Arc::new(TlsTerminator::load(files, &[]).unwrap())
}

fn year_start(year: i32) -> i64 {
    let start = Utc.with_ymd_and_hms(year, 1, 1, 0, 0, 0);
    start.unwrap().timestamp()
}

type Ends = (client::TlsStream<DuplexStream>, TlsStream<DuplexStream>);

async fn connect(terminator: &TlsTerminator, client: ClientConfig, name: &str) -> io::Result<Ends> {
    let (near, far) = duplex(16 * 1024);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connector = TlsConnector::from(Arc::new(client));
    // A TLS 1.3 client completes its handshake before the server has checked
    // its certificate; only the first read shows whether it was rejected.
    let connecting = async {
        let mut client = connector.connect(name, near).await?;
        client.write_all(b"ping").await?;
        let mut answer = [0; 4];
        client.read_exact(&mut answer).await?;
        Ok(client)
    };
    let accepting = async {
        let mut server = terminator.accept(far).await?;
        let mut question = [0; 4];
        server.read_exact(&mut question).await?;
        server.write_all(&question).await?;
        server.flush().await?;
        Ok(server)
    };
    tokio::try_join!(connecting, accepting)
}

fn sni(server: &TlsStream<DuplexStream>) -> Option<&str> {
    server.get_ref().1.server_name()
}

#[tokio::test]
async fn the_certificate_is_served_with_and_without_sni() {
    let certificates = Certificates::new();
    let terminator = terminator(files(&certificates));
    for (name, expected) in [("localhost", Some("localhost")), ("127.0.0.1", None)] {
        let connected = connect(&terminator, certificates.client(), name).await;
        let (_client, server) = connected.unwrap();
        assert_eq!(sni(&server), expected);
    }
}

#[tokio::test]
async fn tls_1_2_and_1_3_are_supported() {
    let certificates = Certificates::new();
    let terminator = terminator(files(&certificates));
    let rows: [(&SupportedProtocolVersion, ProtocolVersion); 2] = [
        (&TLS12, ProtocolVersion::TLSv1_2),
        (&TLS13, ProtocolVersion::TLSv1_3),
    ];
    for (version, expected) in rows {
        let client = certificates.client_speaking(version);
        let (_client, server) = connect(&terminator, client, "localhost").await.unwrap();
        assert_eq!(server.get_ref().1.protocol_version(), Some(expected));
    }
}

#[tokio::test]
async fn alpn_is_optional_and_prefers_http2() {
    let certificates = Certificates::new();
    let terminator = terminator(files(&certificates));
    let rows: [(&[&str], Option<&str>); 4] = [
        (&["http/1.1", "h2"], Some("h2")),
        (&["h2"], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&[], None),
    ];
    for (offered, expected) in rows {
        let mut client = certificates.client();
        client.alpn_protocols = offered
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        let (_client, server) = connect(&terminator, client, "localhost").await.unwrap();
        let chosen = server.get_ref().1.alpn_protocol();
        assert_eq!(chosen, expected.map(str::as_bytes), "{offered:?}");
        let protocol = expected.map(|name| match name {
            "h2" => Protocol::Http2,
            _ => Protocol::Http1,
        });
        assert_eq!(negotiated(&server), protocol, "{offered:?}");
    }
}

#[tokio::test]
async fn mutual_tls_rejects_a_client_without_a_certificate_of_its_authority() {
    let certificates = Certificates::new();
    let strangers = Certificates::new();
    let terminator = terminator(mutual(&certificates));
    let rows = [
        ("its own", certificates.client_with_certificate(), true),
        ("none", certificates.client(), false),
        (
            "another's",
            certificates.client_with_certificate_of(&strangers),
            false,
        ),
    ];
    for (shown, client, expected) in rows {
        let connected = connect(&terminator, client, "localhost").await;
        assert_eq!(connected.is_ok(), expected, "{shown}");
    }
}

#[tokio::test]
async fn a_session_can_be_resumed_until_the_files_change() {
    let certificates = Certificates::new();
    let terminator = terminator(files(&certificates));
    let client = certificates.client();
    let handshake = || kind_of_handshake(&terminator, &client);
    assert_eq!(handshake().await, Some(HandshakeKind::Full));
    assert_eq!(handshake().await, Some(HandshakeKind::Resumed));
    certificates.renew_server(2045);
    terminator.reload().unwrap();
    assert_eq!(handshake().await, Some(HandshakeKind::Full));
}

/// A resumption would not look at the certificate again, which may have expired or
/// been revoked since.
#[tokio::test]
async fn a_session_with_a_client_certificate_is_not_resumed() {
    let certificates = Certificates::new();
    let terminator = terminator(mutual(&certificates));
    for version in [&TLS12, &TLS13] {
        let client = certificates.client_with_certificate_speaking(version);
        for _ in 0..2 {
            let kind = kind_of_handshake(&terminator, &client).await;
            assert_eq!(kind, Some(HandshakeKind::Full), "{version:?}");
        }
    }
}

async fn kind_of_handshake(
    terminator: &TlsTerminator,
    client: &ClientConfig,
) -> Option<HandshakeKind> {
    let connected = connect(terminator, client.clone(), "localhost").await;
    connected.unwrap().1.get_ref().1.handshake_kind()
}

#[tokio::test]
async fn a_session_can_be_resumed_after_many_others() {
    let certificates = Certificates::new();
    let terminator = terminator(files(&certificates));
    let first = certificates.client();
    connect(&terminator, first.clone(), "localhost")
        .await
        .unwrap();
    // More than the 256 sessions that rustls would keep without tickets.
    for _ in 0..150 {
        let other = certificates.client();
        connect(&terminator, other, "localhost").await.unwrap();
    }
    let (_client, server) = connect(&terminator, first, "localhost").await.unwrap();
    assert_eq!(
        server.get_ref().1.handshake_kind(),
        Some(HandshakeKind::Resumed)
    );
}

#[test]
fn the_expiry_of_the_served_certificate_is_known() {
    let certificates = Certificates::new();
    let terminator = terminator(files(&certificates));
    assert_eq!(terminator.not_after(), year_start(FIRST_END_YEAR));
}

#[test]
fn an_error_names_the_file_that_cannot_be_used() {
    let broken_pem = "-----BEGIN CERTIFICATE-----\nAAAA\n";
    let no_x509 = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let no_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let encrypted = no_key.replace("PRIVATE", "ENCRYPTED PRIVATE");
    let other = fs::read_to_string(Certificates::new().key_file()).unwrap();
    let rows = [
        ("server.pem", None, "cannot read "),
        ("server.key", None, "cannot read "),
        ("ca.pem", None, "cannot read "),
        ("server.pem", Some(""), "contains no certificate"),
        ("ca.pem", Some("# none yet"), "contains no certificate"),
        ("server.pem", Some(broken_pem), "is not valid PEM"),
        ("ca.pem", Some(broken_pem), "is not valid PEM"),
        ("server.key", Some(broken_pem), "is not valid PEM"),
        (
            "server.pem",
            Some(no_x509),
            "contains an invalid certificate",
        ),
        ("ca.pem", Some(no_x509), "contains an invalid certificate"),
        ("server.key", Some(""), "contains no private key"),
        (
            "server.key",
            Some(&encrypted),
            "encrypted keys are not supported",
        ),
        (
            "server.key",
            Some(no_key),
            "contains a private key that cannot be used",
        ),
        (
            "server.key",
            Some(&other),
            "does not match the first certificate in",
        ),
    ];
    for (name, content, expected) in rows {
        let certificates = Certificates::new();
        let file = certificates.ca_file().with_file_name(name);
        match content {
            Some(content) => fs::write(&file, content).unwrap(),
            None => fs::remove_file(&file).unwrap(),
        }
        let error = TlsTerminator::load(mutual(&certificates), &[]).err();
        let message = error.unwrap().to_string();
        assert!(message.contains(expected), "{message}");
        assert!(message.contains(&file.display().to_string()), "{message}");
    }
}

#[tokio::test]
async fn a_replaced_certificate_is_served_to_new_connections_and_old_ones_stay_open() {
    let certificates = Certificates::new();
    let terminator = terminator(files(&certificates));
    let connected = connect(&terminator, certificates.client(), "localhost").await;
    let (mut client, mut server) = connected.unwrap();
    let shown_before = client.get_ref().1.peer_certificates().unwrap().to_vec();

    certificates.renew_server(2050);
    assert_eq!(terminator.reload().unwrap(), Reload::Replaced);
    assert_eq!(terminator.not_after(), year_start(2050));
    assert_eq!(terminator.reload().unwrap(), Reload::Unchanged);

    client.write_all(b"still here").await.unwrap();
    let mut received = [0; 10];
    server.read_exact(&mut received).await.unwrap();
    assert_eq!(&received, b"still here");
    let connected = connect(&terminator, certificates.client(), "localhost").await;
    let (client, _server) = connected.unwrap();
    let shown_after = client.get_ref().1.peer_certificates().unwrap();
    assert_ne!(shown_before, shown_after);
}

#[tokio::test]
async fn a_new_client_authority_is_used_from_its_reload_on() {
    let certificates = Certificates::new();
    let newcomers = Certificates::new();
    let terminator = terminator(mutual(&certificates));
    fs::copy(newcomers.ca_file(), certificates.ca_file()).unwrap();
    assert_eq!(terminator.reload().unwrap(), Reload::Replaced);
    let rows = [
        (certificates.client_with_certificate_of(&newcomers), true),
        (certificates.client_with_certificate(), false),
    ];
    for (client, expected) in rows {
        let connected = connect(&terminator, client, "localhost").await;
        assert_eq!(connected.is_ok(), expected);
    }
}

#[test]
fn files_that_became_unusable_are_reported_once_and_change_nothing() {
    let certificates = Certificates::new();
    let terminator = terminator(files(&certificates));
    let key = fs::read(certificates.key_file()).unwrap();
    for damaged in [None, Some("half a k")] {
        match damaged {
            Some(content) => fs::write(certificates.key_file(), content).unwrap(),
            None => fs::remove_file(certificates.key_file()).unwrap(),
        }
        assert!(terminator.reload().is_err());
        assert_eq!(terminator.reload().unwrap(), Reload::Unchanged);
        assert_eq!(terminator.not_after(), year_start(FIRST_END_YEAR));
    }
    fs::write(certificates.key_file(), key).unwrap();
    assert_eq!(terminator.reload().unwrap(), Reload::Replaced);
}

#[cfg(unix)]
#[tokio::test(start_paused = true)]
async fn a_symbolic_link_with_a_new_target_is_noticed() {
    let (old, new) = (Certificates::new(), Certificates::new());
    new.renew_server(2050);
    let mount = tempfile::tempdir().unwrap();
    let data = mount.path().join("..data");
    let point_to = |certificates: &Certificates| {
        let target = certificates.ca_file();
        let staged = mount.path().join("..data_tmp");
        std::os::unix::fs::symlink(target.parent().unwrap(), &staged).unwrap();
        fs::rename(&staged, &data).unwrap();
    };
    point_to(&old);
    let terminator = terminator(TlsFiles {
        certificate: data.join("server.pem"),
        key: data.join("server.key"),
        client_ca: None,
        client_crl: None,
    });
    let metrics = Arc::new(ServerMetrics::register(&crate::metrics::Metrics::new()));
    let watching = tokio::spawn(Arc::clone(&terminator).watch(Duration::from_secs(10), metrics));
    point_to(&new);
    let noticed = async {
        while terminator.not_after() != year_start(2050) {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    timeout(Duration::from_secs(60), noticed).await.unwrap();
    watching.abort();
}
