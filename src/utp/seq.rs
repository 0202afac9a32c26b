//! 16-bit sequence numbers that wrap around.

use std::fmt;
use std::ops::{Add, Sub};

/// A sequence number. Comparable only with others less than 32,768 away, so that it has no order of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Seq(pub u16);

impl Seq {
    /// How far this number is ahead of `other`; negative where it is behind.
    pub fn distance(self, other: Self) -> i32 {
        i32::from(self.0.wrapping_sub(other.0).cast_signed())
    }
}

impl Add<u16> for Seq {
    type Output = Self;
    fn add(self, n: u16) -> Self {
        Self(self.0.wrapping_add(n))
    }
}

impl Sub<u16> for Seq {
    type Output = Self;
    fn sub(self, n: u16) -> Self {
        Self(self.0.wrapping_sub(n))
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_wraps_around() {
        assert_eq!(Seq(2).distance(Seq(65_534)), 4);
        assert_eq!(Seq(65_534).distance(Seq(2)), -4);
        assert_eq!(Seq(32_767).distance(Seq(0)), 32_767);
        assert_eq!(Seq(32_768).distance(Seq(0)), -32_768);
    }
}
