//! What one partition of one run adds up to: totals that only grow, facts of each second, and the windows of one cut.

mod apply;
mod codec;
mod course;
mod cut;
mod digest;
mod firsts;
mod seconds;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

pub use course::{Course, Step};
pub use cut::windows_of_cut;

use crate::{
    entry::{ReceiptHead, ReceiptPart, SendHead, SendPart},
    histogram::{Dense, Histogram},
    id::{Domain, Epoch, Topic},
    row::Device,
    time::Second,
    verdict::{GivenUp, Reasons, SecondFacts},
    window::{firsts::Firsts, seconds::Seconds},
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

/// How the names of fields about one topic begin in the cumulative hash.
const TOPIC_FIELD: &str = "t:";

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

/// The same histograms over all topics of the partition (of the run, once merged).
#[derive(Clone, Debug, Default)]
pub struct RunTotals {
    /// See [`TopicTotals::response`].
    pub response: Dense,
    /// See [`TopicTotals::transit`].
    pub transit: Dense,
    /// See [`TopicTotals::publish_delay`].
    pub publish_delay: Dense,
    /// See [`TopicTotals::late`].
    pub late: Dense,
    /// See [`TopicTotals::ack`].
    pub ack: Dense,
    /// See [`TopicTotals::complete`].
    pub complete: Dense,
    /// Clock domains seen.
    pub domains: BTreeSet<Domain>,
    /// Largest clock bound of a consumer of cross-domain samples, in nanoseconds.
    pub receiving_bound_ns: u64,
    /// Largest clock bound of a producer, in nanoseconds.
    pub sending_bound_ns: u64,
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
    /// Largest clock bound, in nanoseconds: the consumer's and the producer's together, the latter as far as this cut knows
    /// it. Zero within a clock domain.
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
    devices: Arc<Devices>,
    topics: BTreeMap<Topic, TopicTotals>,
    /// Where each second of a device's messages began, by response topic.
    firsts: BTreeMap<Topic, Firsts>,
    run: RunTotals,
    seconds: Seconds,
    course: Course,
    changed_topics: BTreeSet<Topic>,
    run_changed: bool,
}

impl Totals {
    /// Nothing counted yet.
    pub fn new() -> Totals {
        Totals::default()
    }

    /// The state as saved, whatever the order of the fields; fields of other names are ignored. Devices are not in
    /// it: tell them again.
    pub fn load(fields: Vec<(String, Vec<u8>)>) -> Result<Totals, BadTotals> {
        let mut totals = Totals::default();
        for (field, bytes) in fields {
            if totals.load_field(&field, &bytes).is_none() {
                return Err(BadTotals { field });
            }
        }
        Ok(totals)
    }

    /// A registration; needed before entries of its epoch are applied.
    pub fn know_device(&mut self, device: &Device) {
        if self.devices.get(&device.epoch) != Some(device) {
            Arc::make_mut(&mut self.devices).insert(device.epoch, device.clone());
        }
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
    pub fn apply(&mut self, entry: &CutEntry) {
        self.run_changed = true;
        match entry {
            CutEntry::Receipt { second, head, parts } => self.apply_receipt(*second, head, parts),
            CutEntry::Send { second, head, parts } => self.apply_send(*second, head, parts),
        }
    }

    /// The fields that changed since the last call, for the cumulative hash; an empty value is a field out of use.
    /// Seconds older than ten minutes then leave the memory: the hash has them.
    pub fn changed(&mut self) -> Vec<(String, Vec<u8>)> {
        let mut fields = Vec::new();
        let (nothing, no_firsts) = (TopicTotals::default(), Firsts::default());
        for topic in std::mem::take(&mut self.changed_topics) {
            let totals = self.topics.get(&topic).unwrap_or(&nothing);
            let firsts = self.firsts.get(&topic).unwrap_or(&no_firsts);
            fields.push((format!("{TOPIC_FIELD}{topic}"), codec::topic(totals, firsts)));
        }
        if std::mem::take(&mut self.run_changed) {
            fields.push(("run".to_owned(), codec::run(&self.run)));
        }
        self.seconds.save(&mut fields);
        self.course.save(&mut fields);
        fields
    }

    /// Whether a field is about one topic alone: without such fields [`load`](Totals::load) gives the run's figures and no topics.
    pub fn is_of_topic(field: &str) -> bool {
        field.starts_with(TOPIC_FIELD)
    }

    /// What a field counts of one topic; `None` for a field that is not [of a topic](Totals::is_of_topic). The rest of the
    /// field, its histograms, is not read and stays empty.
    pub fn counts_of_topic(field: &str, bytes: &[u8]) -> Result<Option<(Topic, TopicTotals)>, BadTotals> {
        let Some(topic) = field.strip_prefix(TOPIC_FIELD) else {
            return Ok(None);
        };
        let totals = codec::load_counts(bytes).ok_or_else(|| BadTotals {
            field: field.to_owned(),
        })?;
        Ok(Some((topic.into(), totals)))
    }

    fn load_field(&mut self, field: &str, bytes: &[u8]) -> Option<()> {
        if let Some(topic) = field.strip_prefix(TOPIC_FIELD) {
            let (totals, firsts) = codec::load_topic(bytes)?;
            self.topics.insert(topic.into(), totals);
            self.firsts.insert(topic.into(), firsts);
        } else if field == "run" {
            self.run = codec::load_run(bytes)?;
        } else if let Some(name) = field.strip_prefix("s:") {
            self.seconds.load(name, bytes)?;
        } else if let Some(name) = field.strip_prefix("c:") {
            self.course.load(name, bytes)?;
        }
        Some(())
    }

    /// Adds what another partition of the same run adds up to.
    pub fn merge(&mut self, other: &Totals) {
        let devices = Arc::make_mut(&mut self.devices);
        for (epoch, device) in &*other.devices {
            devices.entry(*epoch).or_insert_with(|| device.clone());
        }
        for (topic, totals) in &other.topics {
            self.topics.entry(topic.clone()).or_default().merge(totals);
            self.changed_topics.insert(topic.clone());
        }
        self.run.merge(&other.run);
        self.run_changed = true;
        for (&second, facts) in other.seconds.all() {
            self.seconds.facts_mut(second).merge_partition(facts);
        }
        self.course.merge(&other.course);
    }

    /// What of this is cheap to keep beside a cut: the devices, the newest minute's facts, the clock bounds; no topics, no
    /// histograms.
    pub fn outline(&self) -> Totals {
        let newest = self.seconds.all().keys().next_back().copied().unwrap_or_default();
        Totals {
            devices: self.devices.clone(),
            run: self.run.outline(),
            seconds: self.seconds.since(newest - seconds::GROUP),
            ..Totals::default()
        }
    }

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
        self.seconds.all()
    }

    /// Latencies from second to second.
    pub fn course(&self) -> &Course {
        &self.course
    }
}

/// The bound of a transit: the sum of both daemons', zero where the consumer's is, since it measured within its domain.
fn transit_bound_ns(receiving_ns: u64, sending_ns: u64) -> u64 {
    if receiving_ns == 0 {
        0
    } else {
        receiving_ns.saturating_add(sending_ns)
    }
}

impl TopicTotals {
    /// Adds other totals.
    pub fn merge(&mut self, other: &TopicTotals) {
        for (count, more) in self.counts_mut().into_iter().zip(other.counts()) {
            *count += more;
        }
        for (histogram, more) in self.histograms_mut().into_iter().zip(other.histograms()) {
            histogram.merge(more);
        }
        if let Some((first, last)) = other.seconds {
            self.see(first);
            self.see(last);
        }
    }

    fn see(&mut self, second: Second) {
        let (first, last) = self.seconds.unwrap_or((second, second));
        self.seconds = Some((first.min(second), last.max(second)));
    }

    /// Every count, in the order of the saved form.
    fn counts(&self) -> [u64; 19] {
        [
            self.scheduled,
            self.sent,
            self.unsent,
            self.acked,
            self.refused,
            self.unconfirmed,
            self.received,
            self.duplicates,
            self.retained,
            self.unstamped,
            self.foreign,
            self.reordered,
            self.dropped,
            self.missing.lost,
            self.missing.unrecorded,
            self.missing.unheard,
            self.found.lost,
            self.found.unrecorded,
            self.found.unheard,
        ]
    }

    fn counts_mut(&mut self) -> [&mut u64; 19] {
        [
            &mut self.scheduled,
            &mut self.sent,
            &mut self.unsent,
            &mut self.acked,
            &mut self.refused,
            &mut self.unconfirmed,
            &mut self.received,
            &mut self.duplicates,
            &mut self.retained,
            &mut self.unstamped,
            &mut self.foreign,
            &mut self.reordered,
            &mut self.dropped,
            &mut self.missing.lost,
            &mut self.missing.unrecorded,
            &mut self.missing.unheard,
            &mut self.found.lost,
            &mut self.found.unrecorded,
            &mut self.found.unheard,
        ]
    }

    fn histograms(&self) -> [&Histogram; 6] {
        [
            &self.response,
            &self.transit,
            &self.publish_delay,
            &self.late,
            &self.ack,
            &self.complete,
        ]
    }

    fn histograms_mut(&mut self) -> [&mut Histogram; 6] {
        [
            &mut self.response,
            &mut self.transit,
            &mut self.publish_delay,
            &mut self.late,
            &mut self.ack,
            &mut self.complete,
        ]
    }
}

impl RunTotals {
    /// What transits are known to, in nanoseconds: the sum of both sides' bounds, zero within a clock domain.
    pub fn bound_ns(&self) -> u64 {
        transit_bound_ns(self.receiving_bound_ns, self.sending_bound_ns)
    }

    /// All but the histograms.
    fn outline(&self) -> RunTotals {
        RunTotals {
            domains: self.domains.clone(),
            receiving_bound_ns: self.receiving_bound_ns,
            sending_bound_ns: self.sending_bound_ns,
            unknown_epochs: self.unknown_epochs,
            ..RunTotals::default()
        }
    }

    fn histograms(&self) -> [&Dense; 6] {
        [
            &self.response,
            &self.transit,
            &self.publish_delay,
            &self.late,
            &self.ack,
            &self.complete,
        ]
    }

    fn histograms_mut(&mut self) -> [&mut Dense; 6] {
        [
            &mut self.response,
            &mut self.transit,
            &mut self.publish_delay,
            &mut self.late,
            &mut self.ack,
            &mut self.complete,
        ]
    }

    fn merge(&mut self, other: &RunTotals) {
        for (histogram, more) in self.histograms_mut().into_iter().zip(other.histograms()) {
            histogram.merge_dense(more);
        }
        self.domains.extend(&other.domains);
        self.receiving_bound_ns = self.receiving_bound_ns.max(other.receiving_bound_ns);
        self.sending_bound_ns = self.sending_bound_ns.max(other.sending_bound_ns);
        self.unknown_epochs += other.unknown_epochs;
    }
}
