//! A network between clients and brokers that can be cut, slowed down and made
//! lossy.
//!
//! Each [`Link`] of a [`Cluster`] is a proxy on loopback. The brokers advertise
//! the proxies, so every connection from a zone's clients goes through them.
//! A cut is silent, as when a switch fails: connections stay open, nothing
//! passes, and data in flight arrives once the cut has healed. Loss shows as it
//! does to a TCP user: no data is missing, but a lost segment arrives only after
//! a retransmission timeout, and everything after it waits.
//!
//! It must not interpret the bytes that it forwards.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::kafka_cluster::{Cluster, Link};

/// Linux's minimum retransmission timeout (`TCP_RTO_MIN`).
const MIN_RETRANSMISSION_TIMEOUT: Duration = Duration::from_millis(200);
/// Bounds the data in flight in each direction of a connection.
const MAX_SEGMENTS_IN_FLIGHT: usize = 256;

/// How a link behaves; by default it forwards at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Conditions {
    /// Nothing passes.
    pub cut: bool,
    /// One-way delay, in each direction.
    pub delay: Duration,
    /// Percentage of segments that are lost and retransmitted.
    pub loss_percent: u8,
}

/// The links between the zones and the brokers; dropping it closes them.
#[derive(Debug)]
pub struct Network {
    /// By listener, then by broker.
    links: Vec<Vec<Proxy>>,
    runtime: Runtime,
}

/// What controls the proxy of one link.
#[derive(Debug)]
struct Proxy {
    conditions: watch::Sender<Conditions>,
    reset: watch::Sender<()>,
}

impl Network {
    /// Opens the links of the first `listeners` listeners, without any faults; a
    /// cluster's zones are its first listeners.
    pub fn open(cluster: &Cluster, listeners: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("network")
            .enable_all()
            .build()
            .expect("a runtime");
        let open = |link: Link| {
            let (proxy, faults) = Proxy::new();
            runtime.block_on(relay(link.advertised, link.listener, faults));
            proxy
        };
        let links_of = |listener| {
            let brokers = cluster.brokers().iter();
            brokers.map(|broker| open(broker.link(listener))).collect()
        };
        let links = (0..listeners).map(links_of).collect();
        Self { links, runtime }
    }

    /// Makes a link reachable at another address too, which nobody advertises.
    pub fn add_address(&self, address: SocketAddr, link: Link) {
        let (_, faults) = Proxy::new();
        self.runtime.block_on(relay(address, link.listener, faults));
    }

    /// Closes the open connections to one listener of all brokers.
    pub fn reset(&self, listener: usize) {
        for link in &self.links[listener] {
            link.reset.send_replace(());
        }
    }

    /// Sets the conditions between one zone and all brokers.
    pub fn set_zone(&self, zone: usize, conditions: Conditions) {
        for link in &self.links[zone] {
            link.conditions.send_replace(conditions);
        }
    }

    /// Sets the conditions between all zones and one broker.
    pub fn set_broker(&self, broker: usize, conditions: Conditions) {
        for zone in &self.links {
            zone[broker].conditions.send_replace(conditions);
        }
    }

    /// Sets the conditions of every link.
    pub fn set_all(&self, conditions: Conditions) {
        for zone in 0..self.links.len() {
            self.set_zone(zone, conditions);
        }
    }
}

impl Proxy {
    fn new() -> (Self, Faults) {
        let (conditions, current) = watch::channel(Conditions::default());
        let (reset, resets) = watch::channel(());
        let faults = Faults {
            conditions: current,
            resets,
        };
        (Self { conditions, reset }, faults)
    }
}

/// What a link's connections observe.
#[derive(Debug, Clone)]
struct Faults {
    conditions: watch::Receiver<Conditions>,
    resets: watch::Receiver<()>,
}

async fn relay(from: SocketAddr, to: SocketAddr, faults: Faults) {
    let listener = TcpListener::bind(from).await.expect("a free port");
    tokio::spawn(accept(listener, to, faults));
}

async fn accept(listener: TcpListener, to: SocketAddr, faults: Faults) {
    loop {
        // The process may be out of file descriptors for a moment.
        let Ok((client, _)) = listener.accept().await else {
            tokio::time::sleep(MIN_RETRANSMISSION_TIMEOUT).await;
            continue;
        };
        let mut resets = faults.resets.clone();
        resets.mark_unchanged();
        let connection = connect(client, to, faults.conditions.clone());
        tokio::spawn(async move {
            tokio::select! {
                _ = connection => {}
                Ok(()) = resets.changed() => {}
            }
        });
    }
}

/// Forwards in both directions until either side closes, as without a proxy.
async fn connect(
    client: TcpStream,
    to: SocketAddr,
    mut conditions: watch::Receiver<Conditions>,
) -> io::Result<()> {
    until_not_cut(&mut conditions).await;
    let broker = TcpStream::connect(to).await?;
    client.set_nodelay(true)?;
    broker.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_broker, to_broker) = broker.into_split();
    tokio::select! {
        ended = forward(from_client, to_broker, conditions.clone()) => ended,
        ended = forward(from_broker, to_client, conditions.clone()) => ended,
    }
}

/// Forwards one direction. Segments arrive in order, each when it is due.
async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut conditions: watch::Receiver<Conditions>,
) -> io::Result<()> {
    let mut in_flight: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let mut segment = vec![0; 16 * 1024];
    let mut ended = false;
    while !ended || !in_flight.is_empty() {
        let due = in_flight.front().map(|(due, _)| *due);
        tokio::select! {
            read = from.read(&mut segment), if !ended && in_flight.len() < MAX_SEGMENTS_IN_FLIGHT => {
                // A reset ends the stream, as a close does.
                let length = read.unwrap_or(0);
                ended = length == 0;
                if !ended {
                    let due = arrival_time(*conditions.borrow());
                    in_flight.push_back((due, segment[..length].to_vec()));
                }
            }
            () = until_due(due, &mut conditions), if due.is_some() => {
                if let Some((_, segment)) = in_flight.pop_front() {
                    to.write_all(&segment).await?;
                }
            }
        }
    }
    to.shutdown().await
}

/// Each loss costs one retransmission timeout, which doubles every time.
fn arrival_time(conditions: Conditions) -> Instant {
    let mut delay = conditions.delay;
    let mut timeout = MIN_RETRANSMISSION_TIMEOUT.max(2 * conditions.delay);
    while fastrand::u8(..100) < conditions.loss_percent {
        delay += timeout;
        timeout *= 2;
    }
    Instant::now() + delay
}

async fn until_due(due: Option<Instant>, conditions: &mut watch::Receiver<Conditions>) {
    if let Some(due) = due {
        sleep_until(due).await;
    }
    until_not_cut(conditions).await;
}

/// Waits while the link is cut; forever once the network has been dropped.
async fn until_not_cut(conditions: &mut watch::Receiver<Conditions>) {
    if conditions
        .wait_for(|conditions| !conditions.cut)
        .await
        .is_err()
    {
        std::future::pending::<()>().await;
    }
}
