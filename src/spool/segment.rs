//! Reading and writing a file of entries.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::entry::{self, Found, HEAD_BYTES};
use super::names::Name;

/// How many bytes are read at a time.
const WINDOW_BYTES: usize = 64 * 1024;

/// A file that entries are appended to.
#[derive(Debug)]
pub(super) struct Writer {
    file: File,
    name: Name,
    length: u64,
    buffer: Vec<u8>,
}

impl Writer {
    /// Creates the file; it is in the directory for good.
    pub(super) fn create(directory: &Path, name: Name) -> io::Result<Self> {
        let file = create_new(directory, &name.to_string())?;
        sync_directory(directory)?;
        Ok(Self {
            file,
            name,
            length: 0,
            buffer: Vec::new(),
        })
    }

    pub(super) fn name(&self) -> Name {
        self.name
    }

    /// Adds an entry to the next write.
    pub(super) fn add(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        entry::append(&mut self.buffer, self.name.salt, self.length, write);
    }

    /// Writes what was added. Returns the length of the file.
    ///
    /// # Errors
    ///
    /// After an error the file must not be written to any more: what it holds behind its
    /// last length is not known.
    pub(super) fn write(&mut self) -> io::Result<u64> {
        self.file.write_all_at(&self.buffer, self.length)?;
        self.length += u64::try_from(self.buffer.len()).unwrap_or(u64::MAX);
        self.buffer.clear();
        Ok(self.length)
    }

    /// Waits until what was written is on the disk.
    ///
    /// # Errors
    ///
    /// As of [`Writer::write`].
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Removes what may have been written behind `length`, if that is possible.
    pub(super) fn abandon(self, length: u64) {
        let _ = self.file.set_len(length);
    }
}

/// Copies bytes to a new file, which is on the disk for good.
pub(super) fn write_new(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut file = create_new(directory, name)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    sync_directory(directory)
}

/// Pushes concern nobody but the user of the process.
fn create_new(directory: &Path, name: &str) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    options.open(directory.join(name))
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// A part of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    Entry(&'a [u8]),
    /// Bytes that belong to no entry.
    Damage,
    /// An entry that does not end within the file.
    Torn,
    /// The end of the file.
    End,
}

/// Reads a file from one of its entries on.
#[derive(Debug)]
pub(super) struct Reader {
    file: File,
    salt: u64,
    /// Where the file ends, or what is read of it.
    end: u64,
    /// Where the next piece begins.
    place: u64,
    /// What has been read from `place` on, behind `used` bytes that are done with.
    window: Vec<u8>,
    used: usize,
}

impl Reader {
    /// A reader of the first `end` bytes from `place` on, where an entry begins.
    pub(super) fn open(path: &PathBuf, salt: u64, place: u64, end: u64) -> io::Result<Self> {
        Ok(Self {
            file: File::open(path)?,
            salt,
            end,
            place,
            window: Vec::new(),
            used: 0,
        })
    }

    /// Where the next piece begins.
    pub(super) fn place(&self) -> u64 {
        self.place
    }

    /// Returns the next piece, which begins at [`Reader::place`] as it was before.
    pub(super) fn next(&mut self) -> io::Result<Piece<'_>> {
        loop {
            let unread = self.end - self.place - length(self.window.len() - self.used);
            let found = entry::find(
                &self.window[self.used..],
                self.salt,
                self.place,
                unread == 0,
            );
            match found {
                Found::Entry(bytes) => {
                    let size = bytes.len();
                    let begin = self.used + HEAD_BYTES;
                    self.advance(HEAD_BYTES + size);
                    return Ok(Piece::Entry(&self.window[begin..begin + size]));
                }
                Found::Damage(bytes) => {
                    self.advance(bytes);
                    return Ok(Piece::Damage);
                }
                Found::Begun if unread == 0 => {
                    self.advance(self.window.len() - self.used);
                    return Ok(Piece::Torn);
                }
                Found::Nothing if unread == 0 => return Ok(Piece::End),
                Found::Begun | Found::Nothing => self.fill(unread)?,
            }
        }
    }

    fn advance(&mut self, bytes: usize) {
        self.used += bytes;
        self.place += length(bytes);
    }

    fn fill(&mut self, unread: u64) -> io::Result<()> {
        self.window.drain(..std::mem::take(&mut self.used));
        let have = self.window.len();
        let more = WINDOW_BYTES.min(usize::try_from(unread).unwrap_or(usize::MAX));
        self.window.resize(have + more, 0);
        let from = self.place + length(have);
        self.file.read_exact_at(&mut self.window[have..], from)
    }
}

fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
