//! What is deployed, tried for real: the Compose file and the Swarm stack on a Docker engine, the chart against the schemas
//! of Kubernetes. Run one test at a time (`--test-threads=1`): each is a fleet of its own.

#![expect(clippy::expect_used, reason = "tests")]

mod chart;
mod compose;
mod swarm;
