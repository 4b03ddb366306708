//! Where every message went: the counts of all daemons side by side, and the equations between them.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::id::{Epoch, Topic};

/// An equation that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Inequality {
    /// As in the design: `sent = unique + lost + unrecorded + unheard + in_flight`.
    pub equation: &'static str,
    /// The topic (of the device, or the response topic), with the epoch or the sink where one is concerned.
    pub topic: String,
    /// Its left side.
    pub left: i128,
    /// Its right side.
    pub right: i128,
}

/// One epoch's row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EpochRow {
    /// Places in the schedule.
    pub scheduled: u64,
    /// Offered to the socket.
    pub sent: u64,
    /// Given up before that.
    pub unsent: u64,
    /// Waiting.
    pub queued: u64,
    /// Acknowledged.
    pub acked: u64,
    /// Refused.
    pub refused: u64,
    /// Not answered.
    pub unconfirmed: u64,
    /// First copies received.
    pub unique: u64,
    /// Given up as lost.
    pub lost: u64,
    /// Given up as unrecorded.
    pub unrecorded: u64,
    /// Given up as unheard.
    pub unheard: u64,
    /// Missing and not given up.
    pub in_flight: i128,
    /// QoS > 0: the broker answers.
    pub answered: bool,
    /// Made up after the producer vanished.
    pub rebuilt: bool,
}

/// One response topic's row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicRow {
    /// Messages read.
    pub arrived: u64,
    /// First copies.
    pub unique: u64,
    /// Further copies.
    pub duplicate: u64,
    /// Retained.
    pub retained: u64,
    /// Without a valid stamp.
    pub unstamped: u64,
    /// Of an epoch that does not belong there.
    pub foreign: u64,
    /// Below the highest received.
    pub reordered: u64,
    /// Samples in the store.
    pub stored: u64,
    /// Samples dropped by consumers.
    pub dropped: u64,
    /// Samples not stored yet.
    pub buffered: u64,
    /// By sink.
    pub sinks: BTreeMap<String, SinkRow>,
}

/// One sink's account of one response topic, in samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SinkRow {
    /// Delivered.
    pub exported: u64,
    /// Not come to yet.
    pub pending: u64,
    /// Left out by thinning.
    pub thinned: u64,
    /// Refused by the back end for good.
    pub set_aside: u64,
    /// Dropped because the sink was too slow.
    pub sink_dropped: u64,
}

/// Where every message of a run went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// By the device's topic and epoch.
    pub epochs: BTreeMap<(Topic, Epoch), EpochRow>,
    /// By response topic.
    pub topics: BTreeMap<Topic, TopicRow>,
    /// The run is closed: nothing may be in flight, queued or buffered.
    pub closed: bool,
}
