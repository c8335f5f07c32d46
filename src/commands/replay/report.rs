//! What a replay prints: a table by reason and destination, and a summary.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};

use super::route::NotReplayable;

/// The dead letters that a replay has found, by what happened to them.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// By reason and destination.
    groups: BTreeMap<(String, String), Group>,
    reasons_found: BTreeSet<String>,
    /// Selected dead letters that an earlier run has replayed.
    pub(super) already_replayed: u64,
    pub(super) replayed: u64,
    /// Selected dead letters that have no destination.
    pub(super) not_replayable: u64,
}

#[derive(Debug)]
struct Group {
    records: u64,
    oldest: DateTime<Utc>,
    newest: DateTime<Utc>,
}

const COLUMNS: [&str; 5] = ["reason", "records", "oldest", "newest", "destination"];

impl Report {
    /// Notes the reason of a dead letter, whether or not it is selected.
    pub(super) fn add_reason(&mut self, reason: &str) {
        if !self.reasons_found.contains(reason) {
            self.reasons_found.insert(reason.to_owned());
        }
    }

    pub(super) fn add_replayed(&mut self, reason: String, written_at: DateTime<Utc>, topic: &str) {
        self.replayed += 1;
        self.add(reason, written_at, topic.to_owned());
    }

    pub(super) fn add_not_replayable(
        &mut self,
        reason: String,
        written_at: DateTime<Utc>,
        cause: &NotReplayable,
    ) {
        self.not_replayable += 1;
        self.add(reason, written_at, format!("none, {cause}"));
    }

    /// Returns whether no dead letter was found, selected or not.
    pub(super) fn is_empty(&self) -> bool {
        self.reasons_found.is_empty() && self.groups.is_empty() && self.already_replayed == 0
    }

    pub(super) fn summary(&self, dry_run: bool) -> String {
        let (replayed, kept, already) = (self.replayed, self.not_replayable, self.already_replayed);
        let selected = replayed + kept + already;
        if selected == 0 {
            return self.nothing_selected();
        }
        let (verb, end) = if dry_run {
            ("would be replayed", "; nothing was changed")
        } else {
            ("replayed", "")
        };
        format!(
            "{selected} selected: {replayed} {verb}, {kept} not replayable, {already} already replayed{end}."
        )
    }

    fn nothing_selected(&self) -> String {
        if self.reasons_found.is_empty() {
            return "No dead letters found.".to_owned();
        }
        let found: Vec<&str> = self.reasons_found.iter().map(String::as_str).collect();
        format!(
            "No dead letters selected; reasons found: {}.",
            found.join(", ")
        )
    }

    fn add(&mut self, reason: String, written_at: DateTime<Utc>, destination: String) {
        let group = self.groups.entry((reason, destination)).or_insert(Group {
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
        let row = |((reason, destination), group): (&(String, String), &Group)| {
            [
                reason.clone(),
                group.records.to_string(),
                time(group.oldest),
                time(group.newest),
                destination.clone(),
            ]
        };
        self.groups.iter().map(row).collect()
    }
}

/// Prints the table, or nothing if it has no rows.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = self.rows();
        if rows.is_empty() {
            return Ok(());
        }
        rows.insert(0, COLUMNS.map(str::to_owned));
        let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
        let [reasons, records, oldest, newest] = [0, 1, 2, 3].map(width);
        for [reason, count, first, last, destination] in &rows {
            writeln!(
                f,
                "{reason:reasons$}  {count:>records$}  {first:oldest$}  {last:newest$}  {destination}"
            )?;
        }
        Ok(())
    }
}
