//! Sinks that a run waits for at its end, because they do not move.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    fmt,
    time::Duration,
};

use isochrone_daemon::warden::SINK_PATIENCE;
use isochrone_model::{
    id::RunName,
    report::RunFacts,
    time::{Clock, Reference},
};
use isochrone_plotter::SINK_DEADLINE;
use isochrone_store::{Store, types::RunState};
use tokio::time::sleep;

use crate::{
    facts::{Wanted, gather},
    text::count,
};

/// Between two looks at a whole run.
const LOOK: Duration = Duration::from_secs(3);

/// Those that are behind and stand still, while all else has come to rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Awaited {
    /// Samples that each has not had.
    pending: BTreeMap<String, u64>,
    /// After this the run ends without them.
    at_most: Duration,
}

/// Remembers since when they stand.
#[derive(Default)]
pub struct Watch {
    standing: Option<(BTreeMap<String, u64>, Reference)>,
}

impl Watch {
    /// What is awaited, if anything is; a sink that moved since the last look gets its whole time again, as whoever closes the
    /// run gives it.
    pub fn look(&mut self, facts: &RunFacts, now: Reference) -> Option<Awaited> {
        let pending = pending(facts);
        if pending.is_empty() || !is_at_rest(facts) {
            self.standing = None;
            return None;
        }
        let since = match &self.standing {
            Some((before, since)) if *before == pending => *since,
            _ => {
                self.standing = Some((pending, now));
                return None;
            }
        };
        let stood = Duration::from_nanos(now.since_ns(since).max(0) as u64);
        Some(Awaited {
            pending,
            // The plotter gives them some time once more when the run is closed without them.
            at_most: (SINK_PATIENCE + SINK_DEADLINE).saturating_sub(stood),
        })
    }
}

/// Says on stderr what a run waits for, once for each set of sinks; does not return.
pub async fn tell(store: &dyn Store, clock: &dyn Clock, run: &RunName) -> Infallible {
    let (mut watch, mut told) = (Watch::default(), BTreeSet::new());
    loop {
        sleep(LOOK).await;
        // Reading a whole run is work for the store: not while the run measures.
        let Ok(Some(run)) = store.run(run).await else { continue };
        if run.state != RunState::Draining {
            continue;
        }
        let Ok(facts) = gather(store, &run, &Wanted::default()).await else {
            continue;
        };
        if let Some(awaited) = watch.look(&facts, clock.reference()) {
            let sinks = awaited.pending.keys().cloned().collect();
            if sinks != told {
                eprintln!("isochrone: {awaited}");
                told = sinks;
            }
        }
    }
}

/// Samples that sinks have not had, where there are any.
pub fn pending(facts: &RunFacts) -> BTreeMap<String, u64> {
    let sums = facts.sinks.iter().map(|(sink, topics)| {
        let pending = topics.values().map(|row| row.pending).sum::<u64>();
        (sink.clone(), pending)
    });
    sums.filter(|(_, pending)| *pending > 0).collect()
}

/// Nothing is left to do but for sinks.
fn is_at_rest(facts: &RunFacts) -> bool {
    let closed = |row: Option<bool>| row.unwrap_or(false);
    facts.state == "draining"
        && facts.devices.iter().all(|(_, row)| row.ended || row.vanished)
        && facts
            .topics
            .iter()
            .all(|topic| closed(topic.row.as_ref().map(|row| row.closed)))
}

impl fmt::Display for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sinks: Vec<_> = self
            .pending
            .iter()
            .map(|(sink, pending)| format!("{sink} ({} samples pending)", count(*pending)))
            .collect();
        let at_most = self.at_most.as_secs();
        write!(f, "waiting for {}, {at_most} s more at most", sinks.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use isochrone_model::{
        ledger::{SinkRow, Written},
        report::TopicFacts,
        row::ReceiptRow,
    };

    use super::*;

    fn at(seconds: i64) -> Reference {
        Reference(1_800_000_000_000_000_000 + seconds * 1_000_000_000)
    }

    fn facts(state: &str, pending: u64) -> RunFacts {
        let mut facts = RunFacts::new("r".parse().unwrap(), state);
        facts.topics.push(TopicFacts {
            topic: "t".into(),
            row: Some(ReceiptRow {
                closed: true,
                ..ReceiptRow::default()
            }),
            stored: 10_000,
            dropped: 0,
            written: Written::default(),
        });
        for (sink, pending) in [("prometheus", 0), ("influxdb", pending)] {
            let row = SinkRow {
                pending,
                ..SinkRow::default()
            };
            facts.sinks.insert(sink.to_owned(), [("t".into(), row)].into());
        }
        facts
    }

    /// A sink that stands is named with what is left of its time; one that moves, or that others may still keep, is not.
    #[test]
    fn what_stands_is_awaited() {
        let mut watch = Watch::default();
        let said = |watch: &mut Watch, facts: &RunFacts, seconds| {
            watch.look(facts, at(seconds)).map(|awaited| awaited.to_string())
        };
        assert_eq!(said(&mut watch, &facts("open", 5_000), 0), None);
        assert_eq!(said(&mut watch, &facts("open", 5_000), 2), None);
        assert_eq!(said(&mut watch, &facts("draining", 5_000), 4), None, "first seen");
        assert_eq!(
            said(&mut watch, &facts("draining", 5_000), 6).as_deref(),
            Some("waiting for influxdb (5,000 samples pending), 63 s more at most")
        );
        assert_eq!(said(&mut watch, &facts("draining", 4_000), 8), None, "it moved");
        assert_eq!(
            said(&mut watch, &facts("draining", 4_000), 20).as_deref(),
            Some("waiting for influxdb (4,000 samples pending), 53 s more at most")
        );
        let mut busy = facts("draining", 4_000);
        busy.topics[0].row = None;
        assert_eq!(said(&mut watch, &busy, 22), None, "a topic is not done");
        assert_eq!(said(&mut watch, &facts("draining", 0), 24), None);
        assert_eq!(said(&mut watch, &facts("closed", 4_000), 26), None);
    }
}
