//! What an operator is told: a table of what goes where, and the sums.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};

use super::route::Why;

/// What was found and done, or would be.
#[derive(Debug, Default)]
pub(super) struct Report {
    groups: BTreeMap<(String, String), Group>,
    reasons_there: BTreeSet<String>,
    /// Selected, and replayed before.
    pub(super) before: u64,
    /// Sent to where they belong.
    pub(super) sent: u64,
    /// Selected, and left where they are.
    pub(super) stayed: u64,
}

#[derive(Debug)]
struct Group {
    records: u64,
    oldest: DateTime<Utc>,
    newest: DateTime<Utc>,
}

const TITLES: [&str; 5] = ["reason", "records", "oldest", "newest", "goes to"];

impl Report {
    /// There is a dead letter of this reason, selected or not.
    pub(super) fn saw(&mut self, reason: &str) {
        if !self.reasons_there.contains(reason) {
            self.reasons_there.insert(reason.to_owned());
        }
    }

    /// One goes to a topic.
    pub(super) fn goes(&mut self, reason: String, written_at: DateTime<Utc>, topic: &str) {
        self.sent += 1;
        self.add(reason, written_at, topic.to_owned());
    }

    /// One stays.
    pub(super) fn stays(&mut self, reason: String, written_at: DateTime<Utc>, why: &Why) {
        self.stayed += 1;
        self.add(reason, written_at, format!("stays, {why}"));
    }

    /// The sums, in a sentence.
    pub(super) fn summary(&self, dry_run: bool) -> String {
        let selected = self.sent + self.stayed + self.before;
        if selected == 0 {
            return self.nothing();
        }
        let (sent, stayed, before) = (self.sent, self.stayed, self.before);
        let verb = if dry_run {
            "would be replayed"
        } else {
            "replayed"
        };
        let close = if dry_run { "; nothing was changed" } else { "" };
        format!(
            "{selected} selected: {sent} {verb}, {stayed} stay where they are, {before} were replayed before{close}."
        )
    }

    fn nothing(&self) -> String {
        if self.reasons_there.is_empty() {
            return "No dead letters there.".to_owned();
        }
        let there: Vec<&str> = self.reasons_there.iter().map(String::as_str).collect();
        format!("None selected; the reasons there: {}.", there.join(", "))
    }

    fn add(&mut self, reason: String, written_at: DateTime<Utc>, goes_to: String) {
        let group = self.groups.entry((reason, goes_to)).or_insert(Group {
            records: 0,
            oldest: written_at,
            newest: written_at,
        });
        group.records += 1;
        group.oldest = group.oldest.min(written_at);
        group.newest = group.newest.max(written_at);
    }

    fn rows(&self) -> Vec<[String; 5]> {
        let time = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
        let row = |((reason, goes_to), group): (&(String, String), &Group)| {
            [
                reason.clone(),
                group.records.to_string(),
                time(group.oldest),
                time(group.newest),
                goes_to.clone(),
            ]
        };
        self.groups.iter().map(row).collect()
    }
}

/// The table; nothing where it would be empty.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = self.rows();
        if rows.is_empty() {
            return Ok(());
        }
        rows.insert(0, TITLES.map(str::to_owned));
        let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
        let [reasons, records, oldest, newest] = [0, 1, 2, 3].map(width);
        for [reason, count, first, last, goes_to] in &rows {
            writeln!(
                f,
                "{reason:reasons$}  {count:>records$}  {first:oldest$}  {last:newest$}  {goes_to}"
            )?;
        }
        Ok(())
    }
}
