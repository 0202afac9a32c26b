//! The examples, as processes on loopback beside two embedded Grapes: each pair finds each other and ends.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::SystemTime;

use grenache::grape::Grape;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout};
use tokio::time::timeout;

use common::grapes::two_grapes;
use common::{PATIENCE, Recorder};

mod common;

const FIBONACCI: &str = "answer: [1, 1, 2, 3, 5, 8, 13, 21, 34, 55]";

const NAMES: [&str; 9] = [
    "simple_server",
    "simple_client",
    "punch_server",
    "punch_client",
    "public_server",
    "nat_server",
    "broker",
    "broker_worker",
    "broker_client",
];

/// Where the examples are. Where cargo was asked for this test alone it has built none, or long ago: then they are built.
fn examples() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        let profile = test.ancestors().nth(2).expect("a test is at <target>/<profile>/deps");
        let project = Path::new(env!("CARGO_MANIFEST_DIR"));
        let sources = ["src", "examples"].map(|folder| newest(&project.join(folder))).into_iter().max().unwrap();
        if NAMES
            .iter()
            .any(|name| changed(&profile.join("examples").join(name)).is_none_or(|built| Some(built) < sources))
        {
            build(project, profile);
        }
        profile.join("examples")
    })
}

fn build(project: &Path, profile: &Path) {
    let name = profile.file_name().and_then(|name| name.to_str()).unwrap();
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--package", "grenache", "--examples", "--manifest-path"])
        .arg(project.join("Cargo.toml"))
        .args(["--profile", if name == "debug" { "dev" } else { name }, "--target-dir"])
        .arg(profile.parent().unwrap())
        .status();
    assert!(built.expect("cargo runs").success(), "the examples do not build: see above");
}

fn changed(file: &Path) -> Option<SystemTime> {
    file.metadata().and_then(|metadata| metadata.modified()).ok()
}

/// When a file of a folder was last changed.
fn newest(folder: &Path) -> Option<SystemTime> {
    let entries = folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
    entries.filter_map(|entry| if entry.is_dir() { newest(&entry) } else { changed(&entry) }).max()
}

/// A running example. It ends with this.
struct Example {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
    name: &'static str,
}

fn run(name: &'static str, grape: &Grape) -> Example {
    assert!(NAMES.contains(&name));
    let api: SocketAddr = grape.api_addr();
    let mut process = tokio::process::Command::new(examples().join(name))
        .arg(api.to_string())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|e| panic!("{name}: {e}"));
    let lines = BufReader::new(process.stdout.take().unwrap()).lines();
    Example { process, lines, name }
}

impl Example {
    /// Reads on until a line that begins so.
    async fn says(&mut self, beginning: &str) {
        let mut said = Vec::new();
        let reading = async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                said.push(line);
                if said.last().unwrap().starts_with(beginning) {
                    return true;
                }
            }
            false
        };
        let found = timeout(PATIENCE, reading).await.unwrap_or(false);
        assert!(found, "{} does not say {beginning:?}, but {said:#?}", self.name);
    }

    async fn ends(mut self) {
        let ended = timeout(PATIENCE, self.process.wait()).await.expect("an end in time").unwrap();
        assert!(ended.success(), "{}: {ended}", self.name);
    }

    /// As Ctrl-C does.
    async fn interrupted(self) {
        let process = self.process.id().expect("it runs").to_string();
        let sent = Command::new("kill").args(["-INT", &process]).status();
        assert!(sent.unwrap().success());
        self.ends().await;
    }
}

#[tokio::test]
async fn simple() {
    let (first, second) = two_grapes(&Recorder::new().1).await;
    let mut server = run("simple_server", &first);
    server.says("ready: rpc_test on port ").await;
    let mut client = run("simple_client", &second);
    client.says(r#"answer: "world""#).await;
    client.ends().await;
    server.says("127.0.0.1:").await;
    server.interrupted().await;
}

#[tokio::test]
async fn punching_a_public_server() {
    let (first, second) = two_grapes(&Recorder::new().1).await;
    let mut server = run("punch_server", &first);
    server.says("ready: fibonacci_worker on port ").await;
    let mut client = run("punch_client", &second);
    server.says("127.0.0.1:").await;
    client.says("127.0.0.1:").await;
    client.says(FIBONACCI).await;
    client.ends().await;
}

#[tokio::test]
async fn a_public_server_and_one_behind_a_nat() {
    let (first, second) = two_grapes(&Recorder::new().1).await;
    let mut public = run("public_server", &first);
    public.says("ready: fibonacci_consumer on port ").await;
    let mut behind_nat = run("nat_server", &second);
    behind_nat.says("punching [127.0.0.1:").await;
    public.says("127.0.0.1:").await;
    public.says(FIBONACCI).await;
    public.ends().await;
}

#[tokio::test]
async fn a_broker_with_a_worker_and_a_client() {
    let (first, second) = two_grapes(&Recorder::new().1).await;
    let mut broker = run("broker", &first);
    broker.says("ready: fibo_broker on port ").await;
    let mut worker = run("broker_worker", &second);
    worker.says("ready: ").await;
    let mut client = run("broker_client", &second);
    client.says("127.0.0.1:").await;
    client.says(FIBONACCI).await;
    client.ends().await;
    worker.says("127.0.0.1:").await;
    broker.interrupted().await;
}
