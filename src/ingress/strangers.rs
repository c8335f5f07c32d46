//! The connections that have not brought an authorized push yet. They hold a
//! place only for as long as nobody else needs it, and never for long.
//!
//! Knows neither sockets nor what makes a push authorized (`auth`).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

/// All open connections: which of them are strangers, and how many each address has.
#[derive(Debug)]
pub(crate) struct Strangers {
    started: Instant,
    /// `limits.max_connections_per_address`; 0 is no limit.
    max_per_address: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next_id: u64,
    strangers: HashMap<u64, Arc<EntryState>>,
    /// The connections of each address, if they are limited.
    by_address: HashMap<IpAddr, usize>,
}

/// One connection. It is a stranger until [`ConnectionEntry::authorize`], and is
/// removed when dropped.
#[derive(Debug)]
pub(crate) struct ConnectionEntry {
    strangers: Arc<Strangers>,
    id: u64,
    state: Arc<EntryState>,
    counted: Mutex<Option<IpAddr>>,
}

#[derive(Debug)]
struct EntryState {
    /// When bytes last arrived, in microseconds after [`Strangers::started`].
    active_at: AtomicU64,
    is_authorized: AtomicBool,
    is_refused: AtomicBool,
    refused: Notify,
    evicted: Notify,
}

/// The address has as many connections as one may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMany;

impl Strangers {
    pub(crate) fn new(max_per_address: usize) -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            max_per_address,
            open: Mutex::default(),
        })
    }

    /// Adds a connection.
    pub(crate) fn register(self: &Arc<Self>) -> ConnectionEntry {
        let state = Arc::new(EntryState {
            active_at: AtomicU64::new(micros_since(self.started)),
            is_authorized: AtomicBool::new(false),
            is_refused: AtomicBool::new(false),
            refused: Notify::new(),
            evicted: Notify::new(),
        });
        let mut open = self.open();
        let id = open.next_id;
        open.next_id += 1;
        open.strangers.insert(id, Arc::clone(&state));
        drop(open);
        ConnectionEntry {
            strangers: Arc::clone(self),
            id,
            state,
            counted: Mutex::new(None),
        }
    }

    /// Makes the stranger that has been idle longest give way. Returns false if
    /// there is none.
    pub(crate) fn evict_idlest(&self) -> bool {
        let mut open = self.open();
        let idlest = open
            .strangers
            .iter()
            .min_by_key(|(_, state)| state.active_at.load(Ordering::Relaxed))
            .map(|(id, _)| *id);
        let evicted = idlest.and_then(|id| open.strangers.remove(&id));
        if let Some(state) = &evicted {
            state.evicted.notify_one();
        }
        evicted.is_some()
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionEntry {
    /// Counts the connection for its client's address, once that is known.
    ///
    /// # Errors
    ///
    /// Returns [`TooMany`] if the address has `limits.max_connections_per_address`
    /// already.
    pub(crate) fn count_for(&self, address: IpAddr) -> Result<(), TooMany> {
        let max = self.strangers.max_per_address;
        if max == 0 {
            return Ok(());
        }
        let mut open = self.strangers.open();
        let count = open.by_address.entry(address).or_default();
        if *count >= max {
            return Err(TooMany);
        }
        *count += 1;
        *self.counted() = Some(address);
        Ok(())
    }

    /// Bytes of the client have arrived.
    pub(crate) fn bytes_arrived(&self) {
        let now = micros_since(self.strangers.started);
        self.state.active_at.store(now, Ordering::Relaxed);
    }

    /// The connection has brought an authorized push, and is no stranger any more.
    pub(crate) fn authorize(&self) {
        if !self.state.is_authorized.swap(true, Ordering::Relaxed) {
            self.strangers.open().strangers.remove(&self.id);
        }
    }

    pub(crate) fn is_authorized(&self) -> bool {
        self.state.is_authorized.load(Ordering::Relaxed)
    }

    /// The gate has refused a request, so the connection is to end.
    pub(crate) fn refuse(&self) {
        self.state.is_refused.store(true, Ordering::Relaxed);
        self.state.refused.notify_one();
    }

    pub(crate) fn is_refused(&self) -> bool {
        self.state.is_refused.load(Ordering::Relaxed)
    }

    /// Resolves once the gate has refused a request.
    pub(crate) async fn refused(&self) {
        if !self.is_refused() {
            self.state.refused.notified().await;
        }
    }

    /// Resolves when another connection needs the place.
    pub(crate) async fn evicted(&self) {
        self.state.evicted.notified().await;
    }

    fn counted(&self) -> MutexGuard<'_, Option<IpAddr>> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ConnectionEntry {
    fn drop(&mut self) {
        let counted = self.counted().take();
        let mut open = self.strangers.open();
        open.strangers.remove(&self.id);
        if let Some(address) = counted
            && let Some(count) = open.by_address.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                open.by_address.remove(&address);
            }
        }
    }
}

fn micros_since(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::thread::sleep;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn pause() {
        sleep(Duration::from_millis(2));
    }

    async fn evicted(entry: &ConnectionEntry) -> bool {
        timeout(Duration::from_millis(1), entry.evicted())
            .await
            .is_ok()
    }

    #[tokio::test]
    async fn the_stranger_that_has_been_idle_longest_gives_way() {
        let strangers = Strangers::new(0);
        let [first, second, third] = std::array::from_fn(|_| {
            pause();
            strangers.register()
        });
        pause();
        first.bytes_arrived();
        assert!(strangers.evict_idlest());
        assert!(evicted(&second).await);
        assert!(!evicted(&first).await && !evicted(&third).await);
        assert!(strangers.evict_idlest());
        assert!(evicted(&third).await);
    }

    #[tokio::test]
    async fn an_authorized_connection_never_gives_way() {
        let strangers = Strangers::new(0);
        let entry = strangers.register();
        entry.authorize();
        assert!(!strangers.evict_idlest());
        assert!(!evicted(&entry).await);
    }

    #[test]
    fn a_connection_that_ends_leaves_nothing_behind() {
        let strangers = Strangers::new(1);
        let entry = strangers.register();
        entry.count_for(IpAddr::from([192, 0, 2, 1])).unwrap();
        drop(entry);
        assert!(!strangers.evict_idlest());
        assert!(strangers.open().by_address.is_empty());
    }

    #[test]
    fn an_address_has_at_most_as_many_connections_as_the_limit() {
        let strangers = Strangers::new(2);
        let [near, far] = [[192, 0, 2, 1], [192, 0, 2, 2]].map(IpAddr::from);
        let entries: Vec<_> = (0..4).map(|_| strangers.register()).collect();
        let counted: Vec<_> = entries
            .iter()
            .take(3)
            .map(|entry| entry.count_for(near))
            .collect();
        assert_eq!(counted, [Ok(()), Ok(()), Err(TooMany)]);
        assert_eq!(entries[3].count_for(far), Ok(()));
        drop(entries);
        assert_eq!(strangers.register().count_for(near), Ok(()));
    }

    #[tokio::test]
    async fn a_refusal_is_noticed_also_by_who_waits_later() {
        let entry = Strangers::new(0).register();
        entry.refuse();
        entry.refused().await;
        entry.refused().await;
    }
}
