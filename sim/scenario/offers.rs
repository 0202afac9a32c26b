//! Whether what programs and expectations refer to is there: services, brokers and other Grapes' DHT ports.

use std::collections::{BTreeMap, BTreeSet};

use toml::Spanned;

use super::error::{Problems, suggestion};
use super::raw::{File, ProgramTable, Text};
use super::units::Endpoint;

/// The names that the programs of a file offer.
#[derive(Debug, Default)]
struct Offers<'a> {
    brokers: BTreeSet<&'a str>,
    /// What can be asked: workers' names, and names announced for a port where anything may listen.
    served: BTreeSet<&'a str>,
    /// What can be found at a Grape.
    announced: BTreeSet<&'a str>,
}

/// Tells every name that nothing in the file offers: what waits for it would wait for ever.
pub(super) fn check_offers(problems: &mut Problems, file: &File) {
    let offers = Offers::of(file);
    let grapes = Grapes::of(file);
    for program in &file.programs {
        match program.get_ref() {
            ProgramTable::Grape(grape) => grapes.check_bootstrap(problems, &grape.bootstrap),
            ProgramTable::Lookup(lookup) => offers.announced(problems, &lookup.service),
            ProgramTable::Worker(worker) => {
                if let Some(service) = &worker.punches {
                    offers.announced(problems, service);
                }
                if let Some(broker) = &worker.broker {
                    offers.broker(problems, broker);
                }
            }
            ProgramTable::Client(client) => {
                let offered = ("worker offers", "services offered");
                missing(problems, &client.service, offered, &offers.served);
                if let Some(broker) = &client.broker {
                    offers.broker(problems, broker);
                }
            }
            ProgramTable::Announce(_)
            | ProgramTable::Broker(_)
            | ProgramTable::StunServer(_)
            | ProgramTable::NatProbe(_)
            | ProgramTable::Forward(_) => {}
        }
    }
    let mut found = Vec::new();
    file.expects.iter().for_each(|expect| expect.get_ref().names_found(&mut found));
    found.into_iter().for_each(|service| offers.announced(problems, service));
}

impl<'a> Offers<'a> {
    fn of(file: &'a File) -> Self {
        let mut offers = Self::default();
        for program in &file.programs {
            match program.get_ref() {
                ProgramTable::Announce(announce) => {
                    offers.served.insert(announce.service.get_ref());
                    offers.announced.insert(announce.service.get_ref());
                }
                ProgramTable::Broker(broker) => {
                    offers.brokers.insert(broker.service.get_ref());
                    offers.announced.insert(broker.service.get_ref());
                }
                ProgramTable::Worker(worker) => {
                    offers.served.insert(worker.service.get_ref());
                    if worker.announce != Some(false) {
                        offers.announced.insert(worker.service.get_ref());
                    }
                }
                ProgramTable::Client(client) => {
                    offers.announced.extend(client.announce.iter().map(|name| name.get_ref().as_str()));
                }
                ProgramTable::Grape(_)
                | ProgramTable::Lookup(_)
                | ProgramTable::StunServer(_)
                | ProgramTable::NatProbe(_)
                | ProgramTable::Forward(_) => {}
            }
        }
        offers
    }

    fn broker(&self, problems: &mut Problems, name: &Text) {
        missing(problems, name, ("broker offers", "brokers' services"), &self.brokers);
    }

    fn announced(&self, problems: &mut Problems, name: &Text) {
        missing(problems, name, ("program announces", "announced"), &self.announced);
    }
}

/// An empty name is told elsewhere.
fn missing(problems: &mut Problems, name: &Text, (who, heading): (&str, &str), offered: &BTreeSet<&str>) {
    let text = name.get_ref().as_str();
    if text.is_empty() || offered.contains(text) || problems.is_told(&name.span()) {
        return;
    }
    let offered: Vec<&str> = offered.iter().copied().filter(|name| !name.is_empty()).collect();
    problems
        .add(name.span(), format!("no {who} the service `{text}` in this file"))
        .help(suggestion(heading, text, &offered));
}

/// The DHT ports of the Grapes of each node.
struct Grapes<'a>(BTreeMap<&'a str, Vec<u16>>);

impl<'a> Grapes<'a> {
    fn of(file: &'a File) -> Self {
        let mut grapes: BTreeMap<&str, Vec<u16>> =
            file.nodes.iter().map(|(name, _)| (name.get_ref().as_str(), Vec::new())).collect();
        for program in &file.programs {
            if let ProgramTable::Grape(grape) = program.get_ref()
                && let Some(ports) = grapes.get_mut(grape.node.get_ref().as_str())
            {
                ports.push(grape.dht_port.get_ref().port());
            }
        }
        Self(grapes)
    }

    /// A node that is named has a Grape with this DHT port. An address may be anyone's, and nobody's.
    fn check_bootstrap(&self, problems: &mut Problems, bootstrap: &[Spanned<Endpoint>]) {
        for written in bootstrap {
            let Endpoint::Node(node, port) = written.get_ref() else { continue };
            // A node that is not there is told elsewhere.
            let Some(ports) = self.0.get(node.as_str()) else { continue };
            if ports.contains(port) || problems.is_told(&written.span()) {
                continue;
            }
            let help = if ports.is_empty() {
                format!("there is no Grape on `{node}`")
            } else {
                let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
                format!("DHT ports on `{node}`: {}", ports.join(", "))
            };
            problems.add(written.span(), format!("no Grape on `{node}` has the DHT port {port}")).help(help);
        }
    }
}
