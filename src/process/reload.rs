//! Settings that change while a process runs: on SIGHUP, and when the files that
//! they come from change.
//!
//! `log.level` and the protections of the listener take effect at once. The
//! others need a restart; the log names them.

use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::logging::LogFilter;
use super::{service_manager, vital};
use crate::config::{ConfigError, Settings, Sources};

/// What is needed to read the settings again.
#[derive(Debug, Clone)]
pub struct Reload {
    defaults: Settings,
    sources: Sources,
    log: LogFilter,
}

/// Applies the settings of a component that can change.
///
/// # Errors
///
/// Returns why it keeps those that it has.
pub(crate) type Apply = Box<dyn Fn(&Settings) -> Result<(), &'static str> + Send>;

impl Reload {
    /// `sources` are those that the process has been started with.
    pub fn new(defaults: Settings, sources: Sources, log: LogFilter) -> Self {
        Self {
            defaults,
            sources,
            log,
        }
    }

    /// Reads the settings again from now on, and has them applied if they changed.
    ///
    /// # Errors
    ///
    /// Returns the operating system's error if it rejects a handler for SIGHUP.
    pub(crate) fn start(self, settings: Settings, apply: Apply) -> anyhow::Result<()> {
        let hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
        let interval = settings.tls.reload_interval_ms.duration();
        let watch = Watch {
            reload: self,
            settings,
            apply,
            last_error: None,
        };
        vital::spawn("reload of settings", watch.run(hangup, interval));
        Ok(())
    }

    fn load(&self) -> Result<Settings, ConfigError> {
        Settings::load_over(&self.defaults, &self.sources)
    }
}

struct Watch {
    reload: Reload,
    settings: Settings,
    apply: Apply,
    /// So that a file with a fault is reported once.
    last_error: Option<String>,
}

impl Watch {
    async fn run(mut self, mut hangup: Signal, interval: Duration) {
        loop {
            let is_asked = tokio::select! {
                _ = hangup.recv() => true,
                () = sleep(interval) => false,
            };
            if is_asked {
                service_manager::reloading();
            }
            let reload = self.reload.clone();
            if let Ok(loaded) = spawn_blocking(move || reload.load()).await {
                self.take(loaded.map_err(|error| error.to_string()), is_asked);
            }
            if is_asked {
                service_manager::reloaded();
            }
        }
    }

    fn take(&mut self, loaded: Result<Settings, String>, is_asked: bool) {
        let result = loaded.and_then(|settings| {
            let changed = self.settings.changed_keys(&settings);
            // To set a level makes every log statement ask for it again.
            if changed.is_empty() {
                return Ok(changed);
            }
            (self.apply)(&settings).map_err(str::to_owned)?;
            self.reload.log.set(settings.log.level);
            self.settings = settings;
            Ok(changed)
        });
        match result {
            Ok(changed) => {
                self.last_error = None;
                log_changes(&changed, is_asked);
            }
            Err(error) if is_asked || self.last_error.as_ref() != Some(&error) => {
                tracing::error!(
                    error,
                    "settings changed but cannot be used; keeping the previous ones"
                );
                self.last_error = Some(error);
            }
            Err(_) => {}
        }
    }
}

fn log_changes(changed: &[String], is_asked: bool) {
    let (applied, waiting): (Vec<&str>, Vec<&str>) = changed
        .iter()
        .map(String::as_str)
        .partition(|key| takes_effect(key));
    if !applied.is_empty() || (is_asked && waiting.is_empty()) {
        tracing::info!(keys = applied.join(", "), "settings reloaded");
    }
    if !waiting.is_empty() {
        tracing::warn!(
            keys = waiting.join(", "),
            "settings changed that take effect only after a restart"
        );
    }
}

fn takes_effect(key: &str) -> bool {
    const KEYS: [&str; 6] = [
        "log.level",
        "auth.basic.username",
        "auth.basic.password",
        "auth.token",
        "auth.allowed_addresses",
        "tls.client_allowed_names",
    ];
    KEYS.contains(&key)
}
