//! The stack's events in a few words, as they stand beside a lane.

use grenache::event::Event;

use super::Tone;

/// How much of a value, a name or an error is shown, in characters.
const SHOWN: usize = 60;

/// An event in a few words; `None` where the packets show it already.
pub(super) fn tell(event: &Event) -> Option<(Tone, String)> {
    let (tone, text) = match event {
        Event::Handshake { with } => (Tone::Good, format!("punched through, both ways, with {with}")),
        Event::UtpConnected { peer, initiator: true } => (Tone::Good, format!("connected to {peer}")),
        Event::UtpConnected { peer, initiator: false } => (Tone::Quiet, format!("connected by {peer}")),
        Event::UtpClosed { peer, reason } if reason == "closed" => {
            (Tone::Quiet, format!("connection to {peer} closed"))
        }
        Event::UtpClosed { peer, reason } => (Tone::Bad, format!("connection to {peer} ended: {reason}")),
        Event::RequestSent { key, to, .. } => (Tone::Plain, format!("asks {key} at {to}")),
        Event::RequestReceived { key, from, .. } => (Tone::Quiet, format!("is asked for {key} by {from}")),
        Event::ReplySent { error: Some(error), to, .. } => (Tone::Bad, format!("answers {to}: {error}")),
        Event::ReplySent { error: None, to, .. } => (Tone::Quiet, format!("answers {to}")),
        Event::ReplyReceived { key, value, .. } => (Tone::Good, format!("{key} replied {value}")),
        Event::RequestFailed { key, error, .. } => (Tone::Bad, format!("request to {key} failed: {error}")),
        Event::StreamStarted { key, peer, .. } => (Tone::Plain, format!("streamed call of {key} with {peer}")),
        Event::StreamEnded { peer, sent, received, error, .. } => match error {
            Some(error) => (Tone::Bad, format!("streamed call with {peer} failed: {error}")),
            None => (Tone::Good, format!("streamed call with {peer}: {sent} B out, {received} B in")),
        },
        Event::StreamRefused { from, reason } => (Tone::Bad, format!("refuses a streamed call of {from}: {reason}")),
        Event::Announced { name, port, .. } => (Tone::Plain, format!("announced {name} on port {port}")),
        Event::LookedUp { name, addresses } if addresses.is_empty() => {
            (Tone::Plain, format!("looked {name} up: nobody"))
        }
        Event::LookedUp { name, addresses } => {
            let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            (Tone::Plain, format!("found {name} at {}", addresses.join(", ")))
        }
        Event::LinkFailed { call, error } => (Tone::Bad, format!("{call} failed: {error}")),
        Event::Registered { service, address, .. } => (Tone::Quiet, format!("registers {address} for {service}")),
        Event::RelayOpened { port } => (Tone::Plain, format!("relays on port {port}")),
        Event::RelayClosed { port, bytes, .. } => (Tone::Plain, format!("relay on port {port} closed, {bytes} B")),
        Event::PortsProbed { address, ports } => (Tone::Plain, format!("punches {ports} ports of {address}")),
        Event::Connected { service, to, rung } => (Tone::Good, format!("way to {service} found: {rung}, {to}")),
        Event::ConnectFailed { service, error } => (Tone::Bad, format!("no way to {service}: {error}")),
        Event::GrapeReady { dht_port, .. } => (Tone::Quiet, format!("Grape ready on port {dht_port}")),
        Event::LimitReached { limit, times, .. } => (Tone::Bad, format!("limit reached {times} times: {limit:?}")),
        Event::Malformed { layer, from, reason } => (Tone::Bad, format!("malformed {layer} from {from}: {reason}")),
        _ => return None,
    };
    Some((tone, cut(&text)))
}

/// One line of text, cut where it is long; control characters are shown escaped.
pub(super) fn cut(text: &str) -> String {
    let mut line = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == SHOWN {
            line.push('…');
            break;
        }
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}
