//! Which push of a run a body belongs to.
//!
//! No push is kept. What is kept of each are 16 bytes: 96 bits of the hash of
//! its body, and its number; whatever else must be known of it is derived
//! again. Ten million pushes take 160 MB.

use std::num::NonZero;
use std::thread;

use super::world::World;

/// The pushes of a run by their bodies.
#[derive(Debug)]
pub struct Index {
    /// Sorted: the hash in the high bits, the number in the low ones.
    entries: Vec<u128>,
}

impl Index {
    /// Derives the first `pushes` of a world once, on all processors.
    pub fn of(world: &World, pushes: u32) -> Self {
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        let mut entries = vec![0; usize::try_from(pushes).unwrap_or(usize::MAX)];
        let share = entries.len() / threads + 1;
        thread::scope(|scope| {
            for (place, part) in entries.chunks_mut(share).enumerate() {
                let start = u32::try_from(place * share).unwrap_or(u32::MAX);
                scope.spawn(move || {
                    for (entry, number) in part.iter_mut().zip(start..) {
                        let body = world.push(number.into()).body;
                        *entry = hash(&body) << 32 | u128::from(number);
                    }
                });
            }
        });
        entries.sort_unstable();
        Self { entries }
    }

    /// The pushes with this body: several where one is a repeat of another.
    pub fn numbers(&self, body: &[u8]) -> impl Iterator<Item = u32> + Clone + '_ {
        let hash = hash(body);
        let first = self.entries.partition_point(|entry| entry >> 32 < hash);
        let rest = &self.entries[first..];
        let same = rest.iter().take_while(move |entry| *entry >> 32 == hash);
        same.map(|entry| u32::try_from(entry & u128::from(u32::MAX)).unwrap_or(0))
    }
}

/// 96 bits of BLAKE3: among ten million texts two differing ones share them
/// with a probability of one in 10^15.
pub fn hash(text: &[u8]) -> u128 {
    let mut bytes = [0; 16];
    bytes[4..].copy_from_slice(&blake3::hash(text).as_bytes()[..12]);
    u128::from_be_bytes(bytes)
}
