//! Cuts as documents: their order, their place, their JSON.

use std::collections::HashMap;

use isochrone_model::{
    entry::{ConsumerDelay, ReceiptHead, Sample},
    histogram::Histogram,
    id::Topic,
    time::{Reference, Second},
    verdict::{Reason, Reasons},
    window::{CutEntry, Window, WindowKind},
};
use jiff::{Timestamp, tz::TimeZone};
use serde::{Serialize, Serializer};

use crate::Cut;

/// Indices of raw samples begin with this; their day follows.
pub const SAMPLES: &str = "isochrone-samples-";
/// Indices of windows begin with this; their day follows.
pub const WINDOWS: &str = "isochrone-windows-";

/// What servers take as an id, in bytes.
const LONGEST_ID: usize = 512;

/// A cut as it is written.
pub struct View<'a> {
    cut: &'a Cut,
    histogram: bool,
    reasons: HashMap<(WindowKind, Second, &'a Topic), Reasons>,
}

/// One document of a cut.
#[derive(Clone, Copy, Debug)]
pub enum Document<'a> {
    /// A raw sample.
    Sample {
        /// Beside it in its entry.
        head: &'a ReceiptHead,
        /// The response topic.
        topic: &'a Topic,
        /// The sample.
        sample: &'a Sample,
    },
    /// A part of a window.
    Window(&'a Window),
}

/// Where a document goes.
#[derive(Debug, PartialEq, Eq)]
pub struct Place {
    /// Of its own day.
    pub index: String,
    /// The same for the same document, whoever writes it.
    pub id: String,
}

/// All samples of a cut.
pub fn samples(cut: &Cut) -> impl Iterator<Item = (&Topic, &Sample)> {
    parts(cut).map(|(_, topic, sample)| (topic, sample))
}

fn parts(cut: &Cut) -> impl Iterator<Item = (&ReceiptHead, &Topic, &Sample)> {
    let receipts = cut.entries.iter().filter_map(|entry| match entry {
        CutEntry::Receipt { head, parts, .. } => Some((head, parts)),
        CutEntry::Send { .. } => None,
    });
    receipts.flat_map(|(head, parts)| {
        parts
            .iter()
            .flat_map(move |(topic, part)| part.samples.iter().map(move |sample| (head, topic, sample)))
    })
}

impl<'a> View<'a> {
    /// `histogram`: the server has the field type.
    pub fn new(cut: &'a Cut, histogram: bool) -> View<'a> {
        let reasons = cut.windows.iter().map(|window| {
            let at = (window.kind, window.second, &window.topic);
            (at, window.reasons)
        });
        View {
            cut,
            histogram,
            reasons: reasons.collect(),
        }
    }

    /// All documents, always in the same order: samples, then windows.
    pub fn documents(&self) -> impl Iterator<Item = Document<'a>> + use<'a> {
        let samples = parts(self.cut).map(|(head, topic, sample)| Document::Sample { head, topic, sample });
        samples.chain(self.cut.windows.iter().map(Document::Window))
    }

    /// Where a document goes.
    pub fn place(&self, document: &Document<'_>) -> Place {
        let run = &self.cut.run;
        match document {
            Document::Sample { sample, .. } => Place {
                index: index(SAMPLES, sample.received),
                id: format!("{run}:{}:{}", sample.epoch, sample.sequence),
            },
            Document::Window(window) => {
                let (partition, number, kind) = (self.cut.partition, self.cut.number, kind_name(window.kind));
                let (second, topic) = (window.second.0, &window.topic);
                let mut id = format!("{run}:{partition}:{number}:{kind}:{second}:{topic}");
                if id.len() > LONGEST_ID {
                    let hash = fnv(topic.as_str());
                    id = format!("{run}:{partition}:{number}:{kind}:{second}:#{hash:032x}");
                }
                Place {
                    index: index(WINDOWS, window.second.start()),
                    id,
                }
            }
        }
    }

    /// Appends a document's JSON.
    pub fn write(&self, document: &Document<'_>, out: &mut Vec<u8>) {
        // Writing plain data into memory cannot fail.
        let _ = match document {
            Document::Sample { head, topic, sample } => {
                serde_json::to_writer(out, &self.sample_document(head, topic, sample))
            }
            Document::Window(window) => serde_json::to_writer(out, &self.window_document(window)),
        };
    }

    fn sample_document<'s>(&'s self, head: &ReceiptHead, topic: &'s Topic, sample: &Sample) -> SampleDocument<'s> {
        let of = |kind, second| self.reasons.get(&(kind, second, topic)).copied().unwrap_or_default();
        let reasons = of(WindowKind::Due, sample.due.second()).union(of(WindowKind::Receipt, sample.received.second()));
        let device = self.cut.totals.devices().get(&sample.epoch);
        SampleDocument {
            timestamp: Time(sample.received),
            run: self.cut.run.as_str(),
            topic: topic.as_str(),
            device: device.map(|device| device.device.as_str()),
            epoch: sample.epoch.to_string(),
            sequence: sample.sequence,
            due: Time(sample.due),
            sent: Time(sample.sent),
            received: Time(sample.received),
            transit_ns: sample.transit_ns,
            response_ns: sample.response_ns(),
            publish_delay_ns: sample.publish_delay_ns(),
            clock_bound_ns: head.bound_ns,
            consumer_delay: match sample.delay {
                ConsumerDelay::None => "none",
                ConsumerDelay::Late => "late",
                ConsumerDelay::Extreme => "extreme",
            },
            warmup: sample.warmup,
            verdict: reasons.worst().name(),
            reasons: names(reasons),
        }
    }

    fn window_document<'s>(&'s self, window: &'s Window) -> WindowDocument<'s> {
        let totals = &window.totals;
        let distribution = |histogram: &Histogram| Distribution::of(histogram, self.histogram);
        let counts = match window.kind {
            WindowKind::Due => Counts::Due {
                scheduled: totals.scheduled,
                sent: totals.sent,
                unsent: totals.unsent,
                acked: totals.acked,
                refused: totals.refused,
                unconfirmed: totals.unconfirmed,
                received: totals.received,
                dropped: totals.dropped,
                lost: totals.missing.lost,
                unrecorded: totals.missing.unrecorded,
                unheard: totals.missing.unheard,
                lost_found: totals.found.lost,
                unrecorded_found: totals.found.unrecorded,
                unheard_found: totals.found.unheard,
            },
            WindowKind::Receipt => Counts::Receipt {
                received: totals.received,
                duplicates: totals.duplicates,
                retained: totals.retained,
                unstamped: totals.unstamped,
                foreign: totals.foreign,
                reordered: totals.reordered,
            },
        };
        WindowDocument {
            timestamp: Time(window.second.start()),
            run: self.cut.run.as_str(),
            topic: window.topic.as_str(),
            kind: kind_name(window.kind),
            partition: self.cut.partition.0,
            cut: self.cut.number,
            warmup: window.warmup,
            verdict: window.reasons.worst().name(),
            reasons: names(window.reasons),
            clock_bound_ns: window.bound_ns,
            counts,
            response_ns: distribution(&totals.response),
            transit_ns: distribution(&totals.transit),
            publish_delay_ns: distribution(&totals.publish_delay),
            late_ns: distribution(&totals.late),
            ack_ns: distribution(&totals.ack),
            complete_ns: distribution(&totals.complete),
        }
    }
}

fn kind_name(kind: WindowKind) -> &'static str {
    match kind {
        WindowKind::Due => "due",
        WindowKind::Receipt => "receipt",
    }
}

fn names(reasons: Reasons) -> Vec<&'static str> {
    let others = Reason::ALL.into_iter().filter(|reason| *reason != Reason::Valid);
    others
        .filter(|reason| reasons.contains(*reason))
        .map(Reason::name)
        .collect()
}

/// The day as lifecycle management reads it from an index's name.
fn index(prefix: &str, at: Reference) -> String {
    let day = Time(at).timestamp().to_zoned(TimeZone::UTC).date();
    format!("{prefix}{:04}.{:02}.{:02}", day.year(), day.month(), day.day())
}

/// FNV-1a of 128 bits: http://www.isthe.com/chongo/tech/comp/fnv
fn fnv(text: &str) -> u128 {
    text.bytes()
        .fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash, byte| {
            (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
        })
}

/// RFC 3339 in UTC, with nanoseconds.
struct Time(Reference);

impl Time {
    fn timestamp(&self) -> Timestamp {
        Timestamp::from_nanosecond(i128::from(self.0.0)).unwrap_or_default()
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:.9}", self.timestamp()))
    }
}

#[derive(Serialize)]
struct SampleDocument<'a> {
    #[serde(rename = "@timestamp")]
    timestamp: Time,
    run: &'a str,
    topic: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'a str>,
    epoch: String,
    sequence: u64,
    due: Time,
    sent: Time,
    received: Time,
    transit_ns: i64,
    response_ns: i64,
    publish_delay_ns: i64,
    clock_bound_ns: u64,
    consumer_delay: &'static str,
    warmup: bool,
    verdict: &'static str,
    reasons: Vec<&'static str>,
}

#[derive(Serialize)]
struct WindowDocument<'a> {
    #[serde(rename = "@timestamp")]
    timestamp: Time,
    run: &'a str,
    topic: &'a str,
    kind: &'static str,
    partition: u16,
    cut: u64,
    warmup: bool,
    verdict: &'static str,
    reasons: Vec<&'static str>,
    clock_bound_ns: u64,
    #[serde(flatten)]
    counts: Counts,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_ns: Option<Distribution>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transit_ns: Option<Distribution>,
    #[serde(skip_serializing_if = "Option::is_none")]
    publish_delay_ns: Option<Distribution>,
    #[serde(skip_serializing_if = "Option::is_none")]
    late_ns: Option<Distribution>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ack_ns: Option<Distribution>,
    #[serde(skip_serializing_if = "Option::is_none")]
    complete_ns: Option<Distribution>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Counts {
    Due {
        scheduled: u64,
        sent: u64,
        unsent: u64,
        acked: u64,
        refused: u64,
        unconfirmed: u64,
        received: u64,
        dropped: u64,
        lost: u64,
        unrecorded: u64,
        unheard: u64,
        lost_found: u64,
        unrecorded_found: u64,
        unheard_found: u64,
    },
    Receipt {
        received: u64,
        duplicates: u64,
        retained: u64,
        unstamped: u64,
        foreign: u64,
        reordered: u64,
    },
}

/// A histogram's figures; nearest rank, in nanoseconds.
#[derive(Serialize)]
struct Distribution {
    count: u64,
    negative: u64,
    min: i64,
    mean: f64,
    p50: i64,
    p90: i64,
    p99: i64,
    p999: i64,
    max: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    histogram: Option<Buckets>,
}

#[derive(Default, Serialize)]
struct Buckets {
    values: Vec<i64>,
    counts: Vec<u64>,
}

impl Distribution {
    /// `None` when nothing was recorded.
    fn of(histogram: &Histogram, with_buckets: bool) -> Option<Distribution> {
        Some(Distribution {
            count: histogram.count(),
            negative: histogram.negative(),
            min: histogram.min()?,
            mean: histogram.mean()?,
            p50: histogram.percentile(0.5)?,
            p90: histogram.percentile(0.9)?,
            p99: histogram.percentile(0.99)?,
            p999: histogram.percentile(0.999)?,
            max: histogram.max()?,
            histogram: with_buckets.then(|| Buckets::of(histogram)),
        })
    }
}

impl Buckets {
    fn of(histogram: &Histogram) -> Buckets {
        let mut buckets = Buckets::default();
        for (value, count) in histogram.values() {
            match (buckets.values.last(), buckets.counts.last_mut()) {
                (Some(last), Some(sum)) if *last == value => *sum += count,
                _ => {
                    buckets.values.push(value);
                    buckets.counts.push(count);
                }
            }
        }
        buckets
    }
}
