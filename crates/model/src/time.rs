//! The two clocks of a measurement and the seconds it is cut into.
//!
//! Nothing here reads a clock: programs pass a [`Clock`] in.

use std::{
    ops::{Add, Sub},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// Nanoseconds in one second.
pub const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// A length of time in nanoseconds; the longest that can be said for what is longer.
pub fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// The same without a sign.
pub fn unsigned_nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A point in time on the host's monotonic clock, in nanoseconds since its arbitrary start.
///
/// Comparable only within one clock [`Domain`](crate::id::Domain).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Monotonic(pub u64);

/// A point in time on the run's reference clock, in nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Reference(pub i64);

/// A whole second of the reference clock, in seconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Second(pub i64);

/// What turns a [`Monotonic`] into a [`Reference`], as measured at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offset {
    /// Reference minus monotonic, in nanoseconds.
    pub reference_minus_monotonic_ns: i64,
    /// Half-width of the interval that holds the true offset, in nanoseconds.
    pub bound_ns: u64,
    /// Counts jumps of the reference clock; times of two eras do not compare.
    pub era: u32,
}

/// Reads the host's monotonic clock and knows its offset to the reference clock.
///
/// `offset` may change between calls, `monotonic` never runs backwards. Both are cheap enough for every message.
pub trait Clock: Send + Sync {
    /// The monotonic clock, now.
    fn monotonic(&self) -> Monotonic;
    /// The newest measured offset.
    fn offset(&self) -> Offset;

    /// The reference clock, now.
    fn reference(&self) -> Reference {
        self.offset().at(self.monotonic())
    }
}

impl Offset {
    /// The reference time at `monotonic`.
    pub fn at(self, monotonic: Monotonic) -> Reference {
        Reference((monotonic.0 as i64).saturating_add(self.reference_minus_monotonic_ns))
    }

    /// The monotonic time at `reference`; zero when that lies before the monotonic clock's start.
    pub fn monotonic_at(self, reference: Reference) -> Monotonic {
        let ns = reference.0.saturating_sub(self.reference_minus_monotonic_ns);
        Monotonic(ns.max(0) as u64)
    }
}

impl Monotonic {
    /// `self − earlier` in nanoseconds; negative when `earlier` is later.
    pub fn since_ns(self, earlier: Monotonic) -> i64 {
        self.0.wrapping_sub(earlier.0) as i64
    }
}

impl Reference {
    /// The second this time lies in (rounded towards minus infinity).
    pub fn second(self) -> Second {
        Second(self.0.div_euclid(NANOS_PER_SECOND))
    }

    /// `self − earlier` in nanoseconds; negative when `earlier` is later.
    pub fn since_ns(self, earlier: Reference) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Second {
    /// The first nanosecond of this second.
    pub fn start(self) -> Reference {
        Reference(self.0.saturating_mul(NANOS_PER_SECOND))
    }
}

impl Add<i64> for Reference {
    type Output = Reference;
    fn add(self, ns: i64) -> Reference {
        Reference(self.0.saturating_add(ns))
    }
}

impl Monotonic {
    /// Later than anything that happens, and `since_ns` still tells so.
    pub const NEVER: Monotonic = Monotonic(i64::MAX as u64);
}

/// At most [`Monotonic::NEVER`].
impl Add<u64> for Monotonic {
    type Output = Monotonic;
    fn add(self, ns: u64) -> Monotonic {
        Monotonic(self.0.saturating_add(ns)).min(Monotonic::NEVER)
    }
}

impl Sub<i64> for Second {
    type Output = Second;
    fn sub(self, seconds: i64) -> Second {
        Second(self.0.saturating_sub(seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What lies beyond all clocks stays ahead of everything, instead of coming round to the past.
    #[test]
    fn far_away_is_never() {
        let now = Monotonic(1_000);
        let never = now + u64::MAX;
        assert_eq!(never, Monotonic::NEVER);
        assert!(never > now && now.since_ns(never) < 0 && never + 5 == never);
        let reference = Reference(1_800_000_000 * NANOS_PER_SECOND);
        assert!(reference + i64::MAX > reference && (reference + i64::MAX).since_ns(Reference(-5)) > 0);
        assert_eq!(nanos(Duration::MAX), i64::MAX);
        assert_eq!(nanos(Duration::from_micros(3)), 3_000);
    }
}
