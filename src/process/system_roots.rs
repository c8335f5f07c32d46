//! The certificate authorities that this host trusts.

use tokio_rustls::rustls::RootCertStore;

/// Returns those that can be used; none if the host has none. The variable
/// `SSL_CERT_FILE` names another file of them.
pub(crate) fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}
