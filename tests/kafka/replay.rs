//! `northbridge replay` on a real cluster: each selection, and each dead letter
//! exactly once, whatever ends a run in its middle.

use std::collections::BTreeMap;
use std::process::{Command, Output, Stdio};

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rustix::process::Signal;

use crate::support::bodies;
use crate::support::guarded::Guarded;
use crate::support::http;
use crate::support::kafka_cluster::{shared, unique_prefix};
use crate::support::northbridge::{Northbridge, run};
use crate::support::records::{Isolation, NewRecord, Record, produce, read_topic, read_topic_as};
use crate::support::{PATIENCE, eventually};

const PARTITIONS: usize = 3;
/// Days in the past at which the dead letters of [`three_days`] were written.
const DAYS: [i64; 3] = [3, 2, 1];

/// Topics of a test's own.
struct House {
    prefix: String,
    partitions: String,
    batch: String,
}

impl House {
    fn new(test: &str) -> Self {
        let house = Self {
            prefix: unique_prefix(test),
            partitions: PARTITIONS.to_string(),
            batch: "2000".to_owned(),
        };
        let created = run(&["topics", "create"], &house.settings());
        assert!(created.status.success(), "{created:?}");
        house
    }

    fn settings(&self) -> Vec<(&str, &str)> {
        vec![
            ("kafka.bootstrap_servers", shared().bootstrap()),
            ("topics.prefix", &self.prefix),
            ("streams.group_prefix", &self.prefix),
            ("topics.partitions", &self.partitions),
            ("streams.max_batch_records", &self.batch),
            ("shutdown.announce_ms", "0"),
            ("shutdown.idle_ms", "0"),
        ]
    }

    fn topic(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Writes dead letters and returns `partition/offset` of each.
    fn bury(&self, letters: &[NewRecord]) -> Vec<String> {
        let places = produce(shared().bootstrap(), &self.topic("dead-letter"), letters);
        let place = |(partition, offset)| format!("{partition}/{offset}");
        places.into_iter().map(place).collect()
    }

    fn replay(&self, flags: &[&str]) -> Output {
        let arguments: Vec<&str> = ["replay"].iter().chain(flags).copied().collect();
        run(&arguments, &self.settings())
    }

    /// Runs to its end, which must be a good one, and returns what it printed.
    fn replayed(&self, flags: &[&str]) -> String {
        let output = self.replay(flags);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The program with a point at which it kills or freezes itself.
    fn failing_at(&self, point: &str) -> Command {
        let mut program = Command::new(env!("CARGO_BIN_EXE_northbridge"));
        program.arg("replay");
        for (key, value) in self.settings() {
            program.args(["--set", &format!("{key}={value}")]);
        }
        program.env("NORTHBRIDGE_FAIL_POINT", point);
        program
    }

    fn committed(&self, topic: &str) -> Vec<Record> {
        let topic = self.topic(topic);
        read_topic_as(shared().bootstrap(), &topic, Isolation::Committed)
    }

    /// How often each dead letter was sent, to whatever topic.
    fn sent(&self) -> BTreeMap<String, u32> {
        let mut sent = BTreeMap::new();
        for topic in [
            "command-status",
            "upgrade-result",
            "notifications",
            "upgrade-delta",
        ] {
            for record in self.committed(topic) {
                let from = record.header("northbridge-replayed-from");
                *sent.entry(from.unwrap().to_owned()).or_default() += 1;
            }
        }
        sent
    }

    fn assert_each_sent_once(&self, places: &[&String]) {
        let expected: BTreeMap<String, u32> =
            places.iter().map(|place| ((*place).clone(), 1)).collect();
        assert_eq!(self.sent(), expected);
        let marked = self.committed("dead-letter");
        let marked = marked.iter().filter_map(|record| {
            let place = record.header("northbridge-replayed")?;
            Some((place.to_owned(), 1))
        });
        assert_eq!(marked.collect::<BTreeMap<_, _>>(), expected);
    }
}

fn letter(reason: &str, key: &str, body: impl Into<Vec<u8>>) -> NewRecord {
    NewRecord::keyed(key, body)
        .with_header("ce_source", "/notifications")
        .with_header("ce_time", "2026-01-01T00:00:00.125Z")
        .with_header("northbridge-reason", reason)
        .with_header("northbridge-detail", "as it was found")
}

/// A dead letter that the present rules can place.
fn placeable(number: usize) -> NewRecord {
    let id = format!("r-{number}");
    let body = bodies::message_confirm(&id, "d-1", "sent");
    let mut letter = letter("not-gzip", &id, body);
    letter.partition = Some(i32::try_from(number % PARTITIONS).unwrap());
    letter
}

fn in_stream(topic: &str, reason: &str, key: &str, body: impl Into<Vec<u8>>) -> NewRecord {
    NewRecord::keyed(key, body)
        .with_header("mine", "kept")
        .with_header("northbridge-reason", reason)
        .with_header("northbridge-topic", topic)
        .with_header("northbridge-partition", "0")
        .with_header("northbridge-offset", "7")
}

/// One dead letter in partition 0 for each of [`DAYS`].
fn three_days() -> Vec<NewRecord> {
    let now_ms = chrono::Utc::now().timestamp_millis();
    let dated = |(number, days): (usize, i64)| NewRecord {
        partition: Some(0),
        timestamp_ms: Some(now_ms - days * 86_400_000),
        ..placeable(number)
    };
    DAYS.into_iter().enumerate().map(dated).collect()
}

#[test]
fn what_can_be_placed_now_goes_to_its_topic_and_what_cannot_stays() {
    let house = House::new("placed");
    let commands = house.topic("command-status");
    let confirm = bodies::message_confirm("r-1", "d-1", "sent");
    let upgrade = bodies::upgrade_result("d-2", "op-1", "SUCCESS");
    let places = house.bury(&[
        letter("not-gzip", "", confirm.clone()),
        letter("field-table", "d-2", upgrade.clone()),
        in_stream(&commands, "state-too-large", "own-key", confirm.clone()),
        letter("not-json", "", "hello"),
        in_stream(&commands, "not-json-object", "k", "hello"),
    ]);

    let printed = house.replayed(&[]);
    assert!(
        printed.contains("5 selected: 3 replayed, 2 stay where they are, 0 were"),
        "{printed}"
    );
    house.assert_each_sent_once(&[&places[0], &places[1], &places[2]]);

    let upgrades = house.committed("upgrade-result");
    assert_eq!(upgrades[0].key_text(), "d-2");
    assert_eq!(upgrades[0].value_text(), upgrade);
    assert_eq!(
        upgrades[0].header("ce_time"),
        Some("2026-01-01T00:00:00.125Z")
    );
    assert_eq!(upgrades[0].header("ce_type"), Some("swUpgradeResultNotify"));
    let commands = house.committed("command-status");
    let by_key = |key: &str| commands.iter().find(|record| record.key_text() == key);
    assert_eq!(by_key("r-1").unwrap().value_text(), confirm);
    let back = by_key("own-key").unwrap();
    assert_eq!(back.value_text(), confirm);
    let names: Vec<_> = back.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["mine", "northbridge-replayed-from"]);
}

#[test]
fn as_is_sends_also_what_is_still_not_understood() {
    let house = House::new("as-is");
    let commands = house.topic("command-status");
    let places = house.bury(&[
        letter("not-json", "", "hello"),
        in_stream(&commands, "not-json-object", "k", "hi"),
        in_stream("somebody-elses", "not-json-object", "k", "hi"),
    ]);
    let printed = house.replayed(&["--as-is"]);
    assert!(
        printed.contains("2 replayed, 1 stay") && printed.contains("no stream reads"),
        "{printed}"
    );
    house.assert_each_sent_once(&[&places[0], &places[1]]);
    let other = house.committed("notifications");
    assert_eq!(other[0].value_text(), "hello");
    assert_eq!(other[0].key, None);
    assert_eq!(other[0].header("northbridge-reason"), Some("not-json"));
    assert_eq!(house.committed("command-status")[0].key_text(), "k");
}

#[test]
fn a_mark_stands_behind_its_dead_letter_in_the_same_partition_and_has_no_value() {
    let house = House::new("mark");
    let places = house.bury(&[placeable(0), placeable(1), placeable(2), placeable(3)]);
    house.replayed(&[]);
    let records = house.committed("dead-letter");
    for place in &places {
        let marks: Vec<_> = records
            .iter()
            .filter(|record| record.header("northbridge-replayed") == Some(place))
            .collect();
        let [mark] = marks[..] else {
            panic!("{place}: {marks:?}");
        };
        let (partition, offset) = place.split_once('/').unwrap();
        assert_eq!(mark.partition.to_string(), partition);
        assert!(mark.offset > offset.parse().unwrap());
        assert_eq!(mark.value, None);
        assert_eq!(mark.key_text(), *place);
        assert_eq!(
            mark.header("northbridge-replayed-to"),
            Some(house.topic("command-status").as_str())
        );
        assert_eq!(mark.header("northbridge-reason"), None);
    }
}

#[test]
fn each_selection_sends_what_it_says_and_nothing_is_sent_again_by_another() {
    let house = House::new("selected");
    let mut letters = three_days();
    letters.push(letter(
        "field-table",
        "f",
        bodies::upgrade_result("d", "o", "FAIL"),
    ));
    letters[3].partition = Some(1);
    let more = (0..3).map(|number| NewRecord {
        partition: Some(2),
        ..placeable(10 + number)
    });
    letters.extend(more);
    let places = house.bury(&letters);

    // Each row: the flags, and the dead letters that they add to those sent.
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
        house.replayed(flags);
        sent.extend(adds.iter().map(|number| &places[*number]));
        house.assert_each_sent_once(&sent);
    }
    let printed = house.replayed(&[]);
    assert!(
        printed.contains("7 selected: 0 replayed, 0 stay where they are, 7 were replayed before."),
        "{printed}"
    );
}

#[test]
fn a_dry_run_shows_the_table_and_changes_nothing() {
    let house = House::new("dry");
    house.bury(&[
        placeable(0),
        placeable(1),
        letter("id-missing", "", r#"{"notifyType":"messageConfirm"}"#),
    ]);
    let before = read_topic(shared().bootstrap(), &house.topic("dead-letter"));
    let printed = house.replayed(&["--dry-run"]);
    let rows: Vec<Vec<&str>> = printed
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows[0][..2], ["reason", "records"]);
    assert_eq!(rows[1][..2], ["id-missing", "1"]);
    assert!(
        printed.contains("stays, still unreadable: id-missing"),
        "{printed}"
    );
    assert_eq!(rows[2][..2], ["not-gzip", "2"]);
    assert_eq!(*rows[2].last().unwrap(), house.topic("command-status"));
    assert!(printed.contains("2 would be replayed, 1 stay"), "{printed}");
    assert!(printed.contains("nothing was changed"), "{printed}");
    assert_eq!(house.sent(), BTreeMap::new());
    let after = read_topic(shared().bootstrap(), &house.topic("dead-letter"));
    assert_eq!(after, before);
}

#[test]
fn a_selection_of_nothing_names_the_reasons_that_are_there() {
    let house = House::new("nothing");
    assert_eq!(house.replayed(&[]), "No dead letters there.\n");
    house.bury(&[placeable(0)]);
    let printed = house.replayed(&["--reason", "notgzip"]);
    assert_eq!(printed, "None selected; the reasons there: not-gzip.\n");
}

#[test]
fn killed_at_every_step_and_run_again_it_sends_each_exactly_once() {
    let mut house = House::new("killed");
    house.batch = "2".to_owned();
    let letters: Vec<_> = (0..30).map(placeable).collect();
    let places = house.bury(&letters);
    let points = [
        "1:1", "2:1", "2:2", "3:1", "4:1", "5:1", "3:2", "4:2", "5:2", "4:1", "5:1",
    ];
    for point in points {
        let output = house.failing_at(point).output().unwrap();
        assert_eq!(
            output.status.code(),
            None,
            "{point} was not met: {output:?}"
        );
    }
    house.replayed(&[]);
    house.assert_each_sent_once(&places.iter().collect::<Vec<_>>());
}

#[test]
fn killed_at_any_time_and_run_again_it_sends_each_exactly_once() {
    let mut house = House::new("killed-any");
    house.batch = "1".to_owned();
    let letters: Vec<_> = (0..60).map(placeable).collect();
    let places = house.bury(&letters);
    for _ in 0..6 {
        let sent = house.sent().len();
        let replay = Northbridge::start(&["replay"], &house.settings());
        eventually("it goes on, or has ended", || {
            (replay.exit_code().is_some() || house.sent().len() > sent).then_some(())
        });
        replay.kill();
    }
    house.replayed(&[]);
    house.assert_each_sent_once(&places.iter().collect::<Vec<_>>());
}

#[test]
fn of_several_at_the_same_time_the_latest_takes_over_and_each_is_sent_once() {
    let mut house = House::new("two");
    house.batch = "2".to_owned();
    let letters: Vec<_> = (0..30).map(placeable).collect();
    let places = house.bury(&letters);
    // Just before a commit; between two transactions; with marks read that are
    // no longer all there are.
    let frozen = ["4:3:STOP", "5:1:STOP", "2:1:STOP"].map(|point| {
        let errors = tempfile::NamedTempFile::new().unwrap();
        let program = house.failing_at(point);
        let process = Guarded::spawn(&program, Stdio::from(errors.reopen().unwrap()));
        eventually("it is frozen", || is_frozen(&process).then_some(()));
        (process, errors)
    });
    house.replayed(&[]);
    for (process, errors) in &frozen {
        process.signal(Signal::CONT);
        assert_eq!(process.wait(), 75);
        let said = std::fs::read_to_string(errors.path()).unwrap();
        assert!(said.contains("another replay"), "{said}");
    }
    house.assert_each_sent_once(&places.iter().collect::<Vec<_>>());
}

#[test]
fn an_open_transaction_of_a_stream_is_waited_for() {
    let house = House::new("open");
    let places = house.bury(&[placeable(0), placeable(1)]);
    let topic = house.topic("dead-letter");
    let stream: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", shared().bootstrap())
        .set("transactional.id", &house.prefix)
        .create()
        .unwrap();
    stream.init_transactions(PATIENCE).unwrap();
    stream.begin_transaction().unwrap();
    let late = bodies::message_confirm("late", "d-1", "sent");
    let record = BaseRecord::<str, str>::to(&topic)
        .partition(0)
        .payload(&late);
    stream.send(record).unwrap();
    stream.flush(PATIENCE).unwrap();
    // What stands behind the open one is hidden from committed readers.
    let behind = house.bury(&[placeable(3)]);

    let replay = Northbridge::start(&["replay"], &house.settings());
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(replay.exit_code(), None);
    stream.commit_transaction(PATIENCE).unwrap();
    assert_eq!(replay.wait(), 0);
    let late = "0/1".to_owned();
    house.assert_each_sent_once(&[&places[0], &places[1], &late, &behind[0]]);
}

#[test]
fn a_signal_ends_it_between_two_transactions_with_75() {
    let mut house = House::new("signal");
    house.batch = "1".to_owned();
    let letters: Vec<_> = (0..30).map(placeable).collect();
    let places = house.bury(&letters);
    let errors = tempfile::NamedTempFile::new().unwrap();
    let program = house.failing_at("4:3:STOP");
    let process = Guarded::spawn(&program, Stdio::from(errors.reopen().unwrap()));
    eventually("it is frozen", || is_frozen(&process).then_some(()));
    process.signal(Signal::TERM);
    process.signal(Signal::CONT);
    assert_eq!(process.wait(), 75);
    let sent = house.sent().len();
    assert!((2..30).contains(&sent), "{sent} were sent");
    house.replayed(&[]);
    house.assert_each_sent_once(&places.iter().collect::<Vec<_>>());
}

#[test]
fn a_push_that_strict_validation_kept_back_arrives_after_the_rule_is_eased() {
    let house = House::new("eased");
    let mut settings = house.settings();
    settings.push(("http.validation", "strict"));
    let ingress = Northbridge::start(&["ingress"], &settings);
    ingress.ready();
    let body =
        r#"{"notifyType":"swUpgradeResultNotify","deviceId":"d-9","swUpgradeResult":"SUCCESS"}"#;
    let answer = http::post_with(ingress.address(), "/notifications", &[], body);
    assert_eq!(answer.status, 200);
    let dead = house.committed("dead-letter");
    assert_eq!(dead[0].header("northbridge-reason"), Some("field-table"));
    assert!(house.replayed(&[]).contains("1 replayed"));
    let placed = house.committed("upgrade-result");
    assert_eq!(placed[0].key_text(), "d-9");
    assert_eq!(placed[0].value_text(), body);
    for header in ["ce_id", "ce_time", "ce_source", "ce_subject"] {
        assert_eq!(placed[0].header(header), dead[0].header(header), "{header}");
    }
}

#[test]
fn without_kafka_it_ends_with_69_and_names_the_brokers() {
    for flags in [&["replay"][..], &["replay", "--dry-run"]] {
        let output = run(flags, &[("kafka.bootstrap_servers", "127.0.0.1:1")]);
        assert_eq!(output.status.code(), Some(69), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            said.contains("127.0.0.1:1") && said.contains("kafka.bootstrap_servers"),
            "{said}"
        );
    }
}

#[test]
fn wrong_usage_ends_with_64_and_says_what_is_wrong() {
    let house = House::new("usage");
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
    for (flags, says) in rows {
        let output = house.replay(flags);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(64), "{flags:?}: {said}");
        assert!(said.contains(says), "{flags:?}: {said}");
    }
}

fn is_frozen(process: &Guarded) -> bool {
    let pid = process.pid().as_raw_nonzero();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the name, which stands in parentheses.
    stat.rsplit_once(") ")
        .is_some_and(|(_, state)| state.starts_with('T'))
}
