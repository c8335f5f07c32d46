//! stub
use crate::metrics::ServerMetrics;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
/// f
#[derive(Debug)]
pub struct Files {
    /// c
    pub certificate: PathBuf,
    /// k
    pub key: PathBuf,
    /// a
    pub client_ca: Option<PathBuf>,
}
/// t
#[derive(Debug)]
pub struct Terminator;
impl Terminator {
    /// l
    pub fn load(_f: Files) -> anyhow::Result<Self> {
        Ok(Self)
    }
    /// w
    pub async fn watch(self: Arc<Self>, _i: Duration, _m: Arc<ServerMetrics>) {}
    /// a
    pub fn acceptor(&self) -> tokio_rustls::TlsAcceptor {
        todo!()
    }
}
