//! How far each slot has been delivered.
//!
//! Written without a sync: a process that is killed loses nothing of it, and a host that
//! loses power delivers some records again.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::Slot;
use super::names::{Kind, Name};
use super::segment::{Piece, Reader, Writer};

/// A longer file is replaced by one that has each slot once.
const MAX_BYTES: u64 = 1 << 20;

/// The sequence number up to which each slot has been delivered, and its file.
#[derive(Debug)]
pub(super) struct Progress {
    directory: PathBuf,
    delivered: HashMap<Slot, u64>,
    writer: Option<Writer>,
    next_number: u64,
}

impl Progress {
    /// Reads the files of these names, and puts one in their place. What is damaged in
    /// them is delivered again.
    pub(super) fn open(directory: &Path, names: &[Name]) -> io::Result<Self> {
        let delivered = read(directory, names)?;
        let next_number = names.iter().map(|name| name.number + 1).max().unwrap_or(0);
        let mut progress = Self {
            directory: directory.to_owned(),
            delivered,
            writer: None,
            next_number,
        };
        if !names.is_empty() {
            progress.rewrite()?;
        }
        for name in names {
            fs::remove_file(directory.join(name.to_string()))?;
        }
        Ok(progress)
    }

    /// The sequence number up to which a slot has been delivered.
    pub(super) fn of(&self, slot: Slot) -> u64 {
        self.delivered.get(&slot).copied().unwrap_or(0)
    }

    /// The largest sequence number that was delivered.
    pub(super) fn last(&self) -> u64 {
        self.delivered.values().copied().max().unwrap_or(0)
    }

    /// A slot has been delivered up to a sequence number.
    pub(super) fn advance(&mut self, slot: Slot, sequence: u64) -> io::Result<()> {
        self.delivered.insert(slot, sequence);
        let Some(writer) = &mut self.writer else {
            return self.rewrite();
        };
        writer.add(|buffer| encode(buffer, slot, sequence));
        match writer.write() {
            Ok(length) if length < MAX_BYTES => Ok(()),
            Ok(_) => self.replace(),
            Err(error) => {
                self.writer = None;
                Err(error)
            }
        }
    }

    /// Forgets everything, as there is nothing left that it is needed for.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.delivered.clear();
        match self.writer.take() {
            Some(writer) => fs::remove_file(self.directory.join(writer.name().to_string())),
            None => Ok(()),
        }
    }

    fn replace(&mut self) -> io::Result<()> {
        let old = self.writer.take();
        self.rewrite()?;
        if let Some(old) = old {
            fs::remove_file(self.directory.join(old.name().to_string()))?;
        }
        Ok(())
    }

    fn rewrite(&mut self) -> io::Result<()> {
        let name = Name::new(Kind::Progress, self.next_number);
        self.next_number += 1;
        let mut writer = Writer::create(&self.directory, name)?;
        for (slot, sequence) in &self.delivered {
            writer.add(|buffer| encode(buffer, *slot, *sequence));
        }
        writer.write()?;
        // The file that it replaces is removed.
        writer.sync()?;
        self.writer = Some(writer);
        Ok(())
    }
}

/// Reads files of progress.
pub(super) fn read(directory: &Path, names: &[Name]) -> io::Result<HashMap<Slot, u64>> {
    let mut delivered = HashMap::new();
    for name in names {
        let path = directory.join(name.to_string());
        let mut reader = Reader::open(&path, name.salt, 0, fs::metadata(&path)?.len())?;
        loop {
            match reader.next()? {
                Piece::Entry(bytes) => {
                    if let Some((slot, sequence)) = decode(bytes) {
                        let known: &mut u64 = delivered.entry(slot).or_default();
                        *known = sequence.max(*known);
                    }
                }
                Piece::Damage => {}
                Piece::Torn | Piece::End => break,
            }
        }
    }
    Ok(delivered)
}

fn encode(buffer: &mut Vec<u8>, slot: Slot, sequence: u64) {
    buffer.extend_from_slice(&sequence.to_le_bytes());
    slot.encode(buffer);
}

fn decode(mut bytes: &[u8]) -> Option<(Slot, u64)> {
    let sequence = super::take_u64(&mut bytes)?;
    let slot = Slot::decode(&mut bytes)?;
    Some((slot, sequence))
}
