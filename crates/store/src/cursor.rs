//! What a sink's cursor starts from.

use std::collections::BTreeMap;

use crate::types::{Cursor, SinkCounts};

impl Cursor {
    /// The cursor of a sink that joins others: it starts where the slowest of them stands, since what lies before may be
    /// deleted, and counts that as dropped.
    pub(crate) fn joining(others: &BTreeMap<String, Cursor>) -> Cursor {
        let Some(slowest) = others.values().min_by_key(|cursor| cursor.cut) else {
            return Cursor::default();
        };
        let missed = slowest.topics.iter().map(|(topic, counts)| {
            (
                topic.clone(),
                SinkCounts {
                    sink_dropped: counts.sum(),
                    ..SinkCounts::default()
                },
            )
        });
        Cursor {
            cut: slowest.cut,
            topics: missed.collect(),
        }
    }
}
