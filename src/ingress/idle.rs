//! When a connection has been silent for too long.
//!
//! hyper's own `header_read_timeout` cannot tell a head that comes slowly from
//! a connection that is kept alive, as it runs during both, and nothing bounds
//! the wait for a connection's first bytes. So the bytes are watched here,
//! below hyper, and the requests above it; what lies between belongs to hyper
//! and has limits of its own.
//!
//! Knows nothing of HTTP but the preface that tells version 2, and closes
//! nothing itself: [`Activity::expired`] says when to.
//!
//! ```text
//! accept ──▶ waiting for a head ──request──▶ in progress ──last answer──▶ idle
//!                    ▲                            ▲                        │
//!                    └─────── bytes (HTTP/1) ─────┴─────────request────────┘
//! ```

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep_until};

/// How long a connection may be silent, by what it is waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdleLimits {
    /// From a connection's start to its first request, and in HTTP/1 from a
    /// later head's first byte to its last.
    pub header_timeout: Duration,
    /// From the end of the last request to the start of the next one.
    pub keep_alive_timeout: Duration,
    /// How long the peer may take nothing of what is written to it.
    pub write_timeout: Duration,
}

/// Why a connection must be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expired {
    /// A request's head did not arrive whole in time.
    HeadTimeout,
    /// No request came for the keep-alive time. What is closed here may still
    /// cross with a request, so close it gracefully.
    KeepAlive,
    /// The peer does not read what it is sent.
    WriteStalled,
}

/// What happens on one connection, shared by the stream below hyper and the
/// requests above it. Costs a few atomic operations a request, and no timer.
#[derive(Debug)]
pub struct Activity {
    limits: IdleLimits,
    started: Instant,
    requests: AtomicUsize,
    waiting: AtomicU64,
    write_stalled: AtomicU64,
}

/// A request in progress: as long as one is held, its connection is not idle.
#[derive(Debug)]
pub struct RequestGuard(Arc<Activity>);

/// A stream that reports what passes through it to an [`Activity`].
///
/// Belongs around what hyper reads and writes, so above TLS.
#[derive(Debug)]
pub struct Watched<S> {
    stream: S,
    protocol: Protocol,
    activity: Arc<Activity>,
}

impl Expired {
    /// A stable name for logs and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HeadTimeout => "head-timeout",
            Self::KeepAlive => "keep-alive",
            Self::WriteStalled => "write-stalled",
        }
    }
}

impl Activity {
    /// Starts to watch a connection that is now ready for its first request:
    /// accepted, and its TLS handshake done.
    pub fn new(limits: IdleLimits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            started: Instant::now(),
            requests: AtomicUsize::new(0),
            waiting: AtomicU64::new(Waiting::Head(Duration::ZERO).pack()),
            write_stalled: AtomicU64::new(NEVER),
        })
    }

    /// To be called when a request's head is complete; the guard is to be held
    /// until its answer is handed over, or its stream is gone.
    pub fn request_started(self: &Arc<Self>) -> RequestGuard {
        self.requests.fetch_add(1, Ordering::AcqRel);
        RequestGuard(Arc::clone(self))
    }

    /// Whether a request is in progress.
    pub fn is_busy(&self) -> bool {
        self.requests.load(Ordering::Acquire) > 0
    }

    /// Resolves when the connection must be closed; later calls resolve at
    /// once until something happens on it. Safe to drop and call again.
    ///
    /// Deadlines are met although nothing wakes this future: whatever happens
    /// while it sleeps starts a limit that ends after it wakes, as it never
    /// sleeps longer than the shortest one.
    pub async fn expired(&self) -> Expired {
        let mut sleep = pin!(sleep_until(self.started));
        loop {
            let now = Instant::now();
            let latest = now + self.longest_sleep();
            let wake_at = match self.deadline() {
                Some((deadline, reason)) if deadline <= now => return reason,
                Some((deadline, _)) => deadline.min(latest),
                None => latest,
            };
            sleep.as_mut().reset(wake_at);
            sleep.as_mut().await;
        }
    }

    /// The nearest deadline that runs at the moment, and what it means.
    fn deadline(&self) -> Option<(Instant, Expired)> {
        let deadlines = [self.waiting_deadline(), self.write_deadline()];
        deadlines.into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    fn waiting_deadline(&self) -> Option<(Instant, Expired)> {
        // Before `waiting`: a request that has ended has noted when.
        if self.requests.load(Ordering::Acquire) > 0 {
            return None;
        }
        let (since, limit, reason) = match Waiting::unpack(self.waiting.load(Ordering::Acquire)) {
            Waiting::Head(since) => (since, self.limits.header_timeout, Expired::HeadTimeout),
            Waiting::Request(since) => (since, self.limits.keep_alive_timeout, Expired::KeepAlive),
        };
        Some((self.started + since + limit, reason))
    }

    fn write_deadline(&self) -> Option<(Instant, Expired)> {
        let since = self.write_stalled.load(Ordering::Acquire);
        (since != NEVER).then(|| {
            let since = self.started + Duration::from_micros(since);
            (since + self.limits.write_timeout, Expired::WriteStalled)
        })
    }

    fn longest_sleep(&self) -> Duration {
        let limits = &self.limits;
        let shortest = limits.header_timeout.min(limits.keep_alive_timeout);
        shortest.min(limits.write_timeout).max(SHORTEST_SLEEP)
    }

    /// Since the connection's start.
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// During a request the bytes are its body's or those of the next head
    /// (pipelining); what they set is set again when the request ends.
    fn head_bytes_arrived(&self) {
        if let Waiting::Request(_) = Waiting::unpack(self.waiting.load(Ordering::Acquire)) {
            let head = Waiting::Head(self.now());
            self.waiting.store(head.pack(), Ordering::Release);
        }
    }

    fn request_ended(&self) {
        let waiting = Waiting::Request(self.now());
        self.waiting.store(waiting.pack(), Ordering::Release);
        self.requests.fetch_sub(1, Ordering::AcqRel);
    }

    fn write_pending(&self) {
        if self.write_stalled.load(Ordering::Acquire) == NEVER {
            self.write_stalled
                .store(micros(self.now()), Ordering::Release);
        }
    }

    fn write_moved(&self) {
        if self.write_stalled.load(Ordering::Acquire) != NEVER {
            self.write_stalled.store(NEVER, Ordering::Release);
        }
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.0.request_ended();
    }
}

/// No point in time: the writes of a connection are not stalled.
const NEVER: u64 = u64::MAX;

/// Keeps limits near zero from turning the wait into a busy loop.
const SHORTEST_SLEEP: Duration = Duration::from_millis(50);

/// What a connection without a request in progress waits for, and since when,
/// counted from its start. One number holds both, so that they never disagree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    Head(Duration),
    Request(Duration),
}

impl Waiting {
    const HEAD_BIT: u64 = 1;

    fn pack(self) -> u64 {
        match self {
            Self::Head(since) => (micros(since) << 1) | Self::HEAD_BIT,
            Self::Request(since) => micros(since) << 1,
        }
    }

    fn unpack(packed: u64) -> Self {
        let since = Duration::from_micros(packed >> 1);
        if packed & Self::HEAD_BIT == Self::HEAD_BIT {
            Self::Head(since)
        } else {
            Self::Request(since)
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(NEVER)
}

/// The first bytes of every HTTP/2 connection (RFC 9113, 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The version of HTTP that a connection speaks, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    /// Neither yet; what is still to come of the preface of version 2.
    Unknown(&'static [u8]),
    Http1,
    Http2,
}

impl Protocol {
    fn after(self, bytes: &[u8]) -> Self {
        match self {
            Self::Unknown(preface) if bytes.starts_with(preface) => Self::Http2,
            Self::Unknown(preface) => preface
                .strip_prefix(bytes)
                .map_or(Self::Http1, Self::Unknown),
            Self::Http1 | Self::Http2 => self,
        }
    }
}

impl<S> Watched<S> {
    /// Reports to `activity` what passes through `stream` from now on.
    pub fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self {
            stream,
            protocol: Protocol::Unknown(HTTP2_PREFACE),
            activity,
        }
    }

    /// HTTP/2 has settings and pings between requests, so that its bytes do
    /// not tell when a head begins; blank lines between requests are none in
    /// HTTP/1 either (RFC 9112, 2.2).
    fn received(&mut self, bytes: &[u8]) {
        self.protocol = self.protocol.after(bytes);
        let blank = bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n'));
        if self.protocol == Protocol::Http1 && !blank {
            self.activity.head_bytes_arrived();
        }
    }

    /// TLS takes writes into a buffer and only waits when it is to be flushed,
    /// so a flush counts as a write.
    fn written<T>(&self, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match written {
            Poll::Ready(_) => self.activity.write_moved(),
            Poll::Pending => self.activity.write_pending(),
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let filled_before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.received(&buffer.filled()[filled_before..]);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.written(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.written(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut_down = Pin::new(&mut self.stream).poll_shutdown(context);
        self.written(shut_down)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.written(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    use bytes::Bytes;
    use http::{Request, Response};
    use http_body_util::{BodyExt, Empty, Full};
    use hyper::body::Incoming;
    use hyper::service::service_fn;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use hyper_util::server::conn::auto;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::{sleep, timeout};

    const LIMITS: IdleLimits = IdleLimits {
        header_timeout: Duration::from_secs(5),
        keep_alive_timeout: Duration::from_secs(75),
        write_timeout: Duration::from_secs(10),
    };

    /// A connection on a clock that only moves while everybody waits.
    struct Connection {
        activity: Arc<Activity>,
        server: Watched<DuplexStream>,
        client: DuplexStream,
    }

    impl Connection {
        fn new() -> Self {
            let activity = Activity::new(LIMITS);
            let (client, server) = duplex(64);
            let server = Watched::new(server, Arc::clone(&activity));
            Self {
                activity,
                server,
                client,
            }
        }

        async fn receive(&mut self, bytes: &[u8]) {
            self.client.write_all(bytes).await.unwrap();
            let mut received = vec![0; bytes.len()];
            self.server.read_exact(&mut received).await.unwrap();
            assert_eq!(received, bytes);
        }

        async fn request(&mut self, bytes: &[u8], duration: Duration) {
            self.receive(bytes).await;
            let _request = self.activity.request_started();
            sleep(duration).await;
        }
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    /// Why and after how many seconds from now the connection expires.
    async fn expiry(activity: &Activity) -> (Expired, u64) {
        let start = Instant::now();
        let reason = timeout(seconds(86_400), activity.expired()).await.unwrap();
        (reason, start.elapsed().as_secs())
    }

    async fn stays_open(activity: &Activity, duration: Duration) -> bool {
        timeout(duration, activity.expired()).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_sends_nothing_expires_after_the_head_time() {
        let connection = Connection::new();
        let expiry = expiry(&connection.activity).await;
        assert_eq!(expiry, (Expired::HeadTimeout, 5));
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_do_not_prolong_the_time_for_the_first_head() {
        let mut connection = Connection::new();
        for byte in b"POST" {
            connection.receive(&[*byte]).await;
            sleep(seconds(1)).await;
        }
        let expiry = expiry(&connection.activity).await;
        assert_eq!(expiry, (Expired::HeadTimeout, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_in_progress_keeps_the_connection_open() {
        let connection = Connection::new();
        let _request = connection.activity.request_started();
        assert!(stays_open(&connection.activity, seconds(3600)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_expires_when_no_request_comes_for_the_keep_alive_time() {
        let mut connection = Connection::new();
        connection.request(b"POST /", seconds(8)).await;
        let expiry = expiry(&connection.activity).await;
        assert_eq!(expiry, (Expired::KeepAlive, 75));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_began_during_a_request_ends_on_time() {
        let connection = Connection::new();
        let request = connection.activity.request_started();
        let activity = Arc::clone(&connection.activity);
        let waiting = tokio::spawn(async move { expiry(&activity).await });
        sleep(seconds(33)).await;
        drop(request);
        assert_eq!(waiting.await.unwrap(), (Expired::KeepAlive, 33 + 75));
    }

    #[tokio::test(start_paused = true)]
    async fn a_later_head_has_the_head_time_from_its_first_byte() {
        let mut connection = Connection::new();
        connection.request(b"POST /", seconds(1)).await;
        sleep(seconds(40)).await;
        connection.receive(b"P").await;
        sleep(seconds(3)).await;
        connection.receive(b"OST").await;
        let expiry = expiry(&connection.activity).await;
        assert_eq!(expiry, (Expired::HeadTimeout, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_begins_while_somebody_waits_expires_on_time() {
        let mut connection = Connection::new();
        connection.request(b"POST /", seconds(1)).await;
        let activity = Arc::clone(&connection.activity);
        let waiting = tokio::spawn(async move { expiry(&activity).await });
        sleep(seconds(42)).await;
        connection.receive(b"POST").await;
        assert_eq!(waiting.await.unwrap(), (Expired::HeadTimeout, 42 + 5));
    }

    #[tokio::test(start_paused = true)]
    async fn blank_lines_between_requests_begin_no_head() {
        let mut connection = Connection::new();
        connection.request(b"POST /", seconds(1)).await;
        connection.receive(b"\r\n").await;
        let expiry = expiry(&connection.activity).await;
        assert_eq!(expiry, (Expired::KeepAlive, 75));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_no_head() {
        let mut connection = Connection::new();
        let request = connection.activity.request_started();
        connection.receive(b"{\"notifyType\"").await;
        drop(request);
        let expiry = expiry(&connection.activity).await;
        assert_eq!(expiry, (Expired::KeepAlive, 75));
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_of_several_requests_counts() {
        let connection = Connection::new();
        let long = connection.activity.request_started();
        let short = connection.activity.request_started();
        drop(short);
        assert!(stays_open(&connection.activity, seconds(3600)).await);
        drop(long);
        let expiry = expiry(&connection.activity).await;
        assert_eq!(expiry, (Expired::KeepAlive, 75));
    }

    #[tokio::test(start_paused = true)]
    async fn http2_has_the_head_time_for_its_first_request() {
        let mut connection = Connection::new();
        connection.receive(HTTP2_PREFACE).await;
        let expiry = expiry(&connection.activity).await;
        assert_eq!(expiry, (Expired::HeadTimeout, 5));
    }

    #[tokio::test(start_paused = true)]
    async fn pings_of_http2_neither_begin_a_head_nor_prolong_the_keep_alive_time() {
        let mut connection = Connection::new();
        let (start, end) = HTTP2_PREFACE.split_at(7);
        connection.receive(start).await;
        connection.request(end, seconds(1)).await;
        for _ in 0..7 {
            sleep(seconds(10)).await;
            connection.receive(b"a ping").await;
        }
        let expiry = expiry(&connection.activity).await;
        assert_eq!(expiry, (Expired::KeepAlive, 5));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_read_expires_even_during_a_request() {
        let mut connection = Connection::new();
        let _request = connection.activity.request_started();
        let writing = async {
            connection.server.write_all(&[0; 65]).await.unwrap();
        };
        let expiry = tokio::select! {
            () = writing => panic!("64 bytes are all that fit"),
            expiry = expiry(&connection.activity) => expiry,
        };
        assert_eq!(expiry, (Expired::WriteStalled, 10));
    }

    #[tokio::test(start_paused = true)]
    async fn the_nearest_of_two_deadlines_counts() {
        let mut connection = Connection::new();
        connection.request(b"POST /", seconds(1)).await;
        let writing = async {
            connection.server.write_all(&[0; 65]).await.unwrap();
        };
        let expiry = tokio::select! {
            () = writing => panic!("64 bytes are all that fit"),
            expiry = expiry(&connection.activity) => expiry,
        };
        assert_eq!(expiry, (Expired::WriteStalled, 10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_reads_slowly_keeps_its_connection() {
        let mut connection = Connection::new();
        let _request = connection.activity.request_started();
        let activity = Arc::clone(&connection.activity);
        let writing = tokio::spawn(async move {
            connection.server.write_all(&[0; 80]).await.unwrap();
        });
        let reading = tokio::spawn(async move {
            for _ in 0..80 {
                sleep(seconds(9)).await;
                connection.client.read_u8().await.unwrap();
            }
        });
        assert!(stays_open(&activity, seconds(3600)).await);
        writing.await.unwrap();
        reading.await.unwrap();
    }

    /// Serves a connection with hyper, as the listener does.
    fn serve(server: Watched<DuplexStream>, activity: Arc<Activity>) {
        let answer = service_fn(move |request: Request<Incoming>| {
            let guard = activity.request_started();
            async move {
                let _guard = guard;
                request.into_body().collect().await.unwrap();
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
            }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().header_read_timeout(None);
        tokio::spawn(async move {
            let connection = builder.serve_connection(TokioIo::new(server), answer);
            connection.await.unwrap();
        });
    }

    async fn read_answer(client: &mut DuplexStream) {
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(client.read_u8().await.unwrap());
        }
        assert!(answer.starts_with(b"HTTP/1.1 200"));
    }

    #[tokio::test(start_paused = true)]
    async fn between_requests_hyper_reads_nothing_that_looks_like_a_head() {
        let Connection {
            activity,
            server,
            mut client,
        } = Connection::new();
        serve(server, Arc::clone(&activity));
        for _ in 0..3 {
            client
                .write_all(b"POST / HTTP/1.1\r\nHost: a\r\n")
                .await
                .unwrap();
            client
                .write_all(b"Content-Length: 4\r\n\r\n{")
                .await
                .unwrap();
            sleep(seconds(20)).await;
            client.write_all(b"  }").await.unwrap();
            read_answer(&mut client).await;
            sleep(seconds(60)).await;
            assert!(stays_open(&activity, seconds(14)).await);
        }
        assert_eq!(expiry(&activity).await, (Expired::KeepAlive, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn hyper_over_http2_is_idle_between_requests_too() {
        let Connection {
            activity,
            server,
            client,
        } = Connection::new();
        serve(server, Arc::clone(&activity));
        let client = TokioIo::new(client);
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), client);
        let (mut sender, driver) = handshake.await.unwrap();
        tokio::spawn(driver);
        for _ in 0..3 {
            let request = Request::post("http://a/").body(Empty::<Bytes>::new());
            let answer = sender.send_request(request.unwrap()).await.unwrap();
            assert!(answer.status().is_success());
            answer.collect().await.unwrap();
            sleep(seconds(60)).await;
            assert!(stays_open(&activity, seconds(14)).await);
        }
        assert_eq!(expiry(&activity).await, (Expired::KeepAlive, 1));
    }
}
