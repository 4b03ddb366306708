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
