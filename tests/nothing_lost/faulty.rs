//! A network that now and then sends a datagram twice, and keeps what the stack reports.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use grenache::event::Event;
use grenache::net::UdpSocket;
use grenache::net::{BoxFuture, HttpClient, Net, Network, RecvMeta, Rng, Task, TcpListener, TcpStream, Transmit};
use rand::RngExt;

/// What hosts have reported, in order.
pub(crate) type Events = Arc<Mutex<Vec<Event>>>;

/// A host's network with faults of its own.
#[derive(Debug)]
pub(crate) struct Faulty {
    inner: Net,
    /// How many datagrams in a hundred are sent twice.
    duplication: u32,
    events: Events,
}

impl Faulty {
    pub(crate) fn over(inner: Net, duplication: u32, events: &Events) -> Net {
        Arc::new(Self { inner, duplication, events: events.clone() })
    }
}

impl Network for Faulty {
    fn bind_udp(&self, local: SocketAddr) -> io::Result<Arc<dyn UdpSocket>> {
        let inner = self.inner.bind_udp(local)?;
        let rng = Mutex::new(self.inner.rng("duplication"));
        Ok(Arc::new(Twice { inner, duplication: self.duplication, rng }))
    }

    fn connect_tcp(&self, remote: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn TcpStream>>> {
        self.inner.connect_tcp(remote)
    }

    fn listen_tcp(&self, local: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn TcpListener>>> {
        self.inner.listen_tcp(local)
    }

    fn http(&self) -> Arc<dyn HttpClient> {
        self.inner.http()
    }

    fn rng(&self, name: &str) -> Rng {
        self.inner.rng(name)
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) -> Task {
        self.inner.spawn(task)
    }

    fn emit(&self, event: Event) {
        self.events.lock().unwrap().push(event);
    }
}

#[derive(Debug)]
struct Twice {
    inner: Arc<dyn UdpSocket>,
    duplication: u32,
    rng: Mutex<Rng>,
}

impl UdpSocket for Twice {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<()>> {
        ready!(self.inner.poll_send(cx, transmit))?;
        if self.rng.lock().unwrap().random_range(0..100) < self.duplication {
            // The simulated socket never waits.
            let _ = self.inner.poll_send(cx, transmit);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.inner.poll_recv(cx, buffers, meta)
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn buffer_sizes(&self) -> io::Result<(usize, usize)> {
        self.inner.buffer_sizes()
    }
}
