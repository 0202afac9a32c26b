//! What the tests share: the `docker` command, links to Grapes, and patience.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use grenache::link::{Link, LinkConfig};
use grenache::net::{HostNetwork, Net};
use grenache_sim::grapes::container::testcontainers::ContainerAsync;
use grenache_sim::grapes::container::{GrapeContainer, RunningGrape};
use tokio::time::{sleep, timeout};

/// How long anything in here may take: much longer than it does.
const PATIENCE: Duration = Duration::from_secs(60);

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A name that no other test and no earlier run has.
pub(crate) fn unique(name: &str) -> String {
    format!("{name}-{}", std::process::id())
}

/// What a command prints. Its failure is the test's.
pub(crate) fn printed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    out.trim().to_owned()
}

/// What `docker` prints.
pub(crate) fn docker(arguments: &[&str]) -> String {
    printed(Command::new("docker").args(arguments))
}

/// The answer, once there is one.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

/// Waits until the engine says that the container is healthy.
pub(crate) async fn healthy(container: &str) {
    eventually(&format!("{container} is healthy"), || async {
        let health = docker(&["inspect", "--format", "{{.State.Health.Status}}", container]);
        assert_ne!(health, "unhealthy", "{container}");
        (health == "healthy").then_some(())
    })
    .await;
}

/// A link to the Grape whose API is there.
pub(crate) fn link(api: SocketAddr) -> Link {
    let net: Net = Arc::new(HostNetwork::new());
    Link::new(&net, LinkConfig::new(api).timeout(Duration::from_secs(10)))
}

/// A link to a Grape in a container.
pub(crate) async fn link_to(grape: &ContainerAsync<GrapeContainer>) -> Link {
    link(grape.api_addr().await.expect("its API is mapped"))
}

/// What is announced at `link`, once it is.
pub(crate) async fn announce(link: &Link, name: &str, port: u16) {
    eventually("an announce is taken", || async { link.announce(name, port).await.ok() }).await;
}

/// The addresses of `name`, once there are `count`.
pub(crate) async fn lookup(link: &Link, name: &str, count: usize) -> Vec<SocketAddr> {
    let mut found = eventually(&format!("{count} addresses of {name} are found"), || async {
        link.lookup_fresh(name).await.ok().filter(|found| found.len() == count)
    })
    .await;
    found.sort_unstable();
    found
}
