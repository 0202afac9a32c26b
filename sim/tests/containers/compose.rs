//! `docker/compose.yaml`.

use std::net::SocketAddr;
use std::process::Command;

use crate::lab::{announce, healthy, link, lookup, printed, root, unique};

/// A run of the file, taken down where it goes out of scope.
struct Compose {
    project: String,
    /// The plugin of today, or the program that was before it.
    plugin: bool,
}

impl Compose {
    fn new(project: &str) -> Self {
        let plugin = Command::new("docker").args(["compose", "version"]).output();
        let plugin = plugin.is_ok_and(|output| output.status.success());
        Self { project: unique(project), plugin }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(if self.plugin { "docker" } else { "docker-compose" });
        if self.plugin {
            command.arg("compose");
        }
        command.current_dir(root()).args(["-p", &self.project, "-f", "docker/compose.yaml"]).args(arguments);
        command
    }

    /// The containers that are up, each with its id.
    fn containers(&self) -> Vec<String> {
        printed(&mut self.command(&["--profile", "mixed", "ps", "-q"])).lines().map(str::to_owned).collect()
    }
}

impl Drop for Compose {
    fn drop(&mut self) {
        let _ = self.command(&["--profile", "mixed", "down", "--volumes"]).output();
    }
}

fn api(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

#[tokio::test]
#[ignore = "needs Docker"]
async fn two_as_in_the_originals_readme_and_a_third_of_its_own() {
    let compose = Compose::new("compose");
    printed(&mut compose.command(&["up", "-d"]));
    let two = compose.containers();
    assert_eq!(two.len(), 2);
    for container in &two {
        healthy(container).await;
    }
    let (first, second) = (link(api(30001)), link(api(40001)));
    announce(&first, "at_first", 1337).await;
    announce(&second, "at_second", 1338).await;
    assert_eq!(lookup(&second, "at_first", 1).await[0].port(), 1337);
    assert_eq!(lookup(&first, "at_second", 1).await[0].port(), 1338);

    printed(&mut compose.command(&["--profile", "mixed", "up", "-d"]));
    let three = compose.containers();
    assert_eq!(three.len(), 3);
    assert!(two.iter().all(|container| three.contains(container)), "the two go on: {two:?}, {three:?}");
    for container in &three {
        healthy(container).await;
    }
    let third = link(api(50001));
    announce(&third, "at_third", 1339).await;
    assert_eq!(lookup(&first, "at_third", 1).await, lookup(&second, "at_third", 1).await);
    assert_eq!(lookup(&third, "at_first", 1).await[0].port(), 1337);

    printed(&mut compose.command(&["--profile", "mixed", "down"]));
    assert!(compose.containers().is_empty());
}
