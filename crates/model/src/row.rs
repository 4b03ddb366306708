//! The rows of the ledger as each daemon counts them, kept whole (not as differences) in the store.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    id::{DaemonId, Domain, Epoch, Topic},
    range::SeqRange,
    time::Reference,
};

/// What the registry knows of one life of one device; written once, before its first message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Device {
    /// The device life.
    pub epoch: Epoch,
    /// The device's name.
    pub device: String,
    /// Its client id at the broker; empty where the registration does not tell.
    #[serde(default)]
    pub client_id: String,
    /// What it publishes to.
    pub topic: Topic,
    /// Where its messages are listened for.
    pub response_topic: Topic,
    /// Where, without secrets.
    pub url: String,
    /// MQTT QoS (0, 1, 2).
    pub qos: u8,
    /// `3.1.1` or `5`.
    pub mqtt_version: String,
    /// Messages a second; `None` for `max`.
    pub rate: Option<f64>,
    /// The producer's clock domain.
    pub domain: Domain,
    /// The producer that owns it.
    pub producer: DaemonId,
    /// Its producer's ordinal in the run: `{{producer}}` of templates.
    #[serde(default)]
    pub ordinal: u32,
    /// Its number among its producer's devices: `{{n}}` of templates.
    #[serde(default)]
    pub number: u32,
}

/// Everything counted about what one epoch sent. `scheduled = sent + unsent + queued`, `sent = acked + refused + unconfirmed` (QoS > 0, once ended).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SendRow {
    /// Places in the schedule so far.
    pub scheduled: u64,
    /// Offered to the socket; sequences `0..sent` exist.
    pub sent: u64,
    /// Given up before they were offered.
    pub unsent: u64,
    /// Waiting to be offered.
    pub queued: u64,
    /// Acknowledged.
    pub acked: u64,
    /// Refused by the broker.
    pub refused: u64,
    /// Never answered: in flight while the run goes on, for good at its end.
    pub unconfirmed: u64,
    /// PUBLISH frames sent again.
    pub retransmitted: u64,
    /// Acknowledged with reason 0x10, no matching subscribers.
    pub unrouted: u64,
    /// Refused sequences (at most [`SendRow::MAX_RANGES`] ranges, the rest only counted).
    pub refused_ranges: Vec<SeqRange>,
    /// Unanswered sequences, filled at the end (bounded likewise).
    pub unconfirmed_ranges: Vec<SeqRange>,
    /// Due time of the first and the last message sent.
    pub due: Option<(Reference, Reference)>,
    /// Times the first and the last message were offered.
    pub sent_at: Option<(Reference, Reference)>,
    /// Connection attempts, failures by reason, and so on.
    pub connects: Connects,
    /// Set with the last word: no row of this epoch follows.
    pub ended: bool,
    /// The producer died without a last word; `sent` is then the least that is known.
    pub vanished: bool,
}

/// Connections of one device or one claim.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Connects {
    /// Attempts.
    pub attempts: u64,
    /// Attempts or connections that ended badly, and refused subscriptions, by reason (a short fixed phrase such as `tcp refused`,
    /// `not authorised`).
    pub failed: BTreeMap<String, u64>,
    /// Time of each phase of successful connects, in nanoseconds, summed: `tcp`, `tls`, `connack`, `suback`; with their counts.
    pub phases: BTreeMap<String, PhaseTime>,
    /// When they failed (at most [`Connects::MAX_TROUBLES`], the last one then goes on); not in sums.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub troubles: Vec<Trouble>,
}

/// Failures of connections that followed each other within seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// The first.
    pub first: Reference,
    /// The last.
    pub last: Reference,
    /// How many.
    pub count: u64,
}

/// A consumer went on with a topic whose holder had died.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Takeover {
    /// The new holder.
    pub by: DaemonId,
    /// When it took the claim.
    pub at: Reference,
}

/// Count, sum and maximum of one phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PhaseTime {
    /// How many.
    pub count: u64,
    /// Sum in nanoseconds.
    pub sum_ns: u64,
    /// Maximum in nanoseconds.
    pub max_ns: u64,
}

/// Everything counted about what arrived on one response topic. `arrived = unique + duplicate + retained + unstamped + foreign`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReceiptRow {
    /// Messages read, of any kind.
    pub arrived: u64,
    /// First copies.
    pub unique: u64,
    /// Further copies.
    pub duplicate: u64,
    /// Retained messages.
    pub retained: u64,
    /// Without a stamp or with a broken one.
    pub unstamped: u64,
    /// Of an epoch that does not belong here.
    pub foreign: u64,
    /// First copies below the highest sequence received.
    pub reordered: u64,
    /// By epoch.
    pub epochs: BTreeMap<Epoch, EpochReceipt>,
    /// Connection attempts, failures, phases of the consuming side.
    pub connects: Connects,
    /// Takeovers from dead holders (at most [`ReceiptRow::MAX_TAKEOVERS`], the newest).
    pub takeovers: Vec<Takeover>,
    /// When this row was taken.
    pub saved_at: Reference,
    /// Set when every epoch of the topic is settled: no row follows.
    pub closed: bool,
}

/// One epoch's part of a [`ReceiptRow`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EpochReceipt {
    /// First copies.
    pub unique: u64,
    /// Given up as lost.
    pub lost: u64,
    /// Given up as unrecorded.
    pub unrecorded: u64,
    /// Given up as unheard.
    pub unheard: u64,
    /// Highest sequence received plus one; zero when none.
    pub next: u64,
    /// Given-up ranges by kind (bounded; the counts above are exact).
    pub ranges: Vec<crate::entry::Missing>,
    /// Lost ranges that `ranges` no longer lists.
    pub forgotten_ranges: u64,
    /// Set when nothing of this epoch is awaited any more.
    pub settled: bool,
}

/// A row that is not the JSON of its type.
#[derive(Debug, thiserror::Error)]
#[error("row is damaged: {0}")]
pub struct BadRow(#[from] serde_json::Error);

impl Trouble {
    /// Failures further apart than this are two troubles, in nanoseconds.
    pub const APART_NS: i64 = 15_000_000_000;
}

impl SendRow {
    /// How many ranges a row lists before it only counts.
    pub const MAX_RANGES: usize = 256;

    /// As JSON.
    pub fn encode(&self) -> Vec<u8> {
        json(self)
    }

    /// From JSON; fields that are missing are zero.
    pub fn decode(bytes: &[u8]) -> Result<SendRow, BadRow> {
        Ok(serde_json::from_slice(bytes)?)
    }

    /// The row of a producer that died without a last word: `sent` is the least that is known, from the last row and
    /// from `next` (highest sequence received plus one); nothing is queued, and what has no answer is unconfirmed. At QoS 0
    /// nothing has an answer. What the schedule held beyond is unknown.
    pub fn rebuilt(&self, next: u64, qos: u8) -> SendRow {
        let sent = self.sent.max(next);
        let unanswered = sent.saturating_sub(self.acked).saturating_sub(self.refused);
        SendRow {
            sent,
            queued: 0,
            scheduled: sent.saturating_add(self.unsent),
            unconfirmed: if qos == 0 { 0 } else { unanswered },
            vanished: true,
            ..self.clone()
        }
    }
}

impl Device {
    /// As JSON.
    pub fn encode(&self) -> Vec<u8> {
        json(self)
    }

    /// From JSON.
    pub fn decode(bytes: &[u8]) -> Result<Device, BadRow> {
        Ok(serde_json::from_slice(bytes)?)
    }
}

impl ReceiptRow {
    /// How many takeovers a row remembers.
    pub const MAX_TAKEOVERS: usize = 16;

    /// As JSON.
    pub fn encode(&self) -> Vec<u8> {
        json(self)
    }

    /// From JSON; fields that are missing are zero.
    pub fn decode(bytes: &[u8]) -> Result<ReceiptRow, BadRow> {
        Ok(serde_json::from_slice(bytes)?)
    }
}

impl Connects {
    /// How many troubles are told apart.
    pub const MAX_TROUBLES: usize = 8;

    /// The reason in `failed` of a subscription that was refused over a connection which stands.
    pub const REFUSED_SUBSCRIPTION: &str = "subscription refused";

    /// The broker refused a subscription.
    pub fn refuse(&mut self) {
        *self
            .failed
            .entry(Connects::REFUSED_SUBSCRIPTION.to_owned())
            .or_default() += 1;
    }

    /// An attempt failed, or a connection ended badly.
    pub fn fail(&mut self, reason: &str, at: Reference) {
        *self.failed.entry(reason.to_owned()).or_default() += 1;
        let full = self.troubles.len() >= Connects::MAX_TROUBLES;
        match self.troubles.last_mut() {
            Some(trouble) if full || at.since_ns(trouble.last) < Trouble::APART_NS => {
                trouble.last = trouble.last.max(at);
                trouble.count += 1;
            }
            _ => self.troubles.push(Trouble {
                first: at,
                last: at,
                count: 1,
            }),
        }
    }

    /// Adds other connections.
    pub fn add(&mut self, other: &Connects) {
        self.attempts += other.attempts;
        for (reason, count) in &other.failed {
            *self.failed.entry(reason.clone()).or_default() += count;
        }
        for (phase, time) in &other.phases {
            let sum = self.phases.entry(phase.clone()).or_default();
            sum.count += time.count;
            sum.sum_ns = sum.sum_ns.saturating_add(time.sum_ns);
            sum.max_ns = sum.max_ns.max(time.max_ns);
        }
    }
}

/// Rows hold nothing that JSON cannot say, so that the empty answer never comes about.
fn json(row: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(row).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever was known, the rebuilt row meets its equations, never says less was sent, and is rebuilt only once.
        #[test]
        fn a_rebuilt_row_is_equal_and_final(
            sent in 0_u64..1000, acked_share in 0_u64..=100, unsent in 0_u64..1000, queued in 0_u64..1000, next in 0_u64..2000, qos in 0_u8..3,
        ) {
            let acked = if qos == 0 { 0 } else { sent * acked_share / 100 };
            let row = SendRow { scheduled: sent + unsent + queued, sent, unsent, queued, acked, ..SendRow::default() };
            let rebuilt = row.rebuilt(next, qos);
            prop_assert_eq!(rebuilt.scheduled, rebuilt.sent + rebuilt.unsent + rebuilt.queued);
            let answers = rebuilt.acked + rebuilt.refused + rebuilt.unconfirmed;
            prop_assert_eq!(answers, if qos == 0 { 0 } else { rebuilt.sent });
            prop_assert!(rebuilt.sent >= row.sent && rebuilt.sent >= next && rebuilt.vanished);
            prop_assert_eq!(&rebuilt.rebuilt(next, qos), &rebuilt);
        }
    }
}
