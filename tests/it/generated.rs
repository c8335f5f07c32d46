//! Completions and man pages: there for every shell and command, whatever the settings
//! are.

use std::fs;
use std::process::Command;

use clap::CommandFactory;
use northbridge::cli::Cli;

use crate::support::child;
use crate::support::northbridge::run;

/// Settings with which no other command starts.
const BROKEN: [(&str, &str); 1] = [("http.no_such_key", "1")];

#[track_caller]
fn printed(arguments: &[&str]) -> String {
    let output = run(arguments, &BROKEN);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The words of every command and subcommand, such as `["topics", "create"]`.
fn commands() -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for command in Cli::command().get_subcommands() {
        let name = command.get_name().to_owned();
        let subcommands = command.get_subcommands();
        all.extend(subcommands.map(|it| vec![name.clone(), it.get_name().to_owned()]));
        all.push(vec![name]);
    }
    assert!(all.len() > 20, "{all:?}");
    all
}

#[test]
fn the_completions_of_every_shell_have_every_command() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = printed(&["completions", shell]);
        for word in commands().iter().flatten() {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    let unknown = run(&["completions", "tcsh"], &[]);
    assert_eq!(unknown.status.code(), Some(64));
}

#[test]
fn bash_completes_with_what_is_generated() {
    let directory = tempfile::TempDir::new().unwrap();
    let script = directory.path().join("northbridge");
    fs::write(&script, printed(&["completions", "bash"])).unwrap();
    let complete = format!(
        "set -eu; source {}; COMP_WORDS=(northbridge show dev); COMP_CWORD=2; \
         _northbridge northbridge dev show; echo \"${{COMPREPLY[@]}}\"",
        script.display()
    );
    let output = child::run(Command::new("bash").args(["-c", &complete]));
    let output = output.expect("bash");
    let completed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(completed, "device\n", "{output:?}");
}

#[test]
fn every_command_has_a_man_page_and_the_main_page_names_it() {
    let main = printed(&["man"]);
    let directory = tempfile::TempDir::new().unwrap();
    let pages = directory.path().join("new/man1");
    let shown = pages.display().to_string();
    assert_eq!(printed(&["man", "--directory", &shown]), "");
    let page = |name: &str| fs::read_to_string(pages.join(name)).expect("a page");
    assert_eq!(page("northbridge.1"), main);
    for words in commands() {
        let name = format!("northbridge-{}", words.join("-"));
        let page = page(&format!("{name}.1"));
        for part in [".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION", "Examples:"] {
            assert!(page.contains(part), "{name}: {part}");
        }
        let first = format!("northbridge\\-{}(1)", words[0].replace('-', "\\-"));
        assert!(main.contains(&first), "{first}");
    }
}

#[test]
fn a_directory_that_cannot_be_written_is_an_error() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let directory = file.path().display().to_string();
    let output = run(&["man", "--directory", &directory], &[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(said.contains(&directory), "{said}");
}
