//! `--metrics`: what a Grape holds and has seen, for Prometheus.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use grenache::grape::Grape;
use grenache::net::{Net, Task, TcpListener, TcpStream};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, prometheus_text};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tokio::time::sleep;

/// How many scrapes are answered at once; the oldest connection goes for a further one.
const MAX_CONNECTIONS: usize = 16;

/// How long a request's head may take.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait when connections cannot be accepted, before the next try.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves the metrics of a Grape until it is dropped.
pub(super) async fn serve(net: Net, mut listener: Box<dyn TcpListener>, grape: Arc<Grape>) {
    let mut registry = Registry::with_prefix("grenache_grape");
    registry.register_collector(Box::new(GrapeMetrics(grape)));
    let registry = Arc::new(registry);
    let mut connections: Vec<Task> = Vec::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.retain(|task| !task.is_finished());
                if connections.len() >= MAX_CONNECTIONS {
                    drop(connections.remove(0));
                }
                connections.push(net.spawn(Box::pin(connection(stream, registry.clone()))));
            }
            Err(error) => {
                tracing::debug!(%error, "accepting a connection for metrics failed");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: Box<dyn TcpStream>, registry: Arc<Registry>) {
    let service = service_fn(|request| {
        let response = respond(&request, &registry);
        async { Ok::<_, Infallible>(response) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(READ_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection for metrics broke");
    }
}

fn respond(request: &Request<Incoming>, registry: &Registry) -> Response<Full<Bytes>> {
    let plain = |status, text: &'static str| {
        let mut response = Response::new(Full::from(text));
        *response.status_mut() = status;
        response
    };
    if request.uri().path() != "/metrics" {
        return plain(StatusCode::NOT_FOUND, "the metrics are at /metrics\n");
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "only GET gives metrics\n");
    }
    let mut text = String::new();
    if prometheus_text::encode(&mut text, registry).is_err() {
        return plain(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written\n");
    }
    let mut response = Response::new(Full::from(text));
    let kind = header::HeaderValue::from_static(prometheus_text::CONTENT_TYPE);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// Reads a Grape's counters at each scrape.
#[derive(Debug)]
struct GrapeMetrics(Arc<Grape>);

impl Collector for GrapeMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stats = self.0.stats();
        let ready = self.0.ready().now_or_never().is_some();
        for (name, help, value) in [
            ("ready", "Whether the first bootstrap is over", usize::from(ready)),
            ("nodes", "Nodes in the routing table", stats.nodes),
            ("names", "Names with peers stored here", stats.names),
            ("values", "Values stored here", stats.values),
        ] {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        for (name, help, value) in [
            ("datagrams_received", "Datagrams received", stats.received),
            ("datagrams_malformed", "Datagrams received that were malformed", stats.malformed),
            ("answers_unexpected", "Answers received to nothing that was asked", stats.unexpected),
            ("answers_dropped", "Answers not sent, because too many waited", stats.dropped),
            ("http_requests_malformed", "HTTP requests that were malformed", self.0.malformed_requests()),
        ] {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        Ok(())
    }
}
