//! What changes under a running process: its session, its user's password and
//! quota, its certificate; and bootstrap servers of which only one is of use.

use std::fs;
use std::net::TcpListener;
use std::time::Duration;

use super::installation::{Installation, Way, borrowed, set, start, user_with};
use crate::support::bodies;
use crate::support::eventually;
use crate::support::http;
use crate::support::kafka_cluster::secured;
use crate::support::load::{Load, Report, Until};
use crate::support::northbridge::{Northbridge, run};
use crate::support::records::{Isolation, NewRecord, produce, read_topic, read_topic_as};

/// The least time for which the quota holds some push back.
const THROTTLED: Duration = Duration::from_secs(2);

pub(super) fn push(ingress: &Northbridge) -> u16 {
    let body = bodies::message_confirm("request", "device", "sent");
    http::post_with(ingress.address(), "/notifications", &[], body).status
}

fn assert_all_stored(installation: &Installation, report: &Report) {
    let answers = report.answers();
    assert_eq!(answers.keys().collect::<Vec<_>>(), ["200"], "{answers:?}");
    let bootstrap = secured::cluster().bootstrap();
    let values: Vec<_> = ["command-status", "upgrade-result"]
        .iter()
        .flat_map(|topic| read_topic(&bootstrap, &format!("{}{topic}", installation.prefix)))
        .filter_map(|record| record.value)
        .collect();
    let missing = report.missing_from(values.iter().map(Vec::as_slice));
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn a_user_that_a_quota_throttles_loses_nothing() {
    let installation = Installation::with_topics("quota", Way::Plain);
    let user = user_with(&installation.rights("ingress"));
    // The broker averages over ten seconds, and the load below is three seconds
    // of 100 kB: it is throttled for some seconds, and then under the quota.
    secured::cluster().set_quota(&user, "producer_byte_rate", 25_000.0);
    let ingress = start("ingress", &installation.settings(&user));
    ingress.wait_until_ready();
    let load = Load {
        rate_per_s: 200,
        connections: 400,
        until: Until::Pushes(600),
        ..Load::to(ingress.address())
    };
    let report = load.start().finish();
    // Without the quota, no push waits for longer than the load itself takes.
    assert!(report.slowest() > THROTTLED, "{:?}", report.slowest());
    assert_all_stored(&installation, &report);
}

#[test]
fn a_batch_that_is_too_large_for_the_quota_is_halved_until_it_is_written_in_time() {
    let installation = Installation::with_topics("halved", Way::Plain);
    let user = user_with(&installation.rights("command-status"));
    let commands = 2_500_usize;
    let record = |number: usize| {
        let id = number.to_string();
        NewRecord::keyed(id.clone(), bodies::message_confirm(&id, "device", "sent"))
    };
    let records: Vec<_> = (0..commands).map(record).collect();
    let bootstrap = secured::cluster().bootstrap();
    let topic = |name: &str| format!("{}{name}", installation.prefix);
    produce(&bootstrap, &topic("command-status"), &records);

    // Their states have about 500 kB. The shortest transaction timeout leaves time
    // for 200 kB, and for as much again at first, because the broker averages over
    // ten seconds.
    secured::cluster().set_quota(&user, "producer_byte_rate", 20_000.0);
    let mut settings = installation.settings(&user);
    set(&mut settings, "streams.transaction_timeout_ms", "10000");
    // The broker answers a request before it holds the next one back.
    set(&mut settings, "kafka.options.batch.num.messages", "20");
    let process = start("command-status", &settings);
    let transactions = |result: &str| {
        process.metric(
            "northbridge_stream_transactions_total",
            &["command-status", result],
        )
    };
    eventually("large batches fail", || {
        (transactions("aborted") >= 2.0).then_some(())
    });
    // How many halvings it takes depends on what the failed ones have used up.
    for failures in [3.0, 4.0, 5.0] {
        eventually("a smaller one is committed, or fails as well", || {
            let is_committed = transactions("committed") >= 1.0;
            (is_committed || transactions("aborted") >= failures).then_some(())
        });
    }
    eventually("a smaller one is committed", || {
        (transactions("committed") >= 1.0).then_some(())
    });
    // Brokers answer the end of a transaction before its records are visible.
    let states = eventually("the states of the smaller one are visible", || {
        let states = read_topic_as(&bootstrap, &topic("command-state"), Isolation::Committed);
        (!states.is_empty()).then_some(states.len())
    });
    assert!(states <= commands / 2, "{states} states");
}

#[test]
fn a_new_password_is_used_after_a_restart() {
    let installation = Installation::with_topics("password", Way::Scram256);
    let user = user_with(&installation.rights("ingress"));
    let mut settings = installation.settings(&user);
    // The sooner the deadline, the sooner Kafka counts as unavailable.
    set(&mut settings, "http.body_timeout_ms", "1000");
    set(&mut settings, "http.answer_deadline_ms", "3000");
    let ingress = start("ingress", &settings);
    ingress.wait_until_ready();

    secured::cluster().set_password(&user, "another-password");
    assert_eq!(push(&ingress), 200, "open connections stay");
    // The session ends after ten seconds; then the old password is tried.
    ingress.wait_until_not_ready();
    let reason = format!("SASL authentication failed as user `{}`", user.name);
    eventually("the reason is known", || {
        let answer = http::get(ingress.admin_address(), "/readyz")?;
        answer.text().contains(&reason).then_some(())
    });
    assert_eq!(push(&ingress), 503, "no new connection is possible");

    set(
        &mut settings,
        "kafka.options.sasl.password",
        "another-password",
    );
    let restarted = start("ingress", &settings);
    restarted.wait_until_ready();
    assert_eq!(push(&restarted), 200);
}

#[test]
fn a_new_client_certificate_is_used_after_a_restart() {
    let installation = Installation::with_topics("certificate", Way::Certificate);
    let user = user_with(&installation.rights("ingress"));
    let settings = installation.settings(&user);
    let ingress = start("ingress", &settings);
    ingress.wait_until_ready();

    let (certificate, key) = secured::cluster().authority().named_client("nobody");
    let file = |option: &str| {
        let key = format!("kafka.options.ssl.{option}.location");
        let found = settings.iter().find(|(found, _)| *found == key);
        found.unwrap().1.clone()
    };
    fs::copy(certificate, file("certificate")).unwrap();
    fs::copy(key, file("key")).unwrap();
    secured::cluster().reset_certificate_connections();
    eventually("the new connections have the old certificate", || {
        (push(&ingress) == 200).then_some(())
    });

    let restarted = start("ingress", &settings);
    eventually("the new process has the new certificate", || {
        let answer = http::get(restarted.admin_address(), "/readyz")?;
        answer.text().contains("not authorized").then_some(())
    });
    assert_eq!(push(&ingress), 200);
}

#[test]
fn a_bootstrap_server_that_is_of_no_use_does_not_matter() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let useless = [
        "no-such-host.invalid:9092".to_owned(),
        silent.local_addr().unwrap().to_string(),
    ];
    std::thread::scope(|scope| {
        for first in useless {
            scope.spawn(move || works_with(&first));
        }
    });
}

fn works_with(first: &str) {
    let installation = Installation::with_topics("bootstrap", Way::Plain);
    let with_first = |command| {
        let mut settings = installation.settings(&user_with(&installation.rights(command)));
        let servers = format!("{first},{}", secured::cluster().sasl());
        set(&mut settings, "kafka.bootstrap_servers", &servers);
        settings
    };
    let settings = with_first("topics verify");
    let verified = run(&["topics", "verify"], &borrowed(&settings));
    assert!(verified.status.success(), "{first}: {verified:?}");
    let ingress = start("ingress", &with_first("ingress"));
    ingress.wait_until_ready();
    assert_eq!(push(&ingress), 200, "{first}");
}
