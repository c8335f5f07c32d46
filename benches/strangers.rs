//! What strangers cost and what they can delay: the memory of an idle connection, and
//! how long pushes on new connections take while 10,000 connections of strangers come
//! and stay for as long as they may.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark whose surroundings fail can only panic"
)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use support::bodies::message_confirm;
use support::certificates::Certificates;
use support::http::{Connection, Version};
use support::mock::Mock;
use support::northbridge::Northbridge;
use usage::{memory_mb, percentile};

#[path = "../tests/support/mod.rs"]
mod support;
#[path = "support/usage.rs"]
mod usage;

const PATH: &str = "/notifications?token=s3cret";
const TOKEN: (&str, &str) = ("auth.token", "s3cret");
/// The connections whose memory is measured.
const IDLE: usize = 4_000;
/// Connections that are opened at the same time.
const AT_ONCE: usize = 100;
/// The strangers of each kind; `limits.max_connections` is 10,000.
const IDLE_STRANGERS: usize = 3_000;
const HALF_HEADS: usize = 3_000;
const OPEN_STREAMS: usize = 3_000;
const UNAUTHORIZED: usize = 500;
const FORBIDDEN: usize = 500;
/// Where the platform and all strangers but the forbidden ones come from.
const ALLOWED: Ipv4Addr = Ipv4Addr::LOCALHOST;
const NOT_ALLOWED: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// How long strangers and pushes come.
const DURATION: Duration = Duration::from_secs(60);
const BETWEEN_PUSHES: Duration = Duration::from_millis(50);
/// How long the platform waits for an answer.
const SENDER_TIMEOUT: Duration = Duration::from_secs(15);
/// How soon a stranger comes back after it was closed.
const BACK_AFTER: Duration = Duration::from_millis(500);

#[tokio::main]
async fn main() {
    rlimit::increase_nofile_limit(u64::MAX).expect("a limit of open files");
    println!("memory of an idle connection, of {IDLE}:");
    for is_encrypted in [false, true] {
        idle_connections(is_encrypted).await;
    }
    strangers().await;
}

/// A connection that has brought a push and is kept, and one that has brought nothing.
async fn idle_connections(is_encrypted: bool) {
    let certificates = Certificates::new();
    let files = [certificates.certificate_file(), certificates.key_file()]
        .map(|file| file.display().to_string());
    let mut settings = vec![
        TOKEN,
        ("limits.first_push_timeout_ms", "600000"),
        ("http.header_timeout_ms", "600000"),
        ("http.keep_alive_timeout_ms", "600000"),
    ];
    if is_encrypted {
        settings.push(("tls.certificate_file", &files[0]));
        settings.push(("tls.key_file", &files[1]));
    }
    let tls = is_encrypted.then(|| TlsConnector::from(Arc::new(certificates.client())));
    for pushes in [false, true] {
        let mock = Mock::start();
        let ingress = mock.ready_ingress(&settings);
        // Warms up what is made once.
        drop(connections(&ingress, tls.as_ref(), pushes, AT_ONCE).await);
        let before = memory(&ingress, "VmRSS");
        let kept = connections(&ingress, tls.as_ref(), pushes, IDLE).await;
        let each =
            (memory(&ingress, "VmRSS") - before) * 1e6 / f64::from(u32::try_from(IDLE).unwrap());
        let layers = if is_encrypted { "TLS" } else { "plain" };
        let state = if pushes {
            "after a push"
        } else {
            "without a push"
        };
        println!("{layers:6} {state:15} {each:8.0} bytes");
        drop(kept);
    }
}

/// Open connections: of strangers, or each after one push.
async fn connections(
    ingress: &Northbridge,
    tls: Option<&TlsConnector>,
    pushes: bool,
    count: usize,
) -> Vec<Kept> {
    let address = ingress.address();
    let mut kept = Vec::new();
    while kept.len() < count {
        let opened: JoinSet<Kept> = (0..AT_ONCE)
            .map(|number| open(address, tls.cloned(), pushes, kept.len() + number))
            .collect();
        kept.extend(opened.join_all().await);
    }
    kept
}

#[expect(dead_code, reason = "what it holds is open for as long as it lives")]
enum Kept {
    Silent(TcpStream),
    SilentTls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
    Pushed(Connection),
}

async fn open(address: SocketAddr, tls: Option<TlsConnector>, pushes: bool, number: usize) -> Kept {
    let stream = TcpStream::connect(address).await.unwrap();
    let mut connection = match tls {
        None if !pushes => return Kept::Silent(stream),
        None => Connection::over(stream, Version::Http1).await.unwrap(),
        Some(tls) => {
            let name = ServerName::from(IpAddr::from(ALLOWED));
            let stream = tls.connect(name, stream).await.unwrap();
            if !pushes {
                return Kept::SilentTls(Box::new(stream));
            }
            Connection::over(stream, Version::Http1).await.unwrap()
        }
    };
    let body = message_confirm(&format!("r-{number}"), "d", "sent");
    let answer = connection.post(PATH, body).await.unwrap();
    assert_eq!(answer.status, 200);
    Kept::Pushed(connection)
}

async fn strangers() {
    let mock = Mock::start();
    let allowed = ALLOWED.to_string();
    let ingress = mock.ready_ingress(&[TOKEN, ("auth.allowed_addresses", &allowed)]);
    let address = ingress.address();
    let idle = memory(&ingress, "VmRSS");
    let unauthorized = "POST /notifications HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}";
    // The preface, empty SETTINGS, and HEADERS that promise more (RFC 9113, 6.2).
    let open_stream =
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\0\0\0\0\x01\x83";
    let kinds: [(Ipv4Addr, &'static [u8], usize); 5] = [
        (ALLOWED, b"", IDLE_STRANGERS),
        (
            ALLOWED,
            b"POST /notifications HTTP/1.1\r\nx-half: ",
            HALF_HEADS,
        ),
        (ALLOWED, open_stream, OPEN_STREAMS),
        (ALLOWED, unauthorized.as_bytes(), UNAUTHORIZED),
        (NOT_ALLOWED, b"", FORBIDDEN),
    ];
    let mut crowd = JoinSet::new();
    for (source, start, count) in kinds {
        for _ in 0..count {
            crowd.spawn(come_back_for_ever(source, address, start));
        }
    }
    let (mut times, began) = (Vec::new(), Instant::now());
    let mut pushes = JoinSet::new();
    for number in 0.. {
        if began.elapsed() >= DURATION {
            break;
        }
        pushes.spawn(push(address, number));
        sleep(BETWEEN_PUSHES).await;
    }
    while let Some(pushed) = pushes.join_next().await {
        times.push(pushed.unwrap());
    }
    let opened = ingress.metric("northbridge_connections", &[]);
    crowd.shutdown().await;
    times.sort_unstable();
    let [p50, p99, most] =
        [50, 99, 100].map(|percent| percentile(&times, percent).as_secs_f64() * 1e3);
    println!(
        "strangers: {opened} connections open at the end, {:?}",
        kinds.map(|(.., count)| count)
    );
    println!(
        "{} pushes, each on a new connection, all answered 200: p50 {p50:.1} ms, p99 {p99:.1} ms, longest {most:.1} ms",
        times.len()
    );
    println!(
        "memory: {idle:.0} MB before, at most {:.0} MB",
        memory(&ingress, "VmHWM")
    );
    for (series, count) in ingress.metrics() {
        if series.starts_with("northbridge_connections_closed_total") && count > 0.0 {
            println!("{series} {count}");
        }
    }
}

async fn come_back_for_ever(source: Ipv4Addr, address: SocketAddr, start: &'static [u8]) {
    loop {
        // Neither a full backlog nor a closed connection keeps it away.
        let _ = stay(source, address, start).await;
        sleep(BACK_AFTER).await;
    }
}

/// Sends what it has, and stays until it is closed.
async fn stay(source: Ipv4Addr, address: SocketAddr, start: &[u8]) -> std::io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    if source != ALLOWED {
        socket.bind(SocketAddr::from((source, 0)))?;
    }
    let mut stream = socket.connect(address).await?;
    stream.write_all(start).await?;
    let mut read = [0; 512];
    while stream.read(&mut read).await? > 0 {}
    Ok(())
}

/// How long a push took, from the beginning of its connection.
async fn push(address: SocketAddr, number: u32) -> Duration {
    let began = Instant::now();
    let body = message_confirm(&format!("r-{number}"), "d", "sent");
    let answer = timeout(SENDER_TIMEOUT, async {
        let mut connection = Connection::open(address, Version::Http1).await.unwrap();
        connection.post(PATH, body).await.unwrap()
    });
    assert_eq!(answer.await.expect("an answer in time").status, 200);
    began.elapsed()
}

fn memory(ingress: &Northbridge, line: &str) -> f64 {
    memory_mb(&ingress.pid().to_string(), line)
}
