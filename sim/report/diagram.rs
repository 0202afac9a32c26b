//! A run as a Mermaid sequence diagram: for READMEs, so that it tells the story and leaves the packets out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::SocketAddr;

use grenache::event::Event as StackEvent;

use super::picture::Lanes;
use super::picture::lanes::LaneKind;
use crate::event::{Event, LabEvent, Record};
use crate::scenario::Scenario;

/// How many steps are drawn; later ones are counted.
pub const MAX_STEPS: usize = 60;

/// How many requests and packets may be under way; of more, the oldest is given up.
const UNDER_WAY: usize = 10_000;

/// How much of a value or a name is shown, in characters.
const SHOWN: usize = 48;

/// Gathers a run's story from its events: who is asked for what, what is punched, what goes wrong. What happens again is
/// counted where it happened first.
#[derive(Debug)]
pub struct Diagram {
    lanes: Lanes,
    steps: Vec<(Step, u64)>,
    known: BTreeMap<Step, usize>,
    left_out: BTreeSet<Step>,
    /// Who asked, by the request's id.
    asked: BTreeMap<String, usize>,
    /// Who answered, by the request's id.
    answered: BTreeMap<String, usize>,
    packets: BTreeMap<u64, Sent>,
}

/// A packet under way that is worth a step, or would be if it were lost.
#[derive(Debug)]
struct Sent {
    from: usize,
    destination: SocketAddr,
    last: usize,
    what: String,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Arrow { from: usize, to: usize, arrow: &'static str, text: String },
    Note { over: Option<usize>, text: String },
}

impl Diagram {
    /// A diagram of a scenario in which nothing has happened yet.
    pub fn new(scenario: &Scenario) -> Self {
        Self {
            lanes: Lanes::new(scenario),
            steps: Vec::new(),
            known: BTreeMap::new(),
            left_out: BTreeSet::new(),
            asked: BTreeMap::new(),
            answered: BTreeMap::new(),
            packets: BTreeMap::new(),
        }
    }

    /// Takes an event.
    pub fn observe(&mut self, record: &Record) {
        let at = record.at.as_ref().and_then(|name| self.lanes.index(name));
        match (&record.event, at) {
            (Event::Lab(event), at) => self.observe_lab(at, event),
            (Event::Stack(event), Some(at)) => self.observe_stack(at, event),
            (Event::Stack(_), None) => {}
        }
    }

    fn observe_lab(&mut self, at: Option<usize>, event: &LabEvent) {
        match (event, at) {
            (LabEvent::PacketSent { packet, destination, summary, .. }, Some(from)) => {
                let what = match summary.split(' ').collect::<Vec<_>>()[..] {
                    ["punch", ..] => "punch".to_owned(),
                    ["utp", kind, ..] => format!("µTP {kind}"),
                    _ => return,
                };
                self.packets.insert(*packet, Sent { from, destination: *destination, last: from, what });
                if self.packets.len() > UNDER_WAY {
                    self.packets.pop_first();
                }
            }
            (LabEvent::PacketTranslated { packet, destination, .. }, Some(at)) => {
                if let Some(sent) = self.packets.get_mut(packet) {
                    (sent.last, sent.destination) = (at, *destination);
                }
            }
            (LabEvent::PacketDelivered { packet }, Some(to)) => {
                if let Some(Sent { from, what, .. }) = self.packets.remove(packet)
                    && what == "punch"
                {
                    self.step(Step::Arrow { from, to, arrow: "-)", text: what });
                }
            }
            (LabEvent::PacketDropped { packet, hop, rule }, at) => {
                let Some(sent) = self.packets.remove(packet) else { return };
                let decided = hop.starts_with("nat ") || hop.starts_with("host ");
                let toward = || self.lanes.toward(sent.last, sent.destination.ip());
                let Some(to) = (if decided { at } else { toward().or(at) }) else { return };
                let text = format!("{}: {}", sent.what, reason(rule));
                self.step(Step::Arrow { from: sent.from, to, arrow: "-x", text });
            }
            (LabEvent::FaultBegan { fault }, _) => self.note(None, format!("fault: {fault}")),
            (LabEvent::FaultEnded { fault }, _) => self.note(None, format!("over: {fault}")),
            (LabEvent::NodeCrashed, Some(at)) => self.note(Some(at), "crashed".to_owned()),
            (LabEvent::ProgramFailed { program, error }, Some(at)) => {
                self.note(Some(at), format!("{program} failed: {error}"));
            }
            (LabEvent::Expectation { expectation, met: false, .. }, _) => {
                self.note(None, format!("not met: {expectation}"));
            }
            _ => {}
        }
    }

    fn observe_stack(&mut self, at: usize, event: &StackEvent) {
        match event {
            StackEvent::Announced { name, .. } => self.note(Some(at), format!("announced {name}")),
            StackEvent::LookedUp { name, addresses } if !addresses.is_empty() => {
                self.note(Some(at), format!("found {name}"));
            }
            StackEvent::Handshake { .. } => self.note(Some(at), "punched through, both ways".to_owned()),
            StackEvent::Connected { rung, .. } => self.note(Some(at), format!("connects: {rung}")),
            StackEvent::RelayOpened { .. } => self.note(Some(at), "opens a relay".to_owned()),
            StackEvent::RequestSent { rid, .. } => remember(&mut self.asked, rid, at),
            StackEvent::RequestReceived { rid, key, .. } => {
                if let Some(from) = self.asked.get(rid).copied() {
                    self.step(Step::Arrow { from, to: at, arrow: "->>", text: format!("asks {key}") });
                }
            }
            StackEvent::ReplySent { rid, .. } => remember(&mut self.answered, rid, at),
            StackEvent::ReplyReceived { rid, value, .. } => {
                self.asked.remove(rid);
                if let Some(from) = self.answered.remove(rid) {
                    self.step(Step::Arrow { from, to: at, arrow: "-->>", text: value.to_string() });
                }
            }
            StackEvent::RequestFailed { key, error, .. } => {
                self.note(Some(at), format!("request to {key} failed: {error}"));
            }
            _ => {}
        }
    }

    fn note(&mut self, over: Option<usize>, text: String) {
        self.step(Step::Note { over, text });
    }

    fn step(&mut self, mut step: Step) {
        let (Step::Arrow { text, .. } | Step::Note { text, .. }) = &mut step;
        *text = cut(text);
        if let Some(index) = self.known.get(&step) {
            self.steps[*index].1 += 1;
        } else if self.steps.len() == MAX_STEPS {
            if self.left_out.len() < UNDER_WAY {
                self.left_out.insert(step);
            }
        } else {
            self.known.insert(step.clone(), self.steps.len());
            self.steps.push((step, 1));
        }
    }

    /// The diagram, with a newline at its end. The same run gives the same text.
    pub fn mermaid(&self) -> String {
        let mut used = BTreeSet::new();
        for (step, _) in &self.steps {
            match step {
                Step::Arrow { from, to, .. } => used.extend([*from, *to]),
                Step::Note { over, .. } => used.extend(*over),
            }
        }
        let mut out = "sequenceDiagram\n".to_owned();
        let mut line = |text: std::fmt::Arguments<'_>| writeln!(out, "    {text}").expect("a String takes all");
        for index in &used {
            let lane = &self.lanes.all()[*index];
            match lane.kind {
                LaneKind::Host => line(format_args!("participant p{index} as {}", lane.name)),
                LaneKind::Nat => line(format_args!("participant p{index} as NAT {}", lane.name)),
            }
        }
        let (Some(first), Some(last)) = (used.first(), used.last()) else { return out };
        let all = if first == last { format!("p{first}") } else { format!("p{first},p{last}") };
        for (step, times) in &self.steps {
            let times = if *times > 1 { format!(" (×{times})") } else { String::new() };
            match step {
                Step::Arrow { from, to, arrow, text } => {
                    line(format_args!("p{from}{arrow}p{to}: {}{times}", escape(text)));
                }
                Step::Note { over: Some(over), text } => {
                    line(format_args!("Note over p{over}: {}{times}", escape(text)))
                }
                Step::Note { over: None, text } => line(format_args!("Note over {all}: {}{times}", escape(text))),
            }
        }
        if !self.left_out.is_empty() {
            let count = self.left_out.len();
            line(format_args!("Note over {all}: {count} later kinds of steps are left out"));
        }
        out
    }
}

fn remember(requests: &mut BTreeMap<String, usize>, rid: &str, at: usize) {
    requests.insert(rid.to_owned(), at);
    if requests.len() > UNDER_WAY {
        requests.pop_first();
    }
}

/// A rule without what tells one packet from the next: `no mapping for port 57118` is `no mapping`.
fn reason(rule: &str) -> &str {
    [": ", " for port ", " on port ", " at ", " ("]
        .iter()
        .fold(rule, |rest, end| rest.split(end).next().unwrap_or(rest))
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Text that Mermaid takes for nothing else, whoever wrote it: it reads `#…;` as a character, and `;` as an end.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            // `%%` begins a comment, and `%%{` a directive.
            '%' if rest.peek().is_none_or(|next| !"%{".contains(*next)) => escaped.push('%'),
            '#' | ';' | '<' | '>' | '&' | '`' | '%' => {
                write!(escaped, "#{};", u32::from(c)).expect("a String takes all");
            }
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;

    fn scenario() -> Scenario {
        let text = "[node.a]\n[node.b]\nbehind = \"home\"\n[nat.home]\n[[program]]\nnode = \"a\"\nrun = \"grape\"\n\
                    dht-port = 1\napi-port = 2\n";
        crate::scenario::parse("test", text).expect("it is a scenario")
    }

    fn at(name: &str, event: StackEvent) -> Record {
        Record { at_ns: 0, at: Some(name.into()), event: Event::Stack(event) }
    }

    #[test]
    fn what_a_peer_says_cannot_write_the_diagram() {
        let mut diagram = Diagram::new(&scenario());
        let name = "x\n    p0->>p1: #lt; forged; %%{init}%%".to_owned();
        diagram.observe(&at("a", StackEvent::Announced { name, port: 1, nodes: 1 }));
        let text = diagram.mermaid();
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.contains("x     p0-#62;#62;p1: #35;lt#59; forged#59;"), "{text}");
        assert!(!text.contains("%%"), "{text}");
        assert_eq!(escape("5% %%{}"), "5% #37;#37;{}");
    }

    #[test]
    fn a_reason_is_without_what_differs_each_time() {
        for (rule, short) in [
            ("no mapping for port 57118", "no mapping"),
            ("filtered: nothing was sent from port 5 to 203.0.113.5 (address-dependent)", "filtered"),
            ("queue full (256 KiB)", "queue full"),
            ("no host at 203.0.113.9", "no host"),
            ("partition", "partition"),
        ] {
            assert_eq!(reason(rule), short);
        }
    }

    #[test]
    fn what_happens_again_is_counted_and_what_is_too_much_too() {
        let mut diagram = Diagram::new(&scenario());
        let found = |name: String| StackEvent::Announced { name, port: 1, nodes: 1 };
        for number in 0..MAX_STEPS + 5 {
            diagram.observe(&at("a", found(format!("service{number}"))));
            diagram.observe(&at("a", found("service0".to_owned())));
        }
        let text = diagram.mermaid();
        assert!(text.contains(&format!("announced service0 (×{})", MAX_STEPS + 6)), "{text}");
        assert!(text.ends_with("5 later kinds of steps are left out\n"), "{text}");
        assert_eq!(text.lines().count(), 2 + MAX_STEPS + 1);
    }
}
