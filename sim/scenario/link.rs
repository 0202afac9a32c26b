//! `[link.NAME]`: from the table as it is written to the link that is made of it.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor, value::SeqAccessDeserializer};
use toml::Spanned;

use super::error::Problems;
use super::model::{Discipline, GilbertElliott, Link, Name, Spread};
use super::raw::{File, Text};
use super::topology::{defined, shared};
use super::units::{Percentage, Places, Rate, Size, Time};

/// The most latencies of a recording.
const MAX_TRACE: usize = 1_000_000;

/// The least MTU: IPv4 has no smaller one (RFC 791, 3.2).
const LEAST_MTU: usize = 68;

/// The largest packet that hosts send.
const MOST_MTU: usize = crate::engine::MTU;

/// `[link.NAME]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct LinkTable {
    latency: Option<Spanned<Time>>,
    jitter: Option<Spanned<Time>>,
    loss: Option<Percentage>,
    rate: Option<Spanned<Rate>>,
    queue: Option<Spanned<Size>>,
    distribution: Option<Spanned<Distribution>>,
    trace: Option<Spanned<Trace>>,
    reordering: Option<bool>,
    burst_loss: Option<BurstTable>,
    #[serde(default)]
    lose: Vec<Places>,
    duplicate: Option<Percentage>,
    corrupt: Option<Percentage>,
    checksums: Option<Spanned<bool>>,
    discipline: Option<Spanned<QueueDiscipline>>,
    burst: Option<Spanned<Size>>,
    mtu: Option<Spanned<Size>>,
    fragments: Option<Spanned<bool>>,
    up: Option<Text>,
    down: Option<Text>,
}

/// How latencies are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Distribution {
    Uniform,
    Normal,
}

/// How a queue is kept short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum QueueDiscipline {
    DropTail,
    #[serde(rename = "codel")]
    CoDel,
}

/// Loss in bursts.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct BurstTable {
    enter: Percentage,
    leave: Percentage,
    good: Option<Percentage>,
    bad: Option<Percentage>,
}

/// Recorded latencies, or the file that has them.
#[derive(Debug)]
enum Trace {
    Here(Vec<Time>),
    File(String),
}

impl<'de> Deserialize<'de> for Trace {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Trace;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of durations, or a file's name in quotes")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Trace, E> {
                Ok(Trace::File(name.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Trace, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(Trace::Here)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// Makes links of the file's tables.
pub(super) fn links(problems: &mut Problems, file: &File) -> BTreeMap<Name, Link> {
    let mut links: BTreeMap<Name, Link> =
        file.links.iter().map(|(name, table)| (shared(name), link(problems, table))).collect();
    let plain = links.clone();
    for (name, table) in &file.links {
        for (written, up) in [(&table.up, true), (&table.down, false)] {
            let Some(written) = written else { continue };
            let Some(other) = defined(problems, "link", written, &plain) else { continue };
            let named = file.links.iter().find(|(name, _)| name.get_ref() == written.get_ref());
            if let Some((_, table)) = named
                && (table.up.is_some() || table.down.is_some())
            {
                let key = if up { "up" } else { "down" };
                problems
                    .add(written.span(), format!("`{other}` goes over other links itself"))
                    .help(format!("name a link with neither `up` nor `down` as `{key}`"));
                continue;
            }
            let direction = plain.get(&other).cloned().map(Box::new);
            let Some(link) = links.get_mut(name.get_ref().as_str()) else { continue };
            if up {
                link.up = direction;
            } else {
                link.down = direction;
            }
        }
    }
    links
}

fn link(problems: &mut Problems, table: &LinkTable) -> Link {
    let default = Link::default();
    let time = |written: &Option<Spanned<Time>>| written.as_ref().map_or(Duration::ZERO, |time| time.get_ref().0);
    let size = |written: &Option<Spanned<Size>>| written.as_ref().map(|size| size.get_ref().0);
    let share = |written: Option<Percentage>| written.map_or(0.0, |share| share.0);
    check_latency(problems, table);
    check_rate(problems, table);
    check_mtu(problems, table);
    if let Some(checksums) = &table.checksums
        && table.corrupt.is_none()
    {
        problems
            .add(checksums.span(), "checksums find nothing where nothing is corrupt")
            .help("add `corrupt`, or leave `checksums` out");
    }
    let spread = match (&table.trace, &table.distribution) {
        (Some(trace), _) => Spread::Trace(recorded(problems, trace).into()),
        (None, Some(written)) if *written.get_ref() == Distribution::Normal => Spread::Normal,
        _ => Spread::Uniform,
    };
    Link {
        latency: time(&table.latency),
        jitter: time(&table.jitter),
        loss: share(table.loss),
        rate: table.rate.as_ref().map(|rate| rate.get_ref().0),
        queue: size(&table.queue).unwrap_or(default.queue),
        spread,
        reordering: table.reordering.unwrap_or(default.reordering),
        bursts: table.burst_loss.as_ref().map(|table| GilbertElliott {
            enter: table.enter.0,
            leave: table.leave.0,
            good: share(table.good),
            bad: table.bad.map_or(1.0, |share| share.0),
        }),
        lose: table.lose.iter().map(|places| (places.0, places.1)).collect(),
        duplicate: share(table.duplicate),
        corrupt: share(table.corrupt),
        checksums: table.checksums.as_ref().map_or(default.checksums, |written| *written.get_ref()),
        discipline: match table.discipline.as_ref().map(Spanned::get_ref) {
            Some(QueueDiscipline::CoDel) => Discipline::CoDel,
            Some(QueueDiscipline::DropTail) | None => Discipline::DropTail,
        },
        burst: size(&table.burst).unwrap_or(default.burst),
        mtu: size(&table.mtu),
        fragments: table.fragments.as_ref().map_or(default.fragments, |written| *written.get_ref()),
        ..default
    }
}

fn check_latency(problems: &mut Problems, table: &LinkTable) {
    let is_normal = table.distribution.as_ref().is_some_and(|written| *written.get_ref() == Distribution::Normal);
    let latency = table.latency.as_ref().map_or(Duration::ZERO, |latency| latency.get_ref().0);
    if let Some(jitter) = &table.jitter {
        if let Some(trace) = &table.trace {
            problems
                .add(jitter.span(), "a trace has its jitter in it")
                .label("not used")
                .also(trace.span(), "the trace")
                .help("leave `jitter` out");
        } else if jitter.get_ref().0 > latency && !is_normal {
            let jitter_time = jitter.get_ref().0;
            problems
                .add(jitter.span(), format!("a jitter of {jitter_time:?} is more than the latency of {latency:?}"))
                .help("a packet takes latency ± jitter: no packet can arrive before it is sent");
        }
    }
    if let Some(written) = &table.distribution {
        if let Some(trace) = &table.trace {
            problems
                .add(written.span(), "a trace is drawn from no distribution")
                .label("not used")
                .also(trace.span(), "the trace")
                .help("leave one of both out");
        } else if is_normal && table.jitter.is_none() {
            problems
                .add(written.span(), "a normal distribution needs its standard deviation")
                .help("write it as `jitter`, such as \"5ms\"");
        }
    }
}

fn check_rate(problems: &mut Problems, table: &LinkTable) {
    if table.rate.is_some() {
        return;
    }
    if let Some(queue) = &table.queue {
        problems
            .add(queue.span(), "a queue without a rate is never used")
            .help("packets wait where a link has a rate: add `rate`, or leave `queue` out");
    }
    if let Some(discipline) = &table.discipline {
        problems
            .add(discipline.span(), "a queue without a rate is never used")
            .help("packets wait where a link has a rate: add `rate`, or leave `discipline` out");
    }
    if let Some(burst) = &table.burst {
        problems
            .add(burst.span(), "without a rate every burst goes out at once")
            .help("add `rate`, or leave `burst` out");
    }
}

fn check_mtu(problems: &mut Problems, table: &LinkTable) {
    if let Some(mtu) = &table.mtu
        && !(LEAST_MTU..=MOST_MTU).contains(&mtu.get_ref().0)
    {
        problems.add(mtu.span(), format!("an MTU is from {LEAST_MTU} B to {MOST_MTU} B")).help(format!(
            "hosts send no IP packet larger than {MOST_MTU} B; IPv4 takes every link with {LEAST_MTU} B"
        ));
    }
    if let (Some(fragments), None) = (&table.fragments, &table.mtu) {
        problems
            .add(fragments.span(), "every packet fits: nothing is sent in fragments")
            .help("add `mtu`, or leave `fragments` out");
    }
}

/// The latencies of a trace.
fn recorded(problems: &mut Problems, trace: &Spanned<Trace>) -> Vec<Duration> {
    let times = match trace.get_ref() {
        Trace::Here(times) => times.iter().map(|time| time.0).collect(),
        Trace::File(name) => {
            let path = problems.folder(&trace.span()).join(name);
            match fs::read_to_string(&path) {
                Ok(text) => read_trace(problems, trace, &path.display().to_string(), &text),
                Err(error) => {
                    let problem = problems.add(trace.span(), format!("cannot read {}: {error}", path.display()));
                    problem.help("the name is relative to this file's folder");
                    return Vec::new();
                }
            }
        }
    };
    if times.is_empty() {
        problems.add(trace.span(), "the trace has no latency").help("write at least one, such as [\"20ms\"]");
    } else if times.len() > MAX_TRACE {
        problems.add(trace.span(), format!("the trace has {} latencies: {MAX_TRACE} is the limit", times.len()));
    }
    times
}

/// A trace file: a duration a line; empty lines and what follows a `#` are nothing.
fn read_trace(problems: &mut Problems, trace: &Spanned<Trace>, name: &str, text: &str) -> Vec<Duration> {
    let mut times = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        match Time::read(line) {
            Ok(time) => times.push(time.0),
            Err(problem) => {
                problems.add(trace.span(), format!("{name}:{number}: {problem}"));
                return vec![Duration::ZERO];
            }
        }
    }
    times
}
