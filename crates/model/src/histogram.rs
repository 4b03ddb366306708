//! Signed histograms of three significant digits, from 1 ns to unlimited, merged without loss.
//!
//! The state is a pure function of the multiset of values recorded: whatever the order, and however a whole was cut into parts and merged again, the
//! result is the same. Bucket bounds follow the layout of HdrHistogram (G. Tene), mirrored for negative values.

mod buckets;
mod coarse;
mod codec;
mod counters;
mod dense;
mod layout;
mod moments;
mod rank;
mod sparse;

pub use coarse::Coarse;
pub use dense::Dense;
pub use layout::bounds;
pub use rank::{is_supported, nearest_rank};
pub use sparse::Histogram;

/// What both kinds of histogram can tell.
pub trait Distribution {
    /// How many values.
    fn count(&self) -> u64;
    /// The `rank`-th smallest value, counted from 1; `None` outside of `1..=count`.
    fn nth(&self, rank: u64) -> Option<i64>;
    /// The mean of the values.
    fn mean(&self) -> Option<f64>;
}

impl Distribution for Histogram {
    fn count(&self) -> u64 {
        self.count()
    }
    fn nth(&self, rank: u64) -> Option<i64> {
        self.nth(rank)
    }
    fn mean(&self) -> Option<f64> {
        self.mean()
    }
}

impl Distribution for Dense {
    fn count(&self) -> u64 {
        self.count()
    }
    fn nth(&self, rank: u64) -> Option<i64> {
        self.nth(rank)
    }
    fn mean(&self) -> Option<f64> {
        self.mean()
    }
}
