//! Nearest rank.

/// Samples that must lie beyond a percentile before it says anything.
const SUPPORT: u64 = 10;

/// Which of `count` values in ascending order is quantile `q`: the `ceil(q·count)`-th, counted from 1 (NIST/SEMATECH e-Handbook 1.3.5.6; Hyndman and
/// Fan 1996, definition 1). Zero only when `count` is.
///
/// A product that is whole but for the rounding of floating point counts as whole: 0.07 of 100 is the 7th.
pub fn nearest_rank(q: f64, count: u64) -> u64 {
    let exact = q.clamp(0.0, 1.0) * count as f64;
    let whole = exact.round();
    let rank = if (exact - whole).abs() <= exact * 4.0 * f64::EPSILON {
        whole
    } else {
        exact.ceil()
    };
    (rank as u64).clamp(count.min(1), count)
}

/// True when enough samples lie beyond `rank`.
pub fn is_supported(rank: u64, count: u64) -> bool {
    rank > 0 && count - rank >= SUPPORT
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// For quantiles written as decimals the rank is that of exact arithmetic.
        #[test]
        fn decimals(thousandths in 0..=100_000_u64, count in 1..1_000_000_000_u64) {
            let exact = (u128::from(thousandths) * u128::from(count)).div_ceil(100_000).max(1) as u64;
            prop_assert_eq!(nearest_rank(thousandths as f64 / 100_000.0, count), exact);
        }
    }

    #[test]
    fn edges() {
        assert_eq!(nearest_rank(0.5, 0), 0);
        assert_eq!(nearest_rank(0.0, 5), 1);
        assert_eq!(nearest_rank(1.0, 5), 5);
        assert_eq!(nearest_rank(0.07, 100), 7);
        assert_eq!(nearest_rank(f64::NAN, 5), 1);
        assert!(is_supported(990, 1000) && !is_supported(990, 999));
    }
}
