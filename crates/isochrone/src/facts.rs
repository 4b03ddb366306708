//! Reads everything a report needs out of the store.

use std::collections::BTreeMap;

use isochrone_model::{
    id::{Epoch, Partition, Topic},
    ledger::Written,
    report::{RunFacts, TopicFacts},
    row::ReceiptRow,
    slo::Objective,
    time::Reference,
    tracker::Book,
    window::{BadTotals, Totals},
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

/// Reads all partitions of a run, each atomically. One that cannot be read is named in the result, which is then without it.
pub async fn gather(store: &dyn Store, run: &RunRecord, wanted: &Wanted) -> Result<RunFacts, Error> {
    let mut facts = RunFacts::new(run.run.clone(), run.state.as_str());
    facts.restored = run.restored;
    facts.per_topic = wanted.per_topic;
    facts.objectives.clone_from(&wanted.objectives);
    for partition in (0..run.pins.partitions).map(Partition) {
        let read = store.snapshot(&run.run, partition).await;
        match read.and_then(|snapshot| Part::read(partition, snapshot, wanted.per_topic)) {
            Ok(part) => part.add_to(&mut facts),
            Err(error @ (Error::Corrupt { .. } | Error::Refused { .. })) => {
                facts
                    .unreadable
                    .push(format!("partition {partition}: failed to {error}"));
                // With none at all there is nothing to report on.
                if facts.unreadable.len() == usize::from(run.pins.partitions) {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
    }
    let roster = store.roster(&run.run).await?;
    let (notes, omitted) = store.notes(&run.run).await?;
    facts.events = events(run, &roster, &notes, omitted, &facts);
    Ok(facts)
}

/// One partition, read as a whole or not at all.
struct Part {
    snapshot: PartitionSnapshot,
    totals: Totals,
    rows: BTreeMap<Topic, ReceiptRow>,
    written: BTreeMap<Topic, Written>,
}

impl Part {
    fn read(partition: Partition, mut snapshot: PartitionSnapshot, per_topic: bool) -> Result<Part, Error> {
        let corrupt = |what: &str, cause: String| Error::Corrupt {
            key: format!("{what} of partition {partition}"),
            cause,
        };
        let written = written_by_topic(&snapshot).map_err(|error| corrupt("cumulative", error.to_string()))?;
        // Topics have histograms of their own: much to read where nobody asks for them.
        let wanted = |name: &str| per_topic || !Totals::is_of_topic(name);
        let fields = std::mem::take(&mut snapshot.cumulative).into_iter();
        let fields = fields
            .filter(|(name, _)| wanted(name))
            .map(|(name, value)| (name, value.to_vec()));
        let mut totals = Totals::load(fields.collect()).map_err(|error| corrupt("cumulative", error.to_string()))?;
        for state in &snapshot.devices {
            totals.know_device(&state.device);
        }
        let mut rows = BTreeMap::new();
        for (topic, saved) in &snapshot.states {
            let book = Book::load(saved).map_err(|error| corrupt(topic.as_str(), error.to_string()))?;
            rows.insert(topic.clone(), book.row().clone());
        }
        Ok(Part {
            snapshot,
            totals,
            rows,
            written,
        })
    }

    fn add_to(mut self, facts: &mut RunFacts) {
        add_sinks(facts, &self.snapshot);
        facts.totals.merge(&self.totals);
        facts
            .topics
            .extend(self.snapshot.topics.into_iter().map(|topic| TopicFacts {
                written: self.written.remove(&topic.topic).unwrap_or_default(),
                row: self.rows.remove(&topic.topic),
                topic: topic.topic,
                stored: topic.stored,
                dropped: topic.dropped,
            }));
        let devices = self.snapshot.devices.into_iter();
        facts.devices.extend(devices.map(|state| (state.device, state.row)));
    }
}

/// By response topic: what plotters have added up, what waits for them in the stream, and what found no room there.
fn written_by_topic(snapshot: &PartitionSnapshot) -> Result<BTreeMap<Topic, Written>, BadTotals> {
    let mut all: BTreeMap<Topic, Written> = BTreeMap::new();
    for (field, bytes) in &snapshot.cumulative {
        if let Some((topic, totals)) = Totals::counts_of_topic(field, bytes)? {
            let written = all.entry(topic).or_default();
            written.plotted += totals.sent;
            written.plotted_samples += totals.received;
        }
    }
    let devices = snapshot.devices.iter();
    let topics: BTreeMap<Epoch, &Topic> = devices
        .map(|state| (state.device.epoch, &state.device.response_topic))
        .collect();
    for (epoch, messages) in &snapshot.unplotted {
        if let Some(topic) = topics.get(epoch) {
            all.entry((*topic).clone()).or_default().unplotted += messages;
        }
    }
    for (epoch, messages) in &snapshot.shed {
        if let Some(topic) = topics.get(epoch) {
            all.entry((*topic).clone()).or_default().shed += messages;
        }
    }
    for (topic, samples) in &snapshot.pending {
        all.entry(topic.clone()).or_default().unplotted_samples += samples;
    }
    Ok(all)
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
    use isochrone_model::row::SendRow;
    use isochrone_store::types::{Cursor, DeviceState, SinkCounts};

    use super::*;
    use crate::testing::device;

    /// What daemons wrote is counted where it lies: two devices that share a response topic together.
    #[test]
    fn entries_are_counted_by_response_topic() {
        let (one, other) = (device(1), device(2));
        assert_eq!(one.response_topic, other.response_topic);
        let topic = one.response_topic.clone();
        let snapshot = PartitionSnapshot {
            unplotted: vec![(one.epoch, 3), (other.epoch, 4), (Epoch(99), 5)],
            shed: vec![(other.epoch, 6)],
            pending: vec![(topic.clone(), 5)],
            devices: [one, other]
                .map(|device| DeviceState {
                    device,
                    row: SendRow::default(),
                })
                .into(),
            ..PartitionSnapshot::default()
        };
        let written = written_by_topic(&snapshot).unwrap();
        let counts: Vec<_> = written
            .iter()
            .map(|(topic, w)| (topic, w.plotted, w.unplotted, w.shed, w.unplotted_samples))
            .collect();
        assert_eq!(counts, [(&topic, 0, 7, 6, 5)]);
        let damaged = PartitionSnapshot {
            cumulative: vec![("t:x".to_owned(), vec![0xff].into())],
            ..PartitionSnapshot::default()
        };
        assert!(written_by_topic(&damaged).is_err());
    }

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
