//! Payloads and results as Rust types, through serde, beside raw JSON.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::client::PeerRpcClient;
use super::error::RpcError;
use super::server::{PeerRpcServer, RequestParts, ServerConfig};
use crate::transport::Endpoint;

/// How the error begins that a client gets for a payload which does not fit the type of
/// [`PeerRpcServer::serve_as`].
pub const ERR_REQUEST_TYPE: &str = "ERR_REQUEST_TYPE";

/// How the error begins where a result does not fit its type.
pub const ERR_REPLY_TYPE: &str = "ERR_REPLY_TYPE";

impl PeerRpcClient {
    /// As [`request`](Self::request), with a payload and a result of any types that serde knows.
    ///
    /// ```no_run
    /// #[derive(serde::Serialize)]
    /// struct Order {
    ///     pieces: u32,
    /// }
    /// # async fn example(client: grenache::rpc::PeerRpcClient) -> Result<(), grenache::rpc::RpcError> {
    /// let price: f64 = client.request_as("shop", &Order { pieces: 3 }).await?;
    /// # drop(price);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`RpcError::RequestType`] and [`RpcError::ReplyType`], else as [`RpcError`] says.
    pub async fn request_as<Req, Resp>(&self, key: &str, payload: &Req) -> Result<Resp, RpcError>
    where
        Req: Serialize + ?Sized,
        Resp: DeserializeOwned,
    {
        reply(self.request(key, &request(payload)?).await?)
    }

    /// As [`request_at`](Self::request_at), with a payload and a result of any types that serde knows.
    ///
    /// # Errors
    /// As those of [`request_as`](Self::request_as).
    pub async fn request_at_as<Req, Resp>(&self, to: SocketAddr, key: &str, payload: &Req) -> Result<Resp, RpcError>
    where
        Req: Serialize + ?Sized,
        Resp: DeserializeOwned,
    {
        reply(self.request_at(to, key, &request(payload)?).await?)
    }
}

fn request<Req: Serialize + ?Sized>(payload: &Req) -> Result<Value, RpcError> {
    serde_json::to_value(payload).map_err(|e| RpcError::RequestType(e.to_string()))
}

fn reply<Resp: DeserializeOwned>(result: Value) -> Result<Resp, RpcError> {
    serde_json::from_value(result).map_err(|e| RpcError::ReplyType(e.to_string()))
}

impl RequestParts {
    /// The request with its payload as a type.
    ///
    /// # Errors
    /// Where the payload does not fit: what is wrong, after [`ERR_REQUEST_TYPE`].
    pub fn typed<P: DeserializeOwned>(self) -> Result<RequestParts<P>, String> {
        let Self { rid, key, payload, from } = self;
        let payload = serde_json::from_value(payload).map_err(|e| format!("{ERR_REQUEST_TYPE}: {e}"))?;
        Ok(RequestParts { rid, key, payload, from })
    }
}

impl PeerRpcServer {
    /// As [`serve`](Self::serve), with a handler of typed payloads and results. A payload that does not fit is answered
    /// with [`ERR_REQUEST_TYPE`] and what is wrong; the handler does not see it.
    ///
    /// ```no_run
    /// use grenache::rpc::{PeerRpcServer, RequestParts, ServerConfig};
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Order {
    ///     pieces: u32,
    /// }
    /// # fn example(endpoint: grenache::transport::Endpoint) -> PeerRpcServer {
    /// PeerRpcServer::serve_as(&endpoint, ServerConfig::default(), |order: RequestParts<Order>| async move {
    ///     Ok(f64::from(order.payload.pieces) * 0.5)
    /// })
    /// # }
    /// ```
    pub fn serve_as<Req, Resp, H, F>(endpoint: &Endpoint, config: ServerConfig, handler: H) -> Self
    where
        Req: DeserializeOwned + Send + 'static,
        Resp: Serialize + Send + 'static,
        H: Fn(RequestParts<Req>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Resp, String>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        Self::serve(endpoint, config, move |request| {
            let handler = handler.clone();
            async move {
                let result = handler(request.typed()?).await?;
                serde_json::to_value(result).map_err(|e| format!("{ERR_REPLY_TYPE}: {e}"))
            }
        })
    }
}
