//! What daemons write to a partition's stream: the parts of an entry, one per topic, and the head beside them.
//!
//! The store carries parts and heads as bytes; `encode`/`decode` of each type are their only reader and writer.

mod codec;

use serde::{Deserialize, Serialize};

pub(crate) use codec::{get_byte, get_fixed, get_list, get_missing, get_range, put_missing, put_range};

use crate::{
    histogram::Histogram,
    id::{DaemonId, Domain, Epoch},
    range::SeqRange,
    time::{Reference, Second},
};

/// Bytes that are no part or head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is damaged or of another version")]
pub struct BadEntry(pub &'static str);

/// One received message: the first copy of its sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The device life it came from.
    pub epoch: Epoch,
    /// Its sequence within the epoch.
    pub sequence: u64,
    /// When the schedule wanted it out.
    pub due: Reference,
    /// When it was offered to the socket.
    pub sent: Reference,
    /// When it had been read, on the consumer's view of the reference clock.
    pub received: Reference,
    /// `received − sent`: from the monotonic clock within a domain, from the reference clock across domains. May be negative.
    pub transit_ns: i64,
    /// Our own part in its delay.
    pub delay: ConsumerDelay,
    /// Inside warm-up or a ramp: in the ledger, outside the figures.
    pub warmup: bool,
}

/// How long a message's way overlapped an absence of its consumer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ConsumerDelay {
    /// Not longer than ISOCHRONE_VALID_LATE.
    #[default]
    None,
    /// Longer than ISOCHRONE_VALID_LATE.
    Late,
    /// Longer than 100 ms.
    Extreme,
}

impl SendPart {
    /// How many ranges of each kind a part holds; beyond it neighbours are joined ([`range::append`](crate::range::append)).
    pub const MAX_RANGES: usize = 1_024;
}

impl Missing {
    /// Joins ranges in `all` until there are at most `most`, or one for each epoch and kind: first neighbours of one second of
    /// due, then pairs of neighbours. How many there are stays exact, with the first in each second; which they are does not.
    pub fn bound(all: &mut Vec<Missing>, most: usize) {
        if all.len() <= most {
            return;
        }
        all.sort_by_key(|missing| (missing.epoch, missing.kind, missing.range.first));
        let alike = |next: &Missing, last: &Missing| (next.epoch, next.kind) == (last.epoch, last.kind);
        all.dedup_by(|next, last| {
            let joined = alike(next, last) && next.due.1.second() == last.due.0.second();
            if joined {
                last.join(next);
            }
            joined
        });
        // Half of it, so that this is not done for every range from here on.
        while all.len() > most / 2 {
            let before = all.len();
            let mut paired = false;
            all.dedup_by(|next, last| {
                paired = !paired && alike(next, last);
                if paired {
                    last.join(next);
                }
                paired
            });
            if all.len() == before {
                return;
            }
        }
    }

    /// As long as both together, from where this begins to when the other ends.
    fn join(&mut self, next: &Missing) {
        self.range.last = self.range.last.saturating_add(next.range.count());
        self.due.1 = next.due.1;
    }
}

impl Sample {
    /// `sent − due`.
    pub fn publish_delay_ns(&self) -> i64 {
        self.sent.since_ns(self.due)
    }

    /// `publish_delay + transit`: free of coordinated omission.
    pub fn response_ns(&self) -> i64 {
        self.publish_delay_ns().saturating_add(self.transit_ns)
    }
}

/// Beside the parts of a consumer's entry: what holds for all topics of that daemon in that second.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptHead {
    /// The consumer.
    pub daemon: DaemonId,
    /// Its clock domain.
    pub domain: Domain,
    /// The consumer's part of the clock uncertainty of cross-domain transits in this entry, as a half-width in nanoseconds; the
    /// producer's is in its own [`SendHead`]. Zero when all samples are within a domain.
    pub bound_ns: u64,
    /// The reference jumped or moved in this second.
    pub era_changed: bool,
    /// Deliveries waited for the store in this second (ISOCHRONE_ACK=stored).
    pub ack_limited: bool,
    /// Stretches longer than ISOCHRONE_VALID_LATE in which the worker was away from its sockets.
    pub absences: Vec<(Reference, Reference)>,
}

/// One response topic, one second of receipt, one flush. Counts are of this part alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReceiptPart {
    /// First copies received in this second, in the order of receipt.
    pub samples: Vec<Sample>,
    /// Further copies.
    pub duplicates: u64,
    /// Retained messages.
    pub retained: u64,
    /// Messages without a stamp or with a broken one.
    pub unstamped: u64,
    /// Messages of an epoch that does not belong here.
    pub foreign: u64,
    /// First copies below the highest sequence received.
    pub reordered: u64,
    /// Unique samples dropped from the consumer's buffer since the last part, by second of due.
    pub dropped: Vec<(Second, u64)>,
    /// Sequences given up in this flush.
    pub missing: Vec<Missing>,
    /// Sequences given up earlier that came after all.
    pub found: Vec<Missing>,
}

/// Why a sequence never arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MissingKind {
    /// The holder of the claim died or was fenced with it.
    Unrecorded,
    /// Sent while nobody listened and no session stood.
    Unheard,
    /// All else.
    Lost,
}

/// A range of sequences that did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// The device life that sent them.
    pub epoch: Epoch,
    /// Why.
    pub kind: MissingKind,
    /// Which.
    pub range: SeqRange,
    /// Due times of the range's ends, interpolated from the neighbours that did arrive; used where the producer's rows are gone.
    pub due: (Reference, Reference),
}

/// Beside the parts of a producer's entry: what holds for all devices of that daemon in that due-second.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendHead {
    /// The producer.
    pub daemon: DaemonId,
    /// Its clock domain.
    pub domain: Domain,
    /// Messages this daemon sent that were due in this second, all partitions together, counted in this flush.
    pub messages: u64,
    /// Those late by more than ISOCHRONE_VALID_LATE.
    pub late: u64,
    /// Those late by more than 100 ms.
    pub extreme: u64,
    /// Half-width of what the reference clock was known to when these were counted, in nanoseconds.
    pub bound_ns: u64,
    /// The reference jumped or moved since the entry before.
    pub era_changed: bool,
}

/// One device, one due-second, one flush: all numbers are additions to what earlier flushes said of that second.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SendPart {
    /// The device life.
    pub epoch: Epoch,
    /// Places in the schedule.
    pub scheduled: u64,
    /// Offered to the socket.
    pub sent: u64,
    /// Given up before they were offered.
    pub unsent: u64,
    /// The first sequence sent of this due-second, where this flush holds it.
    pub first_sequence: Option<u64>,
    /// Acknowledged by the broker (QoS > 0).
    pub acked: u64,
    /// Refused by the broker.
    pub refused: Vec<SeqRange>,
    /// Never answered when the device ended.
    pub unconfirmed: Vec<SeqRange>,
    /// Inside warm-up or a ramp.
    pub warmup: bool,
    /// `late` of each message sent, in nanoseconds.
    pub late: Histogram,
    /// From offering to PUBACK (QoS 1) or PUBREC (QoS 2), in nanoseconds.
    pub ack: Histogram,
    /// From PUBREL to PUBCOMP (QoS 2), in nanoseconds.
    pub complete: Histogram,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::time::NANOS_PER_SECOND;

    /// Every other sequence of a device, ten a second.
    fn missing(epoch: u64, number: u64, length: u64) -> Missing {
        let due = Reference(number as i64 * NANOS_PER_SECOND / 10);
        let first = number * 10;
        Missing {
            epoch: Epoch(epoch),
            kind: MissingKind::Lost,
            range: SeqRange {
                first,
                last: first + length - 1,
            },
            due: (due, due),
        }
    }

    fn counts(all: &[Missing]) -> BTreeMap<Epoch, u64> {
        let mut counts = BTreeMap::new();
        for missing in all {
            *counts.entry(missing.epoch).or_default() += missing.range.count();
        }
        counts
    }

    proptest! {
        /// Few are left, and each epoch's count is what it was.
        #[test]
        fn bounded_ranges_keep_their_counts(ranges in prop::collection::vec((0_u64..3, 1_u64..5), 0..300), most in 8_usize..50) {
            let mut all: Vec<Missing> = (0..).zip(ranges).map(|(number, (epoch, length))| missing(epoch, number, length)).collect();
            let before = counts(&all);
            Missing::bound(&mut all, most);
            prop_assert!(all.len() <= most);
            prop_assert_eq!(counts(&all), before);
        }
    }

    /// As long as seconds are enough to tell apart, each keeps its count.
    #[test]
    fn seconds_keep_their_counts() {
        let mut all: Vec<Missing> = (0..300).map(|number| missing(1, number, 1)).collect();
        Missing::bound(&mut all, 100);
        let seconds: Vec<_> = all
            .iter()
            .map(|missing| (missing.due.0.second().0, missing.range.count()))
            .collect();
        assert_eq!(seconds, (0..30).map(|second| (second, 10)).collect::<Vec<_>>());
    }
}
