//! The files that TLS is set up from: reading, checking and comparing them.
//!
//! Knows PEM, X.509 and what makes a usable key pair; not how a handshake uses
//! them (`tls`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer,
};
use tokio_rustls::rustls::server::VerifierBuilderError;
use tokio_rustls::rustls::sign::{CertifiedKey, SigningKey};
use tokio_rustls::rustls::{self, RootCertStore};

use crate::config::Tls;

/// The paths of the certificate, its key, the client CAs and their revocations, all
/// of them PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    /// The listener's certificate first, then its intermediates.
    pub(crate) certificate: PathBuf,
    /// The private key of that certificate, unencrypted.
    pub(crate) key: PathBuf,
    /// The authorities of client certificates. If set, a client without a
    /// certificate from one of them fails the handshake.
    pub(crate) client_ca: Option<PathBuf>,
    /// The certificates of clients that these authorities have revoked.
    pub(crate) client_crl: Option<PathBuf>,
}

/// The contents of the files, read but not parsed.
pub(crate) struct TlsMaterial {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
    client_crl: Option<Vec<u8>>,
}

/// A certificate chain with the key that belongs to it.
pub(crate) struct ServerCertificate {
    pub(crate) certified: CertifiedKey,
    /// When the certificate expires, in seconds since 1970, UTC.
    pub(crate) not_after: i64,
}

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("cannot read {}: {error}", .file.display())]
    Unreadable { file: PathBuf, error: io::Error },
    #[error("{} is not valid PEM: {error}", .file.display())]
    NotPem { file: PathBuf, error: pem::Error },
    #[error("{} contains no certificate", .file.display())]
    NoCertificate { file: PathBuf },
    /// The PEM is valid, the certificate inside is not.
    #[error("{} contains an invalid certificate: {reason}", .file.display())]
    InvalidCertificate { file: PathBuf, reason: String },
    #[error(
        "{} contains no private key in PKCS#8, PKCS#1 or SEC1 form; encrypted keys are not supported",
        .file.display()
    )]
    NoKey { file: PathBuf },
    /// The key is broken, or of an unsupported kind.
    #[error("{} contains a private key that cannot be used: {error}", .file.display())]
    UnusableKey { file: PathBuf, error: rustls::Error },
    #[error(
        "the private key in {} does not match the first certificate in {}",
        .key.display(), .certificate.display()
    )]
    KeyMismatch { certificate: PathBuf, key: PathBuf },
    #[error("{} contains no list of revoked certificates (X509 CRL)", .file.display())]
    NoRevocationList { file: PathBuf },
    #[error("the authorities in {} cannot verify client certificates: {error}", .file.display())]
    UnusableClientCa {
        file: PathBuf,
        error: VerifierBuilderError,
    },
    /// Not the files' fault: no randomness, or no usable cipher.
    #[error("cannot set up TLS: {0}")]
    Setup(rustls::Error),
}

impl TlsFiles {
    /// Returns `None` if TLS is off.
    pub(crate) fn configured(tls: &Tls) -> Option<Self> {
        Some(Self {
            certificate: tls.certificate_file.clone()?,
            key: tls.key_file.clone()?,
            client_ca: tls.client_ca_file.clone(),
            client_crl: tls.client_crl_file.clone(),
        })
    }

    /// Reads all files; blocks while it does.
    pub(crate) fn read(&self) -> Result<TlsMaterial, TlsError> {
        Ok(TlsMaterial {
            certificate: read(&self.certificate)?,
            key: read(&self.key)?,
            client_ca: self.client_ca.as_deref().map(read).transpose()?,
            client_crl: self.client_crl.as_deref().map(read).transpose()?,
        })
    }

    /// The listener's certificate in `material`, which must be of these files.
    pub(crate) fn server_certificate(
        &self,
        material: &TlsMaterial,
        provider: &CryptoProvider,
    ) -> Result<ServerCertificate, TlsError> {
        let chain = certificates(&self.certificate, &material.certificate)?;
        let leaf = Leaf::parse(&self.certificate, &chain)?;
        let key = private_key(&self.key, &material.key, provider)?;
        // A key type that cannot name its public key is left to the handshake.
        if key
            .public_key()
            .is_some_and(|public| *public != *leaf.public_key)
        {
            return Err(TlsError::KeyMismatch {
                certificate: self.certificate.clone(),
                key: self.key.clone(),
            });
        }
        Ok(ServerCertificate {
            certified: CertifiedKey::new(chain, key),
            not_after: leaf.not_after,
        })
    }

    /// The authorities of client certificates in `material`, with their file.
    pub(crate) fn client_authorities(
        &self,
        material: &TlsMaterial,
    ) -> Result<Option<(&Path, RootCertStore)>, TlsError> {
        let (Some(file), Some(bytes)) = (&self.client_ca, &material.client_ca) else {
            return Ok(None);
        };
        let mut roots = RootCertStore::empty();
        for authority in certificates(file, bytes)? {
            let added = roots.add(authority);
            added.map_err(|error| TlsError::InvalidCertificate {
                file: file.clone(),
                reason: error.to_string(),
            })?;
        }
        Ok(Some((file, roots)))
    }

    /// The lists of revoked certificates in `material`.
    pub(crate) fn revocation_lists(
        &self,
        material: &TlsMaterial,
    ) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
        let (Some(file), Some(bytes)) = (&self.client_crl, &material.client_crl) else {
            return Ok(Vec::new());
        };
        let lists = CertificateRevocationListDer::pem_slice_iter(bytes);
        let lists: Vec<_> = lists
            .collect::<Result<_, _>>()
            .map_err(|error| TlsError::NotPem {
                file: file.clone(),
                error,
            })?;
        if lists.is_empty() {
            return Err(TlsError::NoRevocationList { file: file.clone() });
        }
        Ok(lists)
    }
}

/// Equal for files with equal contents, and for files that cannot be read for
/// the same reason.
pub(crate) fn fingerprint(material: &Result<TlsMaterial, TlsError>) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    match material {
        Ok(material) => {
            let client_ca = material.client_ca.as_deref().unwrap_or_default();
            let client_crl = material.client_crl.as_deref().unwrap_or_default();
            for bytes in [&material.certificate, &material.key, client_ca, client_crl] {
                hasher.update(blake3::hash(bytes).as_bytes());
            }
        }
        Err(error) => {
            hasher.update(error.to_string().as_bytes());
        }
    }
    hasher.finalize()
}

/// What is checked and reported of the listener's own certificate.
///
/// Parsed by `x509-parser`: rustls rejects certificates of X.509 version 1,
/// which older guides to self-signed certificates produce.
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
            TlsError::InvalidCertificate {
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
    let mut bytes = fs::read(file).map_err(|error| TlsError::Unreadable {
        file: file.to_owned(),
        error,
    })?;
    // After a byte order mark, the first line would not be recognized.
    if bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    Ok(bytes)
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
