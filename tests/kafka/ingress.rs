//! The promise, on a real cluster: what was answered 200 is in Kafka, and no
//! single broker's end is a reason to answer anything else.

use std::time::Duration;

use crate::support::bodies;
use crate::support::eventually;
use crate::support::http::{self, Version};
use crate::support::kafka_cluster::{Broker, Cluster, ClusterOptions, shared, unique_prefix};
use crate::support::load::{Load, Report, Until};
use crate::support::northbridge::{Northbridge, run};
use crate::support::records::read_topic;

/// Longer than Kafka's stock session of 9 s and the election behind it.
const OUTLASTS_A_SESSION: Duration = Duration::from_secs(15);

/// An ingress on a cluster, with topics of its own.
struct Bridge {
    bootstrap: String,
    prefix: String,
    ingress: Northbridge,
}

impl Bridge {
    fn on(bootstrap: &str, test: &str) -> Self {
        let prefix = unique_prefix(test);
        let settings = [
            ("kafka.bootstrap_servers", bootstrap),
            ("topics.prefix", prefix.as_str()),
            ("shutdown.announce_ms", "200"),
            ("shutdown.idle_ms", "0"),
        ];
        let created = run(&["topics", "create"], &settings);
        assert!(created.status.success(), "{created:?}");
        let ingress = Northbridge::start(&["ingress"], &settings);
        ingress.ready();
        Self {
            bootstrap: bootstrap.to_owned(),
            prefix,
            ingress,
        }
    }

    /// Enough connections for every push to be sent when it is due, even while
    /// all that came before waits for a new leader.
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
fn what_was_answered_200_is_stored_byte_for_byte() {
    let bridge = Bridge::on(shared().bootstrap(), "stored");
    let load = Load {
        until: Until::Pushes(2_000),
        ..bridge.load(400)
    };
    let report = load.start().finish();
    assert_only_200(&report);
    assert_eq!(report.pushes.len(), 2_000);
    bridge.assert_all_acknowledged_are_stored(&report);
}

/// Kafka's stock time-outs, and nothing but a broker goes.
fn brokers_alone() -> ClusterOptions {
    ClusterOptions {
        controller_apart: true,
        ..ClusterOptions::default()
    }
}

/// As `docs/operations.md` recommends it where brokers are the controllers too.
fn brokers_that_are_controllers() -> ClusterOptions {
    ClusterOptions {
        properties: vec![("broker.session.timeout.ms".to_owned(), "6000".to_owned())],
        ..ClusterOptions::default()
    }
}

/// Pushes while each broker in turn is gone for longer than its session, and
/// asks for nothing but 200.
fn assert_only_200_while_each_is_gone(
    test: &str,
    options: &ClusterOptions,
    go: fn(&Broker),
    come_back: fn(&Broker),
) {
    let cluster = Cluster::start(options);
    let bridge = Bridge::on(&cluster.bootstrap(), test);
    let load = bridge.load(100).start();
    for broker in cluster.brokers() {
        load.wait_for_answers(100);
        go(broker);
        std::thread::sleep(OUTLASTS_A_SESSION);
        come_back(broker);
        cluster.wait_until_in_sync();
    }
    load.wait_for_answers(100);
    let report = load.stop();
    assert_only_200(&report);
    bridge.assert_all_acknowledged_are_stored(&report);
}

#[test]
fn each_killed_broker_costs_not_one_answer_other_than_200() {
    let options = brokers_alone();
    assert_only_200_while_each_is_gone("killed", &options, Broker::kill, Broker::restart);
}

#[test]
fn each_frozen_broker_costs_not_one_answer_other_than_200() {
    let options = brokers_alone();
    assert_only_200_while_each_is_gone("frozen", &options, Broker::freeze, Broker::thaw);
}

#[test]
fn the_active_controller_may_go_with_its_broker_where_sessions_are_short() {
    let options = brokers_that_are_controllers();
    assert_only_200_while_each_is_gone("controllers", &options, Broker::kill, Broker::restart);
}

#[test]
fn all_brokers_may_go_and_come_back_without_a_loss() {
    let cluster = Cluster::start(&ClusterOptions::default());
    let bridge = Bridge::on(&cluster.bootstrap(), "all-gone");
    let load = bridge.load(50).start();
    load.wait_for_answers(50);
    cluster.kill_all();
    eventually("the outage ends readiness", || {
        (!bridge.ingress.is_ready()).then_some(())
    });
    cluster.restart_all();
    eventually("readiness comes back", || {
        bridge.ingress.is_ready().then_some(())
    });
    load.wait_for_answers(100);
    let report = load.stop();
    let last = report.pushes.last().expect("pushes were sent");
    assert_eq!(last.answer.to_string(), "200", "{:?}", report.answers());
    let unanswered: Vec<_> = report
        .answers()
        .into_keys()
        .filter(|answer| answer != "200" && answer != "503")
        .collect();
    assert!(unanswered.is_empty(), "{unanswered:?}");
    bridge.assert_all_acknowledged_are_stored(&report);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_answered_before_the_acknowledgement() {
    let cluster = Cluster::start(&ClusterOptions {
        brokers: 1,
        ..ClusterOptions::default()
    });
    let bridge = Bridge::on(&cluster.bootstrap(), "held");
    let address = bridge.ingress.address();
    cluster.broker(0).freeze();
    let body = bodies::message_confirm("held-1", "device-1", "sent");
    let waiting = tokio::spawn(async move { http::post(address, "/notifications", body).await });
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(
        !waiting.is_finished(),
        "answered while no broker could have acknowledged"
    );
    cluster.broker(0).thaw();
    assert_eq!(waiting.await.expect("the client ended").status, 200);
    let stored = read_topic(
        &bridge.bootstrap,
        &format!("{}command-status", bridge.prefix),
    );
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[0].key_text(), "held-1");
}

#[test]
fn a_drain_under_load_loses_nothing_and_ends_with_0() {
    let bridge = Bridge::on(shared().bootstrap(), "drain");
    let load = bridge.load(200).start();
    load.wait_for_answers(400);
    bridge.ingress.signal(rustix::process::Signal::TERM);
    assert_eq!(bridge.ingress.wait(), 0);
    let report = load.stop();
    let refused: Vec<_> = report
        .answers()
        .into_keys()
        .filter(|answer| answer.parse::<u16>().is_ok() && answer != "200")
        .collect();
    assert!(refused.is_empty(), "{refused:?}");
    bridge.assert_all_acknowledged_are_stored(&report);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_exactly_the_limit_passes_every_limit_behind_it() {
    let bridge = Bridge::on(shared().bootstrap(), "limit");
    let mut connection = http::Connection::open(bridge.ingress.address(), Version::Http1)
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
        &bridge.bootstrap,
        &format!("{}command-status", bridge.prefix),
    );
    assert_eq!(stored[0].value.as_deref(), Some(body.as_bytes()));
}
