//! Sinks against real servers, and against scripted ones for the answers that real ones give only when they are unwell.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail the test")]

mod elasticsearch;
#[path = "../support/entries.rs"]
mod entries;
mod influxdb;
mod otlp;
mod scripted;
mod story;
