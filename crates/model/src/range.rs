//! Ranges of sequence numbers.

use serde::{Deserialize, Serialize};

/// Sequences `first..=last` of one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SeqRange {
    /// The first sequence in the range.
    pub first: u64,
    /// The last sequence in the range, never below `first`.
    pub last: u64,
}

impl SeqRange {
    /// How many sequences the range holds.
    pub fn count(self) -> u64 {
        self.last - self.first + 1
    }

    /// How many sequences both ranges hold.
    pub fn overlap(self, other: SeqRange) -> u64 {
        let first = self.first.max(other.first);
        let last = self.last.min(other.last);
        if first > last { 0 } else { last - first + 1 }
    }
}

/// Adds ranges, in ascending order as a rule. Beyond `most` neighbours become one range, as long as both
/// together, that begins with the first: how many there are stays exact, which they are does not.
pub fn append(ranges: &mut Vec<SeqRange>, later: impl IntoIterator<Item = SeqRange>, most: usize) {
    for range in later {
        match ranges.last_mut() {
            Some(last) if last.last.checked_add(1) == Some(range.first) => last.last = range.last,
            _ => ranges.push(range),
        }
        if ranges.len() > most.max(1) {
            let pair = |pair: &[SeqRange]| {
                let count: u64 = pair.iter().map(|range| range.count()).sum();
                let first = pair[0].first;
                SeqRange {
                    first,
                    last: first + (count - 1),
                }
            };
            *ranges = ranges.chunks(2).map(pair).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However many ranges: few are kept, in order and apart, and none of their sequences is uncounted.
        #[test]
        fn counts_survive(gaps in prop::collection::vec((1_u64..4, 1_u64..4), 0..200), most in 1_usize..20) {
            let (mut ranges, mut next, mut count) = (Vec::new(), 0, 0);
            for (gap, length) in gaps {
                let first = next + gap;
                next = first + length;
                count += length;
                append(&mut ranges, [SeqRange { first, last: next - 1 }], most);
                prop_assert!(ranges.len() <= most);
            }
            prop_assert_eq!(ranges.iter().map(|range| range.count()).sum::<u64>(), count);
            prop_assert!(ranges.windows(2).all(|pair| pair[0].last < pair[1].first));
        }
    }
}
