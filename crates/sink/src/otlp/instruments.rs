//! What is sent of a topic, declared as data. Names and units follow the semantic conventions for messaging clients where
//! they have one; everything else is `isochrone.*`.

use isochrone_model::{histogram::Histogram, window::TopicTotals};

/// A counter, in messages.
pub struct Counter {
    pub name: &'static str,
    pub description: &'static str,
    /// `messaging.operation.name`, which the conventions ask for with their own names.
    pub operation: Option<&'static str>,
    pub value: fn(&TopicTotals) -> u64,
}

/// A histogram, in seconds.
pub struct Duration {
    pub name: &'static str,
    pub description: &'static str,
    /// See [`Counter::operation`].
    pub operation: Option<&'static str>,
    pub value: fn(&TopicTotals) -> &Histogram,
}

macro_rules! counters {
    ($($name:literal $(of $operation:literal)?, $description:literal, $value:expr;)*) => {
        /// Every counter of a topic.
        pub const COUNTERS: &[Counter] = &[$(Counter {
            name: $name,
            description: $description,
            operation: counters!(@operation $($operation)?),
            value: $value,
        }),*];
    };
    (@operation $operation:literal) => { Some($operation) };
    (@operation) => { None };
}

counters! {
    "messaging.client.sent.messages" of "publish", "Messages offered to the socket.", |t| t.sent;
    "messaging.client.consumed.messages" of "receive", "Messages delivered, whatever they were.",
        |t| t.received + t.duplicates + t.retained + t.unstamped + t.foreign;
    "isochrone.messages.scheduled", "Messages that the schedule wanted out.", |t| t.scheduled;
    "isochrone.unsent", "Messages given up before they were offered to the socket.", |t| t.unsent;
    "isochrone.acked", "Messages acknowledged by the broker (QoS 1 and 2).", |t| t.acked;
    "isochrone.refused", "Messages refused by the broker (QoS 1 and 2).", |t| t.refused;
    "isochrone.unconfirmed", "Messages never answered by the broker when their device ended (QoS 1 and 2).",
        |t| t.unconfirmed;
    "isochrone.received", "First copies received and stored.", |t| t.received;
    "isochrone.duplicates", "Further copies received.", |t| t.duplicates;
    "isochrone.retained", "Retained messages received.", |t| t.retained;
    "isochrone.unstamped", "Messages received without a stamp or with a broken one.", |t| t.unstamped;
    "isochrone.foreign", "Messages received that belong to another topic or another run.", |t| t.foreign;
    "isochrone.reordered", "First copies received below the highest sequence of their device.", |t| t.reordered;
    "isochrone.lost", "Messages given up as lost; see isochrone.lost.found.", |t| t.missing.lost;
    "isochrone.lost.found", "Messages given up as lost that came after all.", |t| t.found.lost;
    "isochrone.unrecorded", "Messages that may have come while the consumer's state was lost with it.",
        |t| t.missing.unrecorded;
    "isochrone.unrecorded.found", "Messages given up as unrecorded that came after all.", |t| t.found.unrecorded;
    "isochrone.unheard", "Messages sent while nobody listened.", |t| t.missing.unheard;
    "isochrone.unheard.found", "Messages given up as unheard that came after all.", |t| t.found.unheard;
    "isochrone.dropped", "Samples that the consumer had to drop.", |t| t.dropped;
}

/// Every histogram of a topic.
pub const DURATIONS: &[Duration] = &[
    Duration {
        name: "isochrone.response",
        description: "From when the schedule wanted a message out until it was received: free of coordinated omission.",
        operation: None,
        value: |t| &t.response,
    },
    Duration {
        name: "isochrone.transit",
        description: "From when a message was offered to the socket until it was received; clock skew may make it negative.",
        operation: None,
        value: |t| &t.transit,
    },
    Duration {
        name: "isochrone.publish_delay",
        description: "From when the schedule wanted a message out until it was offered to the socket, of received messages.",
        operation: None,
        value: |t| &t.publish_delay,
    },
    Duration {
        name: "isochrone.late",
        description: "The producer's own part of the publish delay, of sent messages.",
        operation: None,
        value: |t| &t.late,
    },
    Duration {
        name: "messaging.client.operation.duration",
        description: "From offering a message to its PUBACK or PUBREC.",
        operation: Some("publish"),
        value: |t| &t.ack,
    },
    Duration {
        name: "isochrone.complete",
        description: "From PUBREL to PUBCOMP (QoS 2).",
        operation: None,
        value: |t| &t.complete,
    },
];
