//! The serving side of streamed calls, as the application sees it.

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::StreamConfig;
use super::body::{BodyReader, BodyWriter};
use crate::net::{BoxFuture, Net, Task};
use crate::rpc::message::ReplyMessage;
use crate::rpc::server::{ERR_NO_REPLY, PeerRpcServer};

/// A streamed call to be answered.
///
/// Body and replier can be taken apart: a reply may begin before the request's body has ended. Dropping the body
/// before its end tells the client to stop; dropping the replier answers [`ERR_NO_REPLY`].
#[derive(Debug)]
pub struct StreamRequest {
    /// Its id.
    pub rid: String,
    /// The service's name that the client asked for.
    pub key: String,
    /// What is asked.
    pub payload: Value,
    /// The client's address, as this side sees it.
    pub from: SocketAddr,
    /// The request's body.
    pub body: BodyReader,
    /// What answers it.
    pub replier: StreamReplier,
}

/// What answers one streamed call.
#[derive(Debug)]
pub struct StreamReplier {
    rid: String,
    /// Both are there until it was answered.
    reply: Option<(oneshot::Sender<Bytes>, BodyWriter)>,
}

/// The streamed calls that arrive at a [`PeerRpcServer`]. Dropping it withdraws the offer.
#[derive(Debug)]
pub struct StreamRequests(mpsc::Receiver<StreamRequest>);

impl PeerRpcServer {
    /// Offers streams from now on, beside plain requests; the streamed calls come out of [`StreamRequests`].
    ///
    /// It takes the place of an earlier offer, whose calls go on.
    ///
    /// ```no_run
    /// use grenache::rpc::streaming::{StreamConfig, StreamRequest};
    /// # async fn example(server: grenache::rpc::PeerRpcServer) -> std::io::Result<()> {
    /// let mut streams = server.accept_streams(StreamConfig::default());
    /// while let Some(StreamRequest { payload, mut body, replier, .. }) = streams.next().await {
    ///     if payload != "count" {
    ///         replier.error("ERR_NOT_COUNT");
    ///         continue;
    ///     }
    ///     let bytes = tokio::io::copy(&mut body, &mut tokio::io::sink()).await?;
    ///     replier.reply_without_body(bytes.into());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn accept_streams(&self, config: StreamConfig) -> StreamRequests {
        // There are never more calls than places, so that none waits for room here; but a displaced one may wait still.
        let (calls, requests) = mpsc::channel(config.max_streams.saturating_mul(2).min(Semaphore::MAX_PERMITS));
        self.shared().offers().make(config, Taker::Queue(calls));
        StreamRequests(requests)
    }

    /// Offers streams from now on, and gives each streamed call to `handler` in a task of its own. A handler that
    /// returns without a reply answers [`ERR_NO_REPLY`]. A call has its place among
    /// [`max_streams`](StreamConfig::max_streams) until its handler has returned. Where it has to give it up before
    /// ([`least_progress`](StreamConfig::least_progress)), its handler is ended [`FAREWELL`](super::FAREWELL) later.
    pub fn serve_streams<H, F>(&self, config: StreamConfig, handler: H)
    where
        H: Fn(StreamRequest) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let handler: Handler = Arc::new(move |request| Box::pin(handler(request)));
        self.shared().offers().make(config, Taker::Handler(handler));
    }
}

impl StreamRequests {
    /// The next streamed call; `None` once the server is dropped, or has made another offer, and every call was given
    /// out.
    pub async fn next(&mut self) -> Option<StreamRequest> {
        self.0.recv().await
    }
}

impl StreamReplier {
    pub(super) fn new(rid: &str, body: BodyWriter) -> (Self, oneshot::Receiver<Bytes>) {
        let (head, given) = oneshot::channel();
        (Self { rid: rid.to_owned(), reply: Some((head, body)) }, given)
    }

    /// Answers with a result, and gives the reply's body to be written; it must be ended with
    /// [`shutdown`](tokio::io::AsyncWriteExt::shutdown).
    ///
    /// Where the client has gone meanwhile, writing fails.
    pub fn reply(mut self, result: Value) -> BodyWriter {
        let (head, body) = self.reply.take().expect("it answers once");
        // Nobody takes the head where the connection has ended; the body's first write tells.
        let _ = head.send(ReplyMessage::encode(&self.rid, &Ok(result)));
        body
    }

    /// Answers with a result and nothing else.
    pub fn reply_without_body(self, result: Value) {
        self.reply(result).complete();
    }

    /// Answers with an error message.
    pub fn error(mut self, message: impl Into<String>) {
        self.fail(message.into());
    }

    fn fail(&mut self, message: String) {
        if let Some((head, body)) = self.reply.take() {
            let _ = head.send(ReplyMessage::encode(&self.rid, &Err(message)));
            body.complete();
        }
    }
}

impl Drop for StreamReplier {
    fn drop(&mut self) {
        self.fail(ERR_NO_REPLY.to_owned());
    }
}

type Handler = Arc<dyn Fn(StreamRequest) -> BoxFuture<'static, ()> + Send + Sync>;

/// Who is given the streamed calls.
pub(super) enum Taker {
    Queue(mpsc::Sender<StreamRequest>),
    Handler(Handler),
}

impl Taker {
    /// Whether calls are still wanted.
    pub(super) fn is_there(&self) -> bool {
        match self {
            Self::Queue(calls) => !calls.is_closed(),
            Self::Handler(_) => true,
        }
    }

    /// Gives a call away; where it goes to a handler, that is at work until the result is dropped.
    pub(super) fn take(&self, net: &Net, request: StreamRequest) -> Option<AtWork> {
        match self {
            Self::Queue(calls) => {
                // A call that is dropped here is answered with an error.
                let _ = calls.try_send(request);
                None
            }
            Self::Handler(handler) => {
                let (working, ended) = oneshot::channel();
                let handling = handler(request);
                let task = net.spawn(Box::pin(async move {
                    // Goes with the task, however that ends.
                    let _working = working;
                    handling.await;
                }));
                Some(AtWork { _task: task, ended })
            }
        }
    }
}

/// A handler at work. Dropping it ends it.
#[derive(Debug)]
pub(super) struct AtWork {
    _task: Task,
    ended: oneshot::Receiver<Infallible>,
}

impl AtWork {
    /// Waits until the handler has returned, or has panicked.
    pub(super) async fn ended(self) {
        let _ = self.ended.await;
    }
}

impl fmt::Debug for Taker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Queue(_) => "Queue",
            Self::Handler(_) => "Handler",
        })
    }
}
