//! The lanes of one topic: one for each known partition, and which of them a
//! record takes.
//!
//! Until the cluster has reported the topic's partitions, one lane holds all records,
//! and counts as unacknowledged since it was created here. From then on
//! lanes are added as partitions are; fewer partitions mean another topic of the
//! same name, whose lanes are [new](TopicLanes::renewed).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::lane::Lane;
use super::murmur2;

/// The lanes of one topic; `J` is one record to be sent.
#[derive(Debug)]
pub(super) struct TopicLanes<J> {
    /// By partition number.
    lanes: ArcSwap<Lanes<J>>,
    /// Holds the records that come before the partitions are known.
    unplaced: Arc<Lane<J>>,
    /// The number of partitions in the last metadata that had any.
    reported: AtomicUsize,
    /// The cluster was asked for the partitions in vain.
    was_unavailable: AtomicBool,
}

/// The lanes of one topic at one moment, by partition number.
pub(super) type Lanes<J> = Vec<Arc<Lane<J>>>;

impl<J> TopicLanes<J> {
    pub(super) fn new() -> Self {
        let unplaced = Lane::held(0);
        unplaced.mark_unavailable(Instant::now());
        Self {
            lanes: ArcSwap::default(),
            unplaced: Arc::new(unplaced),
            reported: AtomicUsize::new(0),
            was_unavailable: AtomicBool::new(false),
        }
    }

    pub(super) fn partition_count(&self) -> usize {
        self.lanes.load().len()
    }

    /// The lane that holds the records that come before the partitions are known.
    pub(super) fn unplaced(&self) -> &Arc<Lane<J>> {
        &self.unplaced
    }

    /// Returns the lane that [`choose`] chooses, or the one of
    /// [unplaced](TopicLanes::unplaced) records if the partitions are not known yet.
    pub(super) fn choose(&self, key: Option<&[u8]>, limit: Duration) -> Arc<Lane<J>> {
        let lanes = self.lanes.load();
        let index = choose(&lanes, key, limit);
        let lane = index.and_then(|index| lanes.get(index));
        Arc::clone(lane.unwrap_or(&self.unplaced))
    }

    /// Returns the largest offset that a partition has acknowledged, if any.
    pub(super) fn acknowledged(&self, partition: i32) -> Option<i64> {
        self.of_partition(partition)?.acknowledged()
    }

    /// Returns the lane of a partition, if that is known.
    pub(super) fn of_partition(&self, partition: i32) -> Option<Arc<Lane<J>>> {
        let index = usize::try_from(partition).ok()?;
        self.lanes.load().get(index).cloned()
    }

    /// Returns the current lanes.
    pub(super) fn all(&self) -> Arc<Lanes<J>> {
        self.lanes.load_full()
    }

    /// Returns new lanes for the partitions of the last metadata. They hold their
    /// records, and nothing chooses them before [`TopicLanes::install`].
    pub(super) fn renewed(&self) -> Lanes<J> {
        let partitions = self.reported.load(Ordering::Relaxed);
        let new = |partition| Arc::new(Lane::held(partition));
        (0..).take(partitions).map(new).collect()
    }

    /// Replaces the current lanes, and returns them.
    pub(super) fn install(&self, lanes: Lanes<J>) -> Arc<Lanes<J>> {
        self.lanes.swap(Arc::new(lanes))
    }

    /// Returns whether the last metadata had fewer partitions than there are
    /// lanes.
    pub(super) fn has_lost_partitions(&self) -> bool {
        self.reported.load(Ordering::Relaxed) < self.partition_count()
    }

    /// Applies the topic's metadata: for each partition, whether it is
    /// available. An empty slice means that the topic was not found. The first lanes hold
    /// their records, which follow the [unplaced](TopicLanes::unplaced) ones.
    pub(super) fn update_metadata(&self, available: &[bool]) {
        if available.is_empty() {
            return self.mark_unavailable();
        }
        self.reported.store(available.len(), Ordering::Relaxed);
        self.add_lanes(available.len());
        let now = Instant::now();
        let available = available.iter().chain(std::iter::repeat(&false));
        for (lane, available) in self.lanes.load().iter().zip(available) {
            if *available {
                lane.mark_available(now);
            } else {
                lane.mark_unavailable(now);
            }
        }
    }

    fn add_lanes(&self, partitions: usize) {
        let known = self.lanes.load();
        if partitions <= known.len() {
            return;
        }
        let mut lanes = known.to_vec();
        for partition in (0..).take(partitions).skip(lanes.len()) {
            let lane = if known.is_empty() {
                self.first_lane(partition)
            } else {
                Lane::new(partition)
            };
            lanes.push(Arc::new(lane));
        }
        self.lanes.store(Arc::new(lanes));
    }

    /// If the partition was not known because of an outage, its lane knows of that.
    fn first_lane(&self, partition: i32) -> Lane<J> {
        let lane = Lane::held(partition);
        if self.was_unavailable.load(Ordering::Relaxed) {
            let now = Instant::now();
            let since = now.checked_sub(self.unknown_for(now));
            lane.mark_unavailable(since.unwrap_or(now));
        }
        lane
    }

    pub(super) fn mark_unavailable(&self) {
        self.was_unavailable.store(true, Ordering::Relaxed);
        let now = Instant::now();
        for lane in self.lanes.load().iter() {
            lane.mark_unavailable(now);
        }
    }

    /// Returns the longest time that any partition has been unacknowledged.
    pub(super) fn longest_unacknowledged(&self, now: Instant) -> Duration {
        let lanes = self.lanes.load();
        let longest = lanes.iter().map(|lane| lane.unacknowledged_for(now)).max();
        longest.unwrap_or_else(|| self.unknown_for(now))
    }

    /// Returns whether every partition is [down](Lane::is_down).
    pub(super) fn is_down(&self, limit: Duration, now: Instant) -> bool {
        let lanes = self.lanes.load();
        let is_known = !lanes.is_empty() || self.unknown_for(now) >= limit;
        is_known && lanes.iter().all(|lane| lane.is_down(limit, now))
    }

    /// Returns the shortest time that any partition has been unacknowledged.
    pub(super) fn shortest_unacknowledged(&self, now: Instant) -> Duration {
        let lanes = self.lanes.load();
        let shortest = lanes.iter().map(|lane| lane.unacknowledged_for(now)).min();
        shortest.unwrap_or_else(|| self.unknown_for(now))
    }

    /// Returns the longest time that any partition has been
    /// [stalled](Lane::stalled_for).
    pub(super) fn longest_stall(&self, now: Instant) -> Duration {
        let lanes = self.lanes.load();
        let stalls = lanes.iter().map(|lane| lane.stalled_for(now));
        stalls.max().unwrap_or_default()
    }

    fn unknown_for(&self, now: Instant) -> Duration {
        self.unplaced.unacknowledged_for(now)
    }
}

/// Returns the index of the lane of a key's partition. A record without a key
/// takes a random lane, preferably one that is not [down](Lane::is_down). Returns
/// `None` if there is no lane.
pub(super) fn choose<J>(lanes: &Lanes<J>, key: Option<&[u8]>, limit: Duration) -> Option<usize> {
    let count = lanes.len();
    if count == 0 {
        return None;
    }
    if let Some(key) = key {
        return Some(murmur2::partition(key, count));
    }
    let first = fastrand::usize(..count);
    let now = Instant::now();
    let is_up = |index: &usize| !lanes[*index].is_down(limit, now);
    let mut indexes = (0..count).map(|step| (first + step) % count);
    Some(indexes.find(is_up).unwrap_or(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(13);

    fn lanes(partitions: usize) -> TopicLanes<()> {
        let lanes = TopicLanes::new();
        lanes.update_metadata(&vec![true; partitions]);
        lanes
    }

    #[test]
    fn one_lane_holds_all_records_until_the_partitions_are_known() {
        let lanes = lanes(0);
        let is_unplaced = || {
            let lane = lanes.choose(Some(b"key"), LIMIT);
            assert!(lane.is_held(), "the first lanes wait for unplaced records");
            Arc::ptr_eq(&lane, lanes.unplaced())
        };
        assert!(is_unplaced());
        lanes.update_metadata(&[false, true]);
        assert_eq!(lanes.partition_count(), 2);
        assert!(!is_unplaced());
        let unproven = |partition| lanes.of_partition(partition).unwrap().unproven();
        assert_eq!(unproven(0), Duration::ZERO, "it is not available");
        assert!(unproven(1) > Duration::ZERO, "it was not until now");
    }

    #[test]
    fn a_key_takes_the_lane_that_javas_partitioner_chooses() {
        let lanes = lanes(6);
        let lane = lanes.choose(Some(b"21"), LIMIT);
        let partition = usize::try_from(lane.partition()).unwrap();
        assert_eq!(partition, murmur2::partition(b"21", 6));
    }

    #[test]
    fn a_record_without_a_key_avoids_lanes_that_are_down() {
        let lanes = lanes(2);
        let lane = lanes.choose(Some(b"key"), LIMIT);
        let long_ago = Instant::now().checked_sub(LIMIT).unwrap();
        lane.mark_unavailable(long_ago);
        for _ in 0..20 {
            let other = lanes.choose(None, LIMIT);
            assert_ne!(other.partition(), lane.partition());
        }
    }

    #[test]
    fn lanes_are_kept_when_partitions_are_added() {
        let lanes = lanes(1);
        let before = lanes.choose(None, LIMIT);
        lanes.update_metadata(&[true, true]);
        assert!(Arc::ptr_eq(&before, &lanes.lanes.load()[0]));
    }

    #[test]
    fn fewer_partitions_are_lost_and_the_new_lanes_are_as_many() {
        let lanes = lanes(6);
        assert!(!lanes.has_lost_partitions());
        lanes.update_metadata(&[]);
        assert!(!lanes.has_lost_partitions(), "the topic was not found");
        lanes.update_metadata(&[true, true]);
        assert!(lanes.has_lost_partitions());
        assert_eq!(lanes.partition_count(), 6);
        let lost = &lanes.all()[5];
        assert!(lost.unacknowledged_for(Instant::now() + LIMIT) >= LIMIT);
        lanes.install(lanes.renewed());
        assert_eq!(lanes.partition_count(), 2);
        assert!(!lanes.has_lost_partitions());
    }
}
