//! `grenache request`, `serve`, `broker`, `punch` and `nat-check` as a shell sees them: results, JSON, exit codes.

mod processes;

use std::net::UdpSocket;

use grenache_sim::grapes::ports;
use processes::grapes::Grapes;
use processes::{Process, Ran, grenache, ran, ran_with, until};
use rustix::process::Signal;
use serde_json::{Value, json};

/// A long-running command that has said where it listens, and that port.
fn listening(arguments: &[&str]) -> (Process, u16) {
    let mut process = Process::start_with_results(grenache().args(arguments));
    let line = process.line("listening");
    let port = line.split_once("UDP port ").expect("it says where").1;
    let port = port.split(' ').next().expect("a word").parse().expect("a port");
    (process, port)
}

/// A service that is announced.
fn serve(grapes: &Grapes, arguments: &[&str]) -> (Process, u16) {
    let (mut process, port) = listening(&[&["serve"], arguments, &["--grape", &grapes.api()]].concat());
    process.line("announced `");
    (process, port)
}

fn request(grapes: &Grapes, arguments: &[&str]) -> Ran {
    ran(grenache().arg("request").args(arguments).args(["--grape", &grapes.api()]))
}

/// What it printed, where it went well.
fn result(ran: &Ran) -> &str {
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    ran.stdout.strip_suffix('\n').expect("results end with a newline")
}

/// It failed with this code, said this, and gave no result.
fn assert_failed(ran: &Ran, code: i32, problem: &str) {
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(code), ""), "{}", ran.stderr);
    assert!(ran.stderr.contains("error: ") && ran.stderr.contains(problem), "{}", ran.stderr);
}

#[test]
fn a_service_is_asked_by_name_and_by_address() {
    let grapes = Grapes::start(2);
    let (mut serving, port) = serve(&grapes, &["echo_service", "--echo"]);
    assert_eq!(result(&request(&grapes, &["echo_service", r#"{"a": [1, "é"]}"#])), r#"{"a":[1,"é"]}"#);
    let line = serving.line(r#"{"a":[1,"é"]}"#);
    assert!(line.starts_with("127.0.0.1:") && line.contains(r#" echo_service {"a":[1,"é"]} -> {"#), "{line}");

    // By address no Grape is asked.
    let dead = ["--grape", "127.0.0.1:1"];
    for to in [format!("127.0.0.1:{port}"), format!("localhost:{port}")] {
        assert_eq!(result(&ran(grenache().args(["request", &to, "1"]).args(dead))), "1");
        serving.line(&format!(" {to} 1 -> 1 "));
        for at in ["--at", "--worker"] {
            assert_eq!(result(&ran(grenache().args(["request", "a_name", "2", at, &to]).args(dead))), "2");
            serving.line(" a_name 2 -> 2 ");
        }
    }
    assert_eq!(serving.end(Signal::TERM).code(), Some(0));
}

#[test]
fn payloads_and_replies_can_be_texts_and_come_from_standard_input() {
    let grapes = Grapes::start(2);
    let (_serving, _) = serve(&grapes, &["echo_service", "--echo"]);
    assert_eq!(result(&request(&grapes, &["echo_service", "--text", "hello"])), r#""hello""#);
    assert_eq!(result(&request(&grapes, &["echo_service", "--text", "1", "--raw"])), "1");
    assert_eq!(result(&request(&grapes, &["echo_service", "[1]", "--raw"])), "[1]");
    let mut command = grenache();
    command.args(["request", "echo_service", "-", "--grape", &grapes.api()]);
    let large = json!("x".repeat(300_000)).to_string();
    assert_eq!(result(&ran_with(&mut command, &large)), large);

    let told = request(&grapes, &["echo_service", "{}", "--json"]);
    let told: Value = serde_json::from_str(result(&told)).expect("it is JSON");
    assert_eq!(told["value"], json!({}));
    assert!(told["milliseconds"].as_f64().is_some_and(|ms| ms > 0.0), "{told}");
    assert!(told["from"].as_str().is_some_and(|from| from.starts_with("127.0.0.1:")), "{told}");
}

#[test]
fn what_a_peer_of_the_original_cannot_read_is_not_sent() {
    let grapes = Grapes::start(2);
    let (mut serving, _) = serve(&grapes, &["small", "--reply", "1"]);
    // [rid,"small","…"]: 36 of the id, 5 of the name, and 10 of brackets, quotes and commas.
    let payload = |length: usize| "x".repeat(length - 36 - 5 - 10);
    let ask = |payload: &str| request(&grapes, &["small", "--text", payload, "--reference-peer"]);
    assert_eq!(result(&ask(&payload(1382))), "1");
    serving.line(" small ");
    assert_failed(&ask(&payload(1383)), 2, "the request has 1383 bytes, more than the limit of 1382");
}

#[test]
fn a_reply_can_be_fixed_or_what_a_command_prints() {
    let grapes = Grapes::start(2);
    let (_fixed, _) = serve(&grapes, &["fixed", "--reply", r#"{"world": true}"#]);
    assert_eq!(result(&request(&grapes, &["fixed", "1"])), r#"{"world":true}"#);

    let (mut adding, _) = serve(&grapes, &["adder", "--exec", "read a; echo $((a + 1)) ; test $a -lt 10"]);
    assert_eq!(result(&request(&grapes, &["adder", "7"])), "8");
    let refused = request(&grapes, &["adder", "10"]);
    assert_failed(&refused, 1, "adder answers with an error: ERR_EXEC: exit status: 1");
    adding.line(" adder 10 -> error ERR_EXEC: exit status: 1 in ");

    let (_text, _) = serve(&grapes, &["version", "--exec", "echo 1.20", "--text", "--jobs", "1"]);
    assert_eq!(result(&request(&grapes, &["version", "null"])), r#""1.20""#);
    let (_slow, _) = serve(&grapes, &["slow", "--exec", "sleep 1000", "--exec-timeout", "200ms"]);
    assert_failed(&request(&grapes, &["slow", "1"]), 1, "ERR_EXEC: timed out");
}

#[test]
fn every_peer_of_a_name_can_be_asked() {
    let grapes = Grapes::start(2);
    let serving = ["1", "2"].map(|reply| serve(&grapes, &["many", "--reply", reply]));
    let all = request(&grapes, &["many", "0", "--map"]);
    let mut lines: Vec<&str> = result(&all).lines().collect();
    lines.sort_unstable_by_key(|line| line.rsplit_once(' ').expect("a reply").1.to_owned());
    let expected = [1, 2].map(|reply| format!("127.0.0.1:{} {reply}", serving[reply - 1].1));
    assert_eq!(lines, expected);
    assert_eq!(result(&request(&grapes, &["many", "0", "--map", "--limit", "1"])).lines().count(), 1);

    let (_failing, port) = serve(&grapes, &["many", "--exec", "false"]);
    let most = request(&grapes, &["many", "0", "--map"]);
    assert_eq!((most.code, most.stdout.lines().count()), (Some(1), 2), "{}", most.stderr);
    let problem = format!("error: 127.0.0.1:{port} answers with an error: ERR_EXEC: exit status: 1");
    assert!(most.stderr.contains(&problem), "{}", most.stderr);

    let told = request(&grapes, &["many", "0", "--map", "--json"]);
    assert_eq!((told.code, told.stderr.as_str()), (Some(1), ""));
    let told: Vec<Value> = told.stdout.lines().map(|line| serde_json::from_str(line).expect("it is JSON")).collect();
    let failed = json!({ "from": format!("127.0.0.1:{port}"), "error": "ERR_EXEC: exit status: 1" });
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told.contains(&failed), "{told:?}");
    assert!(told.contains(&json!({ "from": format!("127.0.0.1:{}", serving[0].1), "value": 1 })), "{told:?}");
}

#[test]
fn a_request_that_fails_is_told_with_an_exit_code() {
    let grapes = Grapes::start(2);
    assert_failed(&request(&grapes, &["nobody", "1"]), 4, "nobody has announced `nobody`\nhelp: ");
    assert_failed(&request(&grapes, &["nobody", "1", "--map"]), 4, "nobody has announced `nobody`");
    let nobody = ran(grenache().args(["request", "a", "1", "--grape", "127.0.0.1:1", "--timeout", "2s"]));
    assert_failed(&nobody, 5, "no Grape can be reached at 127.0.0.1:1: ");

    // Bound, and nobody answers there.
    let silent = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let to = silent.local_addr().expect("it is bound").to_string();
    let late = request(&grapes, &[&to, "1", "--timeout", "400ms"]);
    assert_failed(&late, 5, &format!("no reply from {to} within 400ms\nhelp: "));

    for (arguments, problem) in [
        (&["a", "hello"][..], "the payload is no JSON: "),
        (&["a"], "<PAYLOAD>"),
        (&["a", "1", "--limit", "1"], "--map"),
        (&["127.0.0.1:1", "1", "--map"], "this is an address"),
        (&["a", "1", "--map", "--broker", "b"], "leave one of them out"),
        (&["127.0.0.1:0", "1"], "`0` is no port"),
        (&["a", "1", "--timeout", "1"], "write a time with its unit"),
    ] {
        assert_failed(&request(&grapes, arguments), 2, problem);
    }
}

#[test]
fn a_service_tells_what_it_does_and_ends_by_a_signal() {
    let grapes = Grapes::start(2);
    let mut serving = Process::start_with_results(grenache().args([
        "serve",
        "told",
        "--exec",
        "read a; test $a = 1",
        "--json",
        "--bind",
        "127.0.0.1",
        "--grape",
        &grapes.api(),
    ]));
    let mut line = |part: &str| serde_json::from_str::<Value>(&serving.line(part)).expect("it is JSON");
    let (heard, announced) = (line("listening"), line("announced"));
    assert_eq!((&heard["name"], &announced["nodes"]), (&json!("told"), &json!(1)));
    assert_eq!(heard["port"], announced["port"]);
    assert_eq!(result(&request(&grapes, &["told", "1"])), r#""""#);
    assert_eq!(request(&grapes, &["told", "2"]).code, Some(1));
    let (good, bad) = (line("\"request\""), line("\"request\""));
    assert_eq!((&good["key"], &good["payload"], &good["reply"]), (&json!("told"), &json!(1), &json!("")));
    assert_eq!(bad["error"], "ERR_EXEC: exit status: 1");
    assert_eq!(serving.end(Signal::INT).code(), Some(0));
}

#[test]
fn what_is_in_flight_at_the_end_is_answered() {
    let grapes = Grapes::start(2);
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let (begun, go) = (folder.path().join("begun"), folder.path().join("go"));
    let command = format!("touch {}; until test -e {}; do sleep 0.01; done; echo 1", begun.display(), go.display());
    let (mut serving, _) = serve(&grapes, &["slow", "--exec", &command]);
    let asking = std::thread::spawn({
        let api = grapes.api();
        move || ran(grenache().args(["request", "slow", "0", "--grape", &api]))
    });
    until("it has begun", || begun.exists().then_some(()));
    serving.signal(Signal::TERM);
    serving.line("ending, for SIGTERM");
    std::fs::write(&go, "").expect("the folder is writable");
    assert_eq!(result(&asking.join().expect("it ends")), "1");
    serving.line(" slow 0 -> 1 ");
    assert_eq!(serving.wait().code(), Some(0));
}

#[test]
fn a_service_can_go_unannounced_and_announces_when_its_grape_is_there() {
    let [dead] = ports::free().expect("there are free ports");
    let dead = format!("127.0.0.1:{dead}");
    let (mut unannounced, port) = listening(&["serve", "quiet", "--echo", "--no-announce", "--grape", &dead]);
    let to = format!("127.0.0.1:{port}");
    assert_eq!(result(&ran(grenache().args(["request", &to, "1"]))), "1");
    unannounced.line(" 1 -> 1 ");
    assert!(!unannounced.said.iter().any(|line| line.contains("announced")), "{:?}", unannounced.said);
    let (mut early, _) = listening(&["serve", "early", "--echo", "--grape", &dead]);
    early.line("error: announce failed, trying again: ERR_GRAPE_UNREACHABLE: Connection refused");
    assert_eq!(early.end(Signal::TERM).code(), Some(0));
}

#[test]
fn a_service_or_broker_that_cannot_start_says_why() {
    let taken = UdpSocket::bind("0.0.0.0:0").expect("a port");
    let port = taken.local_addr().expect("it is bound").port().to_string();
    for arguments in [&["serve", "a", "--echo"][..], &["broker", "a"], &["punch", "--listen"]] {
        let failed = ran(grenache().args(arguments).args(["--port", &port]));
        assert_failed(&failed, 1, &format!("cannot bind UDP 0.0.0.0:{port}: "));
    }
    for (arguments, problem) in [
        (&["serve", "a"][..], "<--echo|--reply <JSON>|--exec <CMD>>"),
        (&["serve", "a", "--echo", "--reply", "1"], "cannot be used with"),
        (&["serve", "a", "--reply", "world"], "write a text in its quotes"),
        (&["serve", "a", "--echo", "--text"], "cannot be used with"),
        (&["serve", "a", "--reply", "1", "--exec-timeout", "1s"], "cannot be used with"),
        (&["broker"], "<NAME>"),
        (&["broker", "a", "--relay-rate", "1"], "--relay"),
        (&["punch"], "NAME|HOST:PORT"),
        (&["punch", "a", "--listen"], "cannot be used with"),
        (&["nat-check"], "--broker"),
        (&[&["nat-check"][..], &["--broker=127.0.0.1:1"; 9]].concat(), "these are 9 brokers: 8 at most are asked"),
    ] {
        assert_failed(&ran(grenache().args(arguments)), 2, problem);
    }
    let lost = ran(grenache().args(["serve", "a", "--echo", "--grape", "nobody.invalid:1"]));
    assert_failed(&lost, 5, "the name nobody.invalid cannot be resolved");
}

#[test]
fn a_service_is_reached_with_the_help_of_a_broker() {
    let grapes = Grapes::start(2);
    let (mut broker, port) = listening(&["broker", "helper", "--relay", "--grape", &grapes.api()]);
    broker.line("announced `helper`");
    let (_serving, _) =
        listening(&["serve", "hidden", "--echo", "--no-announce", "--broker", "helper", "--grape", &grapes.api()]);
    broker.line(" offers `hidden`");
    let by_address = format!("127.0.0.1:{port}");
    for broker in ["helper", &by_address] {
        let told = request(&grapes, &["hidden", "[1]", "--broker", broker, "--json"]);
        let told: Value = serde_json::from_str(result(&told)).expect("it is JSON");
        assert_eq!((&told["value"], &told["connection"]["service"]), (&json!([1]), &json!("hidden")), "{told}");
        assert!(told["connection"]["rung"].is_string(), "{told}");
    }
    let nobody = request(&grapes, &["nobody", "1", "--broker", "helper", "--timeout", "20s"]);
    assert_failed(&nobody, 5, "nobody: not reached");
    assert_failed(&request(&grapes, &["127.0.0.1:1", "1", "--broker", "helper"]), 2, "this is an address");
}

#[test]
fn a_broker_tells_peers_of_each_other_and_who_is_new() {
    let grapes = Grapes::start(2);
    let (mut broker, _) = listening(&["broker", "a_broker", "--grape", &grapes.api()]);
    broker.line("announced `a_broker`");
    let register = |server: bool| {
        let payload = json!({ "service": "a_service", "server": server }).to_string();
        let told = request(&grapes, &["a_broker", &payload]);
        serde_json::from_str::<Value>(result(&told)).expect("it is JSON")["a_service"].clone()
    };
    assert_eq!(register(true).as_object().map(serde_json::Map::len), Some(1));
    broker.line(" offers `a_service`");
    assert_eq!(register(false).as_object().map(serde_json::Map::len), Some(2));
    broker.line(" wants `a_service`");
    assert_failed(&request(&grapes, &["a_broker", "1"]), 1, "ERR_BROKER_PAYLOAD");
    assert_eq!(broker.end(Signal::TERM).code(), Some(0));
}

#[test]
fn who_punches_back_is_told() {
    let grapes = Grapes::start(2);
    let (mut waiting, port) = listening(&["punch", "--listen"]);
    let to = format!("localhost:{port}");
    let punched = ran(grenache().args(["punch", &to]));
    assert!(result(&punched).starts_with(&format!("punched by 127.0.0.1:{port} after ")), "{}", punched.stdout);
    waiting.line("punched by 127.0.0.1:");

    let announced = ran(grenache().args(["announce", "hole", &port.to_string(), "--grape", &grapes.api()]));
    assert_eq!(announced.code, Some(0), "{}", announced.stderr);
    let [from] = ports::free().expect("there are free ports");
    let arguments = ["punch", "hole", "--json", "--port", &from.to_string(), "--grape", &grapes.api()];
    let told = ran(grenache().args(arguments));
    let told: Value = serde_json::from_str(result(&told)).expect("it is JSON");
    assert_eq!(told["from"], format!("127.0.0.1:{port}"));
    waiting.line(&format!("punched by 127.0.0.1:{from} after "));
    assert_eq!(waiting.end(Signal::INT).code(), Some(0));
}

#[test]
fn a_punch_that_nobody_answers_is_told() {
    let silent = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let to = silent.local_addr().expect("it is bound").to_string();
    let late = ran(grenache().args(["punch", &to, "--timeout", "700ms"]));
    assert_failed(&late, 5, &format!("no punch came back from {to} within 700ms\nhelp: let the peer punch too"));
    // It was punched at once and half a second later, in the two bytes that the original knows.
    let mut datagram = [0; 8];
    for _ in 0..2 {
        let (length, _) = silent.recv_from(&mut datagram).expect("it was punched");
        assert_eq!(datagram[..length], [0xc3, 0xbf]);
    }
    let grapes = Grapes::start(2);
    let nobody = ran(grenache().args(["punch", "nobody", "--grape", &grapes.api()]));
    assert_failed(&nobody, 4, "nobody has announced `nobody`");
}

#[test]
fn who_listens_does_not_answer_for_ever() {
    let (mut waiting, port) = listening(&["punch", "--listen", "--bind", "127.0.0.1"]);
    let peer = UdpSocket::bind("127.0.0.1:0").expect("a port");
    peer.connect(("127.0.0.1", port)).expect("it is there");
    let own = format!("punched by {} ", peer.local_addr().expect("it is bound"));
    for _ in 0..7 {
        peer.send(&[0xc3, 0xbf]).expect("sent");
        waiting.line(&own);
    }
    // Answers are sent before a punch is told of.
    peer.set_nonblocking(true).expect("it can be");
    let mut answers = 0;
    until("five answers", || {
        while peer.recv(&mut [0; 8]).is_ok() {
            answers += 1;
        }
        (answers >= 5).then_some(())
    });
    let other = UdpSocket::bind("127.0.0.1:0").expect("a port");
    other.send_to(&[0xc3, 0xbf], ("127.0.0.1", port)).expect("sent");
    other.recv(&mut [0; 8]).expect("it is answered, after all that was for the first peer");
    while peer.recv(&mut [0; 8]).is_ok() {
        answers += 1;
    }
    assert_eq!(answers, 5);
}

#[test]
fn the_own_nat_is_told_by_two_brokers() {
    let grapes = Grapes::start(2);
    let [alternate] = ports::free().expect("there are free ports");
    let alternate = alternate.to_string();
    let (mut first, _) = listening(&[
        "broker",
        "first",
        "--bind",
        "127.0.0.1",
        "--alternate-port",
        &alternate,
        "--grape",
        &grapes.api(),
    ]);
    first.line("announced");
    let (_second, port) = listening(&["broker", "second", "--bind", "127.0.0.2", "--no-announce"]);
    let second = format!("127.0.0.2:{port}");
    let check =
        |more: &[&str]| ran(grenache().args(["nat-check", "--broker", "first", "--grape", &grapes.api()]).args(more));
    let told = check(&["--broker", &second]);
    assert_eq!(
        result(&told),
        "public address: 127.0.0.1\nmapping: no NAT\nfiltering: endpoint-independent\nports: preserved"
    );
    let told = check(&["--json"]);
    let told: Value = serde_json::from_str(result(&told)).expect("it is JSON");
    assert_eq!(
        (&told["mapping"], &told["alternate_port"]),
        (&json!("no-nat"), &json!(alternate.parse::<u16>().expect("a port")))
    );
    assert!(told["advice"].as_array().is_some_and(|advice| !advice.is_empty()), "one broker is not enough: {told}");

    let silent = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let to = silent.local_addr().expect("it is bound").to_string();
    let nobody = ran(grenache().args(["nat-check", "--broker", &to, "--timeout", "20s", "--wait", "100ms"]));
    assert_failed(&nobody, 5, "help: run some with `grenache broker`");
}
