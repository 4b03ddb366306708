//! The result of a run as one object: made from plain facts, printed as JSON.

mod accounts;
mod build;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    entry::MissingKind,
    id::{Epoch, RunName, Topic},
    ledger::{EpochRow, Inequality, SinkRow, Written},
    row::{Connects, Device, ReceiptRow, SendRow},
    slo::{Measured, Objective},
    time::Second,
    verdict::Reason,
    window::Totals,
};

/// Everything a report is made of. Fill what is known; the rest stays at its default.
#[derive(Clone, Debug)]
pub struct RunFacts {
    /// The run.
    pub run: RunName,
    /// `open`, `draining` or `closed`.
    pub state: String,
    /// The store lost more than it promised.
    pub restored: bool,
    /// What could not be read, and why: these figures are without it.
    pub unreadable: Vec<String>,
    /// Every device with its newest row.
    pub devices: Vec<(Device, SendRow)>,
    /// Every response topic.
    pub topics: Vec<TopicFacts>,
    /// By sink and response topic; `pending` counted from the entries that the sink has not passed.
    pub sinks: BTreeMap<String, BTreeMap<Topic, SinkRow>>,
    /// The totals of all partitions, merged.
    pub totals: Totals,
    /// The coarsest resolution of the daemons' clocks, in nanoseconds.
    pub resolution_ns: u64,
    /// What the run is held to.
    pub objectives: Vec<Objective>,
    /// What happened in the course of the run.
    pub events: Vec<Event>,
    /// Whether to list every topic.
    pub per_topic: bool,
}

/// What the store knows of one response topic.
#[derive(Clone, Debug)]
pub struct TopicFacts {
    /// The response topic.
    pub topic: Topic,
    /// The consumer's row; `None` when nobody has saved one.
    pub row: Option<ReceiptRow>,
    /// Samples stored.
    pub stored: u64,
    /// Samples dropped.
    pub dropped: u64,
    /// Where the daemons' entries about it are.
    pub written: Written,
}

/// Something worth telling.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// When, as RFC 3339; `None` where it cannot be known.
    pub at: Option<String>,
    /// Which daemon or daemons it happened to; `None` for the run.
    pub daemon: Option<String>,
    /// What.
    pub what: String,
}

/// The report, with exactly the keys of the design.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The run.
    pub run: String,
    /// `open`, `draining` or `closed`.
    pub state: String,
    /// From the first message's due time to the last one's sending, in seconds.
    pub duration_s: f64,
    /// How many topics devices published to.
    pub topics: u64,
    /// Where their messages were listened for.
    #[serde(skip)]
    pub response_topics: u64,
    /// Messages a second over all devices.
    pub rate: RateReport,
    /// Where every message went.
    pub ledger: LedgerReport,
    /// Latencies in nanoseconds, warm-up and ramps left out.
    pub latency_ns: LatencyReport,
    /// How sure the clocks are.
    pub clock: ClockReport,
    /// Seconds by verdict, warm-up left out; every verdict has a key.
    pub seconds: BTreeMap<&'static str, u64>,
    /// Which are not valid, by time; warm-up left out.
    #[serde(skip)]
    pub doubtful: Vec<Stretch>,
    /// Connections of devices and consumers together.
    pub connects: Connects,
    /// What happened.
    pub events: Vec<Event>,
    /// Objectives.
    pub slo: Vec<SloReport>,
    /// What could not be read, and why: the figures are without it (left out when there is nothing).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unreadable: Vec<String>,
    /// Every topic, when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_topic: Option<Vec<TopicReport>>,
}

/// Seconds in a row with the same verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The first.
    pub from: Second,
    /// How many.
    pub seconds: u64,
    /// Their worst reason.
    pub reason: Reason,
}

/// Messages a second.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RateReport {
    /// What the schedules asked for: the sum of the devices' rates; what was scheduled over the duration when one of them is `max`.
    pub offered: Option<f64>,
    /// What was sent, over the time of sending.
    pub achieved: Option<f64>,
}

/// One latency, in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names are the design's")]
pub struct Latency {
    pub count: u64,
    pub negative: u64,
    pub min: Option<i64>,
    pub mean: Option<f64>,
    pub stddev: Option<f64>,
    pub p50: Option<i64>,
    pub p90: Option<i64>,
    pub p99: Option<i64>,
    pub p999: Option<i64>,
    pub max: Option<i64>,
}

/// The five latencies.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names are the design's")]
pub struct LatencyReport {
    pub response: Latency,
    pub transit: Latency,
    pub publish_delay: Latency,
    pub late: Latency,
    pub ack: Latency,
}

/// How sure the clocks are.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ClockReport {
    /// How many clock domains took part.
    pub domains: u64,
    /// Results hold within ± this, in nanoseconds.
    pub bound_ns: u64,
    /// Smallest difference the clocks can tell, in nanoseconds.
    pub resolution_ns: u64,
}

/// One objective.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SloReport {
    /// As it was written.
    pub objective: String,
    /// What was measured: nanoseconds, or a fraction for loss; `None` when it cannot be told or is infinite.
    pub value: Option<f64>,
    /// Whether it was met.
    pub met: bool,
    /// False where fewer than ten messages lie beyond a percentile: it is the run's, and says little of the next.
    pub supported: bool,
    /// `value` with what `None` stands for.
    #[serde(skip)]
    pub measured: Measured,
}

/// The ledger's totals.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names are the design's")]
pub struct LedgerReport {
    pub scheduled: u64,
    pub sent: u64,
    pub unsent: u64,
    pub queued: u64,
    pub acked: u64,
    pub refused: u64,
    pub unconfirmed: u64,
    pub unique: u64,
    pub lost: u64,
    pub unrecorded: u64,
    pub unheard: u64,
    pub in_flight: u64,
    pub plotted: u64,
    pub unplotted: u64,
    pub shed: u64,
    pub unwritten: u64,
    /// Of `sent`, what a broker answers: QoS 1 and 2.
    #[serde(skip)]
    pub sent_to_be_answered: u64,
    pub arrived: u64,
    pub duplicate: u64,
    pub retained: u64,
    pub unstamped: u64,
    pub foreign: u64,
    pub stored: u64,
    pub dropped: u64,
    pub buffered: u64,
    pub plotted_samples: u64,
    pub unplotted_samples: u64,
    /// By sink.
    pub exported: BTreeMap<String, u64>,
    /// By sink.
    pub pending: BTreeMap<String, u64>,
    /// By sink.
    pub thinned: BTreeMap<String, u64>,
    /// By sink.
    pub set_aside: BTreeMap<String, u64>,
    /// By sink.
    pub sink_dropped: BTreeMap<String, u64>,
    /// Given-up ranges as far as they are remembered, at most 10,000.
    pub lost_ranges: Vec<LostRange>,
    /// Devices whose producer died without a last word: their rows are rebuilt.
    pub vanished: u64,
    /// Upper estimate of `sent` when devices vanished, else `sent`.
    pub sent_at_most: u64,
    pub retransmitted: u64,
    pub unrouted: u64,
    pub reordered: u64,
    /// Devices of which no message arrived.
    pub silent: u64,
    /// Whether every equation holds; `None` in the course of the run, false wherever something cannot be read.
    pub balanced: Option<bool>,
    /// How many ranges were lost.
    pub gaps: u64,
    /// Equations that do not hold (left out when there are none).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unequal: Vec<Inequality>,
}

/// Sequences that did not arrive, split by what the broker said of them.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "plain names")]
pub struct LostRange {
    pub topic: Topic,
    pub device: String,
    pub epoch: Epoch,
    pub kind: MissingKind,
    pub first: u64,
    pub last: u64,
    /// `None` where it is not known: at QoS 0 nobody answers, a device that vanished never said what stayed unanswered, and a
    /// row lists only so many ranges. The two below are then at least so many.
    pub acked: Option<u64>,
    pub refused: u64,
    pub unconfirmed: u64,
}

/// One response topic.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names are the design's")]
pub struct TopicReport {
    /// The response topic.
    pub topic: Topic,
    /// Devices that share it, a complete row each.
    pub devices: Vec<DeviceReport>,
    pub ledger: LedgerReport,
    pub latency_ns: LatencyReport,
}

/// One life of one device.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DeviceReport {
    /// Its name.
    pub device: String,
    /// What it published to.
    pub topic: Topic,
    /// Its life.
    pub epoch: Epoch,
    /// Where its messages went.
    #[serde(flatten)]
    pub row: EpochRow,
}

impl RunFacts {
    /// Nothing known of `run` but its name and state.
    pub fn new(run: RunName, state: &str) -> RunFacts {
        RunFacts {
            run,
            state: state.to_owned(),
            restored: false,
            unreadable: Vec::new(),
            devices: Vec::new(),
            topics: Vec::new(),
            sinks: BTreeMap::new(),
            totals: Totals::new(),
            resolution_ns: 1,
            objectives: Vec::new(),
            events: Vec::new(),
            per_topic: false,
        }
    }

    /// Nothing more will be written.
    pub fn is_closed(&self) -> bool {
        self.state == "closed"
    }
}

/// The program's exit code: 3 for an unequal equation, 4 for a missed objective, else 0.
pub fn exit_code(report: &Report) -> u8 {
    if report.ledger.balanced == Some(false) {
        return 3;
    }
    if report.slo.iter().any(|objective| !objective.met) {
        4
    } else {
        0
    }
}
