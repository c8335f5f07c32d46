//! An entry of a file: bytes that are found again, or not at all.
//!
//! ```text
//! marker (4) | length (4) | check of the head (4) | check of the bytes (4) | bytes
//! ```
//!
//! Both checks cover the entry's place and a number that only the file's name holds, so
//! that neither a stale entry nor bytes that a sender chose can pass for one. Where bytes
//! are damaged, the entries behind them are found by their markers.

use crc32fast::Hasher;

/// 0xf5 occurs in no UTF-8 text, so that few bodies contain the marker.
const MARKER: [u8; 4] = [0xf5, b'n', b'b', 0xf5];
/// What precedes the bytes of an entry.
pub(super) const HEAD_BYTES: usize = 16;
/// A longer length is none: no push is as large.
const MAX_BYTES: usize = 64 << 20;

/// What stands at the beginning of some bytes of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// An entry.
    Entry(&'a [u8]),
    /// The beginning of an entry that does not end within these bytes.
    Begun,
    /// So many bytes that belong to no entry.
    Damage(usize),
    /// Too few bytes to tell.
    Nothing,
}

/// Appends an entry to the bytes that are written to a file at `start`.
pub(super) fn append(
    buffer: &mut Vec<u8>,
    salt: u64,
    start: u64,
    write: impl FnOnce(&mut Vec<u8>),
) {
    let head = buffer.len();
    buffer.extend_from_slice(&[0; HEAD_BYTES]);
    write(buffer);
    let bytes = &buffer[head + HEAD_BYTES..];
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let place = start + u64::try_from(head).unwrap_or(u64::MAX);
    let checks = (
        head_check(salt, place, length),
        bytes_check(salt, place, bytes),
    );
    let head = &mut buffer[head..head + HEAD_BYTES];
    head[..4].copy_from_slice(&MARKER);
    head[4..8].copy_from_slice(&length.to_le_bytes());
    head[8..12].copy_from_slice(&checks.0.to_le_bytes());
    head[12..].copy_from_slice(&checks.1.to_le_bytes());
}

/// Returns what `bytes` begin with, which stand at `place` in the file. They are the
/// file's last ones if `is_end`.
pub(super) fn find(bytes: &[u8], salt: u64, place: u64, is_end: bool) -> Found<'_> {
    match at(bytes, salt, place) {
        found @ (Found::Entry(_) | Found::Begun) => return found,
        Found::Nothing if !is_end => return Found::Nothing,
        Found::Nothing | Found::Damage(_) => {}
    }
    // A marker may be cut off by the end of these bytes.
    let undecided = if is_end { 0 } else { HEAD_BYTES - 1 };
    let searched = bytes.len().saturating_sub(undecided);
    let candidates = (1..searched).filter(|&next| bytes[next] == MARKER[0]);
    for next in candidates {
        let place = place + u64::try_from(next).unwrap_or(u64::MAX);
        match at(&bytes[next..], salt, place) {
            Found::Entry(_) | Found::Begun => return Found::Damage(next),
            Found::Nothing | Found::Damage(_) => {}
        }
    }
    if searched == 0 {
        Found::Nothing
    } else {
        Found::Damage(searched)
    }
}

fn at(bytes: &[u8], salt: u64, place: u64) -> Found<'_> {
    let Some((head, rest)) = bytes.split_at_checked(HEAD_BYTES) else {
        return Found::Nothing;
    };
    let number =
        |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let length = number(4);
    let size = usize::try_from(length).unwrap_or(usize::MAX);
    if head[..4] != MARKER || size > MAX_BYTES || number(8) != head_check(salt, place, length) {
        return Found::Damage(1);
    }
    match rest.get(..size) {
        None => Found::Begun,
        Some(bytes) if number(12) == bytes_check(salt, place, bytes) => Found::Entry(bytes),
        Some(_) => Found::Damage(1),
    }
}

fn head_check(salt: u64, place: u64, length: u32) -> u32 {
    let mut check = salted(salt, place);
    check.update(&length.to_le_bytes());
    check.finalize()
}

fn bytes_check(salt: u64, place: u64, bytes: &[u8]) -> u32 {
    let mut check = salted(salt, place);
    check.update(bytes);
    check.finalize()
}

fn salted(salt: u64, place: u64) -> Hasher {
    let mut check = Hasher::new();
    check.update(&salt.to_le_bytes());
    check.update(&place.to_le_bytes());
    check
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: u64 = 0x1234_5678_9abc_def0;

    fn file(entries: &[&[u8]]) -> Vec<u8> {
        let mut file = Vec::new();
        for bytes in entries {
            append(&mut file, SALT, 0, |buffer| buffer.extend_from_slice(bytes));
        }
        file
    }

    /// The entries, and how many bytes belong to none.
    fn read(file: &[u8]) -> (Vec<&[u8]>, usize) {
        let (mut at, mut entries, mut damaged) = (0, Vec::new(), 0);
        while at < file.len() {
            match find(&file[at..], SALT, u64::try_from(at).unwrap(), true) {
                Found::Entry(bytes) => {
                    entries.push(bytes);
                    at += HEAD_BYTES + bytes.len();
                }
                Found::Damage(bytes) => {
                    damaged += bytes;
                    at += bytes;
                }
                Found::Begun | Found::Nothing => break,
            }
        }
        (entries, damaged)
    }

    #[test]
    fn entries_are_found_as_they_were_written() {
        let entries: [&[u8]; 4] = [b"one", b"", &MARKER, b"four"];
        assert_eq!(read(&file(&entries)), (entries.to_vec(), 0));
    }

    #[test]
    fn a_flipped_bit_costs_the_entry_that_it_is_in_and_no_other() {
        let entries: [&[u8]; 3] = [b"one", b"two", b"three"];
        let file = file(&entries);
        let ends = [19, 38, 59];
        assert_eq!(file.len(), ends[2]);
        for bit in 0..file.len() * 8 {
            let mut damaged = file.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let hit = ends.iter().position(|end| bit / 8 < *end).unwrap();
            let mut left = entries.to_vec();
            left.remove(hit);
            let size = HEAD_BYTES + entries[hit].len();
            assert_eq!(read(&damaged), (left, size), "bit {bit}");
        }
    }

    #[test]
    fn an_entry_within_the_bytes_of_another_one_is_not_found_when_that_is_damaged() {
        let inner = file(&[b"forged"]);
        let mut file = file(&[&inner, b"next"]);
        file[HEAD_BYTES + inner.len() - 1] ^= 1;
        let damaged = HEAD_BYTES + inner.len();
        assert_eq!(read(&file), (vec![&b"next"[..]], damaged));
    }

    #[test]
    fn bytes_that_do_not_suffice_are_told_from_damage() {
        let file = file(&[b"one", b"two"]);
        for end in 0..file.len() {
            let found = find(&file[..end], SALT, 0, false);
            let expected = match end {
                0..16 => Found::Nothing,
                16..19 => Found::Begun,
                _ => Found::Entry(b"one"),
            };
            assert_eq!(found, expected, "{end}");
        }
        let zeros = [0; 64];
        assert_eq!(find(&zeros, SALT, 0, false), Found::Damage(49));
        assert_eq!(find(&zeros, SALT, 0, true), Found::Damage(64));
    }
}
