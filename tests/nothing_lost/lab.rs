//! Two servers with a Grape each, a client and its Grape on simulated hosts, and what a case does to them.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use grenache::event::Event;
use grenache::grape::{Grape, GrapeConfig};
use grenache::link::{Announcing, Link, LinkConfig};
use grenache::net::Net;
use grenache::rpc::{ClientConfig, PeerRpcClient, PeerRpcServer, RequestOptions, RequestParts, RpcError, ServerConfig};
use grenache::transport::{Endpoint, EndpointConfig};
use grenache_sim::engine::{Live, Sim, World};
use grenache_sim::scenario;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::case::{Answer, Ask, Case, Fault, SERVERS};
use crate::faulty::{Events, Faulty};

/// The service's name.
const KEY: &str = "echo";

const PORT: u16 = 1337;
const API: u16 = 30_001;
const DHT: u16 = 20_001;

/// After how long unused the client's connections close.
const INACTIVITY: Duration = Duration::from_secs(20);

/// By when everything is gone once the last handle is dropped: µTP's linger, and the wait for a FIN and after it.
const GONE_AFTER: Duration = Duration::from_secs(75);

/// How long a closed endpoint may take.
const CLOSED_AFTER: Duration = Duration::from_secs(7);

/// What became of a request.
#[derive(Debug, Clone)]
pub(crate) enum Fate {
    /// It ended, this long after its beginning.
    Ended(Result<Value, RpcError>, Duration),
    /// Its future was dropped.
    Cancelled,
}

/// A request as a handler saw it.
#[derive(Debug, Clone)]
pub(crate) struct Handled {
    pub(crate) ask: usize,
    pub(crate) server: usize,
    pub(crate) rid: String,
    /// Whether the payload was what was sent.
    pub(crate) intact: bool,
}

/// What a run has shown.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    /// By request; several where one ended more than once.
    pub(crate) fates: BTreeMap<usize, Vec<Fate>>,
    /// Which requests were under way, or to be made, when the client's host was down.
    pub(crate) orphaned: Vec<usize>,
    pub(crate) handled: Vec<Handled>,
    pub(crate) client_events: Vec<Event>,
    /// What each server answered when all faults were over.
    pub(crate) afterwards: Vec<Result<Value, RpcError>>,
    /// Connections of the client's pool after its inactivity timeout.
    pub(crate) pooled: usize,
    /// What was alive at the end, by host.
    pub(crate) left: Vec<(&'static str, Live)>,
}

type Fates = Arc<Mutex<BTreeMap<usize, Vec<Fate>>>>;
type Log = Arc<Mutex<Vec<Handled>>>;

/// The text that stands for a payload: `size` bytes that tell whose they are.
pub(crate) fn pad(ask: usize, size: usize) -> String {
    format!("{ask:04}é").chars().cycle().take(size).collect()
}

const SERVER_NODES: [&str; SERVERS] = ["server0", "server1"];
const NODES: [&str; 4] = ["client", "grape", "server0", "server1"];

fn server_address(server: usize) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, 10 + server as u8], PORT))
}

fn grape_address(port: u16) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, 20], port))
}

/// The Grapes know each other by the servers' ones.
async fn start_grape(net: &Net) -> Grape {
    let known = (0..SERVERS).map(|server| SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 10 + server as u8), DHT));
    let known = known.chain([SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 20), DHT)]);
    let config = GrapeConfig::default().dht_address(any(DHT)).api_address(any(API)).bootstrap(known.collect());
    Grape::start(net, config).await.unwrap()
}

fn any(port: u16) -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], port))
}

/// The topology.
fn sim(case: &Case) -> Sim {
    let path = case.path;
    let client = if case.behind { "behind = \"home\"" } else { "address = \"203.0.113.1\"\nlink = \"path\"" };
    let text = format!(
        "[link.path]\nlatency = \"{}ms\"\njitter = \"{}ms\"\nloss = \"{}%\"\n\
         [nat.home]\naddress = \"198.51.100.1\"\nmapping = \"endpoint-independent\"\n\
         filtering = \"address-and-port-dependent\"\nlink = \"path\"\n\
         [node.client]\n{client}\n\
         [node.server0]\naddress = \"203.0.113.10\"\nlink = \"path\"\n\
         [node.server1]\naddress = \"203.0.113.11\"\nlink = \"path\"\n\
         [node.grape]\naddress = \"203.0.113.20\"\n\
         [[program]]\nnode = \"grape\"\nrun = \"grape\"\ndht-port = 1\napi-port = 1\n",
        path.latency.as_millis(),
        path.jitter.min(path.latency).as_millis(),
        path.loss,
    );
    let scenario = scenario::parse("nothing-lost", &text).unwrap_or_else(|e| panic!("{e:?}\n{text}"));
    Sim::new(case.seed, &scenario.nats, &scenario.links, &scenario.nodes).unwrap()
}

/// Runs a case.
pub(crate) fn run(case: &Case) -> Shown {
    let case = case.clone();
    sim(&case).run(Duration::from_secs(600), async |world| Lab::new(world, case).play().await).expect("it ends in time")
}

struct Serving {
    endpoint: Endpoint,
    server: Option<PeerRpcServer>,
    _announcing: Announcing,
    _grape: Grape,
}

struct Asking {
    endpoint: Endpoint,
    client: PeerRpcClient,
}

struct Lab {
    world: World,
    case: Case,
    serving: [Option<Serving>; SERVERS],
    asking: Option<Asking>,
    grape: Option<Grape>,
    fates: Fates,
    log: Log,
    events: Events,
    orphaned: Vec<usize>,
}

/// What the lab does at a time.
#[derive(Debug, Clone, Copy)]
enum Act {
    Ask(usize),
    Fault(usize),
    /// The end of a fault.
    Mend(usize),
}

impl Lab {
    fn new(world: World, case: Case) -> Self {
        Self {
            world,
            case,
            serving: Default::default(),
            asking: None,
            grape: None,
            fates: Fates::default(),
            log: Log::default(),
            events: Events::default(),
            orphaned: Vec::new(),
        }
    }

    async fn play(mut self) -> Shown {
        self.start_grape().await;
        for server in 0..SERVERS {
            self.start_server(server).await;
        }
        self.start_client();
        self.found_by_name().await;
        self.events.lock().unwrap().clear();

        let begun = Instant::now();
        let mut acts: Vec<(Duration, Act)> = Vec::new();
        acts.extend(self.case.asks.iter().enumerate().map(|(nth, ask)| (ask.at, Act::Ask(nth))));
        for (nth, (at, fault)) in self.case.faults.iter().enumerate() {
            let lasts = match fault {
                Fault::CrashServer(_, time) | Fault::CrashClient(time) | Fault::CrashGrape(time) => *time,
                Fault::DropServer(_, time) | Fault::StopServer(_, time) | Fault::Partition(_, time) => *time,
                Fault::Rebind => Duration::ZERO,
            };
            acts.push((*at, Act::Fault(nth)));
            acts.push((*at + lasts, Act::Mend(nth)));
        }
        acts.sort_by_key(|(at, _)| *at);
        let mut partitions = BTreeMap::new();
        for (at, act) in acts {
            sleep_until(begun + at).await;
            match act {
                Act::Ask(nth) => self.ask(nth),
                Act::Fault(nth) => match self.case.faults[nth].1 {
                    Fault::CrashServer(server, _) => {
                        self.world.crash(SERVER_NODES[server]);
                        self.serving[server] = None;
                    }
                    Fault::CrashClient(_) => self.crash_client(),
                    Fault::CrashGrape(_) => {
                        self.world.crash("grape");
                        self.grape = None;
                    }
                    Fault::DropServer(server, _) => {
                        if let Some(serving) = &mut self.serving[server] {
                            serving.server = None;
                        }
                    }
                    Fault::StopServer(server, _) => {
                        let stopping = self.serving[server].as_mut().and_then(|serving| serving.server.take());
                        if let Some(stopping) = stopping {
                            self.world.spawn(SERVER_NODES[server], stopping.stop());
                        }
                    }
                    Fault::Partition(server, _) => {
                        let group = |node: &str| [node.into()];
                        partitions.insert(nth, self.world.partition(&group("client"), &group(SERVER_NODES[server])));
                    }
                    Fault::Rebind => self.world.rebind("home"),
                },
                Act::Mend(nth) => match self.case.faults[nth].1 {
                    Fault::CrashServer(server, _) => self.start_server(server).await,
                    Fault::CrashClient(_) => self.start_client(),
                    Fault::CrashGrape(_) => self.start_grape().await,
                    Fault::DropServer(server, _) | Fault::StopServer(server, _) => {
                        let serve = self.serve(server);
                        if let Some(serving) = &mut self.serving[server] {
                            serving.server = Some(serve(&serving.endpoint));
                        }
                    }
                    Fault::Partition(..) => {
                        partitions.remove(&nth).into_iter().for_each(|partition| self.world.heal(partition));
                    }
                    Fault::Rebind => {}
                },
            }
        }
        self.wind_up().await
    }

    /// The requests end, then the connections, then all else.
    async fn wind_up(mut self) -> Shown {
        let longest = self.case.asks.iter().map(|ask| ask.timeout).max().unwrap_or_default();
        sleep(longest + Duration::from_secs(1)).await;
        let client_events = self.events.lock().unwrap().clone();
        let mut afterwards = Vec::new();
        if let Some(asking) = &self.asking {
            for server in 0..SERVERS {
                let options = RequestOptions::default().timeout(Duration::from_secs(20)).retries(3);
                let payload = json!({ "ask": usize::MAX });
                afterwards.push(asking.client.request_at_with(server_address(server), KEY, &payload, options).await);
            }
        }
        // Twice: a connection that was made for the last request may have been used until now.
        sleep(2 * INACTIVITY).await;
        let pooled = self.asking.as_ref().map_or(0, |asking| asking.client.transports());
        self.grape = None;
        let mut endpoints = Vec::new();
        endpoints.extend(self.asking.take().map(|asking| asking.endpoint));
        endpoints.extend(self.serving.iter_mut().filter_map(Option::take).map(|serving| serving.endpoint));
        if self.case.close {
            for endpoint in &endpoints {
                timeout(CLOSED_AFTER, endpoint.close()).await.expect("an endpoint closes in time");
            }
        }
        drop(endpoints);
        let deadline = Instant::now() + GONE_AFTER;
        let left = |world: &World| -> Vec<_> {
            let all = NODES.map(|node| (node, world.live(node)));
            all.into_iter().filter(|(_, live)| !live.is_nothing()).collect()
        };
        while !left(&self.world).is_empty() && Instant::now() < deadline {
            sleep(Duration::from_millis(500)).await;
        }
        Shown {
            fates: std::mem::take(&mut self.fates.lock().unwrap()),
            orphaned: self.orphaned,
            handled: std::mem::take(&mut self.log.lock().unwrap()),
            client_events,
            afterwards,
            pooled,
            left: left(&self.world),
        }
    }

    async fn start_grape(&mut self) {
        self.world.start("grape");
        if self.grape.is_none() {
            self.grape = Some(start_grape(&self.world.network("grape")).await);
        }
    }

    async fn start_server(&mut self, server: usize) {
        let node = SERVER_NODES[server];
        self.world.start(node);
        if self.serving[server].is_some() {
            return;
        }
        let net = Faulty::over(self.world.network(node), self.case.path.duplication, &Events::default());
        let endpoint = Endpoint::bind(&net, any(PORT), EndpointConfig::default()).unwrap();
        let grape = start_grape(&net).await;
        let link = Link::new(&net, LinkConfig::new(SocketAddr::from(([127, 0, 0, 1], API))));
        let announcing = link.start_announcing(KEY, PORT, Duration::from_secs(20));
        let serve = self.serve(server);
        let server_side = Some(serve(&endpoint));
        self.serving[server] = Some(Serving { endpoint, server: server_side, _announcing: announcing, _grape: grape });
    }

    fn serve(&self, server: usize) -> impl FnOnce(&Endpoint) -> PeerRpcServer + use<> {
        let (asks, log) = (Arc::new(self.case.asks.clone()), self.log.clone());
        move |endpoint| {
            PeerRpcServer::serve(endpoint, ServerConfig::default(), move |request| {
                handle(server, asks.clone(), log.clone(), request)
            })
        }
    }

    fn start_client(&mut self) {
        self.world.start("client");
        if self.asking.is_some() {
            return;
        }
        let net = Faulty::over(self.world.network("client"), self.case.path.duplication, &self.events);
        let config = EndpointConfig::default().connect_timeout(Duration::from_secs(3));
        let endpoint = Endpoint::bind(&net, any(PORT), config).unwrap();
        let link = LinkConfig::new(grape_address(API)).timeout(Duration::from_secs(1)).cache(Duration::from_secs(1));
        let config = ClientConfig::default()
            .transports(self.case.transports)
            .pipeline(self.case.pipeline)
            .inactivity_timeout(INACTIVITY);
        let client = PeerRpcClient::new(&endpoint, Some(Link::new(&net, link)), config);
        self.asking = Some(Asking { endpoint, client });
    }

    fn crash_client(&mut self) {
        self.world.crash("client");
        self.asking = None;
        let fates = self.fates.lock().unwrap();
        // Asked, and without an end so far: it has none any more.
        self.orphaned.extend(fates.iter().filter(|(_, fates)| fates.is_empty()).map(|(ask, _)| *ask));
    }

    /// Waits until both servers are known by name.
    async fn found_by_name(&self) {
        let link = Link::new(&self.world.network("client"), LinkConfig::new(grape_address(API)));
        while link.lookup_fresh(KEY).await.map_or(0, |found| found.len()) < SERVERS {
            sleep(Duration::from_millis(500)).await;
        }
    }

    fn ask(&mut self, nth: usize) {
        let Some(asking) = &self.asking else { return self.orphaned.push(nth) };
        let (client, ask, fates) = (asking.client.clone(), self.case.asks[nth], self.fates.clone());
        fates.lock().unwrap().insert(nth, Vec::new());
        self.world.spawn("client", async move {
            let fate = make(&client, nth, ask).await;
            fates.lock().unwrap().entry(nth).or_default().push(fate);
        });
    }
}

async fn make(client: &PeerRpcClient, nth: usize, ask: Ask) -> Fate {
    let payload = json!({ "ask": nth, "pad": pad(nth, ask.sizes.0) });
    let options = RequestOptions::default().timeout(ask.timeout).retries(ask.retries);
    let begun = Instant::now();
    let asking = async {
        match ask.to {
            Some(server) => client.request_at_with(server_address(server), KEY, &payload, options).await,
            None => client.request_with(KEY, &payload, options).await,
        }
    };
    let result = match ask.cancel {
        Some(after) => match timeout(after, asking).await {
            Ok(result) => result,
            Err(_) => return Fate::Cancelled,
        },
        None => asking.await,
    };
    Fate::Ended(result, begun.elapsed())
}

async fn handle(server: usize, asks: Arc<Vec<Ask>>, log: Log, request: RequestParts) -> Result<Value, String> {
    let nth = request.payload["ask"].as_u64().map_or(usize::MAX, |nth| nth as usize);
    let Some(ask) = asks.get(nth).copied() else { return Ok(Value::Null) };
    let intact = request.key == KEY && request.payload["pad"] == pad(nth, ask.sizes.0);
    log.lock().unwrap().push(Handled { ask: nth, server, rid: request.rid, intact });
    sleep(ask.think).await;
    match ask.answer {
        Answer::Result => Ok(json!({ "ask": nth, "server": server, "pad": pad(nth, ask.sizes.1) })),
        Answer::Error | Answer::Nothing => Err(format!("ERR_ASKED_{nth}")),
    }
}
