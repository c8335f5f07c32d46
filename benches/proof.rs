//! The proof of what is stored at the size that it is for: time and memory over
//! ten million pushes, all of them answered 200 and stored. No broker takes part.

use std::fs;
use std::time::Instant;

use northbridge::notification::Rules;
use northbridge::simulate::index::Index;
use northbridge::simulate::ledger::Numbers;
use northbridge::simulate::proof::Proof;
use northbridge::simulate::world::{Shares, World};

const PUSHES: u32 = 10_000_000;

fn main() {
    let shares = Shares {
        repeats: 2,
        others: 15,
        upgrades: 20,
        disorder: 5,
        oddities: 2,
    };
    let world = World::new(1, 200_000, shares, Rules::default());
    let begin = Instant::now();
    let answered: Numbers = (0..PUSHES).collect();
    let index = Index::of(&world, PUSHES);
    println!("indexed in {:.1?}, {}", begin.elapsed(), peak());

    let begin = Instant::now();
    let mut proof = Proof::new(&world, &index, PUSHES, &answered);
    for number in 0..PUSHES {
        let push = world.push(number.into());
        let key = push.key.as_deref().map(str::as_bytes);
        proof.take(push.topic, key, &push.body);
    }
    let verdict = proof.finish();
    println!("compared in {:.1?}, {}", begin.elapsed(), peak());
    assert!(verdict.holds(), "{verdict:?}");
    println!("{} of {PUSHES} proved", verdict.stored);
}

/// What the process held at most so far.
fn peak() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    format!("peak {}", peak.unwrap_or("unknown").trim())
}
