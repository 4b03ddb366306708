//! From what is pending to one atomic write: all open seconds of a partition, and the state as of their end.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use isochrone_model::{
    entry::{ReceiptHead, ReceiptPart},
    id::{Token, Topic},
    time::{Offset, Reference, Second},
};
use isochrone_store::types::{EntryKind, MOST_PARTS_OF_A_FLUSH, NewEntry, NewPart, ReceiptFlush, TopicSave};
use isochrone_transport::DeliveryId;

use crate::{
    absence::Absences,
    slice::{Facts, Slice},
};

/// All that was pending at one moment, on its way in flush after flush.
#[derive(Debug)]
pub(crate) struct Round {
    /// So many topics, the first of those touched, are still to be flushed.
    topics: usize,
    /// What is covered when they are.
    covers: Vec<(usize, DeliveryId)>,
    /// Seconds with entries so far: what holds for them is said in each, and forgotten with the last.
    told: BTreeSet<Second>,
}

/// A flush, and what follows from its being stored.
#[derive(Clone, Debug)]
pub struct Batch {
    /// What the store gets; the same again until it answers.
    pub flush: Arc<ReceiptFlush>,
    /// How many samples it holds.
    pub samples: usize,
    /// By connection: everything up to here may be acknowledged once it is stored.
    pub covers: Vec<(usize, DeliveryId)>,
    /// All that was pending when the first of these flushes was made is in them.
    pub is_last: bool,
}

impl Slice {
    /// Takes what is pending, with each touched topic's state as of now; `None` when nothing changed. Much of it is taken in
    /// several flushes, the topics that have waited longest first.
    ///
    /// State and samples are taken at one instant, so a successor that loads the state awaits exactly what no entry holds.
    pub fn flush(&mut self, now: Reference, offset: Offset, absences: &Absences) -> Option<Batch> {
        self.watch_era(offset, now);
        if self.touched.is_empty() {
            self.round = None;
            return None;
        }
        let mut seconds: BTreeMap<Second, Vec<NewPart>> = BTreeMap::new();
        let mut states = Vec::with_capacity(self.touched.len());
        let mut samples = 0;
        let (touched, mut round) = self.next_of_round();
        for index in touched {
            let Some(claim) = self.claims.get_mut(index).and_then(Option::as_mut) else {
                continue;
            };
            claim.touched = false;
            let mut here = 0;
            let mut parts = claim.pending.take();
            if parts.is_empty() {
                parts.push_back((now.second(), ReceiptPart::default()));
            }
            for (second, part) in parts {
                here += part.samples.len();
                let part_of = new_part(&claim.topic, claim.token, &part);
                seconds.entry(second).or_default().push(part_of);
                claim.pending.reuse(part.samples);
            }
            states.push(TopicSave {
                topic: claim.topic.clone(),
                token: claim.token,
                total_before: claim.total - here as u64,
                state: claim.book.save().into(),
            });
            samples += here;
        }
        let entries = seconds.into_iter().map(|(second, parts)| NewEntry {
            kind: EntryKind::Receipt,
            second,
            head: self.head(second, offset, absences),
            parts,
        });
        let entries: Vec<NewEntry> = entries.collect();
        round.told.extend(entries.iter().map(|entry| entry.second));
        let is_last = round.topics == 0;
        let covers = if is_last {
            // A second that has no entry yet may have one in the next flush: what holds for it is kept until then.
            self.facts.retain(|(second, _)| !round.told.contains(second));
            round.covers
        } else {
            self.round = Some(round);
            Vec::new()
        };
        self.fresh = 0;
        self.batch += 1;
        Some(Batch {
            flush: Arc::new(ReceiptFlush {
                batch: self.batch,
                entries,
                states,
            }),
            samples,
            covers,
            is_last,
        })
    }

    /// Whether part of what was pending at one moment is still to be flushed.
    pub fn is_in_round(&self) -> bool {
        self.round.is_some()
    }

    /// The topics of the next flush, and the round as it is after it.
    fn next_of_round(&mut self) -> (Vec<usize>, Round) {
        let mut round = self.round.take().unwrap_or_else(|| Round {
            topics: self.touched.len(),
            covers: self.covers(),
            told: BTreeSet::new(),
        });
        // Some may have been let go of meanwhile.
        let topics = round.topics.min(self.touched.len());
        let mut parts = 0;
        let mut fitting = 0;
        for index in &self.touched[..topics] {
            let claim = self.claims.get(*index).and_then(Option::as_ref);
            parts += claim.map_or(0, |claim| claim.pending.parts().max(1));
            // A topic's own parts are never split.
            if parts > MOST_PARTS_OF_A_FLUSH && fitting > 0 {
                break;
            }
            fitting += 1;
        }
        let later = self.touched.split_off(fitting);
        let touched = std::mem::replace(&mut self.touched, later);
        round.topics = topics - fitting;
        (touched, round)
    }

    /// The store left out the last `entries` of a flush that it would have taken: what they counted is in the next one, their
    /// samples as dropped.
    pub fn left_out(&mut self, flush: &ReceiptFlush, entries: u64, fenced: &[Topic], now: Reference) {
        let is_fenced = |part: &NewPart| fenced.iter().any(|topic| topic.as_str() == part.key);
        let taken = flush
            .entries
            .iter()
            .rev()
            .filter(|entry| !entry.parts.iter().all(is_fenced));
        for part in taken.take(entries as usize).flat_map(|entry| &entry.parts) {
            let Some(index) = self.find(&part.key) else { continue };
            // It was encoded here.
            let Ok(body) = ReceiptPart::decode(&part.body) else {
                continue;
            };
            if let Some(claim) = self.claim_mut(index)
                && claim.token == part.token
            {
                claim.pending.left_out(now.second(), body);
                self.touch(index);
            }
        }
    }

    fn head(&self, second: Second, offset: Offset, absences: &Absences) -> Bytes {
        let known = self.facts.iter().find(|(other, _)| *other == second);
        let facts = known.map_or(Facts::default(), |(_, facts)| *facts);
        let end = Second(second.0 + 1).start();
        let head = ReceiptHead {
            daemon: self.daemon,
            domain: self.domain,
            bound_ns: facts.bound_ns,
            era_changed: facts.era_changed,
            ack_limited: facts.ack_limited,
            absences: absences.within(second.start(), end, offset),
        };
        head.encode().into()
    }

    /// What this flush covers, connection by connection: all that was delivered, but nothing that still waits for the
    /// registry nor what came after it.
    pub fn covers(&self) -> Vec<(usize, DeliveryId)> {
        let links = self.links.iter().enumerate();
        let open = links.filter(|(_, facts)| facts.waits_for_store && facts.delivered > facts.acknowledged);
        open.map(|(link, facts)| {
            let waiting = self.waiting.iter().filter(|waiting| waiting.link == link);
            let first = waiting.map(|waiting| DeliveryId(waiting.delivery.0 - 1)).min();
            (link, first.map_or(facts.delivered, |first| first.min(facts.delivered)))
        })
        .collect()
    }

    /// A flush was stored: answers which deliveries of which connections may be acknowledged.
    pub fn stored(&mut self, covers: &[(usize, DeliveryId)]) -> Vec<(usize, DeliveryId)> {
        let mut due = Vec::new();
        for (link, up_to) in covers {
            if let Some(facts) = self.links.get_mut(*link)
                && *up_to > facts.acknowledged
            {
                facts.acknowledged = *up_to;
                due.push((*link, *up_to));
            }
        }
        due
    }
}

fn new_part(topic: &Topic, token: Token, part: &ReceiptPart) -> NewPart {
    NewPart {
        key: topic.to_string(),
        token,
        samples: part.samples.len() as u64,
        body: part.encode().into(),
    }
}
