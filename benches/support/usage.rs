//! CPU time and memory of a process, and summary statistics.
#![allow(
    dead_code,
    reason = "each benchmark compiles this on its own and uses only part of it"
)]

use std::fs;
use std::time::Duration;

/// The unit of CPU time in `/proc`: `USER_HZ` is 100 on Linux.
const TICK: Duration = Duration::from_millis(10);

/// User and system CPU time of a process so far; `process` is an ID or `self`.
pub(crate) fn cpu_time(process: &str) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("a running process");
    // The program's name is in parentheses and may contain any character.
    let (_, fields) = stat.rsplit_once(") ").expect("a name in brackets");
    // proc(5): utime and stime are fields 14 and 15; the name is field 2.
    let ticks = fields.split(' ').skip(11).take(2);
    TICK * ticks
        .map(|field| field.parse::<u32>().expect("a number of ticks"))
        .sum()
}

/// A line of `/proc/PID/status` in MB, such as `VmRSS` or `VmHWM`.
pub(crate) fn memory_mb(process: &str, line: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("a running process");
    let value = status
        .lines()
        .find_map(|found| found.strip_prefix(line)?.strip_prefix(':'));
    let kib = value.and_then(|value| value.trim().strip_suffix(" kB"));
    let kib: f64 = kib.expect("a line in kB").parse().expect("a number");
    kib * 1024.0 / 1e6
}

/// The value below which `percent` of the sorted values lie.
pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let place = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(place).copied().unwrap_or_default()
}

/// The upper median.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
