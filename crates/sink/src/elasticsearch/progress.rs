//! How much of each cut is written, so that an attempt goes on where the last one stopped.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use isochrone_model::id::{Partition, RunName, Topic};

use crate::{Cut, Hold};

/// Samples set aside, by response topic.
pub type SetAside = BTreeMap<Topic, u64>;

/// Of the cuts in hand; at most a batch of them.
#[derive(Debug, Default)]
pub struct Progress(HashMap<(RunName, Partition, u64), Written>);

#[derive(Debug)]
struct Written {
    /// Under which taking of the partition: after another, the same number may be another cut.
    hold: Hold,
    /// The documents before this index are settled.
    to: usize,
    complete: bool,
    set_aside: SetAside,
}

impl Progress {
    /// The index of the first document that is not settled.
    pub fn written(&self, cut: &Cut) -> usize {
        let written = self.0.get(&key(cut)).filter(|written| written.hold.is(&cut.hold));
        written.map_or(0, |written| written.to)
    }

    /// The documents before index `to` are settled.
    pub fn advance(&mut self, cut: &Cut, to: usize) {
        let written = self.entry(cut);
        written.to = written.to.max(to);
    }

    /// One more sample was refused for good.
    pub fn set_aside(&mut self, cut: &Cut, topic: &Topic) {
        *self.entry(cut).set_aside.entry(topic.clone()).or_default() += 1;
    }

    /// All documents of the cut are settled.
    pub fn complete(&mut self, cut: &Cut) {
        self.entry(cut).complete = true;
    }

    /// What was set aside of a cut that is complete, which is forgotten with it; `None` while it is not.
    pub fn take_complete(&mut self, cut: &Arc<Cut>) -> Option<SetAside> {
        let key = key(cut);
        let complete = |written: &Written| written.complete && written.hold.is(&cut.hold);
        if !self.0.get(&key).is_some_and(complete) {
            return None;
        }
        self.0.remove(&key).map(|written| written.set_aside)
    }

    /// A partition is no longer ours.
    pub fn forget(&mut self, run: &RunName, partition: Partition) {
        self.0.retain(|key, _| key.0 != *run || key.1 != partition);
    }

    fn entry(&mut self, cut: &Cut) -> &mut Written {
        let new = || Written {
            hold: cut.hold.clone(),
            to: 0,
            complete: false,
            set_aside: SetAside::new(),
        };
        let written = self.0.entry(key(cut)).or_insert_with(new);
        if !written.hold.is(&cut.hold) {
            *written = new();
        }
        written
    }
}

fn key(cut: &Cut) -> (RunName, Partition, u64) {
    (cut.run.clone(), cut.partition, cut.number)
}
