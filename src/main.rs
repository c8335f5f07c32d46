//! Parses the command line, runs one command, and ends with its exit code.

#![warn(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "`process::output` prints, and does not panic if nobody reads"
)]

use clap::{CommandFactory, Parser};
use northbridge::cli::{Cli, Command, ConfigCommand, SpoolCommand, TopicsCommand};
use northbridge::commands::dev::Dev;
use northbridge::commands::{generate, health, replay, show, spool, tap, topics};
use northbridge::config::{ConfigError, Settings};
use northbridge::kafka::CheckError;
use northbridge::process::reload::Reload;
use northbridge::process::{Exit, logging, output};
use northbridge::streams::Process;
use northbridge::{ingress, kafka, simulate, streams, telemetry};

fn main() {
    let exit = match Cli::try_parse() {
        Ok(cli) => run(&cli),
        Err(help_or_error) => {
            // If the terminal is gone, there is nowhere left to report that.
            let _ = help_or_error.print();
            if help_or_error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Done
            }
        }
    };
    exit.end()
}

fn run(cli: &Cli) -> Exit {
    let defaults = cli.dev().map_or_else(Settings::default, Dev::defaults);
    let settings = match load(cli, &defaults) {
        Ok(settings) => settings,
        Err(error) => {
            output::note(format_args!("error: {error}"));
            return Exit::Usage;
        }
    };
    let observer = cli.dev().map(Dev::observer);
    let log = logging::start(&settings.log, observer);
    let reload = || Reload::new(defaults.clone(), cli.sources(), log.clone());
    // Each connection takes a file descriptor, and the soft limit is often 1,024.
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "cannot raise the open-file limit; it bounds the number of connections");
    }
    let ended = match &cli.command {
        Command::Config(ConfigCommand::Check) => ingress::check(&settings)
            .and_then(|()| telemetry::check(&settings))
            .map(|()| Exit::Done),
        Command::Config(ConfigCommand::Print) => output::print(settings.to_toml())
            .map(|()| Exit::Done)
            .map_err(Into::into),
        Command::Topics(TopicsCommand::Create(args)) => {
            on_runtime(topics::create(&settings, args.degraded()))
        }
        Command::Topics(TopicsCommand::Verify) => on_runtime(topics::verify(&settings)),
        Command::Spool(SpoolCommand::Status) => spool::status(&settings),
        Command::Spool(SpoolCommand::Drain) => on_runtime(spool::drain(&settings)),
        Command::Health(args) => on_runtime(health::run(&settings, args.question())),
        Command::Ingress => on_runtime(ingress::run(&settings, reload())),
        Command::CommandStatus => {
            on_runtime(streams::run(&settings, Process::CommandStatus, reload()))
        }
        Command::UpgradeResult => {
            on_runtime(streams::run(&settings, Process::UpgradeResult, reload()))
        }
        Command::Replay(args) => on_runtime(replay::run(&settings, &args.request())),
        Command::Show(args) => {
            let (kind, id) = args.key();
            on_runtime(show::run(&settings, kind, id))
        }
        Command::Tap(args) => on_runtime(tap::run(&settings, args.request())),
        Command::Completions(args) => generate::completions(Cli::command(), args.shell),
        Command::Man(args) => generate::man(Cli::command(), args.directory.as_deref()),
        Command::Dev(dev) => on_runtime(dev.run(settings, reload())),
        Command::Simulate(arguments) => on_runtime(simulate::run(&settings, arguments)),
    };
    ended.unwrap_or_else(|error| {
        output::note(format_args!("error: {error:#}"));
        Exit::Usage
    })
}

/// Loads the settings, and tries them on clients unless the command only shows them.
/// A command that asks another process needs its address alone, and one that describes
/// the command line needs none.
fn load(cli: &Cli, defaults: &Settings) -> Result<Settings, ConfigError> {
    let sources = cli.sources();
    if matches!(cli.command, Command::Health(_)) {
        return Settings::load_values(&sources);
    }
    if matches!(cli.command, Command::Completions(_) | Command::Man(_)) {
        return Ok(defaults.clone());
    }
    let settings = Settings::load_over(defaults, &sources)?;
    if !matches!(cli.command, Command::Config(ConfigCommand::Print)) {
        kafka::check(&settings).map_err(|CheckError { options, reason }| {
            settings.rejected_options(&sources, &options, &reason)
        })?;
    }
    Ok(settings)
}

fn on_runtime(work: impl Future<Output = anyhow::Result<Exit>>) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let ended = runtime.block_on(work);
    // A blocking call into librdkafka may still be running; nobody needs its result.
    runtime.shutdown_background();
    ended
}
