use std::collections::VecDeque;

use tempfile::TempDir;

use super::*;
use crate::topics::Topic;

const A: Slot = Slot {
    topic: Topic::CommandStatus,
    partitions: 6,
    partition: 0,
};
const B: Slot = Slot {
    topic: Topic::DeadLetter,
    partitions: 6,
    partition: 5,
};

fn config(directory: &TempDir) -> LogConfig {
    LogConfig {
        directory: directory.path().to_owned(),
        max_bytes: 1 << 20,
        segment_bytes: 512,
    }
}

fn open(directory: &TempDir) -> Log {
    let (log, damage) = Log::open(&config(directory)).unwrap();
    assert_eq!(damage.places, 0);
    log
}

fn entry(slot: Slot, number: u64) -> Entry {
    Entry {
        slot,
        received_ms: number,
        record: format!("record {number}").into_bytes(),
    }
}

/// Every entry that is left, by slot.
fn rest(log: &mut Log, slot: Slot) -> Vec<Entry> {
    let (mut all, mut cursor) = (Vec::new(), Cursor::default());
    loop {
        let entries = log.read(slot, cursor, 100).unwrap();
        let Some(last) = entries.last() else {
            return all;
        };
        cursor = last.end;
        all.extend(entries.into_iter().map(|stored| stored.entry));
    }
}

fn numbers(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.received_ms).collect()
}

fn files(directory: &TempDir, beginning: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(directory.path()).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.retain(|path| {
        path.file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with(beginning)
    });
    files.sort();
    files
}

#[test]
fn each_slot_is_read_in_the_order_in_which_it_was_appended_after_a_restart_too() {
    let directory = TempDir::new().unwrap();
    let mut log = open(&directory);
    for number in (0..100).step_by(2) {
        log.append(&[entry(A, number), entry(B, number + 1)])
            .unwrap();
    }
    assert!(files(&directory, "segment").len() > 5);
    for _ in 0..2 {
        let (a, b) = (rest(&mut log, A), rest(&mut log, B));
        assert_eq!(numbers(&a), (0..100).step_by(2).collect::<Vec<_>>());
        assert_eq!(numbers(&b), (1..100).step_by(2).collect::<Vec<_>>());
        assert_eq!(a[1], entry(A, 2));
        drop(log);
        log = open(&directory);
    }
}

#[test]
fn what_was_delivered_is_not_read_again_and_its_segments_are_deleted() {
    let directory = TempDir::new().unwrap();
    let mut log = open(&directory);
    for number in 0..50 {
        log.append(&[entry(A, number)]).unwrap();
    }
    log.append(&[entry(B, 50)]).unwrap();
    let before = (files(&directory, "segment").len(), log.bytes());
    let mut cursor = Cursor::default();
    for _ in 0..2 {
        for _ in 0..10 {
            let entries = log.read(A, cursor, 1).unwrap();
            cursor = log.delivered(&entries, 1).unwrap();
        }
        drop(log);
        log = open(&directory);
        cursor = Cursor::default();
    }
    assert_eq!(numbers(&rest(&mut log, A)), (20..50).collect::<Vec<_>>());
    let counts = |log: &Log| {
        log.pending()
            .values()
            .map(|waiting| waiting.count)
            .collect::<Vec<_>>()
    };
    assert_eq!(counts(&log), [30, 1]);
    assert_eq!(log.pending()[&A].oldest_ms, 20);
    let after = (files(&directory, "segment").len(), log.bytes());
    assert!(
        after < before && after.1 < before.1,
        "{before:?}, {after:?}"
    );
    for slot in [A, B] {
        loop {
            let entries = log.read(slot, Cursor::default(), 100).unwrap();
            if entries.is_empty() {
                break;
            }
            log.delivered(&entries, entries.len()).unwrap();
        }
    }
    assert_eq!(log.bytes(), 0);
    assert_eq!(files(&directory, "").len(), 1, "the lock");
    log.append(&[entry(A, 51)]).unwrap();
    assert_eq!(numbers(&rest(&mut log, A)), [51]);
    drop(log);
    assert_eq!(
        numbers(&rest(&mut open(&directory), A)),
        [51],
        "delivered numbers are not reused"
    );
}

#[test]
fn a_full_log_takes_nothing_until_something_was_delivered() {
    let directory = TempDir::new().unwrap();
    let mut config = config(&directory);
    config.max_bytes = 2_000;
    let (mut log, _) = Log::open(&config).unwrap();
    let mut number = 0;
    while log.append(&[entry(A, number)]).is_ok() {
        number += 1;
    }
    assert!(log.bytes() <= 2_000);
    assert!(matches!(
        log.append(&[entry(A, number)]),
        Err(AppendError::Full)
    ));
    let entries = log.read(A, Cursor::default(), 1_000_000).unwrap();
    assert!(entries.len() < 20, "of one segment");
    log.delivered(&entries, entries.len()).unwrap();
    log.append(&[entry(A, number)]).unwrap();
}

#[test]
fn a_torn_tail_is_cut_off_without_a_word() {
    let directory = TempDir::new().unwrap();
    let mut log = open(&directory);
    let mut ends = vec![0_usize];
    for number in 0..5 {
        log.append(&[entry(A, number)]).unwrap();
        ends.push(usize::try_from(log.bytes()).unwrap());
    }
    drop(log);
    let segment = &files(&directory, "segment")[0];
    let whole = fs::read(segment).unwrap();
    for length in 0..=whole.len() {
        fs::write(segment, &whole[..length]).unwrap();
        let mut log = open(&directory);
        let entries = ends.iter().filter(|end| **end <= length).count() - 1;
        assert_eq!(rest(&mut log, A).len(), entries, "{length} bytes");
        assert_eq!(usize::try_from(log.bytes()).unwrap(), ends[entries]);
    }
    let mut zeros = whole.clone();
    zeros[ends[4]..].fill(0);
    fs::write(segment, &zeros).unwrap();
    assert_eq!(
        rest(&mut open(&directory), A).len(),
        4,
        "a page that was never written"
    );
}

#[test]
fn flipped_bits_cost_the_entries_that_they_are_in_and_are_set_aside() {
    let directory = TempDir::new().unwrap();
    let mut log = open(&directory);
    let all: Vec<Entry> = (0..60)
        .map(|number| entry(if number % 2 == 0 { A } else { B }, number))
        .collect();
    for entry in &all {
        log.append(std::slice::from_ref(entry)).unwrap();
    }
    drop(log);
    let originals: Vec<_> = files(&directory, "segment")
        .into_iter()
        .map(|path| (fs::read(&path).unwrap(), path))
        .collect();
    for _ in 0..300 {
        for (bytes, path) in &originals {
            fs::write(path, bytes).unwrap();
        }
        for path in files(&directory, "damaged") {
            fs::remove_file(path).unwrap();
        }
        let flips = fastrand::usize(1..6);
        for _ in 0..flips {
            let (_, path) = &originals[fastrand::usize(..originals.len())];
            let mut bytes = fs::read(path).unwrap();
            let at = fastrand::usize(..bytes.len());
            bytes[at] ^= 1 << fastrand::u8(..8);
            fs::write(path, bytes).unwrap();
        }
        let (mut log, damage) = Log::open(&config(&directory)).unwrap();
        let mut found = [rest(&mut log, A), rest(&mut log, B)].concat();
        found.sort_by_key(|entry| entry.received_ms);
        assert!(found.iter().all(|entry| all.contains(entry)));
        assert!(
            found.len() + flips >= all.len(),
            "{} of {}",
            found.len(),
            all.len()
        );
        let lost = all.len() - found.len();
        assert_eq!(lost > 0, damage.places > 0, "{lost} lost, {damage:?}");
        let aside = files(&directory, "damaged").len();
        assert_eq!(u64::try_from(aside).unwrap(), damage.places);
        drop(log);
        let (_, again) = Log::open(&config(&directory)).unwrap();
        assert_eq!(again.places, 0, "it is reported once");
    }
}

#[test]
fn a_damaged_progress_repeats_and_loses_nothing() {
    let directory = TempDir::new().unwrap();
    let mut log = open(&directory);
    for number in 0..9 {
        log.append(&[entry(A, number)]).unwrap();
    }
    let entries = log.read(A, Cursor::default(), 1_000).unwrap();
    log.delivered(&entries, 5).unwrap();
    drop(log);
    let progress = &files(&directory, "progress")[0];
    let mut bytes = fs::read(progress).unwrap();
    bytes[20] ^= 1;
    fs::write(progress, bytes).unwrap();
    assert_eq!(
        numbers(&rest(&mut open(&directory), A)),
        (0..9).collect::<Vec<_>>()
    );
}

#[test]
fn a_log_is_owned_by_one_process_and_of_one_version() {
    let directory = TempDir::new().unwrap();
    let log = open(&directory);
    let error = Log::open(&config(&directory)).unwrap_err();
    assert!(matches!(error, OpenError::Locked(_)), "{error}");
    drop(log);
    let foreign = directory.path().join("notes.txt");
    fs::write(&foreign, "mine").unwrap();
    drop(open(&directory));
    assert_eq!(fs::read(&foreign).unwrap(), b"mine");
    fs::write(
        directory
            .path()
            .join("segment-2-00000000000000000001-0000000000000001"),
        "",
    )
    .unwrap();
    let error = Log::open(&config(&directory)).unwrap_err();
    assert!(error.to_string().contains("segment-2-"), "{error}");
}

#[test]
fn any_sequence_of_appends_deliveries_and_restarts_keeps_what_was_not_delivered() {
    for seed in 0..40 {
        let mut random = fastrand::Rng::with_seed(seed);
        let directory = TempDir::new().unwrap();
        let mut log = open(&directory);
        let slots = [A, B];
        let mut expected = [VecDeque::new(), VecDeque::new()];
        let mut cursors = [Cursor::default(); 2];
        for number in 0..400 {
            let which = random.usize(..2);
            match random.u8(..10) {
                0 => {
                    drop(log);
                    log = open(&directory);
                    cursors = [Cursor::default(); 2];
                }
                1..=4 => {
                    let entries = log
                        .read(slots[which], cursors[which], random.usize(..200))
                        .unwrap();
                    assert_eq!(entries.is_empty(), expected[which].is_empty());
                    if !entries.is_empty() {
                        let count = random.usize(1..=entries.len());
                        for stored in &entries[..count] {
                            assert_eq!(Some(stored.entry.received_ms), expected[which].pop_front());
                        }
                        cursors[which] = log.delivered(&entries, count).unwrap();
                    }
                }
                _ => {
                    log.append(&[entry(slots[which], number)]).unwrap();
                    expected[which].push_back(number);
                }
            }
        }
        for (slot, expected) in slots.into_iter().zip(expected) {
            assert_eq!(
                numbers(&rest(&mut log, slot)),
                Vec::from(expected),
                "seed {seed}"
            );
        }
    }
}
