//! Support for tests of TLS, credentials and addresses: pushes over TCP or TLS,
//! checks of what was counted and stored, and starts that must fail.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::support::TIMEOUT;
use crate::support::bodies::message_confirm;
use crate::support::certificates::Certificates;
use crate::support::http::{Connection, RawConnection, Response, Version};
use crate::support::mock::Mock;
use crate::support::northbridge::Northbridge;

/// The default path of pushes.
pub(crate) const PATH: &str = "/notifications";

/// Request headers by name and value.
pub(crate) type Headers<'a> = &'a [(&'a str, &'a str)];

/// A body that is stored if the push is admitted.
pub(crate) fn body() -> String {
    message_confirm("request-1", "device-1", "delivered")
}

/// The bytes of a push over HTTP/1.1.
pub(crate) fn request_bytes(path: &str, headers: Headers<'_>) -> String {
    let body = body();
    let first = format!("POST {path} HTTP/1.1\r\nhost: northbridge.test\r\n");
    let head = headers.iter().fold(first, |head, (name, value)| {
        head + name + ": " + value + "\r\n"
    });
    format!("{head}content-length: {}\r\n\r\n{body}", body.len())
}

/// Pushes over a new TCP connection.
pub(crate) fn push(address: SocketAddr, path: &str, headers: Headers<'_>) -> Response {
    let mut connection = RawConnection::open(address);
    connection.write(request_bytes(path, headers));
    connection.read_response()
}

/// Sends bytes and returns everything that the peer sends until it closes. The
/// close is a reset if the peer left bytes unread.
pub(crate) fn read_until_closed(address: SocketAddr, sent: &[u8]) -> Vec<u8> {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.write_all(sent).unwrap();
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    answer
}

/// Pushes over HTTP/2 with prior knowledge.
pub(crate) async fn push_http2(address: SocketAddr, path: &str, headers: Headers<'_>) -> Response {
    let connection = Connection::open(address, Version::Http2).await;
    let uri = format!("http://northbridge.test{path}");
    let sent = connection.unwrap().send(request(&uri, headers)).await;
    sent.unwrap()
}

/// A push for hyper's client; `uri` is a path for HTTP/1.1 and absolute for
/// HTTP/2.
pub(crate) fn request(uri: &str, headers: Headers<'_>) -> Request<Full<Bytes>> {
    let mut request = Request::post(uri).header("content-type", "application/json");
    // HTTP/2 carries the authority in a pseudo-header.
    if uri.starts_with('/') {
        request = request.header("host", "northbridge.test");
    }
    let with = |request: hyper::http::request::Builder, (name, value): &(&str, &str)| {
        request.header(*name, *value)
    };
    let request = headers.iter().fold(request, with);
    request.body(Full::new(body().into())).unwrap()
}

/// Opens a TLS connection, with `name` as SNI unless it is an IP address.
pub(crate) async fn connect_tls(
    address: SocketAddr,
    client: ClientConfig,
    name: &str,
) -> io::Result<TlsStream<TcpStream>> {
    over_tls(TcpStream::connect(address).await?, client, name).await
}

/// Performs the TLS handshake on an established stream.
pub(crate) async fn over_tls(
    stream: TcpStream,
    client: ClientConfig,
    name: &str,
) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connector = TlsConnector::from(Arc::new(client));
    connector.connect(name, stream).await
}

/// Pushes over a new TLS connection with HTTP/1.1.
///
/// # Errors
///
/// Returns an error if the handshake fails or no answer arrives. In TLS 1.3 a
/// client whose certificate was rejected notices only when it reads the answer.
pub(crate) async fn push_tls(
    address: SocketAddr,
    client: ClientConfig,
    path: &str,
    headers: Headers<'_>,
) -> io::Result<Response> {
    let stream = connect_tls(address, client, "localhost").await?;
    let connection = Connection::over(stream, Version::Http1).await;
    let mut connection = connection.map_err(io::Error::other)?;
    let sent = connection.send(request(path, headers)).await;
    sent.map_err(io::Error::other)
}

/// Starts an ingress that terminates TLS with the CA's server certificate.
pub(crate) fn tls_ingress(
    mock: &Mock,
    certificates: &Certificates,
    settings: &[(&str, &str)],
) -> Northbridge {
    let (certificate, key) = (certificates.certificate_file(), certificates.key_file());
    let mut all = vec![
        ("tls.certificate_file", certificate.to_str().unwrap()),
        ("tls.key_file", key.to_str().unwrap()),
    ];
    all.extend(settings);
    mock.ingress(&all)
}

/// Checks that exactly this many pushes were stored and rejected, in the metrics
/// and in Kafka, and that no push had any other outcome.
pub(crate) fn assert_counts(
    northbridge: &Northbridge,
    mock: &Mock,
    stored: usize,
    rejected: usize,
) {
    let counted = |outcome| sum(northbridge, "northbridge_pushes_total", outcome);
    let received = sum(northbridge, "northbridge_pushes_received_total", "");
    let counts = (counted("\"stored\""), counted("\"rejected\""), received);
    assert_eq!(counts, (stored, rejected, stored + rejected));
    assert_eq!(mock.all_records().len(), stored);
}

/// How many connections were closed for this reason.
pub(crate) fn closed(northbridge: &Northbridge, reason: &str) -> usize {
    sum(northbridge, "northbridge_connections_closed_total", reason)
}

/// The sum of a counter's series whose labels contain `label`.
fn sum(northbridge: &Northbridge, name: &str, label: &str) -> usize {
    let metrics = northbridge.metrics();
    let series = metrics.iter().filter(|(series, _)| {
        let (found, labels) = series.split_once('{').unwrap_or((series, ""));
        found == name && labels.contains(label)
    });
    let total: f64 = series.map(|(_, value)| value).sum();
    total.to_string().parse().expect("a whole number")
}

/// Starts an ingress that must exit with 64 at once, and returns its error
/// message.
pub(crate) fn failed_start(settings: &[(&str, &str)]) -> String {
    let northbridge = Northbridge::start(&["ingress"], settings);
    let message = northbridge.wait_for_log(|line| line.starts_with("error: "));
    assert_eq!(northbridge.wait(), 64, "{message}");
    message
}
