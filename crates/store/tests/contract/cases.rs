//! One function a promise.

pub mod claims;
pub mod leases;
pub mod plotting;
pub mod runs;
pub mod samples;
pub mod sends;
