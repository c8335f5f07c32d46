use std::time::Duration;

use super::super::platform::{Answer, Counts};
use super::super::run::Outcome;
use super::*;

fn outcome(seconds: u32) -> Outcome {
    let mut tally = Tally::new();
    for second in 1..=seconds {
        for answer in 1..50_u64 {
            let kind = if second == 5 && answer == 7 {
                Answer::Status(503)
            } else {
                Answer::Status(200)
            };
            let took = Duration::from_micros(700 * answer);
            tally.count(kind, took, took);
        }
        tally.end_second(Duration::from_secs(second.into()), 0, second == 6);
    }
    Outcome {
        pushes: seconds * 49,
        answered: (0..seconds * 49).collect(),
        tally,
        counts: Counts::default(),
        backlog: 0,
        unanswered: 0,
        started_at: DateTime::UNIX_EPOCH,
        lasted: Duration::from_secs(seconds.into()),
    }
}

fn page(outcome: &Outcome, marks: &[Mark]) -> String {
    let summary = Summary::new(7, outcome);
    let report = Report {
        target: "http://localhost:8080",
        started_at: outcome.started_at,
        policy: "discard",
        rate: 49.0,
        summary: &summary,
        tally: &outcome.tally,
        marks,
    };
    report.to_string()
}

#[test]
fn a_page_loads_nothing_and_runs_nothing() {
    let page = page(&outcome(10), &[]);
    for foreign in [
        "http://www",
        "https:",
        "src=",
        "href=",
        "url(",
        "@import",
        "<script",
    ] {
        assert!(!page.contains(foreign), "{foreign}");
    }
}

#[test]
fn a_page_is_well_formed() {
    let page = page(&outcome(10), &[]);
    let mut open = Vec::new();
    for part in page.split('<').skip(1) {
        let tag = part.split(['>', ' ', '\n']).next().unwrap();
        let whole = part.split('>').next().unwrap();
        if let Some(closed) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(closed), "…{part}");
        } else if !whole.ends_with('/') && !["!doctype", "meta"].contains(&tag) {
            open.push(tag);
        }
    }
    assert_eq!(open, Vec::<&str>::new());
}

#[test]
fn every_kind_of_answer_but_200_has_a_lane_as_a_blacklisted_host_has() {
    let page = page(&outcome(10), &[]);
    assert_eq!(page.matches("height=\"11\"").count(), 2);
    assert!(page.contains(">503</text>") && page.contains(">blacklisted</text>"));
}

#[test]
fn marks_stand_in_both_plots_over_time_and_in_a_table_as_text_alone() {
    let mark = Mark {
        at: Duration::from_secs(4),
        text: "broker <2> & its \"disk\"".to_owned(),
    };
    let page = page(&outcome(10), &[mark]);
    assert_eq!(page.matches("<g class=\"mark\">").count(), 2);
    assert!(page.contains("<td>0:04.0</td><td>broker &lt;2&gt; &amp; its &quot;disk&quot;</td>"));
}

#[test]
fn a_long_run_has_no_more_points_than_anybody_sees() {
    let page = page(&outcome(5_000), &[]);
    assert!(page.contains("each point is the worst of 11 seconds"));
    let points = page.matches("class=\"says\"").count();
    assert!(points < 3 * 480, "{points}");
}

#[test]
fn a_run_without_an_answer_has_a_page() {
    let mut outcome = outcome(0);
    outcome.tally.end_second(Duration::from_secs(1), 3, false);
    let page = page(&outcome, &[]);
    assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
}

#[test]
fn a_time_is_told_in_the_unit_that_reads_best() {
    let told = [0.25, 1.0, 2.5, 40.0, 999.0, 1_500.0, 13_000.0].map(plots::time);
    assert_eq!(
        told,
        [
            "0.25 ms", "1 ms", "2.5 ms", "40 ms", "999 ms", "1.5 s", "13 s"
        ]
    );
}
