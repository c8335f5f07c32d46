//! A broker's disk that can be full: an ext4 file system in a sparse file.
//!
//! It is mounted in a mount namespace that the broker's process has for itself,
//! so the mount ends with the process, however that ends, and nothing is left
//! for anybody to clean up. That takes the rights of root.
//!
//! It must not know what a broker is.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FallocateFlags, fallocate, fstatvfs};
use rustix::process::Pid;

/// Sparse: it takes what is written, and an hour's records have room.
const BYTES: u64 = 8 << 30;
/// What takes the rest of the room.
const BALLAST: &str = "ballast";
/// Mounts, makes room and becomes the program.
const SCRIPT: &str = r#"mount -o loop "$0" "$1" && rm -f "$1/ballast" && shift && exec "$@""#;

/// A file system of its own.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    mount_point: PathBuf,
}

impl Disk {
    /// Makes an empty one, to be mounted at an existing directory.
    pub fn create(mount_point: &Path) -> Self {
        let image = mount_point.with_extension("img");
        let file = File::create(&image).expect("the image");
        file.set_len(BYTES).expect("a sparse image");
        // No blocks are reserved for root, whose processes these are.
        let made = Command::new("mkfs.ext4")
            .args(["-q", "-m", "0"])
            .arg(&image)
            .output()
            .expect("mkfs.ext4 runs: install e2fsprogs");
        assert!(made.status.success(), "{made:?}");
        Self {
            image,
            mount_point: mount_point.to_owned(),
        }
    }

    /// The same command in a mount namespace of its own that has this disk.
    pub fn mounted_for(&self, program: &Command) -> Command {
        let mut mounted = Command::new("unshare");
        mounted
            .args(["--mount", "--propagation", "private", "sh", "-c", SCRIPT])
            .arg(&self.image)
            .arg(&self.mount_point)
            .arg(program.get_program())
            .args(program.get_args());
        if let Some(directory) = program.get_current_dir() {
            mounted.current_dir(directory);
        }
        mounted
    }

    /// Takes all room, in the eyes of the process that has it mounted.
    pub fn fill(&self, process: Pid) {
        let root = PathBuf::from(format!("/proc/{}/root", process.as_raw_nonzero()));
        let seen = self.mount_point.strip_prefix("/").expect("absolute");
        let ballast = root.join(seen).join(BALLAST);
        let file = OpenOptions::new().create(true).append(true).open(&ballast);
        let mut file = file.expect("the broker's disk");
        while let free @ 1.. = free_bytes(&file) {
            let end = file.metadata().expect("the ballast").len();
            if fallocate(&file, FallocateFlags::empty(), end, free).is_err() {
                break;
            }
        }
        // What the file system had kept for its own tables.
        while file.write_all(&[0; 4096]).is_ok() {}
    }
}

fn free_bytes(file: &File) -> u64 {
    let found = fstatvfs(file).expect("the broker's file system");
    found.f_bavail * found.f_frsize
}
