//! Connections to the listener: kept alive, and reopened after they broke. A
//! push is sent again only if the listener has certainly not processed it.

use std::error::Error as _;
use std::fmt::Display;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::answer::Answer;
use super::target::PushTarget;

/// How long the platform waits for an answer.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// Concurrent requests on one HTTP/2 connection.
const HTTP2_STREAMS: usize = 64;
/// The number of connections that are tried for a push which none of them has
/// processed: a listener may retire each after a single request, and every push
/// on it needs another turn.
const MAX_ATTEMPTS: usize = HTTP2_STREAMS;

/// Opens connections to one target.
#[derive(Clone)]
pub(crate) struct Connector {
    target: Arc<PushTarget>,
    tls: Option<TlsConnector>,
    http2: bool,
    first_connect_error: Arc<OnceLock<String>>,
}

/// A connection that is opened on demand, and shared by concurrent pushes over
/// HTTP/2.
pub(crate) struct ClientConnection {
    connector: Connector,
    current: Mutex<Current>,
}

/// The connection in use, and which one it is: a push that fails must not close
/// the connection that another push has opened meanwhile.
#[derive(Default)]
struct Current {
    sender: Option<Sender>,
    number: u64,
}

#[derive(Clone)]
enum Sender {
    /// Locked by the one worker of its connection.
    Http1(Arc<Mutex<http1::SendRequest<Full<Bytes>>>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// Why a request has no response.
enum SendError {
    /// The listener has certainly not processed the request: it was not sent,
    /// or a GOAWAY excludes it. It is safe to send it on another connection.
    NotProcessed,
    /// The listener may have processed the request.
    Unknown,
}

type SendResult = Result<Response<Incoming>, TrySendError<Request<Full<Bytes>>>>;

impl Connector {
    /// Connects to this target, over TLS if `tls` is given.
    pub(crate) fn new(target: PushTarget, tls: Option<TlsConnector>, http2: bool) -> Self {
        Self {
            target: Arc::new(target),
            tls,
            http2,
            first_connect_error: Arc::default(),
        }
    }

    /// Returns a connection that will be opened by its first push.
    pub(crate) fn connection(&self) -> ClientConnection {
        ClientConnection {
            connector: self.clone(),
            current: Mutex::default(),
        }
    }

    /// Returns how many pushes a connection carries at a time.
    pub(super) fn max_concurrent_pushes(&self) -> usize {
        if self.http2 { HTTP2_STREAMS } else { 1 }
    }

    /// Opens a TCP connection and closes it again.
    ///
    /// # Errors
    ///
    /// Returns an error if the target does not accept a connection within 15 s.
    pub(crate) async fn check_reachable(&self) -> std::io::Result<()> {
        tokio::time::timeout(ANSWER_TIMEOUT, self.tcp())
            .await
            .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
            .map(drop)
    }

    /// The target's scheme, host and port; without its path and query, which
    /// may contain a token.
    pub(crate) fn authority(&self) -> String {
        self.target.authority()
    }

    /// Returns why opening a connection failed for the first time, if it did.
    pub(crate) fn first_connect_error(&self) -> Option<&str> {
        self.first_connect_error.get().map(String::as_str)
    }

    fn note_error(&self, error: impl Display) {
        self.first_connect_error.get_or_init(|| error.to_string());
    }

    async fn tcp(&self) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect((self.target.host.as_str(), self.target.port)).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn connect(&self) -> Option<Sender> {
        let stream = self.tcp().await;
        let stream = stream.inspect_err(|error| self.note_error(error)).ok()?;
        let Some(tls) = &self.tls else {
            return self.handshake(TokioIo::new(stream)).await;
        };
        let name = ServerName::try_from(self.target.host.clone()).ok()?;
        let stream = tls.connect(name, stream).await;
        let stream = stream.inspect_err(|error| self.note_error(format_args!("TLS: {error}")));
        self.handshake(TokioIo::new(stream.ok()?)).await
    }

    async fn handshake<S>(&self, stream: S) -> Option<Sender>
    where
        S: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
    {
        if self.http2 {
            let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .handshake(stream)
                .await
                .ok()?;
            tokio::spawn(connection);
            return Some(Sender::Http2(sender));
        }
        let (sender, connection) = http1::handshake(stream).await.ok()?;
        tokio::spawn(connection);
        Some(Sender::Http1(Arc::new(Mutex::new(sender))))
    }

    fn request(&self, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(authorization) = &self.target.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        if self.http2 {
            *request.uri_mut() = self.target.uri.clone();
            *request.version_mut() = Version::HTTP_2;
        } else {
            headers.insert(HOST, self.target.authority.clone());
            *request.uri_mut() = self.target.path.clone();
        }
        request
    }
}

impl ClientConnection {
    /// Sends a push, and waits up to 15 s for a complete response.
    pub(crate) async fn push(&self, body: Bytes) -> Answer {
        let mut used = 0;
        let sent = tokio::time::timeout(ANSWER_TIMEOUT, self.send(body, &mut used)).await;
        let Ok(answer) = sent else {
            self.discard(used).await;
            return Answer::TimedOut;
        };
        answer.map_or(Answer::NoConnection, Answer::Status)
    }

    /// A listener may close an idle connection, or retire one with GOAWAY; a
    /// push that it has not processed is sent on a new connection. `used` is the
    /// number of the connection that was used last.
    async fn send(&self, body: Bytes, used: &mut u64) -> Option<u16> {
        for _ in 0..MAX_ATTEMPTS {
            let (sender, number) = self.sender().await?;
            *used = number;
            match sender.send(self.connector.request(body.clone())).await {
                Ok(status) => return Some(status),
                Err(SendError::NotProcessed) => self.discard(number).await,
                Err(SendError::Unknown) => {
                    self.discard(number).await;
                    return None;
                }
            }
        }
        None
    }

    async fn sender(&self) -> Option<(Sender, u64)> {
        let mut current = self.current.lock().await;
        let open = match &current.sender {
            Some(sender) => sender.is_open().await,
            None => false,
        };
        if !open {
            current.sender = self.connector.connect().await;
            current.number += 1;
        }
        Some((current.sender.clone()?, current.number))
    }

    async fn discard(&self, number: u64) {
        let mut current = self.current.lock().await;
        if current.number == number {
            current.sender = None;
        }
    }
}

impl Sender {
    async fn is_open(&self) -> bool {
        match self {
            Self::Http1(sender) => !sender.lock().await.is_closed(),
            Self::Http2(sender) => !sender.is_closed(),
        }
    }

    async fn send(self, request: Request<Full<Bytes>>) -> Result<u16, SendError> {
        match self {
            Self::Http1(sender) => {
                // Held until the response is complete: HTTP/1.1 carries one
                // request at a time.
                let mut sender = sender.lock().await;
                if sender.ready().await.is_err() {
                    return Err(SendError::NotProcessed);
                }
                complete(sender.try_send_request(request).await).await
            }
            Self::Http2(mut sender) => {
                if sender.ready().await.is_err() {
                    return Err(SendError::NotProcessed);
                }
                complete(sender.try_send_request(request).await).await
            }
        }
    }
}

/// Reads the response to its end; a push is answered only by a complete one.
async fn complete(response: SendResult) -> Result<u16, SendError> {
    let response = response.map_err(|mut error| {
        // hyper returns the request if it never reached the connection.
        if error.take_message().is_some() || was_refused_by_goaway(error.error()) {
            SendError::NotProcessed
        } else {
            SendError::Unknown
        }
    })?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await;
    body.map(|_| status).map_err(|_| SendError::Unknown)
}

/// Returns whether the listener retires the connection and has not processed
/// the request. A GOAWAY names the last stream that may have been processed; h2
/// fails only the later ones with this error (RFC 9113, section 6.8).
fn was_refused_by_goaway(error: &hyper::Error) -> bool {
    let http2_error = error
        .source()
        .and_then(|source| source.downcast_ref::<h2::Error>());
    http2_error.is_some_and(|error| {
        error.is_remote() && error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR)
    })
}

impl std::fmt::Debug for ClientConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientConnection").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector")
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}
