//! A disk that returns errors: the C library's calls, in a process that is started with
//! [`FailingDisk::environment`], fail as long as the test says so.

use std::fs;
use std::process::Command;

use tempfile::TempDir;

use super::child;

/// Loaded before the C library. The file that the variable names holds the call and the
/// number of the error, such as `fdatasync 5`.
const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fails(const char *call) {
    char failing[32] = "";
    int error = 0, saved = errno;
    FILE *file = fopen(getenv("FAILING_DISK"), "r");
    int fields = file ? fscanf(file, "%31s %d", failing, &error) : 0;
    if (file) fclose(file);
    errno = saved;
    if (fields != 2 || strcmp(failing, call)) return 0;
    errno = error;
    return 1;
}

int fdatasync(int fd) {
    int (*next)(int) = dlsym(RTLD_NEXT, "fdatasync");
    return fails("fdatasync") ? -1 : next(fd);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
    ssize_t (*next)(int, const void *, size_t, off64_t) = dlsym(RTLD_NEXT, "pwrite64");
    return fails("pwrite") ? -1 : next(fd, bytes, count, at);
}

ssize_t pread64(int fd, void *bytes, size_t count, off64_t at) {
    ssize_t (*next)(int, void *, size_t, off64_t) = dlsym(RTLD_NEXT, "pread64");
    return fails("pread") ? -1 : next(fd, bytes, count, at);
}
"#;

/// What the disk of a process does.
#[derive(Debug)]
pub struct FailingDisk {
    directory: TempDir,
}

/// A call and the error that it returns.
#[derive(Debug, Clone, Copy)]
pub enum DiskError {
    NoSpaceToWrite,
    SyncFails,
    ReadFails,
}

impl FailingDisk {
    /// Compiles what is loaded into the process.
    pub fn new() -> Self {
        let directory = TempDir::new().expect("a directory");
        let source = directory.path().join("disk.c");
        fs::write(&source, SOURCE).expect("the source");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-o"]);
        compiler.arg(directory.path().join("disk.so")).arg(source);
        let output = child::run(&mut compiler).expect("a C compiler");
        assert!(output.status.success(), "{output:?}");
        Self { directory }
    }

    /// The variables that a process is started with.
    pub fn environment(&self) -> [(&'static str, String); 2] {
        let path = |name| self.directory.path().join(name).display().to_string();
        [
            ("LD_PRELOAD", path("disk.so")),
            ("FAILING_DISK", path("failing")),
        ]
    }

    /// Lets a call fail from now on.
    pub fn fail(&self, error: DiskError) {
        let text = match error {
            DiskError::NoSpaceToWrite => "pwrite 28",
            DiskError::SyncFails => "fdatasync 5",
            DiskError::ReadFails => "pread 5",
        };
        fs::write(self.directory.path().join("failing"), text).expect("the file");
    }

    /// Lets no call fail any more.
    pub fn recover(&self) {
        fs::remove_file(self.directory.path().join("failing")).expect("the file");
    }
}
