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
