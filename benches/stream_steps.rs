//! The cost of one stream event without Kafka: decode the push, apply it to its
//! state, serialize the state. The benchmark `streams` includes Kafka.
//!
//! `cargo bench --bench stream_steps`

#![allow(
    clippy::unwrap_used,
    reason = "a benchmark whose setup fails can only panic"
)]

use std::sync::atomic::{AtomicI64, Ordering};

use divan::counter::BytesCount;
use divan::{AllocProfiler, Bencher, black_box};
use northbridge::streams::draft::Draft;
use northbridge::streams::states::format::StoredState as _;
use northbridge::streams::states::position::Position;
use northbridge::streams::states::time::ReceivedAt;
use northbridge::streams::stream::{
    CommandStatus, InputRecord, Stream, UpgradeOperations, UpgradeResults,
};

#[path = "../tests/support/bodies.rs"]
#[expect(
    unreachable_pub,
    reason = "shared with crates in which it is reachable"
)]
mod bodies;

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

#[divan::bench]
fn command_sent(bencher: Bencher<'_, '_>) {
    event::<CommandStatus>(bencher, None, &confirmation("sent"));
}

#[divan::bench]
fn command_executed(bencher: Bencher<'_, '_>) {
    let delivered = state_after::<CommandStatus>(confirmation("delivered").as_bytes());
    event::<CommandStatus>(bencher, delivered.as_deref(), &confirmation("executed"));
}

#[divan::bench]
fn first_upgrade_attempt(bencher: Bencher<'_, '_>) {
    event::<UpgradeResults>(bencher, None, &upgrade_result("operation-1", "FAIL"));
}

#[divan::bench]
fn repeated_upgrade_attempt(bencher: Bencher<'_, '_>) {
    let failed = state_after::<UpgradeResults>(upgrade_result("operation-1", "FAIL").as_bytes());
    let succeeded = upgrade_result("operation-1", "SUCCESS");
    event::<UpgradeResults>(bencher, failed.as_deref(), &succeeded);
}

#[divan::bench]
fn operation_progress(bencher: Bencher<'_, '_>) {
    let delta = delta(&upgrade_result("operation-1", "SUCCESS"));
    bencher
        .with_inputs(|| state_after::<UpgradeOperations>(&delta))
        .bench_values(|state| {
            let delta = Record(black_box(&delta));
            let delta = UpgradeOperations::decode(&delta).unwrap();
            let mut draft = Draft::of(None, state);
            black_box(UpgradeOperations::apply(&mut draft, &delta));
            draft.changed()
        });
}

/// Decodes one push, applies it to the committed state and serializes the result.
fn event<S: Stream>(bencher: Bencher<'_, '_>, committed: Option<&S::State>, push: &str) {
    let mut value = Vec::new();
    bencher.counter(BytesCount::of_str(push)).bench_local(|| {
        let record = Record(black_box(push.as_bytes()));
        let event = S::decode(&record).unwrap();
        let mut draft = Draft::of(committed, None);
        let applied = S::apply(&mut draft, &event);
        value.clear();
        let state = draft.changed().unwrap();
        serde_json::to_writer(&mut value, &state).unwrap();
        serde_json::to_writer(&mut value, &state.header()).unwrap();
        black_box((applied, value.len()));
    });
}

/// The state after a first record.
fn state_after<S: Stream>(record: &[u8]) -> Option<Box<S::State>> {
    let record = Record(record);
    let event = S::decode(&record).unwrap();
    let mut draft = Draft::of(None, None);
    S::apply(&mut draft, &event);
    draft.changed()
}

fn delta(push: &str) -> Vec<u8> {
    let record = Record(push.as_bytes());
    let event = UpgradeResults::decode(&record).unwrap();
    let applied = UpgradeResults::apply(&mut Draft::of(None, None), &event);
    applied.forward.unwrap().value
}

fn confirmation(status: &str) -> String {
    bodies::message_confirm("request-00000001", "device-000001", status)
}

fn upgrade_result(operation: &str, result: &str) -> String {
    bodies::upgrade_result("device-00000001", operation, result)
}

/// The value of a record. Each one read is at a later position than all before.
struct Record<'a>(&'a [u8]);

impl InputRecord for Record<'_> {
    fn value(&self) -> &[u8] {
        self.0
    }

    fn received_at(&self) -> ReceivedAt {
        ReceivedAt::of_record(Some(b"2026-01-01T00:00:00.000Z"), None)
    }

    fn position(&self) -> Position {
        static NEXT: AtomicI64 = AtomicI64::new(0);
        Position {
            offset: NEXT.fetch_add(1, Ordering::Relaxed),
            timestamp_ms: 0,
        }
    }
}
