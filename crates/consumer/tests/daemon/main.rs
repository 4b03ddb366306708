//! Whole consumers in this process, against memory and against real servers, fed by hand-made devices.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod device;
mod faults;
mod life;
mod servers;
mod site;
