//! What shells and people read of the command line: help, completions, manual pages.

mod processes;

use std::collections::BTreeSet;
use std::fs;

use processes::{grenache, ran};

/// The commands that `grenache --help` lists, but for `help` itself.
fn commands() -> BTreeSet<String> {
    let help = ran(grenache().arg("--help").env("COLUMNS", "200"));
    let list = help.stdout.split_once("Commands:\n").expect("it lists them").1.split_once("\n\n").expect("it ends").0;
    let names = list.lines().filter_map(|line| line.trim_start().split(' ').next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
fn the_commands_are_those_for_daily_use_and_those_of_the_laboratory() {
    let daily = "announce lookup put get keygen request serve broker punch nat-check completions man";
    let laboratory = "run check diagram schema sweep merge shrink matrix grape grape-health grapes";
    let expected = daily.split(' ').chain(laboratory.split(' ')).map(str::to_owned).collect();
    assert_eq!(commands(), expected);
}

#[test]
fn help_fits_a_terminal_and_says_the_exit_codes() {
    let help = ran(grenache().arg("--help").env("COLUMNS", "80"));
    for code in 0..=5 {
        assert!(help.stdout.contains(&format!("\n  {code}  ")), "{code} is not in\n{}", help.stdout);
    }
    for command in commands() {
        let help = ran(grenache().args([&command, "--help"]).env("COLUMNS", "80"));
        assert_eq!(help.code, Some(0), "{command}");
        let wide: Vec<&str> = help.stdout.lines().filter(|line| line.chars().count() > 80).collect();
        assert!(wide.is_empty(), "{command}: {wide:?}");
        // What we have broken into lines ourselves needs no other breaks.
        let after = |width: &str| {
            let help = ran(grenache().args([&command, "--help"]).env("COLUMNS", width)).stdout;
            help.split_once("Print version\n").map(|(_, after)| after.to_owned())
        };
        // Those of `grape` come in groups, with more of them after this one.
        assert!(command == "grape" || after("80") == after("120"), "{command}: {:?}", after("80"));
        let has_subcommands = command == "grapes";
        assert!(has_subcommands || command == "completions" || help.stdout.contains("Exit codes:"), "{command}");
    }
}

#[test]
fn completions_name_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = ran(grenache().args(["completions", shell]));
        assert_eq!((script.code, script.stderr.as_str()), (Some(0), ""), "{shell}");
        for command in commands() {
            assert!(script.stdout.contains(&command), "{command} is not in the completions of {shell}");
        }
        assert!(script.stdout.contains("reference-peer"), "{shell} knows options");
    }
    assert_eq!(ran(grenache().args(["completions", "csh"])).code, Some(2));
}

#[test]
fn every_command_has_a_page() {
    let all = ran(grenache().arg("man"));
    assert_eq!((all.code, all.stderr.as_str()), (Some(0), ""));
    for command in commands() {
        let escaped = command.replace('-', "\\-");
        assert!(all.stdout.contains(&format!("grenache\\-{escaped}(1)")), "{command} is not in\n{}", all.stdout);
        let page = ran(grenache().args(["man", &command]));
        assert!(page.stdout.contains(".SH SYNOPSIS"), "{command}:\n{}", page.stdout);
        assert!(page.stdout.contains(&format!("grenache {escaped}")), "{command}:\n{}", page.stdout);
    }
    let up = ran(grenache().args(["man", "grapes", "up"]));
    assert!(up.stdout.starts_with(".ie") && up.stdout.contains("grenache\\-grapes\\-up"), "{}", up.stdout);
    let none = ran(grenache().args(["man", "grapes", "sideways"]));
    assert_eq!((none.code, none.stdout.as_str()), (Some(2), ""));
    assert!(none.stderr.contains("there is no command `grapes sideways`"), "{}", none.stderr);
}

#[test]
fn pages_are_written_into_a_folder() {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let pages = folder.path().join("man/man1");
    let written = ran(grenache().args(["man", "--out"]).arg(&pages));
    assert_eq!((written.code, written.stdout.as_str(), written.stderr.as_str()), (Some(0), "", ""));
    let named = |name: &str| fs::read_to_string(pages.join(format!("{name}.1"))).expect(name);
    assert!(named("grenache").contains("Exit codes:"));
    for command in commands() {
        assert!(named(&format!("grenache-{command}")).contains(".SH NAME"), "{command}");
    }
    assert!(named("grenache-grapes-up").contains(".SH NAME"));

    let file = folder.path().join("file");
    fs::write(&file, "").expect("the folder is writable");
    let failed = ran(grenache().args(["man", "--out"]).arg(&file));
    assert_eq!(failed.code, Some(1));
    assert!(failed.stderr.contains("error: cannot write pages into"), "{}", failed.stderr);
}
