use std::collections::{HashMap, HashSet};

use chrono::Utc;
use serde_json::Value;

use super::*;
use crate::notification::{self, CommandKey};
use crate::record::{Arrival, KeyedRecord};

const MIX: TrafficMix = TrafficMix {
    repeats: 5,
    others: 20,
    upgrades: 25,
    disorder: 10,
    oddities: 20,
};

fn generator(rules: Rules) -> PushGenerator {
    PushGenerator::new(7, 500, MIX, rules)
}

fn commands_only() -> PushGenerator {
    let mix = TrafficMix {
        repeats: 0,
        others: 0,
        upgrades: 0,
        disorder: 0,
        oddities: 0,
    };
    PushGenerator::new(7, 500, mix, Rules::default())
}

fn statuses_by_command(generator: &PushGenerator, pushes: u64) -> HashMap<String, Vec<String>> {
    let mut statuses: HashMap<String, Vec<String>> = HashMap::new();
    for number in 0..pushes {
        let push = generator.push(number);
        let body: Value = serde_json::from_slice(&push.body).unwrap();
        let status = body["header"]["status"].as_str().unwrap().to_owned();
        statuses.entry(push.key.unwrap()).or_default().push(status);
    }
    statuses
}

#[test]
fn a_push_depends_on_its_seed_and_number_alone() {
    let generator = generator(Rules::default());
    let forwards: Vec<GeneratedPush> = (0..500).map(|number| generator.push(number)).collect();
    let mut backwards: Vec<GeneratedPush> = (0..500)
        .rev()
        .map(|number| generator.push(number))
        .collect();
    backwards.reverse();
    assert_eq!(forwards, backwards);
}

/// Otherwise one run would count another run's records as its own.
#[test]
fn two_seeds_share_no_push() {
    let mix = TrafficMix {
        oddities: 50,
        ..MIX
    };
    let bodies = |seed| {
        let generator = PushGenerator::new(seed, 500, mix, Rules::default());
        (0..5_000).map(move |number| generator.push(number).body)
    };
    let ours: HashSet<Bytes> = bodies(7).collect();
    let shared: Vec<Bytes> = bodies(8).filter(|body| ours.contains(body)).collect();
    assert!(shared.is_empty(), "{shared:?}");
}

#[test]
fn every_command_is_sent_then_delivered_then_executed() {
    let statuses = statuses_by_command(&commands_only(), 3_000);
    assert_eq!(statuses.len(), 1_000);
    for (command, statuses) in statuses {
        assert_eq!(statuses, ["sent", "delivered", "executed"], "{command}");
    }
}

#[test]
fn a_share_of_the_commands_is_confirmed_out_of_order() {
    let mut generator = commands_only();
    generator.scenario.mix.disorder = 10;
    let statuses = statuses_by_command(&generator, 30_000);
    let disordered = statuses
        .values()
        .filter(|statuses| *statuses != &["sent", "delivered", "executed"])
        .count();
    assert!((800..1_200).contains(&disordered), "{disordered}");
}

#[test]
fn a_campaign_retries_its_failed_devices() {
    let mut generator = commands_only();
    generator.scenario.mix.upgrades = 100;
    let mut results: HashMap<String, Vec<String>> = HashMap::new();
    for number in 0..110 {
        let body: Value = serde_json::from_slice(&generator.push(number).body).unwrap();
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
fn the_configured_share_is_repeats_and_every_other_push_is_unique() {
    let generator = generator(Rules::default());
    let bodies: HashSet<Bytes> = (0..20_000)
        .map(|number| generator.push(number).body)
        .collect();
    let repeated = 20_000 - bodies.len();
    assert!((950..=1_050).contains(&repeated), "{repeated}");
}

#[test]
fn a_split_selects_the_exact_percentage_and_its_ranks_rise() {
    for percent in [0, 1, 33, 50, 99, 100] {
        let (mut selected, mut rest) = (0, 0);
        for number in 0..1_000 {
            match split(number, percent) {
                Split::Selected(rank) => {
                    assert_eq!(rank, selected);
                    selected += 1;
                }
                Split::Rest(rank) => {
                    assert_eq!(rank, rest);
                    rest += 1;
                }
            }
        }
        assert_eq!(selected, u64::from(percent) * 10);
    }
}

/// The generator derives topic and key without the product's reader, so the two check each other.
#[test]
fn the_reader_and_the_generator_agree_on_topic_and_key() {
    for command_key in [CommandKey::RequestId, CommandKey::DeviceId] {
        for validation in [Validation::Tolerant, Validation::Strict] {
            let rules = Rules {
                command_key,
                validation,
            };
            let generator = generator(rules);
            for number in 0..10_000 {
                let push = generator.push(number);
                let (topic, key) = topic_and_key(&push.body, rules);
                let text = String::from_utf8_lossy(&push.body);
                assert_eq!((push.topic, push.key), (topic, key), "{number}: {text}");
            }
        }
    }
}

fn topic_and_key(body: &Bytes, rules: Rules) -> (Topic, Option<String>) {
    let arrival = Arrival {
        source: Bytes::new(),
        received_at: Utc::now(),
        traceparent: None,
    };
    let record = match notification::read(body, rules) {
        Ok(notification) => KeyedRecord::from_notification(body, &notification, arrival),
        Err(unreadable) => KeyedRecord::from_unreadable(body, &unreadable, arrival, None),
    };
    let key = record
        .key()
        .map(|key| String::from_utf8(key.to_vec()).unwrap());
    (record.topic(), key)
}

#[test]
fn every_notify_type_and_every_ingress_topic_occurs() {
    let generator = generator(Rules::default());
    let topics: HashSet<Topic> = (0..5_000)
        .map(|number| generator.push(number).topic)
        .collect();
    assert_eq!(topics.len(), 4);
    let types: HashSet<&str> = (0..5_000)
        .map(|number| {
            let push = generator.push(number);
            let subject = notification::read(&push.body, Rules::default());
            subject.map_or("other", |known| known.subject().notify_type().label())
        })
        .collect();
    assert_eq!(types.len(), notification::NotifyType::ALL.len());
}
