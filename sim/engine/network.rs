//! The simulated [`Network`]: what the stack on a host is given.

use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::ready;

use futures_util::FutureExt;
use grenache::event::Event;
use grenache::net::{BoxFuture, HttpClient, HyperHttp, Network, Rng, Task, TcpListener, TcpStream, UdpSocket};

use super::address::canonical;
use super::host::Life;
use super::packet::HostId;
use super::shared::Shared;
use super::state::Engine;
use super::tcp::stream;
use super::udp::SimUdp;
use crate::event::Event as Recorded;

/// One life of a host: after its end everything fails.
#[derive(Debug, Clone)]
pub(crate) struct HostHandle {
    pub(crate) shared: Arc<Shared>,
    pub(crate) id: HostId,
    pub(crate) life: u32,
}

impl HostHandle {
    /// Works on the engine, if this life goes on.
    pub(crate) fn with_engine<T>(&self, work: impl FnOnce(&mut Engine, u64) -> T) -> io::Result<T> {
        self.shared.with(|engine, now_ns| {
            let alive = engine.hosts[self.id.0 as usize].life(self.life).is_some();
            if alive { Ok(work(engine, now_ns)) } else { Err(down()) }
        })
    }

    /// Works on this life, if it goes on, and does what its TCP then wants done.
    pub(crate) fn with_life<T>(&self, work: impl FnOnce(&mut Life, u64) -> T) -> io::Result<T> {
        self.shared.with(|engine, now_ns| {
            let life = engine.hosts[self.id.0 as usize].life(self.life).ok_or_else(down)?;
            let result = work(life, now_ns);
            let effects = life.tcp.drain();
            engine.apply(now_ns, self.id, self.life, effects);
            Ok(result)
        })
    }

    /// Runs a task that ends with this life. A panic in it is the run's.
    #[expect(clippy::disallowed_methods, reason = "this is the one place where a simulated host starts tasks")]
    pub(crate) fn spawn(&self, task: BoxFuture<'static, ()>) -> Task {
        let number = self.with_life(|life, _| life.next_task());
        let Ok(number) = number else {
            let ended = tokio::spawn(async {}).abort_handle();
            ended.abort();
            return Task::new(ended);
        };
        let guard = TaskGuard { host: self.clone(), number };
        let gate = self.shared.with(|engine, _| engine.host(self.id).gate.clone());
        let mut task = task;
        let task = poll_fn(move |cx| {
            ready!(gate.poll(cx));
            task.as_mut().poll(cx)
        });
        let handle = tokio::spawn(async move {
            let guard = guard;
            if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
                guard.host.shared.panicked(panic);
            }
        });
        let handle = handle.abort_handle();
        // The life was there a moment ago, and nothing ran since.
        let _ = self.with_life(|life, _| life.add_task(number, handle.clone()));
        Task::new(handle)
    }
}

/// Takes a task off its host's list when it ends.
struct TaskGuard {
    host: HostHandle,
    number: u64,
}

impl Drop for TaskGuard {
    fn drop(&mut self) {
        let _ = self.host.with_life(|life, _| life.remove_task(self.number));
    }
}

/// A host's network in one of its lives.
#[derive(Debug)]
pub(crate) struct SimNetwork {
    pub(crate) host: HostHandle,
}

impl Network for SimNetwork {
    fn bind_udp(&self, local: SocketAddr) -> io::Result<Arc<dyn UdpSocket>> {
        SimUdp::bind(self.host.clone(), self.bindable(local)?)
    }

    fn local_ip(&self, remote: SocketAddr) -> io::Result<IpAddr> {
        let to = canonical(remote).ip();
        let any = if to.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
        self.host.with_engine(|engine, _| engine.addresses(self.host.id).source(any, to))?
    }

    fn connect_tcp(&self, remote: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn TcpStream>>> {
        connect(self.host.clone(), remote)
    }

    fn listen_tcp(&self, local: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn TcpListener>>> {
        let listener = self.bindable(local).and_then(|local| stream::listen(self.host.clone(), local));
        Box::pin(async move { Ok(Box::new(listener?) as Box<dyn TcpListener>) })
    }

    fn http(&self) -> Arc<dyn HttpClient> {
        let host = self.host.clone();
        Arc::new(HyperHttp::new(move |server| connect(host.clone(), server)))
    }

    fn rng(&self, name: &str) -> Rng {
        self.host.shared.with(|engine, _| {
            let seed = engine.seed;
            engine.hosts[self.host.id.0 as usize].rng(seed, name)
        })
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) -> Task {
        self.host.spawn(task)
    }

    fn emit(&self, event: Event) {
        // A life that is over has nothing to tell.
        let _ = self.host.with_engine(|engine, now_ns| {
            let name = engine.host(self.host.id).name.clone();
            engine.record_any(now_ns, Some(name), Recorded::Stack(event));
        });
    }

    fn wants_samples(&self) -> bool {
        self.host.shared.lock().watch.sampled
    }
}

impl SimNetwork {
    /// The address, if this host has it.
    fn bindable(&self, local: SocketAddr) -> io::Result<SocketAddr> {
        let local = canonical(local);
        let own = self.host.with_engine(|engine, _| engine.addresses(self.host.id))?;
        let ip = local.ip();
        if ip.is_unspecified() || ip.is_loopback() || own.contains(ip) {
            Ok(local)
        } else {
            Err(io::Error::new(ErrorKind::AddrNotAvailable, format!("this host's address is {own}, not {ip}")))
        }
    }
}

fn connect(host: HostHandle, remote: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn TcpStream>>> {
    Box::pin(async move {
        let stream = stream::connect(host, canonical(remote)).await?;
        Ok(Box::new(stream) as Box<dyn TcpStream>)
    })
}

fn down() -> io::Error {
    io::Error::new(ErrorKind::NotConnected, "the host is down")
}
