//! What fails at the moment between one part of a process and the cluster.
//!
//! All clients of the part report here, so that a failure is logged once when it
//! begins and once when it ends, is counted, and is the reason that readiness
//! and commands give. `failure` has the words, and `certainty` when a command
//! need not wait any longer.

mod certainty;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus::IntCounter;
use rdkafka::Statistics;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::sync::Notify;

use super::certificate;
use super::failure::{
    Account, Certainty, ConnectionFailure, Denial, Failure, FailureKind, Operation,
};
use super::metrics::KafkaClientMetrics;
use crate::config::Settings;
use crate::process::last_errors::LastErrors;
use crate::process::readiness::Explanation;

/// A failure that has not been reported for this long counts no more: librdkafka
/// reports a connection that goes on failing every 30 seconds.
const FORGET_AFTER: Duration = Duration::from_secs(90);

/// The failures of one part of a process. Clones share them.
#[derive(Clone)]
pub struct Failures(Arc<Inner>);

struct Inner {
    client: &'static str,
    account: Account,
    /// The value of `kafka.bootstrap_servers`.
    bootstrap_servers: String,
    /// By kind; `None` in a process without metrics.
    counters: Option<[IntCounter; FailureKind::ALL.len()]>,
    /// Whether the log says what begins and ends.
    is_logging: bool,
    ongoing: Mutex<Vec<Ongoing>>,
    /// Whether something is in `ongoing`, for callers on hot paths.
    any_ongoing: AtomicBool,
    /// Whether any broker has answered since the process started.
    has_answered: AtomicBool,
    /// `HOST:PORT` of each broker, as the brokers advertised it last.
    advertised: Mutex<BTreeSet<String>>,
    changed: Notify,
    last_errors: LastErrors,
}

/// A failure, and what it affects.
struct Ongoing {
    failure: Failure,
    /// When each was reported last.
    affected: BTreeMap<Affected, Instant>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Affected {
    /// `HOST:PORT`, one of `bootstrap.servers`.
    BootstrapServer(String),
    /// `HOST:PORT`, as a broker advertises it.
    Broker(String),
    Denied(Denial),
    /// Acquiring a token of SASL OAUTHBEARER.
    Token,
}

/// A request failed.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The reason is known, and is not an outage.
    #[error("{0}")]
    Failure(Failure),
    /// librdkafka's error.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
}

impl Failures {
    /// The failures of the clients that `metrics` are of.
    pub fn new(settings: &Settings, metrics: &KafkaClientMetrics, last_errors: LastErrors) -> Self {
        let counters = Some(metrics.errors.clone());
        Self::create(settings, metrics.client, counters, last_errors, true)
    }

    /// The failures of a command, which has no metrics.
    pub fn of_command(settings: &Settings) -> Self {
        Self::create(settings, "command", None, LastErrors::default(), true)
    }

    /// The failures of a command that says itself what it waits for.
    pub(crate) fn unlogged(settings: &Settings) -> Self {
        Self::create(settings, "command", None, LastErrors::default(), false)
    }

    fn create(
        settings: &Settings,
        client: &'static str,
        counters: Option<[IntCounter; FailureKind::ALL.len()]>,
        last_errors: LastErrors,
        is_logging: bool,
    ) -> Self {
        Self(Arc::new(Inner {
            client,
            account: Account::of(settings),
            bootstrap_servers: settings.kafka.bootstrap_servers.clone(),
            counters,
            is_logging,
            ongoing: Mutex::default(),
            any_ongoing: AtomicBool::new(false),
            has_answered: AtomicBool::new(false),
            advertised: Mutex::default(),
            changed: Notify::new(),
            last_errors,
        }))
    }

    /// Takes a line of librdkafka's log.
    pub(super) fn observe_log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if let Some(denial) = Denial::of_log(facility, message) {
            return self.denied(&denial);
        }
        // With `debug` set, the same facility also logs what is not a failure.
        if facility != "FAIL" || matches!(level, RDKafkaLogLevel::Debug) {
            return;
        }
        let Some(failed) = ConnectionFailure::parse(message) else {
            return;
        };
        if failed.is_unverified_certificate() {
            return self.examine_certificate(&failed);
        }
        let mut failure = failed.classify(&self.0.account);
        let has_answered = self.0.has_answered.load(Ordering::Relaxed);
        if failure.certainty == Certainty::Guess && has_answered {
            failure = failed.as_outage();
        }
        self.begin(Affected::broker(&failed), &failure);
    }

    /// Takes an error that librdkafka reports outside any call. `attempt` is
    /// what the client may be denied.
    pub(super) fn observe_error(&self, error: &KafkaError, reason: &str, attempt: Option<Denial>) {
        if attempt.is_some_and(|attempt| self.observe_denial(error, attempt)) {
            return;
        }
        // A connection that fails has a line in the log, which names the broker.
        let is_token = reason.starts_with("Failed to acquire SASL OAUTHBEARER token");
        if is_token && error.rdkafka_error_code() == Some(RDKafkaErrorCode::Authentication) {
            let failure =
                Failure::may_heal(FailureKind::Authentication, self.0.account.mask(reason));
            self.begin(Affected::Token, &failure);
        }
    }

    /// Takes librdkafka's statistics, which say which brokers are connected.
    pub(super) fn observe_statistics(&self, statistics: &Statistics) {
        let connected: Vec<&str> = statistics
            .brokers
            .values()
            .filter(|broker| broker.state == "UP")
            .map(|broker| broker.nodename.as_str())
            .collect();
        if !connected.is_empty() {
            self.answered();
        }
        let eos = statistics.eos.as_ref();
        let has_producer_id = eos.is_some_and(|eos| eos.idemp_state == "Assigned");
        self.end(|affected, reported| match affected {
            Affected::BootstrapServer(address) | Affected::Broker(address) => {
                connected.contains(&address.as_str()) || reported.elapsed() > FORGET_AFTER
            }
            Affected::Token => !connected.is_empty(),
            // Whoever is denied a topic finds out when that ends; all else is
            // retried, and denied again, every few seconds.
            Affected::Denied(denial) => {
                let is_over = has_producer_id && denial.operation == Operation::IdempotentWrite;
                is_over || (!denial.is_on_topic() && reported.elapsed() > FORGET_AFTER)
            }
        });
    }

    /// A broker has answered a request.
    pub(super) fn answered(&self) {
        self.0.has_answered.store(true, Ordering::Relaxed);
    }

    /// Reports an error of a call if it is a denial of `attempt`. Returns whether
    /// it is one.
    pub(super) fn observe_denial(&self, error: &KafkaError, attempt: Denial) -> bool {
        let denial = Denial::of_error(error, attempt);
        if let Some(denial) = &denial {
            self.denied(denial);
        }
        denial.is_some()
    }

    /// The cluster denied an operation.
    pub(crate) fn denied(&self, denial: &Denial) {
        let failure = denial.failure(&self.0.account);
        self.begin(Affected::Denied(denial.clone()), &failure);
    }

    /// The cluster did what was asked for.
    pub(crate) fn allowed(&self, attempt: impl FnOnce() -> Denial) {
        if self.0.any_ongoing.load(Ordering::Relaxed) {
            let attempt = attempt();
            self.end_denials(|denial| denial.ends_with_success_of(&attempt));
        }
    }

    /// The cluster did all operations of this kind that are waiting.
    pub(super) fn all_allowed(&self, operation: Operation) {
        self.end_denials(|denial| denial.operation == operation);
    }

    fn end_denials(&self, is_over: impl Fn(&Denial) -> bool) {
        self.end(|affected, _| affected.denial().is_some_and(&is_over));
    }

    /// Returns the newest failure that is a denial of this operation.
    pub(super) fn denial_of(&self, operation: Operation) -> Option<Failure> {
        let is_denied = |ongoing: &&Ongoing| {
            let mut denials = ongoing.affected.keys().filter_map(Affected::denial);
            denials.any(|denial| denial.operation == operation)
        };
        let ongoing = self.lock();
        let newest = ongoing.iter().rev().find(is_denied);
        newest.map(|ongoing| ongoing.failure.clone())
    }

    /// Returns the newest failure that is not merely an outage.
    pub(crate) fn cause(&self) -> Option<Failure> {
        let ongoing = self.lock();
        let mut newest_first = ongoing.iter().rev().map(|ongoing| &ongoing.failure);
        newest_first
            .find(|failure| failure.kind.needs_action())
            .cloned()
    }

    /// Returns [`Failures::cause`], or what the newest outage looks like.
    pub(crate) fn symptom(&self) -> Option<Failure> {
        let newest = || Some(self.lock().last()?.failure.clone());
        self.cause().or_else(newest)
    }

    /// Returns the error of a request, or the cause of it if that is known.
    pub(crate) fn explain(&self, error: KafkaError) -> RequestError {
        self.cause()
            .map_or(RequestError::Kafka(error), RequestError::Failure)
    }

    /// Returns why a command ends: everything that needs action, or `error` and
    /// what the outage looks like.
    pub(crate) fn why(&self, error: &dyn std::error::Error) -> String {
        let ongoing = self.lock();
        let (causes, symptoms): (Vec<_>, Vec<_>) = ongoing
            .iter()
            .rev()
            .partition(|ongoing| ongoing.failure.is_explained());
        let is_explained = |affected| {
            let mut causes = causes.iter();
            causes.any(|cause| cause.affected.contains_key(affected))
        };
        let unexplained = symptoms
            .iter()
            .filter(|symptom| !symptom.affected.keys().any(is_explained));
        let reasons = causes.iter().chain(unexplained);
        let reasons: Vec<_> = reasons
            .map(|ongoing| ongoing.failure.reason.as_str())
            .collect();
        let reasons = reasons.join("; ");
        if causes.is_empty() && reasons.is_empty() {
            error.to_string()
        } else if causes.is_empty() {
            format!("{reasons} ({error})")
        } else {
            reasons
        }
    }

    /// Returns a denial as the error of a request.
    pub(super) fn request_error(&self, denial: &Denial) -> RequestError {
        RequestError::Failure(denial.failure(&self.0.account))
    }

    /// OpenSSL does not say why it rejects a certificate, so this looks at it,
    /// on a thread of its own: it connects, and librdkafka waits meanwhile.
    fn examine_certificate(&self, failed: &ConnectionFailure<'_>) {
        let (affected, address) = (Affected::broker(failed), failed.address.to_owned());
        let failure = failed.classify(&self.0.account);
        let is_bootstrap = failed.is_bootstrap;
        let failures = self.clone();
        let examine = move || {
            let found = certificate::examine(&address, &failures.0.account);
            let mut failure = found.unwrap_or(failure);
            if !is_bootstrap {
                failure = failure.at_advertised(&address);
            }
            failures.begin(affected, &failure);
        };
        let started = std::thread::Builder::new()
            .name("kafka-certificate".to_owned())
            .spawn(examine);
        if let Err(error) = started {
            tracing::debug!(%error, "cannot examine the certificate of a broker");
        }
    }

    fn begin(&self, affected: Affected, failure: &Failure) {
        if let Some(counters) = &self.0.counters {
            counters[failure.kind.index()].inc();
        }
        let (client, kind) = (self.0.client, failure.kind.label());
        self.0.last_errors.record(client, kind, &failure.reason);
        let mut all = self.lock();
        let (is_new, ended) = replace(&mut all, affected, failure);
        self.0.any_ongoing.store(!all.is_empty(), Ordering::Relaxed);
        drop(all);
        self.report_ended(&ended);
        if is_new {
            self.log_begun(failure);
        }
        self.0.changed.notify_waiters();
    }

    /// Ends what `is_over` returns true for.
    fn end(&self, is_over: impl Fn(&Affected, &Instant) -> bool) {
        if !self.0.any_ongoing.load(Ordering::Relaxed) {
            return;
        }
        let mut all = self.lock();
        for ongoing in all.iter_mut() {
            ongoing
                .affected
                .retain(|affected, reported| !is_over(affected, reported));
        }
        let ended = take_ended(&mut all);
        self.0.any_ongoing.store(!all.is_empty(), Ordering::Relaxed);
        drop(all);
        self.report_ended(&ended);
    }

    /// In a process, outages are logged by those whose work they stop. A command
    /// logs what it waits for, and says at its end all else that failed.
    fn is_logged(&self, failure: &Failure) -> bool {
        if !self.0.is_logging {
            return false;
        }
        if self.0.counters.is_some() {
            return failure.kind.needs_action();
        }
        failure.kind != FailureKind::Authorization && self.certain_failure().is_none()
    }

    fn log_begun(&self, failure: &Failure) {
        if self.is_logged(failure) {
            let (client, kind) = (self.0.client, failure.kind.label());
            let reason = failure.reason.as_str();
            let message = "Kafka request or connection failed; retrying";
            tracing::warn!(client, kind, reason, "{message}");
        }
    }

    fn report_ended(&self, ended: &[Failure]) {
        for failure in ended {
            self.0.last_errors.end(self.0.client, &failure.reason);
        }
        for failure in ended.iter().filter(|failure| self.is_logged(failure)) {
            let (client, kind) = (self.0.client, failure.kind.label());
            let reason = failure.reason.as_str();
            tracing::info!(client, kind, reason, "Kafka failure is over");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Ongoing>> {
        self.0
            .ongoing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether the failure is new, and which ones it is the end of.
fn replace(all: &mut Vec<Ongoing>, affected: Affected, failure: &Failure) -> (bool, Vec<Failure>) {
    let now = Instant::now();
    // A broker fails in one way at a time. But a connection that ends because of
    // a wrong setting also looks like an outage now and then.
    if failure.kind.needs_action() {
        for other in all.iter_mut().filter(|other| other.failure != *failure) {
            other.affected.remove(&affected);
        }
    }
    let mut same = all.iter_mut().filter(|ongoing| ongoing.failure == *failure);
    let is_new = if let Some(ongoing) = same.next() {
        ongoing.affected.insert(affected, now);
        false
    } else {
        let affected = BTreeMap::from([(affected, now)]);
        let failure = failure.clone();
        all.push(Ongoing { failure, affected });
        true
    };
    (is_new, take_ended(all))
}

fn take_ended(all: &mut Vec<Ongoing>) -> Vec<Failure> {
    let ended = all.extract_if(.., |ongoing| ongoing.affected.is_empty());
    ended.map(|ongoing| ongoing.failure).collect()
}

impl Affected {
    fn broker(failed: &ConnectionFailure<'_>) -> Self {
        let address = failed.address.to_owned();
        if failed.is_bootstrap {
            Self::BootstrapServer(address)
        } else {
            Self::Broker(address)
        }
    }

    fn denial(&self) -> Option<&Denial> {
        match self {
            Self::Denied(denial) => Some(denial),
            Self::BootstrapServer(_) | Self::Broker(_) | Self::Token => None,
        }
    }
}

impl Explanation for Failures {
    fn reason(&self) -> Option<String> {
        self.cause().map(|failure| failure.reason)
    }
}

impl fmt::Debug for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failures")
            .field("client", &self.0.client)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_says_the_reason_before_the_words_of_librdkafka() {
        let error = KafkaError::MetadataFetch(RDKafkaErrorCode::BrokerTransportFailure);
        let observed = |line: &str| {
            let failures = Failures::of_command(&Settings::default());
            failures.observe_log(RDKafkaLogLevel::Error, "FAIL", line);
            failures.why(&error)
        };
        let refused = "localhost:9092/bootstrap: Connect to ipv4#127.0.0.1:9092 failed: Connection refused (after 0ms in state CONNECT)";
        let why = observed(refused);
        assert!(
            why.starts_with("cannot connect to localhost:9092: Connection refused"),
            "{why}"
        );
        assert!(why.ends_with(&format!("({error})")), "{why}");
        let http = "localhost:9092/bootstrap: Receive failed: Invalid response size 1213486160 (0..1000): increase receive.message.max.bytes (after 0ms in state APIVERSION_QUERY)";
        let why = observed(http);
        assert!(why.ends_with("check its port"), "{why}");
    }

    #[test]
    fn a_denial_ends_when_its_operation_succeeds() {
        let failures = Failures::of_command(&Settings::default());
        let on_topic = |operation| Denial::on_topic(operation, "iot.notifications");
        for operation in [Operation::Describe, Operation::Write] {
            failures.denied(&on_topic(operation));
        }
        failures.allowed(|| on_topic(Operation::Describe));
        let reason = failures.cause().map(|failure| failure.reason);
        assert!(reason.is_some_and(|reason| reason.contains("`Write`")));
        failures.denied(&on_topic(Operation::Describe));
        failures.allowed(|| on_topic(Operation::Write));
        assert_eq!(failures.cause(), None);
    }
}
