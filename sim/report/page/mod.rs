//! `report.html`: one file that shows a run, without anything from elsewhere.
//!
//! What is read is written here; what is drawn is drawn in the browser, from data in the file and as wide as the window is,
//! by a script: `common.js`, `sequence.js` and `timeline.js`. Every text is escaped, no script but ours is run, and nothing
//! is loaded: the page's content security policy says so to the browser.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::picture::packets::{Counts, Packet};
use super::picture::{Curve, Fault, Lane, LeftOut, Mapping, Mark, Picture};
use super::{ExpectationOutcome, Run, RunResult, seconds};
use crate::backend::On;
use crate::scenario::Scenario;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = concat!(
    "\"use strict\";\n(() => {\n",
    include_str!("common.js"),
    include_str!("sequence.js"),
    include_str!("timeline.js"),
    "})();\n"
);

/// Writes `folder/NAME-SEED/report.html`, in place of one that is there.
///
/// # Errors
/// Where the folders or the file cannot be made.
pub fn write_report(folder: &Path, run: &Run, scenario: &Scenario, picture: &Picture, replay: &str) -> io::Result<()> {
    let path = report_path(folder, &run.name, run.seed);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, report(run, scenario, picture, replay))
}

/// Where [`write_report`] puts the report of a run.
pub fn report_path(folder: &Path, name: &str, seed: u64) -> PathBuf {
    folder.join(format!("{name}-{seed}")).join("report.html")
}

/// A run as a page. The same run gives the same bytes: the real time that it took is not told.
pub fn report(run: &Run, scenario: &Scenario, picture: &Picture, replay: &str) -> String {
    let title = format!("{}, seed {}: {}", run.name, run.seed, run.verdict());
    let policy = format!(
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{}'; base-uri 'none'; form-action 'none'",
        STANDARD.encode(Sha256::digest(SCRIPT))
    );
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (heading(run, scenario, picture))
                main {
                    (expectations(run))
                    (story(run))
                    (drawings())
                    (again(run, replay))
                }
                script #data type="application/json" { (PreEscaped(data(run, picture))) }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    page.into_string()
}

fn heading(run: &Run, scenario: &Scenario, picture: &Picture) -> Markup {
    let Counts { sent, delivered, dropped } = picture.packets().counts();
    html! {
        header {
            p.over { "grenache scenario" }
            h1 { (run.name) " " span class={ "verdict " (run.verdict()) } { (run.verdict()) } }
            @if !scenario.description.is_empty() { p.description { (scenario.description) } }
            dl.facts {
                div { dt { "seed" } dd { (run.seed) } }
                @if let Some(simulated) = run.simulated() { div { dt { "simulated time" } dd { (seconds(simulated)) } } }
                @if sent > 0 {
                    div { dt { "packets sent" } dd { (sent) } }
                    div { dt { "delivered" } dd { (delivered) } }
                    div { dt { "dropped" } dd class=[(dropped > 0).then_some("some")] { (dropped) } }
                }
            }
        }
    }
}

fn expectations(run: &Run) -> Markup {
    let RunResult::Done(outcome) = &run.result else { return html! {} };
    html! {
        section #expectations {
            h2 { "Expectations" }
            @if outcome.expectations.is_empty() { p.none { "This file expects nothing." } }
            ol.expectations {
                @for expectation in &outcome.expectations { (one_expectation(run, expectation)) }
            }
            @if !outcome.programs_failed.is_empty() {
                h3 { "Programs that failed" }
                ul.failures { @for failed in &outcome.programs_failed { li { (failed) } } }
            }
        }
    }
}

fn one_expectation(run: &Run, expectation: &ExpectationOutcome) -> Markup {
    let (class, word) = if expectation.met { ("met", "met") } else { ("missed", "not met") };
    html! {
        li class=(class) {
            span.mark aria-hidden="true" { @if expectation.met { "✓" } @else { "✕" } }
            div {
                p { (expectation.text) }
                p.detail {
                    b { (word) }
                    " after " (seconds(expectation.decided_at))
                    " · "
                    @match &expectation.file {
                        Some(file) => (file),
                        None => (run.file.display()),
                    }
                    ":" (expectation.line)
                }
                @if !expectation.decided_by.is_empty() { p.detail { "decided: " (expectation.decided_by) } }
                @if let Some(reason) = &expectation.reason { p.reason { (reason) } }
            }
        }
    }
}

/// What else is to be told of a run that did not pass.
fn story(run: &Run) -> Markup {
    let told = match &run.result {
        RunResult::Refused(reason) => Some(("It could not run", reason.clone())),
        RunResult::Panicked(message) => Some(("It panicked, which is a bug", message.clone())),
        RunResult::Nondeterministic(difference) => {
            Some(("Two runs of the same seed differ", format!("from event {} on", difference.event)))
        }
        RunResult::Done(_) => None,
    };
    html! {
        @if let Some((what, text)) = told { section { h2 { (what) } pre { (text) } } }
        @if !run.trail.is_empty() {
            section {
                details { summary { "The last events" } pre.trail { (run.trail.join("\n")) } }
            }
        }
    }
}

/// Where the script draws.
fn drawings() -> Markup {
    html! {
        noscript { p.none { "The pictures are drawn by a script in this file; scripts are switched off here." } }
        section #sequence hidden {
            h2 { "Packets" }
            div.controls { div.chips role="group" aria-label="which packets to show" {} span.flow {} }
            p.note {}
            div.scroll tabindex="0" { div.head {} div.body {} }
            p.more {}
        }
        section #timeline hidden {
            h2 { "Over time" }
            div.charts {}
            p.note.left {}
        }
        section #mappings hidden {
            h2 { "NAT mappings" }
            div.table tabindex="0" {}
        }
        div #tip hidden {}
    }
}

fn again(run: &Run, replay: &str) -> Markup {
    if matches!(run.result, RunResult::Refused(_)) {
        return html! {};
    }
    html! {
        section #replay {
            h2 { "Run it again" }
            pre.command { (replay) }
            p.detail {
                @match run.on {
                    On::Sim => {
                        "Beside this file are " code { "events.jsonl" } " and " code { "capture.pcapng" }
                        "; packets have the same numbers there."
                    }
                    On::Loopback => { "Beside this file is " code { "events.jsonl" } "." }
                }
                " Written by grenache " (env!("CARGO_PKG_VERSION")) "."
            }
        }
    }
}

/// What the script is given.
#[derive(Serialize)]
struct Data<'a> {
    end: u64,
    lanes: &'a [Lane],
    packets: Vec<&'a Packet>,
    counts: Counts,
    marks: &'a [Mark],
    mappings: &'a [Mapping],
    faults: &'a [Fault],
    expectations: Vec<Decided<'a>>,
    bin: u64,
    goodput: Vec<Flow<'a>>,
    connections: &'a [Curve<3>],
    queues: &'a [Curve<2>],
    left_out: LeftOut,
}

#[derive(Serialize)]
struct Decided<'a> {
    at: u64,
    met: bool,
    text: &'a str,
}

#[derive(Serialize)]
struct Flow<'a> {
    from: usize,
    to: usize,
    bytes: &'a [u64],
}

/// The data as JSON that no text in it can end: `<` is written as an escape.
fn data(run: &Run, picture: &Picture) -> String {
    let expectations = match &run.result {
        RunResult::Done(outcome) => outcome.expectations.as_slice(),
        _ => &[],
    };
    let packets = picture.packets().kept();
    let last = packets.iter().map(|packet| packet.end.as_ref().map_or(packet.way[0].0, |(at, _)| *at)).max();
    let end = run.simulated().map_or(0, |simulated| u64::try_from(simulated.as_nanos()).unwrap_or(u64::MAX));
    let data = Data {
        end: end.max(last.unwrap_or(0)),
        lanes: picture.lanes().all(),
        packets,
        counts: picture.packets().counts(),
        marks: picture.marks(),
        mappings: picture.mappings(),
        faults: picture.faults(),
        expectations: expectations
            .iter()
            .map(|expectation| Decided {
                at: u64::try_from(expectation.decided_at.as_nanos()).unwrap_or(u64::MAX),
                met: expectation.met,
                text: &expectation.text,
            })
            .collect(),
        bin: picture.goodput().bin(),
        goodput: picture.goodput().flows().map(|(from, to, bytes)| Flow { from, to, bytes }).collect(),
        connections: picture.connections(),
        queues: picture.queues(),
        left_out: picture.left_out(),
    };
    serde_json::to_string(&data).expect("it is plain data, which JSON can hold").replace('<', "\\u003c")
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
