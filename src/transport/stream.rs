//! A connection as a stream of bytes.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::Handle;
use super::state::{ConnectionId, Entry};
use crate::utp::ConnectionError;

/// A µTP connection. Dropping it closes it in the background: what was written is still delivered.
///
/// `poll_write` takes what fits the send buffer; `poll_flush` has nothing to wait for; `poll_shutdown` sends a FIN and
/// waits for its ack, after which reading goes on (half-close). Errors are
/// [`ConnectionError`](crate::utp::ConnectionError) inside.
#[derive(Debug)]
pub struct UtpStream {
    handle: Arc<Handle>,
    id: ConnectionId,
    peer: SocketAddr,
}

impl UtpStream {
    pub(super) fn new(handle: Arc<Handle>, id: ConnectionId, peer: SocketAddr) -> Self {
        Self { handle, id, peer }
    }

    /// The other end.
    pub fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    /// This end: the endpoint's address.
    pub fn local_addr(&self) -> SocketAddr {
        self.handle.shared.local
    }

    /// Ends the connection at once: unsent data is lost and the peer gets a RESET.
    pub fn reset(self) {
        self.handle.shared.state().abort(self.id);
    }

    pub(super) async fn connected(&mut self) -> io::Result<()> {
        poll_fn(|cx| {
            self.with(|entry| match entry.connection.error() {
                Some(error) => Poll::Ready(Err(to_io(error))),
                None if entry.connection.is_connected() => Poll::Ready(Ok(())),
                None => wait(&mut entry.reader, cx),
            })
        })
        .await
    }

    /// Works on the connection, and lets the driver send what came of it.
    fn with<T>(&self, work: impl FnOnce(&mut Entry) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let mut state = self.handle.shared.state();
        let Some(entry) = state.entry(self.id) else {
            return Poll::Ready(Err(to_io(ConnectionError::Aborted)));
        };
        work(entry)
    }

    /// As [`with`](Self::with), for work that may give the driver something to do.
    fn with_effect<T>(&self, work: impl FnOnce(&mut Entry) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let done = self.with(work);
        self.handle.shared.state().touch(self.id);
        self.handle.shared.driver.wake();
        done
    }
}

impl AsyncRead for UtpStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut owes_update = false;
        let read = self.with(|entry| {
            let connection = &mut entry.connection;
            if connection.readable() > 0 {
                let filled = connection.read(buf.initialize_unfilled());
                buf.advance(filled);
                owes_update = connection.owes_ack();
                return Poll::Ready(Ok(()));
            }
            match connection.error() {
                Some(error) => Poll::Ready(Err(to_io(error))),
                None if connection.is_at_end() => Poll::Ready(Ok(())),
                None => wait(&mut entry.reader, cx),
            }
        });
        if owes_update {
            return self.with_effect(|_| read);
        }
        read
    }
}

impl AsyncWrite for UtpStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.with_effect(|entry| {
            if let Some(error) = entry.connection.error() {
                return Poll::Ready(Err(to_io(error)));
            }
            if entry.connection.is_finishing() || entry.connection.is_closed() {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            match entry.connection.write(data) {
                0 if !data.is_empty() => wait(&mut entry.writer, cx),
                written => Poll::Ready(Ok(written)),
            }
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with_effect(|entry| {
            entry.connection.finish();
            match entry.connection.error() {
                Some(error) => Poll::Ready(Err(to_io(error))),
                None if entry.connection.is_finished() || entry.connection.is_closed() => Poll::Ready(Ok(())),
                None => wait(&mut entry.writer, cx),
            }
        })
    }
}

impl Drop for UtpStream {
    fn drop(&mut self) {
        if let Ok(mut state) = self.handle.shared.state.lock() {
            state.abandon(self.id, Instant::now().into_std());
        }
        self.handle.shared.driver.wake();
    }
}

fn wait<T>(slot: &mut Option<Waker>, cx: &Context<'_>) -> Poll<T> {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
    Poll::Pending
}

fn to_io(error: ConnectionError) -> io::Error {
    let kind = match error {
        ConnectionError::TimedOut => io::ErrorKind::TimedOut,
        ConnectionError::Reset => io::ErrorKind::ConnectionReset,
        ConnectionError::Aborted => io::ErrorKind::ConnectionAborted,
    };
    io::Error::new(kind, error)
}
