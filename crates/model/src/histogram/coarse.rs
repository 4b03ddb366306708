//! The histogram of a picture's point: what an eye can tell on a logarithmic axis.

use super::{
    layout,
    moments::Moments,
    rank::{is_supported, nearest_rank},
    sparse::nth_of,
};
use crate::varint::{get_i64, get_u64, put_i64, put_u64};

/// Buckets of the layout in one of these, as a power of two: 16 for each doubling, so that a percentile is within 1/32.
const SHIFT: u32 = 6;

/// Signed, mergeable without loss; one and a half significant digits in a few dozen buckets, the extremes exactly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coarse {
    /// Zero while there is no bucket.
    min: i64,
    /// Likewise.
    max: i64,
    /// Keys in ascending order with their counts, none zero.
    buckets: Vec<(i32, u64)>,
}

fn key(value: i64) -> i32 {
    layout::key(value) >> SHIFT
}

impl Coarse {
    /// Adds one value.
    pub fn record(&mut self, value: i64) {
        self.reach(value, value);
        self.add(key(value), 1);
    }

    /// Adds all values of `other`.
    pub fn merge(&mut self, other: &Coarse) {
        if other.is_empty() {
            return;
        }
        self.reach(other.min, other.max);
        other.buckets.iter().for_each(|&(key, count)| self.add(key, count));
    }

    /// True when nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// How many values.
    pub fn count(&self) -> u64 {
        self.buckets
            .iter()
            .fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// The greatest value, exactly.
    pub fn max(&self) -> Option<i64> {
        (!self.is_empty()).then_some(self.max)
    }

    /// The `ceil(q·n)`-th smallest value, to the middle of its bucket; `None` with fewer than ten values beyond it.
    pub fn percentile_if_supported(&self, q: f64) -> Option<i64> {
        let count = self.count();
        let rank = nearest_rank(q, count);
        if !is_supported(rank, count) {
            return None;
        }
        let moments = Moments {
            count,
            min: self.min,
            max: self.max,
            ..Moments::default()
        };
        let middles = self.buckets.iter();
        nth_of(
            &moments,
            rank,
            middles.map(|&(key, count)| ((key << SHIFT) + (1 << (SHIFT - 1)), count)),
        )
    }

    /// Appends this histogram to `out`: two bytes or three for each bucket.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, self.buckets.len() as u64);
        if self.is_empty() {
            return;
        }
        put_i64(out, self.min);
        put_u64(out, self.max.wrapping_sub(self.min) as u64);
        let mut last = key(self.min);
        for &(key, count) in &self.buckets {
            put_u64(out, (key - last) as u64);
            put_u64(out, count);
            last = key;
        }
    }

    /// Takes what [`encode`](Self::encode) wrote from the front of `input`; `None` when that is something else.
    pub fn decode(input: &mut &[u8]) -> Option<Coarse> {
        let length = usize::try_from(get_u64(input)?).ok()?;
        if length == 0 {
            return Some(Coarse::default());
        }
        let min = get_i64(input)?;
        let max = min.checked_add_unsigned(get_u64(input)?)?;
        // A bucket takes two bytes at least: no announced length reserves more than the input could hold.
        let mut buckets = Vec::with_capacity(length.min(input.len() / 2));
        let mut last = key(min);
        for place in 0..length {
            let distance = i32::try_from(get_u64(input)?).ok()?;
            let count = get_u64(input)?;
            if count == 0 || (distance == 0) != (place == 0) {
                return None;
            }
            last = last.checked_add(distance)?;
            buckets.push((last, count));
        }
        (last == key(max)).then_some(Coarse { min, max, buckets })
    }

    fn reach(&mut self, min: i64, max: i64) {
        if self.is_empty() {
            (self.min, self.max) = (min, max);
        } else {
            (self.min, self.max) = (self.min.min(min), self.max.max(max));
        }
    }

    fn add(&mut self, key: i32, count: u64) {
        match self.buckets.binary_search_by_key(&key, |(key, _)| *key) {
            Ok(at) => self.buckets[at].1 = self.buckets[at].1.saturating_add(count),
            Err(at) => self.buckets.insert(at, (key, count)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn of(values: &[i64]) -> Coarse {
        let mut all = Coarse::default();
        values.iter().for_each(|&value| all.record(value));
        all
    }

    /// Like latencies: of every size, and a few below zero.
    fn any_value() -> impl Strategy<Value = i64> {
        prop_oneof![9 => (0..62_u32, any::<u64>()).prop_map(|(bits, any)| (any >> (63 - bits)) as i64), 1 => any::<i64>()]
    }

    proptest! {
        /// Whatever the order and the parts, the same values make the same state, also as bytes.
        #[test]
        fn parts_make_the_whole(mut values in vec(any_value(), 0..200), at: prop::sample::Index) {
            let whole = of(&values);
            let (left, right) = values.split_at(if values.is_empty() { 0 } else { at.index(values.len()) });
            let mut merged = of(right);
            merged.merge(&of(left));
            prop_assert_eq!(&merged, &whole);
            let mut bytes = Vec::new();
            whole.encode(&mut bytes);
            let input = &mut bytes.as_slice();
            let decoded = Coarse::decode(input);
            prop_assert_eq!(decoded.as_ref(), Some(&whole));
            prop_assert!(input.is_empty());
            values.sort_unstable();
            prop_assert_eq!((whole.count(), whole.max()), (values.len() as u64, values.last().copied()));
        }

        /// A percentile is that rank's value, to 1/32 of it (or 32 ns); none with fewer than ten beyond it.
        #[test]
        fn percentiles_are_ranks(mut values in vec(any_value(), 1..300), q in 0.0..=1.0_f64) {
            let all = of(&values);
            values.sort_unstable();
            let rank = nearest_rank(q, values.len() as u64);
            let exact = values[rank as usize - 1];
            match all.percentile_if_supported(q) {
                None => prop_assert!(values.len() as u64 - rank < 10),
                Some(value) => {
                    let error = (i128::from(value) - i128::from(exact)).unsigned_abs();
                    prop_assert!(error <= 64.max(u128::from(exact.unsigned_abs()) / 31), "{value}, exactly {exact}");
                }
            }
        }

        /// No bytes make a load panic.
        #[test]
        fn any_bytes(bytes: Vec<u8>) {
            let _ = Coarse::decode(&mut bytes.as_slice());
        }
    }
}
