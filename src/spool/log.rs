//! The log of what is spooled: segments of entries, appended and synced together, read by
//! slot, and deleted once everything in them has been delivered.
//!
//! It belongs to one thread. It knows what a slot is, and nothing of records and Kafka.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::entry::HEAD_BYTES;
use super::names::{self, Kind, Name, Named};
use super::progress::{self, Progress};
use super::segment::{self, Piece, Reader, Writer};
use super::{Slot, take_u64};
use crate::process::fail_point::fail_point;

/// How large a log may be, and where it is.
#[derive(Debug, Clone)]
pub(crate) struct LogConfig {
    pub(crate) directory: PathBuf,
    pub(crate) max_bytes: u64,
    pub(crate) segment_bytes: u64,
}

/// A log of entries.
#[derive(Debug)]
pub(crate) struct Log {
    config: LogConfig,
    _lock: File,
    /// Whether an earlier process has used the directory.
    was_used: bool,
    segments: BTreeMap<u64, Segment>,
    /// Writes the last segment, if that is to be continued.
    writer: Option<Writer>,
    progress: Progress,
    next_number: u64,
    next_sequence: u64,
    bytes: u64,
}

/// What is known of a segment.
#[derive(Debug)]
struct Segment {
    name: Name,
    /// The bytes that hold entries.
    length: u64,
    /// What of each slot has not been delivered.
    pending: HashMap<Slot, Waiting>,
}

/// Entries that have not been delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Waiting {
    pub(crate) count: u64,
    /// Before this time none of them was received: milliseconds of Unix time.
    pub(crate) oldest_ms: u64,
}

impl Waiting {
    /// Adds an entry that was received at this time.
    pub(super) fn add(&mut self, received_ms: u64) {
        let is_first = self.count == 0;
        self.count += 1;
        self.oldest_ms = if is_first {
            received_ms
        } else {
            self.oldest_ms.min(received_ms)
        };
    }
}

/// What is spooled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) slot: Slot,
    /// When the push was received: milliseconds of Unix time.
    pub(crate) received_ms: u64,
    pub(crate) record: Vec<u8>,
}

/// An entry that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) entry: Entry,
    /// Its place in the order of its slot.
    sequence: u64,
    /// Where the next one begins.
    end: Cursor,
}

/// Where a slot is read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Cursor {
    segment: u64,
    place: u64,
}

/// What the log of another process holds.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) waiting: BTreeMap<Slot, Waiting>,
    /// The bytes of all segments.
    pub(crate) bytes: u64,
    /// Files with what was damaged or rejected.
    pub(crate) set_aside: u64,
}

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("cannot use {}", path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("another process uses {}", .0.display())]
    Locked(PathBuf),
    #[error("{} was written by another version of northbridge", .0.display())]
    OtherVersion(PathBuf),
}

/// Why entries were not appended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AppendError {
    #[error("the spool is full")]
    Full,
    #[error("the spool cannot be written: {0}")]
    Io(io::Error),
}

/// What was damaged in the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Damage {
    /// Places at which bytes were no entry; each has a file of its own now.
    pub(crate) places: u64,
}

impl Log {
    /// Opens the log in a directory, which is made if it is missing.
    ///
    /// A torn tail is cut off: nobody was told that it is stored. What is damaged
    /// elsewhere is copied to files of its own, and the entries behind it are kept.
    pub(crate) fn open(config: &LogConfig) -> Result<(Self, Damage), OpenError> {
        let failed = |source| OpenError::Directory {
            path: config.directory.clone(),
            source,
        };
        let mut builder = fs::DirBuilder::new();
        let created = builder
            .recursive(true)
            .mode(0o700)
            .create(&config.directory);
        created.map_err(failed)?;
        let was_used = config.directory.join(names::LOCK).exists();
        let lock = lock(&config.directory)?;
        let Files {
            segments,
            progresses,
            ..
        } = Files::of(&config.directory)?;
        let progress = Progress::open(&config.directory, &progresses).map_err(failed)?;
        let mut log = Self {
            _lock: lock,
            was_used,
            segments: BTreeMap::new(),
            writer: None,
            next_sequence: progress.last() + 1,
            progress,
            next_number: segments.last().map_or(1, |name| name.number + 1),
            bytes: 0,
            config: config.clone(),
        };
        let mut damage = Damage::default();
        for (index, name) in segments.iter().enumerate() {
            let is_last = index + 1 == segments.len();
            log.recover(*name, is_last, &mut damage).map_err(failed)?;
        }
        log.delete_delivered().map_err(failed)?;
        Ok((log, damage))
    }

    /// Returns whether an earlier process has used the directory.
    pub(crate) fn was_used(&self) -> bool {
        self.was_used
    }

    /// The bytes of all segments.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many more bytes there is room for.
    pub(crate) fn room(&self) -> u64 {
        self.config.max_bytes.saturating_sub(self.bytes)
    }

    /// What of each slot has not been delivered.
    pub(crate) fn pending(&self) -> BTreeMap<Slot, Waiting> {
        let mut pending: BTreeMap<Slot, Waiting> = BTreeMap::new();
        for segment in self.segments.values() {
            for (slot, waiting) in segment
                .pending
                .iter()
                .filter(|(_, waiting)| waiting.count > 0)
            {
                let all = pending.entry(*slot).or_insert(Waiting {
                    count: 0,
                    oldest_ms: waiting.oldest_ms,
                });
                all.count += waiting.count;
                all.oldest_ms = all.oldest_ms.min(waiting.oldest_ms);
            }
        }
        pending
    }

    /// Copies an entry that cannot be delivered to a file of its own.
    pub(crate) fn set_entry_aside(&self, stored: &Stored) -> io::Result<()> {
        let name = names::rejected(stored.sequence, stored.entry.received_ms);
        match segment::write_new(&self.config.directory, &name, &stored.entry.record) {
            // It was copied, and delivery was interrupted before that was noted.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            result => result,
        }
    }

    /// Appends entries, and returns once they are on the disk.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no room, or if the disk reports one; in either case
    /// none of them will be read by this process, though a later one may find some.
    pub(crate) fn append(&mut self, entries: &[Entry]) -> Result<(), AppendError> {
        let size: u64 = entries.iter().map(Entry::size).sum();
        if size > self.room() {
            return Err(AppendError::Full);
        }
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => self.new_segment().map_err(AppendError::Io)?,
        };
        let number = writer.name().number;
        for entry in entries {
            let sequence = self.next_sequence;
            self.next_sequence += 1;
            writer.add(|buffer| entry.encode(buffer, sequence));
        }
        let before = self.segments[&number].length;
        fail_point(1);
        let written = writer.write().and_then(|length| {
            fail_point(2);
            writer.sync().map(|()| length)
        });
        fail_point(3);
        let length = match written {
            Ok(length) => length,
            Err(error) => {
                writer.abandon(before);
                return Err(AppendError::Io(error));
            }
        };
        self.bytes += length - before;
        if let Some(segment) = self.segments.get_mut(&number) {
            segment.length = length;
            for entry in entries {
                let pending = segment.pending.entry(entry.slot).or_default();
                pending.add(entry.received_ms);
            }
        }
        if length < self.config.segment_bytes {
            self.writer = Some(writer);
        }
        Ok(())
    }

    /// Reads entries of a slot that have not been delivered, from `cursor` on, in one
    /// segment: as many as have `max_bytes` together, but at least one if there are any.
    pub(crate) fn read(
        &mut self,
        slot: Slot,
        cursor: Cursor,
        max_bytes: usize,
    ) -> io::Result<Vec<Stored>> {
        let delivered = self.progress.of(slot);
        let numbers: Vec<u64> = self
            .segments
            .range(cursor.segment..)
            .map(|(n, _)| *n)
            .collect();
        for number in numbers {
            let segment = &self.segments[&number];
            if segment
                .pending
                .get(&slot)
                .is_none_or(|pending| pending.count == 0)
            {
                continue;
            }
            let begin = if number == cursor.segment {
                cursor.place
            } else {
                0
            };
            let path = self.path(segment.name);
            let mut reader = Reader::open(&path, segment.name.salt, begin, segment.length)?;
            let (mut entries, mut size) = (Vec::new(), 0);
            while size < max_bytes.max(1) {
                let stored = match reader.next()? {
                    Piece::Entry(bytes) => decode(bytes),
                    Piece::Damage => None,
                    Piece::Torn | Piece::End => break,
                };
                if let Some((sequence, entry)) = stored
                    && entry.slot == slot
                    && sequence > delivered
                {
                    size += entry.record.len();
                    let place = reader.place();
                    let end = Cursor {
                        segment: number,
                        place,
                    };
                    entries.push(Stored {
                        entry,
                        sequence,
                        end,
                    });
                }
            }
            if !entries.is_empty() {
                return Ok(entries);
            }
            // They were damaged since they were counted.
            if begin == 0
                && let Some(segment) = self.segments.get_mut(&number)
            {
                segment.pending.remove(&slot);
            }
        }
        Ok(Vec::new())
    }

    /// Notes that the first `count` of the entries that were read have been delivered,
    /// and deletes what is needed no more. Returns where its slot is read on.
    ///
    /// # Errors
    ///
    /// After an error they may be read again by a later process, but not by this one.
    pub(crate) fn delivered(&mut self, entries: &[Stored], count: usize) -> io::Result<Cursor> {
        let Some(last) = entries[..count].last() else {
            return Ok(Cursor::default());
        };
        let slot = last.entry.slot;
        if let Some(segment) = self.segments.get_mut(&last.end.segment)
            && let Some(pending) = segment.pending.get_mut(&slot)
        {
            let count = u64::try_from(count).unwrap_or(u64::MAX);
            pending.count = pending.count.saturating_sub(count);
        }
        fail_point(4);
        let noted = self.progress.advance(slot, last.sequence);
        fail_point(5);
        self.delete_delivered()?;
        fail_point(6);
        noted.map(|()| last.end)
    }

    fn new_segment(&mut self) -> io::Result<Writer> {
        let name = Name::new(Kind::Segment, self.next_number);
        let writer = Writer::create(&self.config.directory, name)?;
        self.next_number += 1;
        let segment = Segment {
            name,
            length: 0,
            pending: HashMap::new(),
        };
        self.segments.insert(name.number, segment);
        Ok(writer)
    }

    fn path(&self, name: Name) -> PathBuf {
        self.config.directory.join(name.to_string())
    }

    fn delete_delivered(&mut self) -> io::Result<()> {
        let is_delivered =
            |segment: &Segment| segment.pending.values().all(|pending| pending.count == 0);
        let delivered: Vec<Name> = self
            .segments
            .values()
            .filter(|segment| is_delivered(segment))
            .map(|segment| segment.name)
            .collect();
        for name in delivered {
            if self
                .writer
                .as_ref()
                .is_some_and(|writer| writer.name() == name)
            {
                self.writer = None;
            }
            fs::remove_file(self.path(name))?;
            if let Some(segment) = self.segments.remove(&name.number) {
                self.bytes -= segment.length;
            }
        }
        if self.segments.is_empty() {
            self.progress.clear()?;
        }
        Ok(())
    }

    /// Takes over a segment that an earlier process wrote.
    fn recover(&mut self, name: Name, is_last: bool, damage: &mut Damage) -> io::Result<()> {
        let path = self.path(name);
        let length = fs::metadata(&path)?.len();
        let mut reader = Reader::open(&path, name.salt, 0, length)?;
        let mut segment = Segment {
            name,
            length,
            pending: HashMap::new(),
        };
        let mut damaged_from = None;
        loop {
            let place = reader.place();
            let piece = reader.next()?;
            let stored = match piece {
                Piece::Entry(bytes) => decode(bytes),
                Piece::Damage | Piece::Torn | Piece::End => None,
            };
            let is_end = piece == Piece::End;
            let is_torn = is_last && piece == Piece::Torn;
            let Some((sequence, entry)) = stored else {
                if is_end || is_torn {
                    self.finish(&path, &mut segment, damaged_from, place, is_last, damage)?;
                    break;
                }
                damaged_from.get_or_insert(place);
                continue;
            };
            if let Some(from) = damaged_from.take() {
                self.set_aside(&path, from, place, damage)?;
            }
            self.next_sequence = self.next_sequence.max(sequence + 1);
            if sequence > self.progress.of(entry.slot) {
                let pending = segment.pending.entry(entry.slot).or_default();
                pending.add(entry.received_ms);
            }
        }
        self.bytes += segment.length;
        self.segments.insert(name.number, segment);
        Ok(())
    }

    /// Cuts off what was torn at the end of the last segment, and sets aside what was
    /// damaged there.
    fn finish(
        &self,
        path: &Path,
        segment: &mut Segment,
        damaged_from: Option<u64>,
        torn_from: u64,
        is_last: bool,
        damage: &mut Damage,
    ) -> io::Result<()> {
        let from = damaged_from.unwrap_or(torn_from);
        if let Some(from) = damaged_from {
            let rest = bytes_of(path, from, torn_from)?;
            let was_never_written = rest.len() < HEAD_BYTES || rest.iter().all(|byte| *byte == 0);
            if !(is_last && was_never_written) {
                self.set_aside(path, from, torn_from, damage)?;
                return Ok(());
            }
        }
        if from < segment.length {
            OpenOptions::new().write(true).open(path)?.set_len(from)?;
            segment.length = from;
        }
        Ok(())
    }

    /// Copies bytes that are no entry to a file of their own, unless that was done before.
    fn set_aside(&self, path: &Path, from: u64, to: u64, damage: &mut Damage) -> io::Result<()> {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let aside = names::damaged(name, from);
        if self.config.directory.join(&aside).exists() {
            return Ok(());
        }
        let bytes = bytes_of(path, from, to)?;
        segment::write_new(&self.config.directory, &aside, &bytes)?;
        damage.places += 1;
        Ok(())
    }
}

impl AppendError {
    /// The same error, for another entry of the batch.
    pub(super) fn again(&self) -> Self {
        match self {
            Self::Full => Self::Full,
            Self::Io(error) => Self::Io(error.kind().into()),
        }
    }
}

impl Entry {
    const FIXED_BYTES: usize = HEAD_BYTES + 8 + 8 + 4 + 4 + 1;

    /// The bytes that it takes in the log.
    pub(super) fn size(&self) -> u64 {
        let bytes = Self::FIXED_BYTES + self.slot.topic.label().len() + self.record.len();
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    fn encode(&self, buffer: &mut Vec<u8>, sequence: u64) {
        buffer.extend_from_slice(&sequence.to_le_bytes());
        buffer.extend_from_slice(&self.received_ms.to_le_bytes());
        self.slot.encode(buffer);
        buffer.extend_from_slice(&self.record);
    }
}

/// Reads what is in a directory, which another process may own and change meanwhile.
///
/// # Errors
///
/// Returns an error if the directory or a file cannot be read.
pub(crate) fn inspect(directory: &Path) -> Result<Contents, OpenError> {
    let failed = |source| OpenError::Directory {
        path: directory.to_owned(),
        source,
    };
    let files = Files::of(directory)?;
    let delivered = progress::read(directory, &files.progresses).map_err(failed)?;
    let mut contents = Contents {
        set_aside: files.set_aside,
        ..Contents::default()
    };
    for name in files.segments {
        match inspect_segment(directory, name, &delivered, &mut contents) {
            // It has been delivered since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result.map_err(failed)?,
        }
    }
    Ok(contents)
}

/// The files in a directory.
#[derive(Debug, Default)]
struct Files {
    /// In the order of their numbers.
    segments: Vec<Name>,
    progresses: Vec<Name>,
    set_aside: u64,
}

impl Files {
    fn of(directory: &Path) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Directory {
            path: directory.to_owned(),
            source,
        };
        let mut files = Self::default();
        for file in fs::read_dir(directory).map_err(failed)? {
            let path = file.map_err(failed)?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            match names::parse(name.unwrap_or_default()) {
                Named::Entries(name) if name.kind == Kind::Segment => files.segments.push(name),
                Named::Entries(name) => files.progresses.push(name),
                Named::SetAside => files.set_aside += 1,
                Named::OtherVersion => return Err(OpenError::OtherVersion(path)),
                Named::Other => {}
            }
        }
        files.segments.sort_by_key(|name| name.number);
        Ok(files)
    }
}

fn inspect_segment(
    directory: &Path,
    name: Name,
    delivered: &HashMap<Slot, u64>,
    contents: &mut Contents,
) -> io::Result<()> {
    let path = directory.join(name.to_string());
    let length = fs::metadata(&path)?.len();
    let mut reader = Reader::open(&path, name.salt, 0, length)?;
    contents.bytes += length;
    loop {
        let stored = match reader.next()? {
            Piece::Entry(bytes) => decode(bytes),
            Piece::Damage => None,
            Piece::Torn | Piece::End => return Ok(()),
        };
        if let Some((sequence, entry)) = stored
            && sequence > delivered.get(&entry.slot).copied().unwrap_or(0)
        {
            let waiting = contents.waiting.entry(entry.slot).or_default();
            waiting.add(entry.received_ms);
        }
    }
}

/// `None` if it is of a topic that is not known.
fn decode(mut bytes: &[u8]) -> Option<(u64, Entry)> {
    let sequence = take_u64(&mut bytes)?;
    let received_ms = take_u64(&mut bytes)?;
    let slot = Slot::decode(&mut bytes)?;
    let entry = Entry {
        slot,
        received_ms,
        record: bytes.to_vec(),
    };
    Some((sequence, entry))
}

fn lock(directory: &Path) -> Result<File, OpenError> {
    let path = directory.join(names::LOCK);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path);
    let file = file.map_err(|source| OpenError::Directory {
        path: path.clone(),
        source,
    })?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(_) => Err(OpenError::Locked(directory.to_owned())),
    }
}

fn bytes_of(path: &Path, from: u64, to: u64) -> io::Result<Vec<u8>> {
    use std::os::unix::fs::FileExt;
    let mut bytes = vec![0; usize::try_from(to - from).unwrap_or(usize::MAX)];
    File::open(path)?.read_exact_at(&mut bytes, from)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
