//! From readings of the reference clock to an offset with a bound: pure arithmetic.
//!
//! A reading is a round trip: the reference told its time somewhere between asking and the answer. Half the round trip
//! bounds the error, whatever the paths are like (Cristian, "Probabilistic clock synchronization", 1989); the shortest of
//! a window is the best, but loses 100 ppm of its age.

use std::collections::VecDeque;

use isochrone_model::time::{Monotonic, Offset, Reference};

/// How much two quartz clocks may drift apart, NTP's slewing aside: 100 ns each ms.
pub const DRIFT_PPM: u64 = 100;
/// The reference tells whole microseconds.
const RESOLUTION_NS: u64 = 1_000;
/// Readings kept: older ones would be worth less than any new one.
const WINDOW: usize = 32;
/// Fewest readings and least time that a drift is fitted over.
const FIT_READINGS: usize = 8;
const FIT_SPAN_NS: i64 = 5_000_000_000;

/// One round trip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Just before asking.
    pub asked: Monotonic,
    /// Just after the answer.
    pub answered: Monotonic,
    /// What the reference said, rounded down to whole microseconds.
    pub reference: Reference,
}

/// The offset as a line over time, with its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// Where the line starts.
    pub at: Monotonic,
    /// Reference minus monotonic there, in nanoseconds.
    pub offset_ns: i64,
    /// Half-width of the interval that holds the true offset there, in nanoseconds.
    pub bound_ns: u64,
    /// The line's slope, in nanoseconds a second.
    pub drift_ppb: i64,
    /// How fast the bound grows, in nanoseconds a millisecond.
    pub growth_ppm: u64,
    /// Counts jumps of the reference.
    pub era: u32,
}

/// The last readings of one era.
#[derive(Clone, Debug)]
pub struct Filter {
    readings: VecDeque<Reading>,
    era: u32,
}

/// What a reading did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It fits what was known.
    Steady,
    /// It cannot be true together with what was known: the reference jumped by about this much, and a new era began.
    Jumped {
        /// In nanoseconds.
        by_ns: i64,
    },
}

impl Estimate {
    /// The offset at `now`, its bound grown by age.
    pub fn offset_at(&self, now: Monotonic) -> Offset {
        let age_ns = now.since_ns(self.at);
        let drifted = i128::from(self.drift_ppb) * i128::from(age_ns) / 1_000_000_000;
        let grown = u128::from(self.growth_ppm) * u128::from(age_ns.unsigned_abs()) / 1_000_000;
        Offset {
            reference_minus_monotonic_ns: self.offset_ns.saturating_add(drifted as i64),
            bound_ns: self.bound_ns.saturating_add(u64::try_from(grown).unwrap_or(u64::MAX)),
            era: self.era,
        }
    }
}

impl Reading {
    /// The middle of the round trip.
    fn middle(&self) -> Monotonic {
        self.asked + self.round_trip_ns() / 2
    }

    /// The offset if the reference was read in the middle, and in the middle of its microsecond.
    fn offset_ns(&self) -> i64 {
        (self.reference.0 + RESOLUTION_NS as i64 / 2).saturating_sub(self.middle().0 as i64)
    }

    fn round_trip_ns(&self) -> u64 {
        u64::try_from(self.answered.since_ns(self.asked)).unwrap_or(0)
    }

    /// Half the round trip and the reference's resolution.
    fn bound_ns(&self) -> u64 {
        self.round_trip_ns().div_ceil(2) + RESOLUTION_NS
    }

    /// The same seen from `now`.
    fn bound_at(&self, now: Monotonic) -> u64 {
        let age_ns = now.since_ns(self.middle()).unsigned_abs();
        self.bound_ns()
            .saturating_add((u128::from(age_ns) * u128::from(DRIFT_PPM) / 1_000_000) as u64)
    }
}

impl Default for Filter {
    fn default() -> Filter {
        Filter::new(0)
    }
}

impl Filter {
    /// No readings yet; the first era is `era`.
    pub fn new(era: u32) -> Filter {
        Filter {
            readings: VecDeque::with_capacity(WINDOW),
            era,
        }
    }

    /// Takes a reading and says what follows from all of them.
    pub fn hear(&mut self, reading: Reading) -> (Heard, Estimate) {
        let mut heard = Heard::Steady;
        if let Some(known) = self.estimate(reading.middle()) {
            let by_ns = reading.offset_ns().saturating_sub(known.offset_ns);
            if by_ns.unsigned_abs() > known.bound_ns.saturating_add(reading.bound_ns()) {
                self.new_era();
                heard = Heard::Jumped { by_ns };
            }
        }
        if self.readings.len() == WINDOW {
            self.readings.pop_front();
        }
        self.readings.push_back(reading);
        let now = reading.answered;
        let estimate = self.estimate(now).unwrap_or(Estimate {
            at: now,
            offset_ns: reading.offset_ns(),
            bound_ns: reading.bound_ns(),
            drift_ppb: 0,
            growth_ppm: DRIFT_PPM,
            era: self.era,
        });
        (heard, estimate)
    }

    /// Forgets all readings: the reference is another one now.
    pub fn new_era(&mut self) {
        self.readings.clear();
        self.era = self.era.wrapping_add(1);
    }

    /// The reading that is worth most at `now`, moved there along the fitted drift.
    fn estimate(&self, now: Monotonic) -> Option<Estimate> {
        let best = self.readings.iter().min_by_key(|reading| reading.bound_at(now))?;
        let drift_ppb = self.drift_ppb(now);
        let drifted = i128::from(drift_ppb) * i128::from(now.since_ns(best.middle())) / 1_000_000_000;
        Some(Estimate {
            at: now,
            offset_ns: best.offset_ns().saturating_add(drifted as i64),
            bound_ns: best.bound_at(now),
            drift_ppb,
            growth_ppm: DRIFT_PPM,
            era: self.era,
        })
    }

    /// Least squares over the better half of the window; 0 where the readings are too few or too coarse to tell.
    ///
    /// The bound grows by 100 ppm of a reading's age, so the line may be wrong by no more: a reading may be off by its own
    /// bound, which tilts the line by at most `bound · Σ|x| / Σx²`.
    fn drift_ppb(&self, now: Monotonic) -> i64 {
        let mut round_trips: Vec<u64> = self.readings.iter().map(Reading::round_trip_ns).collect();
        round_trips.sort_unstable();
        let Some(&median) = round_trips.get(round_trips.len() / 2) else {
            return 0;
        };
        let good: Vec<&Reading> = self
            .readings
            .iter()
            .filter(|reading| reading.round_trip_ns() <= median)
            .collect();
        let (Some(first), Some(last)) = (good.first(), good.last()) else {
            return 0;
        };
        if good.len() < FIT_READINGS || last.middle().since_ns(first.middle()) < FIT_SPAN_NS {
            return 0;
        }
        // Relative to one point, so that f64 keeps every nanosecond.
        let base = first.offset_ns();
        let points = good.iter().map(|reading| {
            (
                reading.middle().since_ns(now) as f64,
                (reading.offset_ns() - base) as f64,
            )
        });
        let n = good.len() as f64;
        let (mean_x, mean_y) = points
            .clone()
            .fold((0.0, 0.0), |(x, y), point| (x + point.0 / n, y + point.1 / n));
        let (mut covariance, mut variance, mut spread) = (0.0, 0.0, 0.0);
        for (x, y) in points {
            covariance += (x - mean_x) * (y - mean_y);
            variance += (x - mean_x) * (x - mean_x);
            spread += (x - mean_x).abs();
        }
        let coarsest = good.iter().map(|reading| reading.bound_ns()).max().unwrap_or(u64::MAX);
        let most = DRIFT_PPM as f64 / 1e6;
        if coarsest as f64 * spread / variance > most {
            return 0;
        }
        ((covariance / variance).clamp(-most, most) * 1e9) as i64
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// A reference that runs `ppm` faster and stands `start_ns` ahead.
    #[derive(Clone, Copy, Debug)]
    struct Truth {
        start_ns: i64,
        ppm: i64,
    }

    impl Truth {
        fn offset_ns(self, at: Monotonic) -> i64 {
            self.start_ns + (i128::from(at.0) * i128::from(self.ppm) / 1_000_000) as i64
        }

        /// A reading that took `there` and `back`.
        fn read(self, asked: Monotonic, there: u64, back: u64) -> Reading {
            let told = asked + there;
            let exact = told.0 as i64 + self.offset_ns(told);
            Reading {
                asked,
                answered: told + back,
                reference: Reference(exact.div_euclid(1_000) * 1_000),
            }
        }
    }

    fn off_by(estimate: &Estimate, truth: Truth, at: Monotonic) -> (u64, u64) {
        let offset = estimate.offset_at(at);
        (
            offset.reference_minus_monotonic_ns.abs_diff(truth.offset_ns(at)),
            offset.bound_ns,
        )
    }

    const SECOND: u64 = 1_000_000_000;

    proptest! {
        /// Whatever the paths, the true offset lies within the bound, then and until ten readings later; and nothing jumps.
        #[test]
        fn the_truth_lies_within_the_bound(
            start_ns in -1_000_000_000_000_000_i64..1_800_000_000_000_000_000,
            ppm in -95_i64..=95,
            delays in vec((1_000_u64..400_000, 1_000_u64..20_000_000, any::<bool>()), 1..60),
        ) {
            let truth = Truth { start_ns, ppm };
            let mut filter = Filter::default();
            for (index, (short, long, swap)) in delays.into_iter().enumerate() {
                let asked = Monotonic((index as u64 + 5) * SECOND);
                let (there, back) = if swap { (short, long) } else { (long, short) };
                let reading = truth.read(asked, there, back);
                let (heard, estimate) = filter.hear(reading);
                prop_assert_eq!(heard, Heard::Steady);
                for later in [0, SECOND / 2, SECOND, 10 * SECOND] {
                    let (off, bound) = off_by(&estimate, truth, reading.answered + later);
                    prop_assert!(off <= bound, "off {off} bound {bound} after {later}");
                }
            }
        }

        /// A jump beyond what both bounds allow begins a new era at once, in which the bound holds again.
        #[test]
        fn a_jump_begins_an_era(by_ms in 50_i64..1_000_000, backwards in any::<bool>(), before in 1_u64..40) {
            let mut filter = Filter::default();
            let truth = Truth { start_ns: 1_700_000_000_000_000_000, ppm: 20 };
            for index in 0..before {
                let (heard, estimate) = filter.hear(truth.read(Monotonic((index + 1) * SECOND), 50_000, 80_000));
                prop_assert_eq!((heard, estimate.era), (Heard::Steady, 0));
            }
            let by_ns = if backwards { -by_ms } else { by_ms } * 1_000_000;
            let jumped = Truth { start_ns: truth.start_ns + by_ns, ..truth };
            let reading = jumped.read(Monotonic((before + 1) * SECOND), 50_000, 80_000);
            let (heard, estimate) = filter.hear(reading);
            prop_assert!(matches!(heard, Heard::Jumped { by_ns: seen } if (seen - by_ns).abs() < 1_000_000), "{heard:?}");
            prop_assert_eq!(estimate.era, 1);
            let (off, bound) = off_by(&estimate, jumped, reading.answered);
            prop_assert!(off <= bound);
        }
    }

    /// With steady short round trips the drift is found, and the line stays true long after the last reading.
    #[test]
    fn a_steady_drift_is_fitted() {
        let truth = Truth {
            start_ns: 1_700_000_000_000_000_000,
            ppm: 40,
        };
        let mut filter = Filter::default();
        let mut newest = None;
        for index in 0..30 {
            newest = Some(
                filter
                    .hear(truth.read(Monotonic((index + 1) * SECOND), 40_000, 50_000))
                    .1,
            );
        }
        let estimate = newest.unwrap();
        assert!((estimate.drift_ppb - 40_000).abs() < 2_000, "{estimate:?}");
        let (off, _) = off_by(&estimate, truth, estimate.at + 10 * SECOND);
        assert!(off < 50_000, "{off}");
    }

    /// The bound grows by 100 us a second of silence.
    #[test]
    fn silence_widens_the_bound() {
        let truth = Truth { start_ns: 0, ppm: 0 };
        let (_, estimate) = Filter::default().hear(truth.read(Monotonic(SECOND), 10_000, 10_000));
        let grown = estimate.offset_at(estimate.at + 10 * SECOND).bound_ns - estimate.bound_ns;
        assert_eq!(grown, 1_000_000);
    }
}
