//! A TCP load balancer in front of several ingress instances.
//!
//! It polls `/readyz` of each instance and assigns new connections round-robin
//! to those that are ready. Like most load balancers, it leaves established
//! connections alone and closes a new one if no instance is ready. It must not
//! interpret the bytes that it forwards.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::time::{sleep, timeout};

const CHECK_INTERVAL: Duration = Duration::from_millis(200);
/// A health check that takes longer counts as failed.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);
/// Consecutive failed checks that remove a backend; one success restores it.
const FAILURES_BEFORE_REMOVAL: u32 = 2;
const BACKLOG: u32 = 4096;

/// A running load balancer; dropping it stops it.
#[derive(Debug)]
pub struct Balancer {
    address: SocketAddr,
    backends: Arc<Vec<Backend>>,
    refused: Arc<AtomicUsize>,
    _runtime: Runtime,
}

#[derive(Debug, Default)]
struct Backend {
    endpoints: Mutex<Option<Endpoints>>,
    ready: AtomicBool,
}

/// The listeners of one ingress instance.
#[derive(Debug, Clone, Copy)]
pub struct Endpoints {
    pub push: SocketAddr,
    pub admin: SocketAddr,
}

impl Balancer {
    /// Listens on a free loopback port, with `backends` slots that have no
    /// endpoints yet.
    pub fn start(backends: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("balancer")
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime.block_on(async { listen() }).expect("a free port");
        let backends: Arc<Vec<Backend>> =
            Arc::new((0..backends).map(|_| Backend::default()).collect());
        for index in 0..backends.len() {
            runtime.spawn(check(Arc::clone(&backends), index));
        }
        let address = listener.local_addr().expect("a bound address");
        let refused = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&refused);
        runtime.spawn(accept(listener, Arc::clone(&backends), counter));
        Self {
            address,
            backends,
            refused,
            _runtime: runtime,
        }
    }

    /// The address that clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns how many connections were closed because no backend was ready.
    pub fn refused_connections(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }

    /// Replaces a backend's endpoints, after a restart for example. The backend
    /// gets connections again once a health check has succeeded.
    pub fn set_endpoints(&self, index: usize, endpoints: Endpoints) {
        let backend = &self.backends[index];
        backend.ready.store(false, Ordering::Relaxed);
        *backend
            .endpoints
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(endpoints);
    }

    /// Returns whether a backend gets new connections.
    pub fn is_ready(&self, index: usize) -> bool {
        self.backends[index].ready.load(Ordering::Relaxed)
    }
}

impl Backend {
    fn endpoints(&self) -> Option<Endpoints> {
        *self
            .endpoints
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn listen() -> std::io::Result<TcpListener> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    socket.listen(BACKLOG)
}

async fn accept(listener: TcpListener, backends: Arc<Vec<Backend>>, refused: Arc<AtomicUsize>) {
    let accepted = AtomicUsize::new(0);
    loop {
        let Ok((client, _)) = listener.accept().await else {
            sleep(CHECK_INTERVAL).await;
            continue;
        };
        let first = accepted.fetch_add(1, Ordering::Relaxed);
        let (backends, refused) = (Arc::clone(&backends), Arc::clone(&refused));
        tokio::spawn(async move {
            if !forward(client, first, &backends).await {
                refused.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
}

/// Connects the client to a ready backend, starting at index `first`, and copies
/// in both directions until either side closes. Returns whether there was one.
async fn forward(mut client: TcpStream, first: usize, backends: &[Backend]) -> bool {
    let count = backends.len();
    let in_order = (0..count).map(|step| &backends[(first + step) % count]);
    for backend in in_order.filter(|backend| backend.ready.load(Ordering::Relaxed)) {
        let Some(endpoints) = backend.endpoints() else {
            continue;
        };
        // A backend that has just exited still counts as ready; try the next one.
        let Ok(Ok(mut server)) = timeout(CHECK_TIMEOUT, TcpStream::connect(endpoints.push)).await
        else {
            continue;
        };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        // An error on an established connection is for the two peers to handle.
        let _ = copy_bidirectional(&mut client, &mut server).await;
        return true;
    }
    false
}

async fn check(backends: Arc<Vec<Backend>>, index: usize) {
    let backend = &backends[index];
    let mut failures = 0;
    loop {
        let ready = match backend.endpoints() {
            Some(endpoints) => matches!(
                timeout(CHECK_TIMEOUT, is_ready(endpoints.admin)).await,
                Ok(Some(true))
            ),
            None => false,
        };
        failures = if ready { 0 } else { failures + 1 };
        if ready || failures >= FAILURES_BEFORE_REMOVAL {
            backend.ready.store(ready, Ordering::Relaxed);
        }
        sleep(CHECK_INTERVAL).await;
    }
}

async fn is_ready(admin: SocketAddr) -> Option<bool> {
    let mut connection = TcpStream::connect(admin).await.ok()?;
    let request = format!("GET /readyz HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await.ok()?;
    let mut status = [0; 12];
    connection.read_exact(&mut status).await.ok()?;
    Some(status.ends_with(b"200"))
}
