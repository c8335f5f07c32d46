//! Rights that are granted to a running process, or taken from it and granted
//! again: without them it stays alive, and says what is missing.

use super::changes::push;
use super::installation::{Installation, Way, set, start, user_with};
use crate::support::bodies;
use crate::support::eventually;
use crate::support::http;
use crate::support::kafka_cluster::secured::{self, Resource, Right};
use crate::support::northbridge::Northbridge;
use crate::support::records::{NewRecord, produce};

const STREAM: &str = "command-status";
const BEGUN: &str = "Kafka request or connection failed; retrying";
/// The number of denials after which the process has tried again.
const ATTEMPTS: f64 = 3.0;
/// The number of records that wait for a stream.
const BACKLOG: u32 = 10_000;

/// A command without its `Write` on some resources.
struct Case {
    command: &'static str,
    is_missing: fn(&Right) -> bool,
    /// What is named, for an installation with this prefix.
    reason: fn(&str) -> String,
    /// What else the log says, once.
    message: &'static str,
}

const CASES: [Case; 3] = [
    Case {
        command: STREAM,
        is_missing: |right| right.resource == Resource::TransactionalId,
        reason: |prefix| format!("`Write` on transactional id northbridge.{prefix}command-status."),
        message: BEGUN,
    },
    Case {
        command: STREAM,
        is_missing: |right| is_write(right) && right.name.ends_with("command-state"),
        reason: |prefix| format!("`Write` on topic {prefix}command-state"),
        message: "transaction aborted; retrying the batch",
    },
    Case {
        command: "ingress",
        is_missing: is_write,
        // Since Kafka 2.8 it comes with `Write` on any topic.
        reason: |_| "`IdempotentWrite` on the cluster".to_owned(),
        message: "replaced the producer; the new one resends what was not acknowledged",
    },
];

#[test]
fn a_process_goes_to_work_when_its_missing_right_is_granted() {
    std::thread::scope(|scope| {
        for case in CASES {
            scope.spawn(move || case.check());
        }
    });
}

#[test]
fn a_stream_goes_on_when_its_transactional_id_is_taken_and_granted_again() {
    let installation = Installation::with_topics("taken", Way::Plain);
    let rights = installation.rights(STREAM);
    let user = user_with(&rights);
    let stream = start(STREAM, &installation.settings(&user));
    stream.wait_until_ready();
    write_commands(&installation, "first", 1);
    wait_until_applied(&stream, 1);

    let of_id = |right: &Right| right.resource == Resource::TransactionalId;
    let taken: Vec<Right> = rights.into_iter().filter(of_id).collect();
    secured::cluster().revoke(&user, &taken);
    write_commands(&installation, "second", 1);
    let prefix = &installation.prefix;
    let reason =
        format!("not authorized: `Write` on transactional id northbridge.{prefix}{STREAM}.");
    is_denied(&stream, &reason, &[BEGUN]);

    secured::cluster().allow(&user, &taken);
    stream.wait_until_ready();
    wait_until_applied(&stream, 2);
}

fn is_write(right: &Right) -> bool {
    right.resource == Resource::Topic && right.operation == "Write"
}

impl Case {
    fn check(&self) {
        let installation = Installation::with_topics("granted", Way::Plain);
        let (missing, mut rights): (Vec<Right>, Vec<Right>) = installation
            .rights(self.command)
            .into_iter()
            .partition(self.is_missing);
        // `Write` contains it.
        rights.extend(missing.iter().filter(|right| is_write(right)).map(describe));
        let user = user_with(&rights);
        // So much that the first transaction is denied before it has all of its
        // records. Then the coordinator knows of nothing that could be aborted.
        write_commands(&installation, "backlog", BACKLOG);
        let mut settings = installation.settings(&user);
        // All of the backlog is one batch.
        set(&mut settings, "streams.max_batch_records", "20000");
        set(&mut settings, "streams.max_batch_wait_ms", "3000");
        let process = start(self.command, &settings);
        let reason = format!("not authorized: {}", (self.reason)(&installation.prefix));
        is_denied(&process, &reason, &[BEGUN, self.message]);

        secured::cluster().allow(&user, &missing);
        process.wait_until_ready();
        if self.command == "ingress" {
            assert_eq!(push(&process), 200);
        } else {
            wait_until_applied(&process, BACKLOG);
        }
    }
}

/// Waits for several denials, in which the process stays, is not ready, and logs
/// each of the messages only once.
fn is_denied(process: &Northbridge, reason: &str, messages: &[&str]) {
    eventually(&format!("/readyz says: {reason}"), || {
        let answer = http::get(process.admin_address(), "/readyz")?;
        (answer.status == 503 && answer.text().contains(reason)).then_some(())
    });
    eventually(&format!("it is denied again: {reason}"), || {
        let label = "kind=\"authorization\"";
        let denials = process.metric("northbridge_kafka_errors_total", &[label]);
        (denials >= ATTEMPTS).then_some(())
    });
    assert_eq!(process.exit_code(), None, "{reason}");
    assert!(!process.is_ready(), "{reason}");
    for message in messages {
        let log = process.log();
        let said = log.iter().filter(|line| line.contains(message));
        assert_eq!(said.count(), 1, "{message}: {log:#?}");
    }
    process.wait_for_log(|line| line.contains(BEGUN) && line.contains(reason));
}

fn wait_until_applied(stream: &Northbridge, count: u32) {
    let applied = "result=\"applied\"";
    stream.wait_for_metric("northbridge_stream_records_total", &[applied], count.into());
}

fn write_commands(installation: &Installation, prefix: &str, count: u32) {
    let command = |number: u32| {
        let id = format!("{prefix}-{number}");
        let body = bodies::message_confirm(&id, &id, "sent");
        NewRecord::keyed(id, body)
    };
    let records: Vec<_> = (0..count).map(command).collect();
    let topic = format!("{}{STREAM}", installation.prefix);
    produce(&secured::cluster().bootstrap(), &topic, &records);
}

fn describe(right: &Right) -> Right {
    Right {
        operation: "Describe".to_owned(),
        ..right.clone()
    }
}
