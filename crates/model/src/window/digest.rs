//! What an entry of a consumer says of seconds, before it is split into topics.

use crate::{
    entry::{ConsumerDelay, Missing, MissingKind, ReceiptHead, ReceiptPart, Sample},
    histogram::Histogram,
    id::Topic,
    time::Second,
    verdict::{ClockDoubt, GivenUp, Lateness},
};

/// What one second's messages in an entry come to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// All of them.
    pub messages: u64,
    /// Of those that enter the figures.
    pub lateness: Lateness,
    pub warmup: u64,
    pub measured: u64,
}

/// See the module.
pub struct Digest {
    pub doubt: ClockDoubt,
    /// All messages: they were received in one second.
    pub receipt: Tally,
    /// By second of due; few, in the order of their first message.
    pub due: Vec<(Second, Tally)>,
}

impl Tally {
    fn count(&mut self, sample: &Sample) {
        self.messages += 1;
        if sample.warmup {
            self.warmup += 1;
            return;
        }
        self.measured += 1;
        self.lateness.messages += 1;
        self.lateness.late += u64::from(sample.delay != ConsumerDelay::None);
        self.lateness.extreme += u64::from(sample.delay == ConsumerDelay::Extreme);
    }
}

impl Digest {
    pub fn of(head: &ReceiptHead, parts: &[(Topic, ReceiptPart)]) -> Digest {
        let mut digest = Digest {
            doubt: ClockDoubt::default(),
            receipt: Tally::default(),
            due: Vec::new(),
        };
        let mut response = Histogram::default();
        for sample in parts.iter().flat_map(|(_, part)| &part.samples) {
            digest.receipt.count(sample);
            slot(&mut digest.due, sample.due.second()).count(sample);
            // Within a domain there is no doubt to weigh.
            if head.bound_ns > 0 {
                response.record(sample.response_ns());
            }
        }
        if let Some(p50) = response.percentile(0.5) {
            digest.doubt = ClockDoubt {
                bound_ns: head.bound_ns,
                p50_ns: p50.max(0) as u64,
            };
        }
        digest
    }
}

/// The slot of `second`, made where there is none; searched from the end, where the newest is.
pub fn slot<T: Default>(slots: &mut Vec<(Second, T)>, second: Second) -> &mut T {
    let at = match slots.iter().rposition(|(other, _)| *other == second) {
        Some(at) => at,
        None => {
            slots.push((second, T::default()));
            slots.len() - 1
        }
    };
    &mut slots[at].1
}

/// `count` messages given up as `missing` was.
pub fn given_up(missing: &Missing, count: u64) -> GivenUp {
    let mut given = GivenUp::default();
    match missing.kind {
        MissingKind::Lost => given.lost = count,
        MissingKind::Unrecorded => given.unrecorded = count,
        MissingKind::Unheard => given.unheard = count,
    }
    given
}
