//! `northbridge dev`: everything in one process, for trying northbridge out, over an
//! embedded broker or a real Kafka. Starts the same parts as the other commands and
//! adds nothing to them.

mod events;
mod fields;
mod greeting;
mod kafka;
mod print;
mod view;
mod watch;

use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use anyhow::Context;
use clap::Args;

use crate::config::{Millis, Settings};
use crate::ingress::{self, Ingress};
use crate::kafka::metrics::KafkaClientFamilies;
use crate::process::admin::AdminServer;
use crate::process::logging::Observer;
use crate::process::reload::Reload;
use crate::process::signals::Signals;
use crate::process::{Exit, output, terminal};
use crate::streams::{self, Process, RunningStreams};
use crate::telemetry::Telemetry;
use events::Display;
use greeting::Addresses;
use kafka::Kafka;
use watch::{Recent, Watch};

/// One run of `dev`: its flags, and what they lead to.
#[derive(Debug, Clone, Args)]
pub struct Dev {
    /// Uses a real Kafka instead of the embedded broker, and creates the topics that are
    /// missing there. Topics and states stay.
    #[arg(long, value_name = "BOOTSTRAP")]
    pub kafka: Option<String>,
    /// Shows a view instead of lines if the output is a terminal: readiness, rates,
    /// answers, and the last pushes and states.
    #[arg(long)]
    watch: bool,
    /// What the observer hands to the view.
    #[arg(skip)]
    recent: Recent,
}

impl Dev {
    /// The defaults of `dev`: loopback only, quiet logs, no load balancer to wait
    /// for at shutdown, and small batches, so that states show at once.
    pub fn defaults(&self) -> Settings {
        let mut settings = Settings::default();
        settings.http.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080));
        settings.admin.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 8081));
        settings.shutdown.announce_ms = Millis(0);
        settings.shutdown.idle_ms = Millis(0);
        self.source().set_defaults(&mut settings);
        settings
    }

    /// The layer that shows each stored push and each changed state.
    pub fn observer(&self) -> Observer {
        events::observer(self.display())
    }

    /// Runs until a signal, until `q` is pressed in the view, until nobody reads what it
    /// prints, or until a stream stops on its own.
    ///
    /// # Errors
    ///
    /// Returns an error if the broker, the ingress or a stream cannot start, for
    /// example because an address is in use.
    pub async fn run(&self, mut settings: Settings, reload: Reload) -> anyhow::Result<Exit> {
        let mut signals = Signals::listen().context("cannot listen for signals")?;
        let loaded = settings.clone();
        let reader_is_gone = output::reader_is_gone().context("cannot watch the output")?;
        let prepared = tokio::select! {
            prepared = self.source().prepare(&mut settings) => prepared?,
            _ = signals.next() => Err(Exit::Done),
        };
        let cluster = match prepared {
            Ok(cluster) => cluster,
            Err(exit) => return Ok(exit),
        };

        let admin = AdminServer::new();
        let clients = KafkaClientFamilies::register(&admin.metrics);
        let telemetry = Telemetry::start(&settings, "dev", &admin.metrics)?;
        let ingress = Ingress::start(&settings, &admin, &clients, telemetry.tracer())?;
        reload.start(loaded, ingress.reloader())?;
        let processes = [Process::CommandStatus, Process::UpgradeResult];
        let mut streams =
            RunningStreams::start(&settings, &processes, &admin, &clients, telemetry.tracer())?;
        let shown = [ingress::SHOWN_SETTINGS, streams::SHOWN_SETTINGS].concat();
        let admin_address = admin.clone().start(&settings, "dev", &shown).await?;
        let addresses = Addresses::new(&settings, ingress.address, admin_address);
        // What cannot be shown is stored all the same.
        let _ = output::print_line(greeting::greeting(&cluster, &addresses));
        let mut watch = match self.display() {
            Display::Lines => None,
            Display::View(recent) => {
                let (lines, hint) = (addresses.lines(&cluster), greeting::hint(&addresses));
                let watch = Watch::start(admin, lines, hint, recent);
                Some(watch.context("cannot use the terminal")?)
            }
        };
        let quit = async {
            match &mut watch {
                None => pending().await,
                Some(watch) => watch.quit().await,
            }
        };

        let ended = tokio::select! {
            exit = streams.next_exit() => exit,
            _ = signals.next() => Exit::Done,
            _ = reader_is_gone => Exit::Done,
            () = quit => Exit::Done,
        };
        drop(watch);
        signals.stop_at_next();
        let within = settings.shutdown.deadline_ms.duration();
        let end = Instant::now() + within;
        let (drained, stopped) = tokio::join!(ingress.drain(), streams.stop(within));
        telemetry.stop(end).await;
        let _ = output::print_line(greeting::farewell(&cluster));
        let exits = [ended, drained, stopped];
        let first = exits.into_iter().find(|exit| *exit != Exit::Done);
        Ok(first.unwrap_or(Exit::Done))
    }

    fn source(&self) -> Kafka {
        if self.kafka.is_some() {
            Kafka::Real
        } else {
            Kafka::Embedded
        }
    }

    fn display(&self) -> Display {
        if self.watch && terminal::can_show_view() {
            Display::View(self.recent.clone())
        } else {
            Display::Lines
        }
    }
}
