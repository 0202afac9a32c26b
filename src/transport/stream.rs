//! A connection as an async byte stream.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::shared::{Conn, Shared};
use crate::utp::Error;

/// A µTP connection. Dropping it closes it in the background: what was written is still delivered.
#[derive(Debug)]
pub struct UtpStream {
    shared: Arc<Shared>,
    conn: Arc<Conn>,
}

impl UtpStream {
    pub(super) fn new(shared: Arc<Shared>, conn: Arc<Conn>) -> Self {
        Self { shared, conn }
    }

    /// The other end.
    pub fn peer_addr(&self) -> SocketAddr {
        self.conn.peer
    }

    /// This end: the endpoint's address.
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.local
    }

    /// Ends the connection at once: unsent data is lost and the peer gets a RESET.
    pub fn reset(self) {
        self.conn.state().core.reset();
        // Dropping it tells the driver.
    }

    /// Waits until the peer has answered.
    pub(super) async fn connected(&self) -> Result<(), Error> {
        std::future::poll_fn(|cx| {
            let mut state = self.conn.state();
            if let Some(error) = state.core.error() {
                return Poll::Ready(Err(error));
            }
            if state.core.was_established() {
                return Poll::Ready(Ok(()));
            }
            keep(&mut state.writer, cx);
            Poll::Pending
        })
        .await
    }
}

fn keep(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}

impl AsyncRead for UtpStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.conn.state();
        match state.core.read(out.initialize_unfilled()) {
            Ok(Some(len)) => {
                let update = state.core.wants_transmit();
                drop(state);
                out.advance(len);
                if update {
                    self.shared.changed(&self.conn);
                }
                Poll::Ready(Ok(()))
            }
            Ok(None) => {
                keep(&mut state.reader, cx);
                Poll::Pending
            }
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }
}

impl AsyncWrite for UtpStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.conn.state();
        let len = state.core.write(bytes)?;
        if len == 0 && !bytes.is_empty() {
            keep(&mut state.writer, cx);
            return Poll::Pending;
        }
        drop(state);
        self.shared.changed(&self.conn);
        Poll::Ready(Ok(len))
    }

    /// Done at once: what was written is sent without being asked to.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Sends a FIN; done when the peer has acked it and so all that was written. Reading goes on.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.conn.state();
        if let Some(error) = state.core.error() {
            return Poll::Ready(Err(error.into()));
        }
        if state.core.has_delivered() {
            return Poll::Ready(Ok(()));
        }
        state.core.finish();
        keep(&mut state.shutter, cx);
        drop(state);
        self.shared.changed(&self.conn);
        Poll::Pending
    }
}

impl Drop for UtpStream {
    fn drop(&mut self) {
        self.conn.state().dropped = true;
        self.shared.changed(&self.conn);
    }
}
