//! The life of one connection: PROXY header, TLS, protocol, HTTP, end.
//!
//! Every step before HTTP has a time limit of its own, and all steps together
//! until the first authorized push; from then on `idle` bounds the silence and
//! hyper the sizes. A drain closes a connection in the way that loses no push.
//! Knows neither the listener nor how many connections there are (`server`), nor
//! what a request is answered (`handler`).

use std::convert::Infallible;
use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::client_address::read_proxy_header;
use super::handler::{Client, Handler};
use super::idle::{Activity, Expired, IdleTimeouts, Watched};
use super::metrics::CloseReason;
use super::protocol::{self, FirstBytes, Protocol};
use super::strangers::{ConnectionEntry, TooMany};
use super::tls::{self, TlsTerminator};
use crate::config::{Http, Settings};

/// How long a client may read nothing of what is written to it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// The least time that a drain leaves a connection for its first request: it
/// was opened for one.
const FIRST_REQUEST_GRACE: Duration = Duration::from_secs(1);
/// Flow control of HTTP/2: what a client may send on one stream before its
/// bytes are read.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// The same for all streams of one connection together.
const CONNECTION_WINDOW_BYTES: u32 = 256 * 1024;

/// Serves connections, each with the same settings. The hyper builders are made
/// once, not per connection.
pub(crate) struct Connections {
    handler: Arc<Handler>,
    tls: Option<Arc<TlsTerminator>>,
    http1: auto::Builder<TokioExecutor>,
    http2: auto::Builder<TokioExecutor>,
    idle_timeouts: IdleTimeouts,
    idle_grace: Duration,
    header_timeout: Duration,
    handshake_timeout: Duration,
    first_push_timeout: Duration,
    drain: CancellationToken,
}

impl Connections {
    /// `idle_grace` is how long a drain leaves an idle HTTP/1 connection open.
    pub(crate) fn new(
        Settings {
            http, tls, limits, ..
        }: &Settings,
        idle_grace: Duration,
        handler: Arc<Handler>,
        terminator: Option<Arc<TlsTerminator>>,
    ) -> Self {
        let builder = http_builder(http);
        let header_timeout = http.header_timeout_ms.duration();
        Self {
            handler,
            tls: terminator,
            http1: builder.clone().http1_only(),
            http2: builder.http2_only(),
            idle_timeouts: IdleTimeouts {
                header: header_timeout,
                keep_alive: http.keep_alive_timeout_ms.duration(),
                write: WRITE_TIMEOUT,
            },
            idle_grace,
            header_timeout,
            handshake_timeout: tls.handshake_timeout_ms.duration(),
            first_push_timeout: limits.first_push_timeout_ms.duration(),
            drain: CancellationToken::new(),
        }
    }

    /// Returns whether a connection from `peer` may be served. One that may not is
    /// counted, and to be closed at once. With a proxy in between, only its header
    /// or each request says who the client is.
    pub(crate) fn admits(&self, peer: SocketAddr) -> bool {
        let address = peer.ip().to_canonical();
        let handler = &self.handler;
        let admits = handler.addresses.expects_proxy_header(address) || self.allows(address);
        if !admits {
            self.closed(peer, CloseReason::Forbidden);
        }
        admits
    }

    /// Serves one connection until it is closed, and counts it.
    pub(crate) async fn serve(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        entry: Arc<ConnectionEntry>,
    ) {
        let connections = &self.handler.server_metrics.connections;
        connections.inc();
        let reason = tokio::select! {
            Ok(reason) | Err(reason) = self.run(stream, peer, &entry) => reason,
            () = entry.evicted() => CloseReason::Evicted,
            () = self.first_push_is_late(&entry) => CloseReason::NoPush,
        };
        connections.dec();
        self.closed(peer, reason);
    }

    fn closed(&self, peer: SocketAddr, reason: CloseReason) {
        self.handler.server_metrics.closed(reason);
        tracing::debug!(%peer, reason = reason.label(), "connection closed");
    }

    /// Returns whether a client at this address may push on its connection.
    fn allows(&self, address: IpAddr) -> bool {
        let handler = &self.handler;
        !handler.addresses.is_of_connection(address) || handler.gate.load().allows(address)
    }

    /// Resolves if the connection is still a stranger when its time is over.
    async fn first_push_is_late(&self, entry: &ConnectionEntry) {
        tokio::time::sleep(self.first_push_timeout).await;
        if !entry.leave() {
            std::future::pending::<()>().await;
        }
    }

    /// Asks all connections to end, open ones and those still to be served.
    pub(crate) fn drain(&self) {
        self.drain.cancel();
    }

    /// An error is the reason for closing a connection before HTTP began on it.
    async fn run(
        &self,
        mut stream: TcpStream,
        peer: SocketAddr,
        entry: &Arc<ConnectionEntry>,
    ) -> Result<CloseReason, CloseReason> {
        // Answers are small and must not wait for more; a failure only costs latency.
        let _ = stream.set_nodelay(true);
        let address = self.client_address(&mut stream, peer, entry).await?;
        let client = Client {
            address,
            entry: Arc::clone(entry),
        };
        let Some(tls) = &self.tls else {
            return self.serve_stream(stream, None, client).await;
        };
        let stream = self.handshake(tls, stream, peer).await?;
        let negotiated = tls::negotiated(&stream);
        self.serve_stream(stream, negotiated, client).await
    }

    /// Speaks HTTP over a stream. Its first bytes tell the protocol if it has not been
    /// negotiated.
    pub(super) async fn serve_stream<S>(
        &self,
        mut stream: S,
        negotiated: Option<Protocol>,
        client: Client,
    ) -> Result<CloseReason, CloseReason>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let activity = Activity::new(self.idle_timeouts, Arc::clone(&client.entry));
        let (protocol, first) = match negotiated {
            Some(protocol) => (protocol, FirstBytes::default()),
            None => self.detect(&mut stream, &activity).await?,
        };
        Ok(self
            .serve_http(protocol, first, stream, client, activity)
            .await)
    }

    /// The other end of the connection, or the client in the PROXY header that
    /// a trusted proxy must send first.
    async fn client_address(
        &self,
        stream: &mut TcpStream,
        peer: SocketAddr,
        entry: &ConnectionEntry,
    ) -> Result<IpAddr, CloseReason> {
        let mut address = peer.ip().to_canonical();
        if self.handler.addresses.expects_proxy_header(address) {
            match timeout(self.header_timeout, read_proxy_header(stream)).await {
                Ok(Ok(Some(source))) => address = source.ip().to_canonical(),
                Ok(Ok(None)) => {}
                Ok(Err(error)) => {
                    tracing::debug!(%peer, %error, "PROXY header rejected; closing the connection");
                    return Err(CloseReason::ProxyHeader);
                }
                Err(_) => return Err(CloseReason::ProxyHeader),
            }
            if !self.allows(address) {
                return Err(CloseReason::Forbidden);
            }
        }
        if self.handler.addresses.is_of_connection(address) {
            entry
                .count_for(address)
                .map_err(|TooMany| CloseReason::AddressLimit)?;
        }
        Ok(address)
    }

    async fn handshake(
        &self,
        tls: &TlsTerminator,
        stream: TcpStream,
        peer: SocketAddr,
    ) -> Result<TlsStream<TcpStream>, CloseReason> {
        match timeout(self.handshake_timeout, tls.accept(stream)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => {
                tracing::debug!(%peer, %error, "TLS handshake failed; closing the connection");
                Err(CloseReason::Handshake)
            }
            Err(_) => Err(CloseReason::Handshake),
        }
    }

    /// Waits for the first bytes as long as for a first request, and no longer.
    async fn detect<S>(
        &self,
        stream: &mut S,
        activity: &Activity,
    ) -> Result<(Protocol, FirstBytes), CloseReason>
    where
        S: AsyncRead + Unpin,
    {
        tokio::select! {
            detected = protocol::detect(stream) => detected.map_err(|_| CloseReason::Error),
            expired = activity.expired() => Err(expired.into()),
            () = self.drained(None, activity) => Err(CloseReason::Drained),
        }
    }

    async fn serve_http<S>(
        &self,
        protocol: Protocol,
        first: FirstBytes,
        stream: S,
        client: Client,
        activity: Arc<Activity>,
    ) -> CloseReason
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = Watched::new(stream, protocol, first, Arc::clone(&activity));
        let service = service_fn(|request: Request<Incoming>| {
            let (handler, guard) = (Arc::clone(&self.handler), activity.request_started());
            let (client, activity) = (client.clone(), Arc::clone(&activity));
            async move {
                let answer = handler.answer(request, &client).await;
                // The answer counts until it has left, and this until it begins to.
                let answer = answer.map(|bytes| activity.answer(bytes));
                drop(guard);
                Ok::<_, Infallible>(answer)
            }
        });
        let builder = match protocol {
            Protocol::Http1 => &self.http1,
            Protocol::Http2 => &self.http2,
        };
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let reason = tokio::select! {
            ended = connection.as_mut() => return self.after_end(ended, &client.entry),
            expired = activity.expired() => match expired {
                // The client may have sent a request already: hyper still answers it.
                Expired::KeepAlive => CloseReason::KeepAlive,
                Expired::HeadTimeout | Expired::WriteStalled => return expired.into(),
            },
            () = client.entry.refused() => CloseReason::Refused,
            () = self.drained(Some(protocol), &activity) => CloseReason::Drained,
        };
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            _ended = connection => {}
            // The keep-alive timeout has expired already if it is the reason.
            _expired = activity.expired(), if reason != CloseReason::KeepAlive => {}
            () = self.no_request_left(&activity) => {}
        }
        reason
    }

    /// Counts the answer that hyper has made itself if it could not read a head.
    fn after_end(
        &self,
        ended: Result<(), Box<dyn Error + Send + Sync>>,
        entry: &ConnectionEntry,
    ) -> CloseReason {
        let Err(error) = ended else {
            return if entry.is_refused() {
                CloseReason::Refused
            } else {
                CloseReason::Done
            };
        };
        let own_answer = error.downcast_ref::<hyper::Error>().and_then(|error| {
            if error.is_parse_too_large() {
                Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
            } else {
                error.is_parse().then_some(StatusCode::BAD_REQUEST)
            }
        });
        if let Some(status) = own_answer {
            self.handler.server_metrics.responded(status);
        }
        CloseReason::Error
    }

    /// Resolves when a drain has to close the connection.
    ///
    /// HTTP/2 tells its client by GOAWAY which requests it still answers.
    /// HTTP/1 can only close, perhaps while a push is on its way; so it stays
    /// open for one more, whose answer tells the client to close.
    async fn drained(&self, protocol: Option<Protocol>, activity: &Activity) {
        self.drain.cancelled().await;
        let grace = match protocol {
            _ if activity.awaits_first_request() => self.idle_grace.max(FIRST_REQUEST_GRACE),
            Some(Protocol::Http1) | None => self.idle_grace,
            Some(Protocol::Http2) => return,
        };
        tokio::time::sleep(grace).await;
    }

    /// Resolves when a connection that was asked to end has no request in
    /// progress and is still open: a request may use its whole deadline, but a
    /// client that ignores GOAWAY must not delay the shutdown.
    async fn no_request_left(&self, activity: &Activity) {
        loop {
            tokio::time::sleep(self.header_timeout).await;
            if !activity.is_busy() {
                return;
            }
        }
    }
}

impl From<Expired> for CloseReason {
    fn from(expired: Expired) -> Self {
        match expired {
            Expired::HeadTimeout => Self::HeadTimeout,
            Expired::KeepAlive => Self::KeepAlive,
            Expired::WriteStalled => Self::WriteStalled,
        }
    }
}

fn http_builder(http: &Http) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // `idle` distinguishes a slow head from an idle connection; hyper's timer cannot.
        .header_read_timeout(None)
        .max_buf_size(http.max_head_bytes)
        // A client that closed only its sending side gets its answer.
        .half_close(true)
        .keep_alive(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(http.http2_max_streams)
        .max_header_list_size(u32::try_from(http.max_head_bytes).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(http.keep_alive_timeout_ms.duration() / 3);
    builder
}
