//! What a user is promised, tried with real servers and real processes. One program, so that it is linked once; run one
//! test at a time (`--test-threads=1`): each is a fleet of its own.

#![expect(clippy::expect_used, clippy::panic, reason = "tests")]

mod alerts;
mod all_in_one;
mod back_ends;
mod clock;
mod daemons;
mod dashboards;
mod elasticsearch;
mod faults;
mod kibana;
mod ledger;
mod picture;
mod prometheus;
mod purge;
mod samples;
mod settings;
mod signals;
mod telemetry;
mod tls;
mod troubled;
mod warmup;
