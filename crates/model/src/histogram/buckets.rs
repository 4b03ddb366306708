//! The buckets of a sparse histogram, packed: the totals of a fleet hold millions of them.

use std::fmt;

use super::layout::MAX_KEY;

/// Keys take the 17 bits above.
const COUNT_BITS: u32 = 47;

/// Where a bucket stops counting: at 140 trillion values.
pub const MAX_COUNT: u64 = (1 << COUNT_BITS) - 1;

/// Buckets in ascending order of their keys, none empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Buckets(Vec<Bucket>);

/// A key, counted from the least, above its count. So the order of the numbers is the order of the keys.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
struct Bucket(u64);

impl Bucket {
    fn new(key: i32, count: u64) -> Bucket {
        let key = u64::from((key + MAX_KEY).unsigned_abs());
        Bucket(key << COUNT_BITS | count.min(MAX_COUNT))
    }

    fn key(self) -> i32 {
        (self.0 >> COUNT_BITS) as i32 - MAX_KEY
    }

    fn count(self) -> u64 {
        self.0 & MAX_COUNT
    }

    fn plus(self, count: u64) -> Bucket {
        Bucket::new(self.key(), self.count().saturating_add(count))
    }
}

impl Buckets {
    /// None yet, with room for so many.
    pub fn with_capacity(buckets: usize) -> Buckets {
        Buckets(Vec::with_capacity(buckets))
    }

    /// Adds `count`, which is not zero, to the bucket of `key`.
    pub fn add(&mut self, key: i32, count: u64) {
        let at = self.0.partition_point(|bucket| bucket.key() < key);
        match self.0.get_mut(at) {
            Some(bucket) if bucket.key() == key => *bucket = bucket.plus(count),
            _ => self.0.insert(at, Bucket::new(key, count)),
        }
    }

    /// Adds a bucket that comes after all others, and whose count is not zero.
    pub fn push(&mut self, key: i32, count: u64) {
        self.0.push(Bucket::new(key, count));
    }

    /// Both together, with no room to spare.
    pub fn sum(&self, other: &Buckets) -> Buckets {
        let mut all = Vec::with_capacity(self.0.len() + other.0.len());
        let (mut left, mut right) = (self.0.iter().peekable(), other.0.iter().peekable());
        loop {
            let next = match (left.peek(), right.peek()) {
                (Some(a), Some(b)) if a.key() == b.key() => a.plus(b.count()),
                (Some(a), Some(b)) if a < b => **a,
                (Some(_), Some(b)) | (None, Some(b)) => **b,
                (Some(a), None) => **a,
                (None, None) => break,
            };
            left.next_if(|bucket| bucket.key() == next.key());
            right.next_if(|bucket| bucket.key() == next.key());
            all.push(next);
        }
        all.shrink_to_fit();
        Buckets(all)
    }

    /// Keys with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (i32, u64)> + Clone + '_ {
        self.0.iter().map(|bucket| (bucket.key(), bucket.count()))
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (self.key(), self.count()).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn any_buckets() -> impl Strategy<Value = Vec<(i32, u64)>> {
        vec((-MAX_KEY..=MAX_KEY, 1..1_u64 << 40), 0..50)
    }

    fn packed(buckets: &[(i32, u64)]) -> Buckets {
        let mut all = Buckets::default();
        buckets.iter().for_each(|&(key, count)| all.add(key, count));
        all
    }

    proptest! {
        /// They hold what a map of keys to counts holds, added one by one or as two sums.
        #[test]
        fn they_are_a_map(left in any_buckets(), right in any_buckets()) {
            let mut map: BTreeMap<i32, u64> = BTreeMap::new();
            for (key, count) in left.iter().chain(&right) {
                *map.entry(*key).or_default() += count;
            }
            let map: Vec<_> = map.into_iter().collect();
            let sum = packed(&left).sum(&packed(&right));
            prop_assert_eq!(sum.iter().collect::<Vec<_>>(), &map[..]);
            let both = [left, right].concat();
            prop_assert_eq!(&packed(&both), &sum);
            let mut pushed = Buckets::default();
            map.into_iter().for_each(|(key, count)| pushed.push(key, count));
            prop_assert_eq!(pushed, sum);
        }
    }

    /// A full bucket stays full and spills into no other.
    #[test]
    fn a_full_bucket_stays_full() {
        for key in [-MAX_KEY, 0, MAX_KEY] {
            let full = packed(&[(key, MAX_COUNT - 1), (key, u64::MAX)]);
            assert_eq!(full.iter().collect::<Vec<_>>(), [(key, MAX_COUNT)]);
            assert_eq!(full.sum(&full), full);
        }
    }
}
