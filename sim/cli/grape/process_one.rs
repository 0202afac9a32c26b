//! The Grape that is process 1, as in a container: where its API is.

use std::fs;
use std::io;

use clap::{Args, Command, FromArgMatches};

use super::args::GrapeArgs;
use super::bootstrap::HostPort;

/// Where Linux keeps the arguments of the first process that this one can see.
const ARGUMENTS: &str = "/proc/1/cmdline";

/// The API of the Grape that is process 1, or `None` where that is something else.
pub(super) fn api() -> io::Result<Option<HostPort>> {
    Ok(api_of(&fs::read(ARGUMENTS)?))
}

/// Reads arguments that each end with a zero byte. What is before `grape` is the program, and a small init where
/// the container has one.
fn api_of(arguments: &[u8]) -> Option<HostPort> {
    let arguments = arguments.strip_suffix(&[0])?.split(|byte| *byte == 0).map(str::from_utf8);
    let arguments: Vec<&str> = arguments.collect::<Result<_, _>>().ok()?;
    let grape = arguments.iter().position(|argument| *argument == "grape")?;
    let command = GrapeArgs::augment_args(Command::new("grape"));
    let matches = command.try_get_matches_from(&arguments[grape..]).ok()?;
    GrapeArgs::from_arg_matches(&matches).ok()?.local_api()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_is_where_the_arguments_put_it() {
        for (arguments, api) in [
            ("/grenache grape --dp 20001 --aph 30001 --bn x:1", Some("127.0.0.1:30001")),
            ("/grenache grape --dht_port=20001 --api_port=40001 --bn x:1", Some("127.0.0.1:40001")),
            ("/grenache grape --dp 1 --aph 30001 --bn x:1 --bind 10.0.0.1", Some("10.0.0.1:30001")),
            ("/sbin/docker-init -- /grenache grape --dp 1 --aph 2 --bn x:1", Some("127.0.0.1:2")),
            ("/grenache grape --dp 1 --aph 0 --bn x:1", None),
            ("/grenache grape --dp 1", None),
            ("/sbin/init", None),
        ] {
            let bytes: Vec<u8> = arguments.split(' ').flat_map(|argument| argument.bytes().chain([0])).collect();
            assert_eq!(api_of(&bytes).map(|api| api.to_string()).as_deref(), api, "{arguments}");
        }
        assert!(api_of(b"").is_none());
    }
}
