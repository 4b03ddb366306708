//! The consumer's own metrics.

use isochrone_daemon::{Metric, Metrics};
use prometheus::{Gauge, IntCounter};

use crate::slice::Tally;

/// From one table: the counters as they are declared, and as they are counted in.
macro_rules! counters {
    ($($(#[doc = $what:literal])+ $name:ident = $metric:literal, $help:literal;)+) => {
        /// The daemon's own metrics, ready to be counted in.
        #[derive(Clone)]
        pub struct Counters {
            $($(#[doc = $what])+ pub $name: IntCounter,)+
            /// Claims held.
            pub claims: Gauge,
        }

        impl Counters {
            /// Declares them all.
            pub fn new(metrics: &Metrics) -> Counters {
                Counters {
                    $($name: metrics.counter(const { &Metric::counter($metric, $help) }),)+
                    claims: metrics.gauge(&CLAIMS),
                }
            }
        }
    };
}

const CLAIMS: Metric = Metric::gauge("isochrone_consumer_claims", "Response topics held.");

counters! {
    /// First copies.
    unique = "isochrone_consumer_received_total", "First copies of messages received.";
    /// Further copies.
    duplicates = "isochrone_consumer_duplicates_total", "Further copies of messages received.";
    /// Retained messages.
    retained = "isochrone_consumer_retained_total", "Retained messages received.";
    /// Without a stamp or with a broken one.
    unstamped = "isochrone_consumer_unstamped_total", "Messages received without a stamp or with a broken one.";
    /// Of an epoch that does not belong where it arrived.
    foreign = "isochrone_consumer_foreign_total", "Messages received whose device does not belong to the topic they came on.";
    /// On a topic that is not held (any more).
    stray = "isochrone_consumer_stray_total", "Messages received on topics that were not held any more.";
    /// Samples dropped.
    dropped = "isochrone_consumer_dropped_total", "Samples dropped because the store was away for longer than ISOCHRONE_BUFFER lasts.";
    /// Flushes stored.
    flushes = "isochrone_consumer_flushes_total", "Writes of samples that the store confirmed.";
    /// Entries the store left out.
    shed = "isochrone_consumer_shed_entries_total", "Entries that the store left out because it held ISOCHRONE_RETAIN already.";
    /// Claims lost.
    fenced = "isochrone_consumer_fenced_total", "Claims found to be somebody else's by now.";
    /// Topics of the dead.
    takeovers = "isochrone_consumer_takeovers_total", "Topics taken over from a consumer that had died.";
    /// Connections.
    connects = "isochrone_consumer_connects_total", "Connections to the broker that came up.";
    /// Connections that failed.
    failed = "isochrone_consumer_connects_failed_total", "Attempts to connect that failed and connections that ended badly.";
}

impl Counters {
    /// Adds what a slice counted since the last time.
    pub fn add(&self, tally: Tally) {
        self.unique.inc_by(tally.unique);
        self.duplicates.inc_by(tally.duplicates);
        self.retained.inc_by(tally.retained);
        self.unstamped.inc_by(tally.unstamped);
        self.foreign.inc_by(tally.foreign);
        self.stray.inc_by(tally.stray);
        self.takeovers.inc_by(tally.takeovers);
        self.connects.inc_by(tally.connects);
        self.failed.inc_by(tally.failed);
    }
}
