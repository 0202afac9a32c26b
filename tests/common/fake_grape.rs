//! A Grape's HTTP API in the test's hands: it answers as told and counts the calls.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use grenache::net::{BoxFuture, HyperHttp, Net, Task, TcpStream};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;

/// What the Grape does with a call.
pub(crate) enum Answer {
    /// Answers with this status and body.
    Body(u16, String),
    /// Never answers.
    Hang,
    /// Answers after this time.
    After(std::time::Duration, String),
    /// Closes the connection.
    Close,
}

/// A call: its path and what was posted.
pub(crate) type Call = (String, Value);

/// What decides the answer to the n-th call, by its path and data.
type Script = dyn Fn(usize, &str, &Value) -> Answer + Send + Sync;

/// A Grape's HTTP API.
#[derive(Clone)]
pub(crate) struct FakeGrape {
    calls: Arc<Mutex<Vec<Call>>>,
    answer: Arc<Script>,
}

impl FakeGrape {
    /// Answers the n-th call (from 0) to a path with some data.
    pub(crate) fn new(answer: impl Fn(usize, &str, &Value) -> Answer + Send + Sync + 'static) -> Self {
        Self { calls: Arc::default(), answer: Arc::new(answer) }
    }

    /// The calls so far.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    /// A client that reaches it in memory, whatever the address: on a paused clock time is exact.
    #[expect(clippy::disallowed_methods, reason = "the tasks belong to the test")]
    pub(crate) fn in_memory(&self) -> HyperHttp {
        let grape = self.clone();
        HyperHttp::new(move |_| {
            let (ours, theirs) = tokio::io::duplex(64 << 10);
            tokio::spawn(grape.clone().serve(Box::new(theirs)));
            Box::pin(async move { Ok(Box::new(ours) as Box<dyn TcpStream>) })
        })
    }

    /// Listens on loopback.
    pub(crate) async fn listen(&self, net: &Net) -> (SocketAddr, Task) {
        let mut listener = net.listen_tcp(super::any_port()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (grape, on) = (self.clone(), net.clone());
        let task = net.spawn(Box::pin(async move {
            while let Ok((stream, _)) = listener.accept().await {
                on.spawn(Box::pin(grape.clone().serve(stream))).detach();
            }
        }));
        (address, task)
    }

    fn serve(self, stream: Box<dyn TcpStream>) -> BoxFuture<'static, ()> {
        let service = service_fn(move |request| self.clone().handle(request));
        Box::pin(async move {
            // A client that goes away in the middle is part of the tests.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        })
    }

    async fn handle(
        self,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Box<dyn std::error::Error + Send + Sync>> {
        let path = request.uri().path().to_owned();
        let body = request.into_body().collect().await?.to_bytes();
        let posted: Value = serde_json::from_slice(&body)?;
        let n = {
            let mut calls = self.calls.lock().unwrap();
            calls.push((path.clone(), posted.clone()));
            calls.len() - 1
        };
        let (status, body) = match (self.answer)(n, &path, &posted["data"]) {
            Answer::Body(status, body) => (status, body),
            Answer::After(time, body) => {
                tokio::time::sleep(time).await;
                (200, body)
            }
            Answer::Hang => match std::future::pending::<Infallible>().await {},
            Answer::Close => return Err("closing".into()),
        };
        Ok(Response::builder().status(status).body(Full::new(body.into()))?)
    }
}
