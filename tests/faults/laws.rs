//! What must hold, each law as a check that notes what breaks it.

use std::time::Duration;

use crate::fleet::Member;
use crate::journal::Journal;
use crate::pushes::Outcome;
use crate::recovery::Recovery;
use crate::support::eventually;

/// `http.answer_deadline_ms` as it is by default.
const ANSWER_DEADLINE_MS: f64 = 13_000.0;
/// How late an answer may be beyond its deadline.
const SLACK_MS: f64 = 250.0;
/// So many failures in a row lead to the blacklist.
const FAILURES_TO_BLACKLIST: f64 = 10.0;
/// How much later than the cluster the product may be.
const RECOVERY: Duration = Duration::from_secs(2);

/// What was answered 200 is in Kafka, byte for byte, where it belongs; where it
/// was asked, the streams' output equals the model.
pub(crate) fn acknowledged_is_stored(journal: &Journal, phase: &str, outcome: &Outcome) {
    if !outcome.is_proved() {
        journal.problem(format!(
            "{phase}: not proved: {outcome}\n{:#}",
            outcome.summary
        ));
    }
}

/// Not one answer other than 200, and so no blacklisting.
pub(crate) fn only_200(journal: &Journal, phase: &str, outcomes: &[Outcome]) {
    for outcome in outcomes {
        let others = outcome.other_than_200();
        if !others.is_empty() || outcome.number("blacklistings") > 0.0 {
            journal.problem(format!("{phase}: answers other than 200: {outcome}"));
        }
    }
}

/// No answer later than its deadline, as the sender sees it. What broke or was
/// given up is no answer.
pub(crate) fn in_time(journal: &Journal, phase: &str, outcomes: &[Outcome]) {
    for outcome in outcomes {
        if outcome.number("longestAnswerMs") > ANSWER_DEADLINE_MS + SLACK_MS {
            journal.problem(format!("{phase}: an answer after its deadline: {outcome}"));
        }
    }
}

/// Under `discard` an outage costs the ten pushes that lead to the blacklist
/// and those in flight then: all that were due within a deadline.
pub(crate) fn lost_by_discard(journal: &Journal, phase: &str, outcome: &Outcome) {
    let in_flight = f64::from(outcome.load.rate) * (ANSWER_DEADLINE_MS + SLACK_MS) / 1_000.0;
    let lost = outcome.number("lostByPolicy");
    if outcome.number("blacklistings") > 1.0 || lost > FAILURES_TO_BLACKLIST + in_flight {
        journal.problem(format!("{phase}: more lost than was in flight: {outcome}"));
    }
}

/// The product is back within moments of the cluster.
pub(crate) fn recovered(journal: &Journal, phase: &str, recovery: &Recovery) {
    journal.mark(&format!("{phase}: {recovery}"));
    if recovery.first_late() > RECOVERY || recovery.whole_late() > RECOVERY {
        journal.problem(format!("{phase}: recovered late: {recovery}"));
    }
}

/// Once nothing is in flight, every push received has its outcome.
pub(crate) fn books_balance(journal: &Journal, ingress: &Member) {
    eventually("nothing is in flight", || {
        let in_flight = ingress.metric("northbridge_pushes_in_flight", &[]);
        (in_flight < 0.5).then_some(())
    });
    let received = ingress.metric("northbridge_pushes_received_total", &[]);
    let settled = ingress.metric("northbridge_pushes_total", &[]);
    let text = format!("{} received {received}, settled {settled}", ingress.name);
    journal.say(&text);
    if (received - settled).abs() > 0.5 {
        journal.problem(format!("the books do not balance: {text}"));
    }
}

/// Where nothing broke, the senders' books and the product's agree to the push.
pub(crate) fn books_agree(
    journal: &Journal,
    before: (f64, f64),
    after: (f64, f64),
    outcomes: &[Outcome],
) {
    let sum = |path: &str| -> f64 { outcomes.iter().map(|outcome| outcome.number(path)).sum() };
    let (received, stored) = (after.0 - before.0, after.1 - before.1);
    let text = format!(
        "received {received} of {} pushes, stored {stored} of {} answered 200",
        sum("pushes"),
        sum("answers.200"),
    );
    journal.say(&text);
    if (received - sum("pushes")).abs() > 0.5 || (stored - sum("answers.200")).abs() > 0.5 {
        journal.problem(format!("the books do not agree: {text}"));
    }
}

/// Whether each law notices what breaks it.
mod tests {
    use std::time::Instant;

    use serde_json::{Value, json};
    use tempfile::TempDir;

    use super::*;
    use crate::pushes::Load;

    struct Page {
        journal: Journal,
        _directory: TempDir,
    }

    impl Page {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            Self {
                journal: Journal::silent(&directory.path().join("run")),
                _directory: directory,
            }
        }

        fn problems(&self) -> usize {
            self.journal.problems().len()
        }
    }

    fn outcome(change: impl FnOnce(&mut Value)) -> Outcome {
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
        Outcome {
            load,
            summary,
            code: 0,
        }
    }

    #[test]
    fn a_run_as_it_must_be_breaks_no_law() {
        let page = Page::new();
        let outcomes = [outcome(|_| {})];
        acknowledged_is_stored(&page.journal, "test", &outcomes[0]);
        only_200(&page.journal, "test", &outcomes);
        in_time(&page.journal, "test", &outcomes);
        lost_by_discard(&page.journal, "test", &outcomes[0]);
        books_agree(&page.journal, (7.0, 3.0), (107.0, 103.0), &outcomes);
        assert_eq!(page.journal.problems(), Vec::<String>::new());
    }

    #[test]
    fn a_proof_that_does_not_hold_is_noticed() {
        let page = Page::new();
        let broken = outcome(|summary| summary["verification"]["holds"] = json!(false));
        acknowledged_is_stored(&page.journal, "test", &broken);
        assert_eq!(page.problems(), 1);
        let ended = Outcome {
            code: 1,
            ..outcome(|_| {})
        };
        acknowledged_is_stored(&page.journal, "test", &ended);
        assert_eq!(page.problems(), 2);
        let mut unproved = outcome(|_| {});
        unproved.load.state = true;
        acknowledged_is_stored(&page.journal, "test", &unproved);
        assert_eq!(page.problems(), 3, "no states were compared");
    }

    #[test]
    fn one_answer_other_than_200_is_noticed() {
        for other in ["503", "timeout", "no-connection"] {
            let page = Page::new();
            let broken = outcome(|summary| summary["answers"][other] = json!(1));
            only_200(&page.journal, "test", &[outcome(|_| {}), broken]);
            assert_eq!(page.problems(), 1, "{other}");
        }
    }

    #[test]
    fn a_late_answer_is_noticed() {
        let page = Page::new();
        let late = outcome(|summary| summary["longestAnswerMs"] = json!(13_251.0));
        in_time(&page.journal, "test", &[late]);
        assert_eq!(page.problems(), 1);
    }

    #[test]
    fn more_lost_than_was_in_flight_is_noticed() {
        let page = Page::new();
        let lost = |count| outcome(|summary| summary["lostByPolicy"] = json!(count));
        lost_by_discard(&page.journal, "test", &lost(1_335));
        assert_eq!(page.problems(), 0);
        lost_by_discard(&page.journal, "test", &lost(1_336));
        assert_eq!(page.problems(), 1);
        let again = outcome(|summary| summary["blacklistings"] = json!(2));
        lost_by_discard(&page.journal, "test", &again);
        assert_eq!(page.problems(), 2);
    }

    #[test]
    fn a_late_recovery_is_noticed() {
        let cluster = Instant::now();
        let late = |first_ms, whole_ms| Recovery {
            cluster_first: cluster,
            cluster_whole: cluster,
            product_first: cluster + Duration::from_millis(first_ms),
            product_whole: cluster + Duration::from_millis(whole_ms),
        };
        let page = Page::new();
        recovered(&page.journal, "test", &late(2_000, 2_000));
        assert_eq!(page.problems(), 0);
        recovered(&page.journal, "test", &late(2_001, 0));
        assert_eq!(page.problems(), 1);
        recovered(&page.journal, "test", &late(0, 2_001));
        assert_eq!(page.problems(), 2);
    }

    #[test]
    fn books_that_differ_by_one_push_are_noticed() {
        let page = Page::new();
        books_agree(
            &page.journal,
            (0.0, 0.0),
            (101.0, 100.0),
            &[outcome(|_| {})],
        );
        assert_eq!(page.problems(), 1);
        books_agree(&page.journal, (0.0, 0.0), (100.0, 99.0), &[outcome(|_| {})]);
        assert_eq!(page.problems(), 2);
    }
}
