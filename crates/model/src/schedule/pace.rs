//! The integral of the rate and its inverse.

use std::time::Duration;

const NANOS: f64 = 1e9;

/// A rate that grows linearly from zero to full over the ramp, then stays.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    per_ns: f64,
    ramp_ns: f64,
}

impl Pace {
    pub fn new(per_second: f64, ramp: Duration) -> Pace {
        Pace {
            per_ns: per_second / NANOS,
            ramp_ns: ramp.as_nanos() as f64,
        }
    }

    /// When `messages` have become due, in whole nanoseconds, rounded down: `t = √(2·ramp·x/rate)` within the ramp, `ramp/2 + x/rate` after it.
    pub fn at_ns(&self, messages: f64) -> u64 {
        let flat = messages / self.per_ns;
        let ns = if 2.0 * flat < self.ramp_ns {
            (2.0 * self.ramp_ns * flat).sqrt()
        } else {
            self.ramp_ns / 2.0 + flat
        };
        // A hair below a whole nanosecond is that nanosecond.
        (ns * (1.0 + 4.0 * f64::EPSILON)) as u64
    }

    /// How many messages become due before `duration`; a result that is whole but for rounding is whole, so 10 s of 1000/s are 10,000.
    pub fn messages_before(&self, duration: Duration) -> f64 {
        let ns = duration.as_nanos() as f64;
        let flat = if ns < self.ramp_ns {
            ns * ns / (2.0 * self.ramp_ns)
        } else {
            ns - self.ramp_ns / 2.0
        };
        let messages = flat * self.per_ns;
        let whole = messages.round();
        if (messages - whole).abs() <= messages * 1e-12 {
            whole
        } else {
            messages
        }
    }
}
