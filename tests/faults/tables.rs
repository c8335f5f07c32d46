//! The results of a run in the format of the tables in `docs/RELIABILITY.md`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::simulation::SimulationResult;
use crate::testbed::Testbed;

/// Writes the tables to `outcome.md` in the run's directory, and prints them.
pub(crate) fn report(testbed: &Testbed) {
    let mut text = String::new();
    let journal = &testbed.journal;
    counts(&mut text, "fault", &journal.faults());
    counts(
        &mut text,
        "processes that ended by themselves",
        &journal.ended(),
    );
    loads(&mut text, &testbed.results());
    testbed.journal.keep("outcome.md", &text);
    testbed.journal.print(&format!("results:\n{text}"));
}

fn counts(text: &mut String, title: &str, counts: &BTreeMap<String, u32>) {
    let _ = write!(text, "| {title} | times |\n|---|---:|\n");
    for (kind, times) in counts {
        let _ = writeln!(text, "| {kind} | {times} |");
    }
    text.push('\n');
}

fn loads(text: &mut String, results: &[(String, SimulationResult)]) {
    text.push_str(
        "| phase | load | policy | rounds | pushes | answered 200 | acknowledged and lost | duplicates | \
         other answers | longest answer | blacklistings | lost by policy |\n\
         |---|---|---|---:|---:|---:|---:|---:|---|---:|---:|---:|\n",
    );
    for (phase, rounds) in by_phase_and_load(results) {
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

/// Groups the results of all rounds by phase and load, in order of appearance.
fn by_phase_and_load(
    results: &[(String, SimulationResult)],
) -> Vec<(&str, Vec<&SimulationResult>)> {
    let mut groups: Vec<(&str, Vec<&SimulationResult>)> = Vec::new();
    for (phase, result) in results {
        let same = |(known, rounds): &&mut (&str, Vec<&SimulationResult>)| {
            known == phase && rounds[0].load.name == result.load.name
        };
        match groups.iter_mut().find(same) {
            Some((_, rounds)) => rounds.push(result),
            None => groups.push((phase, vec![result])),
        }
    }
    groups
}

fn other_answers(rounds: &[&SimulationResult]) -> String {
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
