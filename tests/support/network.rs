//! The network between zones of clients and the brokers, with its faults: cuts,
//! delay and loss.
//!
//! Each way of a [`Cluster`] is a proxy on loopback: the brokers advertise the
//! proxies, so that every connection of a zone's clients goes through them.
//! A cut is silent, as when a switch dies: connections stay open and nothing
//! passes until it heals, then what was under way arrives. Loss is what TCP
//! makes of it: nothing goes missing, but what was lost comes after a time-out,
//! and everything behind it waits.
//!
//! It must not know what passes.

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

use super::kafka_cluster::{Cluster, Way};

/// The shortest time after which Linux sends again what was not acknowledged.
const RETRANSMISSION: Duration = Duration::from_millis(200);
/// So many pieces may be under way in each direction of a connection.
const UNDER_WAY: usize = 256;

/// What the way between a zone and a broker is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Weather {
    /// Nothing passes.
    pub cut: bool,
    /// What is added to each direction.
    pub delay: Duration,
    /// Of a hundred pieces so many are lost, and sent again.
    pub loss_percent: u8,
}

/// All ways of a cluster's zones; dropping it closes them.
#[derive(Debug)]
pub struct Network {
    ways: Vec<Vec<watch::Sender<Weather>>>,
    _runtime: Runtime,
}

impl Network {
    /// Opens the ways of so many zones, in fine weather.
    pub fn open(cluster: &Cluster, zones: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("network")
            .enable_all()
            .build()
            .expect("a runtime");
        let open = |way: Way| {
            let (weather, seen) = watch::channel(Weather::default());
            let listener = runtime.block_on(TcpListener::bind(way.advertised));
            runtime.spawn(forward(listener.expect("a free port"), way.inner, seen));
            weather
        };
        let ways_of = |zone| {
            let brokers = cluster.brokers().iter();
            brokers.map(|broker| open(broker.way(zone))).collect()
        };
        let ways = (0..zones).map(ways_of).collect();
        Self {
            ways,
            _runtime: runtime,
        }
    }

    /// Changes the weather between one zone and all brokers.
    pub fn set_zone(&self, zone: usize, weather: Weather) {
        for way in &self.ways[zone] {
            way.send_replace(weather);
        }
    }

    /// Changes the weather between all zones and one broker.
    pub fn set_broker(&self, broker: usize, weather: Weather) {
        for zone in &self.ways {
            zone[broker].send_replace(weather);
        }
    }

    /// Changes the weather everywhere.
    pub fn set_all(&self, weather: Weather) {
        for zone in 0..self.ways.len() {
            self.set_zone(zone, weather);
        }
    }
}

async fn forward(listener: TcpListener, to: SocketAddr, weather: watch::Receiver<Weather>) {
    loop {
        // A lack of descriptors passes; the client tries again.
        let Ok((client, _)) = listener.accept().await else {
            tokio::time::sleep(RETRANSMISSION).await;
            continue;
        };
        tokio::spawn(connect(client, to, weather.clone()));
    }
}

/// Ends where either side ends, as a connection without a proxy does.
async fn connect(
    client: TcpStream,
    to: SocketAddr,
    mut weather: watch::Receiver<Weather>,
) -> io::Result<()> {
    pass(&mut weather).await;
    let broker = TcpStream::connect(to).await?;
    client.set_nodelay(true)?;
    broker.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_broker, to_broker) = broker.into_split();
    tokio::select! {
        ended = carry(from_client, to_broker, weather.clone()) => ended,
        ended = carry(from_broker, to_client, weather.clone()) => ended,
    }
}

/// One direction: pieces arrive in their order, each when it is due.
async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
) -> io::Result<()> {
    let mut under_way: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let mut piece = vec![0; 16 * 1024];
    let mut ended = false;
    while !ended || !under_way.is_empty() {
        let due = under_way.front().map(|(due, _)| *due);
        tokio::select! {
            read = from.read(&mut piece), if !ended && under_way.len() < UNDER_WAY => {
                // A reset ends it as a close does.
                let length = read.unwrap_or(0);
                ended = length == 0;
                if !ended {
                    under_way.push_back((arrival(*weather.borrow()), piece[..length].to_vec()));
                }
            }
            () = arrives(due, &mut weather), if due.is_some() => {
                if let Some((_, piece)) = under_way.pop_front() {
                    to.write_all(&piece).await?;
                }
            }
        }
    }
    to.shutdown().await
}

fn arrival(weather: Weather) -> Instant {
    let mut delay = weather.delay;
    let mut timeout = RETRANSMISSION.max(2 * weather.delay);
    while fastrand::u8(..100) < weather.loss_percent {
        delay += timeout;
        timeout *= 2;
    }
    Instant::now() + delay
}

async fn arrives(due: Option<Instant>, weather: &mut watch::Receiver<Weather>) {
    if let Some(due) = due {
        sleep_until(due).await;
    }
    pass(weather).await;
}

/// Waits while nothing passes; forever once the network is gone.
async fn pass(weather: &mut watch::Receiver<Weather>) {
    if weather.wait_for(|weather| !weather.cut).await.is_err() {
        std::future::pending::<()>().await;
    }
}
