//! When a connection has been silent for too long.
//!
//! hyper's `header_read_timeout` runs while a head arrives and also while a
//! connection is kept alive, so it cannot allow 5 seconds for the one and 75
//! for the other; and it does not run before the first byte. So this file
//! watches the bytes below hyper and the requests above it. The time between
//! the two belongs to hyper, which has limits of its own.
//!
//! Knows nothing of HTTP but whether a connection speaks version 1 or 2, and
//! closes nothing: [`Activity::expired`] says when to close.
//!
//! ```text
//! accept ──▶ waiting for a head ──request──▶ in progress ──last answer──▶ idle
//!                    ▲                            ▲                        │
//!                    └─────── bytes (HTTP/1) ─────┴─────────request────────┘
//! ```

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep_until};

use super::protocol::{FirstBytes, Protocol};
use super::strangers::ConnectionEntry;

/// How long a connection may be silent, by what it is waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IdleTimeouts {
    /// From a connection's start to its first request, and in HTTP/1 from a
    /// later head's first byte to its last.
    pub(crate) header: Duration,
    /// From the end of the last request to the start of the next one.
    pub(crate) keep_alive: Duration,
    /// How long the client may read nothing of what is written to it.
    pub(crate) write: Duration,
}

/// Why a connection must be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expired {
    HeadTimeout,
    /// Close gracefully: the next request may be on its way already.
    KeepAlive,
    WriteStalled,
}

/// What happens on one connection, shared by the stream below hyper and the
/// requests above it. Costs a few atomic operations a request, and no timer.
#[derive(Debug)]
pub(crate) struct Activity {
    timeouts: IdleTimeouts,
    started: Instant,
    requests: AtomicUsize,
    waiting: AtomicU64,
    write_stalled: AtomicU64,
    entry: Arc<ConnectionEntry>,
    unsent: Mutex<Unsent>,
}

/// When each answer began that has not left yet.
#[derive(Debug, Default)]
struct Unsent {
    next_id: u64,
    began: BTreeMap<u64, Instant>,
}

/// The body of an answer. A client that does not take it (HTTP/2's flow control
/// lets it refuse) has its connection closed like one that does not read.
#[derive(Debug)]
pub(crate) struct AnswerBody {
    rest: Bytes,
    _unsent: Option<UnsentAnswer>,
}

/// An answer that has not left.
#[derive(Debug)]
struct UnsentAnswer {
    activity: Arc<Activity>,
    id: u64,
}

/// A request in progress. While one is held, its connection is not idle.
#[derive(Debug)]
pub(crate) struct RequestGuard(Arc<Activity>);

/// A stream that reports to an [`Activity`] what passes through it. It wraps
/// what hyper reads and writes, so it belongs above TLS.
#[derive(Debug)]
pub(crate) struct Watched<S> {
    stream: S,
    protocol: Protocol,
    first: FirstBytes,
    activity: Arc<Activity>,
}

impl Activity {
    /// Starts the time for the first request: call it when the connection is
    /// accepted and its TLS handshake is done.
    pub(crate) fn new(timeouts: IdleTimeouts, entry: Arc<ConnectionEntry>) -> Arc<Self> {
        Arc::new(Self {
            timeouts,
            entry,
            unsent: Mutex::default(),
            started: Instant::now(),
            requests: AtomicUsize::new(0),
            waiting: AtomicU64::new(Waiting::FIRST_REQUEST.pack()),
            write_stalled: AtomicU64::new(NEVER),
        })
    }

    /// To be called when a request's head is complete. The guard must be held
    /// until hyper has the answer or has dropped the request.
    pub(crate) fn request_started(self: &Arc<Self>) -> RequestGuard {
        self.requests.fetch_add(1, Ordering::AcqRel);
        RequestGuard(Arc::clone(self))
    }

    /// Makes the body of an answer, which must leave in time.
    pub(crate) fn answer(self: &Arc<Self>, bytes: Bytes) -> AnswerBody {
        AnswerBody {
            _unsent: (!bytes.is_empty()).then(|| self.begin_answer()),
            rest: bytes,
        }
    }

    fn begin_answer(self: &Arc<Self>) -> UnsentAnswer {
        let mut unsent = self.unsent();
        let id = unsent.next_id;
        unsent.next_id += 1;
        unsent.began.insert(id, Instant::now());
        UnsentAnswer {
            activity: Arc::clone(self),
            id,
        }
    }

    fn unsent(&self) -> MutexGuard<'_, Unsent> {
        self.unsent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether a request is in progress.
    pub(crate) fn is_busy(&self) -> bool {
        self.requests.load(Ordering::Acquire) > 0
    }

    /// Returns whether no request has been started since the connection's start.
    pub(crate) fn awaits_first_request(&self) -> bool {
        // In this order: a request sets `waiting` before it ends.
        !self.is_busy() && self.waiting() == Waiting::FIRST_REQUEST
    }

    /// Resolves when the connection must be closed. Later calls resolve at
    /// once until something happens on the connection. Cancel-safe.
    ///
    /// Nothing wakes this future when a deadline changes, and it still meets
    /// every deadline: it never sleeps longer than the shortest timeout, so a
    /// timeout that starts while it sleeps ends only after it has woken.
    pub(crate) async fn expired(&self) -> Expired {
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

    /// The nearest of the deadlines that run now. Reading and writing have one
    /// each, because a client can stall its answer while its next head is due.
    fn deadline(&self) -> Option<(Instant, Expired)> {
        let deadlines = [self.read_deadline(), self.write_deadline()];
        deadlines.into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    fn read_deadline(&self) -> Option<(Instant, Expired)> {
        // A request has its own deadline, for its body as for its answer. It
        // sets `waiting` before it ends, so `waiting` is read second: the other
        // order could combine the end of this request with an older time.
        if self.is_busy() {
            return None;
        }
        let (since, timeout, reason) = match self.waiting() {
            Waiting::Head(since) => (since, self.timeouts.header, Expired::HeadTimeout),
            Waiting::Request(since) => (since, self.timeouts.keep_alive, Expired::KeepAlive),
        };
        Some((self.started + since + timeout, reason))
    }

    fn write_deadline(&self) -> Option<(Instant, Expired)> {
        let since = self.write_stalled.load(Ordering::Acquire);
        let stalled = (since != NEVER).then(|| self.started + Duration::from_micros(since));
        // Ids rise with time, so the first began first.
        let unsent = self.unsent().began.first_key_value().map(|(_, at)| *at);
        let since = stalled.into_iter().chain(unsent).min()?;
        Some((since + self.timeouts.write, Expired::WriteStalled))
    }

    fn longest_sleep(&self) -> Duration {
        let timeouts = &self.timeouts;
        let shortest = timeouts.header.min(timeouts.keep_alive);
        shortest.min(timeouts.write).max(SHORTEST_SLEEP)
    }

    fn waiting(&self) -> Waiting {
        Waiting::unpack(self.waiting.load(Ordering::Acquire))
    }

    fn wait_for(&self, waiting: Waiting) {
        self.waiting.store(waiting.pack(), Ordering::Release);
    }

    /// During a request these are bytes of its body or, with pipelining, of the
    /// next head; the request's end overwrites what they set here.
    fn head_bytes_arrived(&self) {
        if let Waiting::Request(_) = self.waiting() {
            self.wait_for(Waiting::Head(self.started.elapsed()));
        }
    }

    fn request_ended(&self) {
        self.wait_for(Waiting::Request(self.started.elapsed()));
        self.requests.fetch_sub(1, Ordering::AcqRel);
    }

    fn write_pending(&self) {
        if self.write_stalled.load(Ordering::Acquire) == NEVER {
            let now = micros(self.started.elapsed());
            self.write_stalled.store(now, Ordering::Release);
        }
    }

    fn write_progressed(&self) {
        if self.write_stalled.load(Ordering::Acquire) != NEVER {
            self.write_stalled.store(NEVER, Ordering::Release);
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    /// Everything but the last byte, then that. Over HTTP/2, hyper hands over a
    /// frame if the client takes one byte of it, and asks for the next one only when
    /// the client has taken it all.
    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let length = self.rest.len();
        let next = match length {
            0 | 1 => self.rest.split_to(length),
            _ => self.rest.split_to(length - 1),
        };
        Poll::Ready((!next.is_empty()).then(|| Ok(Frame::data(next))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(u64::try_from(self.rest.len()).unwrap_or(u64::MAX))
    }
}

impl Drop for UnsentAnswer {
    fn drop(&mut self) {
        self.activity.unsent().began.remove(&self.id);
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.0.request_ended();
    }
}

/// No time at all: the connection's writes are not stalled.
const NEVER: u64 = u64::MAX;

/// Keeps timeouts near zero from turning the wait into a busy loop.
const SHORTEST_SLEEP: Duration = Duration::from_millis(50);

/// What a connection without a request in progress waits for, and since when,
/// counted from its start. Packed into one atomic number, so that a reader
/// never sees the one without the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    Head(Duration),
    Request(Duration),
}

impl Waiting {
    /// The state of a new connection.
    const FIRST_REQUEST: Self = Self::Head(Duration::ZERO);
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

impl<S> Watched<S> {
    /// `first` are the bytes already read from `stream`; they are read again.
    pub(crate) fn new(
        stream: S,
        protocol: Protocol,
        first: FirstBytes,
        activity: Arc<Activity>,
    ) -> Self {
        Self {
            stream,
            protocol,
            first,
            activity,
        }
    }

    /// Bytes between requests begin a head in HTTP/1, except blank lines (RFC
    /// 9112, 2.2). HTTP/2 also sends settings and pings there, so its bytes say
    /// nothing.
    fn received(&self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.activity.entry.bytes_arrived();
        }
        let blank = bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n'));
        if self.protocol == Protocol::Http1 && !blank {
            self.activity.head_bytes_arrived();
        }
    }

    /// TLS buffers a write and only waits when the buffer is flushed, so a
    /// flush counts as a write.
    fn written<T>(&self, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match written {
            Poll::Ready(_) => self.activity.write_progressed(),
            Poll::Pending => self.activity.write_pending(),
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    /// Hands over the first bytes together with those that follow: hyper
    /// doubles its buffer for a head that it reads in two pieces.
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let replayed = self.first.replay(buffer);
        let filled_before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.received(&buffer.filled()[filled_before..]);
        if replayed && read.is_pending() {
            return Poll::Ready(Ok(()));
        }
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
mod tests;
