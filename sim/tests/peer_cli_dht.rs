//! `grenache announce`, `lookup`, `put`, `get` and `keygen` as a shell sees them: results, JSON, exit codes.

mod processes;

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use grenache_sim::grapes::ports;
use processes::grapes::Grapes;
use processes::{Process, Ran, grenache, ran, ran_with, until};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

/// The command with these arguments, and these Grapes to ask.
fn run(api: &str, arguments: &[&str]) -> Ran {
    ran(grenache().args(arguments).args(["--grape", api]))
}

/// What it printed, where it went well.
fn result(api: &str, arguments: &[&str]) -> String {
    let ran = run(api, arguments);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{arguments:?}");
    ran.stdout.strip_suffix('\n').expect("results end with a newline").to_owned()
}

fn json_result(api: &str, arguments: &[&str]) -> Value {
    let text = result(api, &[arguments, &["--json"]].concat());
    assert!(!text.contains('\n'), "an object is a line: {text}");
    serde_json::from_str(&text).expect("it is JSON")
}

/// It failed with this code, said this and what to do, and gave no result.
fn assert_failed(ran: &Ran, code: i32, problem: &str) {
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(code), ""), "{}", ran.stderr);
    assert!(ran.stderr.contains("error: ") && ran.stderr.contains(problem), "{}", ran.stderr);
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("there is room for a folder")
}

/// A key of its own, and its public key.
fn key(folder: &TempDir) -> (String, String) {
    let file = folder.path().join("key").to_str().expect("UTF-8").to_owned();
    let made = ran(grenache().args(["keygen", &file]));
    assert_eq!((made.code, made.stderr.as_str()), (Some(0), ""));
    (file, made.stdout.trim_end().to_owned())
}

#[test]
fn what_is_announced_is_looked_up() {
    let grapes = Grapes::start(2);
    let api = grapes.api();
    let announced = result(&api, &["announce", "rest:util:net", "1337"]);
    assert_eq!(announced, "rest:util:net announced at port 1337, stored by 1 node");
    assert_eq!(result(&api, &["lookup", "rest:util:net"]), "127.0.0.1:1337");

    let second = json_result(&api, &["announce", "rest:util:net,1338"]);
    assert_eq!(second, json!({"name": "rest:util:net", "port": 1338, "nodes": 1}));
    let other = grapes.apis[1].to_string();
    let both = result(&other, &["lookup", "--all", "rest:util:net"]);
    let mut lines: Vec<&str> = both.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["127.0.0.1:1337", "127.0.0.1:1338"]);
    for which in ["--first", "--random"] {
        let one = result(&other, &["lookup", which, "rest:util:net"]);
        assert!(lines.contains(&one.as_str()), "{which}: {one}");
    }
    let told = json_result(&other, &["lookup", "rest:util:net"]);
    assert_eq!(told["name"], "rest:util:net");
    assert_eq!(told["addresses"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_name_is_announced_again_and_again_until_a_signal() {
    let grapes = Grapes::start(2);
    for (signal, json) in [(Signal::TERM, false), (Signal::INT, true)] {
        let mut command = grenache();
        command.args(["announce", "again", "1337", "--every", "50ms", "--grape", &grapes.api()]);
        if json {
            command.arg("--json");
        }
        let mut announcing = Process::start_with_results(&mut command);
        for _ in 0..3 {
            let line = announcing.line("1337");
            assert_eq!(serde_json::from_str::<Value>(&line).is_ok(), json, "{line}");
        }
        assert_eq!(result(&grapes.api(), &["lookup", "again"]), "127.0.0.1:1337");
        assert_eq!(announcing.end(signal).code(), Some(0));
    }
}

#[test]
fn an_announce_that_fails_is_told_once_and_tried_again() {
    let lone = Grapes::start(1);
    let arguments = ["announce", "early", "1337", "--every", "2min", "--grape", &lone.api()];
    let mut announcing = Process::start_with_results(grenache().args(arguments));
    announcing.line("error: announce failed, trying again: No nodes to query");
    let _other = lone.join();
    announcing.line("early announced at port 1337, stored by 1 node");
    assert_eq!(announcing.said.len(), 2, "{:?}", announcing.said);
    assert_eq!(announcing.end(Signal::TERM).code(), Some(0));
}

#[test]
fn grapes_come_from_the_environment_too_and_the_first_that_is_reached_is_asked() {
    let grapes = Grapes::start(2);
    let [dead] = ports::free().expect("there are free ports");
    result(&grapes.api(), &["announce", "a_service", "1337"]);
    let live = grapes.apis[0].port();
    for several in [
        format!("127.0.0.1:{dead},127.0.0.1:{live}"),
        format!("http://127.0.0.1:{live}/"),
        format!("localhost:{live}"),
        format!("nobody.invalid:1,localhost:{live}"),
    ] {
        let found = ran(grenache().args(["lookup", "a_service"]).env("GRENACHE_GRAPE", &several));
        assert_eq!((found.code, found.stdout.as_str()), (Some(0), "127.0.0.1:1337\n"), "{several}: {}", found.stderr);
    }
    let (dead, live) = (format!("127.0.0.1:{dead}"), grapes.api());
    let twice = ran(grenache().args(["lookup", "a_service", "-g", &dead, "-g", &live]));
    assert_eq!(twice.stdout, "127.0.0.1:1337\n", "{}", twice.stderr);
}

#[test]
fn what_a_grape_cannot_do_is_told_with_an_exit_code() {
    let lone = Grapes::start(1);
    assert_failed(&run(&lone.api(), &["announce", "a", "1"]), 1, "knows no other: No nodes to query\nhelp: ");
    assert_failed(&run(&lone.api(), &["lookup", "nobody"]), 4, "nobody has announced `nobody`\nhelp: ");
    assert_failed(&run(&lone.api(), &["get", &"0".repeat(40)]), 4, "there is no value under 000");

    let [dead] = ports::free().expect("there are free ports");
    let dead = format!("127.0.0.1:{dead}");
    let hash = "0".repeat(40);
    for arguments in [&["announce", "a", "1"][..], &["lookup", "a"], &["put", "a"], &["get", &hash]] {
        let unreached = run(&dead, arguments);
        assert_failed(&unreached, 5, &format!("no Grape can be reached at {dead}: "));
        assert!(unreached.stderr.contains("help: start some with `grenache grapes up`"), "{}", unreached.stderr);
    }
    assert_failed(&run("nobody.invalid:1", &["lookup", "a"]), 5, "the name nobody.invalid cannot be resolved");

    // It takes connections and never answers.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let at = silent.local_addr().expect("it is bound").to_string();
    for arguments in [["lookup", "a", "--timeout", "300ms"], ["put", "a", "--timeout", "300ms"]] {
        assert_failed(&run(&at, &arguments), 5, "help: ");
    }
}

#[test]
fn wrong_usage_is_told() {
    let hash = "0".repeat(41);
    for (arguments, problem) in [
        (&["announce", "a"][..], "which port does `a` listen on?"),
        (&["announce", "a", "0"], "0 is not in 1..=65535"),
        (&["announce", "", "1"], "a name has at least one letter"),
        (&["announce", "a", "1", "--every", "5"], "write a time with its unit"),
        (&["lookup"], "<NAME>"),
        (&["lookup", "a", "--first", "--random"], "cannot be used with"),
        (&["lookup", "a", "--timeout", "0s"], "write a time with its unit"),
        (&["put", "a", "--salt", "s"], "--salt, --seq and --cas are for mutable values"),
        (&["put", "a", "--salt", ""], "a salt has 1 to 64 bytes"),
        (&["get", &hash], "write a hash of 40 hex digits, or a public key of 64"),
        (&["get"], "<HASH>"),
    ] {
        assert_failed(&run("127.0.0.1:1", arguments), 2, problem);
    }
    assert_failed(&run("127.0.0.1", &["lookup", "a"]), 2, "write HOST:PORT");
}

#[test]
fn an_immutable_value_is_found_under_its_hash() {
    let grapes = Grapes::start(2);
    let (api, other) = (grapes.api(), grapes.apis[1].to_string());
    // BEP 44, test 3.
    let hash = "e5f96f6f38320f0f33959cb4d3d656452117aadb";
    assert_eq!(result(&api, &["put", "Hello World!"]), hash);
    assert_eq!(json_result(&api, &["put", "Hello World!"]), json!({ "hash": hash }));
    assert_eq!(result(&other, &["get", hash]), "Hello World!");
    assert_eq!(result(&other, &["get", &hash.to_uppercase()]), "Hello World!");
    assert_eq!(json_result(&other, &["get", hash]), json!({ "hash": hash, "value": "Hello World!" }));
    for arguments in [&["put", "-"][..], &["put"]] {
        let piped = ran_with(grenache().args(arguments).args(["--grape", &api]), "Hello World!\n");
        assert_eq!((piped.code, piped.stdout.trim_end()), (Some(0), hash), "{}", piped.stderr);
    }
    let large = "x".repeat(999);
    assert_eq!(result(&other, &["get", &result(&api, &["put", &large])]), large);
    assert_failed(&run(&api, &["put", &"x".repeat(1000)]), 1, "v must be less than 1000 bytes");
}

#[test]
fn a_mutable_value_is_found_under_its_key_and_changed() {
    let (grapes, folder) = (Grapes::start(2), folder());
    let (api, other) = (grapes.api(), grapes.apis[1].to_string());
    let (file, public_key) = key(&folder);
    let put = |more: &[&str]| run(&api, &[&["put", "--key", &file], more].concat());

    let hash = put(&["first"]).stdout.trim_end().to_owned();
    for place in [&hash, &public_key] {
        assert_eq!(result(&other, &["get", place]), "first");
    }
    let told = json_result(&other, &["get", &public_key]);
    let signature = told["signature"].as_str().expect("it is signed");
    assert_eq!(signature.len(), 128);
    assert_eq!(
        told,
        json!({ "hash": hash, "value": "first", "public_key": public_key, "salt": null, "seq": 1, "signature": signature })
    );

    let second = put(&["second", "--json"]);
    let second: Value = serde_json::from_str(&second.stdout).expect("it is JSON");
    assert_eq!(second, json!({ "hash": hash, "public_key": public_key, "salt": null, "seq": 2 }));
    assert_eq!(result(&other, &["get", &hash]), "second");

    assert_failed(&put(&["third", "--seq", "2"]), 1, "a value with this sequence number or a higher one is stored");
    assert_failed(&put(&["third", "--seq", "3", "--cas", "1"]), 1, "its sequence number is not that of --cas");
    assert_eq!(put(&["third", "-n", "3", "-c", "2"]).stdout.trim_end(), hash);
    assert_eq!(result(&other, &["get", &hash]), "third");
}

#[test]
fn a_salt_tells_values_of_one_key_apart() {
    let (grapes, folder) = (Grapes::start(2), folder());
    let (api, other) = (grapes.api(), grapes.apis[1].to_string());
    let (file, public_key) = key(&folder);
    let put = |value: &str, salt: &str| result(&api, &["put", "--key", &file, value, "--salt", salt]);
    let (mem, load) = (put("7 GiB", "mem"), put("0.5", "load"));
    assert_ne!(mem, load);
    assert_eq!(result(&other, &["get", &public_key, "--salt", "mem"]), "7 GiB");
    assert_eq!(result(&other, &["get", &load, "--salt", "load"]), "0.5");
    assert_eq!(json_result(&other, &["get", &load, "--salt", "load"])["salt"], "load");
    assert_failed(&run(&other, &["get", &public_key]), 4, "there is no value under");
    // This Grape has the value itself, and gives it whatever the salt.
    assert_failed(
        &run(&other, &["get", &load, "--salt", "mem"]),
        1,
        "does not fit its hash or its signature\nhelp: give",
    );
}

#[test]
fn keys_are_their_owners_alone_and_never_overwritten_by_mistake() {
    let folder = folder();
    let (file, public_key) = key(&folder);
    let run = |arguments: &[&str]| ran(grenache().arg("keygen").args(arguments).arg(&file));
    assert_eq!(public_key.len(), 64);
    assert_eq!(fs::metadata(&file).expect("it is there").permissions().mode() & 0o777, 0o600);
    let secret = fs::read_to_string(&file).expect("it can be read");
    assert!(secret.len() == 65 && !secret.contains(&public_key), "the secret key is not the public one");

    assert_failed(&run(&[]), 2, "exists already\nhelp: ");
    assert_eq!(fs::read_to_string(&file).expect("it is there"), secret);
    let shown = run(&["--show", "--json"]);
    let shown: Value = serde_json::from_str(&shown.stdout).expect("it is JSON");
    assert_eq!((&shown["file"], &shown["public_key"]), (&json!(file), &json!(public_key)));
    assert_eq!(shown["hash"].as_str().map(str::len), Some(40));

    let forced = run(&["--force"]);
    assert_eq!(forced.code, Some(0), "{}", forced.stderr);
    assert_ne!(forced.stdout.trim_end(), public_key);
    assert_eq!(run(&["--show"]).stdout, forced.stdout);
    assert_eq!(fs::metadata(&file).expect("it is there").permissions().mode() & 0o777, 0o600);
}

#[test]
fn bad_key_files_are_refused() {
    let folder = folder();
    let (file, _) = key(&folder);
    let put = |file: &str| ran(grenache().args(["put", "a", "--key", file, "--grape", "127.0.0.1:1"]));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("it is ours");
    assert_failed(&put(&file), 2, "others can read the key");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("it is ours");
    for text in ["", "no key", &"0".repeat(63), &"0".repeat(2000)] {
        fs::write(&file, text).expect("it is ours");
        assert_failed(&put(&file), 2, "is no key: a key is 64 hex digits");
    }
    assert_failed(&put("/nowhere/key"), 2, "there is no key at /nowhere/key\nhelp: make one with `grenache keygen`");
    assert_failed(&put(folder.path().to_str().expect("UTF-8")), 2, "is no key");
    assert_failed(&ran(grenache().args(["keygen", "/proc/no/key"])), 1, "cannot write the key /proc/no/key");
}

#[test]
fn without_a_file_the_key_is_in_the_configuration_folder() {
    let (grapes, folder) = (Grapes::start(2), folder());
    let home = |arguments: &[&str]| {
        let mut command = grenache();
        command.env_remove("XDG_CONFIG_HOME").env("HOME", folder.path());
        ran(command.args(arguments))
    };
    assert_failed(&home(&["put", "--mutable", "a"]), 2, ".config/grenache/key");
    let public_key = home(&["keygen"]).stdout.trim_end().to_owned();
    let file: PathBuf = folder.path().join(".config/grenache/key");
    assert!(file.is_file());
    let put = home(&["put", "--mutable", "a", "--grape", &grapes.api()]);
    assert_eq!(put.code, Some(0), "{}", put.stderr);
    assert_eq!(home(&["keygen", "--show"]).stdout.trim_end(), public_key);
    until("it is found", || (run(&grapes.api(), &["get", &public_key]).stdout == "a\n").then_some(()));
    let nowhere = ran(grenache().env_remove("XDG_CONFIG_HOME").env_remove("HOME").arg("keygen"));
    assert_failed(&nowhere, 2, "where is the key?");
}
