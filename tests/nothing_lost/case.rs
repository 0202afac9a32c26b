//! What a run consists of: the path, the requests and the faults, all drawn by proptest.

use std::time::Duration;

use proptest::prelude::*;

/// How many servers there are.
pub(crate) const SERVERS: usize = 2;

/// When the last request begins and the last fault strikes.
const SPAN_MS: u64 = 8_000;

/// One run.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) seed: u64,
    pub(crate) path: Path,
    /// Whether the client is behind a NAT.
    pub(crate) behind: bool,
    pub(crate) transports: usize,
    pub(crate) pipeline: usize,
    pub(crate) asks: Vec<Ask>,
    pub(crate) faults: Vec<(Duration, Fault)>,
    /// Whether endpoints are closed at the end, or only dropped.
    pub(crate) close: bool,
}

/// What happens to packets between clients and servers. Jitter reorders.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Path {
    pub(crate) loss: u32,
    pub(crate) duplication: u32,
    pub(crate) latency: Duration,
    pub(crate) jitter: Duration,
}

/// One request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask {
    pub(crate) at: Duration,
    /// A server, or one that the Grape knows.
    pub(crate) to: Option<usize>,
    /// Bytes of the request's payload and of the reply's.
    pub(crate) sizes: (usize, usize),
    pub(crate) answer: Answer,
    /// How long the handler takes.
    pub(crate) think: Duration,
    pub(crate) timeout: Duration,
    pub(crate) retries: u32,
    /// When its future is dropped.
    pub(crate) cancel: Option<Duration>,
}

/// What the handler does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Result,
    Error,
    /// It drops the request.
    Nothing,
}

/// Something that goes wrong.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// The host is gone for so long, and what it knew for ever.
    CrashServer(usize, Duration),
    CrashClient(Duration),
    CrashGrape(Duration),
    /// The server is dropped, the endpoint and its socket are not; another takes its place.
    DropServer(usize, Duration),
    /// The same, but it ends in good order.
    StopServer(usize, Duration),
    /// Client and server do not reach each other.
    Partition(usize, Duration),
    /// The client's NAT forgets its mappings.
    Rebind,
}

fn ms(range: std::ops::Range<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(Duration::from_millis)
}

fn path() -> impl Strategy<Value = Path> {
    let loss = prop_oneof![2 => Just(0), 3 => 0..8u32, 1 => 8..25u32];
    let duplication = prop_oneof![Just(0), 0..25u32];
    (loss, duplication, ms(0..80), ms(0..80)).prop_map(|(loss, duplication, latency, jitter)| Path {
        loss,
        duplication,
        latency,
        jitter,
    })
}

fn ask() -> impl Strategy<Value = Ask> {
    let size = || prop_oneof![4 => 0..600usize, 2 => 600..3_000usize, 1 => 3_000..60_000usize];
    let answer = prop_oneof![6 => Just(Answer::Result), 2 => Just(Answer::Error), 1 => Just(Answer::Nothing)];
    let to = prop_oneof![2 => (0..SERVERS).prop_map(Some), 1 => Just(None)];
    let think = prop_oneof![Just(Duration::ZERO), ms(0..1_500)];
    let timeout = prop_oneof![1 => ms(0..200), 3 => ms(200..7_000)];
    let cancel = prop_oneof![6 => Just(None), 1 => ms(0..2_000).prop_map(Some)];
    (ms(0..SPAN_MS), to, (size(), size()), answer, think, timeout, 0..4u32, cancel).prop_map(
        |(at, to, sizes, answer, think, timeout, retries, cancel)| Ask {
            at,
            to,
            sizes,
            answer,
            think,
            timeout,
            retries,
            cancel,
        },
    )
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        3 => (0..SERVERS, ms(0..3_000)).prop_map(|(server, time)| Fault::CrashServer(server, time)),
        1 => ms(0..3_000).prop_map(Fault::CrashClient),
        2 => ms(0..5_000).prop_map(Fault::CrashGrape),
        1 => (0..SERVERS, ms(0..3_000)).prop_map(|(server, time)| Fault::DropServer(server, time)),
        1 => (0..SERVERS, ms(0..3_000)).prop_map(|(server, time)| Fault::StopServer(server, time)),
        2 => (0..SERVERS, ms(0..5_000)).prop_map(|(server, time)| Fault::Partition(server, time)),
        2 => Just(Fault::Rebind),
    ]
}

pub(crate) fn case() -> impl Strategy<Value = Case> {
    let asks = prop::collection::vec(ask(), 1..30);
    let faults = prop::collection::vec((ms(0..SPAN_MS), fault()), 0..5);
    let pipeline = prop_oneof![Just(usize::MAX), 1..4usize];
    (any::<u64>(), path(), any::<bool>(), 1..4usize, pipeline, asks, faults, any::<bool>()).prop_map(
        |(seed, path, behind, transports, pipeline, asks, faults, close)| Case {
            seed,
            path,
            behind,
            transports,
            pipeline,
            asks,
            faults,
            close,
        },
    )
}
