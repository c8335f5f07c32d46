//! TLS: which certificate the listener shows, whom it asks for one, and the
//! exchange of certificates while it runs.
//!
//! Knows files and rustls; not what is spoken inside (`server`), nor how long a
//! handshake may take (the accept loop bounds it).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::spawn_blocking;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;

use crate::metrics::ServerMetrics;

/// What is offered by ALPN, best first.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The files that TLS is set up from, all of them PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The listener's certificate, then those that link it to its authority.
    pub certificate: PathBuf,
    /// The private key of that certificate, not encrypted.
    pub key: PathBuf,
    /// The authorities of client certificates; given, a client certificate is
    /// required, and who has none gets no further than the handshake.
    pub client_ca: Option<PathBuf>,
}

/// Ends TLS in front of the listener.
///
/// One certificate serves every client, with or without SNI: the platform
/// sends none by default. TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1 by ALPN.
pub struct TlsTerminator {
    files: TlsFiles,
    served: ArcSwap<Served>,
    /// Of the files at the last look, whether or not they could be used.
    last_seen: ArcSwap<blake3::Hash>,
}

/// What a look at the files changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// The files are as they were at the last look.
    Unchanged,
    /// New connections get the new certificate from now on.
    Swapped,
}

/// Why TLS cannot be set up from its files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing or may not be read.
    #[error("cannot read {}: {error}", .file.display())]
    Unreadable {
        /// The file that was to be read.
        file: PathBuf,
        /// What the operating system says.
        error: io::Error,
    },
    /// A file breaks the syntax of PEM.
    #[error("{} is not PEM: {error}", .file.display())]
    NotPem {
        /// The broken file.
        file: PathBuf,
        /// Where it breaks.
        error: pem::Error,
    },
    /// A file has no certificate in it.
    #[error("{} holds no certificate", .file.display())]
    NoCertificate {
        /// The file without one.
        file: PathBuf,
    },
    /// A certificate is not one, behind its PEM.
    #[error("{} holds a certificate that cannot be used: {reason}", .file.display())]
    UnusableCertificate {
        /// The file it stands in.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file has no private key in it.
    #[error(
        "{} holds no private key as PKCS#8, PKCS#1 or SEC1, unencrypted",
        .file.display()
    )]
    NoKey {
        /// The file without one.
        file: PathBuf,
    },
    /// A private key is broken, or of a kind that is not supported.
    #[error("{} holds a private key that cannot be used: {error}", .file.display())]
    UnusableKey {
        /// The file it stands in.
        file: PathBuf,
        /// What is wrong with it.
        error: rustls::Error,
    },
    /// Certificate and key are of different pairs.
    #[error(
        "the private key in {} does not belong to the first certificate in {}",
        .key.display(), .certificate.display()
    )]
    KeyMismatch {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// No client certificate could be verified.
    #[error("{} cannot verify client certificates: {error}", .file.display())]
    UnusableClientCa {
        /// The file of the authorities.
        file: PathBuf,
        /// What is wrong with them.
        error: VerifierBuilderError,
    },
    /// TLS itself is at fault: no randomness, or no cipher in common with
    /// itself.
    #[error("cannot set up TLS: {0}")]
    Setup(rustls::Error),
}

impl TlsTerminator {
    /// Reads the files and gets ready to accept.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let material = Material::read(&files);
        let last_seen = ArcSwap::from_pointee(fingerprint(&material));
        let served = ArcSwap::from_pointee(Served::new(&files, &material?)?);
        Ok(Self {
            files,
            served,
            last_seen,
        })
    }

    /// Performs the handshake. Takes as long as the client does.
    pub async fn accept<S>(&self, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = Arc::clone(&self.served.load().config);
        TlsAcceptor::from(config).accept(stream).await
    }

    /// When the certificate served now ends, in seconds since 1970, UTC.
    pub fn not_after(&self) -> i64 {
        self.served.load().not_after
    }

    /// Looks at the files every `interval`, for as long as it is polled, and
    /// serves what they hold when they changed. Connections that are open stay
    /// as they are; files that cannot be used change nothing, and are reported
    /// once.
    ///
    /// The bytes are compared, not the times: Kubernetes replaces mounted files
    /// by exchanging a symbolic link.
    pub async fn watch(self: Arc<Self>, interval: Duration, metrics: Arc<ServerMetrics>) {
        loop {
            metrics.certificate_not_after.set(self.not_after());
            tokio::time::sleep(interval).await;
            let terminator = Arc::clone(&self);
            let looked = spawn_blocking(move || terminator.reload()).await;
            match looked {
                Ok(Ok(Reload::Unchanged)) => {}
                Ok(Ok(Reload::Swapped)) => {
                    tracing::info!(not_after = self.not_after(), "TLS certificate replaced");
                }
                Ok(Err(error)) => {
                    metrics.certificate_reload_failures.inc();
                    tracing::error!(%error, "changed TLS files cannot be used, the old ones stay");
                }
                Err(error) => tracing::error!(%error, "the look at the TLS files failed"),
            }
        }
    }

    /// Looks at the files once. Blocks while it reads them.
    ///
    /// # Errors
    /// At the first look only, when the files changed into something that
    /// cannot be used; what was served before is served on.
    pub fn reload(&self) -> Result<Reload, TlsError> {
        let material = Material::read(&self.files);
        let seen = fingerprint(&material);
        if *self.last_seen.swap(Arc::new(seen)) == seen {
            return Ok(Reload::Unchanged);
        }
        let served = Served::new(&self.files, &material?)?;
        self.served.store(Arc::new(served));
        Ok(Reload::Swapped)
    }
}

/// What connections are accepted with.
struct Served {
    config: Arc<ServerConfig>,
    not_after: i64,
}

impl Served {
    fn new(files: &TlsFiles, material: &Material) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let chain = certificates(&files.certificate, &material.certificate)?;
        let leaf = Leaf::parse(&files.certificate, &chain)?;
        let key = private_key(&files.key, &material.key, &provider)?;
        if key
            .public_key()
            .is_some_and(|public| *public != *leaf.public_key)
        {
            return Err(TlsError::KeyMismatch {
                certificate: files.certificate.clone(),
                key: files.key.clone(),
            });
        }
        let not_after = leaf.not_after;
        let verifier = client_verifier(files, material, &provider)?;
        let config = server_config(provider, verifier, CertifiedKey::new(chain, key))?;
        Ok(Self {
            config: Arc::new(config),
            not_after,
        })
    }
}

/// The bytes of the files.
struct Material {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Material {
    fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        Ok(Self {
            certificate: read(&files.certificate)?,
            key: read(&files.key)?,
            client_ca: files.client_ca.as_deref().map(read).transpose()?,
        })
    }
}

/// What of the listener's own certificate matters here.
///
/// Parsed with `x509-parser` rather than by rustls, which takes no certificate
/// of X.509 version 1, as older guides to self-signed ones make them.
struct Leaf {
    public_key: Vec<u8>,
    not_after: i64,
}

impl Leaf {
    fn parse(file: &Path, chain: &[CertificateDer<'_>]) -> Result<Self, TlsError> {
        let der = chain.first().ok_or_else(|| TlsError::NoCertificate {
            file: file.to_owned(),
        })?;
        let (_, leaf) = x509_parser::parse_x509_certificate(der).map_err(|error| {
            TlsError::UnusableCertificate {
                file: file.to_owned(),
                reason: error.to_string(),
            }
        })?;
        Ok(Self {
            public_key: leaf.public_key().raw.to_vec(),
            not_after: leaf.validity().not_after.timestamp(),
        })
    }
}

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(file).map_err(|error| TlsError::Unreadable {
        file: file.to_owned(),
        error,
    })
}

/// Equal for equal files, and for files that are unreadable in the same way.
fn fingerprint(material: &Result<Material, TlsError>) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    match material {
        Ok(material) => {
            let client_ca = material.client_ca.as_deref().unwrap_or_default();
            for bytes in [&material.certificate, &material.key, client_ca] {
                hasher.update(blake3::hash(bytes).as_bytes());
            }
        }
        Err(error) => {
            hasher.update(error.to_string().as_bytes());
        }
    }
    hasher.finalize()
}

fn certificates(file: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(bytes).collect();
    let found = found.map_err(|error| TlsError::NotPem {
        file: file.to_owned(),
        error,
    })?;
    if found.is_empty() {
        return Err(TlsError::NoCertificate {
            file: file.to_owned(),
        });
    }
    Ok(found)
}

fn private_key(
    file: &Path,
    bytes: &[u8],
    provider: &CryptoProvider,
) -> Result<Arc<dyn SigningKey>, TlsError> {
    let file = file.to_owned();
    let key = match PrivateKeyDer::from_pem_slice(bytes) {
        Ok(key) => key,
        Err(pem::Error::NoItemsFound) => return Err(TlsError::NoKey { file }),
        Err(error) => return Err(TlsError::NotPem { file, error }),
    };
    let loaded = provider.key_provider.load_private_key(key);
    loaded.map_err(|error| TlsError::UnusableKey { file, error })
}

fn client_verifier(
    files: &TlsFiles,
    material: &Material,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let (Some(file), Some(bytes)) = (&files.client_ca, &material.client_ca) else {
        return Ok(WebPkiClientVerifier::no_client_auth());
    };
    let mut roots = RootCertStore::empty();
    for authority in certificates(file, bytes)? {
        let added = roots.add(authority);
        added.map_err(|error| TlsError::UnusableCertificate {
            file: file.clone(),
            reason: error.to_string(),
        })?;
    }
    let provider = Arc::clone(provider);
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    builder.build().map_err(|error| TlsError::UnusableClientCa {
        file: file.clone(),
        error,
    })
}

/// Sessions are resumed by tickets, so that nothing is kept per client. Their
/// keys belong to this configuration: after a reload nobody resumes a session
/// that another client authority let in.
fn server_config(
    provider: Arc<CryptoProvider>,
    verifier: Arc<dyn ClientCertVerifier>,
    certified: CertifiedKey,
) -> Result<ServerConfig, TlsError> {
    let resolver = Arc::new(SingleCertAndKey::from(certified));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(TlsError::Setup)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(resolver);
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
    config.ticketer = ring::Ticketer::new().map_err(TlsError::Setup)?;
    Ok(config)
}

#[cfg(test)]
#[path = "../../tests/support/certificates.rs"]
mod test_certificates;

#[cfg(test)]
mod tests {
    use super::test_certificates::{Certificates, FIRST_END_YEAR};
    use super::*;

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
        }
    }

    fn mutual(certificates: &Certificates) -> TlsFiles {
        TlsFiles {
            client_ca: Some(certificates.ca_file()),
            ..files(certificates)
        }
    }

    fn terminator(files: TlsFiles) -> Arc<TlsTerminator> {
        Arc::new(TlsTerminator::load(files).unwrap())
    }

    fn year_start(year: i32) -> i64 {
        let start = Utc.with_ymd_and_hms(year, 1, 1, 0, 0, 0);
        start.unwrap().timestamp()
    }

    type Ends = (client::TlsStream<DuplexStream>, TlsStream<DuplexStream>);

    async fn connect(
        terminator: &TlsTerminator,
        client: ClientConfig,
        name: &str,
    ) -> io::Result<Ends> {
        let (near, far) = duplex(16 * 1024);
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connector = TlsConnector::from(Arc::new(client));
        // One end may finish before it learns that the other refused: TLS 1.3
        // clients do, and only their first read tells.
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
    async fn tls_1_2_and_1_3_are_spoken() {
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
    async fn http2_is_preferred_by_alpn_and_none_is_needed() {
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
        }
    }

    #[tokio::test]
    async fn mutual_tls_lets_nobody_in_without_a_certificate_of_its_authority() {
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
    async fn a_session_is_resumed_until_the_files_change() {
        let certificates = Certificates::new();
        let terminator = terminator(mutual(&certificates));
        let client = certificates.client_with_certificate();
        let handshake = async || {
            let connected = connect(&terminator, client.clone(), "localhost").await;
            connected.unwrap().1.get_ref().1.handshake_kind()
        };
        assert_eq!(handshake().await, Some(HandshakeKind::Full));
        assert_eq!(handshake().await, Some(HandshakeKind::Resumed));
        certificates.renew_server(2045);
        terminator.reload().unwrap();
        assert_eq!(handshake().await, Some(HandshakeKind::Full));
    }

    #[tokio::test]
    async fn a_session_is_resumed_however_many_others_there_were() {
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
    fn the_end_of_the_served_certificate_is_known() {
        let certificates = Certificates::new();
        let terminator = terminator(files(&certificates));
        assert_eq!(terminator.not_after(), year_start(FIRST_END_YEAR));
    }

    #[test]
    fn files_that_cannot_be_used_are_errors_that_name_them() {
        let broken_pem = "-----BEGIN CERTIFICATE-----\nAAAA\n";
        let no_x509 = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let no_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        let encrypted = no_key.replace("PRIVATE", "ENCRYPTED PRIVATE");
        let other = fs::read_to_string(Certificates::new().key_file()).unwrap();
        let rows = [
            ("server.pem", None, "cannot read "),
            ("server.key", None, "cannot read "),
            ("ca.pem", None, "cannot read "),
            ("server.pem", Some(""), "holds no certificate"),
            ("ca.pem", Some("# none yet"), "holds no certificate"),
            ("server.pem", Some(broken_pem), "is not PEM"),
            ("ca.pem", Some(broken_pem), "is not PEM"),
            ("server.key", Some(broken_pem), "is not PEM"),
            (
                "server.pem",
                Some(no_x509),
                "holds a certificate that cannot be used",
            ),
            (
                "ca.pem",
                Some(no_x509),
                "holds a certificate that cannot be used",
            ),
            ("server.key", Some(""), "holds no private key"),
            ("server.key", Some(&encrypted), "unencrypted"),
            (
                "server.key",
                Some(no_key),
                "holds a private key that cannot be used",
            ),
            (
                "server.key",
                Some(&other),
                "does not belong to the first certificate in",
            ),
        ];
        for (name, content, expected) in rows {
            let certificates = Certificates::new();
            let file = certificates.ca_file().with_file_name(name);
            match content {
                Some(content) => fs::write(&file, content).unwrap(),
                None => fs::remove_file(&file).unwrap(),
            }
            let error = TlsTerminator::load(mutual(&certificates)).err();
            let message = error.unwrap().to_string();
            assert!(message.contains(expected), "{message}");
            assert!(message.contains(&file.display().to_string()), "{message}");
        }
    }

    #[tokio::test]
    async fn new_files_are_served_to_new_connections_and_old_ones_live_on() {
        let certificates = Certificates::new();
        let terminator = terminator(files(&certificates));
        let connected = connect(&terminator, certificates.client(), "localhost").await;
        let (mut client, mut server) = connected.unwrap();
        let shown_before = client.get_ref().1.peer_certificates().unwrap().to_vec();

        certificates.renew_server(2050);
        assert_eq!(terminator.reload().unwrap(), Reload::Swapped);
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
    async fn a_new_client_authority_counts_from_its_reload_on() {
        let certificates = Certificates::new();
        let newcomers = Certificates::new();
        let terminator = terminator(mutual(&certificates));
        fs::copy(newcomers.ca_file(), certificates.ca_file()).unwrap();
        assert_eq!(terminator.reload().unwrap(), Reload::Swapped);
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
        assert_eq!(terminator.reload().unwrap(), Reload::Swapped);
    }

    #[cfg(unix)]
    #[tokio::test(start_paused = true)]
    async fn a_symbolic_link_that_changes_its_target_is_noticed() {
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
        });
        let metrics = Arc::new(ServerMetrics::register(&crate::metrics::Metrics::new()));
        let watching =
            tokio::spawn(Arc::clone(&terminator).watch(Duration::from_secs(10), metrics));
        point_to(&new);
        let noticed = async {
            while terminator.not_after() != year_start(2050) {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        timeout(Duration::from_secs(60), noticed).await.unwrap();
        watching.abort();
    }
}
