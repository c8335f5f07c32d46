use super::*;
use crate::notification::Rules;
use crate::simulate::pushes::{GeneratedPush, TrafficMix};

const PUSHES: u32 = 600;

fn generator() -> PushGenerator {
    let mix = TrafficMix {
        repeats: 10,
        others: 20,
        upgrades: 20,
        disorder: 5,
        oddities: 10,
    };
    PushGenerator::new(3, 100, mix, Rules::default())
}

/// The result if every push was answered 200 and has the records that `store` returns.
fn verify_all(store: impl Fn(u32, GeneratedPush) -> Vec<GeneratedPush>) -> StoredVerification {
    let generator = generator();
    let acknowledged = (0..PUSHES).collect();
    verify(&generator, &acknowledged, store)
}

fn verify(
    generator: &PushGenerator,
    acknowledged: &PushSet,
    store: impl Fn(u32, GeneratedPush) -> Vec<GeneratedPush>,
) -> StoredVerification {
    let index = BodyIndex::new(generator, PUSHES);
    let mut comparison = StoredComparison::new(generator, &index, PUSHES, acknowledged);
    for number in (0..PUSHES).rev() {
        for record in store(number, generator.push(number.into())) {
            let key = record.key.as_deref().map(str::as_bytes);
            comparison.add(record.topic, key, &record.body);
        }
    }
    comparison.finish()
}

#[test]
fn records_equal_to_their_pushes_hold() {
    let result = verify_all(|_, push| vec![push]);
    assert!(result.holds());
    assert_eq!(result.stored, u64::from(PUSHES));
    assert_eq!((result.duplicates, result.foreign), (0, 0));
    assert!(result.faults.is_empty());
}

#[test]
fn each_dropped_record_is_missing_and_the_first_are_listed() {
    let result = verify_all(
        |number, push| {
            if number % 20 == 0 { vec![] } else { vec![push] }
        },
    );
    assert!(!result.holds());
    assert_eq!(result.missing, 30);
    assert_eq!(result.faults.len(), MAX_LISTED_FAULTS);
}

#[test]
fn a_changed_byte_is_detected_at_any_position() {
    let generator = generator();
    let acknowledged = (0..1).collect();
    let index = BodyIndex::new(&generator, 1);
    let push = generator.push(0);
    for position in 0..push.body.len() {
        let mut body = push.body.to_vec();
        body[position] ^= 1;
        let mut comparison = StoredComparison::new(&generator, &index, 1, &acknowledged);
        comparison.add(push.topic, push.key.as_deref().map(str::as_bytes), &body);
        let result = comparison.finish();
        assert_eq!((result.missing, result.foreign), (1, 1), "{position}");
    }
}

#[test]
fn a_wrong_or_absent_key_is_detected() {
    for key in [None, Some("another".to_owned())] {
        let result = verify_altered(|push| GeneratedPush {
            key: key.clone(),
            ..push
        });
        assert_eq!((result.missing, result.misplaced), (1, 1), "{key:?}");
    }
}

#[test]
fn a_wrong_topic_is_detected() {
    let result = verify_altered(|push| GeneratedPush {
        topic: Topic::Notifications,
        ..push
    });
    assert_eq!((result.missing, result.misplaced), (1, 1));
    assert_eq!(
        result.faults[0].to_string(),
        format!(
            "push 300 is in notifications, key {key}, and belongs in command-status, key {key}",
            key = generator().push(300).key.unwrap(),
        ),
    );
}

#[test]
fn a_misplaced_copy_is_detected_beside_the_correct_record() {
    let result = verify_all(|number, push| {
        let misplaced = GeneratedPush {
            key: None,
            ..push.clone()
        };
        if number == 300 {
            vec![push, misplaced]
        } else {
            vec![push]
        }
    });
    assert_eq!((result.missing, result.misplaced), (0, 1));
    assert!(!result.holds());
}

/// If a push and its repeat are both answered 200, both must be stored.
#[test]
fn a_push_and_its_repeat_need_a_record_each() {
    let generator = generator();
    let repeated = (1..PUSHES)
        .find(|number| {
            let body = generator.push((*number).into()).body;
            (0..*number).any(|earlier| generator.push(earlier.into()).body == body)
        })
        .unwrap();
    let result = verify_all(|number, push| {
        if number == repeated {
            vec![]
        } else {
            vec![push]
        }
    });
    assert_eq!(result.missing, 1);
}

#[test]
fn a_push_not_answered_200_may_be_stored_or_not() {
    let generator = generator();
    let acknowledged: PushSet = (0..PUSHES).filter(|number| number % 2 == 0).collect();
    let stored = verify(&generator, &acknowledged, |_, push| vec![push]);
    assert!(stored.holds());
    assert_eq!(stored.unacknowledged, u64::from(PUSHES) / 2);
    let not_stored = verify(&generator, &acknowledged, |number, push| {
        if number % 2 == 0 { vec![push] } else { vec![] }
    });
    assert!(not_stored.holds());
}

#[test]
fn duplicates_and_foreign_records_are_counted_and_are_not_faults() {
    let foreign = GeneratedPush {
        body: "{}".into(),
        topic: Topic::DeadLetter,
        key: None,
    };
    let result = verify_all(|number, push| {
        if number % 100 == 0 {
            vec![push.clone(), push, foreign.clone()]
        } else {
            vec![push]
        }
    });
    assert!(result.holds());
    assert_eq!((result.duplicates, result.foreign), (6, 6));
}

fn verify_altered(change: impl Fn(GeneratedPush) -> GeneratedPush) -> StoredVerification {
    verify_all(|number, push| {
        if number == 300 {
            vec![change(push)]
        } else {
            vec![push]
        }
    })
}
