//! The lane of one partition: at most one batch is outstanding, and records
//! submitted meanwhile form the next batch.
//!
//! With `linger.ms=0` librdkafka sends nearly every record in a request of its
//! own, which overloads a small cluster; a longer linger delays every push by
//! that time. A bound on what is outstanding needs no timer and adapts to rate
//! and round-trip time: under light load a record leaves at once, under heavy
//! load everything submitted during one round trip leaves together.
//! `docs/BENCHMARKS.md` has the measurements.
//!
//! A record that failed comes back to its lane, which pauses: later records of
//! its key must not overtake it. Brokers reject a batch as a whole, so the records of
//! one that was rejected are sent one at a time, until the one at fault is found. While
//! the producer is replaced, a lane holds everything; then it is retired, and new lanes
//! take what it held.
//!
//! A lane also tracks since when its partition has been unavailable. It knows
//! nothing of librdkafka: its caller sends the jobs that it releases.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The lane of one partition; `J` is one record to be sent.
#[derive(Debug)]
pub(super) struct Lane<J> {
    partition: i32,
    state: Mutex<State<J>>,
}

#[derive(Debug)]
struct State<J> {
    phase: Phase,
    /// Records of the current batch.
    batch: usize,
    /// Those of them that are not settled yet.
    outstanding: usize,
    /// How many of the next batches are of one record.
    one_by_one: usize,
    /// The next batch.
    waiting: VecDeque<J>,
    unacknowledged_since: Option<Instant>,
    /// How long the partition was unavailable before the metadata showed it as available
    /// again, as long as no acknowledgement has proven that.
    unproven: Duration,
    /// Since when the metadata has shown the partition as available.
    available_since: Option<Instant>,
    /// The largest offset that was acknowledged.
    acknowledged: Option<i64>,
}

/// What a lane does with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Sends it if nothing is outstanding.
    Open,
    /// Keeps it for a moment, because another one failed.
    Paused,
    /// Keeps it, because the producer is being replaced.
    Held,
    /// Returns it: other lanes have taken the place of this one.
    Retired,
}

/// How one record that was sent was settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settled {
    /// The partition's leader acknowledged the record at this offset.
    Acknowledged(i64),
    /// The partition's leader rejected this record, which was alone in its batch. That
    /// shows that the partition is available.
    Rejected,
    /// The partition's leader rejected a batch that this record was in.
    RejectedTogether,
    /// The leader did not answer, or answered that the partition is not
    /// available.
    Failed,
}

/// What the caller does after a record was settled.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<J> {
    /// Nothing: others are outstanding, or the lane is held or retired.
    Nothing,
    /// Sends these now, in this order; there may be none.
    Send(VecDeque<J>),
    /// Resumes the lane after a pause.
    Resume,
}

impl<J> Lane<J> {
    pub(super) fn new(partition: i32) -> Self {
        Self::in_phase(Phase::Open, partition)
    }

    /// A lane that holds its records until [`Lane::open`].
    pub(super) fn held(partition: i32) -> Self {
        Self::in_phase(Phase::Held, partition)
    }

    fn in_phase(phase: Phase, partition: i32) -> Self {
        Self {
            partition,
            state: Mutex::new(State {
                phase,
                batch: 0,
                outstanding: 0,
                one_by_one: 0,
                waiting: VecDeque::new(),
                unacknowledged_since: None,
                unproven: Duration::ZERO,
                available_since: None,
                acknowledged: None,
            }),
        }
    }

    pub(super) fn partition(&self) -> i32 {
        self.partition
    }

    /// Returns the job if it is to be sent now; otherwise keeps it for the
    /// next batch.
    ///
    /// # Errors
    ///
    /// Returns the job if the lane is retired.
    pub(super) fn submit(&self, job: J, now: Instant) -> Result<Option<J>, J> {
        let mut state = self.lock();
        match state.phase {
            Phase::Open if state.outstanding == 0 => {
                (state.batch, state.outstanding) = (1, 1);
                state.unacknowledged_since.get_or_insert(now);
                Ok(Some(job))
            }
            Phase::Open | Phase::Paused | Phase::Held => {
                state.waiting.push_back(job);
                Ok(None)
            }
            Phase::Retired => Err(job),
        }
    }

    /// What the rejection of a record says about it.
    pub(super) fn rejected(&self) -> Settled {
        if self.lock().batch > 1 {
            Settled::RejectedTogether
        } else {
            Settled::Rejected
        }
    }

    /// Settles one job that was sent.
    pub(super) fn settle(&self, settled: Settled, now: Instant) -> Next<J> {
        let mut state = self.lock();
        state.settle(settled, now);
        state.next(now)
    }

    /// Takes back a job that was not acknowledged, to be sent again.
    ///
    /// # Errors
    ///
    /// Returns the job if the lane is retired.
    pub(super) fn take_back(&self, job: J, settled: Settled, now: Instant) -> Result<Next<J>, J> {
        let mut state = self.lock();
        match state.phase {
            Phase::Open => state.phase = Phase::Paused,
            Phase::Paused | Phase::Held => {}
            Phase::Retired => return Err(job),
        }
        state.settle(settled, now);
        state.waiting.push_back(job);
        Ok(state.next(now))
    }

    /// Ends a pause. Returns what is to be sent now, of what the lane kept, by age.
    pub(super) fn resume<A: Ord>(&self, now: Instant, age: impl FnMut(&J) -> A) -> VecDeque<J> {
        let mut state = self.lock();
        if state.phase != Phase::Paused {
            return VecDeque::new();
        }
        state.phase = Phase::Open;
        // Those that failed are behind those that came later.
        state.waiting.make_contiguous().sort_by_key(age);
        state.next_batch(now)
    }

    /// Takes what waits for the next batch, in its order.
    pub(super) fn take_waiting(&self) -> VecDeque<J> {
        std::mem::take(&mut self.lock().waiting)
    }

    /// Takes what waits for the next batch and is expired.
    pub(super) fn take_expired(&self, is_expired: impl Fn(&J) -> bool) -> VecDeque<J> {
        let mut state = self.lock();
        let waiting = std::mem::take(&mut state.waiting).into_iter();
        let (expired, waiting) = waiting.partition(is_expired);
        state.waiting = waiting;
        expired
    }

    /// Sends nothing more until the lane is retired.
    pub(super) fn hold(&self) {
        let mut state = self.lock();
        if state.phase != Phase::Retired {
            state.phase = Phase::Held;
        }
    }

    pub(super) fn is_held(&self) -> bool {
        self.lock().phase == Phase::Held
    }

    /// Ends the lane. Returns the jobs that it held.
    pub(super) fn retire(&self) -> VecDeque<J> {
        let mut state = self.lock();
        state.phase = Phase::Retired;
        std::mem::take(&mut state.waiting)
    }

    /// Opens a lane that held its records. Returns `earlier` and those, to be
    /// sent now and in this order.
    pub(super) fn open(&self, mut earlier: VecDeque<J>, now: Instant) -> VecDeque<J> {
        let mut state = self.lock();
        earlier.append(&mut state.waiting);
        state.waiting = earlier;
        state.phase = Phase::Open;
        state.next_batch(now)
    }

    /// How long the partition has been without an acknowledgement that is due,
    /// or without a leader; zero if it is healthy.
    pub(super) fn unacknowledged_for(&self, now: Instant) -> Duration {
        self.lock()
            .unacknowledged_since
            .map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// How long the partition was unavailable, if the metadata shows it as available again
    /// and no acknowledgement has proven that; otherwise zero.
    pub(super) fn unproven(&self) -> Duration {
        self.lock().unproven
    }

    /// Returns whether records fail at once: the partition has been unacknowledged
    /// for `limit`, and has not become available within that time. One that has
    /// just become available may need seconds for its first acknowledgement: a
    /// broker that starts answers its partitions one after the other.
    pub(super) fn is_down(&self, limit: Duration, now: Instant) -> bool {
        let expected_since = self.lock().expected_since();
        expected_since.is_some_and(|since| now.saturating_duration_since(since) >= limit)
    }

    /// Returns whether the metadata shows the partition as available, and it is not
    /// [down](Lane::is_down).
    pub(super) fn is_available(&self, limit: Duration, now: Instant) -> bool {
        !self.is_down(limit, now) && self.lock().available_since.is_some()
    }

    /// How long the partition has been without an acknowledgement that is due
    /// although the metadata shows it as available; zero if nothing is due.
    pub(super) fn stalled_for(&self, now: Instant) -> Duration {
        let state = self.lock();
        state
            .expected_since()
            .filter(|_| state.outstanding > 0 && state.available_since.is_some())
            .map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// The largest offset that was acknowledged.
    pub(super) fn acknowledged(&self) -> Option<i64> {
        self.lock().acknowledged
    }

    /// Records that the metadata shows the partition as available. That ends no
    /// silence while records are outstanding: a frozen broker is still the
    /// leader in the metadata, and a missing acknowledgement is the better
    /// evidence.
    pub(super) fn mark_available(&self, now: Instant) {
        let mut state = self.lock();
        state.available_since.get_or_insert(now);
        if state.outstanding == 0
            && let Some(since) = state.unacknowledged_since.take()
        {
            let lasted = now.saturating_duration_since(since);
            state.unproven = state.unproven.max(lasted);
        }
    }

    /// Records that there is no metadata, or that it shows the partition as
    /// unavailable.
    pub(super) fn mark_unavailable(&self, now: Instant) {
        let mut state = self.lock();
        state.available_since = None;
        state.unacknowledged_since.get_or_insert(now);
    }

    fn lock(&self) -> MutexGuard<'_, State<J>> {
        // Nothing under this lock can panic halfway through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<J> State<J> {
    /// Since when an acknowledgement that is due could have come.
    fn expected_since(&self) -> Option<Instant> {
        let since = self.unacknowledged_since?;
        Some(self.available_since.map_or(since, |at| since.max(at)))
    }

    fn settle(&mut self, settled: Settled, now: Instant) {
        self.outstanding = self.outstanding.saturating_sub(1);
        match settled {
            Settled::Acknowledged(offset) => {
                self.acknowledged = self.acknowledged.max(Some(offset));
            }
            Settled::RejectedTogether => self.one_by_one = self.batch,
            Settled::Rejected => {}
            Settled::Failed => return,
        }
        self.unproven = Duration::ZERO;
        // The rest of the batch has waited since now, not since it was sent.
        self.unacknowledged_since = (self.outstanding > 0).then_some(now);
    }

    fn next(&mut self, now: Instant) -> Next<J> {
        match self.phase {
            Phase::Open if self.outstanding == 0 => Next::Send(self.next_batch(now)),
            Phase::Paused if self.outstanding == 0 => Next::Resume,
            Phase::Open | Phase::Paused | Phase::Held | Phase::Retired => Next::Nothing,
        }
    }

    fn next_batch(&mut self, now: Instant) -> VecDeque<J> {
        let rest = match self.one_by_one.checked_sub(1) {
            Some(left) if !self.waiting.is_empty() => {
                self.one_by_one = left;
                self.waiting.split_off(1)
            }
            _ => {
                self.one_by_one = 0;
                VecDeque::new()
            }
        };
        let batch = std::mem::replace(&mut self.waiting, rest);
        (self.batch, self.outstanding) = (batch.len(), batch.len());
        if !batch.is_empty() {
            self.unacknowledged_since.get_or_insert(now);
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACKNOWLEDGED: Settled = Settled::Acknowledged(0);

    fn send<const N: usize>(jobs: [&'static str; N]) -> Next<&'static str> {
        Next::Send(VecDeque::from(jobs))
    }

    /// Jobs are as old as their names say.
    fn resume(lane: &Lane<&'static str>, now: Instant) -> VecDeque<&'static str> {
        lane.resume(now, |job| *job)
    }

    #[test]
    fn a_record_leaves_at_once_if_nothing_is_outstanding() {
        let lane = Lane::new(0);
        assert_eq!(lane.submit("a", Instant::now()), Ok(Some("a")));
    }

    #[test]
    fn records_submitted_during_a_round_trip_leave_together_in_order() {
        let (lane, now) = (Lane::new(0), Instant::now());
        lane.submit("a", now).unwrap();
        assert_eq!(lane.submit("b", now), Ok(None));
        assert_eq!(lane.submit("c", now), Ok(None));
        assert_eq!(lane.settle(ACKNOWLEDGED, now), send(["b", "c"]));
        assert_eq!(lane.submit("d", now), Ok(None));
        let next = lane.settle(ACKNOWLEDGED, now);
        assert_eq!(next, Next::Nothing, "c is outstanding");
        assert_eq!(lane.settle(ACKNOWLEDGED, now), send(["d"]));
    }

    #[test]
    fn the_time_without_acknowledgement_counts_from_the_first_record_across_failures() {
        let (lane, start) = (Lane::new(0), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(lane.unacknowledged_for(after(5)), Duration::ZERO);
        lane.submit("a", start).unwrap();
        lane.settle(Settled::Failed, after(3));
        lane.submit("b", after(4)).unwrap();
        assert_eq!(lane.unacknowledged_for(after(5)), Duration::from_secs(5));
        lane.settle(ACKNOWLEDGED, after(6));
        assert_eq!(lane.unacknowledged_for(after(7)), Duration::ZERO);
    }

    #[test]
    fn metadata_marks_a_partition_available_only_if_nothing_is_outstanding() {
        let (lane, start) = (Lane::new(0), Instant::now());
        let later = start + Duration::from_secs(9);
        lane.submit("a", start).unwrap();
        lane.mark_available(start);
        assert_eq!(lane.unacknowledged_for(later), Duration::from_secs(9));
        lane.settle(Settled::Failed, later);
        lane.mark_available(later);
        assert_eq!(lane.unacknowledged_for(later), Duration::ZERO);
        lane.mark_unavailable(start);
        assert_eq!(lane.unacknowledged_for(later), Duration::from_secs(9));
    }

    #[test]
    fn only_an_acknowledgement_proves_that_a_partition_is_available_again() {
        let (lane, start) = (Lane::new(0), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        lane.mark_unavailable(start);
        lane.mark_available(after(5));
        lane.mark_available(after(6));
        assert_eq!(lane.unacknowledged_for(after(7)), Duration::ZERO);
        assert_eq!(lane.unproven(), Duration::from_secs(5));
        lane.mark_unavailable(after(7));
        lane.mark_available(after(8));
        assert_eq!(lane.unproven(), Duration::from_secs(5), "the longest one");
        lane.submit("a", after(8)).unwrap();
        lane.settle(Settled::Failed, after(9));
        assert_eq!(lane.unproven(), Duration::from_secs(5));
        lane.submit("b", after(9)).unwrap();
        lane.settle(ACKNOWLEDGED, after(10));
        assert_eq!(lane.unproven(), Duration::ZERO);
    }

    #[test]
    fn a_partition_stalls_while_it_is_available_and_acknowledges_nothing() {
        let (lane, start) = (Lane::new(0), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        lane.mark_available(start);
        assert_eq!(lane.stalled_for(after(5)), Duration::ZERO, "nothing is due");
        lane.submit("a", after(5)).unwrap();
        assert_eq!(lane.stalled_for(after(7)), Duration::from_secs(2));
        lane.mark_unavailable(after(7));
        assert_eq!(lane.stalled_for(after(8)), Duration::ZERO, "no leader");
        lane.mark_available(after(8));
        assert_eq!(lane.stalled_for(after(11)), Duration::from_secs(3));
        lane.settle(ACKNOWLEDGED, after(11));
        assert_eq!(lane.stalled_for(after(12)), Duration::ZERO);
    }

    #[test]
    fn a_partition_that_becomes_available_is_not_down_for_as_long_as_it_may_need() {
        const LIMIT: Duration = Duration::from_secs(13);
        let (lane, start) = (Lane::new(0), Instant::now());
        let is_down = |seconds| lane.is_down(LIMIT, start + Duration::from_secs(seconds));
        lane.mark_available(start);
        assert!(!is_down(60), "nothing is due");
        lane.submit("a", start + Duration::from_secs(60)).unwrap();
        assert!(!is_down(72));
        assert!(is_down(73), "a frozen broker stays available");
        lane.mark_unavailable(start + Duration::from_secs(74));
        assert!(is_down(80));
        lane.mark_available(start + Duration::from_secs(90));
        assert!(!is_down(102));
        assert!(is_down(103), "it did not acknowledge either");
        lane.settle(ACKNOWLEDGED, start + Duration::from_secs(104));
        assert!(!is_down(104));
    }

    #[test]
    fn nothing_overtakes_a_record_that_failed() {
        let (lane, now) = (Lane::new(0), Instant::now());
        lane.submit("a", now).unwrap();
        lane.submit("b", now).unwrap();
        lane.submit("c", now).unwrap();
        assert_eq!(lane.settle(ACKNOWLEDGED, now), send(["b", "c"]));
        assert_eq!(lane.take_back("b", Settled::Failed, now), Ok(Next::Nothing));
        assert_eq!(lane.submit("d", now), Ok(None));
        assert_eq!(lane.take_back("c", Settled::Failed, now), Ok(Next::Resume));
        assert_eq!(lane.submit("e", now), Ok(None));
        assert_eq!(resume(&lane, now), ["b", "c", "d", "e"]);
        assert!(resume(&lane, now).is_empty());
        assert_eq!(lane.submit("f", now), Ok(None), "four are outstanding");
    }

    #[test]
    fn a_held_lane_keeps_what_is_submitted_and_what_failed() {
        let (lane, now) = (Lane::new(0), Instant::now());
        lane.submit("a", now).unwrap();
        lane.submit("b", now).unwrap();
        lane.hold();
        assert_eq!(lane.take_back("a", Settled::Failed, now), Ok(Next::Nothing));
        assert_eq!(lane.submit("c", now), Ok(None));
        assert!(resume(&lane, now).is_empty(), "the lane is held");
        assert_eq!(lane.retire(), ["b", "a", "c"]);
        assert_eq!(lane.submit("d", now), Err("d"));
        assert_eq!(lane.take_back("d", Settled::Failed, now), Err("d"));
        let next = Lane::held(0);
        assert_eq!(next.submit("d", now), Ok(None));
        assert_eq!(next.open(VecDeque::from(["a"]), now), ["a", "d"]);
        assert_eq!(next.submit("e", now), Ok(None), "a is outstanding");
    }

    #[test]
    fn an_acknowledgement_that_arrives_while_the_lane_is_held_releases_nothing() {
        let (lane, now) = (Lane::new(0), Instant::now());
        lane.submit("a", now).unwrap();
        lane.submit("b", now).unwrap();
        lane.hold();
        let next = lane.settle(Settled::Acknowledged(7), now);
        assert_eq!(next, Next::Nothing);
        assert_eq!(lane.acknowledged(), Some(7));
        assert_eq!(lane.retire(), ["b"]);
    }

    #[test]
    fn the_records_of_a_batch_that_was_rejected_are_sent_one_at_a_time_in_their_order() {
        let (lane, now) = (Lane::new(0), Instant::now());
        lane.submit("a", now).unwrap();
        assert_eq!(lane.rejected(), Settled::Rejected, "a is alone");
        for job in ["b", "c", "d"] {
            lane.submit(job, now).unwrap();
        }
        assert_eq!(lane.settle(ACKNOWLEDGED, now), send(["b", "c", "d"]));
        let together = lane.rejected();
        assert_eq!(together, Settled::RejectedTogether);
        lane.submit("e", now).unwrap();
        for job in ["b", "c"] {
            assert_eq!(lane.take_back(job, together, now), Ok(Next::Nothing));
        }
        assert_eq!(lane.take_back("d", together, now), Ok(Next::Resume));
        assert_eq!(lane.unacknowledged_for(now), Duration::ZERO);
        assert_eq!(resume(&lane, now), ["b"]);
        lane.submit("f", now).unwrap();
        assert_eq!(lane.settle(ACKNOWLEDGED, now), send(["c"]));
        assert_eq!(lane.rejected(), Settled::Rejected);
        assert_eq!(lane.settle(Settled::Rejected, now), send(["d"]));
        assert_eq!(lane.settle(ACKNOWLEDGED, now), send(["e", "f"]));
    }
}
