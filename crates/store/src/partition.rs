//! One partition of a run as a pure state machine: what happens in it, atomically, at a given time of the store's clock.
//!
//! The memory store wraps it, the model check drives it, and the Lua scripts of the Redis store do the same step by step.

mod claims;
mod samples;
mod snapshot;

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{Hash, Hasher},
};

use bytes::Bytes;
use isochrone_model::{
    id::{DaemonId, Epoch, Token, Topic},
    time::Reference,
};

use crate::types::{Cursor, Cut, DeviceState, Entry, EntryId, EntryKind, FlushAnswer, Holder, Left, Pins, TopicStatus};

/// Bytes of entries a whole run may hold until a plotter says otherwise.
pub(crate) const RETAIN: u64 = 512 << 20;

/// Everything known of one partition.
#[derive(Clone, Debug, PartialEq)]
pub struct Partition {
    /// Who holds one topic is the only one who may claim the others.
    whole: bool,
    /// The newest token or counter given out.
    newest: u64,
    /// Who holds anything here, with its lease counter.
    leases: BTreeMap<DaemonId, u64>,
    topics: BTreeMap<Topic, TopicRow>,
    /// The topics whose status is Free.
    free: BTreeSet<Topic>,
    devices: BTreeMap<Epoch, DeviceState>,
    /// The last flush of each daemon and side.
    batches: BTreeMap<(DaemonId, EntryKind), (u64, FlushAnswer)>,
    stream: Stream,
    /// Messages sent in producers' entries that there was no room for.
    shed: BTreeMap<Epoch, u64>,
    plotter: Plotter,
    /// Those not passed by all cursors, and always the newest.
    cuts: Vec<Cut>,
    cumulative: BTreeMap<String, Bytes>,
    cursors: BTreeMap<String, Cursor>,
}

/// Who aggregates the partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Plotter {
    /// Nobody yet, or nobody any more.
    Awaited,
    /// This one, under this token.
    Holds(DaemonId, Token),
    /// It was given up for good.
    Finished,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct TopicRow {
    status: TopicStatus,
    holder: Option<(DaemonId, Token)>,
    /// The holder got it ready or flushed to it: from then on it is its to leave.
    used: bool,
    left: Left,
    left_at: Reference,
    ready_at: Reference,
    stored: u64,
    dropped: u64,
    state: Option<Bytes>,
    epochs: Vec<Epoch>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Stream {
    entries: BTreeMap<EntryId, Entry>,
    last: EntryId,
    /// Of all heads and bodies.
    bytes: u64,
    limit: u64,
}

impl Partition {
    /// A partition of a run with these pins where nothing happened yet.
    pub fn new(pins: &Pins) -> Partition {
        Partition {
            whole: pins.whole_partitions(),
            newest: 0,
            leases: BTreeMap::new(),
            topics: BTreeMap::new(),
            free: BTreeSet::new(),
            devices: BTreeMap::new(),
            batches: BTreeMap::new(),
            stream: Stream {
                limit: RETAIN / u64::from(pins.partitions.max(1)),
                ..Stream::default()
            },
            shed: BTreeMap::new(),
            plotter: Plotter::Awaited,
            cuts: Vec::new(),
            cumulative: BTreeMap::new(),
            cursors: BTreeMap::new(),
        }
    }

    /// How many topics are free.
    pub fn free(&self) -> u64 {
        self.free.len() as u64
    }

    /// All lease rows.
    pub fn leases(&self) -> impl Iterator<Item = (DaemonId, u64)> + '_ {
        self.leases.iter().map(|(daemon, counter)| (*daemon, *counter))
    }

    /// Who holds a topic.
    pub fn holder(&self, topic: &Topic) -> Option<(DaemonId, Token)> {
        self.topics.get(topic).and_then(|row| row.holder)
    }

    /// Who aggregates the partition.
    pub fn plotter(&self) -> Option<Holder> {
        match self.plotter {
            Plotter::Awaited => None,
            Plotter::Holds(daemon, _) => Some(Holder::Plotter(daemon)),
            Plotter::Finished => Some(Holder::Finished),
        }
    }

    fn next(&mut self, now: Reference) -> u64 {
        self.newest = following(self.newest, now);
        self.newest
    }
}

/// Of what decides who holds what, which is all that the model check looks at.
impl Hash for Partition {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.newest, &self.leases, self.plotter).hash(state);
        for (topic, row) in &self.topics {
            (topic, row.status, row.holder).hash(state);
        }
    }
}

/// The token or counter after `previous`: at least the time in microseconds, so that what a rollback forgot is not
/// given out again.
pub(crate) fn following(previous: u64, now: Reference) -> u64 {
    (previous + 1).max((now.0 / 1000).max(0) as u64)
}
