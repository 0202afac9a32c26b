//! `grenache grapes`: Grapes in the background, brought up, shown and ended.

mod processes;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;

use grenache_sim::grapes::{node, ports, process};
use processes::{Process, Ran, call, ran, until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A place of its own to keep what is up; what is left over is ended with it.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("there is room for a folder"))
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = processes::grenache();
        command.env("XDG_STATE_HOME", self.0.path()).arg("grapes").args(arguments.split_whitespace());
        command
    }

    fn grapes(&self, arguments: &str) -> Ran {
        ran(&mut self.command(arguments))
    }

    /// `up` on free ports, with more arguments: the Grapes as JSON.
    fn up(&self, count: u16, more: &str) -> Vec<Value> {
        let up = self.grapes(&format!("up -n {count} --json {} {more}", two_bases(count)));
        assert_eq!(up.code, Some(0), "{}", up.stderr);
        rows(&up)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join("grenache").join(name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.grapes("down");
    }
}

fn rows(ran: &Ran) -> Vec<Value> {
    serde_json::from_str(&ran.stdout).expect("an array in JSON")
}

/// Free ports to count from.
fn two_bases(count: u16) -> String {
    let free = |base: &u16| {
        let mut all = *base..=base.saturating_add(count);
        all.all(|port| ports::udp_is_free(Ipv4Addr::LOCALHOST, port) && ports::tcp_is_free(Ipv4Addr::LOCALHOST, port))
    };
    let base = || until("some ports in a row are free", || ports::free::<1>().ok().map(|[base]| base).filter(free));
    format!("--dht-port {} --api-port {}", base(), base())
}

fn api(row: &Value) -> SocketAddr {
    let url = row["api"].as_str().expect("it has a URL");
    url.strip_prefix("http://").and_then(|address| address.parse().ok()).expect("it is a URL of HTTP")
}

fn pid(row: &Value) -> u32 {
    row["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("it has a process id")
}

/// A process that `down` will not find, killed where this is dropped.
struct Killed(u32);

impl Drop for Killed {
    fn drop(&mut self) {
        kill(self.0);
    }
}

fn kill(pid: u32) {
    let id = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(id, Signal::KILL).expect("it runs");
    until("it has ended", || process::started(pid).is_none().then_some(()));
}

#[test]
fn what_is_up_is_shown_works_and_is_ended() {
    let place = Place::new();
    assert_eq!(place.grapes("status").code, Some(1), "nothing is up");
    let up = place.up(3, "");
    assert_eq!(
        up.iter().map(|row| row["name"].as_str()).collect::<Vec<_>>(),
        ["grape-1", "grape-2", "grape-3"].map(Some)
    );
    assert_eq!(call(api(&up[0]), "announce", &json!(["a_service", 1337])), "2", "both others know it");
    assert_eq!(call(api(&up[2]), "lookup", &json!("a_service")), r#"["127.0.0.1:1337"]"#);

    let status = place.grapes("status");
    assert_eq!(status.code, Some(0), "{}", status.stdout);
    let lines: Vec<&str> = status.stdout.lines().collect();
    assert_eq!(lines.len(), 4);
    for (line, row) in lines[1..].iter().zip(&up) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (name, url) = (row["name"].as_str().expect("a name"), row["api"].as_str().expect("a URL"));
        assert_eq!(words, [name, "rust", "up", &row["dht_port"].to_string(), url, &pid(row).to_string()]);
    }
    assert_eq!(rows(&place.grapes("status --json")), up);

    let down = place.grapes("down");
    assert_eq!((down.code, down.stdout.as_str()), (Some(0), "ended 3 Grapes\n"));
    assert!(up.iter().all(|row| process::started(pid(row)).is_none()), "all have ended");
    assert!(!place.file("grapes.json").exists());
    let again = place.grapes("down");
    assert_eq!((again.code, again.stdout.as_str()), (Some(0), "no Grapes were up\n"));
    let log = fs::read_to_string(place.file("grape-1.log")).expect("the log is kept");
    assert!(log.contains("asked to end"), "it was not killed: {log}");
}

#[test]
fn what_died_is_shown_and_replaced() {
    let place = Place::new();
    let up = place.up(2, "");
    let refused = place.grapes("up");
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("grape-1 is up already: `grenache grapes down` ends it"), "{}", refused.stderr);

    kill(pid(&up[0]));
    let status = place.grapes("status --json");
    assert_eq!(status.code, Some(1));
    let shown = rows(&status);
    assert_eq!((&shown[0]["up"], &shown[0]["problem"]), (&json!(false), &json!("its process has ended")));
    assert_eq!(shown[1]["up"], json!(true));
    kill(pid(&up[1]));
    assert_eq!(place.up(1, "")[0]["name"], "grape-1", "what is dead is in nobody's way");
    assert_eq!(rows(&place.grapes("status --json")).len(), 1);
}

#[test]
fn a_process_that_only_has_the_id_is_not_touched() {
    let place = Place::new();
    let up = place.up(1, "");
    let _ended = Killed(pid(&up[0]));
    // Moments are told apart by hundredths of a second.
    let other = until("another process starts later", || {
        let other = Process::start(Command::new("sleep").arg("1000"));
        (process::started(other.pid()) != process::started(pid(&up[0]))).then_some(other)
    });
    // As after a restart of the machine: the id is somebody else's.
    let file = place.file("grapes.json");
    let text = fs::read_to_string(&file).expect("it is there");
    fs::write(&file, text.replace(&pid(&up[0]).to_string(), &other.pid().to_string())).expect("written");
    let shown = place.grapes("status");
    assert!(shown.stdout.contains("its process has ended"), "{}", shown.stdout);
    assert_eq!(place.grapes("down").code, Some(0));
    assert!(process::started(other.pid()).is_some(), "it runs on");
}

#[test]
fn sets_of_other_names_are_beside_each_other() {
    let place = Place::new();
    let (first, second) = (place.up(1, ""), place.up(2, "--name other"));
    assert_eq!(second[1]["name"], "other-2");
    assert_eq!(rows(&place.grapes("status --json")).len(), 3);
    assert_eq!(rows(&place.grapes("status --json --name other")), second);
    let down = place.grapes("down --name other --json");
    assert_eq!(serde_json::from_str::<Value>(&down.stdout).expect("JSON"), json!({ "ended": ["other-1", "other-2"] }));
    assert_eq!(rows(&place.grapes("status --json")), first);
}

#[test]
fn a_grape_that_cannot_start_ends_the_others_and_says_why() {
    let place = Place::new();
    let bases = two_bases(2);
    // An address that is no machine's own: the port there counts as in use.
    let refused = place.grapes(&format!("up --bind 192.0.2.1 {bases}"));
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);

    // One whose log cannot be written, after the first has started.
    fs::create_dir_all(place.file("grape-2.log")).expect("made");
    let failed = place.grapes(&format!("up -n 2 {bases}"));
    assert_eq!(failed.code, Some(1), "{}", failed.stderr);
    assert!(
        failed.stderr.contains("cannot use the log file") && failed.stderr.contains("grape-2.log"),
        "{}",
        failed.stderr
    );
    assert!(failed.stderr.contains("none of these Grapes is left running"), "{}", failed.stderr);
    assert!(!place.file("grapes.json").exists(), "nothing is up");
    let [dht, _] = base_ports(&bases);
    assert!(ports::udp_is_free(Ipv4Addr::LOCALHOST, dht), "the first one is gone");
}

fn base_ports(bases: &str) -> [u16; 2] {
    let numbers: Vec<u16> = bases.split(' ').filter_map(|word| word.parse().ok()).collect();
    numbers.try_into().expect("two ports")
}

#[test]
fn ctrl_c_ends_what_was_started() {
    let place = Place::new();
    let bases = two_bases(2);
    let [dht, _] = base_ports(&bases);
    // The second one starts from a silent socket and waits for it: nobody answers there, and none is ever ready.
    fs::create_dir_all(place.file("")).expect("made");
    let script = place.file("never.js");
    fs::write(&script, "setInterval(() => {}, 1000)").expect("written");
    let folder = place.file("bin");
    fs::create_dir_all(&folder).expect("made");
    executable(&folder.join("node"), "#!/bin/sh\nexec sleep 1000\n");
    let mut command = place.command(&format!("up -n 2 --kind mixed {bases}"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([folder].into_iter().chain(std::env::split_paths(&path))).expect("a PATH");
    command.env(node::VARIABLE, &script).env("PATH", path);
    let up = Process::start(&mut command);
    let started = until("both are noted", || {
        let text = fs::read_to_string(place.file("grapes.json")).ok()?;
        let entries: Vec<Value> = serde_json::from_str(&text).ok()?;
        (entries.len() == 2).then_some(entries)
    });
    let busy = place.grapes("down");
    assert_eq!(busy.code, Some(1));
    assert!(busy.stderr.contains("another `grenache grapes` is at work"), "{}", busy.stderr);

    assert_eq!(up.end(Signal::INT).code(), Some(1));
    for entry in started {
        let pid = entry["on"]["process"]["pid"].as_u64().expect("a process id");
        assert_eq!(process::started(u32::try_from(pid).expect("a process id")), None);
    }
    assert!(!place.file("grapes.json").exists());
    assert!(ports::udp_is_free(Ipv4Addr::LOCALHOST, dht));
}

fn executable(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("it is ours");
}

#[test]
fn a_late_grape_is_told_with_its_log() {
    let place = Place::new();
    fs::create_dir_all(place.file("bin")).expect("made");
    let script = place.file("grape.js");
    fs::write(&script, "").expect("written");
    for (program, patience, message) in [
        (
            "#!/bin/sh\necho a reason >&2\nexit 7\n",
            30,
            "grape-1 ended by itself (exit status: 7); its log ends with\n  a reason",
        ),
        (
            "#!/bin/sh\necho waiting >&2\nexec sleep 1000\n",
            1,
            "grape-1 is not ready after 1s; its log ends with\n  waiting",
        ),
    ] {
        executable(&place.file("bin/node"), program);
        let mut command = place.command(&format!("up -n 1 --kind node --timeout {patience} {}", two_bases(1)));
        let path = format!("{}:{}", place.file("bin").display(), std::env::var("PATH").unwrap_or_default());
        let failed = ran(command.env(node::VARIABLE, &script).env("PATH", path));
        assert_eq!(failed.code, Some(1));
        assert!(failed.stderr.contains(message), "{}", failed.stderr);
    }
}

#[test]
fn what_is_missing_is_told() {
    let place = Place::new();
    let missing = ran(place.command("up --kind node").env(node::VARIABLE, "/nowhere/grape.js"));
    assert_eq!(missing.code, Some(2));
    assert!(missing.stderr.contains("set it to the path of grenache-grape's bin/grape.js"), "{}", missing.stderr);

    let [dht] = ports::free().expect("there are free ports");
    let _taken = UdpSocket::bind(("127.0.0.1", dht)).expect("it is free");
    let taken = place.grapes(&format!("up --dht-port {dht}"));
    assert_eq!(taken.code, Some(2));
    assert!(
        taken.stderr.contains(&format!("UDP port {dht} is in use: choose another with --dht-port")),
        "{}",
        taken.stderr
    );

    let nowhere = ran(place.command("status").env_remove("XDG_STATE_HOME").env_remove("HOME"));
    assert_eq!(nowhere.code, Some(1));
    assert!(nowhere.stderr.contains("set HOME or XDG_STATE_HOME"), "{}", nowhere.stderr);
}

#[test]
#[ignore = "needs Node.js: npm ci --prefix tests/interop"]
fn both_kinds_know_each_other() {
    let place = Place::new();
    let up = place.up(3, "--kind mixed");
    assert_eq!(up.iter().map(|row| row["kind"].as_str()).collect::<Vec<_>>(), ["rust", "node", "rust"].map(Some));
    for (row, port) in up.iter().zip(1337..) {
        assert_eq!(call(api(row), "announce", &json!([format!("service-{port}"), port])), "2");
    }
    for row in &up {
        for port in 1337..1340 {
            assert_eq!(call(api(row), "lookup", &json!(format!("service-{port}"))), format!("[\"127.0.0.1:{port}\"]"));
        }
    }
    assert_eq!(place.grapes("down").stdout, "ended 3 Grapes\n");
}
