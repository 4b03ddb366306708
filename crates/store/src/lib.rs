//! Where a run's state lives: runs, topics, claims, samples, cuts and ledgers.
//!
//! [`contract`] says what a store promises; Redis and memory keep the same promise.

mod announce;
pub mod contract;
mod cursor;
mod error;
mod finding;
pub mod lease;
pub mod memory;
pub mod partition;
pub mod redis;
pub mod run;
pub mod types;

pub use contract::{Ledgers, ReferenceClock, Registry, Samples, Store};
pub use error::{Error, Fate};
pub use finding::Finding;
