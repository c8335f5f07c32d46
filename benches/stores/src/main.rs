//! What the spool could have been built on: a plain file, open-wal, redb and fjall, as a
//! log that is appended and synced in batches.
//!
//! ```sh
//! cargo run --release --manifest-path benches/stores/Cargo.toml -- DIRECTORY [SMALL_DISK]
//! ```
//!
//! The directory must be empty, on the disk that is measured. On the small disk (some
//! hundred MB, such as a tmpfs) each store meets no space, and then space again.

use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::{self, Command};
use std::time::{Duration, Instant};
use std::{env, iter};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A `swUpgradeResultNotify` with its headers.
const ENTRY: [u8; 460] = [b'x'; 460];
const STORES: [&str; 4] = ["file", "open-wal", "redb", "fjall"];
/// How many pushes share a sync: alone, under 64 connections, and under many.
const BATCHES: [u64; 3] = [1, 64, 1_000];
const ROUND: Duration = Duration::from_secs(5);
const ENTRIES_TO_OPEN: u64 = 1_000_000;

const TABLE: redb::TableDefinition<'_, u64, &[u8]> = redb::TableDefinition::new("entries");

enum Store {
    File(File),
    OpenWal(open_wal::Wal),
    Redb(redb::Database),
    Fjall(fjall::Database, fjall::Keyspace),
}

impl Store {
    fn open(name: &str, directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory)?;
        Ok(match name {
            "file" => {
                let path = directory.join("log");
                // Whoever opens a log reads it, for the end and for what is damaged.
                let _ = fs::read(&path).map(|bytes| bytes.iter().fold(0, |all, byte| all ^ byte));
                Self::File(OpenOptions::new().create(true).append(true).open(path)?)
            }
            "open-wal" => {
                Self::OpenWal(open_wal::Wal::open(directory, open_wal::WalConfig::default())?.0)
            }
            "redb" => Self::Redb(redb::Database::create(directory.join("database"))?),
            "fjall" => {
                let database = fjall::Database::builder(directory).open()?;
                let entries = database.keyspace("entries", Default::default)?;
                Self::Fjall(database, entries)
            }
            _ => return Err(format!("no store {name}").into()),
        })
    }

    /// Appends a batch; on return it is on the disk.
    fn append(&mut self, numbers: impl Iterator<Item = u64>) -> Result<()> {
        match self {
            Self::File(file) => {
                let batch: Vec<_> = numbers.flat_map(|_| ENTRY).collect();
                file.write_all(&batch)?;
                file.sync_data()?;
            }
            Self::OpenWal(wal) => {
                for _ in numbers {
                    wal.append(&ENTRY)?;
                }
                wal.commit()?;
            }
            Self::Redb(database) => {
                let transaction = database.begin_write()?;
                {
                    let mut table = transaction.open_table(TABLE)?;
                    for number in numbers {
                        table.insert(number, ENTRY.as_slice())?;
                    }
                }
                transaction.commit()?;
            }
            Self::Fjall(database, entries) => {
                let mut batch = database.batch();
                batch = batch.durability(Some(fjall::PersistMode::SyncData));
                for number in numbers {
                    batch.insert(entries, number.to_be_bytes(), ENTRY.as_slice());
                }
                batch.commit()?;
            }
        }
        Ok(())
    }
}

fn main() -> Result<()> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["append", store, directory, batch] => append(store, Path::new(directory), batch.parse()?),
        ["fill", store, directory] => fill(store, Path::new(directory)),
        ["open", store, directory] => open(store, Path::new(directory)),
        ["no-space", store, directory] => no_space(store, Path::new(directory)),
        [directory] => measure(directory, None),
        [directory, small_disk] => measure(directory, Some(small_disk)),
        _ => Err("usage: stores DIRECTORY [SMALL_DISK]".into()),
    }
}

/// Each measurement is a process of its own, so that memory, threads and what the kernel
/// counts are those of one store.
fn measure(directory: &str, small_disk: Option<&str>) -> Result<()> {
    for store in STORES {
        let in_process = |step: &str, directory: &str, rest: &[&str]| {
            let mut command = Command::new(env::current_exe()?);
            command.args([step, store, directory]).args(rest).status()
        };
        for batch in BATCHES {
            let place = format!("{directory}/{store}-{batch}");
            in_process("append", &place, &[&batch.to_string()])?;
            fs::remove_dir_all(place)?;
        }
        let place = format!("{directory}/{store}");
        in_process("fill", &place, &[])?;
        in_process("open", &place, &[])?;
        fs::remove_dir_all(place)?;
        if let Some(small_disk) = small_disk {
            let place = format!("{small_disk}/{store}");
            in_process("no-space", &place, &[])?;
            fs::remove_dir_all(place)?;
        }
    }
    Ok(())
}

fn append(name: &str, directory: &Path, batch: u64) -> Result<()> {
    let mut store = Store::open(name, directory)?;
    let (before, began) = (bytes_written()?, Instant::now());
    let mut appended = 0;
    while began.elapsed() < ROUND {
        store.append(appended..appended + batch)?;
        appended += batch;
    }
    let took = u64::try_from(began.elapsed().as_millis())?;
    println!(
        "{name:8} batches of {batch:4}: {:8} entries/s, {:5} syncs/s, {:6} bytes written for each",
        appended * 1_000 / took,
        appended / batch * 1_000 / took,
        (bytes_written()? - before) / appended,
    );
    Ok(())
}

/// Leaves the store as a killed process leaves it.
fn fill(name: &str, directory: &Path) -> Result<()> {
    let mut store = Store::open(name, directory)?;
    for first in (0..ENTRIES_TO_OPEN).step_by(1_000) {
        store.append(first..first + 1_000)?;
    }
    // Nothing is dropped, closed or flushed.
    process::abort()
}

fn open(name: &str, directory: &Path) -> Result<()> {
    let began = Instant::now();
    Store::open(name, directory)?;
    let took = began.elapsed();
    println!("{name:8} open with {ENTRIES_TO_OPEN} entries after a kill: {took:?}");
    Ok(())
}

fn no_space(name: &str, directory: &Path) -> Result<()> {
    let filler = directory.with_extension("filler");
    File::create(&filler)?.write_all(&vec![b'x'; 16 << 20])?;
    let mut store = Store::open(name, directory)?;
    let mut batches = (0..).step_by(1_000).map(|first| first..first + 1_000);
    let mut append = || store.append(batches.next().ok_or("no more numbers")?);
    let refused = iter::repeat_with(&mut append)
        .take(10_000)
        .find_map(Result::err);
    let refused = refused.ok_or("the disk is too large")?;
    fs::remove_file(filler)?;
    let again = match append() {
        Ok(()) => "takes entries again".to_owned(),
        Err(error) => format!("does not take any again: {error}"),
    };
    println!("{name:8} without space: {refused}; with space: {again}");
    Ok(())
}

fn bytes_written() -> Result<u64> {
    let counters = fs::read_to_string("/proc/self/io")?;
    let line = counters
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "));
    Ok(line.ok_or("no write_bytes in /proc/self/io")?.parse()?)
}
