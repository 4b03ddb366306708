//! Signed histograms of three significant digits, from 1 ns to unlimited, merged without loss.
//!
//! The state is a pure function of the multiset of values recorded: whatever the order, and however a whole was cut into parts and merged again, the
//! result is the same. Bucket bounds follow the layout of HdrHistogram (G. Tene), mirrored for negative values.

mod codec;
mod dense;
mod layout;
mod moments;
mod rank;
mod sparse;

pub use dense::Dense;
pub use layout::bounds;
pub use rank::nearest_rank;
pub use sparse::Histogram;
