//! The numbers of one label set, taken from the cumulative state.

use isochrone_model::{histogram::Histogram, window::TopicTotals};

/// A counter of a topic, declared as data.
pub struct CounterSpec {
    pub name: &'static str,
    pub help: &'static str,
    pub value: fn(&TopicTotals) -> u64,
}

/// A histogram of a topic, declared as data.
pub struct HistogramSpec {
    pub name: &'static str,
    pub help: &'static str,
    pub value: fn(&TopicTotals) -> &Histogram,
}

macro_rules! counters {
    ($($name:literal, $help:literal, $value:expr;)*) => {
        /// Every counter of a topic.
        pub const COUNTERS: &[CounterSpec] = &[$(CounterSpec { name: $name, help: $help, value: $value }),*];
    };
}

counters! {
    "isochrone_messages_scheduled_total", "Messages that the schedule wanted out.", |t| t.scheduled;
    "isochrone_sent_total", "Messages offered to the socket.", |t| t.sent;
    "isochrone_unsent_total", "Messages given up before they were offered to the socket.", |t| t.unsent;
    "isochrone_acked_total", "Messages acknowledged by the broker (QoS 1 and 2).", |t| t.acked;
    "isochrone_refused_total", "Messages refused by the broker (QoS 1 and 2).", |t| t.refused;
    "isochrone_unconfirmed_total", "Messages never answered by the broker when their device ended (QoS 1 and 2).",
        |t| t.unconfirmed;
    "isochrone_received_total", "First copies received and stored.", |t| t.received;
    "isochrone_duplicates_total", "Further copies received.", |t| t.duplicates;
    "isochrone_retained_total", "Retained messages received.", |t| t.retained;
    "isochrone_unstamped_total", "Messages received without a stamp or with a broken one.", |t| t.unstamped;
    "isochrone_foreign_total", "Messages received that belong to another topic or another run.", |t| t.foreign;
    "isochrone_reordered_total", "First copies received below the highest sequence of their device.", |t| t.reordered;
    "isochrone_lost_total", "Messages given up as lost; see isochrone_lost_found_total.", |t| t.missing.lost;
    "isochrone_lost_found_total", "Messages given up as lost that came after all.", |t| t.found.lost;
    "isochrone_unrecorded_total", "Messages that may have come while the consumer's state was lost with it.",
        |t| t.missing.unrecorded;
    "isochrone_unrecorded_found_total", "Messages given up as unrecorded that came after all.", |t| t.found.unrecorded;
    "isochrone_unheard_total", "Messages sent while nobody listened.", |t| t.missing.unheard;
    "isochrone_unheard_found_total", "Messages given up as unheard that came after all.", |t| t.found.unheard;
    "isochrone_dropped_total", "Samples that the consumer had to drop.", |t| t.dropped;
}

/// Every histogram of a topic.
pub const HISTOGRAMS: &[HistogramSpec] = &[
    HistogramSpec {
        name: "isochrone_response_seconds",
        help: "From when the schedule wanted a message out until it was received: free of coordinated omission.",
        value: |t| &t.response,
    },
    HistogramSpec {
        name: "isochrone_transit_seconds",
        help: "From when a message was offered to the socket until it was received; clock skew may make it negative.",
        value: |t| &t.transit,
    },
    HistogramSpec {
        name: "isochrone_publish_delay_seconds",
        help: "From when the schedule wanted a message out until it was offered to the socket, of received messages.",
        value: |t| &t.publish_delay,
    },
    HistogramSpec {
        name: "isochrone_late_seconds",
        help: "The producer's own part of the publish delay, of sent messages.",
        value: |t| &t.late,
    },
    HistogramSpec {
        name: "isochrone_ack_seconds",
        help: "From offering a message to its PUBACK or PUBREC.",
        value: |t| &t.ack,
    },
    HistogramSpec {
        name: "isochrone_complete_seconds",
        help: "From PUBREL to PUBCOMP (QoS 2).",
        value: |t| &t.complete,
    },
];

/// One topic's numbers, in the order of [`COUNTERS`] and [`HISTOGRAMS`].
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
            counters: vec![0; COUNTERS.len()],
            histograms: vec![none; HISTOGRAMS.len()],
        }
    }

    /// What a topic adds up to.
    pub fn new(buckets: &[f64], totals: &TopicTotals) -> Series {
        Series {
            counters: COUNTERS.iter().map(|spec| (spec.value)(totals)).collect(),
            histograms: HISTOGRAMS
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
