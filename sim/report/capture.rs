//! `capture.pcapng`: every packet at each side that it passed, with its fate as a comment.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption};
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::{DataLink, Endianness, PcapError};

use crate::engine::{Direction, Side, Sighting};
use crate::event::{Event, LabEvent, Record};
use crate::scenario::Scenario;

/// What packets whose fate is not known yet may take, in bytes: each with its headers and [`OVERHEAD`]. Beyond it the
/// oldest is written with a comment that says so.
pub const MAX_HELD: usize = 64 << 20;

/// What a held packet counts for besides its bytes.
const OVERHEAD: usize = 256;

/// Times are in units of 10^-9 s.
const NANOSECONDS: u8 = 9;

/// Packets have no link layer: they begin with IPv4's or IPv6's header.
const LINK_TYPE: DataLink = DataLink::RAW;

/// Writes a capture. The same sightings and records give the same bytes.
///
/// A packet's comment tells its fate, which comes later than the packet: it is held until then, and those behind it
/// with it, so that the file is in the order of time. The first error stops the writing; [`finish`](Self::finish)
/// tells it.
pub struct Capture<W: Write> {
    out: PcapNgWriter<BufWriter<W>>,
    interfaces: BTreeMap<Side, u32>,
    /// In the order of time; the front's fate is not known.
    held: VecDeque<Held>,
    /// The number of the first that is held, counting all.
    first: u64,
    /// The numbers of those whose fate is not known, by packet.
    open: BTreeMap<u64, Vec<u64>>,
    held_bytes: usize,
    max_held: usize,
    error: Option<io::Error>,
}

/// A packet that waits for its fate.
#[derive(Debug)]
struct Held {
    sighting: Sighting,
    bytes: Vec<u8>,
    /// What a NAT made of it.
    translated: String,
    fate: Option<String>,
}

impl Capture<File> {
    /// Creates `folder/NAME-SEED/capture.pcapng`, in place of one that is there.
    ///
    /// # Errors
    /// Where the folders or the file cannot be made.
    pub fn create(folder: &Path, scenario: &Scenario, seed: u64) -> io::Result<Self> {
        let path = Self::path(folder, &scenario.name, seed);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        Self::new(File::create(path)?, scenario)
    }

    /// Where [`create`](Self::create) puts the capture of a run.
    pub fn path(folder: &Path, name: &str, seed: u64) -> PathBuf {
        folder.join(format!("{name}-{seed}")).join("capture.pcapng")
    }
}

impl<W: Write> Capture<W> {
    /// A capture that goes to `out`, with an interface for each node, and two for each NAT.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn new(out: W, scenario: &Scenario) -> io::Result<Self> {
        let application = SectionHeaderOption::UserApplication(concat!("grenache ", env!("CARGO_PKG_VERSION")).into());
        let section = SectionHeaderBlock {
            endianness: Endianness::Little,
            options: vec![application],
            ..SectionHeaderBlock::default()
        };
        let out = PcapNgWriter::with_section_header(BufWriter::new(out), section).map_err(io_error)?;
        let mut capture = Self {
            out,
            interfaces: BTreeMap::new(),
            held: VecDeque::new(),
            first: 0,
            open: BTreeMap::new(),
            held_bytes: 0,
            max_held: MAX_HELD,
            error: None,
        };
        for (name, node) in &scenario.nodes {
            let behind = node.behind.as_ref().map_or("on the internet".to_owned(), |nat| format!("behind nat {nat}"));
            let own = (!node.address.is_unspecified()).then(|| node.address.to_string());
            let addresses: Vec<String> = own.into_iter().chain(node.address6.map(|own| own.to_string())).collect();
            let description = format!("host {name}, {}, {behind}", addresses.join(" and "));
            capture.interface(Side::Host(name.clone()), description)?;
        }
        for (name, nat) in &scenario.nats {
            capture.interface(Side::Inside(name.clone()), format!("nat {name}, towards its LAN {}", nat.lan))?;
            let behind = nat.behind.as_ref().map_or("the internet".to_owned(), |outer| format!("nat {outer}"));
            let description = format!("nat {name}, {}, towards {behind}", nat.address);
            capture.interface(Side::Outside(name.clone()), description)?;
        }
        Ok(capture)
    }

    fn interface(&mut self, side: Side, description: String) -> io::Result<()> {
        let name = match &side {
            Side::Host(name) => name.to_string(),
            Side::Inside(name) => format!("{name} (inside)"),
            Side::Outside(name) => format!("{name} (outside)"),
        };
        let options = vec![
            InterfaceDescriptionOption::IfName(name.into()),
            InterfaceDescriptionOption::IfDescription(description.into()),
            InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
        ];
        let number = u32::try_from(self.interfaces.len()).expect("hosts are numbered with 32 bits");
        let block = InterfaceDescriptionBlock { linktype: LINK_TYPE, snaplen: 0, options };
        self.out.write_pcapng_block(block).map_err(io_error)?;
        self.interfaces.insert(side, number);
        Ok(())
    }

    /// Takes a packet.
    pub fn packet(&mut self, sighting: &Sighting) {
        if self.error.is_some() {
            return;
        }
        let bytes = sighting.to_bytes();
        self.held_bytes += bytes.len() + OVERHEAD;
        self.open.entry(sighting.packet).or_default().push(self.first + self.held.len() as u64);
        self.held.push_back(Held { sighting: sighting.clone(), bytes, translated: String::new(), fate: None });
        while self.held_bytes > self.max_held {
            let fate = format!("more than {} MiB of packets were on their way: not known", self.max_held >> 20);
            self.write_first(fate);
        }
    }

    /// Takes an event, which may be a packet's fate.
    pub fn event(&mut self, record: &Record) {
        let Event::Lab(event) = &record.event else { return };
        match event {
            LabEvent::PacketTranslated { packet, source, destination } => {
                let Some(nat) = &record.at else { return };
                let Some(numbers) = self.open.get(packet) else { return };
                for number in numbers.iter().rev() {
                    let held = &mut self.held[(number - self.first) as usize];
                    if held.sighting.direction == Direction::In && held.sighting.side.name() == nat {
                        held.translated.push_str(&format!("translated to {source} > {destination}; "));
                        return;
                    }
                }
            }
            LabEvent::PacketDelivered { packet } => {
                let to = record.at.as_deref().unwrap_or("?");
                self.decide(record.at_ns, *packet, &format!("delivered to {to}"));
            }
            LabEvent::PacketDropped { packet, hop, rule } => {
                self.decide(record.at_ns, *packet, &format!("dropped at {hop}: {rule}"));
            }
            _ => {}
        }
    }

    /// Writes all that is held and gives the destination back.
    ///
    /// # Errors
    /// The first error of any write.
    pub fn finish(mut self) -> io::Result<W> {
        while !self.held.is_empty() {
            self.write_first("on its way when the run ended".to_owned());
        }
        match self.error.take() {
            Some(error) => Err(error),
            None => self.out.into_inner().into_inner().map_err(io::IntoInnerError::into_error),
        }
    }

    fn decide(&mut self, at_ns: u64, packet: u64, fate: &str) {
        for number in self.open.remove(&packet).unwrap_or_default() {
            let held = &mut self.held[(number - self.first) as usize];
            let fate = match at_ns.saturating_sub(held.sighting.at_ns) {
                0 => fate.to_owned(),
                later => format!("{fate}, {} later", milliseconds(later)),
            };
            held.fate = Some(fate);
        }
        while self.held.front().is_some_and(|held| held.fate.is_some()) {
            self.write_first(String::new());
        }
    }

    /// Writes the first that is held, with this fate where none is known.
    fn write_first(&mut self, otherwise: String) {
        let Some(held) = self.held.pop_front() else { return };
        self.held_bytes -= held.bytes.len() + OVERHEAD;
        let (packet, number) = (held.sighting.packet, self.first);
        self.first += 1;
        if let Some(numbers) = self.open.get_mut(&packet) {
            numbers.retain(|other| *other != number);
            if numbers.is_empty() {
                self.open.remove(&packet);
            }
        }
        if self.error.is_some() {
            return;
        }
        let Some(interface_id) = self.interfaces.get(&held.sighting.side).copied() else { return };
        let comment = format!("packet {packet}: {}{}", held.translated, held.fate.unwrap_or(otherwise));
        // The two lowest bits of epb_flags: 1 is inbound, 2 is outbound.
        let flags = match held.sighting.direction {
            Direction::In => 1,
            Direction::Out => 2,
        };
        let block = EnhancedPacketBlock {
            interface_id,
            timestamp: Duration::from_nanos(held.sighting.at_ns),
            original_len: u32::try_from(held.bytes.len()).expect("packets are smaller than that"),
            data: held.bytes.into(),
            options: vec![EnhancedPacketOption::Comment(comment.into()), EnhancedPacketOption::Flags(flags)],
        };
        self.error = self.out.write_pcapng_block(block).err().map(io_error);
    }
}

impl<W: Write> std::fmt::Debug for Capture<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Capture").field("held", &self.held.len()).field("held_bytes", &self.held_bytes).finish()
    }
}

/// To the microsecond: `24.310 ms`.
fn milliseconds(ns: u64) -> String {
    format!("{}.{:03} ms", ns / 1_000_000, ns / 1_000 % 1_000)
}

fn io_error(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        error => io::Error::other(error),
    }
}

#[cfg(test)]
#[path = "capture_tests.rs"]
mod tests;
