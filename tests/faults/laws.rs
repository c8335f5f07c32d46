//! The laws of the fault run: each function checks one and records violations.

use std::time::Duration;

use crate::fleet::Instance;
use crate::journal::Journal;
use crate::recovery::{RESOLUTION, Recovery};
use crate::simulation::SimulationResult;
use crate::support::eventually;

/// The default of `http.answer_deadline_ms`.
const ANSWER_DEADLINE_MS: f64 = 13_000.0;
/// Tolerance beyond the deadline, as measured by the sender.
const TOLERANCE_MS: f64 = 250.0;
/// Consecutive failures after which the platform blacklists a host.
const FAILURES_TO_BLACKLIST: f64 = 10.0;
/// How long after the cluster the product may recover.
const MAX_RECOVERY_DELAY: Duration = Duration::from_secs(2);

/// How long an ingress that was killed takes to start again and to find its partitions.
const MAX_DELIVERY: Duration = Duration::from_secs(30);
/// How fast a spool is delivered at least, beside live pushes.
const MIN_DELIVERED_PER_S: f64 = 1_000.0;

/// Every push answered 200 is in its topic, byte for byte, under its key. If the
/// load verifies states, they equal the model.
pub(crate) fn acknowledged_pushes_are_stored(
    journal: &Journal,
    phase: &str,
    result: &SimulationResult,
) {
    if !result.is_verified() {
        journal.violation(format!(
            "{phase}: not verified: {result}\n{:#}",
            result.summary
        ));
    }
}

/// Every answer is 200, so nothing is blacklisted.
pub(crate) fn all_answers_are_200(journal: &Journal, phase: &str, results: &[SimulationResult]) {
    for result in results {
        let others = result.other_than_200();
        if !others.is_empty() || result.number("blacklistings") > 0.0 {
            journal.violation(format!("{phase}: answers other than 200: {result}"));
        }
    }
}

/// Every answer is 200; only connections to processes that were killed end without one,
/// and never so many in a row that the platform blacklists the host.
pub(crate) fn only_connections_of_the_killed_fail(
    journal: &Journal,
    phase: &str,
    results: &[SimulationResult],
) {
    for result in results {
        let others = result.other_than_200();
        let is_cut_off = others.iter().all(|(answer, _)| answer == "no-connection");
        if !is_cut_off || result.number("blacklistings") > 0.0 {
            journal.violation(format!("{phase}: answers other than 200: {result}"));
        }
    }
}

/// How long so many pushes may take from the spools to Kafka.
pub(crate) fn longest_delivery(spooled: f64) -> Duration {
    MAX_DELIVERY + Duration::from_secs_f64(spooled / MIN_DELIVERED_PER_S)
}

/// Everything that was spooled is in Kafka soon after the cluster was in sync.
pub(crate) fn spool_is_delivered(journal: &Journal, phase: &str, spooled: f64, took: Duration) {
    journal.annotate(&format!(
        "{phase}: {spooled} pushes were spooled when the brokers came back, and delivered {:.1} s \
         after the cluster was in sync",
        took.as_secs_f64()
    ));
    if spooled < 1.0 || took > longest_delivery(spooled) + journal.stalls.allowance() {
        journal.violation(format!(
            "{phase}: {spooled} spooled, delivered after {took:?}"
        ));
    }
}

/// What was answered 200 one after the other is stored in this order. Repeats do not
/// count.
pub(crate) fn order_is_kept(
    journal: &Journal,
    phase: &str,
    acknowledged: &[String],
    stored: &[String],
) {
    journal.print(&format!("{phase}: {} pushes in order", acknowledged.len()));
    if acknowledged.is_empty() || acknowledged != stored {
        let differ = acknowledged.iter().zip(stored).position(|(a, s)| a != s);
        journal.violation(format!(
            "{phase}: {} pushes were answered in order, {} are stored; the first that differs: {differ:?}",
            acknowledged.len(),
            stored.len(),
        ));
    }
}

/// No answer arrives after its deadline, stalls of the machine allowed. A broken
/// connection and a timeout at the sender are not answers.
pub(crate) fn answers_are_in_time(journal: &Journal, phase: &str, results: &[SimulationResult]) {
    let allowance_ms = journal.stalls.allowance().as_secs_f64() * 1_000.0;
    for result in results {
        if result.number("longestAnswerMs") > ANSWER_DEADLINE_MS + TOLERANCE_MS + allowance_ms {
            journal.violation(format!("{phase}: answer after its deadline: {result}"));
        }
    }
}

/// With the `discard` policy an outage loses at most the ten failures that cause
/// the blacklisting and the pushes in flight at that time, which were all due
/// within one deadline.
pub(crate) fn discard_loss_is_bounded(journal: &Journal, phase: &str, result: &SimulationResult) {
    let in_flight = f64::from(result.load.rate) * (ANSWER_DEADLINE_MS + TOLERANCE_MS) / 1_000.0;
    let lost = result.number("lostByPolicy");
    if result.number("blacklistings") > 1.0 || lost > FAILURES_TO_BLACKLIST + in_flight {
        journal.violation(format!("{phase}: lost more than was in flight: {result}"));
    }
}

/// The product recovers within [`MAX_RECOVERY_DELAY`] of the cluster, the resolution
/// of the measurement and stalls of the machine allowed.
pub(crate) fn recovery_is_prompt(journal: &Journal, phase: &str, recovery: &Recovery) {
    journal.annotate(&format!("{phase}: {recovery}"));
    let most = MAX_RECOVERY_DELAY + RESOLUTION + journal.stalls.allowance();
    if recovery.first_delay() > most || recovery.complete_delay() > most {
        journal.violation(format!("{phase}: recovered late: {recovery}"));
    }
}

/// Once nothing is in flight, every received push has been counted under an
/// outcome.
pub(crate) fn received_equals_settled(journal: &Journal, ingress: &Instance) {
    eventually("nothing is in flight", || {
        let in_flight = ingress.metric("northbridge_pushes_in_flight", &[]);
        (in_flight < 0.5).then_some(())
    });
    let received = ingress.metric("northbridge_pushes_received_total", &[]);
    let settled = ingress.metric("northbridge_pushes_total", &[]);
    let text = format!("{} received {received}, settled {settled}", ingress.name);
    journal.print(&text);
    if (received - settled).abs() > 0.5 {
        journal.violation(format!("received and settled pushes differ: {text}"));
    }
}

/// Without faults, the senders' counts and the product's are equal.
pub(crate) fn counts_match(
    journal: &Journal,
    before: (f64, f64),
    after: (f64, f64),
    results: &[SimulationResult],
) {
    let sum = |path: &str| -> f64 { results.iter().map(|result| result.number(path)).sum() };
    let (received, stored) = (after.0 - before.0, after.1 - before.1);
    let text = format!(
        "received {received} of {} pushes, stored {stored} of {} answered 200",
        sum("pushes"),
        sum("answers.200"),
    );
    journal.print(&text);
    if (received - sum("pushes")).abs() > 0.5 || (stored - sum("answers.200")).abs() > 0.5 {
        journal.violation(format!("sender and receiver disagree: {text}"));
    }
}

/// Each law detects its violations, and only those.
mod tests {
    use std::time::Instant;

    use serde_json::{Value, json};
    use tempfile::TempDir;

    use super::*;
    use crate::simulation::Load;

    struct Fixture {
        journal: Journal,
        _directory: TempDir,
    }

    impl Fixture {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            Self {
                journal: Journal::silent(&directory.path().join("run")),
                _directory: directory,
            }
        }

        fn problems(&self) -> usize {
            self.journal.violations().len()
        }
    }

    fn result(change: impl FnOnce(&mut Value)) -> SimulationResult {
        let mut summary = json!({
            "pushes": 100, "answers": {"200": 100}, "longestAnswerMs": 13_100.0,
            "blacklistings": 0, "lostByPolicy": 0,
            "verification": {"holds": true, "missing": 0, "doubled": 0},
        });
        change(&mut summary);
        let load = Load {
            name: "load",
            rate: 100,
            policy: "discard",
            http2: false,
            state: false,
        };
        SimulationResult {
            load,
            summary,
            code: 0,
        }
    }

    #[test]
    fn a_run_without_violations_passes_every_check() {
        let fixture = Fixture::new();
        let results = [result(|_| {})];
        acknowledged_pushes_are_stored(&fixture.journal, "test", &results[0]);
        all_answers_are_200(&fixture.journal, "test", &results);
        answers_are_in_time(&fixture.journal, "test", &results);
        discard_loss_is_bounded(&fixture.journal, "test", &results[0]);
        counts_match(&fixture.journal, (7.0, 3.0), (107.0, 103.0), &results);
        assert_eq!(fixture.journal.violations(), Vec::<String>::new());
    }

    #[test]
    fn a_failed_or_missing_verification_is_a_violation() {
        let fixture = Fixture::new();
        let broken = result(|summary| summary["verification"]["holds"] = json!(false));
        acknowledged_pushes_are_stored(&fixture.journal, "test", &broken);
        assert_eq!(fixture.problems(), 1);
        let ended = SimulationResult {
            code: 1,
            ..result(|_| {})
        };
        acknowledged_pushes_are_stored(&fixture.journal, "test", &ended);
        assert_eq!(fixture.problems(), 2);
        let mut unverified = result(|_| {});
        unverified.load.state = true;
        acknowledged_pushes_are_stored(&fixture.journal, "test", &unverified);
        assert_eq!(fixture.problems(), 3, "no states were compared");
    }

    #[test]
    fn a_single_answer_other_than_200_is_a_violation() {
        for other in ["503", "timeout", "no-connection"] {
            let fixture = Fixture::new();
            let broken = result(|summary| summary["answers"][other] = json!(1));
            all_answers_are_200(&fixture.journal, "test", &[result(|_| {}), broken]);
            assert_eq!(fixture.problems(), 1, "{other}");
        }
    }

    #[test]
    fn an_answer_other_than_200_is_one_also_where_connections_are_cut_off() {
        let changed = |answer: &str| {
            let fixture = Fixture::new();
            let other = result(|summary| summary["answers"][answer] = json!(3));
            only_connections_of_the_killed_fail(&fixture.journal, "test", &[other]);
            fixture.problems()
        };
        assert_eq!(changed("no-connection"), 0);
        assert_eq!(changed("503"), 1);
        assert_eq!(changed("timeout"), 1);
        let fixture = Fixture::new();
        let blacklisted = result(|summary| summary["blacklistings"] = json!(1));
        only_connections_of_the_killed_fail(&fixture.journal, "test", &[blacklisted]);
        assert_eq!(fixture.problems(), 1);
    }

    #[test]
    fn a_spool_that_is_delivered_late_or_was_not_used_is_a_violation() {
        let fixture = Fixture::new();
        let delivered = |spooled, seconds| {
            let took = Duration::from_secs(seconds);
            spool_is_delivered(&fixture.journal, "test", spooled, took);
            fixture.problems()
        };
        assert_eq!(delivered(20_000.0, 50), 0);
        assert_eq!(delivered(20_000.0, 51), 1);
        assert_eq!(delivered(0.0, 1), 2);
    }

    #[test]
    fn pushes_that_are_missing_or_in_another_order_are_a_violation() {
        let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        let acknowledged = texts(&["1", "2", "3"]);
        for (stored, problems) in [
            (vec!["1", "2", "3"], 0),
            (vec!["1", "3", "2"], 1),
            (vec!["1", "2"], 1),
            (vec![], 1),
        ] {
            let fixture = Fixture::new();
            order_is_kept(&fixture.journal, "test", &acknowledged, &texts(&stored));
            assert_eq!(fixture.problems(), problems, "{stored:?}");
        }
    }

    #[test]
    fn an_answer_after_the_deadline_is_a_violation() {
        let fixture = Fixture::new();
        let late = result(|summary| summary["longestAnswerMs"] = json!(13_251.0));
        answers_are_in_time(&fixture.journal, "test", &[late]);
        assert_eq!(fixture.problems(), 1);
    }

    #[test]
    fn losing_more_than_was_in_flight_is_a_violation() {
        let fixture = Fixture::new();
        let lost = |count| result(|summary| summary["lostByPolicy"] = json!(count));
        discard_loss_is_bounded(&fixture.journal, "test", &lost(1_335));
        assert_eq!(fixture.problems(), 0);
        discard_loss_is_bounded(&fixture.journal, "test", &lost(1_336));
        assert_eq!(fixture.problems(), 1);
        let again = result(|summary| summary["blacklistings"] = json!(2));
        discard_loss_is_bounded(&fixture.journal, "test", &again);
        assert_eq!(fixture.problems(), 2);
    }

    #[test]
    fn a_late_recovery_is_a_violation() {
        let cluster = Instant::now();
        let late = |first_ms, complete_ms| Recovery {
            cluster_first: cluster,
            cluster_complete: cluster,
            product_first: cluster + Duration::from_millis(first_ms),
            product_complete: cluster + Duration::from_millis(complete_ms),
            first_answer: cluster + Duration::from_secs(9),
        };
        let fixture = Fixture::new();
        recovery_is_prompt(&fixture.journal, "test", &late(2_150, 2_150));
        assert_eq!(fixture.problems(), 0);
        recovery_is_prompt(&fixture.journal, "test", &late(2_151, 0));
        assert_eq!(fixture.problems(), 1);
        recovery_is_prompt(&fixture.journal, "test", &late(0, 2_151));
        assert_eq!(fixture.problems(), 2);
    }

    #[test]
    fn counts_that_differ_by_one_push_are_a_violation() {
        let fixture = Fixture::new();
        counts_match(
            &fixture.journal,
            (0.0, 0.0),
            (101.0, 100.0),
            &[result(|_| {})],
        );
        assert_eq!(fixture.problems(), 1);
        counts_match(
            &fixture.journal,
            (0.0, 0.0),
            (100.0, 99.0),
            &[result(|_| {})],
        );
        assert_eq!(fixture.problems(), 2);
    }
}
