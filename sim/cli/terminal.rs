//! Standard output and standard error, as a person or a pipe wants them.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressStyle};
use miette::GraphicalTheme;

/// The narrowest and widest lines of rendered errors, in columns.
const WIDTHS: std::ops::RangeInclusive<usize> = 60..=120;

/// An error with what caused it, in a line.
#[derive(Debug)]
pub(super) struct Causes<'a>(pub(super) &'a dyn std::error::Error);

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut error = self.0;
        while let Some(cause) = error.source() {
            write!(f, ": {cause}")?;
            error = cause;
        }
        Ok(())
    }
}

/// Where everything is written. A closed pipe ends the writing, not the process: runs go on, and so does `--out`.
#[derive(Debug)]
pub(super) struct Terminal {
    colour: bool,
    closed: bool,
    /// Whether standard output is for something else, and lines go to standard error.
    aside: bool,
    progress: Option<ProgressBar>,
}

/// How a word is set off.
#[derive(Debug, Clone, Copy)]
pub(super) enum Tone {
    Good,
    Bad,
    Plain,
}

impl Terminal {
    pub(super) fn new() -> Self {
        Self { colour: wants_colour(&io::stdout()), closed: false, aside: false, progress: None }
    }

    /// Keeps standard output free: from now on lines go to standard error.
    pub(super) fn step_aside(&mut self) {
        self.aside = true;
        self.colour = wants_colour(&io::stderr());
    }

    /// Whether lines are for somebody's eyes, and not for a pipe or a file.
    pub(super) fn is_watched(&self) -> bool {
        if self.aside { io::stderr().is_terminal() } else { io::stdout().is_terminal() }
    }

    /// Writes a line to standard output, or beside it.
    pub(super) fn line(&mut self, line: impl fmt::Display) {
        if self.closed {
            return;
        }
        if self.aside {
            return self.error(line);
        }
        let write = || {
            let mut out = io::stdout().lock();
            writeln!(out, "{line}").and_then(|()| out.flush())
        };
        let written = match &self.progress {
            Some(progress) => progress.suspend(write),
            None => write(),
        };
        self.closed = written.is_err();
    }

    /// Writes text to standard error. Where that is closed, nobody wants it.
    pub(super) fn error(&mut self, text: impl fmt::Display) {
        let write = || {
            let mut out = io::stderr().lock();
            let _ = writeln!(out, "{text}").and_then(|()| out.flush());
        };
        match &self.progress {
            Some(progress) => progress.suspend(write),
            None => write(),
        }
    }

    /// A word in its tone.
    pub(super) fn tone(&self, tone: Tone, word: &str) -> String {
        match tone {
            Tone::Good if self.colour => format!("\u{1b}[32m{word}\u{1b}[0m"),
            Tone::Bad if self.colour => format!("\u{1b}[1;31m{word}\u{1b}[0m"),
            _ => word.to_owned(),
        }
    }

    /// How errors in files are drawn on standard error: their theme and their width.
    pub(super) fn theme(&self) -> (GraphicalTheme, usize) {
        let stderr = io::stderr();
        if !stderr.is_terminal() {
            return (GraphicalTheme::none(), 100);
        }
        let width = console_width().clamp(*WIDTHS.start(), *WIDTHS.end());
        let theme = if wants_colour(&stderr) { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        (theme, width)
    }

    /// Shows how many of `total` are done, where someone is looking.
    pub(super) fn show_progress(&mut self, done: usize, total: usize) {
        if self.progress.is_none() && io::stderr().is_terminal() {
            let style = ProgressStyle::with_template("{bar:32} {pos} of {len} runs, {eta} left")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            self.progress = Some(ProgressBar::new(total as u64).with_style(style));
        }
        if let Some(progress) = &self.progress {
            progress.set_position(done as u64);
        }
    }

    /// Takes the progress bar away.
    pub(super) fn end_progress(&mut self) {
        if let Some(progress) = self.progress.take() {
            progress.finish_and_clear();
        }
    }
}

/// Colour is for terminals, unless <https://no-color.org> is asked for.
pub(super) fn wants_colour(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The terminal's width in columns, where the shell says.
fn console_width() -> usize {
    std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()).unwrap_or(100)
}
