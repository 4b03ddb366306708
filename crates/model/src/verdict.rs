//! Whether the figures of a second may be trusted.
//!
//! Only what we did ourselves makes a second invalid; a stall or an outage of the target never does.

mod facts;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

pub use self::facts::{ClockDoubt, GivenUp, Lateness, SecondFacts};
use crate::id::DaemonId;

/// Delay by us above which one message alone spoils a second.
pub const EXTREME_NS: i64 = 100_000_000;
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
