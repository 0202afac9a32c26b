//! The command line `grenache`: runs and checks scenario files.

use std::process::ExitCode;

mod cli;

fn main() -> ExitCode {
    cli::main()
}
