//! What the end-to-end tests stand on: real servers, real daemons as processes, a proxy that tampers and takes notes.
//!
//! The tests themselves are in `tests/`. Everything a test starts lives in a temporary folder and ends with the test.

// A helper of tests fails like a test: with a panic that says what was expected.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "test support: a failure here fails the test"
)]

pub mod certs;
pub mod daemon;
pub mod docker;
pub mod http;
pub mod process;
pub mod proxy;
pub mod report;
pub mod servers;
pub mod wait;
pub mod witness;
