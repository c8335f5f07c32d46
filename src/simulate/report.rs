//! The report of a run: one HTML page that loads nothing else, and follows the
//! browser's preference for light or dark.
//!
//! Knows what the numbers mean; `svg` knows how to draw them.

pub(crate) mod annotations;
mod format;
mod plots;
mod svg;

use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};

use super::load::statistics::Statistics;
use super::summary::Summary;
use annotations::Annotation;
use format::{clock_with_tenths, milliseconds};
use svg::escaped;

const STYLE: &str = include_str!("report/style.css");

/// A page that is written by its `Display`.
#[derive(Debug)]
pub(crate) struct HtmlReport<'a> {
    /// The listener, without credentials.
    pub(crate) target: &'a str,
    pub(crate) started_at: DateTime<Utc>,
    pub(crate) policy: &'a str,
    /// The intended number of pushes a second.
    pub(crate) rate: f64,
    pub(crate) summary: &'a Summary,
    pub(crate) statistics: &'a Statistics,
    pub(crate) annotations: &'a [Annotation],
}

impl fmt::Display for HtmlReport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "<!doctype html>\n<html lang=\"en\">\n<head>")?;
        writeln!(f, "<meta charset=\"utf-8\">")?;
        writeln!(
            f,
            "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">"
        )?;
        writeln!(
            f,
            "<title>northbridge simulate {}</title>",
            self.start_time()
        )?;
        writeln!(f, "<style>\n{STYLE}</style>\n</head>\n<body>\n<main>")?;
        self.write_header(f)?;
        self.write_results(f)?;
        self.write_tiles(f)?;
        self.write_plots(f)?;
        self.write_tables(f)?;
        writeln!(f, "</main>\n</body>\n</html>")
    }
}

impl HtmlReport<'_> {
    fn start_time(&self) -> String {
        self.started_at.to_rfc3339_opts(SecondsFormat::Secs, true)
    }

    fn write_header(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "<header>\n<h1>northbridge simulate</h1>")?;
        writeln!(
            f,
            "<p>{target}, from {start} for {seconds:.0} s at {rate} pushes a second; \
             delivery rules <code>{policy}</code>, seed <code>{seed}</code></p>\n</header>",
            target = escaped(self.target),
            start = self.start_time(),
            seconds = self.summary.seconds,
            rate = self.rate,
            policy = self.policy,
            seed = self.summary.seed,
        )
    }

    fn write_results(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(stored) = &self.summary.verification {
            let text = if stored.holds {
                format!(
                    "All {} pushes answered 200 are stored as they were sent.",
                    stored.answered200
                )
            } else {
                format!(
                    "Not verified: {} pushes answered 200 are missing, {} records are misplaced.",
                    stored.missing, stored.misplaced
                )
            };
            write_result(f, stored.holds, &text, &stored.faults)?;
        }
        if let Some(states) = &self.summary.states {
            let compared = states.commands + states.devices + states.operations;
            let text = if states.holds {
                format!("All {compared} states follow from what is stored.")
            } else {
                format!(
                    "Not verified: {} of {compared} states differ.",
                    states.differing
                )
            };
            write_result(f, states.holds, &text, &states.faults)?;
        }
        Ok(())
    }

    fn write_tiles(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let summary = self.summary;
        let answered: u64 = summary.answers.values().sum();
        let ok = summary.answers.get("200").copied().unwrap_or(0);
        let latency = &summary.latency_ms;
        writeln!(f, "<dl class=\"tiles\">")?;
        write_tile(f, "pushes", &summary.pushes.to_string())?;
        write_tile(f, "answered 200", &ok.to_string())?;
        write_tile(f, "other answers", &(answered - ok).to_string())?;
        write_tile(f, "latency p50", &milliseconds(latency.p50))?;
        write_tile(f, "latency p99", &milliseconds(latency.p99))?;
        write_tile(f, "latency max", &milliseconds(latency.max))?;
        write_tile(
            f,
            "blacklistings",
            &summary.policy.blacklistings.to_string(),
        )?;
        write_tile(
            f,
            "lost by policy",
            &summary.policy.lost_by_policy.to_string(),
        )?;
        writeln!(f, "</dl>")
    }

    fn write_plots(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let timeline = plots::Timeline::new(self.statistics, self.annotations);
        write_figure(
            f,
            "Latency over time",
            &format!(
                "From the intended send time, on a logarithmic scale; each point is {}.",
                timeline.resolution()
            ),
            &timeline.latency_plot(),
        )?;
        write_figure(
            f,
            "Answers over time",
            "Answers per second; below, when answers other than 200 occurred, and when the host was blacklisted.",
            &timeline.answers_plot(),
        )?;
        write_figure(
            f,
            "Distribution of latency",
            "Number of answers by latency; both scales are logarithmic, so that a single late answer is visible.",
            &plots::distribution(self.statistics),
        )
    }

    fn write_tables(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.annotations.is_empty() {
            writeln!(
                f,
                "<h2>Annotations</h2>\n<table>\n<thead><tr><th>number</th><th>time</th><th>annotation</th></tr></thead>\n<tbody>"
            )?;
            for (number, annotation) in (1..).zip(self.annotations) {
                let at = clock_with_tenths(annotation.at.as_secs_f64());
                let text = escaped(&annotation.text);
                writeln!(f, "<tr><td>{number}</td><td>{at}</td><td>{text}</td></tr>")?;
            }
            writeln!(f, "</tbody>\n</table>")?;
        }
        writeln!(f, "<details>\n<summary>Summary as text</summary>")?;
        let text = self.summary.to_string();
        writeln!(f, "<pre>{}</pre>\n</details>", escaped(&text))
    }
}

fn write_result(
    f: &mut fmt::Formatter<'_>,
    holds: bool,
    text: &str,
    faults: &[String],
) -> fmt::Result {
    let (class, sign) = if holds {
        ("holds", "✓")
    } else {
        ("fails", "✗")
    };
    write!(
        f,
        "<div class=\"verdict {class}\"><p><b>{sign}</b> {text}</p>"
    )?;
    if !faults.is_empty() {
        writeln!(f, "<ul>")?;
        for fault in faults {
            writeln!(f, "<li>{}</li>", escaped(fault))?;
        }
        f.write_str("</ul>")?;
    }
    writeln!(f, "</div>")
}

fn write_tile(f: &mut fmt::Formatter<'_>, name: &str, value: &str) -> fmt::Result {
    writeln!(f, "<div><dt>{name}</dt><dd>{value}</dd></div>")
}

fn write_figure(f: &mut fmt::Formatter<'_>, title: &str, caption: &str, svg: &str) -> fmt::Result {
    writeln!(
        f,
        "<figure>\n<h2>{title}</h2>\n{svg}\n<figcaption>{caption}</figcaption>\n</figure>"
    )
}

#[cfg(test)]
mod tests;
