//! Runs the target that the variable `TARGET` names, as libFuzzer drives it.

#![no_main]

use std::env;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use northbridge::fuzz;

type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 8] = [
    ("addresses", fuzz::addresses),
    ("body", fuzz::body),
    ("connection", fuzz::connection),
    ("dead_letter", fuzz::dead_letter),
    ("layers", fuzz::layers),
    ("pushes", fuzz::pushes),
    ("reader", fuzz::reader),
    ("stored", fuzz::stored),
];

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = env::var("TARGET").expect("TARGET is set");
    let mut targets = TARGETS.into_iter();
    let found = targets.find(|(target, _)| *target == name);
    found.expect("TARGET is one of the targets").1
});

fuzz_target!(|bytes: &[u8]| TARGET(bytes));
