//! All that the verdict of a second depends on.

use std::collections::BTreeMap;

use super::{Reason, verdict};
use crate::id::DaemonId;

/// Clock bounds up to this never spoil a second.
const BOUND_FLOOR_NS: u64 = 1_000_000;

/// How many messages of one daemon in one second, and how many of them it delayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lateness {
    /// All.
    pub messages: u64,
    /// Delayed by more than ISOCHRONE_VALID_LATE, the extreme ones included.
    pub late: u64,
    /// Delayed by more than 100 ms.
    pub extreme: u64,
}

/// The clock uncertainty of the entry that suffers most from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockDoubt {
    /// Half-width, in nanoseconds.
    pub bound_ns: u64,
    /// Median response of the entry's samples, in nanoseconds.
    pub p50_ns: u64,
}

/// Messages given up in one second of due, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GivenUp {
    /// See [`MissingKind::Lost`](crate::entry::MissingKind::Lost).
    pub lost: u64,
    /// See [`MissingKind::Unrecorded`](crate::entry::MissingKind::Unrecorded).
    pub unrecorded: u64,
    /// See [`MissingKind::Unheard`](crate::entry::MissingKind::Unheard).
    pub unheard: u64,
}

/// All that one second's verdict depends on, and its counts. Additive: facts of several parts merge, in any order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecondFacts {
    /// By producer: messages due in this second.
    pub producers: BTreeMap<DaemonId, Lateness>,
    /// By consumer: messages due in this second.
    pub consumers_by_due: BTreeMap<DaemonId, Lateness>,
    /// By consumer: messages received in this second.
    pub consumers_by_receipt: BTreeMap<DaemonId, Lateness>,
    /// Due in this second: places in the schedule.
    pub scheduled: u64,
    /// Due in this second: sent.
    pub sent: u64,
    /// Due in this second: given up before they were sent.
    pub unsent: u64,
    /// Due in this second: received, whenever.
    pub received: u64,
    /// Received in this second, whenever due.
    pub arrived: u64,
    /// Due in this second: given up.
    pub missing: GivenUp,
    /// Due in this second: given up and received later.
    pub found: GivenUp,
    /// Due in this second: received and dropped.
    pub dropped: u64,
    /// Worst clock uncertainty, the consumers' part.
    pub clock: ClockDoubt,
    /// Due in this second: largest clock bound of a producer, in nanoseconds.
    pub sending_bound_ns: u64,
    /// The reference clock jumped or moved.
    pub era_changed: bool,
    /// Deliveries waited for the store.
    pub ack_limited: bool,
    /// Messages of warm-up and ramps: each counts when it is sent, by due and by receipt.
    pub warmup: u64,
    /// Messages that enter the figures, counted likewise.
    pub measured: u64,
}

impl Lateness {
    /// Adds another count of the same daemon.
    pub fn add(&mut self, other: Lateness) {
        self.messages += other.messages;
        self.late += other.late;
        self.extreme += other.extreme;
    }

    /// Over 1 % late, or any extremely.
    pub fn spoils(self) -> bool {
        self.extreme > 0 || self.late.saturating_mul(100) > self.messages
    }
}

impl ClockDoubt {
    /// The bound is above max(1 ms, 10 % of the median).
    pub fn spoils(self) -> bool {
        self.excess() > 0
    }

    /// With the other side's bound; within a clock domain there is none.
    pub fn and(self, bound_ns: u64) -> ClockDoubt {
        match self.bound_ns {
            0 => self,
            own => ClockDoubt {
                bound_ns: own.saturating_add(bound_ns),
                ..self
            },
        }
    }

    fn excess(self) -> i64 {
        let allowed = BOUND_FLOOR_NS.max(self.p50_ns / 10);
        self.bound_ns.min(i64::MAX as u64) as i64 - allowed.min(i64::MAX as u64) as i64
    }

    /// The worse of both.
    pub fn worse(self, other: ClockDoubt) -> ClockDoubt {
        let rank = |doubt: ClockDoubt| (doubt.excess(), doubt.bound_ns, doubt.p50_ns);
        if rank(other) > rank(self) { other } else { self }
    }
}

impl GivenUp {
    /// Adds another count.
    pub fn add(&mut self, other: GivenUp) {
        self.lost += other.lost;
        self.unrecorded += other.unrecorded;
        self.unheard += other.unheard;
    }
}

impl SecondFacts {
    /// Whether only warm-up or a ramp happened in this second: it then stands outside the figures.
    pub fn is_warmup(&self) -> bool {
        self.warmup > 0 && self.measured == 0
    }

    /// Whether the second is one of the figures: messages were due or received in it, or something went wrong.
    pub fn is_measured(&self) -> bool {
        self.measured > 0 || (self.warmup == 0 && verdict(self).worst != Reason::Valid)
    }

    /// Adds what another part of the same partition knows of the same second.
    pub fn merge(&mut self, other: &SecondFacts) {
        merge_daemons(&mut self.producers, &other.producers);
        self.merge_all_but_producers(other);
    }

    /// Adds what another partition knows of the same second. A producer's entry in each partition tells of all its
    /// messages, so that the fullest account counts, not the sum.
    pub fn merge_partition(&mut self, other: &SecondFacts) {
        for (&daemon, account) in &other.producers {
            let mine = self.producers.entry(daemon).or_default();
            mine.messages = mine.messages.max(account.messages);
            mine.late = mine.late.max(account.late);
            mine.extreme = mine.extreme.max(account.extreme);
        }
        self.merge_all_but_producers(other);
    }

    fn merge_all_but_producers(&mut self, other: &SecondFacts) {
        merge_daemons(&mut self.consumers_by_due, &other.consumers_by_due);
        merge_daemons(&mut self.consumers_by_receipt, &other.consumers_by_receipt);
        self.scheduled += other.scheduled;
        self.sent += other.sent;
        self.unsent += other.unsent;
        self.received += other.received;
        self.arrived += other.arrived;
        self.missing.add(other.missing);
        self.found.add(other.found);
        self.dropped += other.dropped;
        self.clock = self.clock.worse(other.clock);
        self.sending_bound_ns = self.sending_bound_ns.max(other.sending_bound_ns);
        self.era_changed |= other.era_changed;
        self.ack_limited |= other.ack_limited;
        self.warmup += other.warmup;
        self.measured += other.measured;
    }
}

fn merge_daemons(into: &mut BTreeMap<DaemonId, Lateness>, from: &BTreeMap<DaemonId, Lateness>) {
    for (&daemon, &lateness) in from {
        into.entry(daemon).or_default().add(lateness);
    }
}
