//! The consumer: claims response topics, listens on them, and writes what arrived to the store.
//!
//! The control (`discover`, `run`, `claims`) lives on the daemon's runtime: it finds runs, keeps leases and takes topics.
//! Worker threads (`worker`, `desk`) listen: a connection (`link`, `connect`) hands each message to `receive`, which
//! counts it in its partition's `slice`; the partition's `tender` takes flushes out of it (`flush`), puts the registry's
//! answers in (`settle`), and gives claims back. `absence` knows when the thread was away from its sockets, `buffer`
//! bounds what waits for the store.

mod absence;
mod buffer;
mod claims;
mod connect;
mod desk;
mod discover;
mod error;
mod flush;
mod link;
mod metrics;
mod receive;
mod run;
mod run_delay;
mod serve;
mod settle;
mod slice;
mod tender;
mod worker;

pub use connect::{LinkPlan, plans};
pub use error::Error;
pub use serve::run;
