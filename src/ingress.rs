//! The ingress half: HTTP in, Kafka out. Wires its parts, and owns the order
//! of shutdown.
//!
//! ```text
//! server ─ handler ─┬─ gate: who may push
//!                   ├─ admission, body: within limits
//!                   ├─ notification → record: where it goes
//!                   └─ publisher ─ kafka::Producer ─ Delivery → 200
//! ```

pub mod admission;
pub mod answer;
pub mod auth;
pub mod body;
pub mod client_address;
pub mod handler;
pub mod idle;
pub mod paths;
pub mod publisher;
pub mod server;
pub mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use admission::Admission;
use handler::{Handler, RequestIds};
use publisher::{Publisher, Stored};
use server::Server;
use tls::TlsTerminator;

use crate::config::{Auth, Settings, Shutdown};
use crate::kafka::admin::Admin;
use crate::kafka::monitor::Monitor;
use crate::kafka::{self, Producer};
use crate::metrics::{KafkaClientMetrics, ProducerMetrics, PushMetrics, ServerMetrics};
use crate::notification::Rules;
use crate::process::Exit;
use crate::process::admin::Administration;
use crate::process::health::Condition;
use crate::process::signals::Signals;

/// How long before the shutdown's deadline whatever still waits is answered.
const LAST_CALL: Duration = Duration::from_millis(1_500);

/// A running ingress.
pub struct Ingress {
    /// Where pushes are received.
    pub address: SocketAddr,
    announce: Duration,
    deadline: Duration,
    accepting: Condition,
    stop: CancellationToken,
    last_call: CancellationToken,
    handler: Arc<Handler>,
    publisher: Publisher,
    producer: Producer,
    server: JoinHandle<()>,
    _monitor: Monitor,
}

/// `northbridge ingress`: runs until a signal, then drains.
///
/// # Errors
///
/// Where it cannot start; the message says what to do.
pub async fn run(settings: &Settings) -> anyhow::Result<Exit> {
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    let administration = Administration::new();
    let ingress = Ingress::start(settings, &administration, None)?;
    administration.start(settings.admin.listen).await?;
    let signal = signals.next().await;
    signals.stop_at_next();
    tracing::info!(signal, "draining; another signal stops at once");
    Ok(ingress.drain().await)
}

impl Ingress {
    /// Starts every part, each of which reports to `administration`. Kafka
    /// need not be there.
    ///
    /// # Errors
    ///
    /// Where a file cannot be read or the address cannot be bound.
    pub fn start(
        settings: &Settings,
        administration: &Administration,
        stored: Option<Stored>,
    ) -> anyhow::Result<Self> {
        let Administration { metrics, readiness } = administration;
        let accepting = readiness.condition("accepting", "starting");
        let pushes = Arc::new(PushMetrics::register(metrics));
        let server_metrics = Arc::new(ServerMetrics::register(metrics));
        let limits = &settings.limits;
        pushes.limits(limits.max_in_flight, limits.max_in_flight_bytes);
        server_metrics.limit(limits.max_connections);
        let answer_deadline = settings.http.answer_deadline_ms.duration();

        let producer = Producer::new(
            settings,
            ProducerMetrics::register(metrics),
            KafkaClientMetrics::register(metrics, "ingress"),
        )
        .context(kafka::NOT_TAKEN)?;
        let admin = Admin::new(settings).context(kafka::NOT_TAKEN)?;
        let monitor = Monitor::start(producer.clone(), admin, readiness, answer_deadline)
            .context("the thread that watches Kafka cannot be started")?;

        let last_call = CancellationToken::new();
        let publisher =
            Publisher::new(producer.clone(), last_call.clone(), answer_deadline, stored);
        let handler = Arc::new(Handler {
            paths: paths::Paths::new(&settings.http.paths).context("http.paths")?,
            gate: gate(&settings.auth)?,
            addresses: addresses(&settings.auth),
            admission: Admission::new(&settings.limits, Arc::clone(&pushes)),
            publisher: publisher.clone(),
            rules: Rules {
                command_key: settings.topics.command_status.key,
                validation: settings.http.validation,
            },
            unreadable: settings.http.unreadable,
            max_body_bytes: settings.http.max_body_bytes,
            body_timeout: settings.http.body_timeout_ms.duration(),
            pushes,
            server: Arc::clone(&server_metrics),
            leaving: AtomicBool::new(false),
            last_call: last_call.clone(),
            request_ids: RequestIds::new(),
        });
        let terminator = terminator(settings, &server_metrics)?;
        let server = Server::bind(
            &settings.http,
            &settings.tls,
            &settings.limits,
            idle_grace(&settings.shutdown),
            Arc::clone(&handler),
            terminator,
        )
        .with_context(|| {
            let address = settings.http.listen;
            format!("cannot listen on {address}: set another address with --set http.listen=ADDRESS:PORT")
        })?;
        let address = server.address()?;
        tracing::info!(%address, tls = settings.tls.certificate_file.is_some(), "listening");
        accepting.set(true, "accepting pushes");

        let stop = CancellationToken::new();
        Ok(Self {
            address,
            announce: settings.shutdown.announce_ms.duration(),
            deadline: settings.shutdown.deadline_ms.duration(),
            accepting,
            server: tokio::spawn(server.run(stop.clone())),
            stop,
            last_call,
            handler,
            publisher,
            producer,
            _monitor: monitor,
        })
    }

    /// Ends it in the order that loses nothing: not ready → load balancers
    /// notice → no new connections, requests are finished → publish tasks end
    /// → librdkafka is flushed.
    pub async fn drain(self) -> Exit {
        let began = Instant::now();
        let end = began + self.deadline;
        let last_call = began + self.deadline.saturating_sub(LAST_CALL);
        self.accepting.set(false, "draining");
        server::announce(&self.handler);
        tokio::time::sleep(self.announce).await;

        self.stop.cancel();
        let finished = async {
            let _ = self.server.await;
            self.publisher.settled().await;
        };
        let mut finished = std::pin::pin!(finished);
        let mut settled = by(last_call, &mut finished).await;
        if !settled {
            tracing::warn!("the shutdown deadline is near; what still waits is answered 503");
            self.last_call.cancel();
            settled = by(end, &mut finished).await;
        }
        let producer = self.producer;
        let left = end.saturating_duration_since(Instant::now());
        let flushed = tokio::task::spawn_blocking(move || producer.flush(left)).await;
        if settled && flushed.unwrap_or(false) {
            tracing::info!("drained; everything accepted is settled");
            Exit::Done
        } else {
            tracing::warn!("stopped before everything in flight was settled");
            Exit::Unsettled
        }
    }
}

impl std::fmt::Debug for Ingress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ingress")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// How long idle connections are left open; not until the last call, so that
/// what comes at the last moment can still be answered.
fn idle_grace(shutdown: &Shutdown) -> Duration {
    let end = shutdown.deadline_ms.duration();
    let before = shutdown.announce_ms.duration() + LAST_CALL + Duration::from_secs(1);
    let latest = end.saturating_sub(before);
    shutdown.idle_ms.duration().min(latest)
}

async fn by(end: Instant, work: impl Future<Output = ()>) -> bool {
    tokio::time::timeout_at(end.into(), work).await.is_ok()
}

fn gate(auth: &Auth) -> anyhow::Result<auth::Gate> {
    let exposed = |secrets: &[crate::config::Secret]| -> Vec<String> {
        secrets
            .iter()
            .map(|secret| secret.expose().to_owned())
            .collect()
    };
    let (usernames, passwords) = (exposed(&auth.basic.username), exposed(&auth.basic.password));
    let basic = if usernames.is_empty() && passwords.is_empty() {
        None
    } else {
        Some(auth::Secrets::basic(&usernames, &passwords).context("auth.basic")?)
    };
    let token = if auth.token.is_empty() {
        None
    } else {
        Some(auth::Secrets::tokens(&exposed(&auth.token)).context("auth.token")?)
    };
    let allowed_addresses = (!auth.allowed_addresses.is_empty())
        .then(|| client_address::Networks::new(auth.allowed_addresses.clone()));
    Ok(auth::Gate {
        allowed_addresses,
        basic,
        token,
    })
}

fn addresses(auth: &Auth) -> client_address::ClientAddresses {
    let trusted = client_address::Networks::new(auth.trusted_proxies.clone());
    client_address::ClientAddresses::new(auth.client_address, trusted)
}

fn terminator(
    settings: &Settings,
    metrics: &Arc<ServerMetrics>,
) -> anyhow::Result<Option<Arc<TlsTerminator>>> {
    let (Some(certificate), Some(key)) = (&settings.tls.certificate_file, &settings.tls.key_file)
    else {
        return Ok(None);
    };
    let files = tls::TlsFiles {
        certificate: certificate.clone(),
        key: key.clone(),
        client_ca: settings.tls.client_ca_file.clone(),
    };
    let terminator = Arc::new(TlsTerminator::load(files).context("TLS cannot be set up")?);
    let metrics = Arc::clone(metrics);
    let interval = settings.tls.reload_interval_ms.duration();
    tokio::spawn(Arc::clone(&terminator).watch(interval, metrics));
    Ok(Some(terminator))
}
