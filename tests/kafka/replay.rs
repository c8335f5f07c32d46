//! `northbridge replay` on a real cluster: what is selected, where it goes, and what
//! is printed.

use std::collections::BTreeMap;

use crate::support::bodies;
use crate::support::http;
use crate::support::kafka_cluster::shared;
use crate::support::northbridge::{Northbridge, run};
use crate::support::records::{NewRecord, read_topic};

use installation::{Installation, dead_letter, readable, stream_dead_letter};

mod crashes;
mod installation;

/// Days in the past at which the dead letters of [`three_days`] were written.
const DAYS: [i64; 3] = [3, 2, 1];

#[test]
fn readable_dead_letters_are_replayed_and_others_stay() {
    let installation = Installation::new("placed");
    let commands = installation.topic("command-status");
    let confirm = bodies::message_confirm("r-1", "d-1", "sent");
    let upgrade = bodies::upgrade_result("d-2", "op-1", "SUCCESS");
    let positions = installation.write_dead_letters(&[
        dead_letter("not-gzip", "", confirm.clone()),
        dead_letter("field-table", "d-2", upgrade.clone()),
        stream_dead_letter(&commands, "state-too-large", "own-key", confirm.clone()),
        dead_letter("not-json", "", "hello"),
        stream_dead_letter(&commands, "not-json-object", "k", "hello"),
    ]);

    let printed = installation.replay_successfully(&[]);
    assert!(
        printed.contains("5 selected: 3 replayed, 2 not replayable, 0 already"),
        "{printed}"
    );
    installation.assert_each_replayed_once(&[&positions[0], &positions[1], &positions[2]]);

    let upgrades = installation.committed("upgrade-result");
    assert_eq!(upgrades[0].key_text(), "d-2");
    assert_eq!(upgrades[0].value_text(), upgrade);
    assert_eq!(
        upgrades[0].header("ce_time"),
        Some("2026-01-01T00:00:00.125Z")
    );
    assert_eq!(upgrades[0].header("ce_type"), Some("swUpgradeResultNotify"));
    let commands = installation.committed("command-status");
    let by_key = |key: &str| commands.iter().find(|record| record.key_text() == key);
    assert_eq!(by_key("r-1").unwrap().value_text(), confirm);
    let back = by_key("own-key").unwrap();
    assert_eq!(back.value_text(), confirm);
    let names: Vec<_> = back.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["own-header", "northbridge-replayed-from"]);
}

#[test]
fn as_is_also_replays_dead_letters_that_are_still_unreadable() {
    let installation = Installation::new("as-is");
    let commands = installation.topic("command-status");
    let positions = installation.write_dead_letters(&[
        dead_letter("not-json", "", "hello"),
        stream_dead_letter(&commands, "not-json-object", "k", "hi"),
        stream_dead_letter("somebody-elses", "not-json-object", "k", "hi"),
    ]);
    let printed = installation.replay_successfully(&["--as-is"]);
    assert!(
        printed.contains("2 replayed, 1 not replayable") && printed.contains("no stream reads"),
        "{printed}"
    );
    installation.assert_each_replayed_once(&[&positions[0], &positions[1]]);
    let other = installation.committed("notifications");
    assert_eq!(other[0].value_text(), "hello");
    assert_eq!(other[0].key, None);
    assert_eq!(other[0].header("northbridge-reason"), Some("not-json"));
    assert_eq!(installation.committed("command-status")[0].key_text(), "k");
}

#[test]
fn a_replay_mark_is_a_tombstone_after_its_dead_letter_in_the_same_partition() {
    let installation = Installation::new("mark");
    let positions =
        installation.write_dead_letters(&[readable(0), readable(1), readable(2), readable(3)]);
    installation.replay_successfully(&[]);
    let records = installation.committed("dead-letter");
    for position in &positions {
        let marks: Vec<_> = records
            .iter()
            .filter(|record| record.header("northbridge-replayed") == Some(position))
            .collect();
        let [mark] = marks[..] else {
            panic!("{position}: {marks:?}");
        };
        let (partition, offset) = position.split_once('/').unwrap();
        assert_eq!(mark.partition.to_string(), partition);
        assert!(mark.offset > offset.parse().unwrap());
        assert_eq!(mark.value, None);
        assert_eq!(mark.key_text(), *position);
        assert_eq!(
            mark.header("northbridge-replayed-to"),
            Some(installation.topic("command-status").as_str())
        );
        assert_eq!(mark.header("northbridge-reason"), None);
    }
}

#[test]
fn each_selection_replays_its_dead_letters_and_none_twice() {
    let installation = Installation::new("selected");
    let mut letters = three_days();
    letters.push(dead_letter(
        "field-table",
        "f",
        bodies::upgrade_result("d", "o", "FAIL"),
    ));
    letters[3].partition = Some(1);
    let more = (0..3).map(|number| NewRecord {
        partition: Some(2),
        ..readable(10 + number)
    });
    letters.extend(more);
    let positions = installation.write_dead_letters(&letters);

    // Each row: the flags, and the dead letters that they replay in addition.
    let two_days_ago = (chrono::Utc::now() - chrono::TimeDelta::hours(49)).to_rfc3339();
    let rows: [(&[&str], &[usize]); 8] = [
        (&["--reason", "id-missing"], &[]),
        (&["--reason", "id-missing", "--reason", "field-table"], &[3]),
        (&["--since", &two_days_ago, "--until", "36h"], &[1]),
        (
            &["--until", "1h", "--reason", "not-gzip", "--limit", "1"],
            &[0],
        ),
        (
            &["--partition", "2", "--from-offset", "1", "--to-offset", "1"],
            &[5],
        ),
        (&["--partition", "2", "--to-offset", "1"], &[4]),
        (&["--since", "2h", "--partition", "0"], &[]),
        (&[], &[2, 6]),
    ];
    let mut sent: Vec<&String> = Vec::new();
    for (flags, adds) in rows {
        installation.replay_successfully(flags);
        sent.extend(adds.iter().map(|number| &positions[*number]));
        installation.assert_each_replayed_once(&sent);
    }
    let printed = installation.replay_successfully(&[]);
    assert!(
        printed.contains("7 selected: 0 replayed, 0 not replayable, 7 already replayed."),
        "{printed}"
    );
}

#[test]
fn a_dry_run_prints_the_table_and_changes_nothing() {
    let installation = Installation::new("dry");
    installation.write_dead_letters(&[
        readable(0),
        readable(1),
        dead_letter("id-missing", "", r#"{"notifyType":"messageConfirm"}"#),
    ]);
    let before = read_topic(shared().bootstrap(), &installation.topic("dead-letter"));
    let printed = installation.replay_successfully(&["--dry-run"]);
    let rows: Vec<Vec<&str>> = printed
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows[0][..2], ["reason", "records"]);
    assert_eq!(rows[1][..2], ["id-missing", "1"]);
    assert!(
        printed.contains("none, still unreadable: id-missing"),
        "{printed}"
    );
    assert_eq!(rows[2][..2], ["not-gzip", "2"]);
    assert_eq!(
        *rows[2].last().unwrap(),
        installation.topic("command-status")
    );
    assert!(
        printed.contains("2 would be replayed, 1 not replayable"),
        "{printed}"
    );
    assert!(printed.contains("nothing was changed"), "{printed}");
    assert_eq!(installation.replayed_counts(), BTreeMap::new());
    let after = read_topic(shared().bootstrap(), &installation.topic("dead-letter"));
    assert_eq!(after, before);
}

#[test]
fn an_empty_selection_lists_the_reasons_in_the_topic() {
    let installation = Installation::new("nothing");
    assert_eq!(
        installation.replay_successfully(&[]),
        "No dead letters found.\n"
    );
    installation.write_dead_letters(&[readable(0)]);
    let printed = installation.replay_successfully(&["--reason", "notgzip"]);
    assert_eq!(
        printed,
        "No dead letters selected; reasons found: not-gzip.\n"
    );
}

#[test]
fn a_push_dead_lettered_by_strict_validation_is_replayed_once_the_rule_is_relaxed() {
    let installation = Installation::new("eased");
    let mut settings = installation.settings();
    settings.push(("http.validation", "strict"));
    let ingress = Northbridge::start(&["ingress"], &settings);
    ingress.wait_until_ready();
    let body =
        r#"{"notifyType":"swUpgradeResultNotify","deviceId":"d-9","swUpgradeResult":"SUCCESS"}"#;
    let answer = http::post_with(ingress.address(), "/notifications", &[], body);
    assert_eq!(answer.status, 200);
    let dead = installation.committed("dead-letter");
    assert_eq!(dead[0].header("northbridge-reason"), Some("field-table"));
    assert!(installation.replay_successfully(&[]).contains("1 replayed"));
    let placed = installation.committed("upgrade-result");
    assert_eq!(placed[0].key_text(), "d-9");
    assert_eq!(placed[0].value_text(), body);
    for header in ["ce_id", "ce_time", "ce_source", "ce_subject"] {
        assert_eq!(placed[0].header(header), dead[0].header(header), "{header}");
    }
}

#[test]
fn replay_without_kafka_exits_with_69_and_names_the_brokers() {
    for flags in [&["replay"][..], &["replay", "--dry-run"]] {
        let output = run(flags, &[("kafka.bootstrap_servers", "127.0.0.1:1")]);
        assert_eq!(output.status.code(), Some(69), "{output:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(
            stderr.contains("127.0.0.1:1") && stderr.contains("kafka.bootstrap_servers"),
            "{stderr}"
        );
    }
}

#[test]
fn wrong_usage_exits_with_64_and_names_the_mistake() {
    let installation = Installation::new("usage");
    let rows: [(&[&str], &str); 9] = [
        (&["--since", "yesterday"], "2h"),
        (&["--since", "1h", "--until", "2h"], "--until"),
        (&["--from-offset", "1"], "--partition"),
        (
            &["--partition", "0", "--from-offset", "2", "--to-offset", "1"],
            "--to-offset",
        ),
        (&["--partition=-1"], "--partition"),
        (&["--partition", "3"], "0 to 2"),
        (&["--limit", "0"], "--limit"),
        (&["--reasons", "x"], "--reasons"),
        (
            &["--set", "topics.prefix=none-such."],
            "none-such.dead-letter",
        ),
    ];
    for (flags, expected) in rows {
        let output = installation.replay(flags);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(64), "{flags:?}: {stderr}");
        assert!(stderr.contains(expected), "{flags:?}: {stderr}");
    }
}

/// One dead letter in partition 0 for each of [`DAYS`].
fn three_days() -> Vec<NewRecord> {
    let now_ms = chrono::Utc::now().timestamp_millis();
    let dated = |(number, days): (usize, i64)| NewRecord {
        partition: Some(0),
        timestamp_ms: Some(now_ms - days * 86_400_000),
        ..readable(number)
    };
    DAYS.into_iter().enumerate().map(dated).collect()
}
