//! The outcome of a run as one page, for people who would rather look than
//! read: it loads nothing, and follows the reader's choice of light or dark.
//!
//! Knows what the numbers mean; how curves are drawn belongs to `svg`.

mod plots;
mod svg;

use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};

use super::marks::Mark;
use super::summary::Summary;
use super::tally::Tally;
use svg::escaped;

const STYLE: &str = include_str!("report/style.css");

/// What the page shows.
#[derive(Debug)]
pub struct Report<'a> {
    /// What was pushed to, without credentials.
    pub target: &'a str,
    /// When the run began.
    pub started_at: DateTime<Utc>,
    /// The delivery rules.
    pub policy: &'a str,
    /// Pushes a second that were intended.
    pub rate: f64,
    /// The outcome in numbers.
    pub summary: &'a Summary,
    /// The outcome over time.
    pub tally: &'a Tally,
    /// What somebody else noted meanwhile.
    pub marks: &'a [Mark],
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "<!doctype html>\n<html lang=\"en\">\n<head>")?;
        writeln!(f, "<meta charset=\"utf-8\">")?;
        writeln!(
            f,
            "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">"
        )?;
        writeln!(f, "<title>northbridge simulate {}</title>", self.began())?;
        writeln!(f, "<style>\n{STYLE}</style>\n</head>\n<body>\n<main>")?;
        self.head(f)?;
        self.verdict(f)?;
        self.tiles(f)?;
        self.plots(f)?;
        self.tables(f)?;
        writeln!(f, "</main>\n</body>\n</html>")
    }
}

impl Report<'_> {
    fn began(&self) -> String {
        self.started_at.to_rfc3339_opts(SecondsFormat::Secs, true)
    }

    fn head(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "<header>\n<h1>northbridge simulate</h1>")?;
        writeln!(
            f,
            "<p>{target}, from {began} for {lasted:.0} s at {rate} pushes a second; \
             delivery rules <code>{policy}</code>, seed <code>{seed}</code></p>\n</header>",
            target = escaped(self.target),
            began = self.began(),
            lasted = self.summary.seconds,
            rate = self.rate,
            policy = self.policy,
            seed = self.summary.seed,
        )
    }

    fn verdict(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(stored) = &self.summary.verification {
            let text = if stored.holds {
                format!(
                    "All {} pushes answered 200 are stored as they were sent.",
                    stored.answered200
                )
            } else {
                format!(
                    "Not proved: {} pushes answered 200 are missing, {} records are in the wrong place.",
                    stored.missing, stored.misplaced
                )
            };
            verdict(f, stored.holds, &text, &stored.faults)?;
        }
        if let Some(states) = &self.summary.states {
            let compared = states.commands + states.devices + states.operations;
            let text = if states.holds {
                format!("All {compared} states follow from what is stored.")
            } else {
                format!(
                    "Not proved: {} of {compared} states differ.",
                    states.differing
                )
            };
            verdict(f, states.holds, &text, &states.faults)?;
        }
        Ok(())
    }

    fn tiles(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let summary = self.summary;
        let answered: u64 = summary.answers.values().sum();
        let ok = summary.answers.get("200").copied().unwrap_or(0);
        let latency = &summary.latency_ms;
        writeln!(f, "<dl class=\"tiles\">")?;
        tile(f, "pushes", &summary.pushes.to_string())?;
        tile(f, "answered 200", &ok.to_string())?;
        tile(f, "other outcomes", &(answered - ok).to_string())?;
        tile(f, "latency p50", &plots::time(latency.p50))?;
        tile(f, "latency p99", &plots::time(latency.p99))?;
        tile(f, "latency max", &plots::time(latency.max))?;
        tile(
            f,
            "blacklistings",
            &summary.policy.blacklistings.to_string(),
        )?;
        tile(
            f,
            "lost by policy",
            &summary.policy.lost_by_policy.to_string(),
        )?;
        writeln!(f, "</dl>")
    }

    fn plots(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let timeline = plots::Timeline::of(self.tally, self.marks);
        figure(
            f,
            "Latency over time",
            &format!(
                "From the intended send time, on a scale of decades; each point is {}.",
                timeline.point()
            ),
            &timeline.latency(),
        )?;
        figure(
            f,
            "Answers over time",
            "Answers a second; below, when there was anything but 200, and when the host was blacklisted.",
            &timeline.answers(),
        )?;
        figure(
            f,
            "How long answers took",
            "How many answers took how long; both scales are of decades, so that a single late answer shows.",
            &plots::distribution(self.tally),
        )
    }

    fn tables(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.marks.is_empty() {
            writeln!(
                f,
                "<h2>Marks</h2>\n<table>\n<thead><tr><th>mark</th><th>time</th><th>what</th></tr></thead>\n<tbody>"
            )?;
            for (number, mark) in (1..).zip(self.marks) {
                let (at, text) = (plots::moment(mark.at.as_secs_f64()), escaped(&mark.text));
                writeln!(f, "<tr><td>{number}</td><td>{at}</td><td>{text}</td></tr>")?;
            }
            writeln!(f, "</tbody>\n</table>")?;
        }
        writeln!(f, "<details>\n<summary>Everything as text</summary>")?;
        let text = self.summary.to_string();
        writeln!(f, "<pre>{}</pre>\n</details>", escaped(&text))
    }
}

fn verdict(f: &mut fmt::Formatter<'_>, holds: bool, text: &str, faults: &[String]) -> fmt::Result {
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

fn tile(f: &mut fmt::Formatter<'_>, name: &str, value: &str) -> fmt::Result {
    writeln!(f, "<div><dt>{name}</dt><dd>{value}</dd></div>")
}

fn figure(f: &mut fmt::Formatter<'_>, title: &str, caption: &str, svg: &str) -> fmt::Result {
    writeln!(
        f,
        "<figure>\n<h2>{title}</h2>\n{svg}\n<figcaption>{caption}</figcaption>\n</figure>"
    )
}

#[cfg(test)]
mod tests;
