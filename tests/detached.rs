//! A detached task is gone when it has returned, memory and all. In a process of its own, whose memory is looked at.
#![cfg(target_os = "linux")]

use std::sync::Arc;

use grenache::net::{HostNetwork, Net};
use tokio::runtime::Handle;

/// What the process has in memory, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn a_detached_task_leaves_no_memory_behind() {
    const TASKS: usize = 100;
    const ROUNDS: usize = 3000;
    const SIZE: usize = 1 << 10;
    let net: Net = Arc::new(HostNetwork::new());
    let baseline = Handle::current().metrics().num_alive_tasks();
    let before = resident();
    for _ in 0..ROUNDS {
        for _ in 0..TASKS {
            net.spawn(Box::pin(tokio::task::unconstrained(async {
                let kept = std::hint::black_box([1_u8; SIZE]);
                tokio::task::yield_now().await;
                assert_eq!(std::hint::black_box(kept)[SIZE - 1], 1);
            })))
            .detach();
        }
        while Handle::current().metrics().num_alive_tasks() > baseline {
            tokio::task::yield_now().await;
        }
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes more after {} tasks", TASKS * ROUNDS);
}
