//! The last error of each client of a process, in words: the metrics count errors, but
//! a label has no room for their text.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use serde::Serialize;

/// The last error of each client. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct LastErrors(Arc<Mutex<BTreeMap<&'static str, LastError>>>);

/// One error, which may have happened many times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LastError {
    /// The label that counts it in the metrics.
    kind: &'static str,
    /// Contains no secret.
    reason: String,
    first_at: DateTime<Utc>,
    last_at: DateTime<Utc>,
    /// Whether it goes on.
    ongoing: bool,
}

impl LastErrors {
    /// Records that it happened, for the first time or again.
    pub(crate) fn record(&self, client: &'static str, kind: &'static str, reason: &str) {
        let now = Utc::now();
        let mut all = self.lock();
        let same = all
            .get(client)
            .filter(|last| last.ongoing && last.reason == reason);
        let first_at = same.map_or(now, |last| last.first_at);
        let error = LastError {
            kind,
            reason: reason.to_owned(),
            first_at,
            last_at: now,
            ongoing: true,
        };
        all.insert(client, error);
    }

    /// Records that it is over.
    pub(crate) fn end(&self, client: &'static str, reason: &str) {
        let mut all = self.lock();
        if let Some(last) = all.get_mut(client).filter(|last| last.reason == reason) {
            last.ongoing = false;
        }
    }

    /// Returns the last error of each client that had one.
    pub(super) fn all(&self) -> BTreeMap<&'static str, LastError> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, LastError>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_happens_again_keeps_the_time_at_which_it_began_until_it_is_over() {
        let errors = LastErrors::default();
        let last = || errors.all()["ingress"].clone();
        errors.record("ingress", "connect", "refused");
        let first = last();
        errors.record("ingress", "connect", "refused");
        assert_eq!(last().first_at, first.first_at);
        assert!(last().ongoing);
        errors.end("ingress", "another error");
        assert!(last().ongoing);
        errors.end("ingress", "refused");
        assert!(!last().ongoing);
        errors.record("ingress", "connect", "refused");
        assert!(last().ongoing && last().first_at >= first.last_at);
        assert_eq!(errors.all().len(), 1);
    }
}
