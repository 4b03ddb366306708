//! The plotter: leases partitions of a run, turns stored entries into cuts, and cuts into what sinks export.
//!
//! Data flows through the files in this order: [`control`] finds runs and keeps time, `serving` is one run and its share of
//! partitions, `holding` one partition, `progress` the rules that say which entry belongs to which cut, `sinks` the way out.

mod back_ends;
mod control;
mod decode;
mod error;
mod holding;
mod progress;
mod refused;
mod serving;
mod share;
mod sinks;
mod turn;

pub use control::run;
pub use error::Error;
pub use holding::SINK_DEADLINE;
