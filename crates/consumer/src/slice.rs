//! What a worker knows of one partition of one run: its claims, what they received, and what no flush holds yet.
//!
//! No I/O and no clock: the connections put messages in (`receive`), the tender takes flushes out (`flush`) and puts
//! the registry's answers in (`settle`).

mod claim;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use isochrone_model::{
    entry::ReceiptPart,
    id::{DaemonId, Domain, Epoch, Token, Topic},
    stamp::Stamp,
    time::{Monotonic, Offset, Reference, Second},
};
use isochrone_store::types::{Claimed, Left};
use isochrone_transport::DeliveryId;

pub use claim::{Claim, NO_LINK, Stage};

use crate::{buffer::Ration, flush::Round};

/// One partition of one run, on the worker that holds claims there.
pub struct Slice {
    /// Written into every entry.
    pub daemon: DaemonId,
    /// The worker's clock domain.
    pub domain: Domain,
    /// Samples since the last flush.
    pub fresh: usize,
    /// First copies, further copies and so on since they were last collected, for the daemon's metrics.
    pub tally: Tally,
    pub(crate) claims: Vec<Option<Claim>>,
    /// Asked for every message.
    pub(crate) by_topic: HashMap<Arc<str>, usize, foldhash::fast::RandomState>,
    pub(crate) touched: Vec<usize>,
    /// What is on its way in several flushes.
    pub(crate) round: Option<Round>,
    pub(crate) facts: VecDeque<(Second, Facts)>,
    pub(crate) waiting: VecDeque<Waiting>,
    pub(crate) strangers: HashSet<Epoch>,
    pub(crate) links: Vec<LinkFacts>,
    pub(crate) batch: u64,
    pub(crate) era: Option<u32>,
}

/// Seconds whose facts wait for an entry. While the store is away, or nothing of this partition comes, the oldest fold.
const FACTS: usize = 120;

/// What holds for all topics of one second of receipt.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Facts {
    pub bound_ns: u64,
    pub era_changed: bool,
    pub ack_limited: bool,
}

/// A message whose epoch the registry is being asked about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    pub claim: usize,
    pub token: Token,
    pub stamp: Stamp,
    pub received: Received,
    pub link: usize,
    pub delivery: DeliveryId,
}

/// When a message had been read, on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// On the worker's monotonic clock.
    pub monotonic: Monotonic,
    /// On the reference clock.
    pub reference: Reference,
    /// Half-width of what the reference clock is known to, in nanoseconds.
    pub bound_ns: u64,
    /// Our own part in its delay.
    pub delay: isochrone_model::entry::ConsumerDelay,
}

/// What a slice remembers of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LinkFacts {
    pub delivered: DeliveryId,
    pub acknowledged: DeliveryId,
    pub waits_for_store: bool,
    pub resumable: bool,
    pub is_up: bool,
}

/// Counts for the daemon's own metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// First copies.
    pub unique: u64,
    /// Further copies.
    pub duplicates: u64,
    /// Retained messages.
    pub retained: u64,
    /// Without a stamp or with a broken one.
    pub unstamped: u64,
    /// Of an epoch that does not belong where it arrived.
    pub foreign: u64,
    /// On a topic that is not held (any more).
    pub stray: u64,
    /// Topics taken over from the dead.
    pub takeovers: u64,
    /// Connections that came up.
    pub connects: u64,
    /// Attempts and connections that failed.
    pub failed: u64,
}

impl Slice {
    /// Nothing held yet.
    pub fn new(daemon: DaemonId, domain: Domain) -> Slice {
        Slice {
            daemon,
            domain,
            fresh: 0,
            tally: Tally::default(),
            claims: Vec::new(),
            by_topic: HashMap::default(),
            touched: Vec::new(),
            round: None,
            facts: VecDeque::new(),
            waiting: VecDeque::new(),
            strangers: HashSet::new(),
            links: Vec::new(),
            batch: 0,
            era: None,
        }
    }

    /// Takes a claim in, heard on connection `link`; false when its topic is held already (the newer token counts).
    pub fn add(&mut self, claimed: &Claimed, link: usize, now: (Monotonic, Reference)) -> bool {
        if let Some(held) = self.find(claimed.topic.as_str()) {
            if let Some(claim) = self.claim_mut(held) {
                claim.token = claimed.token;
                claim.taken_at = now.0;
            }
            return false;
        }
        let mut claim = Claim::new(claimed, link, now);
        if claimed.left == Left::Died {
            claim.book.taken_over(self.daemon, now.1);
            self.tally.takeovers += 1;
        }
        let free = self.claims.iter().position(Option::is_none);
        let index = free.unwrap_or(self.claims.len());
        if free.is_none() {
            self.claims.push(None);
        }
        self.claims[index] = Some(claim);
        self.by_topic.insert(claimed.topic.0.clone(), index);
        true
    }

    /// Forgets a claim and everything pending of it.
    pub fn remove(&mut self, topic: &Topic, ration: &mut Ration) -> Option<Claim> {
        let index = self.by_topic.remove(&topic.0)?;
        let claim = self.claims.get_mut(index)?.take()?;
        self.touched.retain(|touched| *touched != index);
        self.waiting.retain(|waiting| waiting.claim != index);
        ration.release(claim.pending.samples());
        Some(claim)
    }

    /// Forgets every claim and everything pending; answers how many there were.
    pub fn dismiss(&mut self, ration: &mut Ration) -> usize {
        let held = self.by_topic.len();
        for claim in self.claims.drain(..).flatten() {
            ration.release(claim.pending.samples());
        }
        self.by_topic.clear();
        self.touched.clear();
        self.round = None;
        self.waiting.clear();
        held
    }

    /// Which claim a topic is.
    pub fn find(&self, topic: &str) -> Option<usize> {
        self.by_topic.get(topic).copied()
    }

    /// A claim by its index.
    pub fn claim_mut(&mut self, index: usize) -> Option<&mut Claim> {
        self.claims.get_mut(index)?.as_mut()
    }

    /// All claims.
    pub fn claims(&self) -> impl Iterator<Item = &Claim> {
        self.claims.iter().flatten()
    }

    /// All claims, with their indices.
    pub(crate) fn indices(&self) -> impl Iterator<Item = (usize, &Claim)> {
        let claims = self.claims.iter().enumerate();
        claims.filter_map(|(index, claim)| claim.as_ref().map(|claim| (index, claim)))
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.by_topic.is_empty()
    }

    /// Whether the next flush would hold nothing.
    pub fn is_clean(&self) -> bool {
        self.touched.is_empty()
    }

    /// Something of this claim changed: it is in the next flush.
    pub(crate) fn touch(&mut self, index: usize) {
        if let Some(claim) = self.claims.get_mut(index).and_then(Option::as_mut)
            && !claim.touched
        {
            claim.touched = true;
            self.touched.push(index);
        }
    }

    /// The part of a claim for a second; the claim is in the next flush.
    pub(crate) fn part(&mut self, index: usize, second: Second) -> Option<&mut ReceiptPart> {
        self.touch(index);
        Some(self.claims.get_mut(index)?.as_mut()?.pending.at(second))
    }

    /// What holds for a second of receipt.
    pub(crate) fn facts_of(&mut self, second: Second) -> &mut Facts {
        let place = match self.facts.back() {
            Some((newest, _)) if *newest == second => self.facts.len() - 1,
            _ => {
                let place = self.facts.partition_point(|(other, _)| *other < second);
                if self.facts.get(place).is_none_or(|(other, _)| *other != second) {
                    self.facts.insert(place, (second, Facts::default()));
                }
                self.fold_facts(place)
            }
        };
        &mut self.facts[place].1
    }

    /// Beyond [`FACTS`] seconds the oldest facts hold for the second after them; answers where `place` is then.
    fn fold_facts(&mut self, place: usize) -> usize {
        if self.facts.len() <= FACTS {
            return place;
        }
        if let Some((_, oldest)) = self.facts.pop_front()
            && let Some((_, next)) = self.facts.front_mut()
        {
            next.add(oldest);
        }
        place.saturating_sub(1)
    }

    /// A jump of the reference clock spoils the second it is seen in.
    pub(crate) fn watch_era(&mut self, offset: Offset, now: Reference) {
        if self.era.replace(offset.era).is_some_and(|era| era != offset.era) {
            self.facts_of(now.second()).era_changed = true;
        }
    }

    /// The oldest second with samples that no flush holds.
    pub fn oldest(&self) -> Option<Second> {
        self.touched
            .iter()
            .filter_map(|index| self.claims.get(*index)?.as_ref()?.pending.oldest())
            .min()
    }

    /// Drops up to `count` samples of `second`; answers how many.
    pub fn drop_oldest(&mut self, second: Second, count: usize) -> usize {
        let mut dropped = 0;
        for index in &self.touched {
            if dropped >= count {
                break;
            }
            if let Some(claim) = self.claims.get_mut(*index).and_then(Option::as_mut) {
                dropped += claim.pending.drop_oldest(second, count - dropped);
            }
        }
        self.fresh = self.fresh.saturating_sub(dropped);
        dropped
    }

    /// Room for one more connection's facts; answers its number.
    pub fn open_link(&mut self, link: usize, waits_for_store: bool, resumable: bool) {
        if self.links.len() <= link {
            self.links.resize(link + 1, LinkFacts::default());
        }
        self.links[link] = LinkFacts {
            waits_for_store,
            resumable,
            ..LinkFacts::default()
        };
    }

    /// Whether the session of a connection outlives it, for whoever listens next.
    pub fn resumable(&self, link: usize) -> bool {
        self.links.get(link).is_some_and(|facts| facts.resumable)
    }

    /// Whether deliveries wait for the store to be acknowledged.
    pub fn unacknowledged(&self) -> bool {
        let mut links = self.links.iter();
        links.any(|link| link.waits_for_store && link.delivered > link.acknowledged)
    }
}

impl Facts {
    fn add(&mut self, other: Facts) {
        self.bound_ns = self.bound_ns.max(other.bound_ns);
        self.era_changed |= other.era_changed;
        self.ack_limited |= other.ack_limited;
    }
}
