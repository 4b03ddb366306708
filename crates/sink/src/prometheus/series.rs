//! The numbers of one label set, taken from the cumulative state.

use isochrone_model::{histogram::Histogram, window::TopicTotals};

use crate::measures::{COUNTS, LATENCIES};

/// One topic's numbers, in the order of [`COUNTS`] and [`LATENCIES`].
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    pub counters: Vec<u64>,
    pub histograms: Vec<Classic>,
}

/// A histogram with fixed buckets.
#[derive(Clone, Debug, PartialEq)]
pub struct Classic {
    /// For each bound, how many values are at most that: negative ones are in all of them.
    pub cumulative: Vec<u64>,
    pub count: u64,
    pub sum_ns: i128,
}

impl Series {
    /// All zero.
    pub fn empty(buckets: &[f64]) -> Series {
        let none = Classic {
            cumulative: vec![0; buckets.len()],
            count: 0,
            sum_ns: 0,
        };
        Series {
            counters: vec![0; COUNTS.len()],
            histograms: vec![none; LATENCIES.len()],
        }
    }

    /// What a topic adds up to.
    pub fn new(buckets: &[f64], totals: &TopicTotals) -> Series {
        Series {
            counters: COUNTS.iter().map(|spec| (spec.value)(totals)).collect(),
            histograms: LATENCIES
                .iter()
                .map(|spec| Classic::new(buckets, (spec.value)(totals)))
                .collect(),
        }
    }

    /// Adds another topic's.
    pub fn add(&mut self, other: &Series) {
        for (mine, more) in self.counters.iter_mut().zip(&other.counters) {
            *mine += more;
        }
        for (mine, more) in self.histograms.iter_mut().zip(&other.histograms) {
            mine.count += more.count;
            mine.sum_ns += more.sum_ns;
            for (mine, more) in mine.cumulative.iter_mut().zip(&more.cumulative) {
                *mine += more;
            }
        }
    }
}

impl Classic {
    fn new(buckets: &[f64], histogram: &Histogram) -> Classic {
        Classic {
            cumulative: buckets
                .iter()
                .map(|bound| histogram.count_le(nanoseconds(*bound)))
                .collect(),
            count: histogram.count(),
            sum_ns: histogram.sum(),
        }
    }
}

/// `as` saturates, which is what a bound beyond the clock's range must do.
fn nanoseconds(seconds: f64) -> i64 {
    (seconds * 1e9).round() as i64
}
