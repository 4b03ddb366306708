//! Histograms against a sorted list of the same values.

use isochrone_model::histogram::{Dense, Histogram, bounds, nearest_rank};
use proptest::prelude::*;

const QUANTILES: [f64; 8] = [0.0, 0.01, 0.5, 0.9, 0.99, 0.999, 0.9999, 1.0];

/// Values of every magnitude, both signs, many of them alike.
fn value() -> impl Strategy<Value = i64> {
    prop_oneof![
        4 => 0..3_000_i64,
        4 => 100_000..20_000_000_i64,
        2 => -5_000_000..0_i64,
        1 => (any::<i64>(), 0..63_u32).prop_map(|(value, shift)| value >> shift),
    ]
}

fn sparse(values: &[i64]) -> Histogram {
    let mut histogram = Histogram::default();
    values.iter().for_each(|&value| histogram.record(value));
    histogram
}

fn dense(values: &[i64]) -> Dense {
    let mut histogram = Dense::default();
    values.iter().for_each(|&value| histogram.record(value));
    histogram
}

proptest! {
    /// However values are cut into parts, in whatever order the parts are merged, the whole is the same to the last byte.
    #[test]
    fn merge_of_parts_is_the_whole(parts in prop::collection::vec(prop::collection::vec(value(), 0..200), 0..8)) {
        let all: Vec<i64> = parts.concat();
        let (mut forward, mut backward, mut total) = (Histogram::default(), Histogram::default(), Dense::default());
        for part in &parts {
            forward.merge(&sparse(part));
            total.merge(&sparse(part));
        }
        for part in parts.iter().rev() {
            backward.merge(&sparse(part));
        }
        prop_assert_eq!(&forward, &sparse(&all));
        prop_assert_eq!(&backward, &forward);
        prop_assert_eq!(&total, &dense(&all));
        let (mut left, mut right) = (Vec::new(), Vec::new());
        forward.encode(&mut left);
        backward.encode(&mut right);
        prop_assert_eq!(left, right);
    }

    /// A percentile is the ceil(q·n)-th smallest value: exactly among 256, within its bucket (three digits) beyond.
    #[test]
    fn percentiles_are_of_nearest_rank(mut values in prop::collection::vec(value(), 1..700)) {
        let (sparse, dense) = (sparse(&values), dense(&values));
        values.sort_unstable();
        for q in QUANTILES {
            let rank = nearest_rank(q, values.len() as u64);
            let exact = values[rank as usize - 1];
            let (low, high) = bounds(exact);
            let found = sparse.percentile(q).unwrap();
            prop_assert!(low <= found && found <= high, "{} for {} at {}", found, exact, q);
            prop_assert!(values.len() > 256 || found == exact);
            let found = dense.percentile(q).unwrap();
            prop_assert!(low <= found && found <= high, "{} for {} at {}", found, exact, q);
            let supported = values.len() as u64 - rank >= 10;
            prop_assert_eq!(sparse.percentile_if_supported(q).is_some(), supported);
            prop_assert_eq!(dense.percentile_if_supported(q).is_some(), supported);
        }
        prop_assert_eq!(sparse.percentile(1.0), values.last().copied());
    }

    /// What is not bucketed is exact: count, sign, extremes, sum; mean and deviation but for rounding.
    #[test]
    fn moments_are_exact(values in prop::collection::vec(-10_000_000_000..10_000_000_000_i64, 1..600)) {
        let (sparse, dense) = (sparse(&values), dense(&values));
        let n = values.len() as f64;
        let mean = values.iter().map(|&value| value as f64).sum::<f64>() / n;
        let variance = values.iter().map(|&value| (value as f64 - mean).powi(2)).sum::<f64>() / n;
        prop_assert_eq!(sparse.count(), values.len() as u64);
        prop_assert_eq!(sparse.negative(), values.iter().filter(|value| **value < 0).count() as u64);
        prop_assert_eq!(sparse.min(), values.iter().min().copied());
        prop_assert_eq!(sparse.max(), values.iter().max().copied());
        prop_assert_eq!(sparse.sum(), values.iter().map(|&value| i128::from(value)).sum::<i128>());
        prop_assert!((sparse.mean().unwrap() - mean).abs() <= 1e-9 * 1e10);
        prop_assert!((sparse.stddev().unwrap() - variance.sqrt()).abs() <= 1e-6 * variance.sqrt() + 1e-6);
        prop_assert_eq!(dense.mean(), sparse.mean());
        prop_assert_eq!(dense.stddev(), sparse.stddev());
        prop_assert_eq!(dense.sum(), sparse.sum());
        prop_assert_eq!((dense.negative(), dense.min(), dense.max()), (sparse.negative(), sparse.min(), sparse.max()));
    }

    /// Counts up to a limit are off by no more than the bucket the limit lies in, add up over parts, and so never fall.
    #[test]
    fn counts_below_a_limit_add_up(left in prop::collection::vec(value(), 0..400), right in prop::collection::vec(value(), 0..400), limit in value()) {
        let all = [left.clone(), right.clone()].concat();
        let whole = sparse(&all);
        prop_assert_eq!(whole.count_le(limit), sparse(&left).count_le(limit) + sparse(&right).count_le(limit));
        prop_assert_eq!(whole.count_le(limit), dense(&all).count_le(limit));
        let (low, high) = bounds(limit);
        let below = all.iter().filter(|value| **value < low).count() as u64;
        let up_to = all.iter().filter(|value| **value <= high).count() as u64;
        prop_assert!((below..=up_to).contains(&whole.count_le(limit)));
        prop_assert_eq!(whole.count_le(i64::MAX), whole.count());
    }

    /// What was written is read, and nothing after it is touched; a total reads both kinds.
    #[test]
    fn encode_decode(values in prop::collection::vec(value(), 0..600), tail in prop::collection::vec(any::<u8>(), 0..9)) {
        let (sparse, dense) = (sparse(&values), dense(&values));
        let mut bytes = Vec::new();
        sparse.encode(&mut bytes);
        let short = bytes.len();
        bytes.extend_from_slice(&tail);
        let mut input = &bytes[..];
        prop_assert_eq!(Histogram::decode(&mut input), Some(sparse.clone()));
        prop_assert_eq!(input, &tail[..]);
        prop_assert_eq!(Dense::decode(&mut &bytes[..]), Some(dense.clone()));
        prop_assert!(Histogram::decode(&mut &bytes[..short - 1]).is_none());
        bytes.clear();
        dense.encode(&mut bytes);
        prop_assert_eq!(Dense::decode(&mut &bytes[..]), Some(dense.clone()));
    }

    /// No input makes the reader panic or reserve more than it is given; what it accepts it writes again the same.
    #[test]
    fn decode_any_bytes(kind in 0..4_u8, mut bytes: Vec<u8>) {
        bytes.insert(0, kind);
        let mut input = &bytes[..];
        if let Some(histogram) = Histogram::decode(&mut input) {
            let mut again = Vec::new();
            histogram.encode(&mut again);
            prop_assert_eq!(Histogram::decode(&mut &again[..]), Some(histogram));
        }
        let _ = Dense::decode(&mut &bytes[..]);
    }

    /// Repeats count like single values.
    #[test]
    fn record_n(pairs in prop::collection::vec((value(), 0..50_u64), 0..40)) {
        let mut counted = Histogram::default();
        pairs.iter().for_each(|&(value, count)| counted.record_n(value, count));
        let singles: Vec<i64> = pairs.iter().flat_map(|&(value, count)| (0..count).map(move |_| value)).collect();
        prop_assert_eq!(&counted, &sparse(&singles));
        prop_assert_eq!(counted.values().map(|(_, count)| count).sum::<u64>(), counted.count());
    }
}

/// A histogram of a second with few values stays small.
#[test]
fn few_values_take_few_bytes() {
    let mut bytes = Vec::new();
    sparse(&(0..100).map(|n| 300_000 + n * 1_000).collect::<Vec<_>>()).encode(&mut bytes);
    assert!(bytes.len() < 210, "{} bytes", bytes.len());
}

/// Nothing recorded is nothing known.
#[test]
fn empty() {
    let histogram = Histogram::default();
    assert!(histogram.is_empty());
    assert_eq!(
        (histogram.min(), histogram.max(), histogram.percentile(0.5)),
        (None, None, None)
    );
    assert_eq!((histogram.mean(), histogram.stddev()), (None, None));
}

/// A narrow spread far from zero keeps its deviation.
#[test]
fn deviation_of_a_narrow_spread() {
    let values: Vec<i64> = (0..1_000).map(|n| 3_600_000_000_000 + n % 2).collect();
    assert!((dense(&values).stddev().unwrap() - 0.5).abs() < 1e-9);
}
