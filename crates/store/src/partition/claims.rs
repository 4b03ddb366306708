//! Devices, response topics, claims and leases.

use isochrone_model::{
    id::{DaemonId, Epoch, Token, Topic},
    row::SendRow,
    time::Reference,
};

use super::{Partition, Plotter, TopicRow, following};
use crate::types::{ClaimEnd, Claimed, DeviceState, GivenBack, Holder, Left, TopicStatus};

impl Partition {
    /// Registers devices and gives their producer a lease row.
    pub fn register(&mut self, daemon: DaemonId, devices: &[DeviceState], now: Reference) {
        self.enter(daemon, now);
        for device in devices {
            let (epoch, topic) = (device.device.epoch, &device.device.response_topic);
            if self.devices.contains_key(&epoch) {
                continue;
            }
            self.devices.insert(epoch, device.clone());
            let row = self.topics.entry(topic.clone()).or_insert_with(|| TopicRow::free(now));
            row.epochs.push(epoch);
            if row.status == TopicStatus::Closed {
                row.status = TopicStatus::Free;
            }
            if row.status == TopicStatus::Free {
                self.free.insert(topic.clone());
            }
        }
    }

    /// Claims up to `room` topics; with no room, names what the daemon has claimed and not got ready. None where another
    /// holds the whole.
    pub fn claim(&mut self, daemon: DaemonId, room: usize, now: Reference) -> Vec<Claimed> {
        let is_anothers = |row: &TopicRow| row.holder.is_some_and(|(holder, _)| holder != daemon);
        if self.whole && self.topics.values().any(is_anothers) {
            return Vec::new();
        }
        let mut taken: Vec<Topic> = Vec::new();
        if room == 0 {
            let unready = |row: &TopicRow| row.status == TopicStatus::Claimed && row.is_held_by(daemon);
            let again = self.topics.iter().filter(|(_, row)| unready(row));
            taken.extend(again.map(|(topic, _)| topic.clone()));
        }
        while taken.len() < room {
            let Some(topic) = self.free.pop_first() else { break };
            let token = Token(self.next(now));
            if let Some(row) = self.topics.get_mut(&topic) {
                row.status = TopicStatus::Claimed;
                row.holder = Some((daemon, token));
                row.used = false;
            }
            taken.push(topic);
        }
        if !taken.is_empty() {
            self.enter(daemon, now);
        }
        taken.into_iter().filter_map(|topic| self.claimed(topic)).collect()
    }

    fn claimed(&self, topic: Topic) -> Option<Claimed> {
        let row = self.topics.get(&topic)?;
        let (_, token) = row.holder?;
        let devices = row
            .epochs
            .iter()
            .filter_map(|epoch| self.devices.get(epoch))
            .cloned()
            .collect();
        Some(Claimed {
            topic,
            token,
            devices,
            left: row.left,
            left_at: row.left_at,
            state: row.state.clone(),
            stored: row.stored,
            dropped: row.dropped,
        })
    }

    /// Marks claims as subscribed; answers those that do not hold.
    pub fn ready(&mut self, daemon: DaemonId, topics: &[(Topic, Token)], now: Reference) -> Vec<Topic> {
        let mut lost = Vec::new();
        for (topic, token) in topics {
            match self.held(daemon, topic, *token) {
                Some(row) if row.status == TopicStatus::Ready => {}
                Some(row) => {
                    row.status = TopicStatus::Ready;
                    row.ready_at = now;
                    row.used = true;
                }
                None => lost.push(topic.clone()),
            }
        }
        lost
    }

    /// Gives claims up: settled ones for good if nobody has joined them meanwhile, the others for the next holder.
    pub fn give_back(&mut self, daemon: DaemonId, topics: &[GivenBack], left: Left, now: Reference) {
        for GivenBack { topic, token, end } in topics {
            let Some(row) = self.held(daemon, topic, *token) else {
                continue;
            };
            row.leave(left, now);
            if *end == ClaimEnd::Settled(row.epochs.len()) {
                row.status = TopicStatus::Closed;
            } else {
                self.free.insert(topic.clone());
            }
        }
    }

    /// Renews the daemon's lease row and names the claims it holds; `None` without a row.
    pub fn renew(&mut self, daemon: DaemonId, now: Reference) -> Option<Vec<(Topic, Token)>> {
        let counter = self.leases.get_mut(&daemon)?;
        *counter = following(*counter, now);
        let held = self.topics.iter().filter_map(|(topic, row)| match row.holder {
            Some((holder, token)) if holder == daemon => Some((topic.clone(), token)),
            _ => None,
        });
        Some(held.collect())
    }

    /// Takes over from a daemon whose counter still is `counter`; false when it moved or the row is gone.
    pub fn evict(&mut self, dead: DaemonId, counter: u64, now: Reference) -> bool {
        if self.leases.get(&dead) != Some(&counter) {
            return false;
        }
        self.leases.remove(&dead);
        for (topic, row) in &mut self.topics {
            if row.is_held_by(dead) {
                // Even one that was not ready yet may have received: what its subscription got is not recorded.
                row.used = true;
                row.leave(Left::Died, now);
                self.free.insert(topic.clone());
            }
        }
        for state in self.devices.values_mut() {
            if state.device.producer == dead && !state.row.ended {
                state.row.vanished = true;
            }
        }
        if self.plotter() == Some(Holder::Plotter(dead)) {
            self.plotter = Plotter::Awaited;
        }
        true
    }

    /// Deletes the daemon's lease row if it holds nothing here.
    pub fn release(&mut self, daemon: DaemonId) {
        let claims = self.topics.values().any(|row| row.is_held_by(daemon));
        let speaks = |state: &DeviceState| state.device.producer == daemon && !state.row.ended && !state.row.vanished;
        if !claims && self.plotter() != Some(Holder::Plotter(daemon)) && !self.devices.values().any(speaks) {
            self.leases.remove(&daemon);
        }
    }

    /// Closes a topic nobody holds, with its final state; false when it is held.
    pub fn settle(&mut self, topic: &Topic, state: &[u8], now: Reference) -> bool {
        let Some(row) = self.topics.get_mut(topic) else {
            return false;
        };
        match row.status {
            TopicStatus::Claimed | TopicStatus::Ready => false,
            TopicStatus::Closed => true,
            TopicStatus::Free => {
                row.status = TopicStatus::Closed;
                row.state = Some(bytes::Bytes::copy_from_slice(state));
                row.left_at = now;
                self.free.remove(topic);
                true
            }
        }
    }

    /// Stores the rebuilt row of a device that has no last word.
    pub fn bury(&mut self, epoch: Epoch, rebuilt: &SendRow) {
        if let Some(state) = self.devices.get_mut(&epoch).filter(|state| !state.row.ended) {
            state.row = rebuilt.clone();
        }
    }

    /// Makes or renews the daemon's lease row, with whatever it takes: its lease is timed from before that call. Counters
    /// come from the clock, not from 1: a row that was released and made again is another one to an observer.
    pub(super) fn enter(&mut self, daemon: DaemonId, now: Reference) {
        let counter = self.next(now);
        self.leases.insert(daemon, counter);
    }

    pub(super) fn held(&mut self, daemon: DaemonId, topic: &Topic, token: Token) -> Option<&mut TopicRow> {
        self.topics
            .get_mut(topic)
            .filter(|row| row.holder == Some((daemon, token)))
    }
}

impl TopicRow {
    fn free(now: Reference) -> TopicRow {
        TopicRow {
            status: TopicStatus::Free,
            holder: None,
            used: false,
            left: Left::Never,
            left_at: now,
            ready_at: now,
            stored: 0,
            dropped: 0,
            state: None,
            epochs: Vec::new(),
        }
    }

    fn is_held_by(&self, daemon: DaemonId) -> bool {
        self.holder.is_some_and(|(holder, _)| holder == daemon)
    }

    fn leave(&mut self, left: Left, now: Reference) {
        self.status = TopicStatus::Free;
        self.holder = None;
        if self.used {
            self.left = left;
            self.left_at = now;
        }
    }
}
