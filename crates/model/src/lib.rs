//! The pure core of Isochrone: no I/O, no runtime, no clock of its own.

pub mod entry;
pub mod histogram;
pub mod id;
pub mod ledger;
pub mod payload;
pub mod quantity;
pub mod random;
pub mod range;
pub mod rate;
pub mod report;
pub mod row;
pub mod schedule;
pub mod slo;
pub mod stamp;
pub mod template;
pub mod thinning;
pub mod time;
pub mod tracker;
pub mod varint;
pub mod verdict;
pub mod window;
