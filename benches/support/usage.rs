//! What the kernel says a process has used, and how figures are summed up.

use std::fs;
use std::time::Duration;

/// The kernel's unit of CPU time in `/proc`: `USER_HZ`, 100 a second on Linux.
const TICK: Duration = Duration::from_millis(10);

/// CPU time of a process so far, its own and the kernel's on its behalf.
///
/// `process` is a process id, or `self`.
pub(crate) fn cpu_time(process: &str) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("a running process");
    // The name of the program stands in brackets and may hold anything.
    let (_, fields) = stat.rsplit_once(") ").expect("a name in brackets");
    // proc(5): utime and stime are fields 14 and 15, and the name is field 2.
    let ticks = fields.split(' ').skip(11).take(2);
    TICK * ticks
        .map(|field| field.parse::<u32>().expect("a number of ticks"))
        .sum()
}

/// The value below which `percent` of the sorted values lie.
pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let place = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(place).copied().unwrap_or_default()
}

/// The middle of some values.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
