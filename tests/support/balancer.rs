//! A TCP load balancer before several instances: it asks each one's `/readyz`
//! again and again, and connects to those that are ready, in turn.
//!
//! As most balancers do, it leaves connections alone that are open, and closes
//! a new one where no instance is ready. It must not know what passes.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::time::{sleep, timeout};

/// The pause between two questions.
const INTERVAL: Duration = Duration::from_millis(200);
/// What is not answered by then is not ready.
const PATIENCE: Duration = Duration::from_secs(1);
/// So many answers in a row take an instance out; one puts it back.
const UNREADY_IN_ROW: u32 = 2;
const BACKLOG: u32 = 4096;

/// A running balancer; dropping it ends it.
#[derive(Debug)]
pub struct Balancer {
    address: SocketAddr,
    instances: Arc<Vec<Instance>>,
    turned_away: Arc<AtomicUsize>,
    _runtime: Runtime,
}

#[derive(Debug, Default)]
struct Instance {
    place: Mutex<Option<Place>>,
    ready: AtomicBool,
}

/// Where an instance listens.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// For pushes.
    pub push: SocketAddr,
    /// For administration.
    pub admin: SocketAddr,
}

impl Balancer {
    /// Listens on a free port, for so many instances, of which none is there.
    pub fn start(instances: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("balancer")
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime.block_on(async { listen() }).expect("a free port");
        let instances: Arc<Vec<Instance>> =
            Arc::new((0..instances).map(|_| Instance::default()).collect());
        for index in 0..instances.len() {
            runtime.spawn(check(Arc::clone(&instances), index));
        }
        let address = listener.local_addr().expect("a bound address");
        let turned_away = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&turned_away);
        runtime.spawn(accept(listener, Arc::clone(&instances), counted));
        Self {
            address,
            instances,
            turned_away,
            _runtime: runtime,
        }
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections were closed because no instance was ready.
    pub fn turned_away(&self) -> usize {
        self.turned_away.load(Ordering::Relaxed)
    }

    /// An instance is at this place from now on; it is used once it is ready.
    pub fn place(&self, index: usize, place: Place) {
        let instance = &self.instances[index];
        instance.ready.store(false, Ordering::Relaxed);
        *instance
            .place
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(place);
    }

    /// Whether new connections may go to an instance.
    pub fn is_ready(&self, index: usize) -> bool {
        self.instances[index].ready.load(Ordering::Relaxed)
    }
}

impl Instance {
    fn place(&self) -> Option<Place> {
        *self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn listen() -> std::io::Result<TcpListener> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    socket.listen(BACKLOG)
}

async fn accept(
    listener: TcpListener,
    instances: Arc<Vec<Instance>>,
    turned_away: Arc<AtomicUsize>,
) {
    let turn = AtomicUsize::new(0);
    loop {
        let Ok((client, _)) = listener.accept().await else {
            sleep(INTERVAL).await;
            continue;
        };
        let turn = turn.fetch_add(1, Ordering::Relaxed);
        let (instances, turned_away) = (Arc::clone(&instances), Arc::clone(&turned_away));
        tokio::spawn(async move {
            if !serve(client, turn, &instances).await {
                turned_away.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
}

/// Whether there was an instance for the connection.
async fn serve(mut client: TcpStream, turn: usize, instances: &[Instance]) -> bool {
    let count = instances.len();
    let in_turn = (0..count).map(|step| &instances[(turn + step) % count]);
    for instance in in_turn.filter(|instance| instance.ready.load(Ordering::Relaxed)) {
        let Some(place) = instance.place() else {
            continue;
        };
        // One that has just ended is passed over.
        let Ok(Ok(mut server)) = timeout(PATIENCE, TcpStream::connect(place.push)).await else {
            continue;
        };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        // How a connection ends is between its two ends.
        let _ = copy_bidirectional(&mut client, &mut server).await;
        return true;
    }
    false
}

async fn check(instances: Arc<Vec<Instance>>, index: usize) {
    let instance = &instances[index];
    let mut unready = 0;
    loop {
        let ready = match instance.place() {
            Some(place) => matches!(
                timeout(PATIENCE, is_ready(place.admin)).await,
                Ok(Some(true))
            ),
            None => false,
        };
        unready = if ready { 0 } else { unready + 1 };
        if ready || unready >= UNREADY_IN_ROW {
            instance.ready.store(ready, Ordering::Relaxed);
        }
        sleep(INTERVAL).await;
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
