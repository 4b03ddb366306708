//! The histogram of windows and parts of entries: small when it holds little.

use super::{
    buckets::Buckets,
    codec, layout,
    moments::Moments,
    rank::{is_supported, nearest_rank},
};

/// Up to this many values are kept as they are.
pub(super) const RAW: u64 = 256;

/// Signed, sparse, mergeable without loss; exact up to 256 values, three significant digits beyond.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    pub(super) moments: Moments,
    pub(super) values: Values,
}

/// Raw while `count` is at most [`RAW`], else buckets: so that equal contents are equal states.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Values {
    /// In ascending order.
    Raw(Vec<i64>),
    Buckets(Buckets),
}

impl Default for Values {
    fn default() -> Values {
        Values::Raw(Vec::new())
    }
}

impl Histogram {
    /// Adds one value.
    pub fn record(&mut self, value: i64) {
        self.record_n(value, 1);
    }

    /// Adds a value `count` times.
    pub fn record_n(&mut self, value: i64, count: u64) {
        self.moments.record(value, count);
        self.make_room();
        match &mut self.values {
            Values::Raw(raw) => {
                let at = raw.partition_point(|&other| other <= value);
                raw.splice(at..at, (0..count).map(|_| value));
            }
            Values::Buckets(_) if count == 0 => {}
            Values::Buckets(buckets) => buckets.add(layout::key(value), count),
        }
    }

    /// Adds all values of `other`.
    pub fn merge(&mut self, other: &Histogram) {
        self.moments.merge(&other.moments);
        self.make_room();
        match (&mut self.values, &other.values) {
            (Values::Raw(raw), Values::Raw(more)) => {
                raw.extend_from_slice(more);
                raw.sort_unstable();
            }
            (Values::Buckets(buckets), Values::Raw(more)) => {
                for &value in more {
                    buckets.add(layout::key(value), 1);
                }
            }
            (Values::Buckets(buckets), Values::Buckets(more)) => *buckets = buckets.sum(more),
            // `make_room` left raw values only where the whole is small enough, so `other` is raw too.
            (Values::Raw(_), Values::Buckets(more)) => self.values = Values::Buckets(more.clone()),
        }
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

    /// The `rank`-th smallest value, counted from 1: exact among 256 values, else the middle of its bucket.
    pub fn nth(&self, rank: u64) -> Option<i64> {
        match &self.values {
            Values::Raw(raw) => raw.get(usize::try_from(rank.checked_sub(1)?).ok()?).copied(),
            Values::Buckets(buckets) => nth_of(&self.moments, rank, buckets.iter()),
        }
    }

    /// How many values lie in buckets whose middle is at most `limit`.
    ///
    /// By bucket also where raw values are at hand: so it is additive, and never falls when values are added.
    pub fn count_le(&self, limit: i64) -> u64 {
        let last = last_key_le(limit);
        match &self.values {
            Values::Raw(raw) => raw.partition_point(|&value| layout::key(value) <= last) as u64,
            Values::Buckets(buckets) => buckets
                .iter()
                .take_while(|(key, _)| *key <= last)
                .map(|(_, count)| count)
                .sum(),
        }
    }

    /// Values in ascending order with how often they occur: exact among 256 values, else the middles of buckets.
    pub fn values(&self) -> impl Iterator<Item = (i64, u64)> + '_ {
        let (raw, buckets) = self.parts();
        let raw = raw.iter().map(|&value| (value, 1));
        raw.chain(buckets.map(|(key, count)| (layout::middle(key), count)))
    }

    /// Appends this histogram to `out`: a few bytes for each bucket.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match &self.values {
            Values::Raw(raw) => codec::put_raw(out, raw),
            Values::Buckets(buckets) => codec::put_buckets(out, &self.moments, buckets.iter()),
        }
    }

    /// Takes what [`encode`](Self::encode) wrote from the front of `input`; `None` when that is something else.
    pub fn decode(input: &mut &[u8]) -> Option<Histogram> {
        match codec::take(input)? {
            (moments, Values::Buckets(_)) if moments.count <= RAW => None,
            (moments, values) => Some(Histogram { moments, values }),
        }
    }

    /// Keys with counts, ascending; a key may repeat.
    pub(super) fn keys(&self) -> impl Iterator<Item = (i32, u64)> + '_ {
        let (raw, buckets) = self.parts();
        let raw = raw.iter().map(|&value| (layout::key(value), 1));
        raw.chain(buckets)
    }

    fn parts(&self) -> (&[i64], impl Iterator<Item = (i32, u64)> + '_) {
        let (raw, buckets): (&[i64], _) = match &self.values {
            Values::Raw(raw) => (raw, None),
            Values::Buckets(buckets) => (&[], Some(buckets)),
        };
        (raw, buckets.into_iter().flat_map(Buckets::iter))
    }

    /// Goes over to buckets when the new count asks for it.
    fn make_room(&mut self) {
        if self.moments.count <= RAW {
            return;
        }
        if let Values::Raw(raw) = &self.values {
            let mut buckets = Buckets::with_capacity(raw.len());
            for &value in raw {
                buckets.add(layout::key(value), 1);
            }
            self.values = Values::Buckets(buckets);
        }
    }
}

/// The last key whose middle is at most `limit`.
pub(super) fn last_key_le(limit: i64) -> i32 {
    let key = layout::key(limit);
    if layout::middle(key) <= limit { key } else { key - 1 }
}

/// The middle of the bucket that holds rank `rank`, but never outside of what was recorded; the extremes exactly.
pub(super) fn nth_of(moments: &Moments, rank: u64, buckets: impl Iterator<Item = (i32, u64)>) -> Option<i64> {
    match rank {
        0 => return None,
        rank if rank > moments.count => return None,
        rank if rank == moments.count => return Some(moments.max),
        1 => return Some(moments.min),
        _ => {}
    }
    let mut seen = 0_u64;
    for (key, count) in buckets {
        seen = seen.saturating_add(count);
        if seen >= rank {
            return Some(layout::middle(key).clamp(moments.min, moments.max));
        }
    }
    Some(moments.max)
}
