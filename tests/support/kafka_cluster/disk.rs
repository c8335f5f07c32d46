//! A disk that a test can fill: an ext4 file system in a sparse file.
//!
//! It is mounted in a private mount namespace of the process that uses it, so
//! the mount disappears with that process, however it ends, and nothing needs
//! cleaning up. Mounting requires root.
//!
//! It must not know what a broker is.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FallocateFlags, fallocate, fstatvfs};
use rustix::process::Pid;

/// Room for an hour's records; the sparse file occupies only what is written.
const BYTES: u64 = 8 << 30;
/// The file that fills the disk.
const BALLAST: &str = "ballast";
/// Mounts the image, frees the space and executes the program.
const SCRIPT: &str = r#"mount -o loop "$0" "$1" && rm -f "$1/ballast" && shift && exec "$@""#;

/// An ext4 image and its mount point.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    mount_point: PathBuf,
}

impl Disk {
    /// Formats an empty image for an existing mount point.
    pub fn create(mount_point: &Path) -> Self {
        let image = mount_point.with_extension("img");
        let file = File::create(&image).expect("the image");
        file.set_len(BYTES).expect("a sparse image");
        // The broker runs as root, so blocks reserved for root would stay usable.
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

    /// Wraps the command so that it runs in a private mount namespace with this
    /// disk mounted.
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

    /// Fills the disk, through the mount namespace of the process that uses it.
    pub fn fill(&self, process: Pid) {
        let root = PathBuf::from(format!("/proc/{}/root", process.as_raw_nonzero()));
        let mount_point = self.mount_point.strip_prefix("/").expect("absolute");
        let ballast = root.join(mount_point).join(BALLAST);
        let file = OpenOptions::new().create(true).append(true).open(&ballast);
        let mut file = file.expect("the broker's disk");
        while let free @ 1.. = free_bytes(&file) {
            let end = file.metadata().expect("the ballast").len();
            if fallocate(&file, FallocateFlags::empty(), end, free).is_err() {
                break;
            }
        }
        // Use up what ext4 holds back for its metadata, block by block.
        while file.write_all(&[0; 4096]).is_ok() {}
    }
}

fn free_bytes(file: &File) -> u64 {
    let found = fstatvfs(file).expect("the broker's file system");
    found.f_bavail * found.f_frsize
}
