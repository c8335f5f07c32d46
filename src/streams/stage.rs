//! Builds one stage: its clients, its thread, and the task that watches the
//! thread.
//!
//! A stage waits until its topics exist and meet their requirements, then runs
//! its [`Worker`]. It knows nothing of the other stages of its process.

mod restarts;
mod topics;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::Context;
use rdkafka::error::KafkaError;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::ids;
use super::metrics::StreamMetrics;
use super::stop::Stop;
use super::stream::Stream;
use super::worker::{BatchSize, BatchSpans, StreamError, Worker, WorkerConfig};
use crate::config::Settings;
use crate::kafka;
use crate::kafka::consumer::GroupConsumer;
use crate::kafka::failures::Failures;
use crate::kafka::log_reader::LogReaderConfig;
use crate::kafka::metrics::{KafkaClientFamilies, KafkaClientMetrics};
use crate::kafka::transactions::{Transactions, WATCHDOG_INTERVAL, Watchdog};
use crate::process::Exit;
use crate::process::admin::AdminServer;
use crate::process::readiness::Condition;
use crate::process::vital;
use crate::telemetry::Tracer;
use crate::topics::{Topic, TopicSpec, specs};
use restarts::{Next, Restarts};
use topics::StageTopics;

/// What the stages of a process share.
pub(super) struct StageContext<'a> {
    pub(super) settings: &'a Settings,
    pub(super) admin: &'a AdminServer,
    pub(super) clients: &'a KafkaClientFamilies,
    /// `None` if nothing is traced.
    pub(super) tracer: Option<Tracer>,
    /// The deadline of the process, set when the stages are to stop.
    pub(super) stop: Arc<OnceLock<Instant>>,
    /// Receives the exit code of each stage when it ends.
    pub(super) exits: mpsc::UnboundedSender<Exit>,
}

/// One stage, with all it needs to start its worker, and to start it again after
/// an error, or after one of its topics was made again.
struct Stage {
    settings: Settings,
    group: String,
    transactional_id: String,
    config: WorkerConfig,
    metrics: StreamMetrics,
    batch_size: BatchSize,
    client_metrics: KafkaClientMetrics,
    failures: Failures,
    restored: Condition,
    topics: Arc<StageTopics>,
    runtime: Handle,
    stop: Arc<Stop>,
    exits: mpsc::UnboundedSender<Exit>,
}

/// The clients of one worker, and the settings that they have.
struct Clients {
    settings: Settings,
    consumer: GroupConsumer,
    transactions: Transactions,
}

/// Why a stage has to start again.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("cannot create a Kafka client: {0}")]
    WithoutClients(#[source] KafkaError),
    #[error(transparent)]
    Failed(StreamError),
}

impl Ended {
    fn is_fenced(&self) -> bool {
        matches!(self, Self::Failed(error) if error.is_fenced())
    }
}

/// Starts a stage on a thread of its own. Kafka need not be reachable.
///
/// # Errors
///
/// Returns an error if librdkafka rejects an option, or if the thread cannot be
/// started.
pub(super) fn start<S: Stream>(
    context: &StageContext<'_>,
    metrics: StreamMetrics,
    max_entries: usize,
) -> anyhow::Result<()> {
    let settings = context.settings;
    let specs = specs(settings);
    let readiness = &context.admin.readiness;
    let client_metrics = context.clients.client(S::NAME);
    let failures = Failures::new(settings, &client_metrics, context.admin.last_errors.clone());
    let stage = Stage {
        group: ids::group(settings, S::NAME),
        transactional_id: ids::transactional_id(settings, S::NAME),
        config: worker_config::<S>(settings, &specs, max_entries, context.tracer.clone()),
        metrics,
        batch_size: BatchSize::new(settings.streams.max_batch_records),
        client_metrics,
        restored: readiness
            .condition(S::NAME, "no partitions assigned yet")
            .explained_by(failures.clone()),
        topics: Arc::new(StageTopics::of::<S>(context, &specs, &failures)?),
        failures,
        runtime: Handle::current(),
        stop: Arc::new(Stop::new(Arc::clone(&context.stop))),
        exits: context.exits.clone(),
        settings: settings.clone(),
    };
    let clients = stage
        .connect(stage.settings.clone())
        .context(kafka::CANNOT_CREATE_CLIENT)?;
    let run = move || {
        let exits = stage.exits.clone();
        let exit = stage.run::<S>(clients);
        // Nobody receives it if the process is ending already.
        let _ = exits.send(exit);
    };
    vital::start_thread(S::NAME, run)
        .with_context(|| format!("cannot start the thread of the stream {}", S::NAME))?;
    Ok(())
}

impl Stage {
    fn run<S: Stream>(mut self, clients: Clients) -> Exit {
        if !self.topics.await_ready(&self.stop) {
            self.leave::<S>(clients.consumer);
            return Exit::Done;
        }
        let (topics, stop) = (Arc::clone(&self.topics), Arc::clone(&self.stop));
        if let Err(error) = vital::start_thread("topic-watch", move || topics.watch(&stop)) {
            tracing::error!(stream = S::NAME, %error, "cannot start a thread; stream stopped");
            return Exit::Unsettled;
        }
        let mut restarts = Restarts::starting_at(Instant::now());
        let mut clients = Ok(clients);
        loop {
            let ended = clients
                .map_err(Ended::WithoutClients)
                .and_then(|clients| self.run_worker::<S>(clients).map_err(Ended::Failed));
            // The error of a worker may be due to the topic that was made again.
            if self.stop.takes_new_start() {
                self.restored.set(false, "starting again");
            } else if let Err(error) = ended {
                if let Some(exit) = self.after_error::<S>(&error, &mut restarts) {
                    return exit;
                }
            } else {
                return Exit::Done;
            }
            if !self.topics.await_ready(&self.stop) {
                return Exit::Done;
            }
            let mut settings = self.settings.clone();
            if let Some(servers) = self.topics.current_servers() {
                settings.kafka.bootstrap_servers = servers;
            }
            clients = self.connect(settings);
        }
    }

    /// Waits before the stage starts again after an error. Returns the exit code
    /// if it does not.
    fn after_error<S: Stream>(&self, error: &Ended, restarts: &mut Restarts) -> Option<Exit> {
        if self.stop.is_process_stopping() {
            tracing::error!(stream = S::NAME, %error, "stream stopped with an open transaction");
            return Some(Exit::Unsettled);
        }
        match restarts.after(error.is_fenced(), Instant::now()) {
            Next::Start(pause) => {
                self.restored
                    .set(false, &format!("starting again: {error}"));
                tracing::warn!(
                    stream = S::NAME,
                    %error,
                    "stream starts again, from its committed offsets and the states in its topic"
                );
                self.stop.wait(pause);
                None
            }
            Next::YieldName => {
                tracing::error!(
                    stream = S::NAME,
                    %error,
                    instance = ids::instance_name(&self.settings),
                    "another instance has the same name and fences this one; stream stopped: set streams.instance to a name of its own for each instance"
                );
                Some(Exit::Unsettled)
            }
        }
    }

    fn connect(&self, settings: Settings) -> Result<Clients, KafkaError> {
        let input = &self.config.input_topic;
        let metrics = self.client_metrics.clone();
        let (group, failures) = (&self.group, self.failures.clone());
        let topics = Arc::clone(&self.topics);
        let current_servers = Box::new(move || topics.current_servers());
        Ok(Clients {
            consumer: GroupConsumer::join(&settings, group, input, metrics, failures.clone())?,
            transactions: Transactions::new(
                &settings,
                &self.transactional_id,
                failures,
                current_servers,
            )?,
            settings,
        })
    }

    fn run_worker<S: Stream>(&mut self, clients: Clients) -> Result<(), StreamError> {
        let Clients {
            settings,
            consumer,
            transactions,
        } = clients;
        let watchdog = transactions.watchdog();
        self.runtime
            .spawn(watch(S::NAME, watchdog, self.exits.clone()));
        let worker = Worker::<S>::new(
            &consumer,
            transactions,
            LogReaderConfig::new(&settings, &self.failures),
            &self.config,
            &mut self.metrics,
            &mut self.batch_size,
            self.restored.clone(),
        );
        let ended = worker.run(&self.stop);
        self.leave::<S>(consumer);
        ended
    }

    fn leave<S: Stream>(&self, consumer: GroupConsumer) {
        if !consumer.close(self.stop.leave_timeout()) {
            tracing::warn!(
                stream = S::NAME,
                "group did not answer in time; without streams.instance, the partitions wait for streams.session_timeout_ms"
            );
        }
    }
}

fn worker_config<S: Stream>(
    settings: &Settings,
    specs: &[TopicSpec],
    max_entries: usize,
    tracer: Option<Tracer>,
) -> WorkerConfig {
    let name = |topic: Topic| specs[topic.index()].name.clone();
    let state = &specs[S::STATE.index()];
    WorkerConfig {
        input_topic: name(S::INPUT),
        state_topic: name(S::STATE),
        forward_topic: S::FORWARD.map(name),
        dead_letter_topic: name(Topic::DeadLetter),
        max_batch_bytes: settings.streams.max_batch_bytes,
        max_batch_wait: settings.streams.max_batch_wait_ms.duration(),
        retention: state
            .retention_hours
            .map(|hours| Duration::from_secs(hours * 3_600)),
        max_entries,
        overdue_after: Duration::from_secs(settings.streams.command_status.overdue_after_s),
        max_state_record_bytes: state.max_message_bytes,
        max_dead_letter_bytes: specs[Topic::DeadLetter.index()].max_message_bytes,
        spans: tracer.map(|tracer| BatchSpans {
            tracer,
            group: ids::group(settings, S::NAME),
            topic: name(S::INPUT),
        }),
    }
}

/// Ends the stage if its thread is stuck in a transactional call.
async fn watch(stream: &'static str, mut watchdog: Watchdog, exits: mpsc::UnboundedSender<Exit>) {
    while !watchdog.is_finished() {
        if watchdog.finds_stuck_call() {
            tracing::error!(
                stream,
                "transactional call does not return; stream stopped, a restart resumes from the committed offsets"
            );
            // Nobody receives it if the process is ending already.
            let _ = exits.send(Exit::Unsettled);
            return;
        }
        tokio::time::sleep(WATCHDOG_INTERVAL).await;
    }
}
