//! The operating system's network: `quinn-udp` sockets, tokio TCP, reqwest, OS entropy, `tracing`.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quinn_udp::{UdpSockRef, UdpSocketState};
use rand::SeedableRng;
use tokio::io::Interest;

use super::{
    BoxFuture, HttpClient, MAX_HTTP_ANSWER, Network, RecvMeta, Rng, Task, TcpListener, TcpStream, Transmit, UdpSocket,
};
use crate::event::Event;

/// What is asked of the kernel for each UDP socket buffer. With the usual default of 208 kB a burst overflows it.
const SOCKET_BUFFER: usize = 4 << 20;

/// How long an idle connection to a Grape is kept for the next call.
const HTTP_IDLE: Duration = Duration::from_secs(30);

/// Is shown every event.
type Observer = dyn Fn(&Event) + Send + Sync;

/// The operating system's network.
///
/// Must be used inside a tokio runtime with I/O and time enabled.
#[derive(Clone, Default)]
pub struct HostNetwork {
    /// Made with the first call: a Grape makes none, and would need a tenth more memory for it.
    http: Arc<OnceLock<reqwest::Client>>,
    observer: Option<Arc<Observer>>,
}

impl fmt::Debug for HostNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostNetwork").finish_non_exhaustive()
    }
}

impl HostNetwork {
    /// The operating system's network, ready to be shared. Where its HTTP client cannot be set up, the first call of
    /// [`HttpClient::post`] says so.
    pub fn new() -> Self {
        Self::default()
    }

    /// Shows `observer` every event too, from the task that it happened in: it should be quick.
    #[must_use]
    pub fn observe(self, observer: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        Self { observer: Some(Arc::new(observer)), ..self }
    }
}

impl HostNetwork {
    fn client(&self) -> io::Result<&reqwest::Client> {
        if let Some(client) = self.http.get() {
            return Ok(client);
        }
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .pool_idle_timeout(HTTP_IDLE)
            .build()
            .map_err(io::Error::other)?;
        Ok(self.http.get_or_init(|| client))
    }
}

impl Network for HostNetwork {
    fn bind_udp(&self, local: SocketAddr) -> io::Result<Arc<dyn UdpSocket>> {
        let socket = socket2::Socket::new(socket2::Domain::for_address(local), socket2::Type::DGRAM, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&local.into())?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        // A smaller grant than asked for is not an error: `buffer_sizes` tells what it is.
        let _ = state.set_send_buffer_size(UdpSockRef::from(&socket), SOCKET_BUFFER);
        let _ = state.set_recv_buffer_size(UdpSockRef::from(&socket), SOCKET_BUFFER);
        let io = tokio::net::UdpSocket::from_std(socket.into())?;
        Ok(Arc::new(HostUdp { io, state }))
    }

    fn local_ip(&self, remote: SocketAddr) -> io::Result<IpAddr> {
        let any: IpAddr = if remote.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        // Connecting a UDP socket sends nothing; it only has the kernel choose a route.
        let socket = std::net::UdpSocket::bind(SocketAddr::new(any, 0))?;
        socket.connect(remote)?;
        Ok(socket.local_addr()?.ip())
    }

    fn connect_tcp(&self, remote: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn TcpStream>>> {
        Box::pin(async move {
            let stream = tokio::net::TcpStream::connect(remote).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn TcpStream>)
        })
    }

    fn listen_tcp(&self, local: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn TcpListener>>> {
        Box::pin(async move {
            let listener = tokio::net::TcpListener::bind(local).await?;
            Ok(Box::new(HostListener(listener)) as Box<dyn TcpListener>)
        })
    }

    fn http(&self) -> Arc<dyn HttpClient> {
        Arc::new(self.clone())
    }

    fn rng(&self, _name: &str) -> Rng {
        Rng::try_from_rng(&mut rand::rngs::SysRng).expect("the operating system gives random numbers")
    }

    #[expect(clippy::disallowed_methods, reason = "this is the one place where the host network starts tasks")]
    fn spawn(&self, task: BoxFuture<'static, ()>) -> Task {
        Task::new(tokio::spawn(task).abort_handle())
    }

    fn emit(&self, event: Event) {
        tracing::debug!(target: "grenache", ?event);
        if let Some(observer) = &self.observer {
            observer(&event);
        }
    }
}

impl HttpClient for HostNetwork {
    fn post(&self, server: SocketAddr, path: &str, body: Bytes) -> BoxFuture<'static, io::Result<(u16, Bytes)>> {
        let client = match self.client() {
            Ok(client) => client,
            Err(error) => return Box::pin(std::future::ready(Err(error))),
        };
        let request = client
            .post(format!("http://{server}{path}"))
            .header(reqwest::header::CONTENT_TYPE, "application/json")
            .body(body);
        Box::pin(async move {
            let mut answer = request.send().await.map_err(with_causes)?;
            let status = answer.status().as_u16();
            let mut body = BytesMut::new();
            while let Some(chunk) = answer.chunk().await.map_err(with_causes)? {
                if body.len() + chunk.len() > MAX_HTTP_ANSWER {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is larger than 1 MiB"));
                }
                body.extend_from_slice(&chunk);
            }
            Ok((status, body.freeze()))
        })
    }
}

/// An error with what caused it: reqwest's own text ends at the URL.
fn with_causes(error: reqwest::Error) -> io::Error {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    io::Error::other(text)
}

#[derive(Debug)]
struct HostUdp {
    io: tokio::net::UdpSocket,
    state: UdpSocketState,
}

impl UdpSocket for HostUdp {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<()>> {
        let transmit = quinn_udp::Transmit {
            destination: transmit.destination,
            ecn: None,
            contents: transmit.contents,
            segment_size: transmit.segment_size,
            src_ip: None,
        };
        loop {
            ready!(self.io.poll_send_ready(cx))?;
            let sent =
                self.io.try_io(Interest::WRITABLE, || self.state.try_send(UdpSockRef::from(&self.io), &transmit));
            match sent {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                sent => return Poll::Ready(sent),
            }
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut received = [quinn_udp::RecvMeta::default(); quinn_udp::BATCH_SIZE];
        let most = buffers.len().min(meta.len()).min(received.len());
        loop {
            ready!(self.io.poll_recv_ready(cx))?;
            let count = self.io.try_io(Interest::READABLE, || {
                self.state.recv(UdpSockRef::from(&self.io), &mut buffers[..most], &mut received[..most])
            });
            match count {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Poll::Ready(Err(e)),
                Ok(count) => {
                    for (meta, got) in meta.iter_mut().zip(&received[..count]) {
                        *meta = RecvMeta { source: got.addr, len: got.len, stride: got.stride };
                    }
                    return Poll::Ready(Ok(count));
                }
            }
        }
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }

    fn buffer_sizes(&self) -> io::Result<(usize, usize)> {
        let socket = UdpSockRef::from(&self.io);
        Ok((self.state.send_buffer_size(socket)?, self.state.recv_buffer_size(UdpSockRef::from(&self.io))?))
    }
}

#[derive(Debug)]
struct HostListener(tokio::net::TcpListener);

impl TcpListener for HostListener {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn TcpStream>, SocketAddr)>> {
        Box::pin(async move {
            let (stream, peer) = self.0.accept().await?;
            stream.set_nodelay(true)?;
            Ok((Box::new(stream) as Box<dyn TcpStream>, peer))
        })
    }
}
