//! What one partition of one run adds up to: totals that only grow, facts of each second, and the windows of one cut.

use std::collections::{BTreeMap, HashMap};

use crate::{
    entry::{ReceiptHead, ReceiptPart, SendHead, SendPart},
    histogram::Histogram,
    id::{Domain, Epoch, Topic},
    row::Device,
    time::Second,
    verdict::{GivenUp, Reasons, SecondFacts},
};

/// One entry of a partition's stream, decoded.
#[derive(Clone, Debug, PartialEq)]
pub enum CutEntry {
    /// Written by a consumer.
    Receipt {
        /// Second of receipt.
        second: Second,
        /// Beside the parts.
        head: ReceiptHead,
        /// By response topic.
        parts: Vec<(Topic, ReceiptPart)>,
    },
    /// Written by a producer.
    Send {
        /// Second of due.
        second: Second,
        /// Beside the parts.
        head: SendHead,
        /// Each names its epoch.
        parts: Vec<SendPart>,
    },
}

/// Epoch → registration, as far as it is known.
pub type Devices = HashMap<Epoch, Device>;

/// Everything counted and measured on one response topic; numbers only grow. Counts hold everything, histograms leave
/// warm-up and ramps out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TopicTotals {
    /// Places in the schedule.
    pub scheduled: u64,
    /// Offered to the socket.
    pub sent: u64,
    /// Given up before they were offered.
    pub unsent: u64,
    /// Acknowledged by the broker.
    pub acked: u64,
    /// Refused by the broker.
    pub refused: u64,
    /// Never answered.
    pub unconfirmed: u64,
    /// First copies (samples).
    pub received: u64,
    /// Further copies.
    pub duplicates: u64,
    /// Retained messages.
    pub retained: u64,
    /// Without a valid stamp.
    pub unstamped: u64,
    /// Of an epoch that does not belong here.
    pub foreign: u64,
    /// First copies below the highest sequence received.
    pub reordered: u64,
    /// Samples the consumer dropped from its buffer (they are not in `received`).
    pub dropped: u64,
    /// Given up, by kind.
    pub missing: GivenUp,
    /// Given up and received later, by the kind they had.
    pub found: GivenUp,
    /// `received − due`, in nanoseconds.
    pub response: Histogram,
    /// `received − sent`, in nanoseconds.
    pub transit: Histogram,
    /// `sent − due` of what was received, in nanoseconds.
    pub publish_delay: Histogram,
    /// `ready − due` of what was sent, in nanoseconds.
    pub late: Histogram,
    /// From offering to PUBACK or PUBREC, in nanoseconds.
    pub ack: Histogram,
    /// From PUBREL to PUBCOMP, in nanoseconds.
    pub complete: Histogram,
    /// First and last second of anything here.
    pub seconds: Option<(Second, Second)>,
}

/// The same histograms over all topics of the partition.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunTotals {
    /// See [`TopicTotals::response`].
    pub response: Histogram,
    /// See [`TopicTotals::transit`].
    pub transit: Histogram,
    /// See [`TopicTotals::publish_delay`].
    pub publish_delay: Histogram,
    /// See [`TopicTotals::late`].
    pub late: Histogram,
    /// See [`TopicTotals::ack`].
    pub ack: Histogram,
    /// See [`TopicTotals::complete`].
    pub complete: Histogram,
    /// Clock domains seen.
    pub domains: std::collections::BTreeSet<Domain>,
    /// Largest clock bound seen, in nanoseconds.
    pub bound_ns: u64,
    /// Parts of epochs that no registration was known for.
    pub unknown_epochs: u64,
}

/// What a window's second is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WindowKind {
    /// Second of due: scheduled, sent, unsent, acked…, received, missing, dropped; response, publish_delay, late, ack.
    Due,
    /// Second of receipt: received, duplicates, retained…; transit.
    Receipt,
}

/// One part of a window: what one cut knows of one response topic and one second. Parts of several cuts add up.
/// Its identity is (run, topic, kind, second, cut). Counts and histograms that its kind does not name are empty.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// What `second` is.
    pub kind: WindowKind,
    /// Which.
    pub second: Second,
    /// The response topic.
    pub topic: Topic,
    /// Holds messages of warm-up or a ramp.
    pub warmup: bool,
    /// This part's own reasons, fixed by the cut.
    pub reasons: Reasons,
    /// Largest clock bound, in nanoseconds.
    pub bound_ns: u64,
    /// Counts and histograms (warm-up included, other than in [`Totals`]).
    pub totals: TopicTotals,
}

/// Fields of the cumulative hash that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cumulative field {field:?} is damaged")]
pub struct BadTotals {
    /// Its name.
    pub field: String,
}

/// The cumulative state of one partition of one run. Numbers only grow; entries may come in any order.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    devices: Devices,
    topics: BTreeMap<Topic, TopicTotals>,
    run: RunTotals,
    seconds: BTreeMap<Second, SecondFacts>,
}

impl Totals {
    /// Nothing counted yet.
    pub fn new() -> Totals {
        Totals::default()
    }

    /// The state as saved. Devices are not in it: tell them again.
    pub fn load(_fields: Vec<(String, Vec<u8>)>) -> Result<Totals, BadTotals> {
        Ok(Totals::default())
    }

    /// A registration; needed before entries of its epoch are applied.
    pub fn know_device(&mut self, device: &Device) {
        self.devices.insert(device.epoch, device.clone());
    }

    /// Whether the epoch's registration is known.
    pub fn knows(&self, epoch: Epoch) -> bool {
        self.devices.contains_key(&epoch)
    }

    /// The registrations told so far, for [`windows_of_cut`].
    pub fn devices(&self) -> &Devices {
        &self.devices
    }

    /// Adds one entry of the next cut.
    pub fn apply(&mut self, _entry: &CutEntry) {}

    /// The fields that changed since the last call, for the cumulative hash.
    pub fn changed(&mut self) -> Vec<(String, Vec<u8>)> {
        Vec::new()
    }

    /// Adds what another partition of the same run adds up to.
    pub fn merge(&mut self, _other: &Totals) {}

    /// By response topic.
    pub fn topics(&self) -> &BTreeMap<Topic, TopicTotals> {
        &self.topics
    }

    /// Over all topics.
    pub fn run(&self) -> &RunTotals {
        &self.run
    }

    /// By second, as far as they are held in memory: all of them after `load`, at least the newest ten minutes later.
    pub fn seconds(&self) -> &BTreeMap<Second, SecondFacts> {
        &self.seconds
    }
}

/// The windows of one cut, by kind, second and topic. The same entries and devices give the same windows whatever their order.
pub fn windows_of_cut(_entries: &[CutEntry], _devices: &Devices) -> Vec<Window> {
    Vec::new()
}
