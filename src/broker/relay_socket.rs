//! A relay session's socket and task.

use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::task::ready;

use tokio::time::{Instant, timeout_at};

use super::relay::{RelayConfig, Session, SessionEnd, Verdict};
use crate::event::Event;
use crate::net::{Net, ReceivePause, RecvMeta, Task, Transmit, UdpSocket};
use crate::places::Place;

/// How many bytes a receive buffer needs for each datagram that it may be filled with.
const BYTES_PER_SEGMENT: usize = 2048;

/// Binds a session's socket on `ip` and runs the session in a task; gives its port and the task.
pub(super) fn open(
    net: &Net,
    ip: IpAddr,
    config: RelayConfig,
    tokens: [String; 2],
    place: Place,
) -> io::Result<(u16, Task)> {
    let socket = net.bind_udp(SocketAddr::new(ip, 0))?;
    let port = socket.local_addr()?.port();
    net.emit(Event::RelayOpened { port });
    let session = Session::new(Instant::now().into_std(), config, tokens);
    let task_net = net.clone();
    let task = net.spawn(Box::pin(async move {
        let _place = place;
        let (session, reason) = run(session, &*socket).await;
        for (side, ended) in session.farewells() {
            send(&*socket, side, &ended).await;
        }
        task_net.emit(Event::RelayClosed { port, bytes: session.forwarded, reason: reason.to_owned() });
    }));
    Ok((port, task))
}

async fn run(mut session: Session, socket: &dyn UdpSocket) -> (Session, &'static str) {
    let mut buffer = vec![0; socket.max_receive_segments().max(1) * BYTES_PER_SEGMENT];
    let mut pause = ReceivePause::default();
    loop {
        let mut meta = [RecvMeta::default()];
        let receiving = poll_fn(|cx| {
            ready!(pause.poll_over(cx));
            let received = socket.poll_recv(cx, &mut [IoSliceMut::new(&mut buffer)], &mut meta);
            if received.is_pending() {
                pause.passed();
            }
            received
        });
        match timeout_at(session.idle_at().into(), receiving).await {
            Err(_) => return (session, SessionEnd::Idle.reason()),
            // An error speaks of a datagram sent earlier: its side is gone, and the session will be idle.
            Ok(Err(error)) => {
                pause.failed();
                tracing::debug!(%error, "relaying");
            }
            Ok(Ok(_)) => {
                pause.passed();
                let RecvMeta { source, len, stride } = meta[0];
                let received = &buffer[..len.min(buffer.len())];
                for payload in received.chunks(stride.max(1)) {
                    let now = Instant::now().into_std();
                    match session.on_datagram(now, source, payload) {
                        Verdict::Forward(to) => send(socket, to, payload).await,
                        Verdict::Answer(answer) => send(socket, source, &answer).await,
                        Verdict::Drop => {}
                        Verdict::End(end) => return (session, end.reason()),
                    }
                }
            }
        }
    }
}

/// What cannot be sent is lost, as on the way.
async fn send(socket: &dyn UdpSocket, destination: SocketAddr, contents: &[u8]) {
    let transmit = Transmit { destination, contents, segment_size: None };
    if let Err(error) = poll_fn(|cx| socket.poll_send(cx, &transmit)).await {
        tracing::debug!(%destination, %error, "relaying");
    }
}
