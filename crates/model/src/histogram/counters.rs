//! Counters side by side, one for each key between the least and the greatest: half as wide until one of them needs more.

/// Keys are covered by so many at a time.
const STEP: i32 = 128;

/// A counter for each key of a range that grows as it must.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// The key of the first.
    first: i32,
    counts: Counts,
}

#[derive(Clone, Debug)]
enum Counts {
    Narrow(Vec<u32>),
    Wide(Vec<u64>),
}

impl Default for Counts {
    fn default() -> Counts {
        Counts::Narrow(Vec::new())
    }
}

impl Counters {
    /// Adds to the counter of `key`.
    pub fn add(&mut self, key: i32, count: u64) {
        self.cover(key);
        let at = (key - self.first) as usize;
        if let Counts::Narrow(counts) = &mut self.counts {
            if let Ok(sum) = u32::try_from(u64::from(counts[at]).saturating_add(count)) {
                counts[at] = sum;
                return;
            }
            self.counts = Counts::Wide(counts.iter().map(|count| u64::from(*count)).collect());
        }
        if let Counts::Wide(counts) = &mut self.counts {
            counts[at] = counts[at].saturating_add(count);
        }
    }

    /// Keys in ascending order with what was added to them, also where that is nothing.
    pub fn iter(&self) -> impl Iterator<Item = (i32, u64)> + Clone + '_ {
        let (narrow, wide): (&[u32], &[u64]) = match &self.counts {
            Counts::Narrow(counts) => (counts, &[]),
            Counts::Wide(counts) => (&[], counts),
        };
        let counts = narrow.iter().map(|count| u64::from(*count)).chain(wide.iter().copied());
        (self.first..).zip(counts)
    }

    /// Makes room for `key`, and little more: a fleet has many of these.
    fn cover(&mut self, key: i32) {
        let low = key.div_euclid(STEP) * STEP;
        let length = self.counts.len();
        if length == 0 {
            self.first = low;
        }
        let front = (self.first - low).max(0);
        let back = low + STEP - (self.first + length as i32);
        if front > 0 || back > 0 {
            self.counts.widen(front as usize, back.max(0) as usize);
            self.first -= front;
        }
    }
}

impl Counts {
    fn len(&self) -> usize {
        match self {
            Counts::Narrow(counts) => counts.len(),
            Counts::Wide(counts) => counts.len(),
        }
    }

    fn widen(&mut self, front: usize, back: usize) {
        match self {
            Counts::Narrow(counts) => widen(counts, front, back),
            Counts::Wide(counts) => widen(counts, front, back),
        }
    }
}

fn widen<T: Copy + Default>(counts: &mut Vec<T>, front: usize, back: usize) {
    let length = counts.len();
    counts.reserve_exact(front + back);
    counts.resize(front + length + back, T::default());
    counts.copy_within(..length, front);
    counts[..front].fill(T::default());
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::{collection::vec, prelude::*};

    use super::{super::layout::MAX_KEY, *};

    proptest! {
        /// They count what a map of keys to counts counts, whatever the order of the keys and the size of the counts.
        #[test]
        fn they_are_a_map(added in vec((-MAX_KEY..=MAX_KEY, 1..u64::MAX), 0..50)) {
            let (mut counters, mut map) = (Counters::default(), BTreeMap::<i32, u64>::new());
            for (at, (key, count)) in added.into_iter().enumerate() {
                // The first ones need no more than narrow counters.
                let (key, count) = if at < 10 { (key / 1_000, count >> 40) } else { (key, count) };
                counters.add(key, count);
                let sum = map.entry(key).or_default();
                *sum = sum.saturating_add(count);
                let counted: Vec<_> = counters.iter().filter(|(_, count)| *count > 0).collect();
                let mapped: Vec<_> = map.iter().map(|(key, count)| (*key, *count)).filter(|(_, count)| *count > 0).collect();
                prop_assert_eq!(counted, mapped);
            }
        }
    }
}
