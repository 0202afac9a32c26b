//! Our own logs of a Grape, on standard error.

use std::io;

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt;

use super::args::{GrapeArgs, LogFormat};
use crate::cli::terminal::wants_colour;

/// Starts the logging of this process, for good.
pub(super) fn start(args: &GrapeArgs, default: LevelFilter) {
    let builder = fmt().with_writer(io::stderr).with_max_level(args.log.unwrap_or(default)).with_target(false);
    match args.log_format {
        LogFormat::Text => builder.with_ansi(wants_colour(&io::stderr())).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}
