//! The histogram of run totals: one counter for each bucket between the least and the greatest value.

use super::{
    Histogram, codec,
    counters::Counters,
    layout,
    moments::Moments,
    rank::{is_supported, nearest_rank},
    sparse::{self, Values},
};

/// Signed, dense, mergeable without loss; three significant digits (exact below 2,048). About 100 KiB once it holds values of 1 ns and of 10 s.
#[derive(Clone, Debug, Default)]
pub struct Dense {
    moments: Moments,
    /// By key.
    counters: Counters,
}

impl Dense {
    /// Adds one value.
    pub fn record(&mut self, value: i64) {
        self.record_n(value, 1);
    }

    /// Adds a value `count` times.
    pub fn record_n(&mut self, value: i64, count: u64) {
        self.moments.record(value, count);
        self.add(layout::key(value), count);
    }

    /// Adds all values of a sparse histogram.
    pub fn merge(&mut self, other: &Histogram) {
        self.moments.merge(&other.moments);
        other.keys().for_each(|(key, count)| self.add(key, count));
    }

    /// Adds all values of another dense histogram.
    pub fn merge_dense(&mut self, other: &Dense) {
        self.moments.merge(&other.moments);
        other.buckets().for_each(|(key, count)| self.add(key, count));
    }

    /// How many values.
    pub fn count(&self) -> u64 {
        self.moments.count
    }

    /// True when nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.moments.count == 0
    }

    /// How many values are below zero.
    pub fn negative(&self) -> u64 {
        self.moments.negative
    }

    /// The least value, exactly.
    pub fn min(&self) -> Option<i64> {
        (!self.is_empty()).then_some(self.moments.min)
    }

    /// The greatest value, exactly.
    pub fn max(&self) -> Option<i64> {
        (!self.is_empty()).then_some(self.moments.max)
    }

    /// The sum of all values, exactly.
    pub fn sum(&self) -> i128 {
        self.moments.sum
    }

    /// The mean of the values (not of buckets).
    pub fn mean(&self) -> Option<f64> {
        self.moments.mean()
    }

    /// The standard deviation of the values (not of buckets), of the population.
    pub fn stddev(&self) -> Option<f64> {
        self.moments.stddev()
    }

    /// The `ceil(q·n)`-th smallest value, `q` in `0.0..=1.0`; see [`nearest_rank`].
    pub fn percentile(&self, q: f64) -> Option<i64> {
        self.nth(nearest_rank(q, self.count()))
    }

    /// As [`percentile`](Self::percentile), but `None` with fewer than ten values beyond it.
    pub fn percentile_if_supported(&self, q: f64) -> Option<i64> {
        let rank = nearest_rank(q, self.count());
        if is_supported(rank, self.count()) {
            self.nth(rank)
        } else {
            None
        }
    }

    /// The `rank`-th smallest value, counted from 1: the middle of its bucket.
    pub fn nth(&self, rank: u64) -> Option<i64> {
        sparse::nth_of(&self.moments, rank, self.buckets())
    }

    /// How many values lie in buckets whose middle is at most `limit`.
    pub fn count_le(&self, limit: i64) -> u64 {
        let last = sparse::last_key_le(limit);
        self.buckets()
            .take_while(|(key, _)| *key <= last)
            .map(|(_, count)| count)
            .sum()
    }

    /// Middles of buckets in ascending order with how many values they hold, none zero.
    pub fn values(&self) -> impl Iterator<Item = (i64, u64)> + '_ {
        self.buckets().map(|(key, count)| (layout::middle(key), count))
    }

    /// Appends this histogram to `out`: a few bytes for each bucket that is not empty.
    pub fn encode(&self, out: &mut Vec<u8>) {
        codec::put_buckets(out, &self.moments, self.buckets());
    }

    /// Takes what [`Dense::encode`] or [`Histogram::encode`] wrote from the front of `input`; `None` when that is something else.
    pub fn decode(input: &mut &[u8]) -> Option<Dense> {
        let (moments, values) = codec::take(input)?;
        let mut dense = Dense {
            moments,
            ..Dense::default()
        };
        match values {
            Values::Raw(raw) => raw.into_iter().for_each(|value| dense.add(layout::key(value), 1)),
            Values::Buckets(buckets) => buckets.iter().for_each(|(key, count)| dense.add(key, count)),
        }
        Some(dense)
    }

    fn buckets(&self) -> impl Iterator<Item = (i32, u64)> + Clone + '_ {
        self.counters.iter().filter(|(_, count)| *count > 0)
    }

    fn add(&mut self, key: i32, count: u64) {
        if count > 0 {
            self.counters.add(key, count);
        }
    }
}

/// Equal when all that was recorded is, however the room for it grew.
impl PartialEq for Dense {
    fn eq(&self, other: &Dense) -> bool {
        self.moments == other.moments && self.buckets().eq(other.buckets())
    }
}
