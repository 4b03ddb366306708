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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
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
    /// Missing and not given up: the one difference, never below zero, and zero once the run is closed.
    pub in_flight: u64,
    /// QoS > 0: the broker answers.
    pub answered: bool,
    /// Made up after the producer vanished.
    pub rebuilt: bool,
}

/// Where the daemons' entries about a response topic are: messages sent in producers', samples in consumers'.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Messages sent that plotters have added up by seconds.
    pub plotted: u64,
    /// Messages sent in entries that no plotter has come to yet.
    pub unplotted: u64,
    /// Messages sent in entries that the store had no room for: no second knows of them.
    pub shed: u64,
    /// Samples that plotters have added up by seconds.
    pub plotted_samples: u64,
    /// Samples in entries that no plotter has come to yet.
    pub unplotted_samples: u64,
}

impl Written {
    /// Messages sent that are in any entry.
    pub fn sent(&self) -> u64 {
        self.plotted + self.unplotted + self.shed
    }
}

/// One response topic's row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicRow {
    /// Messages its devices sent.
    pub sent: u64,
    /// Where these and the samples are.
    pub written: Written,
    /// What vanished producers sent and did not live to write down: a difference, as all that is known of it is that it arrived.
    pub unwritten: u64,
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
}

impl Ledger {
    /// The equations that do not hold, where they apply: the broker's answers at QoS > 0 only, and not what was made
    /// up after a producer vanished.
    pub fn check(&self) -> Vec<Inequality> {
        let mut unequal = Unequal::default();
        for ((topic, epoch), row) in &self.epochs {
            row.check(&format!("{topic} ({epoch})"), &mut unequal);
        }
        for (topic, row) in &self.topics {
            row.check(topic.as_str(), &mut unequal);
        }
        unequal.0
    }
}

#[derive(Default)]
struct Unequal(Vec<Inequality>);

impl Unequal {
    fn check<const N: usize>(&mut self, equation: &'static str, topic: &str, left: u64, right: [u64; N]) {
        let (left, right) = (i128::from(left), right.into_iter().map(i128::from).sum());
        if left != right {
            self.0.push(Inequality {
                equation,
                topic: topic.to_owned(),
                left,
                right,
            });
        }
    }
}

impl EpochRow {
    fn check(&self, topic: &str, unequal: &mut Unequal) {
        if !self.rebuilt {
            let right = [self.sent, self.unsent, self.queued];
            unequal.check("scheduled = sent + unsent + queued", topic, self.scheduled, right);
        }
        if self.answered && !self.rebuilt {
            let right = [self.acked, self.refused, self.unconfirmed];
            unequal.check("sent = acked + refused + unconfirmed", topic, self.sent, right);
        }
        let right = [self.unique, self.lost, self.unrecorded, self.unheard, self.in_flight];
        unequal.check(
            "sent = unique + lost + unrecorded + unheard + in_flight",
            topic,
            self.sent,
            right,
        );
    }
}

impl TopicRow {
    fn check(&self, topic: &str, unequal: &mut Unequal) {
        let written = &self.written;
        let right = [written.plotted, written.unplotted, written.shed, self.unwritten];
        unequal.check("sent = plotted + unplotted + shed + unwritten", topic, self.sent, right);
        let right = [self.unique, self.duplicate, self.retained, self.unstamped, self.foreign];
        unequal.check(
            "arrived = unique + duplicate + retained + unstamped + foreign",
            topic,
            self.arrived,
            right,
        );
        let right = [self.stored, self.dropped, self.buffered];
        unequal.check("unique = stored + dropped + buffered", topic, self.unique, right);
        let right = [written.plotted_samples, written.unplotted_samples];
        unequal.check(
            "stored = plotted_samples + unplotted_samples",
            topic,
            self.stored,
            right,
        );
        for (sink, row) in &self.sinks {
            let right = [row.exported, row.pending, row.thinned, row.set_aside, row.sink_dropped];
            let equation = "stored = exported + pending + thinned + set_aside + sink_dropped";
            unequal.check(equation, &format!("{topic} ({sink})"), self.stored, right);
        }
    }
}
