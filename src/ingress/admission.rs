//! Admission control: bounds the pushes in flight, and the bytes of their bodies.
//!
//! A push reserves its share before its body is read and while the body grows,
//! and releases it once librdkafka has settled the record. Both limits are
//! below those of librdkafka's queue, so overload is refused here, before a
//! body is read, and never by a full queue.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::metrics::PushMetrics;
use crate::config::Limits;

/// What a push takes besides its body: its share of the connection's state, and what
/// is kept of its head and with its record.
const PUSH_BYTES: usize = 6 * 1024;

/// By how much the reservation of a body grows while its length is unknown.
const STEP_BYTES: usize = 64 * 1024;

/// The limits of what is in flight, shared by all pushes.
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    pushes: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    /// All permits for bytes there are, and so the most that one body can reserve.
    capacity: usize,
    timeout: Duration,
    metrics: Arc<PushMetrics>,
}

/// The share of one push; released on drop.
#[derive(Debug)]
pub(crate) struct Reservation {
    admission: Admission,
    _push: OwnedSemaphorePermit,
    bytes: OwnedSemaphorePermit,
}

/// A limit was still reached after `limits.admission_timeout_ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overloaded;

impl Admission {
    pub(crate) fn new(limits: &Limits, metrics: Arc<PushMetrics>) -> Self {
        let permits = |count: usize| Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)));
        Self {
            pushes: permits(limits.max_in_flight),
            bytes: permits(limits.max_in_flight_bytes),
            capacity: limits.max_in_flight_bytes.min(Semaphore::MAX_PERMITS),
            timeout: limits.admission_timeout_ms.duration(),
            metrics,
        }
    }

    /// Reserves one push, [`PUSH_BYTES`] and the first bytes of its body: all of a
    /// small one, one step of a large one or one of unknown length.
    ///
    /// # Errors
    ///
    /// Returns [`Overloaded`] if a limit leaves no room for them in time.
    pub(crate) async fn reserve(
        &self,
        declared_bytes: Option<u64>,
    ) -> Result<Reservation, Overloaded> {
        let declared = declared_bytes.and_then(|bytes| usize::try_from(bytes).ok());
        let step = STEP_BYTES.min(self.capacity);
        let first = declared.unwrap_or(step).min(step);
        let first = permits((PUSH_BYTES + first).min(self.capacity));
        let both = async {
            let push = Arc::clone(&self.pushes).acquire_owned().await;
            let bytes = Arc::clone(&self.bytes).acquire_many_owned(first).await;
            push.and_then(|push| bytes.map(|bytes| (push, bytes)))
        };
        match tokio::time::timeout(self.timeout, both).await {
            Ok(Ok((push, bytes))) => {
                self.metrics.bytes_reserved(bytes.num_permits());
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
    /// Grows to a body of at least `total` bytes, or to all there are: one that needs
    /// more than the limit for a moment must not wait for itself.
    ///
    /// # Errors
    ///
    /// Returns [`Overloaded`] if other pushes hold the bytes for too long.
    pub(crate) async fn cover(&mut self, total: usize) -> Result<(), Overloaded> {
        let capacity = self.admission.capacity;
        let total = PUSH_BYTES + total;
        while self.bytes.num_permits() < total.min(capacity) {
            let held = self.bytes.num_permits();
            let ahead = (held + STEP_BYTES).max(total).min(capacity);
            let step = permits(ahead - held);
            let more = Arc::clone(&self.admission.bytes).acquire_many_owned(step);
            match tokio::time::timeout(self.admission.timeout, more).await {
                Ok(Ok(more)) => {
                    self.admission.metrics.bytes_reserved(more.num_permits());
                    self.bytes.merge(more);
                }
                Ok(Err(_)) | Err(_) => return Err(Overloaded),
            }
        }
        Ok(())
    }

    /// Releases what exceeds a body of `total` bytes.
    pub(crate) fn shrink_to(&mut self, total: usize) {
        let total = PUSH_BYTES + total;
        if let Some(surplus) = self.bytes.num_permits().checked_sub(total)
            && let Some(surplus) = self.bytes.split(surplus)
        {
            self.admission.metrics.bytes_released(surplus.num_permits());
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.admission
            .metrics
            .bytes_released(self.bytes.num_permits());
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
        Admission::new(
            &limits,
            Arc::new(PushMetrics::register(&Metrics::new(), false)),
        )
    }

    #[tokio::test(start_paused = true)]
    async fn a_push_that_ends_makes_room_for_the_next() {
        let admission = admission(1, 1 << 20);
        let first = admission.reserve(Some(10)).await.expect("a reservation");
        assert!(admission.reserve(Some(10)).await.is_err());
        drop(first);
        assert!(admission.reserve(Some(10)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_single_body_can_reserve_every_byte() {
        for (capacity, declared) in [(1000, None), (1000, Some(1000)), (100_000, Some(100_000))] {
            let admission = admission(1, capacity);
            let mut only = admission.reserve(declared).await.expect("a reservation");
            only.cover(capacity).await.expect("a reservation");
            // While a body is decompressed, both forms are in memory.
            only.cover(capacity + 10).await.expect("a reservation");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_are_reserved_as_a_body_grows_and_released_when_its_size_is_known() {
        let admission = admission(10, 200 * 1024);
        let mut chunked = admission.reserve(None).await.expect("a reservation");
        chunked.cover(190 * 1024).await.expect("a reservation");
        assert!(admission.reserve(Some(20 * 1024)).await.is_err());
        chunked.shrink_to(100 * 1024);
        let other = admission.reserve(Some(20 * 1024)).await;
        assert!(other.is_ok());
        assert_eq!(chunked.cover(190 * 1024).await, Err(Overloaded));
        drop((chunked, other));
        assert_eq!(admission.bytes.available_permits(), 200 * 1024);
    }
}
