//! Connections to the listener: kept alive, opened again when they broke, and
//! never trusted with a push that may already have gone out.

use std::error::Error as _;
use std::fmt::Display;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::platform::Answer;
use super::target::Target;

/// The platform waits no longer for an answer.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// So many connections are tried for a push that none of them took.
const CONNECTIONS_TRIED: usize = 5;

/// How to connect.
#[derive(Clone)]
pub struct Connector {
    target: Arc<Target>,
    tls: Option<TlsConnector>,
    http2: bool,
    first_failure: Arc<OnceLock<String>>,
}

/// A connection that several pushes may share, opened when it is needed.
pub struct Connection {
    connector: Connector,
    open: Mutex<Option<Sender>>,
}

#[derive(Clone)]
enum Sender {
    /// Shared through the lock of its one worker.
    Http1(Arc<Mutex<http1::SendRequest<Full<Bytes>>>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// Why there is no answer.
enum Broken {
    /// The push was not taken, so that another connection may have it: it has
    /// not gone out, or the listener says that it will not look at it.
    Untaken,
    /// The push may have arrived.
    Lost,
}

impl Connector {
    /// Connections to this target; encrypted where a connector is given.
    pub fn new(target: Target, tls: Option<TlsConnector>, http2: bool) -> Self {
        Self {
            target: Arc::new(target),
            tls,
            http2,
            first_failure: Arc::default(),
        }
    }

    /// A connection that is opened at its first push.
    pub fn connection(&self) -> Connection {
        Connection {
            connector: self.clone(),
            open: Mutex::new(None),
        }
    }

    /// Whether anything listens there.
    ///
    /// # Errors
    ///
    /// What the system says, where nothing does.
    pub async fn probe(&self) -> std::io::Result<()> {
        tokio::time::timeout(ANSWER_WITHIN, self.tcp())
            .await
            .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
            .map(drop)
    }

    /// What may be told of the target.
    pub fn authority(&self) -> String {
        self.target.authority()
    }

    /// Why a connection could not be opened, the first time that it was so.
    pub fn first_failure(&self) -> Option<&str> {
        self.first_failure.get().map(String::as_str)
    }

    fn failed(&self, why: impl Display) {
        self.first_failure.get_or_init(|| why.to_string());
    }

    async fn tcp(&self) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect((self.target.host.as_str(), self.target.port)).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn connect(&self) -> Option<Sender> {
        let stream = self.tcp().await;
        let stream = stream.inspect_err(|error| self.failed(error)).ok()?;
        let Some(tls) = &self.tls else {
            return self.handshake(TokioIo::new(stream)).await;
        };
        let name = ServerName::try_from(self.target.host.clone()).ok()?;
        let stream = tls.connect(name, stream).await;
        let stream = stream.inspect_err(|error| self.failed(format_args!("TLS: {error}")));
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

impl Connection {
    /// Pushes, and waits for the answer as long as the platform does.
    pub async fn push(&self, body: Bytes) -> Answer {
        let Ok(answer) = tokio::time::timeout(ANSWER_WITHIN, self.push_once(body)).await else {
            self.forget().await;
            return Answer::TimedOut;
        };
        answer.map_or(Answer::NoConnection, Answer::Status)
    }

    /// A listener may close a connection that was idle, or retire one; what it
    /// has not taken by then goes to a new one.
    async fn push_once(&self, body: Bytes) -> Option<u16> {
        for _ in 0..CONNECTIONS_TRIED {
            let sender = self.sender().await?;
            match sender.send(self.connector.request(body.clone())).await {
                Ok(status) => return Some(status),
                Err(broken) => {
                    self.forget().await;
                    if matches!(broken, Broken::Lost) {
                        return None;
                    }
                }
            }
        }
        None
    }

    async fn sender(&self) -> Option<Sender> {
        let mut open = self.open.lock().await;
        match &*open {
            Some(sender) if sender.is_open().await => Some(sender.clone()),
            Some(_) | None => {
                *open = self.connector.connect().await;
                open.clone()
            }
        }
    }

    async fn forget(&self) {
        *self.open.lock().await = None;
    }
}

impl Sender {
    async fn is_open(&self) -> bool {
        match self {
            Self::Http1(sender) => !sender.lock().await.is_closed(),
            Self::Http2(sender) => !sender.is_closed(),
        }
    }

    async fn send(self, request: Request<Full<Bytes>>) -> Result<u16, Broken> {
        let answer = match self {
            Self::Http1(sender) => {
                let mut sender = sender.lock().await;
                if sender.ready().await.is_err() {
                    return Err(Broken::Untaken);
                }
                let answer = sender.try_send_request(request).await;
                return finish(answer).await;
            }
            Self::Http2(mut sender) => {
                if sender.ready().await.is_err() {
                    return Err(Broken::Untaken);
                }
                sender.try_send_request(request).await
            }
        };
        finish(answer).await
    }
}

/// The answer counts once it is whole.
async fn finish(
    answer: Result<Response<Incoming>, hyper::client::conn::TrySendError<Request<Full<Bytes>>>>,
) -> Result<u16, Broken> {
    let response = answer.map_err(|mut error| {
        if error.take_message().is_some() || is_retired(error.error()) {
            Broken::Untaken
        } else {
            Broken::Lost
        }
    })?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await;
    body.map(|_| status).map_err(|_| Broken::Lost)
}

/// Whether the listener retires this connection and did not take the request:
/// it tells by GOAWAY which ones it took, and this error meets all others
/// (RFC 9113, 6.8).
fn is_retired(error: &hyper::Error) -> bool {
    let http2 = error
        .source()
        .and_then(|why| why.downcast_ref::<h2::Error>());
    http2.is_some_and(|error| {
        error.is_remote() && error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR)
    })
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector")
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}
