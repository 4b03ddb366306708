//! The consumer's own metrics.

use isochrone_daemon::{Metric, Metrics};
use prometheus::{Gauge, IntCounter};

use crate::slice::Tally;

const RECEIVED: Metric = Metric::counter(
    "isochrone_consumer_received_total",
    "First copies of messages received.",
);
const DUPLICATES: Metric = Metric::counter(
    "isochrone_consumer_duplicates_total",
    "Further copies of messages received.",
);
const RETAINED: Metric = Metric::counter("isochrone_consumer_retained_total", "Retained messages received.");
const UNSTAMPED: Metric = Metric::counter(
    "isochrone_consumer_unstamped_total",
    "Messages received without a stamp or with a broken one.",
);
const FOREIGN: Metric = Metric::counter(
    "isochrone_consumer_foreign_total",
    "Messages received whose device does not belong to the topic they came on.",
);
const STRAY: Metric = Metric::counter(
    "isochrone_consumer_stray_total",
    "Messages received on topics that were not held any more.",
);
const DROPPED: Metric = Metric::counter(
    "isochrone_consumer_dropped_total",
    "Samples dropped because the store was away for longer than ISOCHRONE_BUFFER lasts.",
);
const FLUSHES: Metric = Metric::counter(
    "isochrone_consumer_flushes_total",
    "Writes of samples that the store confirmed.",
);
const SHED: Metric = Metric::counter(
    "isochrone_consumer_shed_entries_total",
    "Entries that the store left out because it held ISOCHRONE_RETAIN already.",
);
const FENCED: Metric = Metric::counter(
    "isochrone_consumer_fenced_total",
    "Claims found to be somebody else's by now.",
);
const CLAIMS: Metric = Metric::gauge("isochrone_consumer_claims", "Response topics held.");

/// The counters, ready to be counted in.
#[derive(Clone)]
pub struct Counters {
    received: IntCounter,
    duplicates: IntCounter,
    retained: IntCounter,
    unstamped: IntCounter,
    foreign: IntCounter,
    stray: IntCounter,
    /// Samples dropped.
    pub dropped: IntCounter,
    /// Flushes stored.
    pub flushes: IntCounter,
    /// Entries the store left out.
    pub shed: IntCounter,
    /// Claims lost.
    pub fenced: IntCounter,
    /// Claims held.
    pub claims: Gauge,
}

impl Counters {
    /// Declares them all.
    pub fn new(metrics: &Metrics) -> Counters {
        Counters {
            received: metrics.counter(&RECEIVED),
            duplicates: metrics.counter(&DUPLICATES),
            retained: metrics.counter(&RETAINED),
            unstamped: metrics.counter(&UNSTAMPED),
            foreign: metrics.counter(&FOREIGN),
            stray: metrics.counter(&STRAY),
            dropped: metrics.counter(&DROPPED),
            flushes: metrics.counter(&FLUSHES),
            shed: metrics.counter(&SHED),
            fenced: metrics.counter(&FENCED),
            claims: metrics.gauge(&CLAIMS),
        }
    }

    /// Adds what a slice counted since the last time.
    pub fn add(&self, tally: Tally) {
        self.received.inc_by(tally.unique);
        self.duplicates.inc_by(tally.duplicates);
        self.retained.inc_by(tally.retained);
        self.unstamped.inc_by(tally.unstamped);
        self.foreign.inc_by(tally.foreign);
        self.stray.inc_by(tally.stray);
    }
}
