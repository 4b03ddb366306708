//! The producer: emulates a fleet of devices, sends on schedule, counts every place of the schedule.
//!
//! [`run`] is the whole daemon. Control (store, leases, claims) lives on the daemon's runtime; devices live on worker
//! threads of their own, see `worker`.

mod device;
mod error;
mod flush;
mod life;
mod metrics;
mod plan;
mod rows;
mod run;
mod timer;
mod waiting;
mod worker;

pub use error::Error;
pub use plan::connection;
pub use run::{Outcome, run};
