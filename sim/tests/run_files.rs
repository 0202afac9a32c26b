//! What `grenache run --out` leaves behind: the capture as tshark reads it, the report as Chromium shows it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use grenache_sim::backend::{self, On, RunOptions, Spectator};
use grenache_sim::event::Record;
use grenache_sim::scenario;
use tempfile::TempDir;

/// The files of a run.
const FILES: [&str; 3] = ["events.jsonl", "capture.pcapng", "report.html"];

fn scenarios() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios")
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("there is room for a folder")
}

/// Runs a file with `--out`, whatever its verdict, and gives the folder of its files.
fn run(folder: &TempDir, file: &Path) -> PathBuf {
    let mut command = Command::new(env!("CARGO_BIN_EXE_grenache"));
    let output = command.arg("run").arg("--out").arg(folder.path()).arg(file).output().expect("it can be started");
    assert!(output.status.code().is_some_and(|code| code < 2), "{}", String::from_utf8_lossy(&output.stderr));
    let name = file.file_stem().expect("files have names").to_string_lossy().into_owned();
    folder.path().join(format!("{name}-1"))
}

#[test]
fn the_same_run_leaves_the_same_files() {
    for name in ["broker-both-nat-lossy", "partition-heals", "slow-line"] {
        let (first, second) = (folder(), folder());
        let path = scenarios().join(name).with_extension("toml");
        let (first, second) = (run(&first, &path), run(&second, &path));
        for file in FILES {
            let read = |folder: &Path| fs::read(folder.join(file)).expect("the file is there");
            let (one, other) = (read(&first), read(&second));
            assert!(one.len() > 1000, "{name}/{file} has something in it");
            assert!(one == other, "{name}/{file} differs between two processes");
        }
    }
}

/// Keeps the events that are in event logs.
struct Plain {
    wants_all: bool,
    events: Rc<RefCell<(Vec<Record>, usize)>>,
}

impl Spectator for Plain {
    fn event(&mut self, record: &Record) {
        let mut events = self.events.borrow_mut();
        if record.is_sample() {
            events.1 += 1;
        } else {
            events.0.push(record.clone());
        }
    }

    fn wants_packets(&self) -> bool {
        self.wants_all
    }

    fn wants_samples(&self) -> bool {
        self.wants_all
    }
}

#[test]
fn being_watched_changes_nothing() {
    let scenario = scenario::load(&scenarios().join("slow-line.toml")).expect("it is a scenario");
    let watch = |wants_all| {
        let events = Rc::default();
        let spectator = Plain { wants_all, events: Rc::clone(&events) };
        backend::watch(&scenario, &RunOptions { seed: 3, on: On::Sim }, spectator).expect("it runs");
        events.take()
    };
    let ((plain, none), (watched, samples)) = (watch(false), watch(true));
    assert_eq!(none, 0, "who asks for no samples gets none");
    assert!(samples > 100, "{samples} samples of queues and connections");
    assert!(plain == watched, "the events are the same");
}

#[test]
fn results_are_written_as_junit_too() {
    let folder = folder();
    let file = folder.path().join("results.xml");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_grenache"));
        command.arg("run").args(arguments).arg(scenarios().join("two-grapes.toml")).output().expect("it can be started")
    };
    let path = file.to_str().expect("the path is UTF-8");
    assert_eq!(run(&["--junit", path, "--seeds", "0..3"]).status.code(), Some(0));
    let text = fs::read_to_string(&file).expect("it was written");
    assert!(text.contains("tests=\"3\" skipped=\"0\" failures=\"0\" errors=\"0\""), "{text}");
    assert!(text.contains("<testcase name=\"two-grapes seed 2\""), "{text}");
    let stdout = String::from_utf8(run(&["--junit", "-"]).stdout).expect("it is UTF-8");
    assert!(stdout.starts_with("<?xml ") && stdout.ends_with("</testsuites>\n"), "{stdout}");
    let both = run(&["--junit", "-", "--json", "-"]);
    assert_eq!((both.status.code(), both.stdout.len()), (Some(2), 0));
}

// ---- tshark

/// Reads a capture with tshark: a line a packet that `filter` takes, with `fields`.
fn tshark(capture: &Path, filter: &str, fields: &[&str]) -> Vec<Vec<String>> {
    let mut command = Command::new("tshark");
    command.arg("-r").arg(capture);
    // As the README says.
    command.args(["--enable-heuristic", "bt_utp_udp", "--disable-protocol", "bittorrent"]);
    for check in ["ip", "udp", "tcp"] {
        command.args(["-o", &format!("{check}.check_checksum:TRUE")]);
    }
    command.args(["-Y", filter, "-T", "fields"]);
    for field in fields {
        command.args(["-e", field]);
    }
    let output = command.output().expect("tshark can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("tshark writes UTF-8");
    text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

#[test]
#[ignore = "needs tshark"]
fn tshark_dissects_the_capture_as_utp() {
    let folder = folder();
    // The worker has several sockets there, whose connections are closed.
    let capture = run(&folder, &scenarios().join("connect-both-symmetric.toml")).join("capture.pcapng");

    let mut types = BTreeMap::new();
    for row in tshark(&capture, "bt-utp", &["bt-utp.type"]) {
        *types.entry(row[0].clone()).or_insert(0) += 1;
    }
    eprintln!("µTP packets by type (0 DATA, 1 FIN, 2 STATE, 4 SYN): {types:?}");
    for (number, name) in [("0", "DATA"), ("1", "FIN"), ("2", "STATE"), ("4", "SYN")] {
        assert!(types.contains_key(number), "no {name} in {types:?}");
    }
    assert!(tshark(&capture, "bt-dht", &["frame.number"]).len() > 10, "the Grapes' DHT is dissected");
    assert!(tshark(&capture, "http.request.uri == \"/lookup\"", &["frame.number"]).len() > 1, "and their HTTP API");
    // Everything that is µTP is dissected as such: what is left of UDP are punches, and messages in JSON.
    let rest = tshark(&capture, "udp && !bt-utp && !bt-dht", &["data.data"]);
    let message = hex::encode(r#"{"grenache":"#);
    let unknown: Vec<_> = rest.iter().filter(|row| row[0] != "c3bf" && !row[0].starts_with(&message)).collect();
    assert!(unknown.is_empty(), "{} of {}: {:?}", unknown.len(), rest.len(), unknown.first());

    let malformed = tshark(&capture, "_ws.malformed || _ws.short", &["frame.number", "_ws.col.Info"]);
    assert!(malformed.is_empty(), "{malformed:?}");
    let bad = tshark(
        &capture,
        "ip.checksum.status != \"Good\" || udp.checksum.status != \"Good\" || tcp.checksum.status != \"Good\"",
        &["frame.number", "_ws.col.Info"],
    );
    assert!(bad.is_empty(), "{bad:?}");
}

#[test]
#[ignore = "needs tshark"]
fn tshark_shows_each_side_and_each_fate() {
    let folder = folder();
    let files = run(&folder, &scenarios().join("broker-both-nat.toml"));
    let capture = files.join("capture.pcapng");
    let rows = tshark(&capture, "frame", &["frame.interface_name", "frame.time_epoch", "frame.comment", "frame.len"]);
    let sides: std::collections::BTreeSet<&str> = rows.iter().map(|row| row[0].as_str()).collect();
    let expected = ["cafe (inside)", "cafe (outside)", "home (inside)", "home (outside)", "laptop", "phone", "server"];
    assert_eq!(sides.into_iter().collect::<Vec<_>>(), expected);
    assert!(rows.iter().all(|row| row[2].starts_with("packet ")), "each packet has its comment");
    let filtered = "dropped at nat home: filtered: nothing was sent from port";
    assert!(rows.iter().any(|row| row[2].contains(filtered)), "a punch that came too early is told of");
    assert!(rows.iter().any(|row| row[2].contains(": translated to ")), "and so are translations");

    // As often as the event log says, each drop is in a comment, and each time is the log's.
    let log = fs::read_to_string(files.join("events.jsonl")).expect("the log is there");
    let events: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect();
    let sent: Vec<&serde_json::Value> = events.iter().filter(|event| event["event"] == "packet-sent").collect();
    assert!(!sent.is_empty());
    for event in sent {
        let (at, packet) = (event["at_ns"].as_u64().expect("a time"), &event["packet"]);
        let at = format!("{}.{:09}", at / 1_000_000_000, at % 1_000_000_000);
        let row = rows.iter().find(|row| row[2].starts_with(&format!("packet {packet}:"))).expect("it was captured");
        assert_eq!((row[0].as_str(), row[1].as_str()), (event["at"].as_str().expect("a node"), at.as_str()));
        assert_eq!(row[3], event["size"].to_string(), "packet {packet}");
    }
}

// ---- Chromium

/// Opens a page as a person would, and gives what its document has come to, and what was asked of the network.
fn open(page: &Path) -> (String, Vec<String>) {
    let folder = folder();
    let log = folder.path().join("net.json");
    let output = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"])
        .args(["--disable-component-update", "--disable-extensions", "--disable-sync", "--no-first-run"])
        // Nothing leaves this machine, and what would is in the log all the same.
        .args(["--host-resolver-rules=MAP * ~NOTFOUND", "--window-size=1280,900", "--virtual-time-budget=10000"])
        .arg(format!("--user-data-dir={}", folder.path().join("profile").display()))
        .arg(format!("--log-net-log={}", log.display()))
        .arg("--dump-dom")
        .arg(format!("file://{}", page.display()))
        .output()
        .expect("chromium can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let log = fs::read_to_string(&log).expect("there is a log");
    let mut asked: Vec<String> = log
        .split("\"url\":\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .filter(|url| !url.starts_with("file:") && !url.starts_with("data:"))
        // What the browser asks its makers, whatever page is open.
        .filter(|url| !["google.com/", "googleapis.com/", "gvt1.com/"].iter().any(|maker| url.contains(maker)))
        .map(str::to_owned)
        .collect();
    asked.sort();
    asked.dedup();
    (String::from_utf8(output.stdout).expect("a document is UTF-8"), asked)
}

#[test]
#[ignore = "needs Chromium"]
fn chromium_draws_the_report_and_asks_nobody() {
    let folder = folder();
    let page = run(&folder, &scenarios().join("broker-both-nat.toml")).join("report.html");
    let (document, asked) = open(&page);
    assert_eq!(asked, [""; 0], "no request leaves");
    assert!(document.contains("data-drawn=\"yes\""), "the script ran to its end");
    // Expectations first, then packets, then what is over time.
    let place = |text: &str| document.find(text).unwrap_or_else(|| panic!("{text:?} is not shown"));
    assert!(place("phone is punched by laptop, within 15s") < place("id=\"sequence\""));
    assert!(place("id=\"sequence\"") < place("id=\"timeline\""));
    assert!(document.contains(">met</b> after 3.010 s"), "the moment that decided it");
    for lane in ["phone", "cafe", "server", "home", "laptop"] {
        assert!(document.contains(&format!("class=\"name\">{lane}</text>")), "{lane} has a lane");
    }
    assert_eq!(document.matches("class=\"packet punch").count(), 16, "each punch is an arrow");
    assert!(document.matches("class=\"packet utp").count() >= 30);
    assert!(document.matches("class=\"cross\"").count() >= 13, "each drop has a cross");
    for reason in [">filtered</text>", ">no mapping for port 57118</text>"] {
        assert!(document.contains(reason), "a drop says why: {reason}");
    }
    let story = "dropped at nat home: filtered: nothing was sent from port";
    assert!(document.contains(story), "and the whole of it for who points there");
    for chart in ["Expectations and faults", "NAT mappings", "Goodput", "Congestion window", "Round-trip time"] {
        assert!(document.contains(&format!("<b>{chart}</b>")), "{chart}");
    }
    assert!(document.contains("<td>198.51.100.10:57117</td>"), "a mapping is in the table");
    assert!(document.contains("grenache run --seed 1 "), "and the command that does it again");
}

#[test]
#[ignore = "needs Chromium"]
fn chromium_draws_queues_and_folds_what_is_too_much() {
    let folder = folder();
    let page = run(&folder, &scenarios().join("slow-line.toml")).join("report.html");
    let (document, asked) = open(&page);
    assert_eq!(asked, [""; 0], "no request leaves");
    assert!(document.contains("<b>Queues</b>") && document.contains("link dsl of home, up"));
    assert!(document.contains("more µTP packets between laptop and server"), "what is alike is folded");
    assert!(document.contains(" folded"), "and the note says so");
    assert!(document.contains("×3,000"), "three thousand questions are one mark");
}

#[test]
#[ignore = "needs Chromium"]
fn chromium_shows_a_fault_and_what_was_not_met() {
    let folder = folder();
    let text = fs::read_to_string(scenarios().join("partition-heals.toml")).expect("it is there");
    // Too early for the partition to have healed.
    let path = folder.path().join("too-early.toml");
    let hostile = "<img src='http://198.51.100.99/a.png'>";
    let text = text.replacen("description = \"", &format!("description = \"{hostile} "), 1);
    let last = text.rfind("within = ").expect("something is expected");
    fs::write(&path, format!("{}within = \"6s\"\n", &text[..last])).expect("the folder is writable");
    let (document, asked) = open(&run(&folder, &path).join("report.html"));
    assert_eq!(asked, [""; 0], "no request leaves, whatever a file says");
    assert!(document.contains("&lt;img src='http://198.51.100.99/a.png'&gt;"), "a file's text is text");
    assert!(document.contains("class=\"missed\"") && document.contains("not within 6s"), "why it is not met");
    assert!(document.contains("✂ partition of "), "the fault is on the time axis");
    assert!(document.contains(">partition</text>"), "and what it took");
}

#[test]
#[ignore = "needs Chromium"]
fn a_request_would_be_seen() {
    let folder = folder();
    let page = folder.path().join("page.html");
    fs::write(&page, "<!DOCTYPE html><img src='http://198.51.100.99/a.png'>").expect("the folder is writable");
    assert_eq!(open(&page).1, ["http://198.51.100.99/a.png"]);
}
