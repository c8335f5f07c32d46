//! Parses the command line, runs one command, and ends with its exit code.

use anyhow::Context;
use clap::Parser;
use northbridge::cli::{Cli, Command, ConfigCommand, TopicsCommand};
use northbridge::config::Settings;
use northbridge::process::{Exit, logging};
use northbridge::streams::Process;
use northbridge::{dev, health_command, ingress, kafka, replay, simulate, streams, topics_command};

fn main() {
    let exit = match Cli::try_parse() {
        Ok(cli) => run(&cli),
        Err(help_or_error) => {
            // Nothing more can be done where the terminal is gone.
            let _ = help_or_error.print();
            if help_or_error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Done
            }
        }
    };
    std::process::exit(exit.code());
}

fn run(cli: &Cli) -> Exit {
    let defaults = match &cli.command {
        Command::Dev => dev::defaults(),
        Command::Ingress
        | Command::CommandStatus
        | Command::UpgradeResult
        | Command::Replay(_)
        | Command::Simulate(_)
        | Command::Topics(_)
        | Command::Health(_)
        | Command::Config(_) => Settings::default(),
    };
    let settings = match Settings::load_over(&defaults, &cli.settings.sources()) {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("error: {error}");
            return Exit::Usage;
        }
    };
    logging::start(&settings.log);
    // Each connection is a file descriptor; the soft limit is often 1,024.
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
    let ended = match &cli.command {
        Command::Config(ConfigCommand::Check) => kafka::check(&settings)
            .map(|()| Exit::Done)
            .context(kafka::NOT_TAKEN),
        Command::Config(ConfigCommand::Print) => {
            print!("{}", settings.to_toml());
            Ok(Exit::Done)
        }
        Command::Topics(TopicsCommand::Create) => on_runtime(topics_command::create(&settings)),
        Command::Topics(TopicsCommand::Verify) => on_runtime(topics_command::verify(&settings)),
        Command::Health(args) => on_runtime(health_command::run(&settings, args.question())),
        Command::Ingress => on_runtime(ingress::run(&settings)),
        Command::CommandStatus => on_runtime(streams::run(&settings, Process::CommandStatus)),
        Command::UpgradeResult => on_runtime(streams::run(&settings, Process::UpgradeResult)),
        Command::Replay(args) => on_runtime(replay::run(&settings, &args.request())),
        Command::Dev => on_runtime(dev::run(settings)),
        Command::Simulate(arguments) => on_runtime(simulate::run(&settings, arguments)),
    };
    ended.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        Exit::Usage
    })
}

fn on_runtime(work: impl Future<Output = anyhow::Result<Exit>>) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let ended = runtime.block_on(work);
    // Threads of librdkafka may be in a question that nobody waits for.
    runtime.shutdown_background();
    ended
}
