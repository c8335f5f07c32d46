//! The ingress: HTTP in, Kafka out. Wires its parts and owns the order of
//! shutdown.
//!
//! ```text
//! server ─ connection ─ handler ─┬─ paths, auth: who may push
//!                                ├─ admission, body: within the limits
//!                                ├─ notification → record: topic and key
//!                                └─ publisher ─ spool::Storage ─ Stored → 200
//! ```

mod admission;
mod answer;
mod auth;
pub(crate) mod backend;
mod body;
mod capacity;
mod certificate;
mod client_address;
mod client_names;
mod connection;
#[cfg(fuzzing)]
pub mod fuzz;
mod handler;
mod idle;
mod metrics;
mod paths;
mod protocol;
mod publisher;
mod server;
mod spans;
mod strangers;
mod tls;
mod trail;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use auth::Gate;
use backend::Backend;
use certificate::TlsFiles;
use connection::Connections;
use handler::Handler;
use metrics::{PushMetrics, ServerMetrics};
use publisher::Publisher;
use server::Server;
use spans::PushSpans;
use tls::TlsTerminator;

use crate::config::{Settings, Shutdown};
use crate::kafka::metrics::KafkaClientFamilies;
use crate::process::Exit;
use crate::process::admin::AdminServer;
use crate::process::readiness::Condition;
use crate::process::reload::{Apply, Reload};
use crate::process::signals::Signals;
use crate::process::{service_manager, vital};
use crate::telemetry::{Telemetry, Tracer};

/// How long before the shutdown deadline the pushes that still wait for Kafka
/// are answered 503.
const CANCEL_MARGIN: Duration = Duration::from_millis(1_500);

/// The settings of the ingress that its status page shows. Paths are left out: one may
/// be as hard to guess as a secret.
pub(crate) const SHOWN_SETTINGS: &[&str] = &[
    "http.listen",
    "http.answer_deadline_ms",
    "http.max_body_bytes",
    "http.unreadable",
    "tls.certificate_file",
    "tls.client_ca_file",
    "auth.token",
    "auth.basic.password",
    "auth.allowed_addresses",
    "limits.max_connections",
    "limits.max_in_flight",
    "limits.max_in_flight_bytes",
    "spool.directory",
    "spool.after_ms",
    "spool.max_bytes",
];

/// A running ingress; it stops only by [`Ingress::drain`].
pub(crate) struct Ingress {
    /// The address that receives pushes.
    pub(crate) address: SocketAddr,
    announce: Duration,
    deadline: Duration,
    accepting: Condition,
    stop: CancellationToken,
    cancel_pending: CancellationToken,
    handler: Arc<Handler>,
    publisher: Publisher,
    backend: Backend,
    server: JoinHandle<()>,
    terminator: Option<Arc<TlsTerminator>>,
}

/// `northbridge ingress`: runs until a signal, then drains.
///
/// # Errors
///
/// Returns an error if it cannot start; the message says what to do.
pub async fn run(settings: &Settings, reload: Reload) -> anyhow::Result<Exit> {
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    let admin = AdminServer::new();
    let clients = KafkaClientFamilies::register(&admin.metrics);
    let telemetry = Telemetry::start(settings, "ingress", &admin.metrics)?;
    let ingress = Ingress::start(settings, &admin, &clients, telemetry.tracer())?;
    reload.start(settings.clone(), ingress.reloader())?;
    let readiness = admin.readiness.clone();
    admin.start(settings, "ingress", SHOWN_SETTINGS).await?;
    service_manager::started(readiness);
    let signal = signals.next().await;
    signals.stop_at_next();
    let deadline = settings.shutdown.deadline_ms.duration();
    service_manager::stopping(deadline);
    tracing::info!(signal, "draining; another signal stops at once");
    let end = Instant::now() + deadline;
    let exit = ingress.drain().await;
    telemetry.stop(end).await;
    Ok(exit)
}

impl Ingress {
    /// Starts every part and reports to `admin`. Does not wait for Kafka. Pushes are
    /// traced if there is a tracer.
    ///
    /// # Errors
    ///
    /// Returns an error if a TLS file cannot be used, if the address cannot be
    /// bound, or if librdkafka rejects the settings.
    pub(crate) fn start(
        settings: &Settings,
        admin: &AdminServer,
        clients: &KafkaClientFamilies,
        tracer: Option<Tracer>,
    ) -> anyhow::Result<Self> {
        let (metrics, readiness) = (&admin.metrics, &admin.readiness);
        let accepting = readiness.condition("accepting", "starting");
        let has_spool = settings.spool.directory.is_some();
        let push_metrics = Arc::new(PushMetrics::register(metrics, has_spool));
        let server_metrics = Arc::new(ServerMetrics::register(metrics));
        let limits = &settings.limits;
        push_metrics.set_limits(limits.max_in_flight, limits.max_in_flight_bytes);
        server_metrics.set_limit(limits.max_connections);
        let answer_deadline = settings.http.answer_deadline_ms.duration();

        let backend = Backend::start(settings, admin, &clients.client("ingress"))?;
        let cancel_pending = CancellationToken::new();
        let publisher = Publisher::new(
            backend.storage.clone(),
            cancel_pending.clone(),
            answer_deadline,
        );
        let handler = Arc::new(Handler::new(
            settings,
            publisher.clone(),
            push_metrics,
            Arc::clone(&server_metrics),
            cancel_pending.clone(),
            tracer.map(|tracer| Arc::new(PushSpans::new(settings, tracer))),
        ));
        let terminator = terminator(settings, &server_metrics)?;
        let server = bind(settings, Arc::clone(&handler), terminator.clone())?;
        let address = server.address()?;
        tracing::info!(%address, tls = settings.tls.certificate_file.is_some(), "listening");
        warn_if_open(settings, address);
        capacity::compare(settings);
        accepting.set(true, "accepting pushes");

        let stop = CancellationToken::new();
        Ok(Self {
            address,
            announce: settings.shutdown.announce_ms.duration(),
            deadline: settings.shutdown.deadline_ms.duration(),
            accepting,
            server: vital::spawn("listener", server.run(stop.clone())),
            stop,
            terminator,
            cancel_pending,
            handler,
            publisher,
            backend,
        })
    }

    /// Returns what exchanges the protections of the listener for those of reloaded
    /// settings. It never removes all of them: that takes a restart.
    pub(crate) fn reloader(&self) -> Apply {
        let handler = Arc::clone(&self.handler);
        let terminator = self.terminator.clone();
        Box::new(move |settings| {
            if let Some(terminator) = &terminator {
                terminator.allow_names(&settings.tls.client_allowed_names);
            }
            let gate = Gate::new(&settings.auth);
            if !gate.is_open() || handler.gate.load().is_open() {
                handler.gate.store(Arc::new(gate));
                return Ok(());
            }
            Err("auth.* would protect the listener no more; a restart is needed for that")
        })
    }

    /// Stops in the order that loses no push: become unready → wait until load
    /// balancers notice → close the listener and finish the requests → wait for
    /// the records in flight → flush librdkafka.
    pub(crate) async fn drain(self) -> Exit {
        let began = Instant::now();
        let end = began + self.deadline;
        let cancel_at = began + self.deadline.saturating_sub(CANCEL_MARGIN);
        self.accepting.set(false, "draining");
        // Every answer now tells its client to close the connection.
        self.handler.draining.store(true, Ordering::Relaxed);
        tokio::time::sleep(self.announce).await;

        self.stop.cancel();
        // A record outlives a connection whose client is gone.
        let finished = async {
            let _ = self.server.await;
            self.publisher.settled().await;
        };
        let mut finished = std::pin::pin!(finished);
        let mut settled = finished_by(cancel_at, &mut finished).await;
        if !settled {
            tracing::warn!("shutdown deadline is near; answering waiting pushes with 503");
            self.cancel_pending.cancel();
            settled = finished_by(end, &mut finished).await;
        }
        self.handler.trail.log_left_out();
        let flushed = if let Some(deliveries) = self.backend.deliveries {
            let left = deliveries.finish(cancel_at).await;
            if left > 0 {
                tracing::warn!(
                    records = left,
                    "pushes stay in the spool; the next start delivers them"
                );
            }
            // What librdkafka still holds is in the spool.
            true
        } else {
            let producer = self.backend.producer;
            let left = end.saturating_duration_since(Instant::now());
            let flushed = tokio::task::spawn_blocking(move || producer.flush(left)).await;
            flushed.unwrap_or(false)
        };
        if settled && flushed {
            tracing::info!("drained; all accepted pushes are settled");
            Exit::Done
        } else {
            tracing::warn!("stopped before everything in flight was settled");
            Exit::Unsettled
        }
    }
}

/// Warns about a listener that others than this host can reach, and that lets
/// everybody push or has secrets sent to it in plain text.
fn warn_if_open(settings: &Settings, address: SocketAddr) {
    let (auth, tls) = (&settings.auth, &settings.tls);
    let has_secrets = auth.basic.is_set() || !auth.token.is_empty();
    let is_protected =
        has_secrets || !auth.allowed_addresses.is_empty() || tls.client_ca_file.is_some();
    if address.ip().is_loopback() {
        return;
    }
    if !is_protected {
        tracing::warn!(
            %address,
            "anybody who reaches the listener can push; set auth.token, auth.basic, auth.allowed_addresses or tls.client_ca_file"
        );
    }
    if has_secrets && tls.certificate_file.is_none() {
        tracing::warn!(
            %address,
            "secrets are sent to the listener in plain text, unless a proxy in front terminates TLS; set tls.certificate_file and tls.key_file"
        );
    }
}

/// How long idle connections stay open during a drain. They are closed a second
/// before the waiting pushes are cancelled, so that a late push can still be answered.
fn idle_grace(shutdown: &Shutdown) -> Duration {
    let end = shutdown.deadline_ms.duration();
    let before = shutdown.announce_ms.duration() + CANCEL_MARGIN + Duration::from_secs(1);
    let latest = end.saturating_sub(before);
    shutdown.idle_ms.duration().min(latest)
}

/// Returns whether `work` finished by `end`.
async fn finished_by(end: Instant, work: impl Future<Output = ()>) -> bool {
    tokio::time::timeout_at(end.into(), work).await.is_ok()
}

fn bind(
    settings: &Settings,
    handler: Arc<Handler>,
    terminator: Option<Arc<TlsTerminator>>,
) -> anyhow::Result<Server> {
    let idle_grace = idle_grace(&settings.shutdown);
    let connections = Connections::new(settings, idle_grace, handler, terminator);
    let address = settings.http.listen;
    let bound = Server::bind(address, &settings.limits, connections);
    bound.with_context(|| {
        format!(
            "cannot listen on {address}: set another address with --set http.listen=ADDRESS:PORT"
        )
    })
}

const CANNOT_SET_UP_TLS: &str = "TLS cannot be set up; check tls.certificate_file, tls.key_file, \
                                 tls.client_ca_file and tls.client_crl_file";

/// Checks whether the files that the listener needs can be used. Listens to nothing.
///
/// # Errors
///
/// Returns an error that names the file if one cannot.
pub fn check(settings: &Settings) -> anyhow::Result<()> {
    if let Some(files) = TlsFiles::configured(&settings.tls) {
        TlsTerminator::load(files, &settings.tls.client_allowed_names)
            .context(CANNOT_SET_UP_TLS)?;
    }
    Ok(())
}

/// `None` if TLS is off. Otherwise it reloads its files from now on.
fn terminator(
    settings: &Settings,
    metrics: &Arc<ServerMetrics>,
) -> anyhow::Result<Option<Arc<TlsTerminator>>> {
    let Some(files) = TlsFiles::configured(&settings.tls) else {
        return Ok(None);
    };
    let terminator = Arc::new(
        TlsTerminator::load(files, &settings.tls.client_allowed_names)
            .context(CANNOT_SET_UP_TLS)?,
    );
    let metrics = Arc::clone(metrics);
    let interval = settings.tls.reload_interval_ms.duration();
    vital::spawn(
        "reload of TLS files",
        Arc::clone(&terminator).watch(interval, metrics),
    );
    Ok(Some(terminator))
}
