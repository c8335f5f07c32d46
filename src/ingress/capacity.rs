//! Compares the limits of the settings with what the process may have: open files
//! and memory. A limit that cannot be reached protects nothing.

use std::fs;

use crate::config::{Limits, Settings};

/// Files besides connections: the log, librdkafka's connections, the admin server.
const OTHER_FILES: u64 = 200;
/// What the process takes without any push: the program, librdkafka, the runtime.
const BASE_BYTES: u64 = 48 << 20;
/// What an idle connection takes after a push, with and without TLS (BENCHMARKS.md).
const TLS_CONNECTION_BYTES: u64 = 30_000;
const CONNECTION_BYTES: u64 = 23_000;
/// A body is in memory twice while librdkafka copies it.
const COPIES_OF_A_BODY: u64 = 2;
/// The memory limit of the process's control group, version 2 and version 1.
const MEMORY_LIMITS: [&str; 2] = [
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
];

/// Warns if the limits promise more than the process may have.
pub(crate) fn compare(settings: &Settings) {
    let limits = &settings.limits;
    if let Ok((open_files, _)) = rlimit::Resource::NOFILE.get()
        && files(limits) > open_files
    {
        tracing::warn!(
            open_files,
            needed = files(limits),
            "limits.max_connections is more than the limit of open files allows; raise that (ulimit -Hn, LimitNOFILE), or lower limits.max_connections"
        );
    }
    if let Some(memory) = memory_limit()
        && bytes(settings) > memory
    {
        tracing::warn!(
            memory,
            needed = bytes(settings),
            "limits.max_connections and limits.max_in_flight_bytes can take more memory than the process may have; raise that, or lower them"
        );
    }
}

fn files(limits: &Limits) -> u64 {
    number(limits.max_connections).saturating_add(OTHER_FILES)
}

/// The memory of a process at all its limits.
fn bytes(settings: &Settings) -> u64 {
    let limits = &settings.limits;
    let of_connection = if settings.tls.certificate_file.is_some() {
        TLS_CONNECTION_BYTES
    } else {
        CONNECTION_BYTES
    };
    let connections = number(limits.max_connections).saturating_mul(of_connection);
    let pushes = number(limits.max_in_flight_bytes).saturating_mul(COPIES_OF_A_BODY);
    BASE_BYTES
        .saturating_add(connections)
        .saturating_add(pushes)
}

/// `None` without a limit, or if it cannot be read.
fn memory_limit() -> Option<u64> {
    let mut limits = MEMORY_LIMITS.iter();
    limits.find_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok())
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `resources.limits.memory` of the chart.
    const CHART_BYTES: u64 = 512 << 20;

    #[test]
    fn the_default_limits_fit_the_chart_with_and_without_tls() {
        let mut settings = Settings::default();
        assert!(bytes(&settings) < CHART_BYTES);
        settings.tls.certificate_file = Some("/tls.crt".into());
        assert!(bytes(&settings) < CHART_BYTES, "{}", bytes(&settings));
    }

    #[test]
    fn the_largest_limits_do_not_overflow() {
        let mut settings = Settings::default();
        settings.limits.max_connections = usize::MAX;
        settings.limits.max_in_flight_bytes = usize::MAX;
        assert_eq!(bytes(&settings), u64::MAX);
        assert_eq!(files(&settings.limits), u64::MAX);
    }
}
