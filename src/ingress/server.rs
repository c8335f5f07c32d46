//! The listener: accept loop, limit of connections, backlog and drain.
//!
//! At the limit a stranger gives way to a new connection; the new one waits only
//! if every connection has brought an authorized push.
//! A drain loses no connection that the kernel has accepted: the backlog is
//! emptied before the listener closes, and every connection ends in its own
//! time. Knows nothing of what happens on a connection (`connection`).

use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::Connections;
use super::strangers::Strangers;
use crate::config::Limits;

/// The connections that the kernel holds until they are accepted.
const BACKLOG: u32 = 4096;
/// The pause after an accept that failed for lack of a resource.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);
/// The longest time that a drain spends on the backlog.
const BACKLOG_TIMEOUT: Duration = Duration::from_secs(1);
/// The backlog counts as empty after this long without a new connection.
const BACKLOG_QUIET: Duration = Duration::from_millis(50);

pub(crate) struct Server {
    listener: TcpListener,
    permits: Arc<Semaphore>,
    strangers: Arc<Strangers>,
    connections: Arc<Connections>,
    tasks: TaskTracker,
}

impl Server {
    /// # Errors
    ///
    /// Returns the operating system's error if `address` cannot be bound.
    pub(crate) fn bind(
        address: SocketAddr,
        limits: &Limits,
        connections: Connections,
    ) -> std::io::Result<Self> {
        Ok(Self {
            listener: listen(address)?,
            permits: Arc::new(Semaphore::new(limits.max_connections)),
            strangers: Strangers::new(limits.max_connections_per_address),
            connections: Arc::new(connections),
            tasks: TaskTracker::new(),
        })
    }

    /// The bound address; port 0 of the settings has become a free port.
    pub(crate) fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Accepts connections until `stop` is cancelled, then drains them.
    /// Resolves when all of them are closed.
    pub(crate) async fn run(self, stop: CancellationToken) {
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = self.accept() => {}
        }
        self.empty_backlog().await;
        drop(self.listener);
        self.connections.drain();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// A connection that is not allowed takes no place. What exceeds the limit
    /// stays in the kernel's backlog.
    async fn accept(&self) {
        loop {
            match self.listener.accept().await {
                Ok((_, peer)) if !self.connections.admits(peer) => {}
                // The semaphore is never closed.
                Ok((stream, peer)) => {
                    if let Ok(permit) = self.place().await {
                        self.start(stream, peer, permit);
                    }
                }
                Err(error) => back_off(&error).await,
            }
        }
    }

    async fn place(&self) -> Result<OwnedSemaphorePermit, AcquireError> {
        let permits = || Arc::clone(&self.permits);
        if let Ok(permit) = permits().try_acquire_owned() {
            return Ok(permit);
        }
        loop {
            let kept_place = self.strangers.kept_place();
            self.strangers.evict_idlest();
            tokio::select! {
                permit = permits().acquire_owned() => return permit,
                () = kept_place => {}
            }
        }
    }

    /// The kernel has completed the handshake of the connections in the
    /// backlog: closing the listener would reset them.
    async fn empty_backlog(&self) {
        let end = Instant::now() + BACKLOG_TIMEOUT;
        while let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            let quiet = end.min(Instant::now() + BACKLOG_QUIET);
            match tokio::time::timeout_at(quiet, self.listener.accept()).await {
                Ok(Ok((_, peer))) if !self.connections.admits(peer) => {}
                Ok(Ok((stream, peer))) => self.start(stream, peer, permit),
                Ok(Err(_)) | Err(_) => return,
            }
        }
    }

    fn start(&self, stream: TcpStream, peer: SocketAddr, permit: OwnedSemaphorePermit) {
        let connections = Arc::clone(&self.connections);
        let entry = Arc::new(self.strangers.register());
        self.tasks.spawn(async move {
            connections.serve(stream, peer, entry).await;
            drop(permit);
        });
    }
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

/// A client that was gone before its connection was accepted is no reason to
/// wait; a lack of file descriptors or memory is.
async fn back_off(error: &Error) {
    let concerns_one_connection = matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused
    );
    if !concerns_one_connection {
        tracing::warn!(%error, "accept failed; retrying");
        tokio::time::sleep(ACCEPT_BACKOFF).await;
    }
}
