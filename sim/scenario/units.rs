//! Quantities with their units, as scenario files write them: `"20ms"`, `"0.5%"`, `"50 Mbit/s"`, `"256 KiB"`.

use std::fmt;
use std::marker::PhantomData;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use ipnet::{Ipv4Net, Ipv6Net};
use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// The longest duration that a file may have: a year.
const MAX_DURATION: Duration = Duration::from_secs(365 * 24 * 3600);

/// The fastest rate that a file may have, in bits a second.
const MAX_RATE: u64 = 1_000_000_000_000;

/// The largest size that a file may have, in bytes.
const MAX_SIZE: u64 = 1 << 40;

/// The most that a clock may gain or lose, in microseconds a second.
const MAX_DRIFT: i64 = 1_000_000;

/// Numbers are read in billionths, so that `1.5s` and `0.1%` are exact.
const ONE: u128 = 1_000_000_000;

/// A duration: `"20ms"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Time(pub(super) Duration);

/// A probability: `"0.5%"`, from 0.0 to 1.0 once read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Percentage(pub(super) f64);

/// Bits a second: `"50 Mbit/s"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate(pub(super) u64);

/// Bytes: `"256 KiB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size(pub(super) usize);

/// An IPv4 address: `"198.51.100.10"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Address(pub(super) Ipv4Addr);

/// An IPv4 network: `"192.168.1.0/24"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lan(pub(super) Ipv4Net);

/// An address or a node's name, with a port: `"157.81.109.241:20001"`, `"server:20001"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Endpoint {
    Address(SocketAddrV4),
    Node(String, u16),
}

/// A duration that may be negative, in microseconds: `"-250ms"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Skew(pub(super) i64);

/// What a clock gains, in microseconds a second: `"100ppm"`, `"-20ppm"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Drift(pub(super) i64);

/// Ports from one to another: `"20000-29999"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PortRange(pub(super) RangeInclusive<u16>);

/// An IPv6 address: `"2001:db8::1"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Address6(pub(super) Ipv6Addr);

/// An IPv6 network: `"2001:db8:1::/64"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lan6(pub(super) Ipv6Net);

/// An address of either kind or a node's name, with a port: `"[2001:db8::1]:5000"`, `"server:5000"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AnyEndpoint {
    Address(SocketAddr),
    Node(String, u16),
}

/// A value that is written as a text with a unit.
pub(super) trait Text: Sized {
    /// What it is, with its article: `a duration`.
    const WHAT: &'static str;
    /// How one is written.
    const EXAMPLE: &'static str;
    /// The units that a bare number is told to have; empty where it has none.
    const UNITS: &'static [&'static str];

    fn parse(text: &str) -> Result<Self, String>;
}

impl Text for Time {
    const WHAT: &'static str = "a duration";
    const EXAMPLE: &'static str = "20ms";
    const UNITS: &'static [&'static str] = &["s", "ms"];

    fn parse(text: &str) -> Result<Self, String> {
        const UNITS: &[(&str, u128)] = &[
            ("us", 1_000),
            ("µs", 1_000),
            ("ms", 1_000_000),
            ("s", 1_000_000_000),
            ("min", 60_000_000_000),
            ("h", 3_600_000_000_000),
        ];
        let nanos = quantity::<Self>(text, UNITS, "a nanosecond")?;
        let duration = u64::try_from(nanos).map(Duration::from_nanos).unwrap_or(Duration::MAX);
        if duration > MAX_DURATION {
            Err(format!("`{text}` is longer than a year (8760h)"))
        } else {
            Ok(Self(duration))
        }
    }
}

impl Text for Percentage {
    const WHAT: &'static str = "a percentage";
    const EXAMPLE: &'static str = "0.5%";
    const UNITS: &'static [&'static str] = &["%"];

    fn parse(text: &str) -> Result<Self, String> {
        let billionths = quantity::<Self>(text, &[("%", ONE)], "a billionth")?;
        if billionths > 100 * ONE {
            return Err(format!("`{text}` is out of range: a percentage is from 0% to 100%"));
        }
        Ok(Self(billionths as f64 / (100 * ONE) as f64))
    }
}

impl Text for Rate {
    const WHAT: &'static str = "a rate";
    const EXAMPLE: &'static str = "50 Mbit/s";
    const UNITS: &'static [&'static str] = &[" Mbit/s"];

    fn parse(text: &str) -> Result<Self, String> {
        const UNITS: &[(&str, u128)] =
            &[("bit/s", 1), ("kbit/s", 1_000), ("Mbit/s", 1_000_000), ("Gbit/s", 1_000_000_000)];
        match u64::try_from(quantity::<Self>(text, UNITS, "a bit a second")?) {
            Ok(0) => Err("a rate of nothing lets no packet pass: leave `rate` out for a link without limit".to_owned()),
            Ok(rate) if rate <= MAX_RATE => Ok(Self(rate)),
            _ => Err(format!("`{text}` is faster than 1000 Gbit/s: leave `rate` out for a link without limit")),
        }
    }
}

impl Text for Size {
    const WHAT: &'static str = "a size";
    const EXAMPLE: &'static str = "256 KiB";
    const UNITS: &'static [&'static str] = &[" KiB"];

    fn parse(text: &str) -> Result<Self, String> {
        const UNITS: &[(&str, u128)] = &[
            ("B", 1),
            ("kB", 1_000),
            ("MB", 1_000_000),
            ("GB", 1_000_000_000),
            ("KiB", 1 << 10),
            ("MiB", 1 << 20),
            ("GiB", 1 << 30),
        ];
        let bytes = quantity::<Self>(text, UNITS, "a byte")?;
        match usize::try_from(bytes) {
            Ok(size) if bytes <= u128::from(MAX_SIZE) => Ok(Self(size)),
            _ => Err(format!("`{text}` is larger than 1024 GiB")),
        }
    }
}

impl Text for Address {
    const WHAT: &'static str = "an IPv4 address";
    const EXAMPLE: &'static str = "198.51.100.10";
    const UNITS: &'static [&'static str] = &[];

    fn parse(text: &str) -> Result<Self, String> {
        Ipv4Addr::from_str(text).map(Self).map_err(|_| not_one::<Self>(text))
    }
}

impl Text for Lan {
    const WHAT: &'static str = "an IPv4 network";
    const EXAMPLE: &'static str = "192.168.1.0/24";
    const UNITS: &'static [&'static str] = &[];

    fn parse(text: &str) -> Result<Self, String> {
        let net = Ipv4Net::from_str(text).map_err(|_| not_one::<Self>(text))?;
        if net.addr() != net.network() {
            return Err(format!("`{text}` is an address in a network: write the network itself, \"{}\"", net.trunc()));
        }
        Ok(Self(net))
    }
}

impl Text for Endpoint {
    const WHAT: &'static str = "an address with a port";
    const EXAMPLE: &'static str = "server:20001";
    const UNITS: &'static [&'static str] = &[];

    fn parse(text: &str) -> Result<Self, String> {
        let (host, port) = text.rsplit_once(':').ok_or_else(|| {
            format!("`{text}` has no port: write \"ADDRESS:PORT\" or \"NODE:PORT\", such as \"{}\"", Self::EXAMPLE)
        })?;
        let port = match port.parse::<u16>() {
            Ok(number) if number > 0 && port.bytes().all(|b| b.is_ascii_digit()) => number,
            _ => return Err(format!("`{port}` in `{text}` is not a port: a port is from 1 to 65535")),
        };
        if let Ok(address) = Ipv4Addr::from_str(host) {
            Ok(Self::Address(SocketAddrV4::new(address, port)))
        } else if host.is_empty() || host.contains(['.', ':', '/']) {
            Err(format!("`{host}` in `{text}` is neither an IPv4 address nor a node's name"))
        } else {
            Ok(Self::Node(host.to_owned(), port))
        }
    }
}

impl Text for Skew {
    const WHAT: &'static str = "a clock's skew";
    const EXAMPLE: &'static str = "-250ms";
    const UNITS: &'static [&'static str] = &["s", "ms"];

    fn parse(text: &str) -> Result<Self, String> {
        let (size, sign) = text.strip_prefix('-').map_or((text, 1), |rest| (rest, -1));
        let Time(duration) = Time::parse(size)?;
        if duration.subsec_nanos() % 1_000 != 0 {
            return Err(format!("`{text}` is finer than a microsecond"));
        }
        Ok(Self(sign * i64::try_from(duration.as_micros()).expect("a year has fewer microseconds")))
    }
}

impl Text for Drift {
    const WHAT: &'static str = "a clock's drift";
    const EXAMPLE: &'static str = "100ppm";
    const UNITS: &'static [&'static str] = &["ppm"];

    fn parse(text: &str) -> Result<Self, String> {
        let (size, sign) = text.strip_prefix('-').map_or((text, 1), |rest| (rest, -1));
        let ppm = quantity::<Self>(size, &[("ppm", 1)], "a ppm")?;
        match i64::try_from(ppm) {
            Ok(ppm) if ppm <= MAX_DRIFT => Ok(Self(sign * ppm)),
            _ => Err(format!("`{text}` is more than {MAX_DRIFT}ppm: no clock runs at twice the speed")),
        }
    }
}

impl Text for PortRange {
    const WHAT: &'static str = "a range of ports";
    const EXAMPLE: &'static str = "20000-29999";
    const UNITS: &'static [&'static str] = &[];

    fn parse(text: &str) -> Result<Self, String> {
        let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
        let (low, high) = text.split_once('-').ok_or_else(|| not_one::<Self>(text))?;
        match (port(low), port(high)) {
            (Some(low), Some(high)) if low <= high => Ok(Self(low..=high)),
            (Some(low), Some(high)) => Err(format!("`{text}` is no range: {low} is above {high}")),
            _ => Err(not_one::<Self>(text)),
        }
    }
}

impl Text for Address6 {
    const WHAT: &'static str = "an IPv6 address";
    const EXAMPLE: &'static str = "2001:db8::1";
    const UNITS: &'static [&'static str] = &[];

    fn parse(text: &str) -> Result<Self, String> {
        Ipv6Addr::from_str(text).map(Self).map_err(|_| not_one::<Self>(text))
    }
}

impl Text for Lan6 {
    const WHAT: &'static str = "an IPv6 network";
    const EXAMPLE: &'static str = "2001:db8:1::/64";
    const UNITS: &'static [&'static str] = &[];

    fn parse(text: &str) -> Result<Self, String> {
        let net = Ipv6Net::from_str(text).map_err(|_| not_one::<Self>(text))?;
        if net.addr() != net.network() {
            return Err(format!("`{text}` is an address in a network: write the network itself, \"{}\"", net.trunc()));
        }
        Ok(Self(net))
    }
}

impl Text for AnyEndpoint {
    const WHAT: &'static str = "an address with a port";
    const EXAMPLE: &'static str = "[2001:db8::1]:5000";
    const UNITS: &'static [&'static str] = &[];

    fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with('[') {
            return match text.parse::<SocketAddr>() {
                Ok(address) if address.port() > 0 => Ok(Self::Address(address)),
                _ => Err(not_one::<Self>(text)),
            };
        }
        Endpoint::parse(text).map(|endpoint| match endpoint {
            Endpoint::Address(address) => Self::Address(address.into()),
            Endpoint::Node(name, port) => Self::Node(name, port),
        })
    }
}

fn not_one<T: Text>(text: &str) -> String {
    format!("`{text}` is not {} such as \"{}\"", T::WHAT, T::EXAMPLE)
}

/// Reads `number unit` and multiplies; exact, or an error that says what is `finest`.
fn quantity<T: Text>(text: &str, units: &[(&str, u128)], finest: &str) -> Result<u128, String> {
    let what = T::WHAT;
    let digits = text.strip_prefix('-').unwrap_or(text);
    let end = digits.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(digits.len());
    let (number, unit) = digits.split_at(end);
    let unit = unit.trim_start_matches(' ');
    let billionths = billionths(number).ok_or_else(|| not_one::<T>(text))?;
    let allowed = || units.iter().map(|(unit, _)| *unit).collect::<Vec<_>>().join(", ");
    if unit.is_empty() {
        let written = with_units::<T>(text);
        return Err(format!("`{text}` has no unit: write {written}, if that is meant (units: {})", allowed()));
    }
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        return Err(format!("`{unit}` is not a unit of {what} (units: {})", allowed()));
    };
    if digits.len() != text.len() {
        return Err(format!("`{text}` is negative: {what} is 0 or more"));
    }
    let product = billionths.checked_mul(*factor).ok_or_else(|| format!("`{text}` is too large"))?;
    if product % ONE != 0 {
        return Err(format!("`{text}` is finer than {finest}"));
    }
    Ok(product / ONE)
}

/// `12.5` in billionths; `None` where it is no such number or has more than 9 decimals.
fn billionths(number: &str) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let valid = |digits: &str| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if !valid(whole) || !valid(fraction) || fraction.len() > 9 || whole.len() > 18 {
        return None;
    }
    Some(whole.parse::<u128>().ok()? * ONE + format!("{fraction:0<9}").parse::<u128>().ok()?)
}

/// Reads any [`Text`] and says what to write in place of a bare number.
struct TextVisitor<T>(PhantomData<T>);

impl<T: Text> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} such as \"{}\"", T::WHAT, T::EXAMPLE)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        T::parse(text).map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        Err(E::custom(bare::<T>(number)))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        Err(E::custom(bare::<T>(number)))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<T, E> {
        Err(E::custom(bare::<T>(number)))
    }
}

fn bare<T: Text>(number: impl fmt::Display) -> String {
    let what = T::WHAT;
    if T::UNITS.is_empty() {
        return format!("{what} is written in quotes, such as \"{}\"", T::EXAMPLE);
    }
    format!("{what} is written in quotes with its unit: {}, if that is meant", with_units::<T>(number))
}

/// A bare number with each unit that it may have been meant to have: `"30s" or "30ms"`.
fn with_units<T: Text>(number: impl fmt::Display) -> String {
    T::UNITS.iter().map(|unit| format!("\"{number}{unit}\"")).collect::<Vec<_>>().join(" or ")
}

macro_rules! read_as_text {
    ($($name:ident)*) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(TextVisitor(PhantomData))
            }
        }
    )*};
}

read_as_text!(Time Percentage Rate Size Address Lan Endpoint Address6 Lan6 AnyEndpoint Skew Drift PortRange);

/// A whole number from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Whole<const MIN: u64, const MAX: u64>(pub(super) u64);

/// A port that programs bind or announce.
pub(super) type Port = Whole<1, 65_535>;

/// A port to bind, or 0 for any.
pub(super) type PortOrAny = Whole<0, 65_535>;

/// How many of something.
pub(super) type Count = Whole<1, 1_000_000>;

/// How many members a population has.
pub(super) type Members = Whole<1, 60_000>;

impl Members {
    pub(super) fn members(self) -> u32 {
        u32::try_from(self.0).expect("checked when it was read")
    }
}

/// How many of something, or none.
pub(super) type CountOrNone = Whole<0, 1_000_000>;

/// A seed: what a TOML integer can hold.
pub(super) type Seed = Whole<0, { i64::MAX as u64 }>;

impl<const MIN: u64> Whole<MIN, 65_535> {
    pub(super) fn port(self) -> u16 {
        u16::try_from(self.0).expect("checked when it was read")
    }
}

impl<const MIN: u64> Whole<MIN, 1_000_000> {
    pub(super) fn count(self) -> u32 {
        u32::try_from(self.0).expect("checked when it was read")
    }
}

impl<const MIN: u64, const MAX: u64> Visitor<'_> for Whole<MIN, MAX> {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from {MIN} to {MAX}")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self, E> {
        if (MIN..=MAX).contains(&number) {
            Ok(Self(number))
        } else {
            Err(E::custom(format!("{number} is out of range: this is a whole number from {MIN} to {MAX}")))
        }
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self, E> {
        match u64::try_from(number) {
            Ok(number) => self.visit_u64(number),
            Err(_) => Err(E::custom(format!("{number} is negative: this is a whole number from {MIN} to {MAX}"))),
        }
    }
}

impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for Whole<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self(0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn time(text: &str) -> Result<Duration, String> {
        Time::parse(text).map(|time| time.0)
    }

    #[test]
    fn durations_are_exact() {
        assert_eq!(time("20ms"), Ok(Duration::from_millis(20)));
        assert_eq!(time("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(time("2min"), Ok(Duration::from_secs(120)));
        assert_eq!(time("250 us"), Ok(Duration::from_micros(250)));
        assert_eq!(time("0.001us"), Ok(Duration::from_nanos(1)));
        assert_eq!(time("0s"), Ok(Duration::ZERO));
        assert_eq!(time("8760h"), Ok(MAX_DURATION));
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "s", "20", "-1s", "1.2.3s", ".5s", "5.s", "8761h", "0.0001us", "1e3s", "20 ms ", "1 year"] {
            assert!(time(text).is_err(), "{text:?} was read as {:?}", time(text));
        }
    }

    #[test]
    fn rates_and_sizes_have_their_units() {
        assert_eq!(Rate::parse("50 Mbit/s"), Ok(Rate(50_000_000)));
        assert_eq!(Rate::parse("1.5kbit/s"), Ok(Rate(1_500)));
        assert_eq!(Size::parse("256 KiB"), Ok(Size(262_144)));
        assert_eq!(Size::parse("1 MB"), Ok(Size(1_000_000)));
        assert!(Rate::parse("0 bit/s").is_err());
        assert!(Rate::parse("1001 Gbit/s").is_err());
        assert!(Size::parse("0.5 B").is_err());
    }

    #[test]
    fn percentages_are_from_0_to_100() {
        assert_eq!(Percentage::parse("0.5%"), Ok(Percentage(0.005)));
        assert_eq!(Percentage::parse("2 %"), Ok(Percentage(0.02)));
        assert_eq!(Percentage::parse("100%"), Ok(Percentage(1.0)));
        assert!(Percentage::parse("100.000001%").is_err());
        assert!(Percentage::parse("-1%").is_err());
    }

    #[test]
    fn endpoints_are_addresses_or_names() {
        let address = SocketAddrV4::new(Ipv4Addr::new(157, 81, 109, 241), 20001);
        assert_eq!(Endpoint::parse("157.81.109.241:20001"), Ok(Endpoint::Address(address)));
        assert_eq!(Endpoint::parse("server:1"), Ok(Endpoint::Node("server".to_owned(), 1)));
        for text in ["server", "server:0", "server:65536", "server:+1", ":1", "1.2.3:1", "::1:1", "http://server:1"] {
            assert!(Endpoint::parse(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*", number in "[-0-9. ]{0,24}", unit in "[a-zA-Z%/]{0,6}") {
            for text in [text, format!("{number}{unit}")] {
                let _ = (Time::parse(&text), Percentage::parse(&text), Rate::parse(&text), Size::parse(&text));
                let _ = (Address::parse(&text), Lan::parse(&text), Endpoint::parse(&text));
                let _ = (Address6::parse(&text), Lan6::parse(&text), AnyEndpoint::parse(&text));
                let _ = (Skew::parse(&text), Drift::parse(&text));
            }
        }

        #[test]
        fn whole_milliseconds_are_read_back(millis in 0_u64..31_536_000_000) {
            prop_assert_eq!(time(&format!("{millis}ms")), Ok(Duration::from_millis(millis)));
        }
    }
}
