//! In test builds only: numbered points at which a process kills or stops
//! itself, so that fault tests can do it exactly there.

/// Passes point `step`. The `count`-th time that happens, a debug build with
/// `NORTHBRIDGE_FAIL_POINT=step:count` kills itself as SIGKILL does; with
/// `step:count:STOP` it freezes itself.
#[cfg(debug_assertions)]
pub(crate) fn fail_point(step: u32) {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    struct FailAt {
        step: u32,
        left: AtomicU64,
        signal: String,
    }

    static FAIL_AT: LazyLock<Option<FailAt>> = LazyLock::new(|| {
        let text = std::env::var("NORTHBRIDGE_FAIL_POINT").ok()?;
        let mut parts = text.split(':');
        Some(FailAt {
            step: parts.next()?.parse().ok()?,
            left: AtomicU64::new(parts.next()?.parse().ok()?),
            signal: parts.next().unwrap_or("KILL").to_owned(),
        })
    });
    if let Some(fail) = &*FAIL_AT
        && fail.step == step
        && fail.left.fetch_sub(1, Ordering::Relaxed) == 1
    {
        let id = std::process::id().to_string();
        let _ = std::process::Command::new("kill")
            .args([&format!("-{}", fail.signal), &id])
            .status();
    }
}

#[cfg(not(debug_assertions))]
#[inline]
pub(crate) fn fail_point(_: u32) {}
