//! The verification of `simulate` at the scale it is made for: time and memory
//! for ten million pushes without a broker, and a long run with `--verify` and
//! `--verify-state` on a real three-broker cluster.
//!
//! `cargo bench --bench verification [-- memory | cluster [PUSHES [RATE]]]`

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark whose environment fails can only panic"
)]

use std::fs;
use std::time::{Duration, Instant};

use northbridge::notification::Rules;
use northbridge::simulate::pushes::{PushGenerator, PushSet, TrafficMix};
use northbridge::simulate::verify::{BodyIndex, StoredComparison};

use support::kafka_cluster::{shared, unique_prefix};
use support::northbridge::{Northbridge, run};

#[path = "../tests/support/mod.rs"]
mod support;

const PUSHES_IN_MEMORY: u32 = 10_000_000;
/// On a cluster, unless the command line sets them.
const DEFAULT_PUSHES: u32 = 200_000;
const DEFAULT_RATE: u32 = 1_500;
/// The state of a device holds all its results of seven days, so the number of
/// pushes for each device is kept constant.
const PUSHES_PER_DEVICE: u32 = 10;
const SAMPLING_INTERVAL: Duration = Duration::from_millis(50);
/// The lines on standard error with which `simulate` begins a stage of the
/// verification.
const STAGES: [&str; 2] = [
    "reading the stored records",
    "waiting for the streams to catch up",
];

fn main() {
    // Cargo passes `--bench`.
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let number = |index: usize, default| words.get(index).map_or(default, |it| it.parse().unwrap());
    let is_selected = |name: &str| words.first().is_none_or(|selected| selected == name);
    if is_selected("memory") {
        verify_in_memory();
    }
    if is_selected("cluster") {
        verify_on_a_cluster(number(1, DEFAULT_PUSHES), number(2, DEFAULT_RATE));
    }
}

fn verify_in_memory() {
    let mix = TrafficMix {
        repeats: 2,
        others: 15,
        upgrades: 20,
        disorder: 5,
        oddities: 2,
    };
    let generator = PushGenerator::new(1, 200_000, mix, Rules::default());
    let start = Instant::now();
    let acknowledged: PushSet = (0..PUSHES_IN_MEMORY).collect();
    let index = BodyIndex::new(&generator, PUSHES_IN_MEMORY);
    println!(
        "indexed in {:.1?}, peak {}",
        start.elapsed(),
        peak_memory("self")
    );

    let start = Instant::now();
    let mut comparison = StoredComparison::new(&generator, &index, PUSHES_IN_MEMORY, &acknowledged);
    for number in 0..PUSHES_IN_MEMORY {
        let push = generator.push(number.into());
        let key = push.key.as_deref().map(str::as_bytes);
        comparison.add(push.topic, key, &push.body);
    }
    let result = comparison.finish();
    println!(
        "compared in {:.1?}, peak {}",
        start.elapsed(),
        peak_memory("self")
    );
    assert!(result.holds(), "{result:?}");
    println!("{} of {PUSHES_IN_MEMORY} verified", result.stored);
}

fn verify_on_a_cluster(pushes: u32, rate: u32) {
    let (bootstrap, prefix) = (shared().bootstrap(), unique_prefix("verification"));
    let settings = [
        ("kafka.bootstrap_servers", bootstrap),
        ("topics.prefix", &prefix),
    ];
    assert!(run(&["topics", "create"], &settings).status.success());
    let processes = ["ingress", "command-status", "upgrade-result"]
        .map(|command| Northbridge::start(&[command], &settings));
    processes.iter().for_each(Northbridge::wait_until_ready);

    let url = format!("http://{}/notifications", processes[0].address());
    let (count, rate) = (format!("--count={pushes}"), format!("--rate={rate}"));
    let devices = format!("--devices={}", pushes / PUSHES_PER_DEVICE);
    let flags: [&[&str]; 3] = [
        &["simulate", &url, "--json", "--connections=256"],
        &[&count, &rate, &devices, "--verify-state"],
        &["--catch-up=5m", "--verify", bootstrap, "--seed=1"],
    ];
    let simulate = Northbridge::start(&flags.concat(), &settings);
    for stage in time_stages(&simulate) {
        println!("{stage}");
    }
    let (code, summary) = simulate.wait_for_end();
    println!("{summary}\nexit code {code}");
}

/// Waits for the end of the process. Returns the duration of each stage, and
/// the peak of its memory until then.
fn time_stages(simulate: &Northbridge) -> Vec<String> {
    let process = simulate.pid().as_raw_nonzero().to_string();
    let (mut start, mut peak, mut stages) = (Instant::now(), String::new(), Vec::new());
    let mut stage = "pushing";
    while simulate.exit_code().is_none() {
        let current = peak_memory(&process);
        if !current.is_empty() {
            peak = current;
        }
        let log = simulate.log();
        let begun = STAGES
            .iter()
            .find(|stage| log.last() == Some(&(**stage).to_owned()));
        if let Some(next) = begun.filter(|next| **next != stage) {
            stages.push(format!("{stage}: {:.1?}, peak {peak}", start.elapsed()));
            (stage, start) = (next, Instant::now());
        }
        std::thread::sleep(SAMPLING_INTERVAL);
    }
    stages.push(format!("{stage}: {:.1?}, peak {peak}", start.elapsed()));
    stages
}

/// The peak resident memory of a process; empty once it has ended.
fn peak_memory(process: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.unwrap_or_default().trim().to_owned()
}
