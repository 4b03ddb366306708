//! What is told of a topic's totals, declared once: counts of messages and latencies. Back ends make their own names from
//! these, by their own rules.

use isochrone_model::{histogram::Histogram, window::TopicTotals};

/// A count of messages that only grows.
pub struct Count {
    /// Words separated by dots.
    pub name: &'static str,
    pub help: &'static str,
    pub value: fn(&TopicTotals) -> u64,
}

/// A latency.
pub struct Latency {
    /// As of [`Count`].
    pub name: &'static str,
    pub help: &'static str,
    pub value: fn(&TopicTotals) -> &Histogram,
}

macro_rules! declare {
    ($list:ident: $type:ident; $($name:literal, $help:literal, $value:expr;)*) => {
        pub const $list: &[$type] = &[$($type { name: $name, help: $help, value: $value }),*];
    };
}

declare! { COUNTS: Count;
    "messages.scheduled", "Messages that the schedule wanted out.", |t| t.scheduled;
    "sent", "Messages offered to the socket.", |t| t.sent;
    "unsent", "Messages given up before they were offered to the socket.", |t| t.unsent;
    "acked", "Messages acknowledged by the broker (QoS 1 and 2).", |t| t.acked;
    "refused", "Messages refused by the broker (QoS 1 and 2).", |t| t.refused;
    "unconfirmed", "Messages never answered by the broker when their device ended (QoS 1 and 2).", |t| t.unconfirmed;
    "received", "First copies received and stored.", |t| t.received;
    "duplicates", "Further copies received.", |t| t.duplicates;
    "retained", "Retained messages received.", |t| t.retained;
    "unstamped", "Messages received without a stamp or with a broken one.", |t| t.unstamped;
    "foreign", "Messages received that belong to another topic or another run.", |t| t.foreign;
    "reordered", "First copies received below the highest sequence of their device.", |t| t.reordered;
    "lost", "Messages given up as lost, those found after all included.", |t| t.missing.lost;
    "lost.found", "Messages given up as lost that came after all.", |t| t.found.lost;
    "unrecorded", "Messages that may have come while the consumer's state was lost with it.", |t| t.missing.unrecorded;
    "unrecorded.found", "Messages given up as unrecorded that came after all.", |t| t.found.unrecorded;
    "unheard", "Messages sent while nobody listened.", |t| t.missing.unheard;
    "unheard.found", "Messages given up as unheard that came after all.", |t| t.found.unheard;
    "dropped", "Samples that the consumer had to drop.", |t| t.dropped;
}

declare! { LATENCIES: Latency;
    "response", "From when the schedule wanted a message out until it was received: free of coordinated omission.",
        |t| &t.response;
    "transit", "From when a message was offered to the socket until it was received; clock skew may make it negative.",
        |t| &t.transit;
    "publish_delay", "From when the schedule wanted a message out until it was offered to the socket, of received messages.",
        |t| &t.publish_delay;
    "late", "The producer's own part of the publish delay, of sent messages.", |t| &t.late;
    "ack", "From offering a message to its PUBACK or PUBREC.", |t| &t.ack;
    "complete", "From PUBREL to PUBCOMP (QoS 2).", |t| &t.complete;
}

/// Seconds of a partition by their verdict.
pub const SECONDS: &str = "Seconds of a partition by the worst reason not to trust them, as its own entries tell.";
