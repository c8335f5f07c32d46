//! When a stage starts again after an error, and when it gives its name up.
//!
//! A group fences a static member, and a coordinator a transactional id, if
//! another instance has its name. Both also do so if there is no other: the group
//! after a join that the coordinator answered too late, the coordinator after a
//! transaction that took too long. A stage that was alone works again after one
//! new start. Another live instance starts again as well, and fences it once more:
//! then the younger of the two yields.

use std::time::{Duration, Instant};

/// The pause before the first new start. Each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// A stage that worked for this long has recovered from its last error.
const RECOVERED_AFTER: Duration = Duration::from_secs(60);
/// A stage that is fenced for the first time at a greater age keeps its name.
const YOUNG_FOR: Duration = Duration::from_secs(30);
/// The number of times that a young stage is fenced in a row before it yields.
const MAX_FENCED: u32 = 3;

/// The errors of one stage since it started.
#[derive(Debug)]
pub(super) struct Restarts {
    began: Instant,
    last_error: Option<Instant>,
    pause: Duration,
    last_fenced: Option<Instant>,
    fenced_in_a_row: u32,
    /// Whether it was young when it was fenced for the first time in a row.
    was_young: bool,
}

/// What follows an error.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Start again after this pause.
    Start(Duration),
    /// Leave the name to the instance that has it as well.
    YieldName,
}

impl Restarts {
    pub(super) fn starting_at(began: Instant) -> Self {
        Self {
            began,
            last_error: None,
            pause: FIRST_PAUSE,
            last_fenced: None,
            fenced_in_a_row: 0,
            was_young: false,
        }
    }

    /// Takes an error, and returns what follows.
    pub(super) fn after(&mut self, is_fenced: bool, now: Instant) -> Next {
        if is_fenced && self.must_yield(now) {
            return Next::YieldName;
        }
        if has_recovered(self.last_error, now) {
            self.pause = FIRST_PAUSE;
        }
        self.last_error = Some(now);
        let pause = self.pause;
        self.pause = (pause * 2).min(MAX_PAUSE);
        Next::Start(pause)
    }

    fn must_yield(&mut self, now: Instant) -> bool {
        if has_recovered(self.last_fenced, now) {
            self.fenced_in_a_row = 0;
            self.was_young = now.duration_since(self.began) < YOUNG_FOR;
        }
        self.last_fenced = Some(now);
        self.fenced_in_a_row += 1;
        self.was_young && self.fenced_in_a_row >= MAX_FENCED
    }
}

fn has_recovered(last: Option<Instant>, now: Instant) -> bool {
    last.is_none_or(|last| now.duration_since(last) >= RECOVERED_AFTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What follows each of the errors at these seconds.
    fn follows(errors: &[(u64, bool)]) -> Vec<Next> {
        let began = Instant::now();
        let mut restarts = Restarts::starting_at(began);
        let after = |(second, is_fenced): &(u64, bool)| {
            restarts.after(*is_fenced, began + Duration::from_secs(*second))
        };
        errors.iter().map(after).collect()
    }

    fn starts(pauses_ms: &[u64]) -> Vec<Next> {
        let start = |ms: &u64| Next::Start(Duration::from_millis(*ms));
        pauses_ms.iter().map(start).collect()
    }

    #[test]
    fn a_young_stage_that_is_fenced_again_and_again_yields_its_name() {
        let followed = follows(&[(1, true), (3, true), (6, true)]);
        assert_eq!(followed[..2], starts(&[200, 400]));
        assert_eq!(followed[2], Next::YieldName);
    }

    #[test]
    fn an_old_stage_keeps_its_name() {
        let fenced: Vec<_> = (40..60).map(|second| (second, true)).collect();
        assert!(!follows(&fenced).contains(&Next::YieldName));
    }

    #[test]
    fn a_young_stage_that_is_fenced_now_and_then_keeps_its_name() {
        let followed = follows(&[(1, true), (2, true), (70, true), (110, true), (130, true)]);
        assert_eq!(followed, starts(&[200, 400, 200, 400, 800]));
    }

    #[test]
    fn other_errors_are_followed_by_longer_and_longer_pauses() {
        let errors: Vec<_> = (0..7).map(|second| (second, false)).collect();
        let pauses = [200, 400, 800, 1_600, 3_200, 5_000, 5_000];
        assert_eq!(follows(&errors), starts(&pauses));
    }

    #[test]
    fn the_pause_is_short_again_after_a_while_without_errors() {
        let followed = follows(&[(0, false), (1, false), (100, false)]);
        assert_eq!(followed, starts(&[200, 400, 200]));
    }
}
