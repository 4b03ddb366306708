//! Reading a partition.

use std::collections::BTreeMap;

use isochrone_model::id::{Epoch, Topic};

use super::Partition;
use crate::types::{Cut, DeviceState, Entry, EntryKind, NewEntry, PartitionSnapshot, TopicState, TopicStatus};

impl Partition {
    /// All devices with their rows.
    pub fn devices(&self) -> Vec<DeviceState> {
        self.devices.values().cloned().collect()
    }

    /// All response topics.
    pub fn topics(&self) -> Vec<TopicState> {
        let states = self.topics.iter().map(|(topic, row)| TopicState {
            topic: topic.clone(),
            status: row.status,
            holder: row.holder,
            left: row.left,
            since: if row.status == TopicStatus::Ready {
                row.ready_at
            } else {
                row.left_at
            },
            stored: row.stored,
            dropped: row.dropped,
        });
        states.collect()
    }

    /// Everything a report needs.
    pub fn snapshot(&self) -> PartitionSnapshot {
        let cut = self.newest_cut();
        let mut pending = BTreeMap::new();
        let mut unplotted = BTreeMap::new();
        let mut behind: BTreeMap<&String, BTreeMap<Topic, u64>> = BTreeMap::new();
        for entry in self.stream.all() {
            if !holds(cut, entry) {
                count(&mut pending, entry);
                count_sends(&mut unplotted, &entry.entry);
                continue;
            }
            for (sink, cursor) in &self.cursors {
                let passed = self.cuts.iter().find(|cut| cut.number == cursor.cut).copied();
                if !holds(passed, entry) {
                    count(behind.entry(sink).or_default(), entry);
                }
            }
        }
        PartitionSnapshot {
            devices: self.devices(),
            topics: self.topics(),
            states: self
                .topics
                .iter()
                .filter_map(|(topic, row)| Some((topic.clone(), row.state.clone()?)))
                .collect(),
            cumulative: self
                .cumulative
                .iter()
                .map(|(field, value)| (field.clone(), value.clone()))
                .collect(),
            cut,
            cursors: self
                .cursors
                .iter()
                .map(|(sink, cursor)| (sink.clone(), cursor.clone()))
                .collect(),
            pending: pending.into_iter().collect(),
            behind: behind
                .into_iter()
                .map(|(sink, topics)| (sink.clone(), topics.into_iter().collect()))
                .collect(),
            unplotted: unplotted.into_iter().collect(),
            shed: self.shed.iter().map(|(epoch, messages)| (*epoch, *messages)).collect(),
        }
    }
}

/// Whether this cut or one before it holds the entry.
fn holds(cut: Option<Cut>, entry: &Entry) -> bool {
    cut.is_some_and(|cut| entry.id <= cut.last && entry.entry.second <= cut.second)
}

/// Adds an entry's samples by topic.
fn count(samples: &mut BTreeMap<Topic, u64>, entry: &Entry) {
    if entry.entry.kind != EntryKind::Receipt {
        return;
    }
    for part in &entry.entry.parts {
        *samples.entry(Topic::from(part.key.as_str())).or_default() += part.samples;
    }
}

/// Adds what a producer's entry says was sent, by epoch.
pub(super) fn count_sends(messages: &mut BTreeMap<Epoch, u64>, entry: &NewEntry) {
    if entry.kind != EntryKind::Send {
        return;
    }
    for part in &entry.parts {
        // A key that is no epoch is not of a producer's making: the registry knows no device for it.
        if let Ok(epoch) = part.key.parse::<Epoch>() {
            *messages.entry(epoch).or_default() += part.samples;
        }
    }
}
