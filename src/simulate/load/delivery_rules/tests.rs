use super::*;

const PROBE_INTERVAL: Duration = Duration::from_secs(180);
const RETRY: Policy = Policy::Retry {
    after: Duration::from_secs(10),
};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn push(number: u32, since: Duration) -> PendingPush {
    PendingPush {
        number,
        bytes: 500,
        since,
    }
}

fn fail(rules: &mut DeliveryRules, numbers: std::ops::Range<u32>, now: Duration) {
    for number in numbers {
        rules.on_answer(push(number, now), Answer::Status(503), now);
    }
}

/// The newer rules after they blacklisted the host at second 0, with this many pushes waiting.
fn blacklisted(waiting: u32) -> DeliveryRules {
    let mut rules = DeliveryRules::new(Policy::Discard, PROBE_INTERVAL);
    fail(&mut rules, 0..10, Duration::ZERO);
    for number in 0..waiting {
        assert_eq!(rules.offer(push(100 + number, seconds(1))), None);
    }
    rules
}

fn sent(rules: &mut DeliveryRules, now: Duration) -> Option<PendingPush> {
    match rules.next_action(now) {
        Action::Send { push, .. } => Some(push),
        Action::Wait(_) | Action::Idle => None,
    }
}

#[test]
fn without_a_policy_failures_have_no_consequence() {
    let mut rules = DeliveryRules::new(Policy::None, PROBE_INTERVAL);
    fail(&mut rules, 0..100, Duration::ZERO);
    assert!(!rules.is_blacklisted());
    assert_eq!(rules.counts(), DeliveryCounts::default());
    assert!(rules.offer(push(100, seconds(1))).is_some());
}

#[test]
fn each_policy_counts_its_published_answers_as_failures() {
    let failures = |policy| {
        let answers = [
            Answer::Status(200),
            Answer::Status(202),
            Answer::Status(404),
            Answer::Status(500),
            Answer::Status(501),
            Answer::Status(504),
            Answer::Status(505),
            Answer::TimedOut,
            Answer::NoConnection,
        ];
        answers.map(|answer| {
            let mut rules = DeliveryRules::new(policy, PROBE_INTERVAL);
            for number in 0..10 {
                rules.on_answer(push(number, seconds(0)), answer, seconds(0));
            }
            rules.is_blacklisted()
        })
    };
    assert_eq!(
        failures(Policy::Discard),
        [false, true, true, true, true, true, true, true, true]
    );
    assert_eq!(
        failures(RETRY),
        [false, false, false, false, true, true, false, true, true]
    );
}

#[test]
fn ten_consecutive_failures_blacklist_the_host_and_nine_do_not() {
    let mut rules = DeliveryRules::new(Policy::Discard, PROBE_INTERVAL);
    fail(&mut rules, 0..9, seconds(1));
    rules.on_answer(push(9, seconds(1)), Answer::Status(200), seconds(1));
    fail(&mut rules, 10..19, seconds(2));
    assert!(!rules.is_blacklisted());
    fail(&mut rules, 19..20, seconds(2));
    assert!(rules.is_blacklisted());
    assert_eq!(rules.counts().blacklistings, 1);
    assert_eq!(rules.counts().lost, 19);
}

#[test]
fn failures_of_pushes_in_flight_are_lost_but_do_not_blacklist_again() {
    let mut rules = blacklisted(0);
    fail(&mut rules, 10..40, seconds(1));
    assert_eq!(rules.counts().blacklistings, 1);
    assert_eq!(rules.counts().lost, 40);
}

#[test]
fn a_blacklisted_host_gets_one_probe_per_interval_and_nothing_else() {
    let mut rules = blacklisted(3);
    assert_eq!(rules.next_action(seconds(179)), Action::Wait(seconds(180)));
    let probe = sent(&mut rules, seconds(180)).unwrap();
    assert_eq!(probe.number, 100);
    assert_eq!(rules.next_action(seconds(181)), Action::Idle);
    rules.on_answer(probe, Answer::TimedOut, seconds(195));
    assert_eq!(rules.next_action(seconds(200)), Action::Wait(seconds(375)));
    assert_eq!(rules.counts().probes, 1);
    assert_eq!(rules.backlog(), 3);
}

#[test]
fn after_a_successful_probe_the_backlog_is_sent_first_at_800_a_second() {
    let mut rules = blacklisted(1_000);
    let probe = sent(&mut rules, seconds(180)).unwrap();
    rules.on_answer(probe, Answer::Status(200), seconds(180));
    assert!(!rules.is_blacklisted());
    assert_eq!(rules.offer(push(5_000, seconds(180))), None);
    let mut first_second = Vec::new();
    while let Some(push) = sent(&mut rules, Duration::from_micros(180_999_999)) {
        first_second.push(push.number);
    }
    assert_eq!(first_second, (101..901).collect::<Vec<_>>());
    let mut rest = Vec::new();
    while let Some(push) = sent(&mut rules, seconds(182)) {
        rest.push(push.number);
    }
    assert_eq!(rest.last(), Some(&5_000));
    assert!(rules.offer(push(5_001, seconds(182))).is_some());
}

#[test]
fn a_push_that_waits_longer_than_a_day_is_dropped() {
    let mut rules = blacklisted(2);
    rules.offer(push(200, seconds(10)));
    let _ = rules.next_action(seconds(24 * 3_600 + 5));
    assert_eq!(rules.counts().dropped_from_backlog, 2);
    assert_eq!(rules.backlog(), 1);
}

#[test]
fn the_oldest_push_is_dropped_if_the_backlog_exceeds_a_gibibyte() {
    let mut rules = blacklisted(0);
    for number in 0..5 {
        rules.offer(PendingPush {
            number,
            bytes: 1 << 28,
            since: seconds(1),
        });
    }
    assert_eq!(rules.counts().dropped_from_backlog, 1);
    let probe = sent(&mut rules, seconds(180)).unwrap();
    assert_eq!(probe.number, 1);
}

#[test]
fn the_older_rules_retry_a_failed_push() {
    let mut rules = DeliveryRules::new(RETRY, PROBE_INTERVAL);
    rules.on_answer(push(7, seconds(0)), Answer::Status(503), seconds(1));
    assert_eq!(rules.next_action(seconds(1)), Action::Wait(seconds(11)));
    assert_eq!(sent(&mut rules, seconds(11)).unwrap().number, 7);
    assert_eq!(rules.counts().retries, 1);
    assert_eq!(rules.counts().lost, 0);
}

#[test]
fn the_older_rules_stop_retrying_after_ten_minutes() {
    let mut rules = DeliveryRules::new(RETRY, PROBE_INTERVAL);
    let mut now = seconds(0);
    let mut retries = 0;
    rules.on_answer(push(7, now), Answer::Status(503), now);
    while let Action::Wait(until) = rules.next_action(now) {
        now = until;
        if let Some(push) = sent(&mut rules, now) {
            retries += 1;
            rules.on_answer(push, Answer::Status(503), now);
            rules.on_answer(another_push(), Answer::Status(200), now);
        }
    }
    assert_eq!(retries, 60);
    assert_eq!(rules.counts().lost, 1);
    assert_eq!(now, seconds(610));
}

fn another_push() -> PendingPush {
    push(1_000, seconds(0))
}

#[test]
fn an_unsent_push_returns_to_the_backlog_by_age_and_is_not_lost() {
    let mut rules = blacklisted(3);
    rules.return_unsent(push(50, Duration::ZERO));
    assert_eq!(rules.counts().lost, 10);
    let probe = sent(&mut rules, PROBE_INTERVAL).unwrap();
    assert_eq!(probe.number, 50);
    rules.return_unsent(push(49, Duration::ZERO));
    rules.on_answer(probe, Answer::Status(200), PROBE_INTERVAL);
    let mut flushed = Vec::new();
    while let Some(push) = sent(&mut rules, seconds(200)) {
        flushed.push(push.number);
    }
    assert_eq!(flushed, [49, 100, 101, 102]);
}
