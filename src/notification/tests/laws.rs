//! The laws of the reader, on generated input.

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;

use super::super::laws::{check_laws, compare_with_tree};
use super::super::*;
use super::BODIES;

#[derive(Debug, Clone)]
enum Mutation {
    Set(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index, usize),
    Repeat(prop::sample::Index, usize),
    Truncate(prop::sample::Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let place = any::<prop::sample::Index>;
    let fragment = prop_oneof![
        vec(any::<u8>(), 1..8),
        prop::sample::select(vec![
            "\"",
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "null",
            "\\",
            "\\u0000",
            "\\ud800",
            "9e999",
            "\u{feff}",
            "\"header\":",
            "\"notifyType\":",
            "\"deviceId\":",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
    ];
    prop_oneof![
        (place(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        (place(), fragment).prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        (place(), 1..40_usize).prop_map(|(at, count)| Mutation::Remove(at, count)),
        (place(), 1..40_usize).prop_map(|(at, count)| Mutation::Repeat(at, count)),
        place().prop_map(Mutation::Truncate),
    ]
}

fn mutate(body: &mut Vec<u8>, mutation: Mutation) {
    let len = body.len();
    let upto = |at: usize, count: usize| at..len.min(at + count);
    match mutation {
        Mutation::Set(at, byte) if len > 0 => body[at.index(len)] = byte,
        Mutation::Set(..) => {}
        Mutation::Insert(at, bytes) => {
            let at = at.index(len + 1);
            body.splice(at..at, bytes);
        }
        Mutation::Remove(at, count) => drop(body.drain(upto(at.index(len + 1), count))),
        Mutation::Repeat(at, count) => body.extend_from_within(upto(at.index(len + 1), count)),
        Mutation::Truncate(at) => body.truncate(at.index(len + 1)),
    }
}

/// A JSON string with each character written literally or as an escape.
fn written(text: String) -> impl Strategy<Value = String> {
    vec(prop::bool::weighted(0.1), text.chars().count()).prop_map(move |escaped| {
        let mut json = String::from("\"");
        for (letter, escape) in text.chars().zip(escaped) {
            if escape || letter.is_control() || letter == '"' || letter == '\\' {
                let mut units = [0; 2];
                let units = letter.encode_utf16(&mut units).iter();
                json.extend(units.map(|unit| format!("\\u{unit:04x}")));
            } else {
                json.push(letter);
            }
        }
        json + "\""
    })
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-z0-9-]{1,12}",
        2 => "/devices/[a-z/]{0,9}(/services/[a-z]{0,3})?",
        1 => any::<String>(),
        1 => Just(String::new()),
        1 => (506..518_usize).prop_map(|count| "x".repeat(count)),
        1 => (506..518_usize).prop_map(|count| format!("/devices/{}", "y".repeat(count))),
    ]
    .prop_flat_map(written)
}

fn scalar() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => text(),
        1 => Just("null".to_owned()),
        1 => Just("[\"a\",{\"deviceId\":\"b\"}]".to_owned()),
        1 => Just("{}".to_owned()),
        1 => any::<i64>().prop_map(|number| number.to_string()),
    ]
}

/// An object with some of the names, in any order and with repeats.
fn object(
    names: &'static [&'static str],
    value: impl Strategy<Value = String> + 'static,
) -> impl Strategy<Value = String> {
    let name = prop_oneof![
        20 => prop::sample::select(names).prop_map(str::to_owned),
        1 => any::<String>(),
    ];
    vec((name.prop_flat_map(written), value), 0..7).prop_map(|pairs| {
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(name, value)| format!("{name}:{value}"))
            .collect();
        format!("{{{}}}", pairs.join(", "))
    })
}

fn notify_type() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just("messageConfirm".to_owned()),
        2 => Just("swUpgradeResultNotify".to_owned()),
        1 => prop::sample::select(NotifyType::ALL).prop_map(|known| known.label().to_owned()),
        1 => "[a-z]{0,3}",
    ]
    .prop_flat_map(written)
}

/// A push of any shape, with values at all the places where the reader looks for ids.
fn push() -> impl Strategy<Value = String> {
    let header = || {
        object(
            &[
                "requestId",
                "deviceId",
                "from",
                "device_id",
                "to",
                "notifyType",
            ],
            scalar(),
        )
    };
    let data = object(
        &["header", "body"],
        prop_oneof![3 => header(), 1 => scalar()],
    );
    let member = prop_oneof![
        3 => notify_type().prop_map(|value| ("notifyType", value)),
        6 => header().prop_map(|value| ("header", value)),
        2 => data.prop_map(|value| ("notify_data", value)),
        9 => (
            prop::sample::select(vec![
                "notifyType", "header", "notify_data", "deviceId", "requestId", "request_id", "commandId",
                "operationId", "ruleId", "result", "resource", "event", "body", "x", "deviceIdIot",
                "device_id", "notify_data.header.device_id",
            ]),
            scalar(),
        ),
    ];
    let member = member.prop_flat_map(|(name, value)| (written(name.to_owned()), Just(value)));
    vec(member, 0..9).prop_map(|members| {
        let members: Vec<_> = members
            .iter()
            .map(|(name, value)| format!("{name}:{value}"))
            .collect();
        format!("{{{}}}", members.join(","))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn any_bytes_are_read_within_the_laws(body in vec(any::<u8>(), 0..300)) {
        check_laws(&body);
    }

    #[test]
    fn any_damaged_body_is_read_within_the_laws(
        (_, body) in prop::sample::select(BODIES),
        mutations in vec(mutation(), 1..6),
    ) {
        let mut body = body.as_bytes().to_vec();
        for mutation in mutations {
            mutate(&mut body, mutation);
        }
        check_laws(&body);
    }

    #[test]
    fn the_key_is_the_one_found_in_a_tree_of_the_whole_body(body in push()) {
        let tree: Value = serde_json::from_str(&body).unwrap();
        check_laws(body.as_bytes());
        compare_with_tree(body.as_bytes(), &tree);
    }
}
