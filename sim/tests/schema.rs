//! The JSON schema: that it is the one that is shipped, takes what is right, and refuses what is wrong.

use std::fs;
use std::path::{Path, PathBuf};

use grenache_sim::scenario;
use jsonschema::Validator;
use serde_json::Value;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios")
}

fn validator() -> Validator {
    let schema: Value = serde_json::from_str(&scenario::schema()).expect("it is JSON");
    jsonschema::draft7::new(&schema).expect("it is a schema")
}

/// A scenario file as editors see it.
fn json(text: &str) -> Value {
    serde_json::to_value(toml::from_str::<toml::Table>(text).expect("it is TOML")).expect("TOML is JSON, dates aside")
}

/// Every file that ships, with its path.
fn shipped() -> Vec<(PathBuf, String)> {
    let folders = [folder(), folder().join("loopback"), folder().join("parts")];
    let entries = folders.iter().flat_map(|folder| fs::read_dir(folder).expect("the folder is there"));
    let paths = entries.map(|entry| entry.expect("it can be read").path());
    let files = paths.filter(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.map(|path| (path.clone(), fs::read_to_string(path).expect("it can be read"))).collect()
}

#[test]
fn the_shipped_one_is_in_step() {
    let shipped = fs::read_to_string(folder().join("scenario.schema.json")).unwrap_or_default();
    assert!(
        shipped == scenario::schema(),
        "the file format has changed: write `grenache schema > scenarios/scenario.schema.json`"
    );
}

#[test]
fn the_shipped_files_name_it_and_are_right_by_it() {
    let validator = validator();
    let files = shipped();
    assert!(files.len() > 15);
    for (path, text) in files {
        let line = text.lines().next().expect("it is not empty");
        let schema = line.strip_prefix("#:schema ").unwrap_or_else(|| panic!("{}: no schema", path.display()));
        let schema = path.parent().expect("it is in a folder").join(schema);
        assert!(schema.is_file(), "{}: {} is not there", path.display(), schema.display());
        let errors: Vec<String> =
            validator.iter_errors(&json(&text)).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert_eq!(errors, [] as [String; 0], "{}", path.display());
    }
}

/// A file without mistakes.
const GOOD: &str = include_str!("good.toml");

#[test]
fn right_files_are_right() {
    let validator = validator();
    let more = [
        "",
        "[[expect]]\nwithin = \"5s\"\nany = [{ never = { reply = { to = \"laptop\" } }, within = \"2s\" }, { all = [] }]\n",
        "[[expect]]\nwithin = \"5s\"\npercentile = { of = \"latency\", to = \"laptop\", p95 = \"1s\" }\n",
        "[[expect]]\nwithin = \"5s\"\nbytes = { through = \"home\", at-most = \"10 kB\", share = \"5%\" }\n",
        "[[expect]]\nreply = { to = \"laptop\", count = \"<=3\", path = \"punched\", contains = { a = 1 } }\n",
        "[node.peer]\ncount = 500\nbehind = { home = \"40%\", none = \"60%\" }\n",
        "[[fault]]\nat = \"1s\"\npartition = [[\"server\"], [\"laptop\"]]\n",
        "[[program]]\nname = \"worker\"\nreply = 1\n",
        "[[program]]\nname = \"new\"\nnode = \"server\"\nrun = \"lookup\"\nservice = \"rpc_test\"\n",
        "[[expect]]\nname = \"reply\"\nwithin = \"40s\"\n",
    ];
    for more in more {
        let errors: Vec<String> =
            validator.iter_errors(&json(&format!("{GOOD}\n{more}"))).map(|e| e.to_string()).collect();
        assert_eq!(errors, [] as [String; 0], "{more}");
    }
    assert!(
        validator
            .is_valid(&json("extends = [\"a.toml\", \"b.toml\"]\nremove = [\"node.a\", \"expect\"]\nuplink = \"dsl\""))
    );
}

#[test]
fn wrong_files_are_wrong() {
    let validator = validator();
    let wrong = [
        // Keys that are not there, and those that are missing.
        "tme-limit = \"10s\"",
        "[nat.home]\nmaping = \"endpoint-independent\"",
        "[link.dsl]\nlatncy = \"20ms\"",
        "[node.server]\nadress = \"1.2.3.4\"",
        "[[program]]\nnode = \"server\"\nrun = \"grape\"\napi-port = 30001",
        "[[program]]\nrun = \"lookup\"\nservice = \"rpc_test\"",
        "[[program]]\nnode = \"server\"",
        "[[program]]\nnode = \"server\"\nrun = \"grape\"\ndht-port = 1\napi-port = 2\nservice = \"rpc_test\"",
        "[[program]]\nnode = \"server\"\nrun = \"webserver\"",
        "[[fault]]\ncrash = \"server\"",
        "[[fault]]\nwhen = \"3s\"\ncrash = \"server\"",
        "[[expect]]\nwithin = \"5s\"\nreply = { to = \"server\", vallue = 1 }",
        "[[expect]]\nwithin = \"5s\"\nnever = { reply = { value = 1 } }",
        "[[expect]]\nwithin = \"5s\"\nall = [{ replied = { to = \"a\" } }]",
        // Types.
        "description = 1",
        "seed = -1",
        "extends = 1",
        "nat = 1",
        "[node]\naddress = \"157.81.109.241\"",
        "[program]\nrun = \"grape\"",
        "[nat.home]\nhairpinning = \"yes\"",
        "[link.dsl]\nlatency = 20",
        "[[program]]\nnode = [\"server\"]\nrun = \"worker\"\nservice = \"rpc_test\"",
        "[[fault]]\nat = \"1s\"\npartition = [\"a\", \"b\"]",
        "[[expect]]\nwithin = \"5s\"\nall = { reply = { to = \"a\" } }",
        // Values.
        "time-limit = \"10\"",
        "[nat.home]\nmapping = \"symmetric\"",
        "[nat.\"a b\"]",
        "[link.b]\nlatency = \"20 parsecs\"",
        "[link.b]\nlatency = \"-20ms\"",
        "[link.f]\nrate = \"10 Mb\"",
        "[node.server]\naddress = \"157.81.109\"",
        "[node.peer]\ncount = 0",
        "[node.peer]\nbehind = { home = 50 }",
        "[[program]]\nnode = \"server\"\nrun = \"grape\"\ndht-port = 0\napi-port = 30001",
        "[[program]]\nnode = \"server\"\nrun = \"grape\"\ndht-port = 1\napi-port = 30001\nkind = \"nodejs\"",
        "[[expect]]\nwithin = \"5s\"\nreply = { to = \"a\", count = 0 }",
        "[[expect]]\nwithin = \"5s\"\nreply = { to = \"a\", path = \"relay\" }",
        "[[expect]]\nwithin = \"5s\"\npercentile = { of = \"speed\", to = \"a\", p50 = \"1s\" }",
        "remove = [\"worker\"]",
    ];
    for text in wrong {
        assert!(!validator.is_valid(&json(text)), "the schema takes {text:?}");
        assert!(scenario::parse("wrong.toml", text).is_err(), "the laboratory takes {text:?}");
    }
}

#[test]
fn keys_are_explained_as_in_the_documentation() {
    let schema: Value = serde_json::from_str(&scenario::schema()).expect("it is JSON");
    let mut unexplained = Vec::new();
    for table in ["NatTable", "LinkTable", "NodeTable", "FaultTable"] {
        let keys = schema["definitions"][table]["properties"].as_object().expect("a table");
        unexplained.extend(
            keys.iter().filter(|(_, key)| key["description"].is_null()).map(|(key, _)| format!("{table}.{key}")),
        );
    }
    let top = schema["properties"].as_object().expect("the file").iter();
    let top =
        top.filter(|(_, key)| key["type"] != "object" && key["type"] != "array" || key["items"]["anyOf"].is_null());
    unexplained.extend(
        top.filter(|(_, key)| key["description"].is_null() && key["type"] != "object").map(|(key, _)| key.clone()),
    );
    assert_eq!(unexplained, [] as [String; 0], "keys without a row in the tables of sim/scenario/mod.rs");
}
