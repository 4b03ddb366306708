//! Reading a partition.

use std::collections::BTreeMap;

use isochrone_model::id::Topic;

use super::Partition;
use crate::types::{Cut, DeviceState, Entry, EntryKind, PartitionSnapshot, TopicState, TopicStatus};

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
        for entry in self.stream.all() {
            count_pending(&mut pending, cut, entry);
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
        }
    }
}

/// Adds an entry's samples by topic, unless a cut holds it.
fn count_pending(pending: &mut BTreeMap<Topic, u64>, newest: Option<Cut>, entry: &Entry) {
    let cut = newest.is_some_and(|cut| entry.id <= cut.last && entry.entry.second <= cut.second);
    if cut || entry.entry.kind != EntryKind::Receipt {
        return;
    }
    for part in &entry.entry.parts {
        *pending.entry(Topic::from(part.key.as_str())).or_default() += part.samples;
    }
}
