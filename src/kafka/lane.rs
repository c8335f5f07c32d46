//! The lane of one partition: at most one batch is outstanding, and records
//! submitted meanwhile form the next batch, which leaves when the partition has its turn
//! at its broker ([`Turns`]).
//!
//! With `linger.ms=0` librdkafka sends nearly every record in a request of its
//! own, which overloads a small cluster; a longer linger delays every push by
//! that time. A bound on what is outstanding needs no timer and adapts to rate
//! and round-trip time: under light load a record leaves at once, under heavy
//! load everything submitted until the next turn leaves together.
//! `docs/BENCHMARKS.md` has the measurements.
//!
//! A record that failed comes back to its lane, which pauses: later records of
//! its key must not overtake it. Brokers reject a batch as a whole, so the records of
//! one that was rejected are sent one at a time, until the one at fault is found. While
//! the producer is replaced, a lane holds everything; then it is retired, and new lanes
//! take what it held.
//!
//! A lane also tracks since when its partition has been unavailable. It knows
//! nothing of librdkafka: its caller requests its turns, and sends the jobs that it
//! releases.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::turns::Turns;

/// The lane of one partition; `J` is one record to be sent.
#[derive(Debug)]
pub(super) struct Lane<J> {
    partition: i32,
    /// Those at the partition's leader.
    turns: ArcSwap<Turns<Lane<J>>>,
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
    /// A turn was requested for it.
    is_due: bool,
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
    /// Sends it in the next turn.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing: others are outstanding.
    Nothing,
    /// Ends the lane's turn.
    End,
    /// Ends the lane's turn, and requests another one.
    Again,
    /// Ends the lane's turn, and resumes the lane after a pause.
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
            turns: ArcSwap::from_pointee(Turns::new()),
            state: Mutex::new(State {
                phase,
                batch: 0,
                outstanding: 0,
                one_by_one: 0,
                waiting: VecDeque::new(),
                is_due: false,
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

    /// The turns at the partition's leader, as far as that is known.
    pub(super) fn turns(&self) -> Arc<Turns<Self>> {
        self.turns.load_full()
    }

    /// Notes the turns at the partition's leader. Returns whether the caller requests one
    /// there, because the lane waits for one at another broker.
    pub(super) fn move_to(&self, turns: &Arc<Turns<Self>>) -> bool {
        if Arc::ptr_eq(&self.turns.load(), turns) {
            return false;
        }
        self.turns.store(Arc::clone(turns));
        self.lock().is_due
    }

    /// Keeps a job for the next batch. Returns whether the caller requests a turn.
    ///
    /// # Errors
    ///
    /// Returns the job if the lane is retired.
    pub(super) fn submit(&self, job: J, now: Instant) -> Result<bool, J> {
        let mut state = self.lock();
        if state.phase == Phase::Retired {
            return Err(job);
        }
        state.waiting.push_back(job);
        Ok(state.becomes_due(now))
    }

    /// Returns what the lane sends in the turn that it has now, in this order; there may
    /// be nothing.
    pub(super) fn take_batch(&self) -> VecDeque<J> {
        self.lock().take_batch()
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
    pub(super) fn settle(&self, settled: Settled, now: Instant) -> Next {
        let mut state = self.lock();
        state.settle(settled, now);
        state.next(now)
    }

    /// Takes back a job that was not acknowledged, to be sent again.
    ///
    /// # Errors
    ///
    /// Returns the job if the lane is retired.
    pub(super) fn take_back(&self, job: J, settled: Settled, now: Instant) -> Result<Next, J> {
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

    /// Ends a pause. What the lane kept is sent by age. Returns whether the caller requests
    /// a turn.
    pub(super) fn resume<A: Ord>(&self, now: Instant, age: impl FnMut(&J) -> A) -> bool {
        let mut state = self.lock();
        if state.phase != Phase::Paused {
            return false;
        }
        state.phase = Phase::Open;
        // Those that failed are behind those that came later.
        state.waiting.make_contiguous().sort_by_key(age);
        state.becomes_due(now)
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

    /// Opens a lane that held its records, which are sent after `earlier` ones. Returns
    /// whether the caller requests a turn.
    pub(super) fn open(&self, mut earlier: VecDeque<J>, now: Instant) -> bool {
        let mut state = self.lock();
        earlier.append(&mut state.waiting);
        state.waiting = earlier;
        state.phase = Phase::Open;
        state.becomes_due(now)
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
    /// silence while records are outstanding, or wait for a turn: a frozen broker is still
    /// the leader in the metadata, and a missing acknowledgement is the better
    /// evidence.
    pub(super) fn mark_available(&self, now: Instant) {
        let mut state = self.lock();
        state.available_since.get_or_insert(now);
        if state.outstanding == 0
            && state.waiting.is_empty()
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

    fn next(&mut self, now: Instant) -> Next {
        if self.outstanding > 0 {
            Next::Nothing
        } else if self.phase == Phase::Paused {
            Next::Resume
        } else if self.becomes_due(now) {
            Next::Again
        } else {
            Next::End
        }
    }

    /// Returns whether a batch is due for which no turn was requested yet.
    fn becomes_due(&mut self, now: Instant) -> bool {
        let is_ready = self.phase == Phase::Open && self.outstanding == 0;
        if !is_ready || self.is_due || self.waiting.is_empty() {
            return false;
        }
        self.is_due = true;
        self.unacknowledged_since.get_or_insert(now);
        true
    }

    fn take_batch(&mut self) -> VecDeque<J> {
        self.is_due = false;
        if self.phase != Phase::Open || self.outstanding > 0 {
            return VecDeque::new();
        }
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
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACKNOWLEDGED: Settled = Settled::Acknowledged(0);

    /// Jobs are as old as their names say.
    fn resume(lane: &Lane<&'static str>, now: Instant) -> bool {
        lane.resume(now, |job| *job)
    }

    /// A lane that has sent this job.
    fn sent(job: &'static str, now: Instant) -> Lane<&'static str> {
        let lane = Lane::new(0);
        assert_eq!(lane.submit(job, now), Ok(true));
        assert_eq!(lane.take_batch(), [job]);
        lane
    }

    #[test]
    fn a_turn_is_requested_once_and_everything_until_then_leaves_in_it() {
        let (lane, now) = (Lane::new(0), Instant::now());
        assert_eq!(lane.submit("a", now), Ok(true));
        assert_eq!(lane.submit("b", now), Ok(false));
        assert_eq!(lane.take_batch(), ["a", "b"]);
        assert_eq!(lane.submit("c", now), Ok(false), "two are outstanding");
        assert!(lane.take_batch().is_empty(), "a turn too many");
    }

    #[test]
    fn a_lane_whose_records_were_taken_back_has_nothing_to_send_in_its_turn() {
        let (lane, now) = (Lane::new(0), Instant::now());
        lane.submit("a", now).unwrap();
        assert_eq!(lane.take_waiting(), ["a"]);
        assert!(lane.take_batch().is_empty());
        assert_eq!(lane.submit("b", now), Ok(true));
    }

    #[test]
    fn a_lane_that_waits_for_a_turn_requests_another_one_where_its_leader_is() {
        let (lane, now) = (Lane::new(0), Instant::now());
        let turns = Arc::new(Turns::new());
        assert!(!lane.move_to(&turns), "nothing waits");
        lane.submit("a", now).unwrap();
        assert!(!lane.move_to(&turns), "it waits there");
        assert!(lane.move_to(&Arc::new(Turns::new())));
    }

    #[test]
    fn records_submitted_during_a_round_trip_leave_together_in_order() {
        let now = Instant::now();
        let lane = sent("a", now);
        assert_eq!(lane.submit("b", now), Ok(false));
        assert_eq!(lane.submit("c", now), Ok(false));
        assert_eq!(lane.settle(ACKNOWLEDGED, now), Next::Again);
        assert_eq!(lane.take_batch(), ["b", "c"]);
        assert_eq!(lane.submit("d", now), Ok(false));
        let next = lane.settle(ACKNOWLEDGED, now);
        assert_eq!(next, Next::Nothing, "c is outstanding");
        assert_eq!(lane.settle(ACKNOWLEDGED, now), Next::Again);
        assert_eq!(lane.take_batch(), ["d"]);
        assert_eq!(lane.settle(ACKNOWLEDGED, now), Next::End);
    }

    #[test]
    fn the_time_without_acknowledgement_counts_from_the_first_record_across_failures() {
        let (lane, start) = (Lane::new(0), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(lane.unacknowledged_for(after(5)), Duration::ZERO);
        lane.submit("a", start).unwrap();
        lane.take_batch();
        lane.settle(Settled::Failed, after(3));
        lane.submit("b", after(4)).unwrap();
        lane.take_batch();
        assert_eq!(lane.unacknowledged_for(after(5)), Duration::from_secs(5));
        lane.settle(ACKNOWLEDGED, after(6));
        assert_eq!(lane.unacknowledged_for(after(7)), Duration::ZERO);
    }

    #[test]
    fn metadata_marks_a_partition_available_only_if_nothing_is_outstanding_or_due() {
        let (lane, start) = (Lane::new(0), Instant::now());
        let later = start + Duration::from_secs(9);
        lane.submit("a", start).unwrap();
        lane.mark_available(start);
        assert_eq!(lane.unacknowledged_for(later), Duration::from_secs(9));
        lane.take_batch();
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
        lane.take_batch();
        lane.settle(Settled::Failed, after(9));
        assert_eq!(lane.unproven(), Duration::from_secs(5));
        lane.submit("b", after(9)).unwrap();
        lane.take_batch();
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
        lane.take_batch();
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
        lane.take_batch();
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
        let now = Instant::now();
        let lane = sent("a", now);
        lane.submit("b", now).unwrap();
        lane.submit("c", now).unwrap();
        lane.settle(ACKNOWLEDGED, now);
        assert_eq!(lane.take_batch(), ["b", "c"]);
        assert_eq!(lane.take_back("b", Settled::Failed, now), Ok(Next::Nothing));
        assert_eq!(lane.submit("d", now), Ok(false));
        assert_eq!(lane.take_back("c", Settled::Failed, now), Ok(Next::Resume));
        assert_eq!(lane.submit("e", now), Ok(false));
        assert!(lane.take_batch().is_empty(), "the lane pauses");
        assert!(resume(&lane, now));
        assert!(!resume(&lane, now));
        assert_eq!(lane.take_batch(), ["b", "c", "d", "e"]);
        assert_eq!(lane.submit("f", now), Ok(false), "four are outstanding");
    }

    #[test]
    fn a_held_lane_keeps_what_is_submitted_and_what_failed() {
        let now = Instant::now();
        let lane = sent("a", now);
        lane.submit("b", now).unwrap();
        lane.hold();
        assert_eq!(lane.take_back("a", Settled::Failed, now), Ok(Next::End));
        assert_eq!(lane.submit("c", now), Ok(false));
        assert!(!resume(&lane, now), "the lane is held");
        assert_eq!(lane.retire(), ["b", "a", "c"]);
        assert_eq!(lane.submit("d", now), Err("d"));
        assert_eq!(lane.take_back("d", Settled::Failed, now), Err("d"));
        let next = Lane::held(0);
        assert_eq!(next.submit("d", now), Ok(false));
        assert!(next.open(VecDeque::from(["a"]), now));
        assert_eq!(next.take_batch(), ["a", "d"]);
        assert_eq!(next.submit("e", now), Ok(false), "a is outstanding");
    }

    #[test]
    fn an_acknowledgement_that_arrives_while_the_lane_is_held_releases_nothing() {
        let now = Instant::now();
        let lane = sent("a", now);
        lane.submit("b", now).unwrap();
        lane.hold();
        let next = lane.settle(Settled::Acknowledged(7), now);
        assert_eq!(next, Next::End);
        assert_eq!(lane.acknowledged(), Some(7));
        assert_eq!(lane.retire(), ["b"]);
    }

    #[test]
    fn the_records_of_a_batch_that_was_rejected_are_sent_one_at_a_time_in_their_order() {
        let now = Instant::now();
        let lane = sent("a", now);
        assert_eq!(lane.rejected(), Settled::Rejected, "a is alone");
        for job in ["b", "c", "d"] {
            lane.submit(job, now).unwrap();
        }
        lane.settle(ACKNOWLEDGED, now);
        assert_eq!(lane.take_batch(), ["b", "c", "d"]);
        let together = lane.rejected();
        assert_eq!(together, Settled::RejectedTogether);
        lane.submit("e", now).unwrap();
        for job in ["b", "c"] {
            assert_eq!(lane.take_back(job, together, now), Ok(Next::Nothing));
        }
        assert_eq!(lane.take_back("d", together, now), Ok(Next::Resume));
        assert_eq!(lane.unacknowledged_for(now), Duration::ZERO);
        assert!(resume(&lane, now));
        assert_eq!(lane.take_batch(), ["b"]);
        lane.submit("f", now).unwrap();
        assert_eq!(lane.settle(ACKNOWLEDGED, now), Next::Again);
        assert_eq!(lane.take_batch(), ["c"]);
        assert_eq!(lane.rejected(), Settled::Rejected);
        assert_eq!(lane.settle(Settled::Rejected, now), Next::Again);
        assert_eq!(lane.take_batch(), ["d"]);
        assert_eq!(lane.settle(ACKNOWLEDGED, now), Next::Again);
        assert_eq!(lane.take_batch(), ["e", "f"]);
    }
}
