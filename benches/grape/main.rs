//! Our Grape beside the original's, in one run: each kind is a DHT of processes that know each other, two or ten, of
//! which one is asked by the same client over 16 keep-alive connections.
//!
//! `cargo bench --bench grape`. The original needs Node.js and `npm ci --prefix tests/interop`; without them its rows
//! are left out, which is said. Compare the rows of one run with each other; the table at the end does.

use std::path::PathBuf;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures_util::future::join_all;
use grenache_sim::grapes::process::{GrapeProcess, Programs};
use grenache_sim::grapes::{GrapeKind, GrapeSpec, node, ports};
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::Instant;

mod ceiling;
mod http;
mod table;

use http::{Connection, call};
use table::Table;

/// How many connections carry the calls.
const CONNECTIONS: usize = 16;

/// How many calls a pipelining client has in flight on each.
const PIPELINE: usize = 32;

/// How many names are announced and looked up, one after the other.
const NAMES: usize = 500;

/// How many peers and how many values one Grape holds where its memory is looked at.
const STORED: usize = 10_000;

/// How long a Grape may take to be there.
const PATIENCE: Duration = Duration::from_secs(20);

/// How many Grapes the larger DHT has.
const MANY: usize = 10;

/// Grapes of one kind that know each other.
struct Dht {
    grapes: Vec<GrapeProcess>,
    _logs: TempDir,
}

fn programs() -> Programs {
    Programs { grenache: Some(PathBuf::from(env!("CARGO_BIN_EXE_grenache"))) }
}

fn spec(kind: GrapeKind) -> GrapeSpec {
    let [dht, api] = ports::free().expect("free ports");
    GrapeSpec::new("bench", kind, dht, api).quiet()
}

impl Dht {
    async fn start(kind: GrapeKind, count: usize) -> Self {
        let logs = tempfile::tempdir().expect("a folder for logs");
        let limit = STORED.to_string();
        let mut specs = Vec::new();
        for _ in 0..count {
            let known = specs.iter().map(GrapeSpec::dht).collect();
            let spec = spec(kind).option("--dht_maxTables", &limit).option("--dht_maxValues", &limit);
            specs.push(spec.bootstrap(known));
        }
        let mut grapes = Vec::new();
        for (number, spec) in specs.into_iter().enumerate() {
            let log = logs.path().join(number.to_string());
            let mut grape = GrapeProcess::start(spec, &programs(), &log).expect("a Grape");
            grape.ready(PATIENCE).await.expect("a Grape that answers");
            grapes.push(grape);
        }
        let dht = Self { grapes, _logs: logs };
        // Until each finds all the others; a name is announced anew to those that a search found before.
        let start = Instant::now();
        for grape in &dht.grapes {
            let mut connection = Connection::open(grape.spec().api()).await;
            let mut tries = 0;
            while ask(&mut connection, "/announce", json!([format!("ready {tries}"), 1])).await
                != (count - 1).to_string()
            {
                tries += 1;
                assert!(start.elapsed() < PATIENCE, "{} {kind} Grapes do not find each other", count);
            }
        }
        dht
    }

    /// Where the HTTP API of one is.
    fn api(&self, number: usize) -> std::net::SocketAddr {
        self.grapes[number].spec().api()
    }
}

/// One call; gives its answer.
async fn ask(connection: &mut Connection, path: &str, data: serde_json::Value) -> String {
    let mut answer = String::new();
    connection.send(&call(path, &data), 1, |body| answer = String::from_utf8_lossy(body).into_owned()).await;
    answer
}

/// The kinds that this machine can run.
fn kinds() -> Vec<GrapeKind> {
    match node::find() {
        Ok(_) => vec![GrapeKind::Rust, GrapeKind::Node],
        Err(missing) => {
            eprintln!("the original's rows are left out: {missing}");
            vec![GrapeKind::Rust]
        }
    }
}

/// What a row is called.
fn row(kind: GrapeKind) -> &'static str {
    match kind {
        GrapeKind::Rust => "ours",
        GrapeKind::Node => "original",
    }
}

/// Makes every call once, spread over the connections, with so many in flight on each.
async fn round(connections: &mut [Connection], calls: &[Vec<u8>], in_flight: usize, answered: fn(&[u8]) -> bool) {
    let share = calls.len().div_ceil(connections.len());
    join_all(connections.iter_mut().zip(calls.chunks(share)).map(|(connection, calls)| async move {
        for batch in calls.chunks(in_flight) {
            let look = |body: &[u8]| assert!(answered(body), "answered {}", String::from_utf8_lossy(body));
            connection.send(&batch.concat(), batch.len(), look).await;
        }
    }))
    .await;
}

/// Lookups and announces a second.
fn rates(criterion: &mut Criterion, runtime: &Runtime, kinds: &[GrapeKind], table: &Table) {
    let call_each = |path: &str, data: &dyn Fn(usize) -> serde_json::Value| -> Vec<Vec<u8>> {
        (0..NAMES).map(|n| call(path, &data(n))).collect()
    };
    let announces = call_each("/announce", &|n| json!([format!("service {n}"), 1024 + n]));
    let lookups = call_each("/lookup", &|n| json!(format!("service {n}")));
    let announced: fn(&[u8]) -> bool = |body| body == b"1" || body == (MANY - 1).to_string().as_bytes();
    let found: fn(&[u8]) -> bool = |body| body.starts_with(b"[\"") && body.ends_with(b"\"]");
    for (what, calls, answered) in [("announces", &announces, announced), ("lookups", &lookups, found)] {
        for (how, in_flight, grapes) in [("", 1, 2), (", pipelined", PIPELINE, 2), (", ten Grapes", 1, MANY)] {
            let name = format!("{what}{how}");
            let mut group = criterion.benchmark_group(&name);
            group.throughput(Throughput::Elements(NAMES as u64)).sample_size(20).measurement_time(PATIENCE / 4);
            let mut measure = |row: &str, server, answered| {
                let mut connections = runtime.block_on(join_all((0..CONNECTIONS).map(|_| Connection::open(server))));
                group.bench_function(row, |bencher| {
                    bencher.iter_custom(|rounds| {
                        let start = Instant::now();
                        for _ in 0..rounds {
                            runtime.block_on(round(&mut connections, calls, in_flight, answered));
                        }
                        table.rate(&name, row, NAMES as u64 * rounds, start.elapsed())
                    });
                });
            };
            for kind in kinds {
                let dht = runtime.block_on(Dht::start(*kind, grapes));
                let server = dht.api(0);
                let mut connections = runtime.block_on(join_all((0..CONNECTIONS).map(|_| Connection::open(server))));
                runtime.block_on(round(&mut connections, &announces, 1, announced));
                measure(row(*kind), server, answered);
            }
            measure("answers only", ceiling::start(), |_| true);
        }
    }
}

/// From an announce at one Grape until it is found at the other.
fn announce_to_found(criterion: &mut Criterion, runtime: &Runtime, kinds: &[GrapeKind], table: &Table) {
    let mut group = criterion.benchmark_group("announce to found");
    group.sample_size(20);
    for kind in kinds {
        let dht = runtime.block_on(Dht::start(*kind, 2));
        let (mut near, mut far) =
            runtime.block_on(async { (Connection::open(dht.api(0)).await, Connection::open(dht.api(1)).await) });
        let mut number = 0;
        group.bench_function(row(*kind), |bencher| {
            bencher.iter_custom(|rounds| {
                (0..rounds)
                    .map(|_| {
                        number += 1;
                        let name = format!("new {number}");
                        let start = Instant::now();
                        runtime.block_on(async {
                            assert_eq!(ask(&mut near, "/announce", json!([name, 1])).await, "1");
                            while ask(&mut far, "/lookup", json!(name)).await == "[]" {}
                        });
                        table.time("announce to found", row(*kind), start.elapsed())
                    })
                    .sum()
            });
        });
    }
}

/// From the start of a process to its first answer.
fn start_to_first_answer(criterion: &mut Criterion, runtime: &Runtime, kinds: &[GrapeKind], table: &Table) {
    let mut group = criterion.benchmark_group("start to first answer");
    group.sample_size(10);
    let logs = tempfile::tempdir().expect("a folder for logs");
    for kind in kinds {
        group.bench_function(row(*kind), |bencher| {
            bencher.iter_custom(|rounds| {
                (0..rounds)
                    .map(|_| {
                        let spec = spec(*kind);
                        let start = Instant::now();
                        let log = logs.path().join("log");
                        let mut grape = GrapeProcess::start(spec, &programs(), &log).expect("a Grape");
                        runtime.block_on(async {
                            let stream = loop {
                                match TcpStream::connect(grape.spec().api()).await {
                                    Ok(stream) => break stream,
                                    Err(error) => assert!(start.elapsed() < PATIENCE, "{error}: {:?}", grape.status()),
                                }
                            };
                            assert_eq!(ask(&mut Connection::on(stream), "/lookup", json!("x")).await, "[]");
                        });
                        table.time("start to first answer", row(*kind), start.elapsed())
                    })
                    .sum()
            });
        });
    }
}

/// Resident memory: idle, and with much stored.
fn memory(runtime: &Runtime, kinds: &[GrapeKind], table: &Table) {
    for kind in kinds {
        let dht = runtime.block_on(Dht::start(*kind, 2));
        let resident = || table::resident(dht.grapes[0].pid());
        table.bytes("idle memory", row(*kind), resident());
        // 5,000 names of two peers each, and as many values as peers, all through the second and so at the first.
        let announces: Vec<_> =
            (0..STORED).map(|n| call("/announce", &json!([format!("service {}", n / 2), 1024 + n % 2]))).collect();
        let puts: Vec<_> = (0..STORED).map(|n| call("/put", &json!({"v": format!("{n:0>100}")}))).collect();
        runtime.block_on(async {
            let server = dht.api(1);
            let mut connections = join_all((0..CONNECTIONS).map(|_| Connection::open(server))).await;
            round(&mut connections, &announces, 1, |body| body == b"1").await;
            round(&mut connections, &puts, 1, |body| body.len() == 42).await;
        });
        table.bytes("10,000 peers, 10,000 values", row(*kind), resident());
    }
}

fn grape(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (kinds, table) = (kinds(), Table::default());
    rates(criterion, &runtime, &kinds, &table);
    announce_to_found(criterion, &runtime, &kinds, &table);
    start_to_first_answer(criterion, &runtime, &kinds, &table);
    memory(&runtime, &kinds, &table);
    eprintln!("\n{table}");
}

criterion_group!(benches, grape);
criterion_main!(benches);
