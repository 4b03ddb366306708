//! When each message of a device is due: a seeded iterator of absolute times, known in advance and never moved by what the target does.

mod kind;
mod pace;

use std::time::Duration;

pub use kind::ScheduleKind;

use self::pace::Pace;
use crate::{
    random::{Random, mix},
    rate::Rate,
    time::unsigned_nanos,
};

/// What a device's schedule is made from.
#[derive(Clone, Debug, PartialEq)]
pub struct ScheduleSpec {
    /// Messages a second; a burst brings its own.
    pub rate: Rate,
    /// How the messages of a second are spread.
    pub kind: ScheduleKind,
    /// The rate grows linearly from 0 over this time; zero for none.
    pub ramp: Duration,
    /// Slots due in the ramp and for this long after it are flagged.
    pub warmup: Duration,
    /// Slots lie before this time, ramp and warm-up included; `None` for no end.
    pub duration: Option<Duration>,
    /// At most so many slots; `None` for no end.
    pub count: Option<u64>,
}

/// One place in a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// When it is due, in nanoseconds since the device's start.
    pub at_ns: u64,
    /// Within warm-up or ramp.
    pub warmup: bool,
}

/// The slots of one device, in order of time; about a hundred bytes.
#[derive(Clone, Debug)]
pub struct Schedule {
    pace: Pace,
    kind: ScheduleKind,
    random: Random,
    /// Where this device stands among all: its share of the interval.
    phase: f64,
    /// Position of the next message (constant, jitter, burst) in messages, or of the last (Poisson).
    position: f64,
    /// Slots left; `u64::MAX` for no end.
    left: u64,
    /// Positions at or past this are past the end; infinity for no end.
    end: f64,
    /// Messages still due at the time of the last slot.
    burst_left: u32,
    warmup_ns: u64,
    last_ns: u64,
}

impl ScheduleSpec {
    /// How long slots are flagged, from the device's start.
    pub fn flagged(&self) -> Duration {
        self.ramp.saturating_add(self.warmup)
    }

    /// Messages a second of one device at full rate; `None` for flat out.
    pub fn per_second(&self) -> Option<f64> {
        match (self.rate, self.kind) {
            (Rate::Max, _) => None,
            (_, ScheduleKind::Burst(size, interval)) => Some(f64::from(size) / interval.as_secs_f64()),
            (Rate::PerSecond(rate), _) => Some(rate),
        }
    }
}

impl Schedule {
    /// The schedule of device `device_index` of `devices`. `seed` is its own
    /// ([`seed_for`](crate::random::seed_for) its name); under one seed each index draws its own numbers too.
    ///
    /// [`Rate::Max`] has no slots.
    pub fn new(spec: &ScheduleSpec, seed: u64, device_index: u32, devices: u32) -> Schedule {
        let per_second = spec.per_second();
        let pace = Pace::new(per_second.unwrap_or(0.0), spec.ramp);
        let end = spec
            .duration
            .map_or(f64::INFINITY, |duration| pace.messages_before(duration));
        Schedule {
            pace,
            kind: spec.kind,
            random: Random::new(mix(seed, u64::from(device_index))),
            phase: f64::from(device_index % devices.max(1)) / f64::from(devices.max(1)),
            position: 0.0,
            left: if per_second.is_some() {
                spec.count.unwrap_or(u64::MAX)
            } else {
                0
            },
            end,
            burst_left: 0,
            warmup_ns: unsigned_nanos(spec.flagged()),
            last_ns: 0,
        }
    }

    /// The position of the next slot in messages: what the integral of the rate is when it is due. `None` past the end.
    fn next_position(&mut self) -> Option<f64> {
        let position = match self.kind {
            ScheduleKind::Constant => self.position + self.phase,
            // The place within its cell [k, k+1): cells never overlap, so slots stay in order and none leaves the duration.
            ScheduleKind::Jitter(share) => self.position + self.phase * (1.0 - share) + share * self.random.unit(),
            // Unit exponential gaps in the integral of the rate are a Poisson process of that rate, ramp included.
            ScheduleKind::Poisson => self.position + self.random.exponential(),
            ScheduleKind::Burst(size, _) => self.position + self.phase * f64::from(size),
        };
        if position >= self.end {
            return None;
        }
        match self.kind {
            ScheduleKind::Constant | ScheduleKind::Jitter(_) => self.position += 1.0,
            ScheduleKind::Poisson => self.position = position,
            ScheduleKind::Burst(size, _) => {
                self.position += f64::from(size);
                self.burst_left = size - 1;
            }
        }
        Some(position)
    }
}

impl Iterator for Schedule {
    type Item = Slot;

    fn next(&mut self) -> Option<Slot> {
        if self.left == 0 {
            return None;
        }
        if self.burst_left > 0 {
            self.burst_left -= 1;
        } else {
            let Some(position) = self.next_position() else {
                self.left = 0;
                return None;
            };
            self.last_ns = self.pace.at_ns(position).max(self.last_ns);
        }
        if self.left != u64::MAX {
            self.left -= 1;
        }
        Some(Slot {
            at_ns: self.last_ns,
            warmup: self.last_ns < self.warmup_ns,
        })
    }
}
