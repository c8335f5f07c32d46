use super::super::world::{Push, Shares};
use super::*;
use crate::notification::Rules;

const PUSHES: u32 = 600;

fn world() -> World {
    let shares = Shares {
        repeats: 10,
        others: 20,
        upgrades: 20,
        disorder: 5,
        oddities: 10,
    };
    World::new(3, 100, shares, Rules::default())
}

/// The verdict where every push was answered 200, and stored as `store` says.
fn verdict_of(store: impl Fn(u32, Push) -> Vec<Push>) -> Verdict {
    let world = world();
    let answered = (0..PUSHES).collect();
    verdict(&world, &answered, store)
}

fn verdict(world: &World, answered: &Numbers, store: impl Fn(u32, Push) -> Vec<Push>) -> Verdict {
    let index = Index::of(world, PUSHES);
    let mut proof = Proof::new(world, &index, PUSHES, answered);
    for number in (0..PUSHES).rev() {
        for record in store(number, world.push(number.into())) {
            let key = record.key.as_deref().map(str::as_bytes);
            proof.take(record.topic, key, &record.body);
        }
    }
    proof.finish()
}

#[test]
fn what_is_stored_as_it_was_pushed_holds() {
    let verdict = verdict_of(|_, push| vec![push]);
    assert!(verdict.holds());
    assert_eq!(verdict.stored, u64::from(PUSHES));
    assert_eq!((verdict.doubled, verdict.others), (0, 0));
    assert!(verdict.faults.is_empty());
}

#[test]
fn each_dropped_record_is_missing_and_the_first_are_named() {
    let verdict = verdict_of(
        |number, push| {
            if number % 20 == 0 { vec![] } else { vec![push] }
        },
    );
    assert!(!verdict.holds());
    assert_eq!(verdict.missing, 30);
    assert_eq!(verdict.faults.len(), TOLD);
}

#[test]
fn a_changed_byte_is_caught_wherever_it_is() {
    let world = world();
    let answered = (0..1).collect();
    let index = Index::of(&world, 1);
    let push = world.push(0);
    for position in 0..push.body.len() {
        let mut body = push.body.to_vec();
        body[position] ^= 1;
        let mut proof = Proof::new(&world, &index, 1, &answered);
        proof.take(push.topic, push.key.as_deref().map(str::as_bytes), &body);
        let verdict = proof.finish();
        assert_eq!((verdict.missing, verdict.others), (1, 1), "{position}");
    }
}

#[test]
fn another_key_or_none_is_caught() {
    for key in [None, Some("another".to_owned())] {
        let verdict = verdict_of_one(|push| Push {
            key: key.clone(),
            ..push
        });
        assert_eq!((verdict.missing, verdict.misplaced), (1, 1), "{key:?}");
    }
}

#[test]
fn another_topic_is_caught() {
    let verdict = verdict_of_one(|push| Push {
        topic: Topic::Notifications,
        ..push
    });
    assert_eq!((verdict.missing, verdict.misplaced), (1, 1));
    assert_eq!(
        verdict.faults[0].to_string(),
        format!(
            "push 300 is in notifications, key {key}, and belongs in command-status, key {key}",
            key = world().push(300).key.unwrap(),
        ),
    );
}

#[test]
fn a_copy_in_another_place_is_caught_beside_the_right_one() {
    let verdict = verdict_of(|number, push| {
        let misplaced = Push {
            key: None,
            ..push.clone()
        };
        if number == 300 {
            vec![push, misplaced]
        } else {
            vec![push]
        }
    });
    assert_eq!((verdict.missing, verdict.misplaced), (0, 1));
    assert!(!verdict.holds());
}

/// Of a push and its repeat, both answered 200, both are stored.
#[test]
fn one_record_for_a_push_and_its_repeat_is_one_too_few() {
    let world = world();
    let repeated = (1..PUSHES)
        .find(|number| {
            let body = world.push((*number).into()).body;
            (0..*number).any(|earlier| world.push(earlier.into()).body == body)
        })
        .unwrap();
    let verdict = verdict_of(|number, push| {
        if number == repeated {
            vec![]
        } else {
            vec![push]
        }
    });
    assert_eq!(verdict.missing, 1);
}

#[test]
fn what_was_not_answered_200_may_be_stored_or_not() {
    let world = world();
    let answered: Numbers = (0..PUSHES).filter(|number| number % 2 == 0).collect();
    let stored = verdict(&world, &answered, |_, push| vec![push]);
    assert!(stored.holds());
    assert_eq!(stored.unanswered, u64::from(PUSHES) / 2);
    let not_stored = verdict(&world, &answered, |number, push| {
        if number % 2 == 0 { vec![push] } else { vec![] }
    });
    assert!(not_stored.holds());
}

#[test]
fn doubled_records_and_those_of_others_are_counted_and_no_fault() {
    let foreign = Push {
        body: "{}".into(),
        topic: Topic::DeadLetter,
        key: None,
    };
    let verdict = verdict_of(|number, push| {
        if number % 100 == 0 {
            vec![push.clone(), push, foreign.clone()]
        } else {
            vec![push]
        }
    });
    assert!(verdict.holds());
    assert_eq!((verdict.doubled, verdict.others), (6, 6));
}

fn verdict_of_one(change: impl Fn(Push) -> Push) -> Verdict {
    verdict_of(|number, push| {
        if number == 300 {
            vec![change(push)]
        } else {
            vec![push]
        }
    })
}
