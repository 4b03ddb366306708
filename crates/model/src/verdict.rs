//! Whether the figures of a second may be trusted.
//!
//! Only what we did ourselves makes a second invalid; a stall or an outage of the target never does.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::id::DaemonId;

/// Delay by us above which one message alone spoils a second.
pub const EXTREME_NS: i64 = 100_000_000;
/// Clock bounds up to this never spoil a second.
const BOUND_FLOOR_NS: u64 = 1_000_000;

/// What a second's figures suffer from, from nothing to worst: the largest wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Nothing of ours disturbed it.
    Valid,
    /// Deliveries waited for the store before they were acknowledged.
    AckLimited,
    /// The clocks' uncertainty is above max(1 ms, 10 % of the median).
    ClockUnsure,
    /// The producer was late.
    GeneratorLate,
    /// The consumer was late.
    ConsumerLate,
    /// Samples were dropped, unrecorded or unheard.
    Dropped,
}

/// A set of [`Reason`]s; the empty set means valid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Reasons(u8);

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

/// What to say of one second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The worst.
    pub worst: Reason,
    /// All.
    pub reasons: Reasons,
}

/// The verdict of a second over everything merged into `facts`.
pub fn verdict(facts: &SecondFacts) -> Verdict {
    let mut reasons = Reasons::default();
    let left = |missing: u64, found: u64| missing > found;
    if facts.dropped > 0
        || left(facts.missing.unrecorded, facts.found.unrecorded)
        || left(facts.missing.unheard, facts.found.unheard)
    {
        reasons.insert(Reason::Dropped);
    }
    let spoilt = |daemons: &BTreeMap<DaemonId, Lateness>| daemons.values().any(|daemon| daemon.spoils());
    if spoilt(&facts.consumers_by_due) || spoilt(&facts.consumers_by_receipt) {
        reasons.insert(Reason::ConsumerLate);
    }
    if spoilt(&facts.producers) {
        reasons.insert(Reason::GeneratorLate);
    }
    if facts.era_changed || facts.clock.and(facts.sending_bound_ns).spoils() {
        reasons.insert(Reason::ClockUnsure);
    }
    if facts.ack_limited {
        reasons.insert(Reason::AckLimited);
    }
    Verdict {
        worst: reasons.worst(),
        reasons,
    }
}

impl Reason {
    /// All, from valid to worst.
    pub const ALL: [Reason; 6] = [
        Reason::Valid,
        Reason::AckLimited,
        Reason::ClockUnsure,
        Reason::GeneratorLate,
        Reason::ConsumerLate,
        Reason::Dropped,
    ];

    /// The name in reports and documents.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Valid => "valid",
            Reason::AckLimited => "ack_limited",
            Reason::ClockUnsure => "clock_unsure",
            Reason::GeneratorLate => "generator_late",
            Reason::ConsumerLate => "consumer_late",
            Reason::Dropped => "dropped",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Reasons {
    /// Adds one; adding `Valid` changes nothing.
    pub fn insert(&mut self, reason: Reason) {
        if reason != Reason::Valid {
            self.0 |= 1 << reason as u8;
        }
    }

    /// Whether `reason` holds; `Valid` when nothing else does.
    pub fn contains(self, reason: Reason) -> bool {
        if reason == Reason::Valid {
            self.0 == 0
        } else {
            self.0 & (1 << reason as u8) != 0
        }
    }

    /// The worst of them.
    pub fn worst(self) -> Reason {
        let worst = Reason::ALL.into_iter().rev().find(|&reason| self.contains(reason));
        worst.unwrap_or(Reason::Valid)
    }

    /// Both sets.
    pub fn union(self, other: Reasons) -> Reasons {
        Reasons(self.0 | other.0)
    }

    /// Those that hold, worst first; only `Valid` when nothing else does.
    pub fn iter(self) -> impl Iterator<Item = Reason> {
        Reason::ALL
            .into_iter()
            .rev()
            .filter(move |&reason| self.contains(reason))
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn daemon(messages: u64, late: u64, extreme: u64) -> BTreeMap<DaemonId, Lateness> {
        [(
            DaemonId(1),
            Lateness {
                messages,
                late,
                extreme,
            },
        )]
        .into()
    }

    #[test]
    fn verdicts() {
        let valid = SecondFacts::default();
        let clock = |bound_ns, p50_ns| SecondFacts {
            clock: ClockDoubt { bound_ns, p50_ns },
            ..SecondFacts::default()
        };
        let missing = |missing| SecondFacts {
            missing,
            ..SecondFacts::default()
        };
        let rows = [
            ("nothing happened", valid.clone(), Reason::Valid),
            (
                "the target was silent",
                SecondFacts {
                    sent: 9,
                    missing: GivenUp {
                        lost: 9,
                        ..GivenUp::default()
                    },
                    ..valid.clone()
                },
                Reason::Valid,
            ),
            (
                "1 % is not over 1 %",
                SecondFacts {
                    producers: daemon(100, 1, 0),
                    ..valid.clone()
                },
                Reason::Valid,
            ),
            (
                "2 % is",
                SecondFacts {
                    producers: daemon(100, 2, 0),
                    ..valid.clone()
                },
                Reason::GeneratorLate,
            ),
            (
                "one over 100 ms is enough",
                SecondFacts {
                    producers: daemon(1_000_000, 1, 1),
                    ..valid.clone()
                },
                Reason::GeneratorLate,
            ),
            (
                "a late consumer, by due",
                SecondFacts {
                    consumers_by_due: daemon(10, 1, 0),
                    ..valid.clone()
                },
                Reason::ConsumerLate,
            ),
            (
                "a late consumer, by receipt",
                SecondFacts {
                    consumers_by_receipt: daemon(10, 1, 0),
                    ..valid.clone()
                },
                Reason::ConsumerLate,
            ),
            ("a bound of 1 ms is fine", clock(1_000_000, 0), Reason::Valid),
            ("a bound above 1 ms is not", clock(1_000_001, 0), Reason::ClockUnsure),
            (
                "both sides' bounds count",
                SecondFacts {
                    sending_bound_ns: 600_000,
                    ..clock(600_000, 0)
                },
                Reason::ClockUnsure,
            ),
            (
                "but not within a domain",
                SecondFacts {
                    sending_bound_ns: 6_000_000,
                    ..clock(0, 0)
                },
                Reason::Valid,
            ),
            (
                "unless the median is large",
                clock(5_000_000, 50_000_000),
                Reason::Valid,
            ),
            (
                "and then up to a tenth of it",
                clock(5_000_001, 50_000_000),
                Reason::ClockUnsure,
            ),
            (
                "a jump of the reference",
                SecondFacts {
                    era_changed: true,
                    ..valid.clone()
                },
                Reason::ClockUnsure,
            ),
            (
                "deliveries that waited",
                SecondFacts {
                    ack_limited: true,
                    ..valid.clone()
                },
                Reason::AckLimited,
            ),
            (
                "a dropped sample",
                SecondFacts {
                    dropped: 1,
                    ..valid.clone()
                },
                Reason::Dropped,
            ),
            (
                "an unrecorded one",
                missing(GivenUp {
                    unrecorded: 1,
                    ..GivenUp::default()
                }),
                Reason::Dropped,
            ),
            (
                "an unheard one",
                missing(GivenUp {
                    unheard: 1,
                    ..GivenUp::default()
                }),
                Reason::Dropped,
            ),
            (
                "one that came after all",
                SecondFacts {
                    found: GivenUp {
                        unheard: 1,
                        ..GivenUp::default()
                    },
                    ..missing(GivenUp {
                        unheard: 1,
                        ..GivenUp::default()
                    })
                },
                Reason::Valid,
            ),
            (
                "the worst wins",
                SecondFacts {
                    dropped: 1,
                    ack_limited: true,
                    producers: daemon(1, 1, 0),
                    ..valid
                },
                Reason::Dropped,
            ),
        ];
        for (sentence, facts, worst) in rows {
            assert_eq!(verdict(&facts).worst, worst, "{sentence}");
        }
    }

    #[test]
    fn all_reasons_are_kept() {
        let facts = SecondFacts {
            dropped: 1,
            ack_limited: true,
            ..SecondFacts::default()
        };
        let reasons = verdict(&facts).reasons;
        assert_eq!(
            reasons.iter().collect::<Vec<_>>(),
            [Reason::Dropped, Reason::AckLimited]
        );
        assert_eq!(Reasons::default().iter().collect::<Vec<_>>(), [Reason::Valid]);
    }
}
