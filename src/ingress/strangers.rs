//! The connections that have not brought an authorized push yet. They hold a
//! place only for as long as nobody else needs it, and never for long.
//!
//! Knows neither sockets nor what makes a push authorized (`auth`).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// All open connections: which of them are strangers, and how many each address has.
#[derive(Debug)]
pub(crate) struct Strangers {
    started: Instant,
    /// `limits.max_connections_per_address`; 0 is no limit.
    max_per_address: usize,
    open: Mutex<Open>,
    kept_place: Notify,
}

#[derive(Debug, Default)]
struct Open {
    next_id: u64,
    strangers: HashMap<u64, Arc<EntryState>>,
    /// The connections of each address, if they are limited.
    by_address: HashMap<IpAddr, usize>,
}

/// One connection. It is a stranger until it brings an authorized push or leaves,
/// whichever is first, and is removed when dropped.
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
    /// [`STRANGER`], then either [`AUTHORIZED`] or [`LEAVING`].
    standing: AtomicU8,
    is_refused: AtomicBool,
    refused: Notify,
    evicted: Notify,
}

const STRANGER: u8 = 0;
const AUTHORIZED: u8 = 1;
const LEAVING: u8 = 2;

/// The address has as many connections as one may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMany;

impl Strangers {
    pub(crate) fn new(max_per_address: usize) -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            max_per_address,
            open: Mutex::default(),
            kept_place: Notify::new(),
        })
    }

    /// Adds a connection.
    pub(crate) fn register(self: &Arc<Self>) -> ConnectionEntry {
        let state = Arc::new(EntryState {
            active_at: AtomicU64::new(micros_since(self.started)),
            standing: AtomicU8::new(STRANGER),
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

    /// Asks the stranger that has been idle longest to give way. Returns false if
    /// there is none.
    ///
    /// It keeps its place, and [`Strangers::kept_place`] resolves, if its authorized
    /// push comes before it has left.
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

    /// Resolves if, from now on, a stranger that was asked to give way becomes
    /// authorized.
    pub(crate) fn kept_place(&self) -> Notified<'_> {
        self.kept_place.notified()
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

    /// The connection has brought an authorized push, and is no stranger any more
    /// unless it is leaving already.
    pub(crate) fn authorize(&self) {
        if self.state.settle(AUTHORIZED) {
            let waited = self.strangers.open().strangers.remove(&self.id);
            if waited.is_none() {
                self.strangers.kept_place.notify_waiters();
            }
        }
    }

    /// Returns whether the connection is to be closed as a stranger's; it cannot
    /// become authorized any more if so.
    pub(crate) fn leave(&self) -> bool {
        self.state.settle(LEAVING)
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

    /// Resolves when another connection needs the place of this one, which is to be
    /// closed then.
    pub(crate) async fn evicted(&self) {
        self.state.evicted.notified().await;
        if !self.leave() {
            std::future::pending::<()>().await;
        }
    }

    fn counted(&self) -> MutexGuard<'_, Option<IpAddr>> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EntryState {
    /// Returns whether the connection was a stranger until now.
    fn settle(&self, standing: u8) -> bool {
        let (set, failed) = (Ordering::AcqRel, Ordering::Acquire);
        let settled = self
            .standing
            .compare_exchange(STRANGER, standing, set, failed);
        settled.is_ok()
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

    #[tokio::test]
    async fn a_stranger_whose_push_comes_before_it_has_left_keeps_its_place() {
        let strangers = Strangers::new(0);
        let entry = strangers.register();
        let kept_place = strangers.kept_place();
        assert!(strangers.evict_idlest());
        entry.authorize();
        assert!(!evicted(&entry).await);
        kept_place.await;
        let leaving = strangers.register();
        let kept_place = strangers.kept_place();
        assert!(leaving.leave());
        leaving.authorize();
        assert!(!leaving.leave(), "it can leave only once");
        let kept = timeout(Duration::from_millis(1), kept_place).await;
        assert!(kept.is_err(), "a connection that leaves keeps no place");
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
