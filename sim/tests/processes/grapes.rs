//! Grapes inside of a test: two that know each other, or one alone, at ports of the system's choice.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use grenache::grape::{Grape, GrapeConfig};
use grenache::net::{HostNetwork, Net};
use tokio::sync::oneshot;

/// Grapes in a thread of their own, for as long as this lives.
pub(crate) struct Grapes {
    /// Where their APIs are.
    pub(crate) apis: Vec<SocketAddr>,
    /// The first one's DHT node.
    dht: SocketAddr,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Grapes {
    /// This many, each of which starts from the first.
    pub(crate) fn start(count: usize) -> Self {
        Self::start_from(None, count)
    }

    /// One more, that starts from these.
    pub(crate) fn join(&self) -> Self {
        Self::start_from(Some(self.dht), 1)
    }

    fn start_from(known: Option<SocketAddr>, count: usize) -> Self {
        let (end, ended) = oneshot::channel();
        let (tell, told) = mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let net: Net = Arc::new(HostNetwork::new());
                let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
                let mut grapes: Vec<Grape> = Vec::new();
                for _ in 0..count {
                    let known = known.or_else(|| Some(grapes.first()?.dht_addr()));
                    let known = known.iter().map(|known| known.to_string().parse().expect("IPv4")).collect();
                    let config = GrapeConfig::default().dht_address(any).api_address(any).bootstrap(known);
                    let grape = Grape::start(&net, config).await.expect("it starts");
                    grape.ready().await;
                    grapes.push(grape);
                }
                let apis = grapes.iter().map(Grape::api_addr).collect();
                tell.send((apis, grapes[0].dht_addr())).expect("the test waits");
                // An error means that the test is over.
                let _ = ended.await;
            });
        });
        let (apis, dht) = told.recv().expect("they start");
        Self { apis, dht, end: Some(end), thread: Some(thread) }
    }

    /// The first one's API, as `--grape` has it.
    pub(crate) fn api(&self) -> String {
        self.apis[0].to_string()
    }
}

impl Drop for Grapes {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
