//! The programs that find out about NATs and ask things of them.

use std::net::Ipv4Addr;

use grenache::nat::{Filtering, Mapping, Ports};
use grenache::net::Net;

use super::programs::ProgramError;
use crate::event::LabEvent;
use crate::probe::forward::{Forward, keep};
use crate::probe::prober::{NatReport, ProberConfig, probe as ask};
use crate::probe::server::{ServerConfig, StunServer};
use crate::scenario::model::{Dependence, NatForward, NatProbe, PortAssignment};

pub(super) async fn serve(
    net: &Net,
    port: u16,
    alternate_port: u16,
    partner: Option<Ipv4Addr>,
) -> Result<(), ProgramError> {
    let config = ServerConfig { port, alternate_port, partner: partner.map(Into::into) };
    let _server = StunServer::start(net, config).map_err(|source| ProgramError::Bind { port, source })?;
    std::future::pending().await
}

pub(super) async fn forward(net: &Net, forward: &NatForward) -> Result<(), ProgramError> {
    let asked = Forward {
        protocol: forward.protocol,
        internal_port: forward.internal_port,
        external_port: forward.external_port,
        lifetime: forward.lifetime,
    };
    Ok(keep(net, forward.gateway.into(), asked).await?)
}

pub(super) async fn probe(net: &Net, expected: &NatProbe) -> Result<LabEvent, ProgramError> {
    let config = ProberConfig::default().longest_lifetime(expected.longest_lifetime);
    let report = ask(net, None, expected.server.into(), config).await?;
    check(&report, expected)?;
    Ok(LabEvent::NatProbed { report: Box::new(report) })
}

/// Compares what was found with what must be.
fn check(report: &NatReport, expected: &NatProbe) -> Result<(), ProgramError> {
    let differs = |what, found: String, expected: String| Err(ProgramError::OtherNat { what, found, expected });
    if let Some(mapping) = expected.mapping {
        let mapping = match mapping {
            Dependence::EndpointIndependent => Mapping::EndpointIndependent,
            Dependence::AddressDependent => Mapping::AddressDependent,
            Dependence::AddressAndPortDependent => Mapping::AddressAndPortDependent,
        };
        if report.mapping != mapping {
            return differs("mapping", report.mapping.to_string(), mapping.to_string());
        }
    }
    if let Some(filtering) = expected.filtering {
        let filtering = match filtering {
            Dependence::EndpointIndependent => Filtering::EndpointIndependent,
            Dependence::AddressDependent => Filtering::AddressDependent,
            Dependence::AddressAndPortDependent => Filtering::AddressAndPortDependent,
        };
        if report.filtering != filtering {
            return differs("filtering", report.filtering.to_string(), filtering.to_string());
        }
    }
    let (agrees, ports) = match expected.ports {
        None => return Ok(()),
        Some(PortAssignment::Preserving | PortAssignment::Overloading) => {
            (report.ports == Ports::Preserving, "preserving")
        }
        Some(PortAssignment::Contiguous) => (matches!(report.ports, Ports::Contiguous(_)), "contiguous"),
        Some(PortAssignment::Random) => (report.ports == Ports::Random, "random"),
    };
    if agrees { Ok(()) } else { differs("ports", report.ports.to_string(), ports.to_owned()) }
}
