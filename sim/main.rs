//! The command line `grenache`.

use std::process::ExitCode;

mod cli;

fn main() -> ExitCode {
    cli::main()
}
