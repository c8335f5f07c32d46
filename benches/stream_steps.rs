//! What an event of a stream costs without Kafka: read a push, merge it into
//! its state, write the state. `streams` measures the same with all the rest.
//!
//! `cargo bench --bench stream_steps`

#![allow(
    clippy::unwrap_used,
    reason = "a benchmark whose surroundings fail can only panic"
)]

use divan::counter::BytesCount;
use divan::{AllocProfiler, Bencher, black_box};
use northbridge::streams::stream::{
    CommandStatus, Draft, Stream, UpgradeOperations, UpgradeResults,
};
use northbridge::streams::time::Receipt;

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
    event::<CommandStatus>(bencher, None, &confirm("sent"));
}

#[divan::bench]
fn command_executed(bencher: Bencher<'_, '_>) {
    let delivered = step::<CommandStatus>(None, confirm("delivered").as_bytes());
    event::<CommandStatus>(bencher, delivered.as_deref(), &confirm("executed"));
}

#[divan::bench]
fn upgrade_first(bencher: Bencher<'_, '_>) {
    event::<UpgradeResults>(bencher, None, &upgrade("operation-1", "FAIL"));
}

#[divan::bench]
fn upgrade_again(bencher: Bencher<'_, '_>) {
    let failed = step::<UpgradeResults>(None, upgrade("operation-1", "FAIL").as_bytes());
    let again = upgrade("operation-1", "SUCCESS");
    event::<UpgradeResults>(bencher, failed.as_deref(), &again);
}

#[divan::bench]
fn operation_counts_a_device(bencher: Bencher<'_, '_>) {
    let delta = delta(&upgrade("operation-1", "SUCCESS"));
    bencher
        .with_inputs(|| step::<UpgradeOperations>(None, &delta))
        .bench_values(|state| {
            let delta = UpgradeOperations::decode(black_box(&delta), receipt).unwrap();
            let mut draft = Draft::of(None, state);
            black_box(UpgradeOperations::apply(&mut draft, &delta));
            draft.changed()
        });
}

/// Reads, merges and writes one push over a known state.
fn event<S: Stream>(bencher: Bencher<'_, '_>, known: Option<&S::State>, push: &str) {
    let mut value = Vec::new();
    bencher.counter(BytesCount::of_str(push)).bench_local(|| {
        let event = S::decode(black_box(push.as_bytes()), receipt).unwrap();
        let mut draft = Draft::of(known, None);
        let applied = S::apply(&mut draft, &event);
        value.clear();
        serde_json::to_writer(&mut value, &draft.changed().unwrap()).unwrap();
        black_box((applied, value.len()));
    });
}

fn step<S: Stream>(known: Option<&S::State>, record: &[u8]) -> Option<Box<S::State>> {
    let event = S::decode(record, receipt).unwrap();
    let mut draft = Draft::of(known, None);
    S::apply(&mut draft, &event);
    draft.changed()
}

fn delta(push: &str) -> Vec<u8> {
    let event = UpgradeResults::decode(push.as_bytes(), receipt).unwrap();
    let applied = UpgradeResults::apply(&mut Draft::of(None, None), &event);
    applied.forward.unwrap().value
}

fn confirm(status: &str) -> String {
    bodies::message_confirm("request-00000001", "device-000001", status)
}

fn upgrade(operation: &str, result: &str) -> String {
    bodies::upgrade_result("device-00000001", operation, result)
}

fn receipt() -> Receipt {
    Receipt::of_record(Some(b"2026-01-01T00:00:00.000Z"), None)
}
