//! Small types that only settings have.

use std::{fmt, str::FromStr, time::Duration};

use isochrone_model::quantity;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What a consumer takes at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimUnit {
    /// Single response topics: one consumer, one topic.
    Topic,
    /// Whole partitions, a fair share each.
    Partition,
}

/// What a producer does after its schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtEnd {
    /// Say the last word and exit.
    Exit,
    /// Say the last word and wait for a signal.
    Idle,
}

/// When a delivery is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack {
    /// At once.
    Received,
    /// When the store has the sample.
    Stored,
}

/// Whether a device waits until somebody listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitForConsumer {
    /// As long as it takes.
    Yes,
    /// Not at all.
    No,
    /// At most this long, then it sends anyway.
    AtMost(Duration),
}

/// How OTLP requests travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtlpProtocol {
    /// Protobuf over HTTP.
    Http,
    /// gRPC.
    Grpc,
}

/// What an OTLP point adds up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Temporality {
    /// Everything since the run began.
    Cumulative,
    /// What one cut added.
    Delta,
}

/// A text that never reaches a log: `Debug` and `Display` show `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// A text that is none of an enumeration's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of the words allowed")]
pub struct BadWord(String);

impl Secret {
    /// Hides a text.
    pub fn new(text: &str) -> Secret {
        Secret(text.to_owned())
    }

    /// The text itself, for the one place that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl ClaimUnit {
    /// As the setting and the run's pins spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            ClaimUnit::Topic => "topic",
            ClaimUnit::Partition => "partition",
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Implements `FromStr` for enumerations of plain words.
macro_rules! words {
    ($($type:ident { $($word:literal => $variant:ident),* })*) => {
        $(impl FromStr for $type {
            type Err = BadWord;
            fn from_str(text: &str) -> Result<$type, BadWord> {
                match text {
                    $($word => Ok($type::$variant),)*
                    other => Err(BadWord(other.to_owned())),
                }
            }
        })*
    };
}

words! {
    LogFormat { "text" => Text, "json" => Json }
    ClaimUnit { "topic" => Topic, "partition" => Partition }
    AtEnd { "exit" => Exit, "idle" => Idle }
    Ack { "received" => Received, "stored" => Stored }
    OtlpProtocol { "http/protobuf" => Http, "grpc" => Grpc }
    Temporality { "cumulative" => Cumulative, "delta" => Delta }
}

impl FromStr for WaitForConsumer {
    type Err = BadWord;
    fn from_str(text: &str) -> Result<WaitForConsumer, BadWord> {
        match text {
            "true" => Ok(WaitForConsumer::Yes),
            "false" => Ok(WaitForConsumer::No),
            other => quantity::duration(other)
                .map(WaitForConsumer::AtMost)
                .map_err(|_| BadWord(other.to_owned())),
        }
    }
}
