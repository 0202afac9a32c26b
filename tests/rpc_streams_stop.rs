//! Ending a server that has streamed calls: its handlers end with it, or are waited for.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join;
use grenache::rpc::streaming::{StreamCall, StreamConfig};
use grenache::rpc::{PeerRpcServer, ServerConfig};
use grenache_sim::engine::World;
use serde_json::{Value, json};
use tokio::time::sleep;

use common::streams::{SERVER, client, endpoint, simulated};

mod common;

/// How long the handlers here go on after their reply.
const WORK: Duration = Duration::from_secs(20);

/// A server whose handlers reply at once, go on for [`WORK`], and then drop what they hold of `alive`.
fn server(world: &World, config: ServerConfig, alive: &Arc<()>) -> PeerRpcServer {
    let (server, _) = PeerRpcServer::new(&endpoint(world, "server"), config);
    let held = alive.clone();
    server.serve_streams(StreamConfig::default(), move |request| {
        let held = held.clone();
        async move {
            request.replier.reply_without_body(json!("begun"));
            sleep(WORK).await;
            drop(held);
        }
    });
    server
}

async fn call(world: &World) -> StreamCall {
    client(world, "client").request_stream_at(SERVER.parse().unwrap(), "k", &Value::Null).await.unwrap()
}

#[test]
fn dropping_a_server_ends_its_stream_handlers() {
    simulated(1, 0.0, async |world| {
        let alive = Arc::new(());
        let server = server(&world, ServerConfig::default(), &alive);
        // One call that goes on, and one that has ended while its handler has not.
        let open = call(&world).await;
        assert_eq!(call(&world).await.without_body().head().await.unwrap().0, "begun");
        sleep(Duration::from_secs(1)).await;
        // Beside the test's own and the server's.
        assert_eq!(Arc::strong_count(&alive), 4);
        drop(server);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(Arc::strong_count(&alive), 1);
        drop(open);
    });
}

#[test]
fn a_stopped_server_waits_for_its_stream_handlers() {
    let (patient, impatient) = (Duration::from_secs(60), Duration::from_secs(3));
    for (patience, took) in [(patient, WORK), (impatient, Duration::from_secs(1) + impatient)] {
        simulated(1, 0.0, async |world| {
            let alive = Arc::new(());
            let server = server(&world, ServerConfig::default().stop_timeout(patience), &alive);
            let begun = world.now();
            let asked = call(&world).await;
            let (answer, stopped) = join(asked.without_body().head(), async {
                sleep(Duration::from_secs(1)).await;
                server.stop().await;
                world.now() - begun
            })
            .await;
            assert_eq!(answer.unwrap().0, "begun");
            assert!(stopped >= took && stopped < took + Duration::from_millis(200), "{stopped:?}");
            sleep(Duration::from_secs(1)).await;
            assert_eq!(Arc::strong_count(&alive), 1, "no handler is left");
        });
    }
}
