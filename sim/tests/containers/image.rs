//! The images themselves: size, user, health, signals, state.

use std::time::Duration;

use grenache_sim::grapes::GrapeKind;
use grenache_sim::grapes::container::testcontainers::{ContainerAsync, ImageExt, runners::AsyncRunner};
use grenache_sim::grapes::container::{GrapeContainer, RunningGrape};
use grenache_sim::grapes::docker::{NODE_IMAGE, RUST_IMAGE};

use crate::lab::{docker, healthy};

const KINDS: [GrapeKind; 2] = [GrapeKind::Rust, GrapeKind::Node];

async fn start(grape: GrapeContainer) -> ContainerAsync<GrapeContainer> {
    let started = grape.with_readonly_rootfs(true).with_cap_drop("ALL").start().await;
    started.expect("a Grape needs neither files nor capabilities")
}

#[test]
#[ignore = "needs Docker"]
fn our_image_is_below_20_mb() {
    let size: u64 = docker(&["image", "inspect", "--format", "{{.Size}}", RUST_IMAGE]).parse().expect("bytes");
    assert!(size < 20_000_000, "{size} bytes");
    let layers = docker(&["image", "inspect", "--format", "{{len .RootFS.Layers}}", RUST_IMAGE]);
    assert_eq!(layers, "2", "the binary and the folder for its state");
}

#[test]
#[ignore = "needs Docker"]
fn images_say_what_they_are() {
    for (image, title, version) in
        [(RUST_IMAGE, "grenache-grape", env!("CARGO_PKG_VERSION")), (NODE_IMAGE, "grenache-grape-node", "1.0.0")]
    {
        let label = |name: &str| {
            let format = format!("{{{{index .Config.Labels \"org.opencontainers.image.{name}\"}}}}");
            docker(&["image", "inspect", "--format", &format, image])
        };
        assert_eq!((label("title").as_str(), label("version").as_str()), (title, version));
        assert_eq!(label("licenses"), "Apache-2.0");
        let ports = docker(&["image", "inspect", "--format", "{{json .Config.ExposedPorts}}", image]);
        assert_eq!(ports, r#"{"20001/udp":{},"30001/tcp":{}}"#);
    }
}

#[tokio::test]
#[ignore = "needs Docker"]
async fn no_process_is_roots() {
    for kind in KINDS {
        let grape = start(GrapeContainer::new(kind)).await;
        let processes = docker(&["top", grape.id(), "-eo", "pid,uid,args"]);
        let users: Vec<&str> = processes.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).collect();
        assert!(!users.is_empty() && users.iter().all(|user| *user == "65532"), "{processes}");
    }
}

#[tokio::test]
#[ignore = "needs Docker"]
async fn health_is_that_of_the_grape_on_its_own_ports() {
    // Other ports than the images expose: the check has to find them.
    let grapes = KINDS.map(|kind| start(GrapeContainer::new(kind).dht_port(20005).api_port(40001)));
    let [ours, theirs] = grapes;
    let (ours, theirs) = (ours.await, theirs.await);
    let mapped = format!("0.0.0.0:{}", ours.api_addr().await.expect("mapped").port());
    let ports = docker(&["port", ours.id(), "40001/tcp"]);
    assert!(ports.lines().any(|line| line == mapped), "{ports}");
    tokio::join!(healthy(ours.id()), healthy(theirs.id()));

    let ask = |url: &str| {
        let run =
            std::process::Command::new("docker").args(["exec", ours.id(), "/grenache", "grape-health", url]).output();
        run.expect("docker runs").status.code()
    };
    assert_eq!(ask("127.0.0.1:40001"), Some(0));
    assert_eq!(ask("127.0.0.1:30001"), Some(1), "nothing answers there");
}

#[tokio::test]
#[ignore = "needs Docker"]
async fn a_grape_ends_when_it_is_asked_to() {
    // 143 is how a program without a handler ends by SIGTERM.
    for (kind, code) in [(GrapeKind::Rust, 0), (GrapeKind::Node, 143)] {
        let grape = start(GrapeContainer::new(kind)).await;
        grape.stop_with_timeout(Some(30)).await.expect("it stops");
        assert_eq!(grape.exit_code().await.expect("it has ended"), Some(code), "{kind}");
    }
}

#[tokio::test]
#[ignore = "needs Docker"]
async fn a_restarted_grape_has_its_id_again() {
    let grape = GrapeContainer::default().option("--state", "/state/grape.json").option("--log", "info");
    let grape = grape.start().await.expect("it may write into /state");
    grape.stop_with_timeout(Some(30)).await.expect("it stops");
    grape.start().await.expect("it starts again");
    healthy(grape.id()).await;

    let log = String::from_utf8(grape.stderr_to_vec().await.expect("its log")).expect("UTF-8");
    let ids: Vec<&str> = log.lines().filter_map(|line| Some(line.split_once(" id=")?.1)).collect();
    assert_eq!(ids.len(), 2, "{log}");
    assert_eq!(ids[0], ids[1]);
}

#[tokio::test]
#[ignore = "needs Docker"]
async fn a_test_is_told_why_its_grape_does_not_start() {
    let grape = GrapeContainer::default().with_cmd(["--dp", "20001"]).with_startup_timeout(Duration::from_secs(30));
    let error = grape.start().await.expect_err("there is no --bn").to_string();
    assert!(error.contains("--bn <NODES>"), "{error}");
}
