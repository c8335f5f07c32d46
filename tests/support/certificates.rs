//! Certificates for tests: an authority, a server and a client of it, made
//! afresh and written as PEM files, and TLS clients that trust the authority.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test binary uses its part, and what cannot be made fails its test"
)]

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use tempfile::TempDir;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme, SupportedProtocolVersion, WantsVerifier,
};

/// The names and addresses a server certificate is for.
const SERVER_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// The year in which a fresh server certificate ends.
pub(crate) const FIRST_END_YEAR: i32 = 2040;

/// An authority and what it issued, as files that go with it.
pub(crate) struct Certificates {
    authority: CertifiedIssuer<'static, KeyPair>,
    directory: TempDir,
}

impl Certificates {
    /// A new authority with a server certificate for `localhost`, 127.0.0.1
    /// and `::1`, and a client certificate.
    pub(crate) fn new() -> Self {
        let certificates = Self {
            authority: authority(),
            directory: tempfile::tempdir().unwrap(),
        };
        fs::write(certificates.ca_file(), certificates.authority.pem()).unwrap();
        certificates.renew_server(FIRST_END_YEAR);
        certificates.issue_client();
        certificates
    }

    /// Replaces the server's certificate and key by new ones of the same
    /// authority that end with the first day of `end_year`.
    pub(crate) fn renew_server(&self, end_year: i32) {
        let names = SERVER_NAMES.map(String::from);
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = date_time_ymd(end_year, 1, 1);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(&params, self.certificate_file(), self.key_file());
    }

    pub(crate) fn ca_file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    pub(crate) fn certificate_file(&self) -> PathBuf {
        self.directory.path().join("server.pem")
    }

    pub(crate) fn key_file(&self) -> PathBuf {
        self.directory.path().join("server.key")
    }

    pub(crate) fn client_certificate_file(&self) -> PathBuf {
        self.directory.path().join("client.pem")
    }

    pub(crate) fn client_key_file(&self) -> PathBuf {
        self.directory.path().join("client.key")
    }

    /// A TLS client that trusts the authority and shows no certificate.
    pub(crate) fn client(&self) -> ClientConfig {
        let trusting = client_builder().with_root_certificates(self.roots());
        trusting.with_no_client_auth()
    }

    /// As [`Self::client`], speaking one version of TLS alone.
    pub(crate) fn client_speaking(
        &self,
        version: &'static SupportedProtocolVersion,
    ) -> ClientConfig {
        let builder = ClientConfig::builder_with_provider(provider());
        let builder = builder.with_protocol_versions(&[version]).unwrap();
        let trusting = builder.with_root_certificates(self.roots());
        trusting.with_no_client_auth()
    }

    /// As [`Self::client`], whatever name the certificate is for; the common
    /// name check of the platform is optional as well.
    pub(crate) fn client_ignoring_names(&self) -> ClientConfig {
        let roots = Arc::new(self.roots());
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider());
        let ignoring = Arc::new(IgnoringNames(verifier.build().unwrap()));
        let dangerous = client_builder().dangerous();
        let trusting = dangerous.with_custom_certificate_verifier(ignoring);
        trusting.with_no_client_auth()
    }

    /// A TLS client that trusts the authority and shows its certificate.
    pub(crate) fn client_with_certificate(&self) -> ClientConfig {
        self.client_with_certificate_of(self)
    }

    /// A TLS client that trusts this authority and shows another one's
    /// certificate.
    pub(crate) fn client_with_certificate_of(&self, other: &Self) -> ClientConfig {
        let certificate = CertificateDer::from_pem_file(other.client_certificate_file()).unwrap();
        let key = PrivateKeyDer::from_pem_file(other.client_key_file()).unwrap();
        let trusting = client_builder().with_root_certificates(self.roots());
        trusting
            .with_client_auth_cert(vec![certificate], key)
            .unwrap()
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        roots
    }

    fn issue_client(&self) {
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(
            &params,
            self.client_certificate_file(),
            self.client_key_file(),
        );
    }

    fn issue(&self, params: &CertificateParams, certificate_file: PathBuf, key_file: PathBuf) {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        fs::write(certificate_file, certificate.pem()).unwrap();
        fs::write(key_file, key.serialize_pem()).unwrap();
    }
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
        .distinguished_name
        .push(DnType::CommonName, "northbridge test authority");
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn client_builder() -> ConfigBuilder<ClientConfig, WantsVerifier> {
    let builder = ClientConfig::builder_with_provider(provider());
    builder.with_safe_default_protocol_versions().unwrap()
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Verifies everything but the name.
#[derive(Debug)]
struct IgnoringNames(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for IgnoringNames {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified =
            self.0
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verified {
            // The name is compared last, when all else has been found right.
            Err(Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. })) => {
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
