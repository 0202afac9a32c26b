//! The familiar kinds of NATs, each as RFC 4787 would say it; and what makes a NAT none of its kind.

use std::net::Ipv4Addr;
use std::ops::Range;

use ipnet::Ipv4Net;
use toml::Spanned;

use super::super::error::Problems;
use super::super::model::{Dependence, Hairpinning, Nat, PortAssignment, PortBlocks};
use super::raw::{Kind, NatTable};

/// The network behind a carrier's NAT (RFC 6598).
const SHARED_SPACE: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10);

/// A carrier's host has up to four blocks of 256 ports, and as many mappings.
const CGN_BLOCKS: PortBlocks = PortBlocks { size: 256, per_host: 4 };
const CGN_MAPPINGS: u32 = 1024;

impl Kind {
    /// What a NAT of this kind does where its table says nothing else.
    pub(super) fn preset(self) -> Nat {
        use Dependence::{AddressAndPortDependent, AddressDependent, EndpointIndependent};
        let cone = |filtering| Nat { mapping: EndpointIndependent, filtering, ..Nat::default() };
        let symmetric = |ports| Nat {
            mapping: AddressAndPortDependent,
            filtering: AddressAndPortDependent,
            ports,
            ..Nat::default()
        };
        match self {
            // RFC 3489, 5.
            Self::FullCone => cone(EndpointIndependent),
            Self::RestrictedCone => cone(AddressDependent),
            Self::PortRestrictedCone => cone(AddressAndPortDependent),
            Self::Symmetric => symmetric(PortAssignment::Random),
            Self::PortPreservingSymmetric => symmetric(PortAssignment::Preserving),
            // RFC 6888: REQ-1 (RFC 4787's musts), REQ-2 (paired pooling), REQ-4 (limits), REQ-7 (filtering), REQ-14.
            Self::Cgn => Nat {
                lan: SHARED_SPACE,
                ports: PortAssignment::Random,
                hairpinning: Hairpinning::ExternalSource,
                mappings_per_host: Some(CGN_MAPPINGS),
                port_blocks: Some(CGN_BLOCKS),
                ..cone(EndpointIndependent)
            },
            Self::OneToOne => Nat { hairpinning: Hairpinning::ExternalSource, ..cone(EndpointIndependent) },
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::FullCone => "full-cone",
            Self::RestrictedCone => "restricted-cone",
            Self::PortRestrictedCone => "port-restricted-cone",
            Self::Symmetric => "symmetric",
            Self::PortPreservingSymmetric => "port-preserving-symmetric",
            Self::Cgn => "cgn",
            Self::OneToOne => "one-to-one",
        }
    }

    /// What it is by nature, in words.
    fn nature(self) -> &'static str {
        match self {
            Self::FullCone => "endpoint-independent mapping and filtering",
            Self::RestrictedCone => "endpoint-independent mapping and address-dependent filtering",
            Self::PortRestrictedCone => "endpoint-independent mapping and address-and-port-dependent filtering",
            Self::Symmetric => "address-and-port-dependent mapping",
            Self::PortPreservingSymmetric => "address-and-port-dependent mapping and preserved ports",
            Self::Cgn => "nothing but what RFC 6888 asks for",
            Self::OneToOne => "a public address for each host and no mappings",
        }
    }
}

/// Tells each key by which the NAT is none of the kind that it is said to be.
pub(super) fn check_nature(problems: &mut Problems, table: &NatTable) {
    let Some(kind) = table.kind.as_ref() else { return };
    let (kind, kind_span) = (*kind.get_ref(), kind.span());
    let preset = kind.preset();
    let differs = |key: &'static str, written: Option<(Range<usize>, bool)>| {
        written.filter(|(_, same)| !same).map(|(span, _)| (key, span))
    };
    let mapping = || {
        let written = table.mapping.as_ref();
        differs("mapping", written.map(|is| (is.span(), Dependence::from(*is.get_ref()) == preset.mapping)))
    };
    let filtering = || {
        let written = table.filtering.as_ref();
        differs("filtering", written.map(|is| (is.span(), Dependence::from(*is.get_ref()) == preset.filtering)))
    };
    let ports = || {
        let written = table.ports.as_ref();
        differs("ports", written.map(|is| (is.span(), PortAssignment::from(*is.get_ref()) == preset.ports)))
    };
    let wrong: Vec<(&str, Range<usize>)> = match kind {
        Kind::FullCone | Kind::RestrictedCone | Kind::PortRestrictedCone => {
            mapping().into_iter().chain(filtering()).collect()
        }
        Kind::Symmetric => mapping().into_iter().collect(),
        Kind::PortPreservingSymmetric => mapping().into_iter().chain(ports()).collect(),
        Kind::Cgn => Vec::new(),
        Kind::OneToOne => of_mappings(table).into_iter().chain(mapping()).chain(filtering()).collect(),
    };
    for (key, span) in wrong {
        problems
            .add(span, format!("with this `{key}` it is no \"{}\" NAT", kind.name()))
            .label("contradicts the kind")
            .also(kind_span.clone(), "the kind")
            .help(format!("leave `kind` or `{key}` out; a \"{}\" NAT is of {}", kind.name(), kind.nature()));
    }
}

/// The keys that only a NAT with mappings can have.
fn of_mappings(table: &NatTable) -> Vec<(&'static str, Range<usize>)> {
    fn span<T>(key: &'static str, written: &Option<Spanned<T>>) -> Option<(&'static str, Range<usize>)> {
        written.as_ref().map(|written| (key, written.span()))
    }
    [
        span("ports", &table.ports),
        span("port-range", &table.port_range),
        span("parity", &table.parity),
        span("keep-port-range", &table.keep_port_range),
        span("pooling", &table.pooling),
        span("udp-timeout", &table.udp_timeout),
        span("tcp-timeout", &table.tcp_timeout),
        span("refresh", &table.refresh),
        span("mappings-per-host", &table.mappings_per_host),
        span("when-full", &table.when_full),
        span("port-blocks", &table.port_blocks),
        span("nat-pmp", &table.nat_pmp),
        table.forward.first().map(|forward| ("forward", forward.span())),
    ]
    .into_iter()
    .flatten()
    .collect()
}
