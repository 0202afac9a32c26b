//! How far a share of some runs may be from that of all: Wilson's score interval.
//!
//! E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927. Unlike the usual one it holds
//! where all runs pass, or none.

/// The 97.5th percentile of the normal distribution: 95 % of it lies between this and its negative.
const Z: f64 = 1.959_963_984_540_054;

/// The bounds between which the true share lies with 95 % confidence, where `hits` of `runs` did. Without runs it may be
/// anything.
pub fn interval(hits: u64, runs: u64) -> (f64, f64) {
    if runs == 0 {
        return (0.0, 1.0);
    }
    let n = runs as f64;
    let share = hits as f64 / n;
    let z2 = Z * Z;
    let centre = share + z2 / (2.0 * n);
    let spread = Z * (share * (1.0 - share) / n + z2 / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z2 / n;
    (((centre - spread) / scale).max(0.0), ((centre + spread) / scale).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_are_wilsons() {
        // From the formula by hand, and as statistics packages give them.
        for (hits, runs, low, high) in
            [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634), (95, 100, 0.8882, 0.9785)]
        {
            let (got_low, got_high) = interval(hits, runs);
            assert!((got_low - low).abs() < 1e-4 && (got_high - high).abs() < 1e-4, "{got_low} {got_high}");
        }
        assert_eq!(interval(0, 0), (0.0, 1.0));
    }
}
