//! Time-series stores the plotter writes to.
//!
//! [`contract`] says what a sink promises; [`runner`] is the queue, batching, retrying and counting around each of them, so
//! that a new back end is one file that implements [`Sink`] and nothing else.

pub mod contract;
pub mod elasticsearch;
mod error;
mod http;
pub mod influxdb;
mod measures;
pub mod otlp;
pub mod prometheus;
pub mod runner;
pub mod topics;

pub use contract::{Counts, Cut, Delivery, Departure, Hold, Needs, Sink};
pub use error::{Error, Fate};
