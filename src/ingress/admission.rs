//! Admission: how many pushes, and how many bytes of them, are held at once.
//!
//! Room is taken before a body is read and as it grows, and given back when
//! Kafka has settled the push. The bounds are smaller than librdkafka's queue,
//! so that a full queue is never how load is refused.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Limits;
use crate::metrics::PushMetrics;

/// The room a body takes at a time while its length is not known.
const STEP_BYTES: usize = 64 * 1024;

/// The room there is.
#[derive(Debug, Clone)]
pub struct Admission {
    pushes: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    /// What one body can hold at most, which is all there is.
    capacity: usize,
    wait: Duration,
    metrics: Arc<PushMetrics>,
}

/// Room that one push holds until this is dropped.
#[derive(Debug)]
pub struct Reservation {
    admission: Admission,
    _push: OwnedSemaphorePermit,
    bytes: OwnedSemaphorePermit,
}

/// There was no room within the time that may be waited for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overloaded;

impl Admission {
    /// Room as the limits say.
    pub fn new(limits: &Limits, metrics: Arc<PushMetrics>) -> Self {
        let permits = |count: usize| Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)));
        Self {
            pushes: permits(limits.max_in_flight),
            bytes: permits(limits.max_in_flight_bytes),
            capacity: limits.max_in_flight_bytes.min(Semaphore::MAX_PERMITS),
            wait: limits.admission_timeout_ms.duration(),
            metrics,
        }
    }

    /// Room for one push, and for as much of its body as is known: all of it
    /// if it is small, else a first step.
    pub async fn reserve(&self, declared_bytes: Option<u64>) -> Result<Reservation, Overloaded> {
        let declared = declared_bytes.and_then(|bytes| usize::try_from(bytes).ok());
        let step = STEP_BYTES.min(self.capacity);
        let first = permits(declared.unwrap_or(step).min(step));
        let both = async {
            let push = Arc::clone(&self.pushes).acquire_owned().await;
            let bytes = Arc::clone(&self.bytes).acquire_many_owned(first).await;
            push.and_then(|push| bytes.map(|bytes| (push, bytes)))
        };
        match tokio::time::timeout(self.wait, both).await {
            Ok(Ok((push, bytes))) => {
                self.metrics.holds_bytes(bytes.num_permits());
                Ok(Reservation {
                    admission: self.clone(),
                    _push: push,
                    bytes,
                })
            }
            // The semaphores are never closed.
            Ok(Err(_)) | Err(_) => Err(Overloaded),
        }
    }
}

impl Reservation {
    /// Grows until there is room for `total` bytes, or for all that one body
    /// can hold.
    pub async fn cover(&mut self, total: usize) -> Result<(), Overloaded> {
        let capacity = self.admission.capacity;
        while self.bytes.num_permits() < total.min(capacity) {
            let held = self.bytes.num_permits();
            let ahead = (held + STEP_BYTES).max(total).min(capacity);
            let step = permits(ahead - held);
            let more = Arc::clone(&self.admission.bytes).acquire_many_owned(step);
            match tokio::time::timeout(self.admission.wait, more).await {
                Ok(Ok(more)) => {
                    self.admission.metrics.holds_bytes(more.num_permits());
                    self.bytes.merge(more);
                }
                Ok(Err(_)) | Err(_) => return Err(Overloaded),
            }
        }
        Ok(())
    }

    /// Gives back what a body of `total` bytes does not need.
    pub fn shrink_to(&mut self, total: usize) {
        if let Some(surplus) = self.bytes.num_permits().checked_sub(total)
            && let Some(surplus) = self.bytes.split(surplus)
        {
            self.admission.metrics.releases_bytes(surplus.num_permits());
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.admission
            .metrics
            .releases_bytes(self.bytes.num_permits());
    }
}

fn permits(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Millis;
    use crate::metrics::Metrics;

    fn admission(max_in_flight: usize, max_in_flight_bytes: usize) -> Admission {
        let limits = Limits {
            max_in_flight,
            max_in_flight_bytes,
            admission_timeout_ms: Millis(1),
            ..Limits::default()
        };
        Admission::new(&limits, Arc::new(PushMetrics::register(&Metrics::new())))
    }

    #[tokio::test(start_paused = true)]
    async fn pushes_are_counted_and_their_room_comes_back() {
        let admission = admission(1, 1 << 20);
        let first = admission.reserve(Some(10)).await.expect("there is room");
        assert!(admission.reserve(Some(10)).await.is_err());
        drop(first);
        assert!(admission.reserve(Some(10)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn alone_a_body_can_have_all_the_room_there_is() {
        for (capacity, declared) in [(1000, None), (1000, Some(1000)), (100_000, Some(100_000))] {
            let admission = admission(1, capacity);
            let mut only = admission.reserve(declared).await.expect("there is room");
            only.cover(capacity).await.expect("there is room");
            // Of a compressed body both forms are held for a moment.
            only.cover(capacity + 10).await.expect("there is room");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_are_taken_as_a_body_grows_and_given_back_when_it_is_known() {
        let admission = admission(10, 200 * 1024);
        let mut chunked = admission.reserve(None).await.expect("there is room");
        chunked.cover(190 * 1024).await.expect("there is room");
        assert!(admission.reserve(Some(20 * 1024)).await.is_err());
        chunked.shrink_to(100 * 1024);
        let other = admission.reserve(Some(20 * 1024)).await;
        assert!(other.is_ok());
        assert_eq!(chunked.cover(190 * 1024).await, Err(Overloaded));
        drop((chunked, other));
        assert_eq!(admission.bytes.available_permits(), 200 * 1024);
    }
}
