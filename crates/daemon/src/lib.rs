//! The chassis of every daemon: settings from the environment, lifecycle, logs, health and metrics page, clock discipline,
//! leases and the care for what dead daemons leave behind.
//!
//! A daemon's `main` is [`chassis::run`] and its work; the all-in-one makes a [`Context`] per daemon itself.

pub mod chassis;
pub mod clock;
mod context;
mod health;
pub mod lease;
mod logs;
mod metrics;
pub mod page;
mod prompt;
pub mod settings;
mod stop;
mod tasks;
pub mod telemetry;
pub mod warden;

pub use context::{Context, Shared};
pub use health::Health;
pub use logs::start as start_logs;
pub use metrics::{Kind, Metric, Metrics};
pub use prompt::wake_promptly;
pub use stop::{Cause, Stop};
pub use tasks::Tasks;
