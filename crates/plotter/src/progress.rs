//! Which cut every entry belongs to. Pure: the cut rules of DESIGN.md, "Cuts and windows".
//!
//! An entry belongs to the first cut with id ≤ its last id and second ≤ its second. Cuts are appended with both bounds never
//! falling, so an entry that no stored cut holds belongs to a later one, and whoever reads the stream again finds the same.

use std::collections::VecDeque;

use isochrone_model::time::Second;
use isochrone_store::types::{Cut, Entry, EntryId};

/// What is known of one partition's stream and its cuts.
#[derive(Debug, Default)]
pub struct Progress {
    /// The newest cut of all, passed or not.
    newest: Option<Cut>,
    /// Cuts that some cursor has not passed, oldest first.
    parts: VecDeque<Part>,
    /// Bytes of their entries that are kept, and how many may be.
    kept_bytes: usize,
    room: usize,
    /// Read, and in no cut yet; in stream order.
    waiting: Vec<Entry>,
    waiting_bytes: usize,
    /// The last entry read.
    read_to: EntryId,
}

/// A cut and its entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The cut.
    pub cut: Cut,
    /// Which entries it has, in stream order.
    pub ids: Vec<EntryId>,
    /// The entries themselves, where there was room for all of them; else the stream has them.
    pub entries: Option<Vec<Entry>>,
}

/// What is cut from `waiting`, before it is stored.
#[derive(Debug)]
pub struct Proposal {
    /// The cut to store.
    pub cut: Cut,
    /// Its entries.
    pub entries: Vec<Entry>,
}

/// The place of the first cut, in order, that holds an entry.
pub fn cut_of<'a>(cuts: impl IntoIterator<Item = &'a Cut>, id: EntryId, second: Second) -> Option<usize> {
    cuts.into_iter().position(|cut| id <= cut.last && second <= cut.second)
}

impl Progress {
    /// Starts from the cuts a claim was given with; the stream is read from its beginning. Of entries that are cut it keeps
    /// `room` bytes at the most.
    pub fn resume(cuts: &[Cut], room: usize) -> Progress {
        Progress {
            newest: cuts.last().copied(),
            parts: cuts
                .iter()
                .map(|cut| Part {
                    cut: *cut,
                    ids: Vec::new(),
                    entries: Some(Vec::new()),
                })
                .collect(),
            room,
            ..Progress::default()
        }
    }

    /// The number of the newest cut; zero before the first.
    pub fn newest(&self) -> u64 {
        self.newest.map_or(0, |cut| cut.number)
    }

    /// The newest cut's second.
    pub fn newest_second(&self) -> Option<Second> {
        self.newest.map(|cut| cut.second)
    }

    /// Where to read on.
    pub fn read_to(&self) -> EntryId {
        self.read_to
    }

    /// Bytes of what waits for a cut.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Bytes of cut entries that are kept.
    #[cfg(test)]
    pub fn kept_bytes(&self) -> usize {
        self.kept_bytes
    }

    /// The newest second that waits for a cut.
    pub fn waiting_to(&self) -> Option<Second> {
        self.waiting.iter().map(|entry| entry.entry.second).max()
    }

    /// Takes what was read after [`Progress::read_to`], in stream order.
    pub fn take_in(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            self.read_to = self.read_to.max(entry.id);
            match cut_of(self.parts.iter().map(|part| &part.cut), entry.id, entry.entry.second) {
                Some(place) => self.keep(place, entry),
                None => {
                    self.waiting_bytes += bytes(&entry);
                    self.waiting.push(entry);
                }
            }
        }
    }

    fn keep(&mut self, place: usize, entry: Entry) {
        let part = &mut self.parts[place];
        part.ids.push(entry.id);
        let Some(entries) = &mut part.entries else { return };
        let size = bytes(&entry);
        if self.kept_bytes + size <= self.room {
            self.kept_bytes += size;
            entries.push(entry);
        } else {
            self.kept_bytes -= entries.iter().map(bytes).sum::<usize>();
            part.entries = None;
        }
    }

    /// The stream held nothing more: what comes has a later id than anything a cut was made of.
    pub fn reached_end(&mut self) {
        if let Some(newest) = self.newest {
            self.read_to = self.read_to.max(newest.last);
        }
    }

    /// Whether all of the cuts that there are has been read.
    pub fn is_caught_up(&self) -> bool {
        self.newest.is_none_or(|newest| self.read_to >= newest.last)
    }

    /// The next cut: what waits of seconds up to `second`. `None` when that is nothing, and while what the newest cut
    /// left over has not been read again: it belongs to the next one.
    pub fn propose(&mut self, second: Second) -> Option<Proposal> {
        // Bounds never fall, also when the reference clock did.
        let second = self.newest.map_or(second, |newest| second.max(newest.second));
        if !self.is_caught_up() || !self.waiting.iter().any(|entry| entry.entry.second <= second) {
            return None;
        }
        let (entries, waiting) = self.waiting.drain(..).partition(|entry| entry.entry.second <= second);
        self.waiting = waiting;
        self.waiting_bytes = self.waiting.iter().map(bytes).sum();
        Some(Proposal {
            cut: Cut {
                number: self.newest() + 1,
                last: self.read_to,
                second,
            },
            entries,
        })
    }

    /// The proposal was stored.
    pub fn stored(&mut self, proposal: Proposal) {
        self.newest = Some(proposal.cut);
        self.parts.push_back(Part {
            cut: proposal.cut,
            ids: Vec::with_capacity(proposal.entries.len()),
            entries: Some(Vec::new()),
        });
        let newest = self.parts.len() - 1;
        for entry in proposal.entries {
            self.keep(newest, entry);
        }
    }

    /// The first cut after number `cut`.
    pub fn after(&self, cut: u64) -> Option<&Part> {
        let place = self.parts.partition_point(|part| part.cut.number <= cut);
        self.parts.get(place)
    }

    /// Entries of cuts up to number `cut`, which every cursor has passed.
    pub fn passed(&self, cut: u64) -> Vec<EntryId> {
        let passed = self.parts.iter().take_while(|part| part.cut.number <= cut);
        passed.flat_map(|part| part.ids.iter().copied()).collect()
    }

    /// Forgets cuts up to number `cut`: their entries are deleted.
    pub fn forget(&mut self, cut: u64) {
        while let Some(part) = self.parts.pop_front_if(|part| part.cut.number <= cut) {
            self.kept_bytes -= part.entries.iter().flatten().map(bytes).sum::<usize>();
        }
    }
}

fn bytes(entry: &Entry) -> usize {
    let parts = entry
        .entry
        .parts
        .iter()
        .map(|part| part.key.len() + part.body.len() + 64);
    entry.entry.head.len() + 128 + parts.sum::<usize>()
}

#[cfg(test)]
mod tests;
