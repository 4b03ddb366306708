//! What the cases stand on: a run written by hand, plotters at work on it, a Redis of the test's own.

mod corrupt;
mod deadline;
mod plotter;
mod server;
mod topic;
mod world;

pub use corrupt::Corrupt;
pub use deadline::Deadline;
pub use plotter::{Running, sum};
pub use server::Server;
pub use world::{PARTITIONS, World};
