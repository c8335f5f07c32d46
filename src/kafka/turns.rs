//! Turns: how many partitions of one broker have a batch outstanding at once.
//!
//! librdkafka sends a request for each partition, and a broker answers the requests of a
//! connection one after the other. A batch that waits for others there is closed to later
//! records, so the more partitions wait, the smaller the batches and the more requests
//! the broker must answer. A partition therefore waits for its turn here, where its next
//! batch stays open.
//!
//! How many have a turn at once follows from the round trips, as TCP Vegas bounds what
//! it has in flight. While they stay near their recent minimum the way to the broker has
//! room, and the bound grows; when they take longer because requests wait for each other,
//! it shrinks.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// librdkafka has no more requests in flight to a broker with idempotence.
const MOST: usize = 5;
/// How long a turn counts at most, however long the broker takes: a silent partition keeps
/// nobody from a turn.
const LONGEST_TURN: Duration = Duration::from_millis(250);
/// How long a lane waits for its turn at most, even if there is none. With the way to the
/// broker and back it must be less than an answer may take.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// How many requests may wait for others before the bound shrinks.
const MOST_WAITING: f64 = 1.0;
/// How many must for the bound not to grow.
const FEWEST_WAITING: f64 = 0.5;
/// What is remembered of the fastest round trip, at least. A cluster that has become
/// slower is noticed after twice this time.
const MEMORY: Duration = Duration::from_secs(10);
/// The weight of the newest round trip in their average.
const WEIGHT: f64 = 0.25;

/// The turns at one broker; `L` is what takes them: the lane of a partition.
#[derive(Debug)]
pub(super) struct Turns<L>(Mutex<State<L>>);

#[derive(Debug)]
struct State<L> {
    taken: Vec<Turn<L>>,
    waiting: VecDeque<Turn<L>>,
    bound: Bound,
}

/// One that is taken, or waited for.
#[derive(Debug)]
struct Turn<L> {
    lane: Arc<L>,
    since: Instant,
}

/// How many turns there are.
#[derive(Debug)]
struct Bound {
    turns: usize,
    /// Round trips since the bound was compared with them, and their average in seconds.
    seen: usize,
    average_s: f64,
    /// The fastest ones in this period and in the one before, in seconds.
    fastest_s: [f64; 2],
    period_began: Option<Instant>,
}

impl<L> Turns<L> {
    pub(super) fn new() -> Self {
        Self(Mutex::new(State {
            taken: Vec::with_capacity(MOST),
            waiting: VecDeque::new(),
            bound: Bound::new(),
        }))
    }

    /// A lane has something to send. It has its turn once [`Turns::next`] returns it.
    pub(super) fn request(&self, lane: Arc<L>, now: Instant) {
        self.lock().waiting.push_back(Turn { lane, since: now });
    }

    /// Returns the lane that waits longest, if there is a turn for it, which it has then.
    pub(super) fn next(&self, now: Instant) -> Option<Arc<L>> {
        let mut state = self.lock();
        if !state.has_turn(now) {
            return None;
        }
        let lane = state.waiting.pop_front()?.lane;
        state.taken.push(Turn {
            lane: Arc::clone(&lane),
            since: now,
        });
        Some(lane)
    }

    /// The turn of a lane is over, since a broker has `answered` all that it sent, or
    /// something failed.
    pub(super) fn over(&self, lane: &Arc<L>, answered: Option<Instant>) {
        let mut state = self.lock();
        let mut taken = state.taken.iter();
        let Some(index) = taken.position(|turn| Arc::ptr_eq(&turn.lane, lane)) else {
            return;
        };
        let turn = state.taken.swap_remove(index);
        if let Some(answered) = answered {
            let took = turn.lasted(answered);
            let is_scarce = !state.waiting.is_empty();
            state.bound.observe(took, is_scarce, answered);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<L>> {
        // Nothing under this lock can panic halfway through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<L> State<L> {
    /// Returns whether the lane that waits longest may send.
    fn has_turn(&mut self, now: Instant) -> bool {
        if self.taken.len() >= self.bound.turns {
            self.taken.retain(|turn| turn.lasted(now) < LONGEST_TURN);
        }
        let mut longest = self.waiting.front().into_iter();
        self.taken.len() < self.bound.turns || longest.any(|turn| turn.lasted(now) >= LONGEST_WAIT)
    }
}

impl<L> Turn<L> {
    fn lasted(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }
}

impl Bound {
    fn new() -> Self {
        Self {
            turns: 1,
            seen: 0,
            average_s: 0.0,
            fastest_s: [f64::INFINITY; 2],
            period_began: None,
        }
    }

    /// `is_scarce` if lanes wait for turns.
    fn observe(&mut self, took: Duration, is_scarce: bool, now: Instant) {
        let took_s = took.as_secs_f64();
        let began = *self.period_began.get_or_insert(now);
        if now.saturating_duration_since(began) >= MEMORY {
            self.fastest_s = [f64::INFINITY, self.fastest_s[0]];
            self.period_began = Some(now);
        }
        self.fastest_s[0] = self.fastest_s[0].min(took_s);
        self.average_s += (took_s - self.average_s) * if self.seen == 0 { 1.0 } else { WEIGHT };
        self.seen += 1;
        // Every request that was in flight when the bound changed has been answered.
        if self.seen > 2 * self.turns {
            self.adapt(is_scarce);
        }
    }

    fn adapt(&mut self, is_scarce: bool) {
        self.seen = 0;
        let fastest_s = self.fastest_s[0].min(self.fastest_s[1]);
        let turns = f64::from(u32::try_from(self.turns).unwrap_or(u32::MAX));
        let waiting = turns * (1.0 - fastest_s / self.average_s);
        if waiting > MOST_WAITING {
            self.turns = (self.turns - 1).max(1);
        } else if waiting < FEWEST_WAITING && is_scarce {
            self.turns = (self.turns + 1).min(MOST);
        }
    }
}

/// The turns at each broker, by its id.
#[derive(Debug)]
pub(super) struct Brokers<L>(Mutex<BTreeMap<i32, Arc<Turns<L>>>>);

impl<L> Brokers<L> {
    pub(super) fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    /// The turns at a broker.
    pub(super) fn at(&self, broker: i32) -> Arc<Turns<L>> {
        let mut brokers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let turns = brokers.entry(broker);
        Arc::clone(turns.or_insert_with(|| Arc::new(Turns::new())))
    }

    /// The turns at every broker.
    pub(super) fn all(&self) -> Vec<Arc<Turns<L>>> {
        let brokers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        brokers.values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A broker that takes `service` for each request, one after the other, at a distance;
    /// `lanes` always have something to send.
    fn turns_at(distance: Duration, service: Duration, lanes: usize) -> usize {
        let turns = Turns::new();
        let start = Instant::now();
        (0..lanes).for_each(|lane| turns.request(Arc::new(lane), start));
        let mut now = start;
        let mut idle_from = start;
        let mut answers: VecDeque<(Instant, Arc<usize>)> = VecDeque::new();
        for _ in 0..2_000 {
            while let Some(lane) = turns.next(now) {
                idle_from = idle_from.max(now) + service;
                answers.push_back((idle_from + distance, lane));
            }
            let (answered, lane) = answers.pop_front().unwrap();
            now = answered;
            turns.over(&lane, Some(now));
            turns.request(lane, now);
        }
        turns.lock().bound.turns
    }

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_distant_broker_gets_many_requests_at_once_and_a_near_one_few() {
        assert_eq!(turns_at(ms(50), ms(2), 20), MOST);
        assert!(turns_at(Duration::ZERO, ms(2), 20) <= 2);
        assert_eq!(
            turns_at(ms(50), ms(2), 2),
            2,
            "no more than there are lanes"
        );
    }

    #[test]
    fn turns_are_given_in_the_order_of_the_requests() {
        let (turns, now) = (Turns::new(), Instant::now());
        let lanes = [0, 1, 2].map(Arc::new);
        for lane in &lanes {
            turns.request(Arc::clone(lane), now);
        }
        assert_eq!(turns.next(now).as_deref(), Some(&0));
        assert_eq!(turns.next(now), None, "one at a time at first");
        turns.over(&lanes[2], Some(now));
        assert_eq!(turns.next(now), None, "it had no turn");
        turns.over(&lanes[0], Some(now));
        assert_eq!(turns.next(now).as_deref(), Some(&1));
    }

    #[test]
    fn a_silent_partition_keeps_nobody_from_a_turn() {
        let (turns, now) = (Turns::new(), Instant::now());
        let lanes = [0, 1].map(Arc::new);
        for lane in &lanes {
            turns.request(Arc::clone(lane), now);
        }
        assert_eq!(turns.next(now).as_deref(), Some(&0));
        assert_eq!(turns.next(now + LONGEST_TURN / 2), None);
        assert_eq!(turns.next(now + LONGEST_TURN).as_deref(), Some(&1));
        turns.over(&lanes[0], Some(now + 2 * LONGEST_TURN));
        assert_eq!(turns.lock().bound.seen, 0, "its round trip says nothing");
    }

    #[test]
    fn nobody_waits_for_long_however_many_wait() {
        let (turns, start) = (Turns::new(), Instant::now());
        (0..1_000).for_each(|lane| turns.request(Arc::new(lane), start));
        assert!(turns.next(start).is_some());
        assert!(turns.next(start + LONGEST_WAIT / 10).is_none());
        let given = std::iter::from_fn(|| turns.next(start + LONGEST_WAIT));
        assert_eq!(given.count(), 999, "no broker answers");
    }

    #[test]
    fn the_bound_shrinks_again_when_round_trips_inflate() {
        let mut bound = Bound::new();
        let mut now = Instant::now();
        let mut observe = |bound: &mut Bound, took| {
            for _ in 0..100 {
                now += took;
                bound.observe(took, true, now);
            }
            bound.turns
        };
        assert_eq!(observe(&mut bound, ms(50)), MOST);
        assert_eq!(observe(&mut bound, ms(90)), 2);
    }
}
