//! What is in flight: packet id → message.

use isochrone_model::time::{Monotonic, Reference};

use crate::Offer;

/// How far a message has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The packet id is free, or reserved for a frame that is being written.
    Vacant,
    /// PUBLISH was offered, no acknowledgement has come.
    Published,
    /// PUBREC has come, PUBREL was sent.
    Released,
}

/// A message in flight: all that is needed to build its frame again byte by byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub sequence: u64,
    pub due: Reference,
    pub sent: Reference,
    /// When PUBLISH was offered; once released, when PUBREL was.
    pub sent_monotonic: Monotonic,
    pub warmup: bool,
    pub phase: Phase,
}

impl Entry {
    /// A message offered to the socket `now`.
    pub fn published(offer: &Offer, now: Monotonic) -> Entry {
        Entry {
            sequence: offer.sequence,
            due: offer.due,
            sent: offer.sent_at(now),
            sent_monotonic: now,
            warmup: offer.warmup,
            phase: Phase::Published,
        }
    }
}

/// A slab that grows to the number of messages that were ever in flight at once, indexed by packet id − 1.
pub(super) struct Window {
    slots: Vec<Entry>,
    free: Vec<u16>,
    limit: usize,
}

const VACANT: Entry = Entry {
    sequence: 0,
    due: Reference(0),
    sent: Reference(0),
    sent_monotonic: Monotonic(0),
    warmup: false,
    phase: Phase::Vacant,
};

impl Window {
    /// At most `limit` messages, and never more than there are packet ids.
    pub fn new(limit: usize) -> Window {
        Window {
            slots: Vec::new(),
            free: Vec::new(),
            limit: limit.clamp(1, usize::from(u16::MAX)),
        }
    }

    /// How many more messages it takes.
    pub fn room(&self) -> usize {
        self.limit - self.used()
    }

    /// How many packet ids are taken.
    pub fn used(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// How many messages await PUBCOMP.
    pub fn released(&self) -> usize {
        self.slots.iter().filter(|entry| entry.phase == Phase::Released).count()
    }

    /// Takes a packet id; None when the window is full.
    pub fn reserve(&mut self) -> Option<u16> {
        if let Some(id) = self.free.pop() {
            return Some(id);
        }
        if self.slots.len() >= self.limit {
            return None;
        }
        self.slots.push(VACANT);
        Some(self.slots.len() as u16)
    }

    /// Gives back a reserved packet id.
    pub fn cancel(&mut self, id: u16) {
        self.free.push(id);
    }

    /// Fills a reserved packet id.
    pub fn insert(&mut self, id: u16, entry: Entry) {
        if let Some(slot) = self.slots.get_mut(usize::from(id).wrapping_sub(1)) {
            *slot = entry;
        }
    }

    /// The message of a packet id.
    pub fn get_mut(&mut self, id: u16) -> Option<&mut Entry> {
        self.slots
            .get_mut(usize::from(id).wrapping_sub(1))
            .filter(|entry| entry.phase != Phase::Vacant)
    }

    /// Frees a packet id and returns its message.
    pub fn remove(&mut self, id: u16) -> Option<Entry> {
        let slot = self.get_mut(id)?;
        let entry = std::mem::replace(slot, VACANT);
        self.free.push(id);
        Some(entry)
    }

    /// Packet ids as they go again: those to release, then those to publish, each in order of sequence. Where the former take
    /// up all that the broker allows, no PUBLISH may go, and they must not wait behind one.
    pub fn to_resume(&self) -> Vec<u16> {
        let mut found: Vec<(bool, u64, u16)> = (1_u16..)
            .zip(&self.slots)
            .filter(|(_, entry)| entry.phase != Phase::Vacant)
            .map(|(id, entry)| (entry.phase == Phase::Published, entry.sequence, id))
            .collect();
        found.sort_unstable();
        found.into_iter().map(|(.., id)| id).collect()
    }

    /// Sequences without acknowledgement, in order.
    pub fn unanswered(&self) -> Vec<u64> {
        let published = self.slots.iter().filter(|entry| entry.phase == Phase::Published);
        let mut sequences: Vec<u64> = published.map(|entry| entry.sequence).collect();
        sequences.sort_unstable();
        sequences
    }

    /// The broker has lost the session: forgets what was released, numbers the rest anew in order of sequence.
    pub fn renumber(&mut self) {
        self.slots.retain(|entry| entry.phase == Phase::Published);
        self.slots.sort_unstable_by_key(|entry| entry.sequence);
        self.free.clear();
    }

    /// Gives back memory when nothing is in flight.
    pub fn shrink(&mut self) {
        if self.free.len() == self.slots.len() && self.slots.capacity() > 16 {
            self.slots = Vec::new();
            self.free = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn entry(sequence: u64) -> Entry {
        Entry {
            sequence,
            phase: Phase::Published,
            ..VACANT
        }
    }

    proptest! {
        /// Whatever is taken and acknowledged in whatever order, the window knows exactly what a plain map knows.
        #[test]
        fn window_is_a_map(operations in proptest::collection::vec((0_u8..4, any::<u16>()), 1..300), limit in 1_usize..40) {
            let mut window = Window::new(limit);
            let mut plain: BTreeMap<u16, (u64, Phase)> = BTreeMap::new();
            let mut next = 0;
            for (kind, pick) in operations {
                let chosen = plain.keys().nth(usize::from(pick) % plain.len().max(1)).copied();
                match (kind, chosen) {
                    (0, Some(id)) => {
                        let removed = window.remove(id).unwrap();
                        prop_assert_eq!(Some((removed.sequence, removed.phase)), plain.remove(&id));
                    }
                    (1, Some(id)) => {
                        window.get_mut(id).unwrap().phase = Phase::Released;
                        plain.get_mut(&id).unwrap().1 = Phase::Released;
                    }
                    (2, _) if pick % 16 == 0 => {
                        window.renumber();
                        let mut kept: Vec<u64> = plain.values().filter(|v| v.1 == Phase::Published).map(|v| v.0).collect();
                        kept.sort_unstable();
                        plain = (1_u16..).zip(kept).map(|(id, sequence)| (id, (sequence, Phase::Published))).collect();
                    }
                    (2, _) => {
                        if let Some(id) = window.reserve() { window.cancel(id); }
                    }
                    _ => match window.reserve() {
                        Some(id) => {
                            window.insert(id, entry(next));
                            prop_assert!(plain.insert(id, (next, Phase::Published)).is_none());
                            next += 1;
                        }
                        None => prop_assert_eq!(plain.len(), limit),
                    },
                }
                prop_assert_eq!(window.room(), limit - plain.len());
                let mut order: Vec<_> = plain.iter().map(|(id, v)| (v.1 == Phase::Published, v.0, *id)).collect();
                order.sort_unstable();
                prop_assert_eq!(window.to_resume(), order.iter().map(|o| o.2).collect::<Vec<_>>());
            }
        }
    }
}
