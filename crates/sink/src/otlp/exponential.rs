//! Exponential histograms (OpenTelemetry metrics data model, "ExponentialHistogram") from ours.
//!
//! A bucket of scale s ends 2^(2^-s) times where it begins. At scale 10 that is 0.07 %, finer than our own three digits; a
//! histogram that would take more than [`MAX_BUCKETS`] at a scale is sent at the next lower one: 0.14 % at 9, 1.1 % at 6 (a
//! thousandfold range), 2.2 % at 5 (a millionfold). The limit of 160 buckets known from SDKs is their default and not part
//! of the protocol; it would cost 4 % over a thousandfold range.

use isochrone_model::histogram::Histogram;
use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogramDataPoint, exponential_histogram_data_point::Buckets,
};

/// The finest scale: one that our own buckets can still fill.
const FINEST: i32 = 10;

/// Most buckets on each side of zero.
pub const MAX_BUCKETS: i64 = 640;

/// A point in seconds, without its times and attributes.
pub fn point(histogram: &Histogram) -> ExponentialHistogramDataPoint {
    let (mut positive, mut negative, mut zero_count) = (Vec::new(), Vec::new(), 0);
    for (value, count) in histogram.values() {
        let bucket = (index(value.unsigned_abs()), count);
        match value {
            0 => zero_count += count,
            1.. => positive.push(bucket),
            ..0 => negative.push(bucket),
        }
    }
    negative.reverse();
    let coarser = coarsening(&positive).max(coarsening(&negative));
    ExponentialHistogramDataPoint {
        count: histogram.count(),
        // Only where it cannot fall (metrics.proto).
        sum: (histogram.negative() == 0).then(|| seconds(histogram.sum() as f64)),
        scale: FINEST - coarser,
        zero_count,
        positive: dense(&positive, coarser),
        negative: dense(&negative, coarser),
        min: histogram.min().map(|least| seconds(least as f64)),
        max: histogram.max().map(|greatest| seconds(greatest as f64)),
        ..ExponentialHistogramDataPoint::default()
    }
}

fn seconds(ns: f64) -> f64 {
    ns / 1e9
}

/// The bucket at the finest scale: it begins (exclusive) at 2^(index / 2^scale) seconds and includes its end.
fn index(ns: u64) -> i64 {
    (seconds(ns as f64).log2() * f64::from(1 << FINEST)).ceil() as i64 - 1
}

/// By how many scales these, in ascending order, must be coarser to fit.
fn coarsening(buckets: &[(i64, u64)]) -> i32 {
    let (Some((first, _)), Some((last, _))) = (buckets.first(), buckets.last()) else {
        return 0;
    };
    let fits = |by: &i32| (last >> by) - (first >> by) < MAX_BUCKETS;
    (0..i64::BITS as i32).find(fits).unwrap_or_default()
}

fn dense(buckets: &[(i64, u64)], coarser: i32) -> Option<Buckets> {
    let offset = buckets.first()?.0 >> coarser;
    let mut bucket_counts: Vec<u64> = Vec::new();
    for (index, count) in buckets {
        let at = ((index >> coarser) - offset) as usize;
        if at >= bucket_counts.len() {
            bucket_counts.resize(at + 1, 0);
        }
        bucket_counts[at] += count;
    }
    Some(Buckets {
        offset: offset as i32,
        bucket_counts,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The value that stands for the nearest rank of quantile `q`: the middle of its bucket, as receivers estimate it.
    fn quantile(point: &ExponentialHistogramDataPoint, q: f64) -> f64 {
        let base = (f64::from(-point.scale)).exp2();
        let side = |buckets: &Option<Buckets>, sign: f64| {
            let buckets = buckets.clone().unwrap_or_default();
            let middle = move |at: usize| sign * ((f64::from(buckets.offset) + at as f64 + 0.5) * base).exp2();
            let counts = buckets.bucket_counts.into_iter().enumerate();
            counts.map(move |(at, count)| (middle(at), count)).collect::<Vec<_>>()
        };
        let mut all = side(&point.negative, -1.0);
        all.push((0.0, point.zero_count));
        all.extend(side(&point.positive, 1.0));
        all.sort_by(|one, other| one.0.total_cmp(&other.0));
        let rank = (q * point.count as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        let found = all.iter().find(|(_, count)| {
            seen += count;
            seen >= rank
        });
        found.map_or(f64::NAN, |(middle, _)| *middle)
    }

    proptest! {
        /// Nothing is lost, the buckets are within their bound, and a quantile is off by at most a bucket's width.
        #[test]
        fn holds_what_was_recorded(
            values in prop::collection::vec((any::<i64>(), 0..60_u32), 1..600),
            q in 0.0..=1.0_f64,
        ) {
            let mut histogram = Histogram::default();
            values.iter().for_each(|(value, shift)| histogram.record(value >> shift));
            let point = point(&histogram);
            let counts = |side: &Option<Buckets>| side.as_ref().map_or(0, |side| side.bucket_counts.iter().sum::<u64>());
            prop_assert_eq!(counts(&point.positive) + counts(&point.negative) + point.zero_count, histogram.count());
            prop_assert_eq!(counts(&point.negative), histogram.negative());
            for side in [&point.positive, &point.negative].into_iter().flatten() {
                prop_assert!(side.bucket_counts.len() as i64 <= MAX_BUCKETS);
            }
            let exact = histogram.percentile(q).unwrap_or_default() as f64 / 1e9;
            let width = f64::from(-point.scale).exp2().exp2() - 1.0;
            let found = quantile(&point, q);
            prop_assert!((found - exact).abs() <= exact.abs() * (width + 0.001), "{} is not {}", found, exact);
        }
    }

    /// A narrow histogram is sent as fine as our own, one of a thousandfold range within 1.1 %.
    #[test]
    fn scales() {
        let scale = |values: &[i64]| {
            let mut histogram = Histogram::default();
            values.iter().for_each(|value| histogram.record(*value));
            point(&histogram).scale
        };
        assert_eq!(scale(&[1_000_000, 1_400_000]), 10);
        assert_eq!(scale(&[50_000, 40_000_000]), 6);
        assert_eq!(scale(&[1, 3_600_000_000_000]), 3);
        assert_eq!(scale(&[]), 10);
    }
}
