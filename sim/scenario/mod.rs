//! Scenario files: which hosts there are, what runs on them, what goes wrong, and what must happen.
//!
//! A file is TOML, and strict: an unknown key, an undefined name or a number without its unit is an error that says
//! where it is and what would be right. Durations are written `"20ms"` (us, ms, s, min, h), probabilities `"0.5%"`,
//! rates `"50 Mbit/s"` (bit/s, kbit/s, Mbit/s, Gbit/s), sizes `"256 KiB"` (B, kB, MB, GB, KiB, MiB, GiB). Names of
//! nodes, NATs and links are of letters, digits, `-` and `_`.
//!
//! | above the tables | default | |
//! |---|---|---|
//! | `description` | empty | one line for people |
//! | `seed` | 1 | of all randomness; the command line's `--seed` goes before |
//! | `time-limit` | `"60s"` | the run ends here at the latest |
//! | `within` | none | of expectations that have no `within` of their own |
//! | `uplink` | 1 ms each way and nothing else | the link of nodes and NATs on the internet that name none |
//! | `extends` | none | another file, or `["a.toml", "b.toml"]`, seen from this file's folder: see below |
//! | `remove` | none | what of the extended files is not to be there: `["node.NAME", "program.NAME", "expect"]` |
//!
//! | `[nat.NAME]` | default | |
//! |---|---|---|
//! | `kind` | none | a familiar name that sets the keys below: see the next table; further keys override |
//! | `address` | the next free in 198.51.100.0/24, or in the LAN it is behind | its outer address |
//! | `addresses` | | several of them, in place of `address`; up to 256 |
//! | `lan` | `"192.168.1.0/24"` | the network behind it; two NATs may have the same |
//! | `behind` | the internet | the NAT that it is behind |
//! | `link` | 1 ms each way and nothing else | its uplink |
//! | `mapping` | `"endpoint-independent"` | or `"address-dependent"`, `"address-and-port-dependent"` (RFC 4787, 4.1) |
//! | `filtering` | `"address-and-port-dependent"` | or `"address-dependent"`, `"endpoint-independent"` (RFC 4787, 5) |
//! | `ports` | `"preserving"` | or `"contiguous"`, `"random"`, `"overloading"` (RFC 4787, 4.2.1) |
//! | `port-range` | `"1024-65535"`, and lower ones where they are preserved | the external ports (RFC 4787, 4.2.1) |
//! | `keep-port-range` | `false` | ports below 1024 for those below 1024, and only for those (RFC 4787, REQ-3) |
//! | `parity` | `false` | even ports for even ones, odd ports for odd ones (RFC 4787, 4.2.2) |
//! | `pooling` | `"paired"` | an address for each host; or `"arbitrary"`, one for each mapping (RFC 4787, 4.1); needs `addresses` |
//! | `udp-timeout` | `"120s"` | how long a mapping lives unused (RFC 4787, 4.3) |
//! | `tcp-timeout` | `"124min"` | the same of TCP (RFC 5382, 5) |
//! | `refresh` | `"outbound"` | what uses it; or `"inbound"`, `"both"` (RFC 4787, 4.3) |
//! | `hairpinning` | `false` | whether hosts behind it reach each other by their outer addresses (RFC 4787, 6): `true` or `"external-source"`, `"internal-source"` |
//! | `mappings-per-host` | as many as there are ports | the most that a host may have (RFC 6888, REQ-4) |
//! | `when-full` | `"refuse"` | what becomes of a host's next one; or `"replace-oldest"`; needs `mappings-per-host` |
//! | `port-blocks` | none | `{ size = 256, per-host = 4 }`: a host gets its ports in blocks (RFC 6888, REQ-14); `per-host = 1` |
//! | `forward` | none | `[{ port = 80, to = "NODE:PORT", protocol = "udp" }]`: ports that are forwarded for ever; or `"IP:PORT"`, `"tcp"` |
//! | `nat-pmp` | `false` | whether hosts can ask it for forwards (RFC 6886): see the program `"forward"` |
//! | `forwards-per-host` | 32 | the most of these that a host may have; needs `nat-pmp` |
//! | `forward-lifetime` | `"2h"` | the longest that one lives without being asked for again; needs `nat-pmp` |
//! | `lan6` | no IPv6 | the IPv6 network behind it, routed without translation, such as `"2001:db8:1::/64"`; behind another NAT a part of that one's |
//! | `count` | one | how many of it there are: see populations |
//! | `firewall` | with `lan6` one for IPv6 alone with every default, else none | a firewall's name, or `"off"`; it sees the addresses of the inside |
//!
//! | `kind` | stands for |
//! |---|---|
//! | `"full-cone"` | endpoint-independent mapping and filtering |
//! | `"restricted-cone"` | endpoint-independent mapping, address-dependent filtering |
//! | `"port-restricted-cone"` | endpoint-independent mapping, address-and-port-dependent filtering |
//! | `"symmetric"` | address-and-port-dependent mapping and filtering, random ports |
//! | `"port-preserving-symmetric"` | the same with preserved ports |
//! | `"cgn"` | a carrier's as RFC 6888 asks for: LAN 100.64.0.0/10, full cone, random ports in up to 4 blocks of 256 for each host, up to 1024 mappings for each, hairpinning |
//! | `"one-to-one"` | an outer address for each host behind it, in the file's order, and no mappings: nothing of ports, lifetimes and limits applies |
//!
//! | `[link.NAME]` | default | |
//! |---|---|---|
//! | `latency` | `"0ms"` | one way |
//! | `jitter` | `"0ms"` | a packet takes latency ± jitter; packets may overtake each other |
//! | `loss` | `"0%"` | of packets, each on its own |
//! | `rate` | none | bits a second |
//! | `queue` | `"256 KiB"` | what waits for the rate; needs `rate` |
//!
//! | `[node.NAME]` | default | |
//! |---|---|---|
//! | `address` | the next free in 203.0.113.0/24, or in the LAN it is behind (from its second host on) | |
//! | `behind` | the internet | the NAT that it is behind; or one of several, by chance: `{ home = "70%", office = "20%", none = "10%" }` |
//! | `link` | 1 ms each way and nothing else | to the internet, or to its LAN |
//! | `address6` | none; behind a NAT with `lan6` the next free there | its IPv6 address; with it and without `address` the node has no IPv4 |
//! | `count` | one | how many of it there are: see populations |
//! | `firewall` | none | the name of the firewall between it and its network |
//!
//! | `[firewall.NAME]` | default | lets out everything, and in what belongs to a flow (RFC 6092) |
//! |---|---|---|
//! | `filtering` | `"address-and-port-dependent"` | who may answer what was sent from an inside port; `"address-dependent"`; `"endpoint-independent"`, as RFC 6092 recommends for transparency |
//! | `udp-timeout` | `"120s"` | how long a UDP flow lives without a packet in either direction |
//! | `tcp-timeout` | `"124min"` | the same of TCP |
//! | `allow` | `[]` | inside ports, of UDP and TCP, that anybody may send to |
//! | `block-udp` | `false` | lets no UDP through, in either direction |
//! | `ipv4` | `true` | whether it filters IPv4 as well |
//!
//! | `[[program]]` | default | |
//! |---|---|---|
//! | `name` | none | for files that extend this one; `[[fault]]` and `[[expect]]` may have one too |
//! | `node`, `run` | required | where, and what: see the next table |
//! | `start` | `"0s"` | when |
//! | `grape` | the first Grape on the same node | whose API it uses: a node's name (its first Grape) or `"IP:PORT"`; not for `grape` |
//!
//! | `run` | keys, with defaults |
//! |---|---|
//! | `"grape"` | `dht-port`, `api-port` required; `bootstrap = ["NODE:PORT", "IP:PORT"]`, none; `kind = "rust"`, or `"node"`, `"container"` |
//! | `"announce"` | `service`, `port` required |
//! | `"lookup"` | `service` required; `every = "1s"`, until it is found |
//! | `"broker"` | `service` required; `port = 0` (any); `alternate-port`, none (peers learn from it what their NATs do); `relay = false` |
//! | `"worker"` | `service` required; `port = 0` (any); one of `answer = "echo"` (or `"fibonacci"`), `reply = VALUE`, `error = "MESSAGE"`; `announce = true`; `punches = "SERVICE"`; `broker = "SERVICE"`, and with it `connect = false`; `ipv6 = false` (whether its socket is for both kinds of addresses) |
//! | `"client"` | `service`, `payload` required; `port = 0` (any); how it reaches the service: nothing (it looks it up), `punch = true`, `announce = "NAME"` (it waits for a punch), `at = "NODE:PORT"` (or `"IP:PORT"`, `"[IPv6]:PORT"`: no lookup, and no Grape is needed), or `broker = "SERVICE"`, and with it `connect = false`; `requests = 1`; `timeout = "10s"`; `retries = 10` |
//! | `"stun-server"` | `port = 3478`; `alternate-port = 3479`; `partner`, the node with the server that answers from another address (RFC 5780) |
//! | `"nat-probe"` | `server = "NODE:PORT"` required, a STUN server with a partner; `longest-lifetime`, how long to wait for the end of a mapping, none; `mapping`, `filtering`, `ports`, what must be found, as under `[nat.NAME]` |
//! | `"forward"` | `port` required, to be forwarded by the NAT that the node is behind; `external-port`, the same; `protocol = "udp"`; `lifetime = "2h"`, asked for again and again |
//!
//! A Grape's `kind` swaps the original's in: `"node"` is the npm package grenache-grape on Node.js as a process
//! ([`crate::grapes::node`] says where it is looked for), `"container"` is the same in a container. Both need
//! `--on loopback`; the simulator refuses them.
//!
//! A worker's or client's `broker` and a client's `service` are offered by a program of the file; what is looked up
//! is announced by one.
//!
//! With `connect = true` on both, client and worker find a way by themselves: direct, punches, predicted ports, many
//! ports, or a broker that relays. They learn what their NATs do from all brokers of the name; two on different nodes,
//! each with an `alternate-port`, tell all of it.
//!
//! A client's `timeout` spans one try of a request, with its lookup and its connection, but not the wait for a punch.
//! `retries` is how often the requests that failed, be it with a worker's error, are sent again: half a second later,
//! from the lookup or the wait for a punch on. All `requests` are sent at once, and each has its own answer.
//!
//! A node's name in a client's `at` stands for the node's IPv6 address where both have one, else for its IPv4 address.
//! The DHT is of IPv4: what is found by a lookup or through a broker is reached over IPv4.
//!
//! A node's name in `bootstrap`, `grape` and `found.address` stands for its address as it is seen from where it is
//! used: its own on the same network, else that of the outermost NAT between.
//!
//! | `[[fault]]` | |
//! |---|---|
//! | `at` | when it begins |
//! | `for` | how long it goes on; without end where left out. Not for `rebind` and `restart` |
//! | `every` | when it begins again, from its beginning; longer than `for` |
//! | `times` | how often in all; until `time-limit` where left out |
//! | one of `partition = [["a"], ["b", "c"]]` | no packet passes between the two groups of nodes |
//! | `rebind = "NAT"` | it forgets its mappings |
//! | `reboot = "NAT"` | it and its firewall forget everything, and no packet passes until the fault ends; without `for` it is back at once |
//! | `crash = "NODE"` | it loses everything; where the fault ends, it starts again with its programs |
//! | `restart = "NODE"` | a node that crashed for good starts again |
//! | `pause = "NODE"` | its programs do not run; packets fill its sockets' buffers, and its timers go off late |
//! | `down = "NODE"` or `"NAT"` | its link takes no packet in either direction; what is on it already arrives |
//! | `degrade = { node = "NODE" or nat = "NAT", latency = "0ms", jitter = "0ms", loss = "0%", rate = none }` | its link gets worse in both directions: as though a second link of these values stood behind it |
//! | `clock = { node = "NODE", skew = "0ms", drift = "0ppm" }` | its clock is ahead (behind, where negative), and gains so many µs a second |
//! | `move = { node = "NODE", behind = the internet, address, address6, link = its own }` | it is elsewhere until the fault ends: behind that NAT, or on the internet; without `address` with the next free one |
//! | `outage = "NODE"` | its Grape stops, and starts anew where the fault ends |
//!
//! Faults compose, and each ends only what it brought about: a link is up when no fault holds it down, a node that
//! moved twice is where its latest move that goes on has it, degradations add up.
//!
//! A node's sockets stay bound where it moves: those to all addresses send from the new one. A clock that is wrong is
//! the one that µTP takes its timestamps from, by which its peers measure one-way delays (RFC 6817, 4.4), and nothing
//! else: all nodes share the virtual clock that timers go by.
//!
//! | `[[expect]]` | |
//! |---|---|
//! | `within` | by when, from the beginning of the run |
//! | `after` | from when on: what happened before does not count; `"0s"` where left out |
//! | one of `reply = { from = "NODE", to = "NODE", value = VALUE, path = "WAY", count = 1 }` | a client's request was answered; all but `to` may be left out. In place of `value`, `contains = VALUE`: of a table these keys, of an array these items, of a text this part |
//! | `reached = { at = "NODE", by = "NODE", path = "WAY" }` | a client's request was answered, be it with the worker's error (`at` and `path` may be left out) |
//! | `failed = { to = "NODE", error = "TEXT" }` | a client's request ended in an error with this in its message (`error` may be left out) |
//! | `punched = { at = "NODE", by = "NODE" }` | a punch arrived (`by` may be left out) |
//! | `found = { at = "NODE", service = "NAME", address = "NODE:PORT" }` | a lookup found the name (`address` may be left out) |
//! | `percentile = { of = "MEASURE", to = "NODE", p95 = "200ms" }` | of a node's requests; `p50`, `p75`, `p90`, `p95`, `p99`, `p999`, `max`, at least one of them |
//! | `bytes = { through = "NAME", at-most = "10 kB" }` | `at-least`, `at-most` or both, of the node's or NAT's packets, with their headers |
//! | `never = { … }` | what may stand here does not happen |
//! | `all = [{ … }, …]`, `any = [{ … }, …]` | all of these, or at least one of them; each may have `after` and `within` of its own |
//!
//! The first five may have a `count`: `3` and `">=3"` are at least so often, `"=3"` exactly, `"<=3"` at most. What has an
//! upper bound is met at `within` at the earliest, and so is `never`; it fails in the moment that it is broken.
//!
//! A `path` is the way that a request went: `"relayed"` through a broker's relay; `"punched"` to an address that the client's
//! node was punched from, or that its connector punched; else `"direct"`. A connector's first rung is direct, be there punches
//! besides.
//!
//! A `MEASURE` is `"latency"`, from a request's first transmission to its reply; `"answer"`, from the start of the node's
//! (first) client to a reply, with lookups, punches and retries; or `"connect"`, from there to the first way that a client
//! with `connect = true` found. A percentile is of all requests that the node's clients are to make: those that are never
//! answered are slower than all others. It is decided as soon as enough of them have ended.
//!
//! # Populations
//!
//! `[node.peer]` with `count = 500` is `peer-1` to `peer-500`, and so is a NAT's; at most 60,000 each. In the texts of such a
//! table, and of programs and faults that name it (`node = "peer"`, `crash = "peer"`), which are there once for each,
//! `{n}` is the number. `peer-7` is behind `home-7` where both `peer` and `home` have the same `count`, and all are behind
//! the one NAT where that has none. Their public addresses are in 198.18.0.0/16, and those of NATs in 198.19.0.0/16.
//!
//! Where `behind` is a table, each node is behind one of its NATs with that probability, or on the internet: `none`. The
//! shares are 100% together. Which it is follows from the seed and the node's name alone, so that one more node changes no
//! other's. NATs with a `count` that nobody was drawn for are there and idle.
//!
//! An expectation about a population is met when each member meets it, or with `share = "95%"` so many of them, rounded up.
//! As the other side (`from`, `by`, `at`), any one member will do. A percentile is of all their requests together.
//!
//! # Files that extend others
//!
//! A file with `extends` is the other file, changed. Its keys above the tables and in `[nat.NAME]`, `[link.NAME]` and
//! `[node.NAME]` replace those of the same name there. Its `[[program]]`, `[[fault]]` and `[[expect]]` are added; one with
//! the `name` of one there replaces its keys instead. What is extended comes first, several files one after the other; one
//! that is met twice counts once. At most 8 files in a row and 32 in all.
//!
//! `#:schema scenario.schema.json` in the first line has editors complete and check the file: [`schema`] is that schema,
//! and `grenache schema` prints it.
//!
//! # The end of a run
//!
//! A run ends as soon as every expectation is decided, met or not, and at `time-limit` at the latest: a fault or a
//! program that would begin later never does. Without expectations it goes on until `time-limit`.
//!
//! ```
//! let scenario = grenache_sim::scenario::parse("lonely.toml", r#"
//!     [node.server]
//!     address = "157.81.109.241"
//!
//!     [[program]]
//!     node = "server"
//!     run = "grape"
//!     dht-port = 20001
//!     api-port = 30001
//! "#)?;
//! assert_eq!(scenario.name, "lonely");
//! assert_eq!(scenario.seed, 1);
//!
//! let error = grenache_sim::scenario::parse("typo.toml", "[node.server]\nadress = \"157.81.109.241\"").unwrap_err();
//! assert_eq!(error.to_string(), "typo.toml:2:1: unknown key `adress`");
//! # Ok::<(), grenache_sim::scenario::LoadError>(())
//! ```

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

mod draw;
mod error;
mod expectation;
pub(crate) mod fault;
mod firewall;
mod flat;
pub mod model;
mod nat;
mod offers;
mod population;
mod probing;
mod program;
mod raw;
mod read;
mod schema;
mod six;
mod sources;
mod topology;
mod units;

pub use error::{LoadError, Problem};
pub use flat::flat;
pub use model::Scenario;
pub use schema::schema;

pub use draw::Draws;

use error::Problems;

/// The seed of a file that names none.
const DEFAULT_SEED: u64 = 1;

/// The time limit of a file that names none.
const DEFAULT_TIME_LIMIT: Duration = Duration::from_secs(60);

/// Loads a scenario from a file, which also gives it its name.
///
/// # Errors
/// Where the file cannot be read, or is not a scenario that holds together.
pub fn load(path: &Path) -> Result<Scenario, LoadError> {
    let text = fs::read_to_string(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
    parse(&path.display().to_string(), &text)
}

/// Reads a scenario from text. `file` is how errors call it; without folders and extension it is the scenario's name, and
/// its folder is where files that it extends are looked for.
///
/// # Errors
/// Where the text is not a scenario that holds together.
pub fn parse(file: &str, text: &str) -> Result<Scenario, LoadError> {
    parse_at(Path::new(file), file, text)
}

/// As [`parse`], where `path` is the file and `called` how errors call it: a text that was changed since it was read.
///
/// # Errors
/// As those of [`parse`].
pub fn parse_at(path: &Path, called: &str, text: &str) -> Result<Scenario, LoadError> {
    let mut problems = Problems::new(called, text);
    let raw = read::read(&mut problems, path)?;
    let seed = raw.head.seed.map_or(DEFAULT_SEED, |seed| seed.0);
    let scenario = assemble(&mut problems, &raw, seed)?;
    let name = path.file_stem().map_or_else(|| called.to_owned(), |stem| stem.to_string_lossy().into_owned());
    let draws = Draws::of(&raw).then(|| Draws { seed, from: Arc::new((raw, problems)) });
    Ok(Scenario { name, draws, ..scenario })
}

/// Makes a scenario of a file's tables; what is drawn is drawn for this seed.
fn assemble(problems: &mut Problems, raw: &raw::File, seed: u64) -> Result<Scenario, LoadError> {
    let time_limit = raw.head.time_limit.as_ref().map_or(DEFAULT_TIME_LIMIT, |limit| limit.get_ref().0);
    if let Some(limit) = &raw.head.time_limit
        && time_limit.is_zero()
    {
        problems.add(limit.span(), "a scenario needs some time: `time-limit` is more than 0s");
    }
    let topology = topology::topology(problems, raw, seed);
    let programs = program::programs(problems, raw, &topology, time_limit);
    offers::check_offers(problems, raw);
    let faults = fault::faults(problems, raw, &topology, time_limit);
    let expectations = expectation::expectations(problems, raw, &topology, time_limit);
    problems.check()?;
    Ok(Scenario {
        name: String::new(),
        description: raw.head.description.clone().unwrap_or_default(),
        seed: raw.head.seed.map_or(DEFAULT_SEED, |seed| seed.0),
        time_limit,
        nats: topology.nats,
        links: topology.links,
        nodes: topology.nodes,
        programs,
        faults,
        expectations,
        draws: None,
    })
}
