//! TLS on the listener: handshake, ALPN, client certificates, and the reload of
//! the certificate while the process runs.
//!
//! Knows rustls; not the contents of files (`certificate`), nor what is sent
//! inside (`connection`), which also bounds the time of a handshake.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::spawn_blocking;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::server::TlsStream;

use super::certificate::{self, TlsError, TlsFiles, TlsMaterial};
use super::client_names::AllowedNames;
use super::metrics::ServerMetrics;
use super::protocol::Protocol;

const ALPN_HTTP2: &[u8] = b"h2";
const ALPN_HTTP1: &[u8] = b"http/1.1";
/// HTTP/1.0 differs from 1.1 in what a request says, not in how it is read.
const ALPN_HTTP1_0: &[u8] = b"http/1.0";

/// Terminates TLS 1.2 and 1.3 on the listener.
///
/// One certificate serves every client, with or without SNI: the platform
/// sends none by default.
pub(crate) struct TlsTerminator {
    files: TlsFiles,
    served: ArcSwap<Served>,
    /// `tls.client_allowed_names`.
    allowed_names: ArcSwap<Vec<String>>,
    /// Of the files when they were last read, usable or not.
    last_read: ArcSwap<blake3::Hash>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reload {
    /// The files are as they were at the last reload.
    Unchanged,
    /// New connections get the new certificate from now on.
    Replaced,
}

impl TlsTerminator {
    /// Reads the files; blocks while it does. `allowed_names` are the clients whose
    /// certificates count; all do if there are none.
    pub(crate) fn load(files: TlsFiles, allowed_names: &[String]) -> Result<Self, TlsError> {
        let material = files.read();
        let last_read = ArcSwap::from_pointee(certificate::fingerprint(&material));
        let served = Served::new(&files, &material?, allowed_names)?;
        Ok(Self {
            files,
            served: ArcSwap::from_pointee(served),
            allowed_names: ArcSwap::from_pointee(allowed_names.to_vec()),
            last_read,
        })
    }

    /// Changes the clients whose certificates count, for new connections, with the
    /// next look at the files.
    pub(crate) fn allow_names(&self, names: &[String]) {
        if **self.allowed_names.load() != names {
            self.allowed_names.store(Arc::new(names.to_vec()));
            self.last_read
                .store(Arc::new(blake3::Hash::from_bytes([0; 32])));
        }
    }

    /// Performs the handshake, without a time limit of its own.
    pub(crate) async fn accept<S>(&self, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = Arc::clone(&self.served.load().config);
        TlsAcceptor::from(config).accept(stream).await
    }

    /// When the served certificate expires, in seconds since 1970, UTC.
    pub(crate) fn not_after(&self) -> i64 {
        self.served.load().not_after
    }

    /// Reloads the files every `interval`, for as long as it is polled. Open
    /// connections keep the certificate of their handshake. Files that cannot
    /// be used change nothing and are reported once.
    ///
    /// Compares contents, not modification times: Kubernetes replaces mounted
    /// files by exchanging a symbolic link.
    pub(crate) async fn watch(self: Arc<Self>, interval: Duration, metrics: Arc<ServerMetrics>) {
        loop {
            metrics.certificate_not_after.set(self.not_after());
            tokio::time::sleep(interval).await;
            let terminator = Arc::clone(&self);
            match spawn_blocking(move || terminator.reload()).await {
                Ok(Ok(Reload::Unchanged)) => {}
                Ok(Ok(Reload::Replaced)) => {
                    tracing::info!(not_after = self.not_after(), "TLS certificate replaced");
                }
                Ok(Err(error)) => {
                    metrics.certificate_reload_failures.inc();
                    tracing::error!(
                        %error,
                        "TLS files changed but cannot be used; keeping the previous certificate"
                    );
                }
                Err(error) => tracing::error!(%error, "TLS reload failed; retrying"),
            }
        }
    }

    /// Reloads the files once; blocks while it reads them.
    ///
    /// # Errors
    ///
    /// Returns an error if the files have changed since the last reload and
    /// cannot be used. What was served before is still served.
    pub(crate) fn reload(&self) -> Result<Reload, TlsError> {
        let material = self.files.read();
        let read = certificate::fingerprint(&material);
        if *self.last_read.swap(Arc::new(read)) == read {
            return Ok(Reload::Unchanged);
        }
        let served = Served::new(&self.files, &material?, &self.allowed_names.load())?;
        self.served.store(Arc::new(served));
        Ok(Reload::Replaced)
    }
}

/// The protocol that ALPN chose; `None` if the client offered none that the
/// listener knows.
pub(crate) fn negotiated<S>(stream: &TlsStream<S>) -> Option<Protocol> {
    match stream.get_ref().1.alpn_protocol()? {
        ALPN_HTTP2 => Some(Protocol::Http2),
        ALPN_HTTP1 | ALPN_HTTP1_0 => Some(Protocol::Http1),
        _ => None,
    }
}

/// What new connections are accepted with.
struct Served {
    config: Arc<ServerConfig>,
    not_after: i64,
}

impl Served {
    fn new(
        files: &TlsFiles,
        material: &TlsMaterial,
        allowed_names: &[String],
    ) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let certificate = files.server_certificate(material, &provider)?;
        let verifier = client_verifier(files, material, allowed_names, &provider)?;
        let config = server_config(provider, verifier, certificate.certified)?;
        Ok(Self {
            config: Arc::new(config),
            not_after: certificate.not_after,
        })
    }
}

fn client_verifier(
    files: &TlsFiles,
    material: &TlsMaterial,
    allowed_names: &[String],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let Some((file, roots)) = files.client_authorities(material)? else {
        return Ok(WebPkiClientVerifier::no_client_auth());
    };
    let provider = Arc::clone(provider);
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .with_crls(files.revocation_lists(material)?)
        // Lists of intermediate authorities are rarely at hand. A client whose own
        // authority has no list is rejected.
        .only_check_end_entity_revocation();
    let verifier = builder
        .build()
        .map_err(|error| TlsError::UnusableClientCa {
            file: file.to_owned(),
            error,
        })?;
    if allowed_names.is_empty() {
        return Ok(verifier);
    }
    Ok(Arc::new(AllowedNames::new(
        verifier,
        allowed_names.to_vec(),
    )))
}

/// Sessions are resumed by tickets, so the server keeps nothing per client.
///
/// None is resumed with client certificates: a resumption would not look at the
/// certificate again, which may have expired or been revoked since.
fn server_config(
    provider: Arc<CryptoProvider>,
    verifier: Arc<dyn ClientCertVerifier>,
    certified: CertifiedKey,
) -> Result<ServerConfig, TlsError> {
    let resolver = Arc::new(SingleCertAndKey::from(certified));
    let has_client_certificates = verifier.offer_client_auth();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(TlsError::Setup)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(resolver);
    // Best first.
    config.alpn_protocols = [ALPN_HTTP2, ALPN_HTTP1, ALPN_HTTP1_0]
        .map(<[u8]>::to_vec)
        .into();
    if has_client_certificates {
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    } else {
        config.ticketer = ring::Ticketer::new().map_err(TlsError::Setup)?;
    }
    Ok(config)
}

#[cfg(test)]
mod tests;
