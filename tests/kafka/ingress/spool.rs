//! With a spool, an outage of the whole cluster is not noticed by the sender.

use std::collections::BTreeMap;
use std::time::Duration;

use tempfile::TempDir;

use super::{Installation, assert_only_200, start};
use crate::support::kafka_cluster::{Cluster, ClusterOptions};
use crate::support::records::read_topic;

const RECORDS: &str = "northbridge_spool_records";
/// Longer than the default answer deadline of 13 s.
const OUTAGE: Duration = Duration::from_secs(20);

impl Installation {
    /// How often each body is stored.
    fn stored(&self) -> BTreeMap<Vec<u8>, usize> {
        let mut stored = BTreeMap::new();
        for topic in ["command-status", "upgrade-result"] {
            let records = read_topic(&self.bootstrap, &format!("{}{topic}", self.prefix));
            for value in records.into_iter().filter_map(|record| record.value) {
                *stored.entry(value).or_default() += 1;
            }
        }
        stored
    }
}

#[test]
fn an_outage_of_all_brokers_is_answered_200_and_delivered_afterwards() {
    let cluster = Cluster::start(&ClusterOptions::default());
    let directory = TempDir::new().unwrap();
    let spool = [("spool.directory", directory.path().to_str().unwrap())];
    let installation = Installation::with(&cluster.bootstrap(), "spooled", &spool);
    let load = installation.load(100).start();
    load.wait_for_answers(100);
    cluster.kill_all();
    std::thread::sleep(OUTAGE);
    assert!(installation.ingress.is_ready());
    assert!(installation.ingress.metric(RECORDS, &[]) > 1_000.0);
    cluster.restart_all();
    installation.ingress.wait_for_metric(RECORDS, &[], 0.0);
    load.wait_for_answers(100);
    let report = load.stop();
    assert_only_200(&report);
    installation.assert_all_acknowledged_are_stored(&report);
    let stored = installation.stored();
    let repeated = stored.values().filter(|count| **count > 1).count();
    println!("{} pushes, {repeated} stored twice", stored.len());
    // Those that librdkafka held when the brokers died: a batch of each partition.
    assert!(repeated < 200, "{repeated}");
}

#[test]
fn an_ingress_killed_during_an_outage_loses_nothing_of_its_spool() {
    let cluster = Cluster::start(&ClusterOptions::default());
    let directory = TempDir::new().unwrap();
    let spool = ("spool.directory", directory.path().to_str().unwrap());
    let mut installation = Installation::with(&cluster.bootstrap(), "killed-spool", &[spool]);
    let address = installation.ingress.address().to_string();
    let settings = [spool, ("http.listen", address.as_str())];
    let load = installation.load(100).start();
    load.wait_for_answers(100);
    cluster.kill_all();
    for _ in 0..4 {
        std::thread::sleep(OUTAGE / 4);
        installation.ingress.kill();
        installation.ingress = start(&installation.bootstrap, &installation.prefix, &settings);
        installation.ingress.wait_until_ready();
    }
    cluster.restart_all();
    installation.ingress.wait_for_metric(RECORDS, &[], 0.0);
    load.wait_for_answers(100);
    let report = load.stop();
    let answers = report.answers();
    println!("{answers:?}");
    let refused = answers.keys().find(|answer| {
        answer.starts_with(|first: char| first.is_ascii_digit()) && *answer != "200"
    });
    assert_eq!(refused, None, "{answers:?}");
    installation.assert_all_acknowledged_are_stored(&report);
}
