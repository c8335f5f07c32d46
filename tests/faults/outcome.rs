//! What a run came to, as the tables of `docs/RELIABILITY.md`.

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
        "| phase | load | policy | pushes | answered 200 | acknowledged and lost | doubled | \
         other answers | longest answer | blacklistings | lost by policy |\n\
         |---|---|---|---:|---:|---:|---:|---|---:|---:|---:|\n",
    );
    for (phase, outcome) in outcomes {
        let others = outcome.other_than_200();
        let others: Vec<String> = others
            .iter()
            .map(|(answer, count)| format!("{answer}: {count}"))
            .collect();
        let _ = writeln!(
            text,
            "| {phase} | {} | {} | {} | {} | {} | {} | {} | {:.3} s | {} | {} |",
            outcome.load.name,
            outcome.load.policy,
            outcome.number("pushes"),
            outcome.number("answers.200"),
            outcome.number("verification.missing"),
            outcome.number("verification.doubled"),
            if others.is_empty() {
                "none".to_owned()
            } else {
                others.join(", ")
            },
            outcome.number("longestAnswerMs") / 1_000.0,
            outcome.number("blacklistings"),
            outcome.number("lostByPolicy"),
        );
    }
}
