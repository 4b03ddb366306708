//! What is sent of a topic. Names and units follow the semantic conventions for messaging clients where they have one;
//! everything else is `isochrone.*`.

use std::sync::LazyLock;

use isochrone_model::{histogram::Histogram, window::TopicTotals};

use crate::measures::{COUNTS, LATENCIES};

/// A counter, in messages, or a histogram, in seconds.
pub struct Instrument<T> {
    pub name: String,
    pub description: &'static str,
    /// `messaging.operation.name`, which the conventions ask for with their own names.
    pub operation: Option<&'static str>,
    pub value: T,
}

/// What the conventions have a name for: ours, theirs, and the operation.
const CONVENTIONS: [(&str, &str, &str); 2] = [
    ("sent", "messaging.client.sent.messages", "publish"),
    ("ack", "messaging.client.operation.duration", "publish"),
];

type Count = fn(&TopicTotals) -> u64;
type Latency = fn(&TopicTotals) -> &Histogram;

/// Every counter of a topic.
pub static COUNTERS: LazyLock<Vec<Instrument<Count>>> = LazyLock::new(|| {
    let consumed = Instrument {
        name: "messaging.client.consumed.messages".to_owned(),
        description: "Messages delivered, whatever they were.",
        operation: Some("receive"),
        value: consumed as Count,
    };
    let counts = COUNTS
        .iter()
        .map(|count| Instrument::new(count.name, count.help, count.value));
    counts.chain([consumed]).collect()
});

/// Every histogram of a topic.
pub static DURATIONS: LazyLock<Vec<Instrument<Latency>>> = LazyLock::new(|| {
    let latencies = LATENCIES.iter();
    latencies
        .map(|latency| Instrument::new(latency.name, latency.help, latency.value))
        .collect()
});

fn consumed(totals: &TopicTotals) -> u64 {
    totals.received + totals.duplicates + totals.retained + totals.unstamped + totals.foreign
}

impl<T> Instrument<T> {
    fn new(name: &str, description: &'static str, value: T) -> Instrument<T> {
        let convention = CONVENTIONS.iter().find(|(ours, ..)| *ours == name);
        Instrument {
            name: convention.map_or_else(|| format!("isochrone.{name}"), |(_, theirs, _)| (*theirs).to_owned()),
            description,
            operation: convention.map(|(.., operation)| *operation),
            value,
        }
    }
}
