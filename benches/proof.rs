//! The proofs at the size that they are for: time and memory over ten million
//! pushes without a broker, and a long run with both proofs on a real
//! three-broker cluster.
//!
//! `cargo bench --bench proof [-- memory | cluster [PUSHES [RATE]]]`

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark whose surroundings fail can only panic"
)]

use std::fs;
use std::time::{Duration, Instant};

use northbridge::notification::Rules;
use northbridge::simulate::index::Index;
use northbridge::simulate::ledger::Numbers;
use northbridge::simulate::proof::Proof;
use northbridge::simulate::world::{Shares, World};

use support::kafka_cluster::{shared, unique_prefix};
use support::northbridge::{Northbridge, run};

#[path = "../tests/support/mod.rs"]
mod support;

const IN_MEMORY: u32 = 10_000_000;
/// On a cluster, where the command names nothing else: so many, so many a second.
const PUSHES: u32 = 200_000;
const RATE: u32 = 1_500;
/// Each device keeps all its results of seven days: so many pushes for each.
const PUSHES_PER_DEVICE: u32 = 10;
const SAMPLE: Duration = Duration::from_millis(50);
/// What `simulate` says when a proof begins.
const STAGES: [&str; 2] = [
    "reading what is stored",
    "waiting until the streams have caught up",
];

fn main() {
    // Cargo adds a flag of its own.
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let number = |place: usize, default| words.get(place).map_or(default, |it| it.parse().unwrap());
    let is_chosen = |name: &str| words.first().is_none_or(|chosen| chosen == name);
    if is_chosen("memory") {
        in_memory();
    }
    if is_chosen("cluster") {
        on_a_cluster(number(1, PUSHES), number(2, RATE));
    }
}

fn in_memory() {
    let shares = Shares {
        repeats: 2,
        others: 15,
        upgrades: 20,
        disorder: 5,
        oddities: 2,
    };
    let world = World::new(1, 200_000, shares, Rules::default());
    let begin = Instant::now();
    let answered: Numbers = (0..IN_MEMORY).collect();
    let index = Index::of(&world, IN_MEMORY);
    println!("indexed in {:.1?}, peak {}", begin.elapsed(), peak("self"));

    let begin = Instant::now();
    let mut proof = Proof::new(&world, &index, IN_MEMORY, &answered);
    for number in 0..IN_MEMORY {
        let push = world.push(number.into());
        let key = push.key.as_deref().map(str::as_bytes);
        proof.take(push.topic, key, &push.body);
    }
    let verdict = proof.finish();
    println!("compared in {:.1?}, peak {}", begin.elapsed(), peak("self"));
    assert!(verdict.holds(), "{verdict:?}");
    println!("{} of {IN_MEMORY} proved", verdict.stored);
}

fn on_a_cluster(pushes: u32, rate: u32) {
    let (bootstrap, prefix) = (shared().bootstrap(), unique_prefix("proof"));
    let settings = [
        ("kafka.bootstrap_servers", bootstrap),
        ("topics.prefix", &prefix),
        ("streams.group_prefix", &prefix),
    ];
    assert!(run(&["topics", "create"], &settings).status.success());
    let processes = ["ingress", "command-status", "upgrade-result"]
        .map(|command| Northbridge::start(&[command], &settings));
    processes.iter().for_each(Northbridge::ready);

    let url = format!("http://{}/notifications", processes[0].address());
    let (count, rate) = (format!("--count={pushes}"), format!("--rate={rate}"));
    let devices = format!("--devices={}", pushes / PUSHES_PER_DEVICE);
    let flags: [&[&str]; 3] = [
        &["simulate", &url, "--json", "--connections=256"],
        &[&count, &rate, &devices, "--verify-state"],
        &["--catch-up=5m", "--verify", bootstrap, "--seed=1"],
    ];
    let simulate = Northbridge::start(&flags.concat(), &settings);
    for proof in watched(&simulate) {
        println!("{proof}");
    }
    let (code, outcome) = simulate.wait_for_end();
    println!("{outcome}\nexit code {code}");
}

/// How long it pushed, and how long each proof took, with what it held at most
/// by then: from what it says on standard error, to its end.
fn watched(simulate: &Northbridge) -> Vec<String> {
    let process = simulate.pid().as_raw_nonzero().to_string();
    let (mut begin, mut held, mut stages) = (Instant::now(), String::new(), Vec::new());
    let mut stage = "pushing";
    while simulate.exit_code().is_none() {
        let now = peak(&process);
        if !now.is_empty() {
            held = now;
        }
        let said = simulate.log();
        let next = STAGES
            .iter()
            .find(|stage| said.last() == Some(&(**stage).to_owned()));
        if let Some(next) = next.filter(|next| **next != stage) {
            stages.push(format!("{stage}: {:.1?}, peak {held}", begin.elapsed()));
            (stage, begin) = (next, Instant::now());
        }
        std::thread::sleep(SAMPLE);
    }
    stages.push(format!("{stage}: {:.1?}, peak {held}", begin.elapsed()));
    stages
}

/// What a process held at most so far; nothing once it has ended.
fn peak(process: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.unwrap_or_default().trim().to_owned()
}
