//! What peers say that would command a terminal, and how failures are told to programs.

mod processes;

use std::sync::Arc;

use grenache::net::{HostNetwork, Net};
use grenache::rpc::{PeerRpcServer, ServerConfig};
use grenache::transport::{Endpoint, EndpointConfig};
use processes::{Process, Ran, grenache, ran};
use serde_json::{Value, json};

/// Clears the screen by C0 and by C1, turns text around, and looks like another line.
const HOSTILE: &str = "\u{1b}[2J\u{9b}2J\u{202e}x\u{7f}\r\nerror: another";

/// The same, written out.
const TOLD: &str = r"\u{1b}[2J\u{9b}2J\u{202e}x\u{7f}\r\nerror: another";

/// A peer that replies with that, or, asked for it, fails with that; and its address.
fn hostile_peer() -> (tokio::runtime::Runtime, PeerRpcServer, String) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("threads");
    let _inside = runtime.enter();
    let net: Net = Arc::new(HostNetwork::new());
    let endpoint = Endpoint::bind(&net, ([127, 0, 0, 1], 0).into(), EndpointConfig::default()).expect("a port");
    let server = PeerRpcServer::serve(&endpoint, ServerConfig::default(), |request| async move {
        if request.payload == "fail" { Err(HOSTILE.to_owned()) } else { Ok(HOSTILE.into()) }
    });
    let address = endpoint.local_addr().to_string();
    (runtime, server, address)
}

fn request(arguments: &[&str]) -> Ran {
    ran(grenache().arg("request").args(arguments).args(["--grape", "127.0.0.1:1"]))
}

#[test]
fn a_peers_error_is_told_in_one_line_that_commands_nothing() {
    let (_runtime, _server, at) = hostile_peer();
    let failed = request(&[&at, r#""fail""#]);
    assert_eq!(failed.code, Some(1));
    assert_eq!(failed.stderr, format!("error: {at} answers with an error: {TOLD}\n"));
    let failed = request(&[&at, r#""fail""#, "--json"]);
    assert_eq!((failed.code, failed.stdout.as_str()), (Some(1), ""));
    assert!(!failed.stderr.contains(['\u{1b}', '\u{9b}', '\u{7f}', '\u{202e}']), "{:?}", failed.stderr);
    let told: Value = serde_json::from_str(&failed.stderr).expect("one object");
    assert_eq!(told["error"], format!("{at} answers with an error: {HOSTILE}"), "it says the same");
}

#[test]
fn a_reply_stays_json_and_a_raw_one_is_as_it_is_for_a_pipe_only() {
    let (_runtime, _server, at) = hostile_peer();
    for arguments in [&[&at, "1"][..], &[&at, "1", "--json"]] {
        let told = request(arguments);
        assert_eq!((told.code, told.stderr.as_str()), (Some(0), ""));
        assert!(!told.stdout.contains(['\u{1b}', '\u{9b}', '\u{7f}', '\u{202e}']), "{:?}", told.stdout);
        let value: Value = serde_json::from_str(&told.stdout).expect("it is JSON");
        assert_eq!(value.get("value").unwrap_or(&value), HOSTILE);
    }
    assert_eq!(request(&[&at, "1", "--raw"]).stdout, format!("{HOSTILE}\n"), "a pipe gets what was sent");
    // A terminal does not. `script` gives the command one.
    let command = format!("{} request {at} 1 --raw", env!("CARGO_BIN_EXE_grenache"));
    let watched = std::process::Command::new("script").args(["-qec", &command, "/dev/null"]).output();
    let Ok(watched) = watched else {
        eprintln!("without `script` there is no terminal to look at");
        return;
    };
    let shown = String::from_utf8(watched.stdout).expect("it is UTF-8");
    assert!(!shown.contains(['\u{1b}', '\u{9b}', '\u{7f}', '\u{202e}']), "{shown:?}");
    // The text's own newline is one on the terminal too.
    assert_eq!(shown.replace("\r\n", "\n"), format!("{}\n", TOLD.replace(r"\n", "\n")));
}

#[test]
fn a_services_log_shows_what_it_is_asked_in_one_line() {
    let mut serving = Process::start_with_results(grenache().args(["serve", "a", "--echo", "--no-announce"]));
    let line = serving.line("listening");
    let port = line.split_once("UDP port ").and_then(|(_, rest)| rest.split(' ').next()).expect("it says where");
    let at = format!("127.0.0.1:{port}");
    let key = format!("key{HOSTILE}");
    assert_eq!(request(&[&key, "1", "--at", &at]).code, Some(0));
    let line = serving.line(" 1 -> 1 ");
    assert!(line.contains(&format!(" key{TOLD} 1 -> 1 in ")), "{line:?}");
}

#[test]
fn a_failure_is_an_object_for_programs_whatever_the_command() {
    let dead = ["--grape", "127.0.0.1:1", "--json"];
    let hash = "0".repeat(40);
    for (arguments, code) in [
        (&["lookup", "a"][..], 5),
        (&["announce", "a", "1"], 5),
        (&["get", &hash], 5),
        (&["put", "a"], 5),
        (&["request", "a", "1"], 5),
        (&["request", "a", "no JSON"], 2),
        (&["punch", "a", "--timeout", "1s"], 5),
        (&["nat-check", "--broker", "127.0.0.1:1", "--wait", "10ms"], 5),
        (&["serve", "a", "--echo", "--bind", "192.0.2.1"], 1),
        (&["broker", "a", "--bind", "192.0.2.1"], 1),
    ] {
        let failed = ran(grenache().args(arguments).args(dead));
        assert_eq!((failed.code, failed.stdout.as_str()), (Some(code), ""), "{arguments:?}: {}", failed.stderr);
        let told: Value = serde_json::from_str(&failed.stderr).unwrap_or_else(|error| {
            panic!("{arguments:?} tells no object ({error}): {}", failed.stderr);
        });
        assert_eq!((&told["event"], &told["exit_code"]), (&json!("failed"), &json!(code)), "{arguments:?}");
        assert!(told["error"].as_str().is_some_and(|error| !error.is_empty()), "{told}");
    }
    let failed = ran(grenache().args(["keygen", "--show", "/nowhere/key", "--json"]));
    let told: Value = serde_json::from_str(&failed.stderr).expect("one object");
    assert_eq!((failed.code, &told["exit_code"]), (Some(2), &json!(2)));
    assert!(told["help"].as_str().is_some_and(|help| help.contains("keygen")), "{told}");
}
