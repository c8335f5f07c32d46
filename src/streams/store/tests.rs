use serde_json::json;

use super::{OpenCommands, Store};
use crate::streams::stream::{CommandStatus, UpgradeOperations};

const SECOND_MS: i64 = 1_000;

/// Restores a command whose last push was at the time of its last write.
fn write(store: &mut Store<CommandStatus>, id: &str, status: &str, written_at_ms: i64) {
    let value = json!({"requestId": id, "status": status}).to_string();
    store.restore(id.as_bytes(), Some(value.as_bytes()), None, written_at_ms);
}

fn take_expired(store: &mut Store<CommandStatus>, before_ms: i64, limit: usize) -> Vec<String> {
    let keys = store.take_expired(before_ms, limit);
    let text = |key: &super::Key| String::from_utf8_lossy(key).into_owned();
    keys.iter().map(text).collect()
}

#[test]
fn an_expiry_looks_only_at_states_whose_time_has_come() {
    let mut store = Store::starting_at(0);
    for number in 0..10_000 {
        write(&mut store, &format!("{number}"), "executed", number);
    }
    let before = store.by_age.len();
    assert_eq!(take_expired(&mut store, 3, 100), ["0", "1", "2"]);
    assert_eq!(before - store.by_age.len(), 3);
    assert_eq!(take_expired(&mut store, 1_000, 2), ["3", "4"]);
    assert_eq!(before - store.by_age.len(), 5);
}

#[test]
fn a_state_that_was_written_again_expires_by_its_last_write() {
    let mut store = Store::starting_at(0);
    write(&mut store, "again", "sent", 1);
    write(&mut store, "once", "sent", 2);
    write(&mut store, "removed", "sent", 3);
    write(&mut store, "again", "executed", 10);
    store.remove(b"removed");
    assert_eq!(take_expired(&mut store, 10, 100), ["once"]);
    assert_eq!(take_expired(&mut store, 11, 100), ["again"]);
}

#[test]
fn states_of_a_topic_without_retention_have_no_order_of_expiry() {
    let mut store = Store::<UpgradeOperations>::starting_at(0);
    store.restore(b"operation", Some(b"{}"), None, 1);
    assert_eq!(store.len(), 1);
    assert_eq!(store.by_age.len(), 0);
}

#[test]
fn open_commands_are_counted_as_they_change() {
    let mut store = Store::starting_at(0);
    for number in 0..100 {
        let id = format!("{number}");
        write(&mut store, &id, "sent", number * SECOND_MS);
    }
    let counts = |sent, delivered, overdue| OpenCommands {
        sent,
        delivered,
        overdue,
    };
    assert_eq!(store.open_commands(0), counts(100, 0, 0));
    assert_eq!(store.open_commands(10 * SECOND_MS), counts(100, 0, 10));
    write(&mut store, "3", "delivered", 3 * SECOND_MS);
    assert_eq!(store.open_commands(10 * SECOND_MS), counts(99, 1, 10));
    write(&mut store, "3", "executed", 3 * SECOND_MS);
    write(&mut store, "50", "executed", 50 * SECOND_MS);
    store.remove(b"4");
    assert_eq!(store.open_commands(10 * SECOND_MS), counts(97, 0, 8));
    assert_eq!(store.open_commands(60 * SECOND_MS), counts(97, 0, 57));
    // The clock goes back, and a command arrives that is overdue already.
    write(&mut store, "late", "sent", 0);
    assert_eq!(store.open_commands(5 * SECOND_MS), counts(98, 0, 4));
    assert_eq!(store.open_commands(i64::MAX), counts(98, 0, 98));
}
