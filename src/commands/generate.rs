//! `northbridge completions` and `northbridge man`: shell completions and man pages,
//! made from the definition of the command line, so that they never differ from it.

use std::fs;
use std::path::Path;

use anyhow::Context;
use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

use crate::process::{Exit, output};

/// Prints the completions of a shell.
///
/// # Errors
///
/// Returns an error if they cannot be printed.
pub fn completions(mut cli: Command, shell: Shell) -> anyhow::Result<Exit> {
    let name = cli.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut cli, name, &mut script);
    output::print(String::from_utf8(script).context("completions are text")?)?;
    Ok(Exit::Done)
}

/// Prints the man page of the program, or writes one page for it and for each of its
/// subcommands into a directory.
///
/// # Errors
///
/// Returns an error if a page cannot be printed or written.
pub fn man(cli: Command, directory: Option<&Path>) -> anyhow::Result<Exit> {
    // `northbridge help` has no page, which `generate_to` knows.
    let cli = cli.disable_help_subcommand(true);
    let Some(directory) = directory else {
        let mut page = Vec::new();
        Man::new(cli).render(&mut page)?;
        output::print(String::from_utf8(page).context("man pages are text")?)?;
        return Ok(Exit::Done);
    };
    let shown = directory.display();
    fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(cli, directory))
        .with_context(|| format!("cannot write man pages to {shown}"))?;
    Ok(Exit::Done)
}
