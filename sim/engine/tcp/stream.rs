//! What tasks hold of TCP: streams and listeners.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use grenache::net::{BoxFuture, TcpListener, TcpStream};
use rand::Rng as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{ConnectionId, ListenerId};
use crate::engine::address::told;
use crate::engine::network::HostHandle;

/// Connects; dropping the future gives up.
pub(crate) async fn connect(host: HostHandle, remote: SocketAddr) -> io::Result<SimStream> {
    let id = host.with_engine(|engine, now_ns| {
        let any = if remote.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
        let source = engine.addresses(host.id).source(any, remote.ip())?;
        let seed = engine.seed;
        let host_state = &mut engine.hosts[host.id.0 as usize];
        let first = host_state.rng(seed, "tcp sequence").next_u32();
        let life = host_state.life(host.life).expect("with_engine works only on a life that goes on");
        let connection = life.tcp.connect(now_ns, source, remote, first)?;
        let effects = life.tcp.drain();
        engine.apply(now_ns, host.id, host.life, effects);
        io::Result::Ok(connection)
    })??;
    let stream = SimStream { host, id };
    poll_fn(|cx| stream.host.with_life(|life, _| life.tcp.poll_connected(stream.id, cx)).unwrap_or_else(failed))
        .await?;
    Ok(stream)
}

/// Listens.
pub(crate) fn listen(host: HostHandle, local: SocketAddr) -> io::Result<SimListener> {
    let (id, local) = host.with_life(|life, _| life.tcp.listen(local))??;
    Ok(SimListener { host, id, local })
}

/// A connected stream.
#[derive(Debug)]
pub(crate) struct SimStream {
    host: HostHandle,
    id: ConnectionId,
}

impl AsyncRead for SimStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let unfilled = buffer.initialize_unfilled();
        let read = self.host.with_life(|life, now_ns| life.tcp.poll_read(now_ns, self.id, cx, unfilled));
        let count = ready!(read.unwrap_or_else(failed))?;
        buffer.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = self.host.with_life(|life, now_ns| life.tcp.poll_write(now_ns, self.id, cx, bytes));
        written.unwrap_or_else(failed)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.host.with_life(|life, now_ns| life.tcp.shutdown(now_ns, self.id)))
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        // In a life that is over there is nobody left to tell.
        let _ = self.host.with_life(|life, now_ns| life.tcp.release(now_ns, self.id));
    }
}

/// A listening socket.
#[derive(Debug)]
pub(crate) struct SimListener {
    host: HostHandle,
    id: ListenerId,
    local: SocketAddr,
}

impl TcpListener for SimListener {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn TcpStream>, SocketAddr)>> {
        Box::pin(poll_fn(|cx| {
            let accepted = self.host.with_life(|life, _| life.tcp.poll_accept(self.id, cx)).unwrap_or_else(failed);
            let (id, peer) = ready!(accepted)?;
            let stream = SimStream { host: self.host.clone(), id };
            Poll::Ready(Ok((Box::new(stream) as Box<dyn TcpStream>, told(&self.local, peer))))
        }))
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        let _ = self.host.with_life(|life, _| life.tcp.close_listener(self.id));
    }
}

fn failed<T>(error: io::Error) -> Poll<io::Result<T>> {
    Poll::Ready(Err(error))
}
