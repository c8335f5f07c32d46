use std::collections::{HashMap, HashSet};

use chrono::Utc;
use serde_json::Value;

use super::*;
use crate::notification;
use crate::record::{KeyedRecord, Receipt};

const SHARES: Shares = Shares {
    repeats: 5,
    others: 20,
    upgrades: 25,
    disorder: 10,
    oddities: 20,
};

fn world(rules: Rules) -> World {
    World::new(7, 500, SHARES, rules)
}

fn plain() -> World {
    let shares = Shares {
        repeats: 0,
        others: 0,
        upgrades: 0,
        disorder: 0,
        oddities: 0,
    };
    World::new(7, 500, shares, Rules::default())
}

fn statuses(world: &World, pushes: u64) -> HashMap<String, Vec<String>> {
    let mut statuses: HashMap<String, Vec<String>> = HashMap::new();
    for number in 0..pushes {
        let push = world.push(number);
        let body: Value = serde_json::from_slice(&push.body).unwrap();
        let status = body["header"]["status"].as_str().unwrap().to_owned();
        statuses.entry(push.key.unwrap()).or_default().push(status);
    }
    statuses
}

#[test]
fn the_same_seed_gives_the_same_push_in_any_order_of_asking() {
    let world = world(Rules::default());
    let forwards: Vec<Push> = (0..500).map(|number| world.push(number)).collect();
    let mut backwards: Vec<Push> = (0..500).rev().map(|number| world.push(number)).collect();
    backwards.reverse();
    assert_eq!(forwards, backwards);
}

/// Otherwise one run would take another's record for its own, stored or doubled.
#[test]
fn two_seeds_share_no_push() {
    let shares = Shares {
        oddities: 50,
        ..SHARES
    };
    let bodies = |seed| {
        let world = World::new(seed, 500, shares, Rules::default());
        (0..5_000).map(move |number| world.push(number).body)
    };
    let ours: HashSet<Bytes> = bodies(7).collect();
    let doubles: Vec<Bytes> = bodies(8).filter(|body| ours.contains(body)).collect();
    assert!(doubles.is_empty(), "{doubles:?}");
}

#[test]
fn every_command_is_sent_delivered_and_executed_in_this_order() {
    let statuses = statuses(&plain(), 3_000);
    assert_eq!(statuses.len(), 1_000);
    for (command, statuses) in statuses {
        assert_eq!(statuses, ["sent", "delivered", "executed"], "{command}");
    }
}

#[test]
fn a_share_of_the_commands_is_confirmed_out_of_order() {
    let mut world = plain();
    world.shares.disorder = 10;
    let statuses = statuses(&world, 30_000);
    let disordered = statuses
        .values()
        .filter(|statuses| *statuses != &["sent", "delivered", "executed"])
        .count();
    assert!((800..1_200).contains(&disordered), "{disordered}");
}

#[test]
fn a_campaign_tries_its_failed_devices_again() {
    let mut world = plain();
    world.shares.upgrades = 100;
    let mut results: HashMap<String, Vec<String>> = HashMap::new();
    for number in 0..110 {
        let body: Value = serde_json::from_slice(&world.push(number).body).unwrap();
        let result = body["swUpgradeResult"].as_str().unwrap().to_owned();
        let device = body["deviceId"].as_str().unwrap().to_owned();
        results.entry(device).or_default().push(result);
    }
    assert_eq!(results.len(), 100);
    for results in results.values() {
        assert_eq!(results[0] == "FAIL", results.len() == 2, "{results:?}");
    }
}

#[test]
fn the_share_of_repeats_is_as_chosen_and_nothing_else_is_pushed_twice() {
    let world = world(Rules::default());
    let bodies: HashSet<Bytes> = (0..20_000).map(|number| world.push(number).body).collect();
    let repeated = 20_000 - bodies.len();
    assert!((950..=1_050).contains(&repeated), "{repeated}");
}

#[test]
fn a_split_is_exact_and_its_ranks_rise() {
    for percent in [0, 1, 33, 50, 99, 100] {
        let (mut inside, mut outside) = (0, 0);
        for number in 0..1_000 {
            match split(number, percent) {
                Split::In(rank) => {
                    assert_eq!(rank, inside);
                    inside += 1;
                }
                Split::Out(rank) => {
                    assert_eq!(rank, outside);
                    outside += 1;
                }
            }
        }
        assert_eq!(inside, u64::from(percent) * 10);
    }
}

/// The generator says by itself where a push belongs; here it meets the reader.
#[test]
fn the_reader_places_every_push_where_the_generator_expects_it() {
    for command_key in [CommandKey::RequestId, CommandKey::DeviceId] {
        for validation in [Validation::Tolerant, Validation::Strict] {
            let rules = Rules {
                command_key,
                validation,
            };
            let world = world(rules);
            for number in 0..10_000 {
                let push = world.push(number);
                let (topic, key) = placed(&push.body, rules);
                let text = String::from_utf8_lossy(&push.body);
                assert_eq!((push.topic, push.key), (topic, key), "{number}: {text}");
            }
        }
    }
}

fn placed(body: &Bytes, rules: Rules) -> (Topic, Option<String>) {
    let receipt = Receipt {
        source: Bytes::new(),
        received_at: Utc::now(),
        traceparent: None,
    };
    let record = match notification::read(body, rules) {
        Ok(notification) => KeyedRecord::of_notification(body, &notification, receipt),
        Err(unreadable) => KeyedRecord::of_unreadable(body, &unreadable, receipt),
    };
    let key = record
        .key()
        .map(|key| String::from_utf8(key.to_vec()).unwrap());
    (record.topic(), key)
}

#[test]
fn every_type_and_every_topic_of_the_listener_occurs() {
    let world = world(Rules::default());
    let topics: HashSet<Topic> = (0..5_000).map(|number| world.push(number).topic).collect();
    assert_eq!(topics.len(), 4);
    let types: HashSet<&str> = (0..5_000)
        .map(|number| {
            let push = world.push(number);
            let subject = notification::read(&push.body, Rules::default());
            subject.map_or("other", |known| known.subject().notify_type().label())
        })
        .collect();
    assert_eq!(types.len(), notification::NotifyType::ALL.len());
}
