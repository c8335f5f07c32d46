//! The fault run: everything that can break does, under load, and nothing that
//! was answered 200 is lost.
//!
//! ```text
//!             ┌────────── simulate: pushes, then proves ──────────┐
//!             ▼                                                   ▼
//!          balancer ─┬─ ingress a ─┐            ┌─ zone a ─┬─ three brokers
//!                    └─ ingress b ─┼─ network ──┤          │
//!      command-status a, b ────────┤            └─ zone b ─┘
//!      upgrade-result a, b ────────┘
//! ```
//!
//! `docs/RELIABILITY.md` says how to run it for longer, and what came of it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test whose surroundings fail can only panic, and clippy sees tests by their attribute alone"
)]

#[path = "../support/mod.rs"]
mod support;

mod fleet;
mod journal;
mod laws;
mod mix;
mod outcome;
mod phases;
mod plan;
mod pushes;
mod recovery;
mod scene;

use fastrand::Rng;

use plan::Plan;
use pushes::Pushes;
use scene::Scene;

#[test]
fn whatever_breaks_nothing_acknowledged_is_lost() {
    let plan = Plan::from_environment();
    let mut random = Rng::with_seed(plan.seed);
    let scene = Scene::set(plan);
    let throughout = Pushes::start(&scene, phases::throughout(&scene), scene.plan.seed);
    loop {
        phases::quiet(&scene);
        phases::one_broker_killed(&scene, &mut random);
        phases::one_broker_frozen(&scene, &mut random);
        mix::mix(&scene, &mut random);
        phases::full_disk(&scene);
        phases::rolling_restart(&scene);
        phases::all_brokers_gone(&scene);
        if scene.journal.started().elapsed() >= scene.plan.duration {
            break;
        }
    }
    scene.settle();
    scene.take("throughout", &throughout.stop(&scene));
    phases::at_the_end(&scene);
    outcome::report(&scene);
    let problems = scene.journal.problems();
    assert!(problems.is_empty(), "{}", problems.join("\n\n"));
}
