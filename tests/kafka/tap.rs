//! `northbridge tap` on a real cluster, whose brokers wait for records, look up times
//! and have transactions.

use serde_json::Value;

use crate::support::bodies;
use crate::support::http::post_with;
use crate::support::kafka_cluster::{Cluster, ClusterOptions, shared, unique_prefix};
use crate::support::northbridge::{Northbridge, create_topics};
use crate::support::records::{NewRecord, add_partitions, produce, read_topic};

struct Installation {
    bootstrap: String,
    prefix: String,
}

impl Installation {
    fn on(bootstrap: &str, test: &str) -> Self {
        let installation = Self {
            bootstrap: bootstrap.to_owned(),
            prefix: unique_prefix(test),
        };
        create_topics(&installation.settings());
        installation
    }

    fn settings(&self) -> [(&str, &str); 5] {
        [
            ("kafka.bootstrap_servers", &self.bootstrap),
            ("topics.prefix", &self.prefix),
            ("topics.partitions", "3"),
            ("shutdown.announce_ms", "0"),
            ("shutdown.idle_ms", "0"),
        ]
    }

    fn tap(&self, flags: &[&str]) -> Northbridge {
        let tap = Northbridge::start(&[&["tap"], flags].concat(), &self.settings());
        tap.wait_for_log(|line| line.starts_with("following "));
        tap
    }

    fn ingress(&self) -> Northbridge {
        let ingress = Northbridge::start(&["ingress"], &self.settings());
        ingress.wait_until_ready();
        ingress
    }

    fn topic(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn write(&self, topic: &str, record: NewRecord) {
        produce(&self.bootstrap, &self.topic(topic), &[record]);
    }
}

fn push(ingress: &Northbridge, body: &str) {
    let answer = post_with(ingress.address(), "/notifications", &[], body);
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[test]
fn pushes_are_shown_as_they_arrive_where_they_are_stored() {
    let installation = Installation::on(shared().bootstrap(), "tapped");
    let ingress = installation.ingress();
    push(&ingress, &bodies::message_confirm("before", "d-1", "sent"));
    let all = installation.tap(&["--json", "--values"]);
    let filtered = installation.tap(&["--request", "r-7", "--request", "last"]);
    for number in 0..10 {
        push(
            &ingress,
            &bodies::message_confirm(&format!("r-{number}"), "d-1", "sent"),
        );
    }
    push(&ingress, &bodies::upgrade_result("d-2", "op-1", "SUCCESS"));
    push(&ingress, "nonsense");
    push(&ingress, &bodies::message_confirm("last", "d-1", "sent"));
    for tap in [&all, &filtered] {
        tap.wait_for_output(|line| line.contains("last"));
    }
    all.wait_for_output(|line| line.contains("nonsense"));
    all.wait_for_output(|line| line.contains("op-1"));
    let lines: Vec<Value> = all
        .output()
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 13, "{lines:#?}");
    for line in &lines {
        let stored = read_topic(&installation.bootstrap, line["topic"].as_str().unwrap());
        let mut stored = stored.iter();
        let stored =
            stored.find(|it| it.partition == line["partition"] && it.offset == line["offset"]);
        let stored = stored.unwrap();
        assert_eq!(line["value"], stored.value_text());
        assert_eq!(line["key"].as_str().unwrap_or_default(), stored.key_text());
        assert_eq!(line["type"], stored.header("ce_type").unwrap());
        assert_eq!(line["time"], stored.header("ce_time").unwrap());
    }
    let requests = filtered.output();
    let [first, last] = &requests[..] else {
        panic!("{requests:#?}");
    };
    assert!(
        first.contains("key r-7") && last.contains("key last"),
        "{requests:#?}"
    );
}

#[test]
fn since_begins_at_the_first_record_of_that_time_in_each_partition() {
    let installation = Installation::on(shared().bootstrap(), "since");
    let now_ms = chrono::Utc::now().timestamp_millis();
    let aged = |key: &str, partition: i32, minutes: i64| NewRecord {
        partition: Some(partition),
        timestamp_ms: Some(now_ms - minutes * 60_000),
        ..NewRecord::keyed(key, "{}")
    };
    // Of one partition nothing is recent, and another is empty.
    for (key, partition, minutes) in [("a", 0, 50), ("b", 0, 30), ("c", 0, 10), ("d", 1, 45)] {
        installation.write("notifications", aged(key, partition, minutes));
    }
    let tap = installation.tap(&["--since", "40m"]);
    installation.write("notifications", aged("live", 2, 0));
    tap.wait_for_output(|line| line.contains("key live"));
    tap.wait_for_output(|line| line.contains("key c"));
    let lines = tap.output();
    let is_shown = |key: &str| {
        lines
            .iter()
            .any(|line| line.contains(&format!("key {key} ")))
    };
    let shown: Vec<&str> = ["a", "b", "c", "d", "live"]
        .into_iter()
        .filter(|it| is_shown(it))
        .collect();
    assert_eq!(shown, ["b", "c", "live"], "{lines:#?}");
}

#[test]
fn added_partitions_are_followed() {
    let installation = Installation::on(shared().bootstrap(), "followed");
    let tap = installation.tap(&[]);
    add_partitions(
        &installation.bootstrap,
        &installation.topic("notifications"),
        5,
    );
    let record = NewRecord {
        partition: Some(4),
        ..NewRecord::keyed("added", "{}")
    };
    installation.write("notifications", record);
    tap.wait_for_output(|line| line.contains("key added"));
}

#[test]
fn a_tap_goes_on_when_all_brokers_come_back() {
    let cluster = Cluster::start(&ClusterOptions {
        brokers: 1,
        ..ClusterOptions::default()
    });
    let installation = Installation::on(&cluster.bootstrap(), "back");
    let tap = installation.tap(&[]);
    installation.write("notifications", NewRecord::keyed("before", "{}"));
    tap.wait_for_output(|line| line.contains("key before"));
    cluster.kill_all();
    tap.wait_for_log(|line| line.contains("is unavailable, or a part of it; waiting: "));
    cluster.restart_all();
    installation.write("notifications", NewRecord::keyed("after", "{}"));
    tap.wait_for_output(|line| line.contains("key after"));
    tap.wait_for_log(|line| line == "Kafka is available again");
    let said = tap.log();
    assert_eq!(said.len(), 3, "{said:#?}");
    assert_eq!(tap.output().len(), 2);
}
