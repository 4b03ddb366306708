//! The pure core of Isochrone: no I/O, no runtime, no clock of its own.

pub mod entry;
pub mod histogram;
pub mod id;
pub mod payload;
pub mod range;
pub mod row;
pub mod time;
pub mod varint;
