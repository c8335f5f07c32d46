//! One partition's line: at most one batch is outstanding, the rest waits
//! together for its acknowledgement.
//!
//! librdkafka sends every record in a request of its own when it does not wait
//! for more (`linger.ms=0`), and a small cluster drowns in those; waiting by a
//! timer costs every push the timer. A bound on what is outstanding batches by
//! itself and adapts to rate and round trip: under light load a record leaves
//! at once, under heavy load all that came during one round trip leaves
//! together. `docs/BENCHMARKS.md` has what was
//! measured.
//!
//! The lane also knows since when its partition owes an acknowledgement. It
//! knows nothing of librdkafka: whoever calls it sends what it returns.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The line of one partition. `J` is what is sent.
#[derive(Debug)]
pub(super) struct Lane<J> {
    partition: i32,
    state: Mutex<State<J>>,
}

#[derive(Debug)]
struct State<J> {
    outstanding: usize,
    waiting: VecDeque<J>,
    silent_since: Option<Instant>,
}

/// What became of one record that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settled {
    /// The partition's leader answered: with an acknowledgement, or with a
    /// refusal that is about this record alone.
    Answered,
    /// No answer, or one that says that the partition cannot take records now.
    Silent,
}

impl<J> Lane<J> {
    pub(super) fn new(partition: i32) -> Self {
        Self {
            partition,
            state: Mutex::new(State {
                outstanding: 0,
                waiting: VecDeque::new(),
                silent_since: None,
            }),
        }
    }

    pub(super) fn partition(&self) -> i32 {
        self.partition
    }

    /// Takes a job. What is returned is to be sent now; otherwise it waits for
    /// what is outstanding.
    pub(super) fn submit(&self, job: J, now: Instant) -> Option<J> {
        let mut state = self.lock();
        if state.outstanding > 0 {
            state.waiting.push_back(job);
            return None;
        }
        state.outstanding = 1;
        state.silent_since.get_or_insert(now);
        Some(job)
    }

    /// One of the jobs sent was settled. All that is returned is to be sent
    /// now, in this order.
    pub(super) fn settle(&self, settled: Settled, now: Instant) -> VecDeque<J> {
        let mut state = self.lock();
        state.outstanding = state.outstanding.saturating_sub(1);
        if settled == Settled::Answered {
            state.silent_since = (state.outstanding > 0).then_some(now);
        }
        if state.outstanding > 0 {
            return VecDeque::new();
        }
        let batch = std::mem::take(&mut state.waiting);
        state.outstanding = batch.len();
        if !batch.is_empty() {
            state.silent_since.get_or_insert(now);
        }
        batch
    }

    /// How long the partition has owed an answer; zero while it is well.
    pub(super) fn silence(&self, now: Instant) -> Duration {
        self.lock()
            .silent_since
            .map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// The cluster says that the partition can take records. That ends a
    /// silence only if nothing is owed: what is outstanding is better evidence.
    pub(super) fn seen_well(&self) {
        let mut state = self.lock();
        if state.outstanding == 0 {
            state.silent_since = None;
        }
    }

    /// The cluster cannot be asked, or says that the partition takes no records.
    pub(super) fn seen_unwell(&self, now: Instant) {
        self.lock().silent_since.get_or_insert(now);
    }

    fn lock(&self) -> MutexGuard<'_, State<J>> {
        // Nothing under this lock can panic halfway through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_leaves_at_once_when_nothing_is_outstanding() {
        let lane = Lane::new(0);
        assert_eq!(lane.submit("a", Instant::now()), Some("a"));
    }

    #[test]
    fn what_came_during_a_round_trip_leaves_together_in_order() {
        let (lane, now) = (Lane::new(0), Instant::now());
        lane.submit("a", now);
        assert_eq!(lane.submit("b", now), None);
        assert_eq!(lane.submit("c", now), None);
        assert_eq!(lane.settle(Settled::Answered, now), ["b", "c"]);
        assert_eq!(lane.submit("d", now), None);
        assert!(
            lane.settle(Settled::Answered, now).is_empty(),
            "c is outstanding"
        );
        assert_eq!(lane.settle(Settled::Answered, now), ["d"]);
    }

    #[test]
    fn silence_counts_from_the_first_unanswered_record_and_survives_failures() {
        let (lane, start) = (Lane::new(0), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(lane.silence(after(5)), Duration::ZERO);
        lane.submit("a", start);
        lane.settle(Settled::Silent, after(3));
        lane.submit("b", after(4));
        assert_eq!(lane.silence(after(5)), Duration::from_secs(5));
        lane.settle(Settled::Answered, after(6));
        assert_eq!(lane.silence(after(7)), Duration::ZERO);
    }

    #[test]
    fn the_clusters_word_ends_a_silence_only_when_nothing_is_owed() {
        let (lane, start) = (Lane::new(0), Instant::now());
        let later = start + Duration::from_secs(9);
        lane.submit("a", start);
        lane.seen_well();
        assert_eq!(lane.silence(later), Duration::from_secs(9));
        lane.settle(Settled::Silent, later);
        lane.seen_well();
        assert_eq!(lane.silence(later), Duration::ZERO);
        lane.seen_unwell(start);
        assert_eq!(lane.silence(later), Duration::from_secs(9));
    }
}
