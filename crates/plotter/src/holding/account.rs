//! One sink's account of one partition: its cursor as this plotter has it, and what the store knows of it.
//!
//! Both may move it: the plotter when the sink is done with a cut, the store when it drops for a slow sink what that holds
//! back (ISOCHRONE_RETAIN). All counts of a topic together are the samples up to the cursor, whatever became of them.

use std::collections::{BTreeMap, BTreeSet};

use isochrone_model::id::Topic;
use isochrone_sink::Delivery;
use isochrone_store::types::Cursor;

/// See the module.
#[derive(Debug, Default)]
pub struct Account {
    /// As this plotter has it.
    cursor: Cursor,
    /// As the store last had it.
    stored: Cursor,
    /// By cut: the samples that the sink is done with since, by topic.
    since: BTreeMap<u64, BTreeMap<Topic, u64>>,
    /// The newest cut that the sink was offered.
    offered: u64,
    /// Cuts that it had in hand when the store dropped them.
    overtaken: BTreeSet<u64>,
    /// The cut whose running totals its back end refused last.
    refused: Option<Refused>,
    /// The store has to be told, or asked.
    unsaved: bool,
}

/// Running totals that a back end refused for good.
#[derive(Debug)]
struct Refused {
    cut: u64,
    /// They were refused again by themselves: the fault is theirs, not that of others in the same request.
    alone: bool,
}

impl Account {
    /// Goes on where the store is.
    pub fn new(stored: Cursor) -> Account {
        Account {
            cursor: stored.clone(),
            stored,
            ..Account::default()
        }
    }

    /// Everything up to this cut is done with.
    pub fn passed(&self) -> u64 {
        self.cursor.cut
    }

    /// The newest cut that it was offered or is done with.
    pub fn had(&self) -> u64 {
        self.offered.max(self.cursor.cut)
    }

    /// The newest cut that it was offered here.
    pub fn offered(&self) -> u64 {
        self.offered
    }

    /// It took a cut.
    pub fn offer(&mut self, cut: u64) {
        self.offered = cut;
    }

    /// What the store is to be told: the cursor, and the cut it stood at when the store was last heard of.
    pub fn to_save(&self) -> Option<(&Cursor, u64)> {
        self.unsaved.then_some((&self.cursor, self.stored.cut))
    }

    /// Has the store asked whether it has moved the cursor.
    pub fn ask(&mut self) {
        self.unsaved = true;
    }

    /// It is done with a cut of which it needs every one.
    pub fn deliver(&mut self, cut: u64, delivery: &Delivery) {
        let overtaken = self.overtaken.remove(&cut);
        if cut <= self.cursor.cut && !overtaken {
            return;
        }
        self.cursor.cut = self.cursor.cut.max(cut);
        self.unsaved = true;
        for (topic, more) in &delivery.topics {
            let all = more.exported + more.thinned + more.set_aside;
            let counts = self.cursor.topics.entry(topic.clone()).or_default();
            counts.exported += more.exported;
            counts.thinned += more.thinned;
            counts.set_aside += more.set_aside;
            if overtaken {
                // It had them after all.
                counts.sink_dropped = counts.sink_dropped.saturating_sub(all);
            } else {
                self.since.entry(cut).or_default().insert(topic.clone(), all);
            }
        }
    }

    /// It has shown the running totals of a cut, which hold all there ever was, save what was gone before it joined.
    pub fn show<'a>(&mut self, cut: u64, received: impl Iterator<Item = (&'a Topic, u64)>) {
        if cut <= self.cursor.cut {
            return;
        }
        self.cursor.cut = cut;
        self.overtaken.clear();
        for (topic, received) in received.filter(|(_, received)| *received > 0) {
            let counts = self.cursor.topics.entry(topic.clone()).or_default();
            let others = counts.thinned + counts.set_aside + counts.sink_dropped;
            counts.exported = received.saturating_sub(others);
        }
        self.unsaved = true;
    }

    /// Its back end refuses the running totals of a cut for good.
    pub fn refuse(&mut self, cut: u64) {
        let again = self.refused.as_ref().is_some_and(|refused| refused.cut == cut);
        self.refused = Some(Refused { cut, alone: again });
    }

    /// Whether the running totals of a cut were refused, and are not offered again.
    pub fn is_refused(&self, cut: u64) -> bool {
        self.refused
            .as_ref()
            .is_some_and(|refused| refused.cut == cut && self.offered == cut && self.cursor.cut < cut)
    }

    /// The running totals of a cut, the last there are, are refused: once more they are to be offered, then what they hold that
    /// no earlier ones held is set aside. Answers how many samples that is.
    pub fn heed_refusal<'a>(&mut self, cut: u64, received: impl Iterator<Item = (&'a Topic, u64)>) -> u64 {
        if !self.is_refused(cut) {
            return 0;
        }
        if !self.refused.as_ref().is_some_and(|refused| refused.alone) {
            self.offered = 0;
            return 0;
        }
        let mut set_aside = 0;
        for (topic, received) in received {
            let counts = self.cursor.topics.entry(topic.clone()).or_default();
            let more = received.saturating_sub(counts.sum());
            counts.set_aside += more;
            set_aside += more;
        }
        self.cursor.cut = cut;
        self.overtaken.clear();
        self.unsaved = true;
        set_aside
    }

    /// The store has the cursor.
    pub fn saved(&mut self) {
        self.stored = self.cursor.clone();
        self.since.clear();
        self.unsaved = false;
    }

    /// The store has moved the cursor to `theirs` meanwhile: what it dropped is taken over, less what the sink had all the
    /// same. Answers how many samples that is; to be saved again.
    pub fn catch_up(&mut self, theirs: Cursor) -> u64 {
        let mut had: BTreeMap<&Topic, u64> = BTreeMap::new();
        for (topic, samples) in self.since.range(..=theirs.cut).flat_map(|(_, topics)| topics) {
            *had.entry(topic).or_default() += samples;
        }
        let mut dropped = 0;
        for (topic, counts) in &theirs.topics {
            let known = self.stored.topics.get(topic).map_or(0, |known| known.sum());
            let gone = counts.sum().saturating_sub(known);
            let gone = gone.saturating_sub(had.get(topic).copied().unwrap_or(0));
            self.cursor.topics.entry(topic.clone()).or_default().sink_dropped += gone;
            dropped += gone;
        }
        self.overtaken
            .extend(self.cursor.cut + 1..=theirs.cut.min(self.offered));
        self.cursor.cut = self.cursor.cut.max(theirs.cut);
        // What it had of the dropped cuts is in both; of later ones the store still knows nothing.
        self.since = self.since.split_off(&(theirs.cut + 1));
        self.stored = theirs;
        self.unsaved = true;
        dropped
    }
}

#[cfg(test)]
mod tests;
