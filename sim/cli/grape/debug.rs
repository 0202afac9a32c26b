//! The original's lines on standard error: `DEBUG=grenache:grape`, as the npm package `debug` understands it.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use grenache::event::Event;
use grenache_sim::runner::wall_now;

use crate::cli::terminal::wants_colour;

/// What the original's lines belong to.
const NAMESPACE: &str = "grenache:grape";

/// The colour that `debug` gives to this namespace, of the six that every terminal has: yellow.
const COLOUR: &str = "\u{1b}[33";

/// Prints what a Grape does, in the original's words.
#[derive(Debug)]
pub(super) struct DebugLines {
    port: u16,
    style: Style,
    /// When the last line was printed.
    last: Mutex<Option<Instant>>,
}

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    /// With the date before it: where standard error is no terminal.
    Dated,
    /// With the time since the line before after it.
    Terminal { colour: bool },
}

impl DebugLines {
    /// The lines of the Grape on this DHT port; `None` where the environment does not ask for them.
    pub(super) fn from_env(port: u16) -> Option<Self> {
        let stderr = io::stderr();
        let style = if stderr.is_terminal() { Style::Terminal { colour: wants_colour(&stderr) } } else { Style::Dated };
        asked_for(&std::env::var("DEBUG").ok()?).then(|| Self { port, style, last: Mutex::default() })
    }

    /// The Grape is about to bind its sockets.
    pub(super) fn starting(&self) {
        self.print(&"starting");
    }

    /// Its DHT node's socket is bound.
    pub(super) fn listening(&self) {
        self.print(&format_args!("{} listening", self.port));
    }

    /// Something happened, of which the original prints a part.
    pub(super) fn observe(&self, event: &Event) {
        if let Some(line) = line(self.port, event) {
            self.print(&line);
        }
    }

    fn print(&self, text: &dyn fmt::Display) {
        let now = wall_now();
        let mut last = self.last.lock().expect("no holder of the lock panics");
        let since = now.duration_since(last.replace(now).unwrap_or(now));
        // A closed standard error is nobody who wants the line.
        let _ = writeln!(io::stderr().lock(), "{}", styled(self.style, text, since, today()));
    }
}

#[expect(clippy::disallowed_methods, reason = "the date in a line for people")]
fn today() -> SystemTime {
    SystemTime::now()
}

/// The original's line for an event, where it has one.
fn line(port: u16, event: &Event) -> Option<String> {
    Some(match event {
        Event::GrapeReady { .. } => format!("{port} ready"),
        Event::NodeFound { .. } => format!("{port} node"),
        Event::PeerStored { name, .. } => format!("{port} announce {}", Printable(name)),
        Event::PeerFound { name, peer, through: None } => {
            format!("{port} found potential peer {peer} for hash: {}", Printable(name))
        }
        Event::PeerFound { name, peer, through: Some(node) } => {
            format!("{port} found potential peer {peer} through {node} for hash: {}", Printable(name))
        }
        Event::GrapeLookup { name, nodes } => format!("lookup {} found {nodes} nodes", Printable(name)),
        Event::Malformed { layer: "krpc", .. } => format!("{port} warning"),
        _ => return None,
    })
}

/// Text of a peer's, without what would move the cursor or forge a line.
struct Printable<'a>(&'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if c.is_control() { write!(f, "{}", c.escape_default())? } else { write!(f, "{c}")? }
        }
        Ok(())
    }
}

fn styled(style: Style, text: &dyn fmt::Display, since: Duration, date: SystemTime) -> String {
    match style {
        Style::Dated => format!("{} {NAMESPACE} {text}", humantime::format_rfc3339_millis(date)),
        Style::Terminal { colour: false } => format!("  {NAMESPACE} {text} +{}", Rough(since)),
        Style::Terminal { colour: true } => {
            format!("  {COLOUR};1m{NAMESPACE} \u{1b}[0m{text} {COLOUR}m+{}\u{1b}[0m", Rough(since))
        }
    }
}

/// A duration in its largest whole unit, rounded.
struct Rough(Duration);

impl fmt::Display for Rough {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = self.0.as_millis();
        for (unit, length) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)] {
            if milliseconds >= length {
                return write!(f, "{}{unit}", (milliseconds + length / 2) / length);
            }
        }
        write!(f, "{milliseconds}ms")
    }
}

/// Whether `DEBUG` names the original's namespace: names with commas or spaces between, `*` for anything, and `-`
/// before what is not wanted.
pub(super) fn asked_for(debug: &str) -> bool {
    let mut wanted = false;
    for name in debug.split([',', ' ', '\t', '\n']) {
        match name.strip_prefix('-') {
            Some(unwanted) if matches(unwanted, NAMESPACE) => return false,
            Some(_) => {}
            None => wanted |= matches(name, NAMESPACE),
        }
    }
    wanted
}

/// Whether `name` is what `template` says, where `*` is any text.
fn matches(template: &str, name: &str) -> bool {
    let Some((start, rest)) = template.split_once('*') else { return template == name };
    let Some(mut name) = name.strip_prefix(start) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        // The first place is the best one: it leaves the most for what follows.
        let Some(at) = name.find(part) else { return false };
        name = &name[at + part.len()..];
    }
    name.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_matched_as_npms_debug_does() {
        for debug in [
            "grenache:grape",
            "*",
            "grenache:*",
            "*:grape",
            "*grape",
            "g*:*e",
            "express,grenache:grape",
            "express grenache:*",
            "a, grenache:grape",
            "*,-express",
            "**",
        ] {
            assert!(asked_for(debug), "{debug:?}");
        }
        for debug in
            ["", "grenache", "grenache:grape:x", "*,-grenache:grape", "-grenache:*,*", "grape", "*:rpc", "*x*", "-*"]
        {
            assert!(!asked_for(debug), "{debug:?}");
        }
    }

    #[test]
    fn a_line_looks_as_npms_debug_writes_it() {
        let date = SystemTime::UNIX_EPOCH + Duration::from_millis(1_764_066_088_361);
        let look = |style, since| styled(style, &"29001 ready", Duration::from_millis(since), date);
        assert_eq!(look(Style::Dated, 0), "2025-11-25T10:21:28.361Z grenache:grape 29001 ready");
        assert_eq!(look(Style::Terminal { colour: false }, 12), "  grenache:grape 29001 ready +12ms");
        assert_eq!(
            look(Style::Terminal { colour: true }, 1_500),
            "  \u{1b}[33;1mgrenache:grape \u{1b}[0m29001 ready \u{1b}[33m+2s\u{1b}[0m"
        );
        for (milliseconds, text) in [(0, "0ms"), (999, "999ms"), (90_000, "2m"), (3_600_000, "1h"), (1 << 40, "12726d")]
        {
            assert_eq!(Rough(Duration::from_millis(milliseconds)).to_string(), text);
        }
    }

    #[test]
    fn a_name_cannot_forge_a_line() {
        let peer = Some(([127, 0, 0, 1], 1).into());
        let stored = Event::PeerStored { name: "a\n20001 ready\u{1b}[2J é".to_owned(), peer };
        assert_eq!(line(20001, &stored).as_deref(), Some("20001 announce a\\n20001 ready\\u{1b}[2J é"));
    }
}
