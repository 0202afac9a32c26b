//! Network namespaces: hosts of their own, with addresses, routes and a NAT, on one machine.

use std::future::Future;
use std::thread::JoinHandle;

use nix::sched::{CloneFlags, unshare};
use tokio::process::Command;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// A host of its own: a thread in a network namespace without a name.
///
/// The namespace ends with the last thread or process in it, however that ends, so that nothing is left behind that
/// could be in the way of another run.
#[derive(Debug)]
pub(crate) struct Namespace {
    runtime: Handle,
    path: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Namespace {
    /// Whether there can be namespaces and NATs here.
    pub(crate) fn possible() -> bool {
        let there = |program, flag| std::process::Command::new(program).arg(flag).output().is_ok();
        // In a thread that ends with the namespace.
        let made = std::thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET).is_ok()).join();
        made.is_ok_and(|made| made) && there("ip", "-V") && there("nft", "-v")
    }

    /// A new one, with nothing but loopback.
    pub(crate) async fn new() -> Self {
        let (tell, told) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("the tests with a NAT need root, for network namespaces");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let thread = std::fs::read_link("/proc/thread-self").unwrap();
            tell.send((runtime.handle().clone(), format!("/proc/{}/ns/net", thread.display()))).unwrap();
            // Ends too when the sender is dropped.
            let _ = runtime.block_on(stopped);
        });
        let (runtime, path) = told.await.expect("the namespace was made");
        let namespace = Self { runtime, path, stop: Some(stop), thread: Some(thread) };
        namespace.execute("ip link set lo up").await;
        namespace
    }

    /// Runs something inside.
    pub(crate) async fn run<F: Future<Output: Send> + Send + 'static>(&self, inside: F) -> F::Output {
        self.runtime.spawn(inside).await.expect("what ran inside did not panic")
    }

    /// Runs a command inside; its words are separated by spaces.
    pub(crate) async fn execute(&self, line: &str) {
        let mut words = line.split(' ');
        let mut command = Command::new(words.next().unwrap());
        command.args(words).kill_on_drop(true);
        let output = self.run(async move { command.output().await }).await;
        let output = output.unwrap_or_else(|error| panic!("{line}: {error}: install iproute2 and nftables"));
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Connects this one's `interface` with another's, and gives both an address, as `10.0.0.1/24`.
    pub(crate) async fn connect(
        &self,
        interface: &str,
        address: &str,
        other: &Self,
        others: &str,
        address_there: &str,
    ) {
        let there = &other.path;
        self.execute(&format!("ip link add {interface} type veth peer name {others} netns {there}")).await;
        for (namespace, interface, address) in [(self, interface, address), (other, others, address_there)] {
            namespace.execute(&format!("ip address add {address} dev {interface}")).await;
            namespace.execute(&format!("ip link set {interface} up")).await;
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.stop.take());
        // It has panicked where the namespace could not be made, which has been said.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
