//! The asking side of streamed calls.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::body::{BodyReader, BodyWriter, incoming, outgoing};
use super::carry::{Call, Incoming, Limits, Outgoing, Peer, carry};
use super::error::StreamError;
use super::frame::{Kind, frame};
use super::report::Report;
use super::{ASK, BUSY, StreamOptions, YES};
use crate::net::{Net, Task};
use crate::rpc::client::PeerRpcClient;
use crate::rpc::error::RpcError;
use crate::rpc::message::RequestMessage;
use crate::transport::UtpStream;

/// A streamed call whose head was sent: its body is to be written, its reply to be read.
///
/// It goes on after its client is dropped, since its connection is its own. Dropping it cancels the call.
#[derive(Debug)]
#[must_use = "dropping a call cancels it"]
pub struct StreamCall {
    /// The call's id.
    pub rid: String,
    /// Who is asked.
    pub to: SocketAddr,
    /// The request's body. It must be ended with [`shutdown`](AsyncWriteExt::shutdown).
    pub body: BodyWriter,
    /// What is to come.
    pub reply: StreamReply,
    net: Net,
}

/// The reply to a streamed call, before its head is there.
///
/// Dropping it stops the reply, and the body that a task sends; with no other body it cancels the call.
#[derive(Debug)]
#[must_use = "dropping a reply stops it"]
pub struct StreamReply {
    head: oneshot::Receiver<Result<Value, RpcError>>,
    body: BodyReader,
    sending: Option<Task>,
}

impl StreamReply {
    /// Waits for the head of the reply: the result, and the body that follows it. A body that a task sends goes on being
    /// sent from then on, whatever becomes of the reply.
    ///
    /// Where the head comes only after the request's body has ended, that has to be ended first, or in another task.
    ///
    /// # Errors
    /// [`RpcError::Remote`] with the handler's message, [`RpcError::Timeout`] past
    /// [`StreamOptions::reply_timeout`], [`RpcError::Stream`] and the connection's.
    pub async fn head(self) -> Result<(Value, BodyReader), RpcError> {
        let value = self.head.await.unwrap_or(Err(RpcError::TransportClose))?;
        if let Some(sending) = self.sending {
            sending.detach();
        }
        Ok((value, self.body))
    }
}

impl StreamCall {
    /// Sends no body.
    pub fn without_body(self) -> StreamReply {
        self.body.complete();
        self.reply
    }

    /// Sends all that `reader` gives as the body, in a task of its own, so that the reply can be read meanwhile. Where
    /// the reader fails, the body is aborted with its error's text.
    pub fn send(self, reader: impl AsyncRead + Send + 'static) -> StreamReply {
        let mut body = self.body;
        let sending = async move {
            let mut reader = Box::pin(reader);
            let mut chunk = vec![0; super::body::BODY_BUFFER / 2];
            loop {
                match reader.read(&mut chunk).await {
                    Ok(0) => break,
                    Ok(len) if body.write_all(&chunk[..len]).await.is_ok() => {}
                    // The reply tells the application why the peer takes no more.
                    Ok(_) => return,
                    Err(e) => return body.abort(&e.to_string()),
                }
            }
            let _ = body.shutdown().await;
        };
        StreamReply { sending: Some(self.net.spawn(Box::pin(sending))), ..self.reply }
    }

    /// Sends all that `chunks` give as the body: see [`send`](Self::send).
    pub fn send_chunks(self, chunks: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> StreamReply {
        let mut body = self.body;
        let sending = async move {
            let mut chunks = Box::pin(chunks);
            while let Some(chunk) = chunks.next().await {
                match chunk {
                    Ok(chunk) if body.write_all(&chunk).await.is_ok() => {}
                    Ok(_) => return,
                    Err(e) => return body.abort(&e.to_string()),
                }
            }
            let _ = body.shutdown().await;
        };
        StreamReply { sending: Some(self.net.spawn(Box::pin(sending))), ..self.reply }
    }
}

impl PeerRpcClient {
    /// Looks `key` up and begins a streamed call at one of the services found: see
    /// [`request_stream_with`](Self::request_stream_with).
    ///
    /// # Errors
    /// As there.
    pub async fn request_stream(&self, key: &str, payload: &Value) -> Result<StreamCall, RpcError> {
        self.request_stream_with(key, payload, StreamOptions::default()).await
    }

    /// Looks `key` up and begins a streamed call at one of the services found, at random; at another one where that
    /// cannot be reached or takes no streams, up to [`StreamOptions::retries`].
    ///
    /// # Errors
    /// [`StreamError::Unsupported`] or [`StreamError::Busy`] in [`RpcError::Stream`], [`RpcError::TooLarge`] where the
    /// head is over its limit, the lookup's, and the connection's. Nothing of the call was sent then.
    pub async fn request_stream_with(
        &self,
        key: &str,
        payload: &Value,
        options: StreamOptions,
    ) -> Result<StreamCall, RpcError> {
        let mut failed = Vec::new();
        loop {
            let to = self.find(key, &failed).await?;
            match self.request_stream_at_with(to, key, payload, options).await {
                Err(e) if may_go_better(&e) && failed.len() < options.retries as usize => failed.push(to),
                outcome => return outcome,
            }
        }
    }

    /// Begins a streamed call at an address: see [`request_stream_at_with`](Self::request_stream_at_with).
    ///
    /// # Errors
    /// As there.
    pub async fn request_stream_at(&self, to: SocketAddr, key: &str, payload: &Value) -> Result<StreamCall, RpcError> {
        self.request_stream_at_with(to, key, payload, StreamOptions::default()).await
    }

    /// Begins a streamed call at an address, on a connection of its own.
    ///
    /// # Errors
    /// As [`request_stream_with`](Self::request_stream_with), but for the lookup's.
    pub async fn request_stream_at_with(
        &self,
        to: SocketAddr,
        key: &str,
        payload: &Value,
        options: StreamOptions,
    ) -> Result<StreamCall, RpcError> {
        let (net, rid) = (self.net(), self.new_id().to_string());
        let head = RequestMessage::encode(&rid, key, payload);
        if head.len() > options.max_head {
            return Err(RpcError::TooLarge { size: head.len(), limit: options.max_head });
        }
        let report = Report::start(net, &rid, key, to, true);
        let stream = match self.open_stream(to, &head, options).await {
            Ok(stream) => stream,
            Err(error) => {
                report.failed(&error);
                return Err(error);
            }
        };
        let (body, source) = outgoing();
        let (sink, reader) = incoming();
        let (head, reply_head) = oneshot::channel();
        let limits = Limits { idle: options.idle_timeout, reply: options.reply_timeout, max_head: options.max_head };
        let outgoing = Outgoing { head: None, body: source };
        let incoming = Incoming { head: Some(head), body: sink };
        let carrying = async move {
            // The bodies' ends tell how it went.
            let _ = carry(Call { stream, outgoing, incoming, limits, report, peer: Peer::default() }).await;
        };
        net.spawn(Box::pin(carrying)).detach();
        let reply = StreamReply { head: reply_head, body: reader, sending: None };
        Ok(StreamCall { rid, to, body, reply, net: net.clone() })
    }

    /// Connects, asks for streams, and sends the head where they are offered.
    async fn open_stream(&self, to: SocketAddr, head: &[u8], options: StreamOptions) -> Result<UtpStream, RpcError> {
        let mut stream = self.connect_alone(to).await?;
        let offered = async {
            stream.write_all(ASK).await.map_err(|e| RpcError::from(&e))?;
            answer(&mut stream).await
        };
        let offered = timeout(options.offer_timeout, offered).await.unwrap_or(Err(StreamError::Unsupported.into()));
        if let Err(error) = offered {
            stream.reset();
            return Err(error);
        }
        let head = frame(Kind::Head, head);
        match timeout(options.idle_timeout, stream.write_all(&head)).await {
            Ok(Ok(())) => Ok(stream),
            Ok(Err(error)) => Err(RpcError::from(&error)),
            Err(_) => {
                stream.reset();
                Err(StreamError::Idle(options.idle_timeout).into())
            }
        }
    }
}

/// Whether another peer may take the call.
fn may_go_better(error: &RpcError) -> bool {
    error.is_transport() || matches!(error, RpcError::Stream(StreamError::Unsupported | StreamError::Busy))
}

/// Reads the answer to the question, for as long as it can be one.
async fn answer(stream: &mut UtpStream) -> Result<(), RpcError> {
    let mut bytes = [0; YES.len()];
    let mut len = 0;
    loop {
        let more = stream.read(&mut bytes[len..]).await.map_err(|e| RpcError::from(&e))?;
        len += more;
        let possible = YES.starts_with(&bytes[..len]) || BUSY.starts_with(&bytes[..len]);
        if more == 0 || !possible {
            return Err(StreamError::Unsupported.into());
        }
        if len == bytes.len() {
            return if bytes == *YES { Ok(()) } else { Err(StreamError::Busy.into()) };
        }
    }
}
