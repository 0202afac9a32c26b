//! What a person reads who made a mistake in a file that extends another, or in the other.

use std::fs;

use grenache_sim::scenario;
use insta::assert_snapshot;
use miette::GraphicalTheme;
use tempfile::TempDir;

/// A file without mistakes.
const GOOD: &str = include_str!("good.toml");

/// The errors of the first of some files, with the folder's name taken out.
fn errors(files: &[(&str, &str)]) -> String {
    let folder = TempDir::new().expect("there is room for a folder");
    for (name, text) in files {
        fs::write(folder.path().join(name), text).expect("the folder is writable");
    }
    let error = scenario::load(&folder.path().join(files[0].0)).expect_err("the files are wrong");
    let folder = format!("{}/", folder.path().display());
    // Its length differs from run to run, and with it where lines are broken.
    error.render(GraphicalTheme::none(), 400).replace(&folder, "")
}

#[test]
fn no_such_file() {
    assert_snapshot!(errors(&[("a.toml", "extends = \"b.toml\"\n")]));
}

#[test]
fn no_name_of_a_file() {
    assert_snapshot!(errors(&[("a.toml", "extends = [1, \"\", [\"b.toml\"]]\n[node.a]\n")]));
}

#[test]
fn files_that_extend_each_other() {
    assert_snapshot!(errors(&[
        ("a.toml", "extends = \"b.toml\"\n"),
        ("b.toml", "# b\nextends = [\"./c.toml\"]\n"),
        ("c.toml", "extends = \"a.toml\"\n"),
    ]));
}

#[test]
fn too_many_in_a_row() {
    let names: Vec<String> = (0..12).map(|number| format!("{number}.toml")).collect();
    let texts: Vec<String> = (1..13).map(|number| format!("extends = \"{number}.toml\"\n")).collect();
    let files: Vec<(&str, &str)> = names.iter().zip(&texts).map(|(name, text)| (&**name, &**text)).collect();
    assert_snapshot!(errors(&files));
}

#[test]
fn mistakes_in_what_is_extended_are_told_there() {
    let bad = format!("{}\n[[expect]]\nreply = {{ to = \"lap\" }}\nwithin = \"1s\"\n", GOOD.replace("20ms", "20"));
    assert_snapshot!(errors(&[
        ("a.toml", "extends = \"bad.toml\"\n[node.other]\nbehind = \"hom\"\n"),
        ("bad.toml", &bad)
    ]));
    let bad = GOOD.replace("link = \"dsl\"", "link = \"dls\"");
    assert_snapshot!(errors(&[
        ("a.toml", "extends = \"bad.toml\"\n[node.other]\nbehind = \"hom\"\n"),
        ("bad.toml", &bad)
    ]));
    assert_snapshot!(errors(&[("a.toml", "extends = \"bad.toml\"\n"), ("bad.toml", "seed = 1\n[node.a\n")]));
}

#[test]
fn a_second_place_in_another_file_is_named() {
    let own = "extends = \"good.toml\"\n[node.other]\naddress = \"157.81.109.241\"\n";
    assert_snapshot!(errors(&[("a.toml", own), ("good.toml", GOOD)]));
}

#[test]
fn nothing_to_remove() {
    assert_snapshot!(errors(&[("a.toml", "remove = [\"node.a\"]\n[node.a]\n")]));
    let own = "extends = \"good.toml\"\nremove = [\"node.laptpo\", \"fault\", \"node\", 1, \"program.worker\"]\n";
    assert_snapshot!(errors(&[("a.toml", own), ("good.toml", GOOD)]));
    assert_snapshot!(errors(&[("a.toml", "extends = \"good.toml\"\nremove = \"node.laptop\"\n"), ("good.toml", GOOD)]));
}

#[test]
fn names_of_tables_that_are_none() {
    let more = "[[expect]]\nname = \"x\"\nwithin = \"1s\"\nreply = { to = \"laptop\" }\n".repeat(2);
    let text = format!("{GOOD}\n{more}\n[[fault]]\nname = 1\nat = \"1s\"\ncrash = \"laptop\"\n");
    assert_snapshot!(errors(&[("a.toml", &text)]));
}
