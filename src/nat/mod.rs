//! What the NAT in front of this host does, and how to find out.
//!
//! Mapping, filtering and port assignment are RFC 4787's terms; finding out is RFC 5780's way, with brokers in the place
//! of STUN servers. [`check`] asks, [`Observations::classify`] concludes without I/O, and a [`Behaviour`] is what peers
//! tell each other, so that each knows which way to a connection can work ([`connect`](crate::connect)).

use std::fmt;

use serde::{Deserialize, Serialize};

mod check;
mod classify;
pub mod probe;

pub use check::{CheckConfig, CheckError, MAX_BROKERS, Report, check};
pub(crate) use check::{FreshSocket, sample};
pub(crate) use classify::port_after;
pub use classify::{Observations, Sample};

/// The largest difference between two external ports that counts as contiguous.
pub const MAX_STEP: i32 = 16;

/// What a NAT does, as far as it is known.
///
/// In JSON, as peers tell it: `{"mapping": "address-dependent", "filtering": "unknown", "ports": {"contiguous": 1}}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Behaviour {
    /// Which destinations share an external port.
    pub mapping: Mapping,
    /// Whose packets come in.
    pub filtering: Filtering,
    /// Which external port a new mapping has.
    pub ports: Ports,
}

/// Which destinations share a socket's external port (RFC 4787, 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mapping {
    /// There is no NAT: others see the host's own address.
    NoNat,
    /// All do.
    EndpointIndependent,
    /// Those at one address do.
    AddressDependent,
    /// None does: each destination has a port of its own.
    AddressAndPortDependent,
    /// Too little was observed.
    Unknown,
}

/// Whose packets reach a socket (RFC 4787, 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Filtering {
    /// Everybody's.
    EndpointIndependent,
    /// Those from an address that the socket has sent to.
    AddressDependent,
    /// Those from an address and port that the socket has sent to.
    AddressAndPortDependent,
    /// Too little was observed.
    Unknown,
}

/// Which external port a new mapping has (RFC 4787, 4.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ports {
    /// The socket's own where it is free, else the next free one.
    Preserving,
    /// The last one given out plus this step, which is at most [`MAX_STEP`] either way and never 0.
    Contiguous(#[serde(deserialize_with = "step")] i32),
    /// Nobody knows.
    Random,
    /// Too little was observed.
    Unknown,
}

impl Behaviour {
    /// Nothing is known.
    pub const UNKNOWN: Self = Self { mapping: Mapping::Unknown, filtering: Filtering::Unknown, ports: Ports::Unknown };

    /// No NAT and no firewall.
    pub const OPEN: Self =
        Self { mapping: Mapping::NoNat, filtering: Filtering::EndpointIndependent, ports: Ports::Preserving };

    /// Every completely known behaviour that this one may be; ports that are not known may be preserved or random.
    pub(crate) fn possibilities(self) -> impl Iterator<Item = Self> {
        use {Filtering as F, Mapping as M};
        let mappings: &[M] = match &self.mapping {
            M::Unknown => &[M::EndpointIndependent, M::AddressDependent, M::AddressAndPortDependent],
            known => std::slice::from_ref(known),
        };
        let filterings: &[F] = match &self.filtering {
            F::Unknown => &[F::EndpointIndependent, F::AddressDependent, F::AddressAndPortDependent],
            known => std::slice::from_ref(known),
        };
        let ports: &[Ports] = match &self.ports {
            Ports::Unknown => &[Ports::Preserving, Ports::Random],
            known => std::slice::from_ref(known),
        };
        let mut all = Vec::with_capacity(mappings.len() * filterings.len() * ports.len());
        for &mapping in mappings {
            for &filtering in filterings {
                all.extend(ports.iter().map(|&ports| Self { mapping, filtering, ports }));
            }
        }
        all.into_iter()
    }
}

impl Ports {
    /// By how much a socket's next new mapping differs from the NAT's last one, where that can be told.
    pub(crate) fn step(self) -> Option<i32> {
        match self {
            // The socket's own port was taken by the mapping before: the next free one follows it.
            Self::Preserving => Some(1),
            Self::Contiguous(step) => Some(step),
            Self::Random | Self::Unknown => None,
        }
    }
}

fn step<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<i32, D::Error> {
    let step = i32::deserialize(deserializer)?;
    if step == 0 || step.abs() > MAX_STEP {
        return Err(serde::de::Error::custom(format_args!("a step is 1 to {MAX_STEP} or −1 to −{MAX_STEP}")));
    }
    Ok(step)
}

impl fmt::Display for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mapping {
            Mapping::NoNat => write!(f, "no NAT, {} filtering", self.filtering),
            mapping => write!(f, "{mapping} mapping, {} filtering, {} ports", self.filtering, self.ports),
        }
    }
}

impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoNat => "no NAT",
            Self::EndpointIndependent => "endpoint-independent",
            Self::AddressDependent => "address-dependent",
            Self::AddressAndPortDependent => "address-and-port-dependent",
            Self::Unknown => "unknown",
        })
    }
}

impl fmt::Display for Filtering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EndpointIndependent => "endpoint-independent",
            Self::AddressDependent => "address-dependent",
            Self::AddressAndPortDependent => "address-and-port-dependent",
            Self::Unknown => "unknown",
        })
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Preserving => f.write_str("preserved"),
            Self::Contiguous(step) => write!(f, "contiguous (step {step})"),
            Self::Random => f.write_str("random"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_peers_tell_is_read_back_and_nonsense_is_not() {
        let behaviour = Behaviour {
            mapping: Mapping::AddressDependent,
            filtering: Filtering::Unknown,
            ports: Ports::Contiguous(-2),
        };
        let told = json!({"mapping": "address-dependent", "filtering": "unknown", "ports": {"contiguous": -2}});
        assert_eq!(serde_json::to_value(behaviour).unwrap(), told);
        assert_eq!(Behaviour::deserialize(&told).unwrap(), behaviour);
        for ports in [json!({"contiguous": 0}), json!({"contiguous": 17}), json!("wild"), json!(1)] {
            let told = json!({"mapping": "no-nat", "filtering": "unknown", "ports": ports});
            assert!(Behaviour::deserialize(&told).is_err(), "{told}");
        }
    }

    #[test]
    fn a_behaviour_reads_well() {
        let behaviour = Behaviour {
            mapping: Mapping::AddressDependent,
            filtering: Filtering::EndpointIndependent,
            ports: Ports::Contiguous(1),
        };
        let text = "address-dependent mapping, endpoint-independent filtering, contiguous (step 1) ports";
        assert_eq!(behaviour.to_string(), text);
        assert_eq!(Behaviour::OPEN.to_string(), "no NAT, endpoint-independent filtering");
        assert_eq!(Behaviour::UNKNOWN.possibilities().count(), 18);
        assert_eq!(behaviour.possibilities().collect::<Vec<_>>(), [behaviour]);
    }
}
