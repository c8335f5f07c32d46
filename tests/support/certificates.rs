//! Freshly generated certificates, written as PEM files: a CA, a server
//! certificate and a client certificate, and TLS clients that trust the CA.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test binary uses only part of this, and a failure to generate fails the test"
)]

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
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
    ServerConfig, ServerConnection, SignatureScheme, SupportedProtocolVersion, WantsVerifier,
};

/// The subject alternative names of the server certificate.
const SERVER_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// The year in which the first server certificate expires.
pub(crate) const FIRST_END_YEAR: i32 = 2040;

/// A CA and the certificates it issued; the files are deleted on drop.
pub(crate) struct Certificates {
    authority: CertifiedIssuer<'static, KeyPair>,
    directory: TempDir,
}

impl Certificates {
    /// Generates a CA, a server certificate for `localhost`, `127.0.0.1` and
    /// `::1`, and a client certificate.
    pub(crate) fn new() -> Self {
        let certificates = Self {
            authority: authority(),
            directory: tempfile::tempdir().unwrap(),
        };
        fs::write(certificates.ca_file(), certificates.authority.pem()).unwrap();
        certificates.renew_server(FIRST_END_YEAR);
        certificates.issue_client(
            "northbridge test client",
            certificates.client_certificate_file(),
            certificates.client_key_file(),
        );
        certificates
    }

    /// Replaces the server's certificate and key. The new certificate is issued
    /// by the same CA and expires on January 1 of `end_year`.
    pub(crate) fn renew_server(&self, end_year: i32) {
        let names = SERVER_NAMES.map(String::from);
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = date_time_ymd(end_year, 1, 1);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(&params, self.certificate_file(), self.key_file());
    }

    /// Issues another client certificate, whose subject has only this common name,
    /// and returns its file and that of its key.
    pub(crate) fn named_client(&self, common_name: &str) -> (PathBuf, PathBuf) {
        let file = |suffix| {
            self.directory
                .path()
                .join(format!("{common_name}.{suffix}"))
        };
        let (certificate, key) = (file("pem"), file("key"));
        self.issue_client(common_name, certificate.clone(), key.clone());
        (certificate, key)
    }

    /// Writes a list of the revoked certificates: those in these files.
    pub(crate) fn revoke(&self, certificates: &[PathBuf]) -> PathBuf {
        let now = SystemTime::now();
        let revoked = certificates.iter().map(|file| {
            let certificate = CertificateDer::from_pem_file(file).unwrap();
            let (_, certificate) = x509_parser::parse_x509_certificate(&certificate).unwrap();
            RevokedCertParams {
                serial_number: SerialNumber::from_slice(certificate.raw_serial()),
                revocation_time: now.into(),
                reason_code: None,
                invalidity_date: None,
            }
        });
        let list = CertificateRevocationListParams {
            this_update: now.into(),
            next_update: (now + Duration::from_secs(3_600)).into(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let file = self.directory.path().join("crl.pem");
        let list = list.signed_by(&self.authority).unwrap();
        fs::write(&file, list.pem().unwrap()).unwrap();
        file
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

    /// A TLS client that trusts the CA and presents no certificate.
    pub(crate) fn client(&self) -> ClientConfig {
        let trusting = client_builder().with_root_certificates(self.roots());
        trusting.with_no_client_auth()
    }

    /// Like [`Self::client`], restricted to one TLS version.
    pub(crate) fn client_speaking(
        &self,
        version: &'static SupportedProtocolVersion,
    ) -> ClientConfig {
        let builder = ClientConfig::builder_with_provider(provider());
        let builder = builder.with_protocol_versions(&[version]).unwrap();
        let trusting = builder.with_root_certificates(self.roots());
        trusting.with_no_client_auth()
    }

    /// Like [`Self::client`], without host name verification, which is optional
    /// on the platform as well.
    pub(crate) fn client_ignoring_names(&self) -> ClientConfig {
        let roots = Arc::new(self.roots());
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider());
        let ignoring = Arc::new(IgnoringNames(verifier.build().unwrap()));
        let dangerous = client_builder().dangerous();
        let trusting = dangerous.with_custom_certificate_verifier(ignoring);
        trusting.with_no_client_auth()
    }

    /// A TLS client that trusts the CA and presents the client certificate.
    pub(crate) fn client_with_certificate(&self) -> ClientConfig {
        self.client_with_certificate_of(self)
    }

    /// Like [`Self::client_with_certificate`], restricted to one TLS version.
    pub(crate) fn client_with_certificate_speaking(
        &self,
        version: &'static SupportedProtocolVersion,
    ) -> ClientConfig {
        let certificate = CertificateDer::from_pem_file(self.client_certificate_file()).unwrap();
        let key = PrivateKeyDer::from_pem_file(self.client_key_file()).unwrap();
        let builder = ClientConfig::builder_with_provider(provider());
        let builder = builder.with_protocol_versions(&[version]).unwrap();
        let trusting = builder.with_root_certificates(self.roots());
        trusting
            .with_client_auth_cert(vec![certificate], key)
            .unwrap()
    }

    /// A TLS client that trusts this CA and presents a client certificate that
    /// another CA issued.
    pub(crate) fn client_with_certificate_of(&self, other: &Self) -> ClientConfig {
        self.client_presenting((other.client_certificate_file(), other.client_key_file()))
    }

    /// A TLS client that trusts the CA and presents the certificate in a file, with the
    /// key in another.
    pub(crate) fn client_presenting(&self, files: (PathBuf, PathBuf)) -> ClientConfig {
        let certificate = CertificateDer::from_pem_file(files.0).unwrap();
        let key = PrivateKeyDer::from_pem_file(files.1).unwrap();
        let trusting = client_builder().with_root_certificates(self.roots());
        trusting
            .with_client_auth_cert(vec![certificate], key)
            .unwrap()
    }

    /// Listens on an address, and shows the server certificate to everybody who
    /// connects, until the tests end. Closes each connection after its handshake.
    /// Returns the address with its port.
    pub(crate) fn show_at(&self, address: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let config = Arc::new(self.server());
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let config = Arc::clone(&config);
                thread::spawn(move || {
                    let mut connection = ServerConnection::new(config).unwrap();
                    // A client that speaks something else, or rejects the
                    // certificate, ends it.
                    let mut exchange = || connection.complete_io(&mut stream);
                    while exchange().is_ok_and(|(read, _)| read > 0) {}
                });
            }
        });
        address
    }

    pub(crate) fn server(&self) -> ServerConfig {
        let chain = CertificateDer::pem_file_iter(self.certificate_file()).unwrap();
        let key = PrivateKeyDer::from_pem_file(self.key_file()).unwrap();
        let builder = ServerConfig::builder_with_provider(provider());
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        builder
            .with_no_client_auth()
            .with_single_cert(chain.map(Result::unwrap).collect(), key)
            .unwrap()
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        roots
    }

    fn issue_client(&self, common_name: &str, certificate: PathBuf, key: PathBuf) {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(&params, certificate, key);
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

/// Verifies everything except the host name.
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
            // webpki checks the name last, so everything else is valid by now.
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
