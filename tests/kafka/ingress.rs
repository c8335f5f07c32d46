//! The central guarantee on a real cluster: every push answered 200 is in Kafka,
//! and the failure of a single broker never causes any other answer.

mod spool;

use std::time::Duration;

use crate::support::bodies;
use crate::support::http::{self, Version};
use crate::support::kafka_cluster::{Broker, Cluster, ClusterOptions, shared, unique_prefix};
use crate::support::load::{Load, Report, Until};
use crate::support::northbridge::{Northbridge, create_topics};
use crate::support::records::read_topic;

/// Longer than Kafka's default broker session of 9 s plus leader election.
const LONGER_THAN_A_SESSION: Duration = Duration::from_secs(15);

/// An ingress with topics of its own.
struct Installation {
    bootstrap: String,
    prefix: String,
    ingress: Northbridge,
}

impl Installation {
    fn on(bootstrap: &str, test: &str) -> Self {
        Self::with(bootstrap, test, &[])
    }

    fn with(bootstrap: &str, test: &str, settings: &[(&str, &str)]) -> Self {
        let prefix = unique_prefix(test);
        create_topics(&own_settings(bootstrap, &prefix));
        let ingress = start(bootstrap, &prefix, settings);
        ingress.wait_until_ready();
        Self {
            bootstrap: bootstrap.to_owned(),
            prefix,
            ingress,
        }
    }

    /// Enough connections for every push to be sent on time, even while all
    /// earlier ones wait for a new leader.
    fn load(&self, rate_per_s: u32) -> Load {
        Load {
            rate_per_s,
            connections: rate_per_s * 14,
            ..Load::to(self.ingress.address())
        }
    }

    fn assert_all_acknowledged_are_stored(&self, report: &Report) {
        let values: Vec<Vec<u8>> = ["command-status", "upgrade-result"]
            .iter()
            .flat_map(|topic| read_topic(&self.bootstrap, &format!("{}{topic}", self.prefix)))
            .filter_map(|record| record.value)
            .collect();
        let missing = report.missing_from(values.iter().map(Vec::as_slice));
        assert!(
            missing.is_empty(),
            "{} pushes were answered 200 and are not stored, among them {:?}",
            missing.len(),
            missing.first(),
        );
    }
}

fn own_settings<'a>(bootstrap: &'a str, prefix: &'a str) -> [(&'a str, &'a str); 4] {
    [
        ("kafka.bootstrap_servers", bootstrap),
        ("topics.prefix", prefix),
        ("shutdown.announce_ms", "200"),
        ("shutdown.idle_ms", "0"),
    ]
}

fn start(bootstrap: &str, prefix: &str, settings: &[(&str, &str)]) -> Northbridge {
    let own = own_settings(bootstrap, prefix);
    Northbridge::start(&["ingress"], &[&own[..], settings].concat())
}

fn assert_only_200(report: &Report) {
    let answers = report.answers();
    println!("{answers:?}, slowest {:?}", report.slowest());
    assert_eq!(
        answers.keys().collect::<Vec<_>>(),
        ["200"],
        "{answers:?}, slowest {:?}",
        report.slowest()
    );
}

#[test]
fn every_push_answered_200_is_stored_byte_for_byte() {
    let installation = Installation::on(shared().bootstrap(), "stored");
    let load = Load {
        until: Until::Pushes(2_000),
        ..installation.load(400)
    };
    let report = load.start().finish();
    assert_only_200(&report);
    assert_eq!(report.pushes.len(), 2_000);
    installation.assert_all_acknowledged_are_stored(&report);
}

/// Kafka's default timeouts; a broker's failure leaves the controller running.
fn with_dedicated_controller() -> ClusterOptions {
    ClusterOptions {
        dedicated_controller: true,
        ..ClusterOptions::default()
    }
}

/// Brokers that are controllers too, with the session timeout that
/// `docs/operations.md` recommends for them.
fn with_combined_roles() -> ClusterOptions {
    ClusterOptions {
        properties: vec![("broker.session.timeout.ms".to_owned(), "6000".to_owned())],
        ..ClusterOptions::default()
    }
}

/// Takes each broker down in turn for longer than its session and requires that
/// every push is answered 200.
fn assert_only_200_while_each_broker_fails(
    test: &str,
    options: &ClusterOptions,
    fail: fn(&Broker),
    recover: fn(&Broker),
) {
    let cluster = Cluster::start(options);
    let installation = Installation::on(&cluster.bootstrap(), test);
    let load = installation.load(100).start();
    for broker in cluster.brokers() {
        load.wait_for_answers(100);
        fail(broker);
        std::thread::sleep(LONGER_THAN_A_SESSION);
        recover(broker);
        cluster.wait_until_in_sync();
    }
    load.wait_for_answers(100);
    let report = load.stop();
    assert_only_200(&report);
    installation.assert_all_acknowledged_are_stored(&report);
}

#[test]
fn killing_each_broker_in_turn_leaves_every_answer_200() {
    let options = with_dedicated_controller();
    assert_only_200_while_each_broker_fails("killed", &options, Broker::kill, Broker::restart);
}

#[test]
fn freezing_each_broker_in_turn_leaves_every_answer_200() {
    let options = with_dedicated_controller();
    assert_only_200_while_each_broker_fails("frozen", &options, Broker::freeze, Broker::thaw);
}

#[test]
fn an_active_controller_dying_with_its_broker_leaves_every_answer_200() {
    let options = with_combined_roles();
    assert_only_200_while_each_broker_fails("controllers", &options, Broker::kill, Broker::restart);
}

#[test]
fn an_outage_of_all_brokers_loses_no_acknowledged_push() {
    let cluster = Cluster::start(&ClusterOptions::default());
    let installation = Installation::on(&cluster.bootstrap(), "all-gone");
    let load = installation.load(50).start();
    load.wait_for_answers(50);
    cluster.kill_all();
    installation.ingress.wait_until_not_ready();
    cluster.restart_all();
    installation.ingress.wait_until_ready();
    load.wait_for_answers(100);
    let report = load.stop();
    let last = report.pushes.last().expect("pushes were sent");
    assert_eq!(last.answer.to_string(), "200", "{:?}", report.answers());
    let others: Vec<_> = report
        .answers()
        .into_keys()
        .filter(|answer| answer != "200" && answer != "503")
        .collect();
    assert!(others.is_empty(), "{others:?}");
    installation.assert_all_acknowledged_are_stored(&report);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_is_not_answered_before_its_acknowledgement() {
    let cluster = Cluster::start(&ClusterOptions {
        brokers: 1,
        ..ClusterOptions::default()
    });
    let installation = Installation::on(&cluster.bootstrap(), "held");
    let address = installation.ingress.address();
    cluster.broker(0).freeze();
    let body = bodies::message_confirm("held-1", "device-1", "sent");
    let waiting = tokio::spawn(async move { http::post(address, "/notifications", body).await });
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(
        !waiting.is_finished(),
        "answered while no broker could acknowledge"
    );
    cluster.broker(0).thaw();
    assert_eq!(waiting.await.expect("the client ended").status, 200);
    let stored = read_topic(
        &installation.bootstrap,
        &format!("{}command-status", installation.prefix),
    );
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[0].key_text(), "held-1");
}

#[test]
fn a_drain_under_load_loses_nothing_and_exits_with_0() {
    let installation = Installation::on(shared().bootstrap(), "drain");
    let load = installation.load(200).start();
    load.wait_for_answers(400);
    installation.ingress.signal(rustix::process::Signal::TERM);
    assert_eq!(installation.ingress.wait(), 0);
    let report = load.stop();
    let others: Vec<_> = report
        .answers()
        .into_keys()
        .filter(|answer| answer.parse::<u16>().is_ok() && answer != "200")
        .collect();
    assert!(others.is_empty(), "{others:?}");
    installation.assert_all_acknowledged_are_stored(&report);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_at_the_size_limit_fits_every_downstream_limit() {
    let installation = Installation::on(shared().bootstrap(), "limit");
    let mut connection = http::Connection::open(installation.ingress.address(), Version::Http1)
        .await
        .expect("the listener accepts");
    let limit = 1024 * 1024;
    let start = bodies::message_confirm("limit-1", "device-1", "sent");
    let padding = "x".repeat(limit - start.len() - r#","pad":"""#.len());
    let body = format!(r#"{},"pad":"{padding}"}}"#, &start[..start.len() - 1]);
    assert_eq!(body.len(), limit);
    let answer = connection
        .post("/notifications", body.clone())
        .await
        .expect("an answer");
    assert_eq!(answer.status, 200);
    let stored = read_topic(
        &installation.bootstrap,
        &format!("{}command-status", installation.prefix),
    );
    assert_eq!(stored[0].value.as_deref(), Some(body.as_bytes()));
}
