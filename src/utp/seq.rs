//! Packet numbers, which wrap around.

use std::fmt;
use std::ops::{Add, Sub};

/// A 16-bit packet number of BEP 29. Comparing two of them only makes sense as a signed [`distance`](Seq::distance).
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Seq(pub u16);

impl Seq {
    /// How far `self` is ahead of `other`; negative where it is behind. Right while they are less than 2^15 apart.
    pub fn distance(self, other: Seq) -> i16 {
        self.0.wrapping_sub(other.0).cast_signed()
    }
}

impl Add<u16> for Seq {
    type Output = Seq;
    fn add(self, count: u16) -> Seq {
        Seq(self.0.wrapping_add(count))
    }
}

impl Sub<u16> for Seq {
    type Output = Seq;
    fn sub(self, count: u16) -> Seq {
        Seq(self.0.wrapping_sub(count))
    }
}

impl fmt::Debug for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_crosses_the_wrap() {
        assert_eq!(Seq(3).distance(Seq(0xfffe)), 5);
        assert_eq!(Seq(0xfffe).distance(Seq(3)), -5);
        assert_eq!(Seq(7).distance(Seq(7)), 0);
        assert_eq!(Seq(0x7fff).distance(Seq(0)), 0x7fff, "the farthest that is still ahead");
        assert_eq!(Seq(0x8000).distance(Seq(0)), -0x8000, "one more is behind");
    }

    #[test]
    fn arithmetic_wraps() {
        assert_eq!(Seq(0xffff) + 1, Seq(0));
        assert_eq!(Seq(0) - 1, Seq(0xffff));
    }
}
