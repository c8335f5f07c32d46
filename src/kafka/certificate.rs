//! Looks at a broker's certificate that OpenSSL has rejected, to say what is
//! wrong with it: its date, its names or its issuer.
//!
//! Connects once more, receives the certificate, and closes the connection
//! before anything else is sent. The verdict stays OpenSSL's: this only puts a
//! reason to it.

use std::io;
use std::net::{IpAddr, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme,
};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::failure::{Account, Failure, RejectedCertificate};

/// The longest wait for the connection, and for each step of the handshake.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Returns what is wrong with the certificate of the broker at `HOST:PORT`;
/// `None` if it cannot be received.
pub(super) fn examine(address: &str, account: &Account) -> Option<Failure> {
    let (host, _) = address.rsplit_once(':')?;
    let received = receive(address, host);
    let certificate = received
        .inspect_err(|error| tracing::debug!(%error, address, "cannot receive the certificate"))
        .ok()??;
    let (_, parsed) = X509Certificate::from_der(&certificate).ok()?;
    Some(describe(&parsed, host).failure(account))
}

fn describe(certificate: &X509Certificate<'_>, host: &str) -> RejectedCertificate {
    let (names, addresses) = names(certificate);
    let host = host.trim_matches(['[', ']']);
    let is_named = match host.parse::<IpAddr>() {
        Ok(address) => addresses.contains(&address),
        Err(_) => names.iter().any(|name| matches(name, host)),
    };
    let validity = certificate.validity();
    let addresses = addresses.iter().map(ToString::to_string);
    RejectedCertificate {
        host: host.to_owned(),
        is_named,
        names: names.iter().cloned().chain(addresses).collect(),
        issuer: certificate.issuer().to_string(),
        not_before: time(validity.not_before.timestamp()),
        not_after: time(validity.not_after.timestamp()),
        now: Utc::now(),
    }
}

/// Returns the DNS names and addresses that a certificate is for.
fn names(certificate: &X509Certificate<'_>) -> (Vec<String>, Vec<IpAddr>) {
    let (mut names, mut addresses) = (Vec::new(), Vec::new());
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    for name in alternatives
        .iter()
        .flat_map(|names| &names.value.general_names)
    {
        if let GeneralName::DNSName(name) = name {
            names.push((*name).to_owned());
        }
        if let GeneralName::IPAddress(bytes) = name {
            addresses.extend(ip_address(bytes));
        }
    }
    // OpenSSL looks at the subject only if there is no alternative name.
    if names.is_empty() && addresses.is_empty() {
        let subject = certificate.subject().iter_common_name();
        names.extend(subject.filter_map(|name| name.as_str().ok().map(str::to_owned)));
    }
    (names, addresses)
}

fn ip_address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(bytes) = <[u8; 4]>::try_from(bytes) {
        return Some(bytes.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

/// Returns whether a name of a certificate, in which the first label may be
/// `*`, stands for the host (RFC 9525, section 6.3).
fn matches(name: &str, host: &str) -> bool {
    let is_wildcard_of = |domain: &str| {
        let rest = host.split_once('.').map(|(_, rest)| rest);
        rest.is_some_and(|rest| rest.eq_ignore_ascii_case(domain))
    };
    name.strip_prefix("*.")
        .map_or_else(|| name.eq_ignore_ascii_case(host), is_wildcard_of)
}

fn time(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).unwrap_or_default()
}

/// Begins a handshake, and returns the certificate that the server shows.
fn receive(address: &str, host: &str) -> io::Result<Option<CertificateDer<'static>>> {
    let received = Arc::new(Receiver::default());
    let verifier = Arc::clone(&received);
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let mut connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    let mut stream = connect(address)?;
    // The receiver ends the handshake, so it always fails.
    let ended = connection.complete_io(&mut stream);
    let certificate = received.take();
    if certificate.is_none() {
        ended?;
    }
    Ok(certificate)
}

fn connect(address: &str) -> io::Result<TcpStream> {
    let mut last = io::ErrorKind::AddrNotAvailable.into();
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, TIMEOUT) {
            Ok(stream) => {
                stream.set_read_timeout(Some(TIMEOUT))?;
                stream.set_write_timeout(Some(TIMEOUT))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Keeps the server's certificate and rejects it.
#[derive(Debug, Default)]
struct Receiver(Mutex<Option<CertificateDer<'static>>>);

impl Receiver {
    fn take(&self) -> Option<CertificateDer<'static>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ServerCertVerifier for Receiver {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let mut received = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *received = Some(certificate.clone().into_owned());
        Err(Error::General("only the certificate is wanted".to_owned()))
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("never asked for".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("never asked for".to_owned()))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let provider = ring::default_provider();
        provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
