//! The fault run: every component fails under load, and no push that was answered
//! 200 is lost.
//!
//! ```text
//!             ┌────────── simulate: pushes and verifies ──────────┐
//!             ▼                                                   ▼
//!          balancer ─┬─ ingress a ─┐            ┌─ zone a ─┬─ three brokers
//!                    └─ ingress b ─┼─ network ──┤          │
//!      command-status a, b ────────┤            └─ zone b ─┘
//!      upgrade-result a, b ────────┘
//! ```
//!
//! `docs/RELIABILITY.md` describes how to run it for longer, and the results.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test whose environment fails can only panic, and clippy exempts only functions marked as tests"
)]

#[path = "../support/mod.rs"]
mod support;

mod fleet;
mod journal;
mod laws;
mod mix;
mod phases;
mod plan;
mod recovery;
mod simulation;
mod spool;
mod stalls;
mod streams;
mod tables;
mod testbed;

use fastrand::Rng;

use plan::Plan;
use simulation::Simulation;
use testbed::Testbed;

type Phase = fn(&Testbed, &mut Rng);

/// The phases of a round, in their order.
const PHASES: [(&str, Phase); 10] = [
    ("quiet", |testbed, _| phases::quiet(testbed)),
    ("broker-killed", phases::one_broker_killed),
    ("broker-frozen", phases::one_broker_frozen),
    ("short-freezes", streams::short_freezes),
    ("mix", mix::mix),
    ("full-disk", |testbed, _| phases::full_disk(testbed)),
    ("lost-offsets", |testbed, _| streams::lost_offsets(testbed)),
    ("rolling-restart", |testbed, _| {
        phases::rolling_restart(testbed);
    }),
    ("outage", |testbed, _| phases::all_brokers_gone(testbed)),
    ("spooled-outage", spool::all_brokers_gone),
];

#[test]
fn no_fault_loses_an_acknowledged_push() {
    let plan = Plan::from_environment(&PHASES.map(|(name, _)| name));
    let mut random = Rng::with_seed(plan.seed);
    let testbed = Testbed::start(plan);
    let throughout = Simulation::start(&testbed, phases::throughout(&testbed), testbed.plan.seed);
    loop {
        for (name, phase) in PHASES {
            if testbed.plan.has(name) {
                phase(&testbed, &mut random);
            }
        }
        if testbed.journal.started().elapsed() >= testbed.plan.duration {
            break;
        }
    }
    testbed.wait_until_recovered();
    testbed.record("throughout", &throughout.stop(&testbed));
    phases::at_the_end(&testbed);
    tables::report(&testbed);
    let problems = testbed.journal.violations();
    // What follows must be the last words of a run that fails, not the logs of its
    // processes, which are in the run's directory.
    drop(testbed);
    assert!(problems.is_empty(), "{}", problems.join("\n\n"));
}
