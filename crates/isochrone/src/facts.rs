//! Reads everything a report needs out of the store.

use std::collections::BTreeMap;

use isochrone_model::{
    id::Partition,
    report::{RunFacts, TopicFacts},
    slo::Objective,
    time::Reference,
    tracker::Book,
    window::Totals,
};
use isochrone_store::{
    Error, Store,
    types::{PartitionSnapshot, RunRecord},
};

use crate::events::events;

/// What a report is asked for beside the run.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Objectives to evaluate.
    pub objectives: Vec<Objective>,
    /// A row for each topic.
    pub per_topic: bool,
}

/// Reads all partitions of a run, each atomically.
pub async fn gather(store: &dyn Store, run: &RunRecord, wanted: &Wanted) -> Result<RunFacts, Error> {
    let mut facts = RunFacts::new(run.run.clone(), run.state.as_str());
    facts.restored = run.restored;
    facts.per_topic = wanted.per_topic;
    facts.objectives.clone_from(&wanted.objectives);
    for partition in 0..run.pins.partitions {
        let snapshot = store.snapshot(&run.run, Partition(partition)).await?;
        add_partition(&mut facts, Partition(partition), snapshot)?;
    }
    let roster = store.roster(&run.run).await?;
    let (notes, omitted) = store.notes(&run.run).await?;
    facts.events = events(run, &roster, &notes, omitted, &facts);
    Ok(facts)
}

fn add_partition(facts: &mut RunFacts, partition: Partition, snapshot: PartitionSnapshot) -> Result<(), Error> {
    let corrupt = |what: &str, cause: String| Error::Corrupt {
        key: format!("partition {partition}: {what}"),
        cause,
    };
    add_sinks(facts, &snapshot);
    // Topics have histograms of their own: much to read where nobody asks for them.
    let wanted = |name: &str| facts.per_topic || !Totals::is_of_topic(name);
    let fields = snapshot.cumulative.into_iter().filter(|(name, _)| wanted(name));
    let fields = fields.map(|(name, value)| (name, value.to_vec())).collect();
    let mut totals = Totals::load(fields).map_err(|error| corrupt("cumulative", error.to_string()))?;
    for state in &snapshot.devices {
        totals.know_device(&state.device);
    }
    facts.totals.merge(&totals);

    let mut rows = BTreeMap::new();
    for (topic, saved) in &snapshot.states {
        let book = Book::load(saved).map_err(|error| corrupt(topic.as_str(), error.to_string()))?;
        rows.insert(topic.clone(), book.row().clone());
    }
    facts.topics.extend(snapshot.topics.into_iter().map(|topic| TopicFacts {
        row: rows.remove(&topic.topic),
        topic: topic.topic,
        stored: topic.stored,
        dropped: topic.dropped,
    }));
    facts
        .devices
        .extend(snapshot.devices.into_iter().map(|state| (state.device, state.row)));
    Ok(())
}

/// What each sink has, and what it has still to come to: samples in entries that no cut holds yet, and in entries of cuts
/// that its cursor has not passed.
fn add_sinks(facts: &mut RunFacts, snapshot: &PartitionSnapshot) {
    for (sink, cursor) in &snapshot.cursors {
        let rows = facts.sinks.entry(sink.clone()).or_default();
        for (topic, counts) in &cursor.topics {
            let row = rows.entry(topic.clone()).or_default();
            row.exported += counts.exported;
            row.thinned += counts.thinned;
            row.set_aside += counts.set_aside;
            row.sink_dropped += counts.sink_dropped;
        }
        let behind = snapshot.behind.iter().filter(|(name, _)| name == sink);
        let waiting = behind.flat_map(|(_, samples)| samples).chain(&snapshot.pending);
        for (topic, samples) in waiting {
            rows.entry(topic.clone()).or_default().pending += samples;
        }
    }
}

/// A point in time as RFC 3339, to the millisecond.
pub fn utc(at: Reference) -> String {
    let timestamp = jiff::Timestamp::from_nanosecond(i128::from(at.0)).unwrap_or_default();
    format!("{timestamp:.3}")
}

#[cfg(test)]
mod tests {
    use isochrone_model::id::Topic;
    use isochrone_store::types::{Cursor, SinkCounts};

    use super::*;

    /// What a sink has still to come to is what lies in the stream for it, never what is missing from a sum.
    #[test]
    fn pending_is_counted() {
        let topic = Topic::from("t");
        let counts = SinkCounts {
            exported: 10,
            ..SinkCounts::default()
        };
        let passed = Cursor {
            cut: 3,
            topics: BTreeMap::from([(topic.clone(), counts)]),
        };
        let snapshot = PartitionSnapshot {
            cursors: vec![("fast".to_owned(), passed), ("slow".to_owned(), Cursor::default())],
            pending: vec![(topic.clone(), 4)],
            behind: vec![("slow".to_owned(), vec![(topic.clone(), 9)])],
            ..PartitionSnapshot::default()
        };
        let mut facts = RunFacts::new("r".parse().unwrap(), "closed");
        add_sinks(&mut facts, &snapshot);
        let row = |sink: &str| (facts.sinks[sink][&topic].exported, facts.sinks[sink][&topic].pending);
        assert_eq!((row("fast"), row("slow")), ((10, 4), (0, 13)));
    }
}
