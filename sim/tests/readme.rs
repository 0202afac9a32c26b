//! What the README shows is so.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;

use grenache_sim::backend::{self, On, RunOptions};
use grenache_sim::report::{Diagram, Verdict};
use grenache_sim::scenario;

const README: &str = include_str!("../../README.md");

#[test]
fn its_scenario_passes() {
    let (_, after) = README.split_once("```toml\n").expect("the README shows a scenario");
    let (text, _) = after.split_once("```").expect("the scenario ends");
    let scenario = scenario::parse("README", text).expect("the scenario is right");
    for seed in 0..20 {
        let outcome = backend::run(&scenario, &RunOptions { seed, on: On::Sim }, |_| {}).expect("it runs");
        assert_eq!(outcome.verdict, Verdict::Passed, "seed {seed}: {:?}", outcome.expectations);
    }
}

#[test]
fn its_variant_passes() {
    let (_, after) = README.split_once("```toml\nextends").expect("the README shows a variant");
    let (text, _) = after.split_once("```").expect("the variant ends");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios/README");
    let text = format!("extends{text}");
    let scenario = scenario::parse(&file.display().to_string(), &text).unwrap_or_else(|error| panic!("{error}"));
    for seed in 0..3 {
        let outcome = backend::run(&scenario, &RunOptions { seed, on: On::Sim }, |_| {}).expect("it runs");
        assert_eq!(outcome.verdict, Verdict::Passed, "seed {seed}: {:?}", outcome.expectations);
    }
}

#[test]
fn its_diagram_is_that_of_the_scenario() {
    let (_, after) = README.split_once("```mermaid\n").expect("the README shows a diagram");
    let (shown, _) = after.split_once("```").expect("the diagram ends");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios/broker-both-nat.toml");
    let scenario = scenario::load(&path).expect("it is a scenario");
    let diagram = Rc::new(RefCell::new(Diagram::new(&scenario)));
    let watching = diagram.clone();
    let options = RunOptions { seed: scenario.seed, on: On::Sim };
    backend::run(&scenario, &options, move |record| watching.borrow_mut().observe(record)).expect("it runs");
    let drawn = diagram.borrow().mermaid();
    assert!(drawn == shown, "paste what `grenache diagram scenarios/broker-both-nat.toml` prints:\n{drawn}");
}

#[test]
fn it_names_every_file_that_is_shipped() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    let folders = [folder.join("loopback"), folder];
    for entry in folders.iter().flat_map(|folder| std::fs::read_dir(folder).expect("the folder is there")) {
        let path = entry.expect("the folder can be read").path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let name = path.file_stem().expect("files have names").to_string_lossy().into_owned();
        let set_up = name.strip_suffix("-lossy").unwrap_or(&name);
        assert!(README.contains(&format!("`{set_up}`")), "{set_up} is not in the README");
    }
}
