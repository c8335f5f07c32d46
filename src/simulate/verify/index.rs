//! Finds the push that a stored body belongs to.
//!
//! Holds no body: 16 bytes for each push, namely 96 bits of its body's hash and
//! its number. Whatever else is needed is derived again from the number. Ten
//! million pushes take 160 MB.

use std::num::NonZero;
use std::thread;

use crate::simulate::pushes::PushGenerator;

/// The pushes of a run by the hashes of their bodies.
#[derive(Debug)]
pub struct BodyIndex {
    /// Sorted; the hash in the upper 96 bits, the push number in the lower 32.
    entries: Vec<u128>,
}

impl BodyIndex {
    /// Derives the first `pushes` pushes once, on all processors.
    pub fn new(generator: &PushGenerator, pushes: u32) -> Self {
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        let mut entries = vec![0; usize::try_from(pushes).unwrap_or(usize::MAX)];
        let chunk_len = entries.len() / threads + 1;
        thread::scope(|scope| {
            for (chunk_number, chunk) in entries.chunks_mut(chunk_len).enumerate() {
                let first = u32::try_from(chunk_number * chunk_len).unwrap_or(u32::MAX);
                scope.spawn(move || {
                    for (entry, number) in chunk.iter_mut().zip(first..) {
                        let body = generator.push(number.into()).body;
                        *entry = hash(&body) << 32 | u128::from(number);
                    }
                });
            }
        });
        entries.sort_unstable();
        Self { entries }
    }

    /// Returns the numbers of the pushes with this body; several if one is a
    /// repeat of another.
    pub(super) fn pushes_with_body(&self, body: &[u8]) -> impl Iterator<Item = u32> + Clone + '_ {
        let hash = hash(body);
        let first = self.entries.partition_point(|entry| entry >> 32 < hash);
        let rest = &self.entries[first..];
        let same = rest.iter().take_while(move |entry| *entry >> 32 == hash);
        same.map(|entry| u32::try_from(entry & u128::from(u32::MAX)).unwrap_or(0))
    }
}

/// 96 bits of BLAKE3: the probability that any two of ten million different
/// texts collide is one in 10^15.
pub(super) fn hash(text: &[u8]) -> u128 {
    let mut bytes = [0; 16];
    bytes[4..].copy_from_slice(&blake3::hash(text).as_bytes()[..12]);
    u128::from_be_bytes(bytes)
}
