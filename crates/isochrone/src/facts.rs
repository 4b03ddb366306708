//! Reads everything a report needs out of the store.

use std::collections::{BTreeMap, BTreeSet};

use isochrone_model::{
    id::{Partition, Topic},
    ledger::SinkRow,
    report::{Event, RunFacts, TopicFacts},
    slo::Objective,
    time::Reference,
    tracker::Book,
    window::Totals,
};
use isochrone_store::{
    Error, Store,
    types::{PartitionSnapshot, Role, RunRecord, RunState},
};

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
    let mut facts = RunFacts::new(run.run.clone(), state_name(run.state));
    facts.restored = run.restored;
    facts.per_topic = wanted.per_topic;
    facts.objectives.clone_from(&wanted.objectives);
    for partition in 0..run.pins.partitions {
        let snapshot = store.snapshot(&run.run, Partition(partition)).await?;
        add_partition(&mut facts, Partition(partition), snapshot)?;
    }
    facts.events = events(store, run).await?;
    Ok(facts)
}

fn add_partition(facts: &mut RunFacts, partition: Partition, snapshot: PartitionSnapshot) -> Result<(), Error> {
    let corrupt = |what: &str, cause: String| Error::Corrupt {
        key: format!("partition {partition}: {what}"),
        cause,
    };
    let fields = snapshot
        .cumulative
        .into_iter()
        .map(|(name, value)| (name, value.to_vec()))
        .collect();
    let mut totals = Totals::load(fields).map_err(|error| corrupt("cumulative", error.to_string()))?;
    for state in &snapshot.devices {
        totals.know_device(&state.device);
    }
    add_sinks(facts, &snapshot.cursors, &snapshot.pending, &totals);
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

type Cursors = [(String, isochrone_store::types::Cursor)];

/// What each sink has, and what it has still to come to: samples in entries that no cut holds yet, and samples of cuts
/// that its cursor has not reached.
fn add_sinks(facts: &mut RunFacts, cursors: &Cursors, uncut: &[(Topic, u64)], totals: &Totals) {
    let uncut: BTreeMap<_, _> = uncut.iter().cloned().collect();
    for (sink, cursor) in cursors {
        let rows = facts.sinks.entry(sink.clone()).or_default();
        let topics: BTreeSet<_> = cursor
            .topics
            .keys()
            .chain(uncut.keys())
            .chain(totals.topics().keys())
            .collect();
        for topic in topics {
            let counts = cursor.topics.get(topic).copied().unwrap_or_default();
            let cut = totals.topics().get(topic).map_or(0, |topic| topic.received);
            let done = counts.exported + counts.thinned + counts.set_aside + counts.sink_dropped;
            let row = SinkRow {
                exported: counts.exported,
                pending: uncut.get(topic).copied().unwrap_or(0) + cut.saturating_sub(done),
                thinned: counts.thinned,
                set_aside: counts.set_aside,
                sink_dropped: counts.sink_dropped,
            };
            rows.insert(topic.clone(), row);
        }
    }
}

/// What happened to the run and its daemons.
async fn events(store: &dyn Store, run: &RunRecord) -> Result<Vec<Event>, Error> {
    let mut events = vec![Event {
        at: utc(run.opened_at),
        what: "opened".to_owned(),
    }];
    let roster = store.roster(&run.run).await?;
    for (role, name) in [
        (Role::Producer, "producer"),
        (Role::Consumer, "consumer"),
        (Role::Plotter, "plotter"),
    ] {
        for member in roster.iter().filter(|member| member.role == role && member.vanished) {
            let what = format!(
                "{name} {} ({}) vanished without a last word",
                member.ordinal, member.daemon
            );
            events.push(Event {
                at: String::new(),
                what,
            });
        }
    }
    if run.restored {
        let what = "the store lost more than its last two seconds; figures are incomplete".to_owned();
        events.push(Event {
            at: String::new(),
            what,
        });
    }
    if let Some(at) = run.closed_at {
        events.push(Event {
            at: utc(at),
            what: "closed".to_owned(),
        });
    }
    Ok(events)
}

/// A point in time as RFC 3339, to the millisecond.
pub fn utc(at: Reference) -> String {
    let timestamp = jiff::Timestamp::from_nanosecond(i128::from(at.0)).unwrap_or_default();
    format!("{timestamp:.3}")
}

/// The state's name in reports.
pub fn state_name(state: RunState) -> &'static str {
    match state {
        RunState::Open => "open",
        RunState::Draining => "draining",
        RunState::Closed => "closed",
    }
}
