//! `grenache grape` as a shell and an operator see it: flags, lines, signals, files, exit codes.

mod processes;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use grenache_sim::grapes::ports;
use processes::{Process, call, grenache, http, ran, until};
use rustix::process::Signal;
use serde_json::{Value, json};

fn at(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// `grenache grape` on loopback, with more arguments, separated by spaces.
fn grape(dht: u16, api: u16, bootstrap: &str, more: &str) -> Command {
    let mut command = grenache();
    command.args(["grape", "--dp", &dht.to_string(), "--aph", &api.to_string(), "--bn", bootstrap]);
    command.args(more.split_whitespace());
    command
}

/// A lone Grape that has started.
fn lone(more: &str) -> (Process, SocketAddr) {
    let [dht, api] = ports::free().expect("there are free ports");
    let mut process = Process::start(&mut grape(dht, api, "", more));
    process.line("listening");
    (process, at(api))
}

#[test]
fn every_flag_can_be_written_in_the_originals_ways() {
    let [dht, api] = ports::free().expect("there are free ports");
    let short = format!(
        "-b 127.0.0.1 --dp {dht} --aph={api} --bn= --dc 32 --dht_maxTables 10 --dht_maxValues=10 --dpa 60000 \
         --cache_maxAge 30000 --dnl 20000 --check_maxPayloadSize 4096"
    );
    let long = format!(
        "--bind 127.0.0.1 --dht_port={dht} --api_port {api} --bootstrap 127.0.0.1:1,localhost:2 --dht_concurrency 32 \
         --dht_maxTables 10 --dht_maxValues 10 --dht_peer_maxAge=60000 --dht_nodeLiveness 20000"
    );
    for arguments in [short, long.clone(), long.replace("--bind", "--b")] {
        let mut process = Process::start(grenache().arg("grape").args(arguments.split(' ')));
        let line = process.line("listening");
        assert!(line.contains(&format!("dht=127.0.0.1:{dht} api=127.0.0.1:{api}")), "{line}");
        assert_eq!(process.end(Signal::TERM).code(), Some(0), "{arguments}");
    }
}

#[test]
fn a_missing_flag_is_named() {
    let required = [("--dp", "20001"), ("--aph", "30001"), ("--bn", "")];
    for (missing, _) in required {
        let mut command = grenache();
        command.arg("grape");
        for (flag, value) in required.iter().filter(|(flag, _)| *flag != missing) {
            command.args([flag, value]);
        }
        let wrong = ran(&mut command);
        assert_eq!(wrong.code, Some(2));
        assert!(wrong.stderr.contains(&format!("  {missing} <")), "{}", wrong.stderr);
    }
}

#[test]
fn wrong_values_are_told() {
    for (arguments, message) in [
        ("--dp 65536", "65536 is not in 0..=65535"),
        ("--bn 127.0.0.1", "`127.0.0.1` has no port: write host:port"),
        ("--bn [::1]:20001", "the DHT is over IPv4"),
        ("--dpa 1.5", "a whole number of milliseconds"),
        ("--dht_maxTables 0", "0"),
        ("--log loud", "write off, error, warn, info, debug or trace"),
        ("--dht_maxTable 5", "--dht_maxTables"),
        ("--metrics 9100", "--metrics"),
    ] {
        let wrong = ran(grenache().args("grape --aph 30001".split(' ')).args(arguments.split(' ')));
        assert_eq!(wrong.code, Some(2), "{arguments}");
        assert!(wrong.stderr.contains(message), "{arguments}: {}", wrong.stderr);
    }
}

#[test]
fn a_bound_grape_listens_there_only_and_stores_its_own_announces_under_it() {
    let (_grape, api) = lone("-b 127.0.0.1");
    assert!(http(SocketAddr::from(([127, 0, 0, 2], api.port())), "POST", "/", "{}").is_err());
    assert_eq!(call(api, "announce", &json!(["a_service", 1337])), r#""No nodes to query""#);
    assert_eq!(call(api, "lookup", &json!("a_service")), r#"["127.0.0.1:1337"]"#);

    let (_grape, api) = lone("");
    assert!(http(SocketAddr::from(([127, 0, 0, 2], api.port())), "POST", "/", "{}").is_ok());
    call(api, "announce", &json!(["a_service", 1337]));
    assert_eq!(call(api, "lookup", &json!("a_service")), "[]");
}

#[test]
fn limits_are_the_flags() {
    let (_grape, api) = lone("-b 127.0.0.1 --check_maxPayloadSize 100 --dht_peer_maxAge 300 --cache_maxAge 100");
    let status = |length| http(api, "POST", "/lookup", &"x".repeat(length)).expect("it answers").0;
    assert_eq!((status(100), status(101)), (500, 413));
    let (_other, default) = lone("");
    let status = |length| http(default, "POST", "/lookup", &"x".repeat(length)).expect("it answers").0;
    assert_eq!((status(8192), status(8193)), (500, 413));

    call(api, "announce", &json!(["a_service", 1337]));
    let found = || call(api, "lookup", &json!("a_service"));
    assert_eq!(found(), r#"["127.0.0.1:1337"]"#);
    until("what is not announced again expires", || (found() == "[]").then_some(()));
}

/// What is said after the date and the namespace.
fn debug_lines(process: &Process) -> Vec<String> {
    let said = process.said.iter().map(|line| line.split_once(" grenache:grape ").expect(line));
    said.map(|(date, line)| {
        assert!(date.len() == "2026-11-25T10:00:00.000Z".len() && date.ends_with('Z'), "{date}");
        line.to_owned()
    })
    .collect()
}

#[test]
fn debug_prints_the_originals_lines() {
    let [dht, api, other_dht, other_api] = ports::free().expect("there are free ports");
    let debug = |dht, api, bootstrap: u16, debug: &str| {
        Process::start(grape(dht, api, &format!("127.0.0.1:{bootstrap}"), "").env("DEBUG", debug))
    };
    let mut first = debug(dht, api, other_dht, "grenache:grape");
    first.line("listening");
    let mut second = debug(other_dht, other_api, dht, "express,grenache:*");
    second.line("ready");
    first.line("ready");
    assert_eq!(call(at(api), "announce", &json!(["rest:net", 1337])), "1");
    second.line("announce");
    assert_eq!(call(at(other_api), "lookup", &json!("rest:net")), r#"["127.0.0.1:1337"]"#);
    second.line("lookup");
    assert_eq!(call(at(api), "lookup", &json!("rest:net")), r#"["127.0.0.1:1337"]"#);
    first.line("lookup");
    UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.send_to(b"d1:ade", at(dht))).expect("sent");
    first.line("warning");

    assert_eq!(
        debug_lines(&second),
        [
            "starting".to_owned(),
            format!("{other_dht} listening"),
            format!("{other_dht} node"),
            format!("{other_dht} ready"),
            format!("{other_dht} announce rest:net"),
            format!("{other_dht} found potential peer 127.0.0.1:1337 for hash: rest:net"),
            "lookup rest:net found 1 nodes".to_owned(),
        ]
    );
    let first = debug_lines(&first);
    let through = format!("{dht} found potential peer 127.0.0.1:1337 through 127.0.0.1:{other_dht} for hash: rest:net");
    assert!(first.contains(&through), "{first:?}");
    assert_eq!(first.last(), Some(&format!("{dht} warning")));
}

#[test]
fn without_debug_none_of_the_originals_lines_is_printed() {
    for debug in [None, Some("express"), Some("*,-grenache:grape")] {
        let [dht, api] = ports::free().expect("there are free ports");
        let mut command = grape(dht, api, "", "");
        if let Some(debug) = debug {
            command.env("DEBUG", debug);
        }
        let mut process = Process::start(&mut command);
        process.line("ready");
        assert!(!process.said.iter().any(|line| line.contains("grenache:grape")), "{:?}", process.said);
    }
}

#[test]
fn our_own_logs_can_be_json() {
    let (mut process, _) = lone("--log-format json");
    process.line("ready");
    let parse = |line: &String| serde_json::from_str::<Value>(line).expect("a line is JSON");
    let lines: Vec<Value> = process.said.iter().map(parse).collect();
    assert_eq!((&lines[0]["level"], &lines[0]["message"]), (&json!("INFO"), &json!("listening")));
    assert_eq!(lines[0]["id"].as_str().map(str::len), Some(40));

    let [dht, api] = ports::free().expect("there are free ports");
    let mut quiet = Process::start(&mut grape(dht, api, "", "--log off"));
    until("it answers", || http(at(api), "POST", "/", "{}").ok());
    let status = {
        let lines = std::mem::take(&mut quiet.said);
        assert_eq!(lines, Vec::<String>::new());
        quiet.end(Signal::TERM)
    };
    assert_eq!(status.code(), Some(0));
}

#[test]
fn it_ends_cleanly_when_it_is_asked_to() {
    for signal in [Signal::TERM, Signal::INT] {
        let (process, _) = lone("");
        assert_eq!(process.end(signal).code(), Some(0), "{signal:?}");
    }
}

#[test]
fn a_port_in_use_is_told() {
    // Held from the beginning: what is free is not for long, where other tests start programs at the same time.
    let udp = UdpSocket::bind(("0.0.0.0", 0)).expect("there are free ports");
    let tcp = TcpListener::bind(("0.0.0.0", 0)).expect("there are free ports");
    let dht = udp.local_addr().expect("it is bound").port();
    let api = tcp.local_addr().expect("it is bound").port();
    let [metrics] = ports::free().expect("there are free ports");
    for (dht_port, api_port, more, message) in [
        (dht, metrics, String::new(), format!("cannot bind the DHT node to UDP 0.0.0.0:{dht}")),
        (api, api, String::new(), format!("cannot listen for the HTTP API on TCP 0.0.0.0:{api}")),
        (api, metrics, format!("--metrics 0.0.0.0:{api}"), format!("cannot serve metrics on TCP 0.0.0.0:{api}")),
    ] {
        let failed = ran(&mut grape(dht_port, api_port, "", &more));
        assert_eq!(failed.code, Some(1), "{}", failed.stderr);
        assert!(failed.stderr.contains(&format!("error: {message}")), "{}", failed.stderr);
        assert!(failed.stderr.contains("in use"), "{}", failed.stderr);
    }
}

#[test]
fn a_state_file_makes_a_restart_the_same_node() {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let path = folder.path().join("grape.json");
    let start = || {
        let [dht, api] = ports::free().expect("there are free ports");
        let mut process = Process::start(grape(dht, api, "", "--log-format json --state").arg(&path));
        let line: Value = serde_json::from_str(&process.line("listening")).expect("a line is JSON");
        (process, line["id"].as_str().expect("it has an id").to_owned())
    };
    let (first, id) = start();
    until("it is written", || path.exists().then_some(()));
    assert_eq!(first.end(Signal::TERM).code(), Some(0));
    let kept: Value = serde_json::from_slice(&fs::read(&path).expect("it is there")).expect("it is JSON");
    assert_eq!(kept["node_id"], id);
    assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o600);

    let (_second, same) = start();
    assert_eq!(same, id);
    let again: Value = serde_json::from_slice(&fs::read(&path).expect("it is there")).expect("it is JSON");
    assert_eq!(again, kept, "the token secrets go on too");
}

#[test]
fn a_bad_state_file_is_refused() {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let path = folder.path().join("grape.json");
    fs::write(&path, "{\n  \"node_id\": 7\n}").expect("written");
    let refused = ran(grape(0, 0, "", "--state").arg(&path));
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("grape.json:2:14: this is no state of a Grape"), "{}", refused.stderr);
    assert_eq!(fs::read_to_string(&path).expect("it is there"), "{\n  \"node_id\": 7\n}", "it is left alone");

    let nowhere = ran(grape(0, 0, "", "--state").arg(folder.path().join("no/grape.json")));
    assert_eq!(nowhere.code, Some(2));
    assert!(nowhere.stderr.contains("cannot write the state file"), "{}", nowhere.stderr);
}

#[test]
fn metrics_can_be_scraped() {
    let [metrics] = ports::free().expect("there are free ports");
    let (mut process, api) = lone(&format!("-b 127.0.0.1 --metrics 127.0.0.1:{metrics}"));
    process.line("ready");
    call(api, "announce", &json!(["a_service", 1337]));
    assert_eq!(http(api, "POST", "/lookup", "no JSON").expect("it answers").0, 500);
    let (status, head, text) = http(at(metrics), "GET", "/metrics", "").expect("it answers");
    assert_eq!(status, 200);
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    for line in [
        "# TYPE grenache_grape_nodes gauge",
        "grenache_grape_ready 1",
        "grenache_grape_nodes 0",
        "grenache_grape_names 1",
        "# TYPE grenache_grape_datagrams_received_total counter",
        "grenache_grape_datagrams_received_total 0",
        "grenache_grape_http_requests_malformed_total 1",
    ] {
        assert!(text.lines().any(|other| other == line), "{line:?} is not in\n{text}");
    }
    assert_eq!(http(at(metrics), "GET", "/", "").expect("it answers").0, 404);
    assert_eq!(http(at(metrics), "POST", "/metrics", "").expect("it answers").0, 405);
}

#[test]
fn grapes_to_start_from_can_be_names() {
    let [dht, api, other_dht, other_api] = ports::free().expect("there are free ports");
    let mut first = Process::start(&mut grape(dht, api, "", ""));
    first.line("ready");
    let mut second = Process::start(&mut grape(other_dht, other_api, &format!("localhost:{dht}"), ""));
    let ready = second.line("ready");
    assert!(ready.contains("nodes=1"), "{ready}");
    let [dht, api] = ports::free().expect("there are free ports");
    let mut lonely = Process::start(&mut grape(dht, api, "nobody.invalid:20001", ""));
    lonely.line("nobody.invalid:20001");
    lonely.line("listening");
}

#[test]
fn health_is_an_exit_code() {
    let (_grape, api) = lone("");
    let health = |url: String| ran(grenache().args(["grape-health", &url, "--timeout", "10000"]));
    assert_eq!(health(format!("http://{api}")).code, Some(0));
    let [free] = ports::free().expect("there are free ports");
    let dead = health(format!("http://127.0.0.1:{free}"));
    assert_eq!(dead.code, Some(1));
    assert!(dead.stderr.contains(&format!("the Grape at 127.0.0.1:{free} cannot be asked")), "{}", dead.stderr);

    let [metrics] = ports::free().expect("there are free ports");
    let (_other, _) = lone(&format!("--metrics 127.0.0.1:{metrics}"));
    let no_grape = health(format!("http://127.0.0.1:{metrics}/"));
    assert_eq!(no_grape.code, Some(1));
    assert!(no_grape.stderr.contains("is no working Grape: status 404"), "{}", no_grape.stderr);
    assert_eq!(health("https://127.0.0.1:1".to_owned()).code, Some(2));
}

#[test]
fn help_fits_a_terminal_and_names_every_flag() {
    let help = ran(grenache().args(["grape", "--help"]).env("COLUMNS", "80"));
    assert_eq!(help.code, Some(0));
    let original = [
        "--dp",
        "--dht_port",
        "--aph",
        "--api_port",
        "--bn",
        "--bootstrap",
        "-b",
        "--bind",
        "--b",
        "--dc",
        "--dht_concurrency",
        "--dht_maxTables",
        "--dht_maxValues",
        "--dht_peer_maxAge",
        "--dpa",
        "--cache_maxAge",
        "--dnl",
        "--dht_nodeLiveness",
        "--check_maxPayloadSize",
    ];
    for flag in original.iter().chain(&["--state", "--metrics", "--log-format", "--log"]) {
        let named = help.stdout.split([' ', '\n', ',', ']', ';']).any(|word| word == *flag);
        assert!(named, "{flag} is not in\n{}", help.stdout);
    }
    assert!(help.stdout.lines().all(|line| line.chars().count() <= 80), "{}", help.stdout);
}
