//! `[nat.NAME]` as it is written.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};
use toml::Spanned;

use super::super::raw::Text;
use super::super::units::{Address, Count, Endpoint, Lan, Lan6, Port, PortRange, Time};
use crate::event;
use crate::scenario::model;

/// `[nat.NAME]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(in super::super) struct NatTable {
    pub(super) kind: Option<Spanned<Kind>>,
    pub(super) address: Option<Spanned<Address>>,
    pub(super) addresses: Option<Spanned<Vec<Spanned<Address>>>>,
    pub(in super::super) lan: Option<Spanned<Lan>>,
    pub(in super::super) behind: Option<Text>,
    pub(in super::super) link: Option<Text>,
    pub(super) mapping: Option<Spanned<Dependence>>,
    pub(super) filtering: Option<Spanned<Dependence>>,
    pub(super) ports: Option<Spanned<PortAssignment>>,
    pub(super) port_range: Option<Spanned<PortRange>>,
    pub(super) parity: Option<Spanned<bool>>,
    pub(super) keep_port_range: Option<Spanned<bool>>,
    pub(super) pooling: Option<Spanned<Pooling>>,
    pub(super) udp_timeout: Option<Spanned<Time>>,
    pub(super) tcp_timeout: Option<Spanned<Time>>,
    pub(super) refresh: Option<Spanned<Refresh>>,
    pub(super) hairpinning: Option<Hairpinning>,
    pub(super) mappings_per_host: Option<Spanned<Count>>,
    pub(super) when_full: Option<Spanned<WhenFull>>,
    pub(super) port_blocks: Option<Spanned<PortBlocks>>,
    #[serde(default)]
    pub(super) forward: Vec<Spanned<StaticForwardTable>>,
    pub(super) nat_pmp: Option<Spanned<bool>>,
    pub(super) forwards_per_host: Option<Spanned<Count>>,
    pub(super) forward_lifetime: Option<Spanned<Time>>,
    pub(in super::super) lan6: Option<Spanned<Lan6>>,
    pub(in super::super) firewall: Option<Text>,
}

impl NatTable {
    /// Every public address that is written, in order.
    pub(in super::super) fn written_addresses(&self) -> impl Iterator<Item = &Spanned<Address>> {
        self.address.iter().chain(self.addresses.iter().flat_map(|all| all.get_ref()))
    }

    /// Whether it translates addresses only.
    pub(in super::super) fn is_one_to_one(&self) -> bool {
        self.kind.as_ref().is_some_and(|kind| *kind.get_ref() == Kind::OneToOne)
    }
}

/// The familiar kinds of NATs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    FullCone,
    RestrictedCone,
    PortRestrictedCone,
    Symmetric,
    PortPreservingSymmetric,
    Cgn,
    OneToOne,
}

/// An enum of the file with its counterpart in the model, of the same names.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($variant:ident),* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub(in super::super) enum $name {
            $($variant),*
        }

        impl From<$name> for model::$name {
            fn from(raw: $name) -> Self {
                match raw {
                    $($name::$variant => Self::$variant),*
                }
            }
        }
    };
}

words! {
    /// RFC 4787's words for what a mapping or a filter depends on.
    Dependence { EndpointIndependent, AddressDependent, AddressAndPortDependent }
}

words! {
    /// How external ports are picked.
    PortAssignment { Preserving, Contiguous, Random, Overloading }
}

words! {
    /// Which of several public addresses is used.
    Pooling { Paired, Arbitrary }
}

words! {
    /// Which packets keep a mapping alive.
    Refresh { Outbound, Inbound, Both }
}

words! {
    /// What happens to a host's next mapping at its limit.
    WhenFull { Refuse, ReplaceOldest }
}

/// `true`, `false`, or the source that a hairpinned packet has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hairpinning(pub(super) model::Hairpinning);

impl<'de> Deserialize<'de> for Hairpinning {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(HairpinningVisitor)
    }
}

struct HairpinningVisitor;

impl Visitor<'_> for HairpinningVisitor {
    type Value = Hairpinning;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true, false, \"external-source\" or \"internal-source\"")
    }

    fn visit_bool<E: Error>(self, hairpins: bool) -> Result<Hairpinning, E> {
        use model::Hairpinning::{ExternalSource, None};
        Ok(Hairpinning(if hairpins { ExternalSource } else { None }))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Hairpinning, E> {
        match text {
            "external-source" => Ok(Hairpinning(model::Hairpinning::ExternalSource)),
            "internal-source" => Ok(Hairpinning(model::Hairpinning::InternalSource)),
            _ => Err(E::invalid_type(serde::de::Unexpected::Str(text), &self)),
        }
    }
}

/// `port-blocks = { … }`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct PortBlocks {
    pub(super) size: Port,
    pub(super) per_host: Option<Port>,
}

/// One of `forward = [{ … }]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct StaticForwardTable {
    pub(super) port: Spanned<Port>,
    pub(super) to: Spanned<Endpoint>,
    pub(super) protocol: Protocol,
}

/// UDP or TCP.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in super::super) enum Protocol {
    Udp,
    Tcp,
}

impl From<Protocol> for event::Protocol {
    fn from(raw: Protocol) -> Self {
        match raw {
            Protocol::Udp => Self::Udp,
            Protocol::Tcp => Self::Tcp,
        }
    }
}
