//! What a run came to, as the tables of `docs/RELIABILITY.md`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::pushes::Outcome;
use crate::scene::Scene;

/// Writes the tables to `outcome.md` beside the marks, and shows them.
pub(crate) fn report(scene: &Scene) {
    let mut text = String::new();
    faults(&mut text, scene);
    loads(&mut text, &scene.outcomes());
    scene.journal.keep("outcome.md", &text);
    scene.journal.say(&format!("the outcome:\n{text}"));
}

fn faults(text: &mut String, scene: &Scene) {
    text.push_str("| fault | times |\n|---|---:|\n");
    for (kind, times) in scene.journal.faults() {
        let _ = writeln!(text, "| {kind} | {times} |");
    }
    text.push('\n');
}

fn loads(text: &mut String, outcomes: &[(String, Outcome)]) {
    text.push_str(
        "| phase | load | policy | rounds | pushes | answered 200 | acknowledged and lost | doubled | \
         other answers | longest answer | blacklistings | lost by policy |\n\
         |---|---|---|---:|---:|---:|---:|---:|---|---:|---:|---:|\n",
    );
    for (phase, rounds) in by_phase_and_load(outcomes) {
        let sum = |path| rounds.iter().map(|round| round.number(path)).sum::<f64>();
        let longest = rounds.iter().map(|round| round.number("longestAnswerMs"));
        let _ = writeln!(
            text,
            "| {phase} | {} | {} | {} | {} | {} | {} | {} | {} | {:.3} s | {} | {} |",
            rounds[0].load.name,
            rounds[0].load.policy,
            rounds.len(),
            sum("pushes"),
            sum("answers.200"),
            sum("verification.missing"),
            sum("verification.doubled"),
            other_answers(&rounds),
            longest.fold(0.0, f64::max) / 1_000.0,
            sum("blacklistings"),
            sum("lostByPolicy"),
        );
    }
}

/// The rounds of each load of each phase, in the order of the first round.
fn by_phase_and_load(outcomes: &[(String, Outcome)]) -> Vec<(&str, Vec<&Outcome>)> {
    let mut groups: Vec<(&str, Vec<&Outcome>)> = Vec::new();
    for (phase, outcome) in outcomes {
        let same = |(known, rounds): &&mut (&str, Vec<&Outcome>)| {
            known == phase && rounds[0].load.name == outcome.load.name
        };
        match groups.iter_mut().find(same) {
            Some((_, rounds)) => rounds.push(outcome),
            None => groups.push((phase, vec![outcome])),
        }
    }
    groups
}

fn other_answers(rounds: &[&Outcome]) -> String {
    let mut counts = BTreeMap::<String, u64>::new();
    for (answer, count) in rounds.iter().flat_map(|round| round.other_than_200()) {
        *counts.entry(answer).or_default() += count;
    }
    let texts: Vec<String> = counts
        .iter()
        .map(|(answer, count)| format!("{answer}: {count}"))
        .collect();
    if texts.is_empty() {
        "none".to_owned()
    } else {
        texts.join(", ")
    }
}
