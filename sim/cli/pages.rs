//! `grenache completions` and `grenache man`: what shells and people read of the command line, made from it.

use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;

use super::terminal::Terminal;
use super::{Cli, Exit};

/// What `grenache completions --help` ends with.
pub(super) const COMPLETIONS_HELP: &str = "\
Examples:
  source <(grenache completions bash)
  grenache completions zsh >~/.zfunc/_grenache
  grenache completions fish >~/.config/fish/completions/grenache.fish";

/// What `grenache man --help` ends with.
pub(super) const MAN_HELP: &str = "\
Examples:
  grenache man | man -l -
  grenache man request | man -l -
  grenache man --out ~/.local/share/man/man1

Exit codes: 0 written; 1 a file cannot be written; 2 wrong usage.";

#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// The command whose page is printed, such as `request` or `grapes up` [default: that of all]
    command: Vec<String>,
    /// Write the pages of all commands into DIR, grenache.1, grenache-request.1 and so on
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    out: Option<PathBuf>,
}

/// Prints a shell's completions.
pub(super) fn completions(terminal: &mut Terminal, args: &CompletionsArgs) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "grenache", &mut script);
    print(terminal, &script)
}

/// Prints a page, or writes all.
pub(super) fn man(terminal: &mut Terminal, args: &ManArgs) -> Exit {
    if let Some(folder) = &args.out {
        let written = fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(Cli::command(), folder));
        return match written {
            Ok(()) => Exit::PASSED,
            Err(error) => {
                terminal.error(format_args!("error: cannot write pages into {}: {error}", folder.display()));
                Exit::FAILED
            }
        };
    }
    let mut all = Cli::command();
    all.build();
    let mut command = &all;
    for name in &args.command {
        let Some(found) = command.find_subcommand(name) else {
            terminal.error(format_args!("error: there is no command `{}`", args.command.join(" ")));
            terminal.error("help: `grenache --help` lists them");
            return Exit::WRONG;
        };
        command = found;
    }
    // As its page is named: grenache-grapes-up.
    let title =
        std::iter::once("grenache").chain(args.command.iter().map(String::as_str)).collect::<Vec<_>>().join("-");
    let mut page = Vec::new();
    match Man::new(command.clone()).title(title).render(&mut page) {
        Ok(()) => print(terminal, &page),
        Err(error) => {
            terminal.error(format_args!("error: cannot make the page: {error}"));
            Exit::FAILED
        }
    }
}

/// Writes to standard output. A closed pipe has had enough.
fn print(terminal: &mut Terminal, text: &[u8]) -> Exit {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            terminal.error(format_args!("error: cannot write: {error}"));
            Exit::FAILED
        }
        _ => Exit::PASSED,
    }
}
