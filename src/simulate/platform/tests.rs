use super::*;

const PROBES: Duration = Duration::from_secs(180);
const RETRY: Policy = Policy::Retry {
    after: Duration::from_secs(10),
};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn message(number: u32, since: Duration) -> Message {
    Message {
        number,
        bytes: 500,
        since,
    }
}

fn fail(platform: &mut Platform, numbers: std::ops::Range<u32>, now: Duration) {
    for number in numbers {
        platform.answered(message(number, now), Answer::Status(503), now);
    }
}

/// A platform of the newer rules that blacklisted the host at second 0, with so many waiting.
fn blacklisted(waiting: u32) -> Platform {
    let mut platform = Platform::new(Policy::Discard, PROBES);
    fail(&mut platform, 0..10, Duration::ZERO);
    for number in 0..waiting {
        assert_eq!(platform.offer(message(100 + number, seconds(1))), None);
    }
    platform
}

fn sent(platform: &mut Platform, now: Duration) -> Option<Message> {
    match platform.next(now) {
        Step::Send { message, .. } => Some(message),
        Step::Wait(_) | Step::Idle => None,
    }
}

#[test]
fn without_rules_nothing_follows_from_failures() {
    let mut platform = Platform::new(Policy::None, PROBES);
    fail(&mut platform, 0..100, Duration::ZERO);
    assert!(!platform.is_blacklisted());
    assert_eq!(platform.counts(), Counts::default());
    assert!(platform.offer(message(100, seconds(1))).is_some());
}

#[test]
fn a_failure_is_what_each_text_calls_one() {
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
            let mut platform = Platform::new(policy, PROBES);
            for number in 0..10 {
                platform.answered(message(number, seconds(0)), answer, seconds(0));
            }
            platform.is_blacklisted()
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
fn ten_failures_in_a_row_blacklist_the_host_and_nine_do_not() {
    let mut platform = Platform::new(Policy::Discard, PROBES);
    fail(&mut platform, 0..9, seconds(1));
    platform.answered(message(9, seconds(1)), Answer::Status(200), seconds(1));
    fail(&mut platform, 10..19, seconds(2));
    assert!(!platform.is_blacklisted());
    fail(&mut platform, 19..20, seconds(2));
    assert!(platform.is_blacklisted());
    assert_eq!(platform.counts().blacklistings, 1);
    assert_eq!(platform.counts().lost, 19);
}

#[test]
fn what_is_in_flight_when_the_host_is_blacklisted_is_lost_and_lists_it_once() {
    let mut platform = blacklisted(0);
    fail(&mut platform, 10..40, seconds(1));
    assert_eq!(platform.counts().blacklistings, 1);
    assert_eq!(platform.counts().lost, 40);
}

#[test]
fn a_blacklisted_host_gets_nothing_but_a_probe_every_interval() {
    let mut platform = blacklisted(3);
    assert_eq!(platform.next(seconds(179)), Step::Wait(seconds(180)));
    let probe = sent(&mut platform, seconds(180)).unwrap();
    assert_eq!(probe.number, 100);
    assert_eq!(platform.next(seconds(181)), Step::Idle);
    platform.answered(probe, Answer::TimedOut, seconds(195));
    assert_eq!(platform.next(seconds(200)), Step::Wait(seconds(375)));
    assert_eq!(platform.counts().probes, 1);
    assert_eq!(platform.backlog(), 3);
}

#[test]
fn after_a_probe_the_backlog_goes_first_at_800_a_second() {
    let mut platform = blacklisted(1_000);
    let probe = sent(&mut platform, seconds(180)).unwrap();
    platform.answered(probe, Answer::Status(200), seconds(180));
    assert!(!platform.is_blacklisted());
    assert_eq!(platform.offer(message(5_000, seconds(180))), None);
    let mut first_second = Vec::new();
    while let Some(message) = sent(&mut platform, Duration::from_micros(180_999_999)) {
        first_second.push(message.number);
    }
    assert_eq!(first_second, (101..901).collect::<Vec<_>>());
    let mut rest = Vec::new();
    while let Some(message) = sent(&mut platform, seconds(182)) {
        rest.push(message.number);
    }
    assert_eq!(rest.last(), Some(&5_000));
    assert!(platform.offer(message(5_001, seconds(182))).is_some());
}

#[test]
fn what_waits_longer_than_a_day_is_dropped() {
    let mut platform = blacklisted(2);
    platform.offer(message(200, seconds(10)));
    let _ = platform.next(seconds(24 * 3_600 + 5));
    assert_eq!(platform.counts().dropped_from_backlog, 2);
    assert_eq!(platform.backlog(), 1);
}

#[test]
fn of_more_than_a_gibibyte_the_oldest_is_dropped() {
    let mut platform = blacklisted(0);
    for number in 0..5 {
        platform.offer(Message {
            number,
            bytes: 1 << 28,
            since: seconds(1),
        });
    }
    assert_eq!(platform.counts().dropped_from_backlog, 1);
    let probe = sent(&mut platform, seconds(180)).unwrap();
    assert_eq!(probe.number, 1);
}

#[test]
fn the_older_rules_push_again_what_failed() {
    let mut platform = Platform::new(RETRY, PROBES);
    platform.answered(message(7, seconds(0)), Answer::Status(503), seconds(1));
    assert_eq!(platform.next(seconds(1)), Step::Wait(seconds(11)));
    assert_eq!(sent(&mut platform, seconds(11)).unwrap().number, 7);
    assert_eq!(platform.counts().retries, 1);
    assert_eq!(platform.counts().lost, 0);
}

#[test]
fn the_older_rules_give_up_after_ten_minutes() {
    let mut platform = Platform::new(RETRY, PROBES);
    let mut now = seconds(0);
    let mut pushed = 0;
    platform.answered(message(7, now), Answer::Status(503), now);
    while let Step::Wait(until) = platform.next(now) {
        now = until;
        if let Some(message) = sent(&mut platform, now) {
            pushed += 1;
            platform.answered(message, Answer::Status(503), now);
            platform.answered(message_of_another(), Answer::Status(200), now);
        }
    }
    assert_eq!(pushed, 60);
    assert_eq!(platform.counts().lost, 1);
    assert_eq!(now, seconds(610));
}

fn message_of_another() -> Message {
    message(1_000, seconds(0))
}

#[test]
fn a_push_that_had_not_gone_out_waits_in_its_turn_and_is_not_lost() {
    let mut platform = blacklisted(3);
    platform.take_back(message(50, Duration::ZERO));
    assert_eq!(platform.counts().lost, 10);
    let probe = sent(&mut platform, PROBES).unwrap();
    assert_eq!(probe.number, 50);
    platform.take_back(message(49, Duration::ZERO));
    platform.answered(probe, Answer::Status(200), PROBES);
    let mut flushed = Vec::new();
    while let Some(message) = sent(&mut platform, seconds(200)) {
        flushed.push(message.number);
    }
    assert_eq!(flushed, [49, 100, 101, 102]);
}
