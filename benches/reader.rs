//! Reading a body alone, without HTTP or Kafka: time, bytes per second and
//! allocations, above all for the two types with a stream of their own.

use divan::counter::BytesCount;
use divan::{AllocProfiler, Bencher, black_box};
use northbridge::notification::{CommandKey, Rules, Validation, read};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

const MESSAGE_CONFIRM: &[u8] = include_bytes!("../tests/bodies/messageConfirm.json");
const UPGRADE_RESULT: &[u8] = include_bytes!("../tests/bodies/swUpgradeResultNotify.json");
const ENVELOPE: &[u8] = include_bytes!("../tests/bodies/envelope.json");

fn main() {
    divan::main();
}

#[divan::bench(sample_size = 1_000)]
fn message_confirm(bencher: Bencher<'_, '_>) {
    bench(bencher, MESSAGE_CONFIRM, Rules::default());
}

#[divan::bench(sample_size = 1_000)]
fn message_confirm_by_device_strict(bencher: Bencher<'_, '_>) {
    let rules = Rules {
        command_key: CommandKey::DeviceId,
        validation: Validation::Strict,
    };
    bench(bencher, MESSAGE_CONFIRM, rules);
}

#[divan::bench(sample_size = 1_000)]
fn upgrade_result(bencher: Bencher<'_, '_>) {
    bench(bencher, UPGRADE_RESULT, Rules::default());
}

/// The name of this type is composed, which costs an allocation.
#[divan::bench(sample_size = 1_000)]
fn envelope(bencher: Bencher<'_, '_>) {
    bench(bencher, ENVELOPE, Rules::default());
}

fn bench(bencher: Bencher<'_, '_>, body: &'static [u8], rules: Rules) {
    bencher
        .counter(BytesCount::of_slice(body))
        .bench(|| read(black_box(body), rules).is_ok());
}
