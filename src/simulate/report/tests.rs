use std::time::Duration;

use super::*;
use crate::simulate::load::LoadResult;
use crate::simulate::load::answer::Answer;
use crate::simulate::load::delivery_rules::DeliveryCounts;

fn result(seconds: u32) -> LoadResult {
    let mut statistics = Statistics::new();
    for second in 1..=seconds {
        for answer in 1..50_u64 {
            let kind = if second == 5 && answer == 7 {
                Answer::Status(503)
            } else {
                Answer::Status(200)
            };
            let latency = Duration::from_micros(700 * answer);
            statistics.record(kind, latency, latency);
        }
        statistics.close_second(Duration::from_secs(second.into()), 0, second == 6);
    }
    LoadResult {
        pushes: seconds * 49,
        acknowledged: (0..seconds * 49).collect(),
        statistics,
        delivery: DeliveryCounts::default(),
        backlog: 0,
        unanswered: 0,
        started_at: DateTime::UNIX_EPOCH,
        duration: Duration::from_secs(seconds.into()),
    }
}

fn page(result: &LoadResult, annotations: &[Annotation]) -> String {
    let summary = Summary::new(7, result);
    let report = HtmlReport {
        target: "http://localhost:8080",
        started_at: result.started_at,
        policy: "discard",
        rate: 49.0,
        summary: &summary,
        statistics: &result.statistics,
        annotations,
    };
    report.to_string()
}

#[test]
fn a_page_loads_no_resources_and_runs_no_scripts() {
    let page = page(&result(10), &[]);
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
    let page = page(&result(10), &[]);
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
fn every_kind_of_answer_other_than_200_has_a_lane_and_so_has_the_blacklist() {
    let page = page(&result(10), &[]);
    assert_eq!(page.matches("height=\"11\"").count(), 2);
    assert!(page.contains(">503</text>") && page.contains(">blacklisted</text>"));
}

#[test]
fn annotations_appear_escaped_in_both_plots_over_time_and_in_a_table() {
    let annotation = Annotation {
        at: Duration::from_secs(4),
        text: "broker <2> & its \"disk\"".to_owned(),
    };
    let page = page(&result(10), &[annotation]);
    assert_eq!(page.matches("<g class=\"annotation\">").count(), 2);
    assert!(page.contains("<td>0:04.0</td><td>broker &lt;2&gt; &amp; its &quot;disk&quot;</td>"));
}

#[test]
fn a_long_run_is_reduced_to_a_bounded_number_of_points() {
    let page = page(&result(5_000), &[]);
    assert!(page.contains("each point is the worst of 11 seconds"));
    let points = page.matches("class=\"tooltip\"").count();
    assert!(points < 3 * 480, "{points}");
}

#[test]
fn a_run_without_answers_has_a_valid_page() {
    let mut result = result(0);
    result
        .statistics
        .close_second(Duration::from_secs(1), 3, false);
    let page = page(&result, &[]);
    assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
}

#[test]
fn milliseconds_are_shown_in_the_most_readable_unit() {
    let shown = [0.25, 1.0, 2.5, 40.0, 999.0, 1_500.0, 13_000.0].map(milliseconds);
    assert_eq!(
        shown,
        [
            "0.25 ms", "1 ms", "2.5 ms", "40 ms", "999 ms", "1.5 s", "13 s"
        ]
    );
}
