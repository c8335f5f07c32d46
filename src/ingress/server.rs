//! The accept loop, and the life of one connection: PROXY header, TLS, HTTP.
//!
//! One port speaks HTTP/1.0, 1.1 and 2: by ALPN under TLS, by the preface
//! without. A drain ends connections in the order that loses nothing: what the
//! kernel has accepted is taken over, requests in progress are answered, and
//! connections are closed when they have had time for one more.

use std::convert::Infallible;
use std::io::{Error, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Version};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::client_address::read_proxy_header;
use super::handler::Handler;
use super::idle::{Activity, Expired, IdleLimits, Watched};
use super::tls::TlsTerminator;
use crate::config::{Http, Limits, Tls};

/// Connections the kernel holds for us while we are busy.
const BACKLOG: u32 = 4096;
/// How long a peer may take nothing of what is written to it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause after an accept failed for want of a resource.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long the backlog is taken over when the listener is to close.
const BACKLOG_TAKEOVER: Duration = Duration::from_secs(1);
/// No new connection for so long means that the backlog is empty.
const BACKLOG_QUIET: Duration = Duration::from_millis(50);
/// How long a connection that has asked for nothing yet is left open for its
/// first request when the others are drained.
const NEWCOMER_GRACE: Duration = Duration::from_secs(1);
/// No method of HTTP/1 begins like HTTP/2's preface (RFC 9113, 3.4).
const HTTP2_BEGINS: &[u8] = b"PRI";
/// What one HTTP/2 stream may send ahead of what was read, in bytes.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// What one HTTP/2 connection may send ahead of what was read, in bytes.
const CONNECTION_WINDOW_BYTES: u32 = 256 * 1024;

/// The listener for pushes.
pub struct Server {
    listener: TcpListener,
    connections: Arc<Semaphore>,
    shared: Arc<Shared>,
}

/// What all connections share.
struct Shared {
    handler: Arc<Handler>,
    tls: Option<Arc<TlsTerminator>>,
    either: auto::Builder<TokioExecutor>,
    http1: auto::Builder<TokioExecutor>,
    idle: IdleLimits,
    idle_grace: Duration,
    header_timeout: Duration,
    handshake_timeout: Duration,
    drain: CancellationToken,
    tasks: TaskTracker,
}

/// Why a connection ended: the label `reason`.
type Reason = &'static str;

impl Server {
    /// Binds the address of the settings.
    ///
    /// # Errors
    ///
    /// Where it cannot be bound.
    pub fn bind(
        http: &Http,
        tls: &Tls,
        limits: &Limits,
        idle_grace: Duration,
        handler: Arc<Handler>,
        terminator: Option<Arc<TlsTerminator>>,
    ) -> std::io::Result<Self> {
        let either = protocol(http);
        let shared = Shared {
            handler,
            tls: terminator,
            http1: either.clone().http1_only(),
            either,
            idle: IdleLimits {
                header_timeout: http.header_timeout_ms.duration(),
                keep_alive_timeout: http.keep_alive_timeout_ms.duration(),
                write_timeout: WRITE_TIMEOUT,
            },
            idle_grace,
            header_timeout: http.header_timeout_ms.duration(),
            handshake_timeout: tls.handshake_timeout_ms.duration(),
            drain: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        Ok(Self {
            listener: listen(http.listen)?,
            connections: Arc::new(Semaphore::new(limits.max_connections)),
            shared: Arc::new(shared),
        })
    }

    /// The address that it is bound to.
    ///
    /// # Errors
    ///
    /// Where the operating system does not tell.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Accepts connections until `stop` is cancelled, then drains: resolves
    /// when every connection has ended.
    pub async fn run(self, stop: CancellationToken) {
        let Self {
            listener,
            connections,
            shared,
        } = self;
        loop {
            let permit = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                permit = Arc::clone(&connections).acquire_owned() => permit,
            };
            // The semaphore is never closed.
            let Ok(permit) = permit else { break };
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => shared.start(stream, peer, permit),
                    Err(error) => pause_after(&error).await,
                },
            }
        }
        shared.take_over_backlog(&listener, &connections).await;
        drop(listener);
        shared.drain.cancel();
        shared.tasks.close();
        shared.tasks.wait().await;
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("listener", &self.listener)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn start(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr, permit: OwnedSemaphorePermit) {
        let shared = Arc::clone(self);
        self.tasks.spawn(async move {
            let open = &shared.handler.server.connections;
            open.inc();
            let reason = shared.connection(stream, peer).await;
            open.dec();
            shared.handler.server.closed(reason);
            tracing::debug!(%peer, reason, "a connection ended");
            drop(permit);
        });
    }

    /// The kernel has already completed the handshake of connections that wait
    /// in the backlog: closing the listener would reset them.
    async fn take_over_backlog(
        self: &Arc<Self>,
        listener: &TcpListener,
        connections: &Arc<Semaphore>,
    ) {
        let end = Instant::now() + BACKLOG_TAKEOVER;
        while let Ok(permit) = Arc::clone(connections).try_acquire_owned() {
            let quiet = end.min(Instant::now() + BACKLOG_QUIET);
            match tokio::time::timeout_at(quiet, listener.accept()).await {
                Ok(Ok((stream, peer))) => self.start(stream, peer, permit),
                Ok(Err(_)) | Err(_) => return,
            }
        }
    }

    async fn connection(&self, mut stream: TcpStream, peer: SocketAddr) -> Reason {
        // Answers are small and must not wait for more; a failure costs latency alone.
        let _ = stream.set_nodelay(true);
        let mut client = peer.ip().to_canonical();
        if self.handler.addresses.expects_proxy_header(client) {
            let header = read_proxy_header(&mut stream);
            match tokio::time::timeout(self.header_timeout, header).await {
                Ok(Ok(Some(source))) => client = source.ip().to_canonical(),
                Ok(Ok(None)) => {}
                Ok(Err(error)) => {
                    tracing::debug!(%peer, %error, "no PROXY header");
                    return "proxy-header";
                }
                Err(_) => return "proxy-header",
            }
        }
        match &self.tls {
            None => {
                let activity = Activity::new(self.idle);
                let nothing = OnceLock::new();
                let http = tokio::select! {
                    http = self.spoken_on(&stream) => http,
                    expired = activity.expired() => return expired.as_str(),
                    () = self.drained(&nothing) => return "drained",
                };
                self.serve(http, stream, client, activity).await
            }
            Some(tls) => {
                let handshake = tls.accept(stream);
                match tokio::time::timeout(self.handshake_timeout, handshake).await {
                    Ok(Ok(stream)) => {
                        let activity = Activity::new(self.idle);
                        self.serve(&self.either, stream, client, activity).await
                    }
                    Ok(Err(error)) => {
                        tracing::debug!(%peer, %error, "the TLS handshake failed");
                        "handshake"
                    }
                    Err(_) => "handshake",
                }
            }
        }
    }

    /// What the first bytes of a connection speak, as far as they tell; they
    /// are left in the socket. hyper finds it out by itself, but then reads a
    /// head in two pieces and doubles its buffer for the second: 8 KiB more for
    /// each connection of HTTP/1, as long as it lives.
    async fn spoken_on(&self, stream: &TcpStream) -> &auto::Builder<TokioExecutor> {
        let mut first = [0; HTTP2_BEGINS.len()];
        match stream.peek(&mut first).await {
            Ok(count) if !HTTP2_BEGINS.starts_with(&first[..count]) => &self.http1,
            Ok(_) | Err(_) => &self.either,
        }
    }

    async fn serve<S>(
        &self,
        http: &auto::Builder<TokioExecutor>,
        stream: S,
        client: IpAddr,
        activity: Arc<Activity>,
    ) -> Reason
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = TokioIo::new(Watched::new(stream, Arc::clone(&activity)));
        let spoken = OnceLock::new();
        let service = service_fn(|request: Request<Incoming>| {
            spoken.get_or_init(|| request.version());
            let (handler, guard) = (Arc::clone(&self.handler), activity.request_started());
            async move {
                let answer = handler.answer(request, client).await;
                drop(guard);
                Ok::<_, Infallible>(answer)
            }
        });
        let mut connection = pin!(http.serve_connection(stream, service));
        let reason = tokio::select! {
            ended = connection.as_mut() => {
                return if ended.is_ok() { "done" } else { "error" };
            }
            expired = activity.expired() => match expired {
                Expired::KeepAlive => expired.as_str(),
                Expired::HeadTimeout | Expired::WriteStalled => return expired.as_str(),
            },
            () = self.drained(&spoken) => "drained",
        };
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            _ended = connection => {}
            _expired = activity.expired(), if reason == "drained" => {}
            () = self.left_alone(&activity) => {}
        }
        reason
    }

    /// Resolves when a connection that was asked to end has no request in
    /// progress and still has not ended: requests take what they take, but a
    /// peer that ignores HTTP/2's GOAWAY must not hold up the end.
    async fn left_alone(&self, activity: &Activity) {
        loop {
            tokio::time::sleep(self.header_timeout).await;
            if !activity.is_busy() {
                return;
            }
        }
    }

    /// Resolves when a connection is to be drained.
    ///
    /// HTTP/2 tells its client by GOAWAY which requests were taken. HTTP/1 can
    /// only close, perhaps over a push that is on its way; so it is left open
    /// for one more, whose answer tells the client to close.
    async fn drained(&self, spoken: &OnceLock<Version>) {
        self.drain.cancelled().await;
        let grace = match spoken.get() {
            Some(&Version::HTTP_2) => return,
            Some(_) => self.idle_grace,
            None => self.idle_grace.max(NEWCOMER_GRACE),
        };
        tokio::time::sleep(grace).await;
    }
}

fn protocol(http: &Http) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // `idle` tells a slow head from an idle connection; hyper's timer cannot.
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

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A connection that went before it was accepted is nothing; a lack of file
/// descriptors or memory passes, but not at once.
async fn pause_after(error: &Error) {
    let of_one_connection = matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused
    );
    if !of_one_connection {
        tracing::warn!(%error, "no connection can be accepted just now");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

/// Lets every connection know that the listener will be gone soon.
pub fn announce(handler: &Handler) {
    handler.leaving.store(true, Ordering::Relaxed);
}
