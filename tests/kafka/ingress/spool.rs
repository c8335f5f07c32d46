//! With a spool, an outage of the whole cluster is not noticed by the sender.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tempfile::TempDir;

use super::{Installation, assert_only_200, start};
use crate::support::bodies::message_confirm;
use crate::support::http;
use crate::support::kafka_cluster::{Cluster, ClusterOptions};
use crate::support::ordered::first_values;
use crate::support::records::{add_partitions, read_topic, set_topic_settings, topic_settings};

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

/// The topic has more partitions than when the pushes were spooled, and takes no large
/// records any more.
#[test]
fn what_is_spooled_goes_to_the_topic_as_it_is_now_and_what_that_rejects_aside() {
    const KEYS: usize = 20;
    let cluster = Cluster::start(&ClusterOptions::default());
    let directory = TempDir::new().unwrap();
    let spool = [
        ("spool.directory", directory.path().to_str().unwrap()),
        ("spool.after_ms", "500"),
    ];
    let mut installation = Installation::with(&cluster.bootstrap(), "changed", &spool);
    let topic = format!("{}command-status", installation.prefix);
    let push = |installation: &Installation, body: String| {
        let address = installation.ingress.address();
        let answer = http::post_with(address, "/notifications", &[], body);
        assert_eq!(answer.status, 200);
    };
    let key = |number| format!("key-{number}");
    let body = |number, status| message_confirm(&key(number), "d-1", status);
    push(&installation, message_confirm("warm", "d-1", "sent"));
    cluster.kill_all();
    let poison = message_confirm("poison", "d-1", "sent") + &" ".repeat(200_000);
    push(&installation, poison.clone());
    (0..KEYS).for_each(|number| push(&installation, body(number, "sent")));
    installation.ingress.kill();
    cluster.restart_all();
    let mut settings = topic_settings(&installation.bootstrap, &topic);
    settings.insert("max.message.bytes".to_owned(), "100000".to_owned());
    set_topic_settings(&installation.bootstrap, &topic, &settings);
    add_partitions(&installation.bootstrap, &topic, 9);
    installation.ingress = start(&installation.bootstrap, &installation.prefix, &spool);
    installation.ingress.wait_for_metric(RECORDS, &[], 0.0);
    let damaged = installation
        .ingress
        .metric("northbridge_spool_damaged_total", &[]);
    assert!((damaged - 1.0).abs() < 0.5, "{damaged}");
    let aside = directory.path().read_dir().unwrap().find_map(|file| {
        let path = file.unwrap().path();
        path.to_str().unwrap().contains("rejected-").then_some(path)
    });
    let aside = std::fs::read(aside.unwrap()).unwrap();
    let is_whole = aside
        .windows(poison.len())
        .any(|bytes| bytes == poison.as_bytes());
    assert!(is_whole, "{} bytes", aside.len());
    // A later push of a key is in the same partition, behind the one that was spooled.
    (0..KEYS).for_each(|number| push(&installation, body(number, "executed")));
    let records = read_topic(&installation.bootstrap, &topic);
    for number in 0..KEYS {
        let of_key = records
            .iter()
            .filter(|record| record.key_text() == key(number));
        let partitions: BTreeSet<i32> = of_key.map(|record| record.partition).collect();
        assert_eq!(partitions.len(), 1, "{partitions:?}");
        let bodies = [body(number, "sent"), body(number, "executed")];
        assert_eq!(first_values(&records, &key(number)), bodies);
    }
    let used: BTreeSet<i32> = records.iter().map(|record| record.partition).collect();
    assert!(used.iter().any(|partition| *partition >= 6), "{used:?}");
}
