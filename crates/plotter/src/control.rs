//! The plotter's own task: finds runs, keeps time, stops.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use isochrone_daemon::{Context, Metric, settings::PlotterSettings};
use isochrone_model::{
    id::{Partition, RunName},
    time::{Clock, NANOS_PER_SECOND, Second, nanos},
};
use isochrone_sink::{Departure, prometheus::Prometheus, runner::Passed};
use isochrone_store::{
    Error as StoreError, Fate,
    types::{Pins, RunRecord, RunState},
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};
use tracing::{error, info, warn};

use crate::{
    Error,
    back_ends::{self, BackEnds},
    holding::{Desk, SINK_DEADLINE},
    refused::Refused,
    serving::Serving,
    sinks::Sinks,
    turn::{CLOSED_ALONE, CLOSED_WITHIN, Until, in_turn},
};

/// Time between rounds while a run drains: people wait for its end.
const DRAINING_ROUND: Duration = Duration::from_millis(200);

/// How far into a second a round begins: flushes of the moment before have landed.
const AFTER_THE_SECOND: Duration = Duration::from_millis(20);

const PARTITIONS: Metric = Metric::gauge("isochrone_plotter_partitions", "Partitions that this plotter holds.");
const ROUNDS: Metric = Metric::counter("isochrone_plotter_rounds_total", "Rounds of reading and cutting.");
const FAILED: Metric = Metric::counter(
    "isochrone_plotter_failed_rounds_total",
    "Rounds that the store did not let through, wholly or in part.",
);

/// Plots every run that is not closed, until told to finish; with ISOCHRONE_RUN, that one until it is closed.
pub async fn run(context: Context, settings: PlotterSettings) -> Result<(), Error> {
    let BackEnds { prometheus, sinks } = back_ends::open(&context, &settings)?;
    let (sinks, results) = Sinks::start(sinks);
    context.metrics.add_source(Arc::new(sinks.families()));
    let desk = Desk {
        store: context.store.clone(),
        daemon: context.daemon,
        clock: context.clock.clone(),
        sinks,
        retain: settings.retain,
    };
    let stop = context.stop.clone();
    let mut plotter = Plotter {
        context,
        settings,
        desk,
        prometheus,
        results,
        servings: BTreeMap::new(),
        finished: BTreeSet::new(),
        next_to_look_at: BTreeMap::new(),
        last_run: None,
        refused: Refused::default(),
        goes_on: false,
        away: false,
        said: String::new(),
    };
    let ended = tokio::select! {
        ended = plotter.work() => ended,
        () = stop.aborting() => return Ok(()),
    };
    tokio::select! {
        () = plotter.close() => {}
        () = stop.aborting() => {}
    }
    ended
}

struct Plotter {
    context: Context,
    settings: PlotterSettings,
    desk: Desk,
    prometheus: Arc<Prometheus>,
    results: mpsc::Receiver<Passed>,
    servings: BTreeMap<RunName, Serving>,
    /// Closed runs in which nothing is left to do.
    finished: BTreeSet<RunName>,
    /// Closed runs of which only partitions from here on have to be looked at for something to do.
    next_to_look_at: BTreeMap<RunName, Partition>,
    /// The closed run that had its turn last.
    last_run: Option<RunName>,
    /// Why runs and partitions of closed ones cannot be worked on, as it was said.
    refused: Refused,
    /// There was no time for all closed runs, and no other runs are there to wait for.
    goes_on: bool,
    away: bool,
    /// What it last said it does.
    said: String,
}

impl Plotter {
    async fn work(&mut self) -> Result<(), Error> {
        let (rounds, failed) = (
            self.context.metrics.counter(&ROUNDS),
            self.context.metrics.counter(&FAILED),
        );
        let partitions = self.context.metrics.gauge(&PARTITIONS);
        let mut worked = false;
        loop {
            if self.context.stop.is_finishing() {
                return Ok(());
            }
            if let Some(sink) = self.desk.sinks.dead() {
                return Err(Error::Sink(sink));
            }
            let round = self.round().await;
            rounds.inc();
            partitions.set(self.servings.values().map(Serving::held).sum::<usize>() as f64);
            match round {
                Ok(Next::Again) => {
                    worked = true;
                    if self.trouble().is_some() {
                        failed.inc();
                    }
                }
                Ok(Next::Done) => return Ok(()),
                Err(error) => {
                    failed.inc();
                    self.heed(error, worked)?;
                }
            }
            self.wait().await;
        }
    }

    /// A store that was never reached or refuses from the start needs someone; later it is waited for.
    fn heed(&mut self, error: StoreError, worked: bool) -> Result<(), Error> {
        match error.fate() {
            Fate::Retry(_) => {
                if !self.away {
                    warn!("failed to {error}; retrying");
                }
                self.context.health.set_ready(false, &format!("failed to {error}"));
            }
            Fate::LetGo => {}
            Fate::Reject if worked => {
                if !self.away {
                    error!("failed to {error}; retrying");
                }
                self.context.health.set_ready(false, &format!("failed to {error}"));
            }
            Fate::Reject => return Err(error.into()),
        }
        self.away = true;
        Ok(())
    }

    async fn round(&mut self) -> Result<Next, StoreError> {
        self.goes_on = false;
        let records = self.find_runs().await?;
        let is_closed = |record: &RunRecord| record.state == RunState::Closed;
        self.finished.retain(|run| records.get(run).is_some_and(is_closed));
        self.next_to_look_at.retain(|run, _| records.contains_key(run));
        self.refused.retain(|run| records.contains_key(run));
        self.forget_purged(&records);
        let second = self.complete_second();
        for serving in self.servings.values_mut() {
            serving.hear(&self.desk);
        }
        let (closed, live): (Vec<_>, Vec<_>) = records.values().partition(|record| is_closed(record));
        let mut rejected = None;
        // People watch these.
        for record in &live {
            let done = self.plot(record, second).await;
            unless_rejected(done, &mut rejected)?;
        }
        let until = Until::within(if live.is_empty() { CLOSED_ALONE } else { CLOSED_WITHIN });
        for run in self.turns(&closed) {
            if let Some(record) = records.get(&run) {
                let done = self.end(record, until).await;
                unless_rejected(done, &mut rejected)?;
            }
            self.last_run = Some(run);
            if until.is_over() {
                break;
            }
        }
        self.goes_on = live.is_empty() && until.is_over();
        rejected.map_or(Ok(()), Err)?;
        // Only now is it known to work (again).
        if std::mem::take(&mut self.away) {
            info!("the store answers again");
        }
        let held: usize = self.servings.values().map(Serving::held).sum();
        let why = if self.servings.is_empty() {
            "waits for a run".to_owned()
        } else {
            let runs = self.servings.len();
            format!(
                "plots {held} partitions of {runs} run{}",
                if runs == 1 { "" } else { "s" }
            )
        };
        if self.said != why {
            info!("{why}");
            self.said.clone_from(&why);
        }
        match self.trouble() {
            Some(trouble) => self.context.health.set_ready(false, trouble),
            None => self.context.health.set_ready(true, &why),
        }
        let named = self.context.common.run.as_ref().and_then(|run| records.get(run));
        let over = |record: &RunRecord| record.state == RunState::Closed && !self.servings.contains_key(&record.run);
        Ok(if named.is_some_and(over) {
            Next::Done
        } else {
            Next::Again
        })
    }

    /// Why a partition of a run cannot be worked on.
    fn trouble(&self) -> Option<&str> {
        self.servings.values().find_map(Serving::trouble)
    }

    /// The run of ISOCHRONE_RUN, or all.
    async fn find_runs(&self) -> Result<BTreeMap<RunName, RunRecord>, StoreError> {
        let records = match &self.context.common.run {
            Some(run) => self.context.store.run(run).await?.into_iter().collect(),
            None => self.context.store.runs().await?,
        };
        Ok(records.into_iter().map(|record| (record.run.clone(), record)).collect())
    }

    /// Closed runs in which something may be left to do, in the order of their turns.
    fn turns(&self, closed: &[&RunRecord]) -> Vec<RunName> {
        let left = closed.iter().filter(|record| !self.finished.contains(&record.run));
        let mut turns = in_turn(left.map(|record| record.run.clone()), self.last_run.as_ref());
        let is_urgent = |run: &RunName| self.servings.get(run).is_some_and(Serving::is_urgent);
        turns.sort_by_key(|run| !is_urgent(run));
        turns
    }

    /// Whether a closed run was closed while a sink had not had everything; nothing when there was no time to look at all of it.
    async fn has_work(&mut self, record: &RunRecord, until: Until) -> Result<Option<bool>, StoreError> {
        let mut next = self.next_to_look_at.remove(&record.run).unwrap_or(Partition(0));
        while next.0 < record.pins.partitions {
            let snapshot = match self.desk.store.snapshot(&record.run, next).await {
                Ok(snapshot) => snapshot,
                // Nobody can work on this one; there may be work in others.
                Err(error) if error.fate() == Fate::Reject => {
                    self.refused.say(&record.run, Some(next), &error);
                    next.0 += 1;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let newest = snapshot.cut.map_or(0, |cut| cut.number);
            let behind = snapshot.cursors.iter().any(|(_, cursor)| cursor.cut < newest);
            if behind || snapshot.pending.iter().any(|(_, samples)| *samples > 0) {
                return Ok(Some(true));
            }
            next.0 += 1;
            if until.is_over() {
                self.next_to_look_at.insert(record.run.clone(), next);
                return Ok(None);
            }
        }
        Ok(Some(false))
    }

    /// How long sinks that are away get what is left of a closed run: as long as the run is kept, unless this plotter is here
    /// for that run alone.
    fn patience(&self) -> Duration {
        match self.context.common.run {
            Some(_) => SINK_DEADLINE,
            None => self.context.common.keep,
        }
    }

    /// Refuses by name a run that disagrees with our settings; an error when it is the one we are here for.
    fn may_serve(&mut self, record: &RunRecord) -> Result<bool, StoreError> {
        // How topics are claimed makes no difference to what is plotted.
        let ours = Pins {
            claim_unit: record.pins.claim_unit.clone(),
            ..self.context.common.pins()
        };
        let Err(error) = record.must_agree(&ours) else {
            return Ok(true);
        };
        if self.context.common.run.is_some() {
            return Err(error);
        }
        self.refused.say(&record.run, None, &error);
        Ok(false)
    }

    fn describe(&self, record: &RunRecord) {
        let labels = vec![
            ("schema".to_owned(), record.pins.schema.to_string()),
            ("partitions".to_owned(), record.pins.partitions.to_string()),
            ("claim_unit".to_owned(), record.pins.claim_unit.clone()),
        ];
        self.prometheus.describe(&record.run, labels);
    }

    /// The newest second that has been over for ISOCHRONE_GRACE.
    fn complete_second(&self) -> Second {
        (self.context.clock.reference() + -nanos(self.settings.grace)).second() - 1
    }

    /// One round in a live run, joined where it is new.
    async fn plot(&mut self, record: &RunRecord, second: Second) -> Result<(), StoreError> {
        if !self.servings.contains_key(&record.run) {
            if !self.may_serve(record)? {
                return Ok(());
            }
            let serving = Serving::join(&self.context, record.clone()).await?;
            self.servings.insert(record.run.clone(), serving);
        }
        self.describe(record);
        let Some(serving) = self.servings.get_mut(&record.run) else {
            return Ok(());
        };
        serving.record = record.clone();
        serving.round(&self.desk, second).await
    }

    /// One round in a closed run, joined where something is left to do: it is left when its sinks have had everything.
    async fn end(&mut self, record: &RunRecord, until: Until) -> Result<(), StoreError> {
        if !self.servings.contains_key(&record.run) {
            if !self.may_serve(record)? {
                return Ok(());
            }
            match self.has_work(record, until).await? {
                Some(true) => {}
                Some(false) => {
                    self.finished.insert(record.run.clone());
                    return Ok(());
                }
                None => return Ok(()),
            }
            let serving = Serving::join(&self.context, record.clone()).await?;
            self.servings.insert(record.run.clone(), serving);
        }
        self.describe(record);
        let patience = self.patience();
        let Some(serving) = self.servings.get_mut(&record.run) else {
            return Ok(());
        };
        serving.record = record.clone();
        if serving.end(&self.desk, patience, until).await? {
            serving.leave(&self.desk, Departure::Closed).await?;
            self.servings.remove(&record.run);
            self.finished.insert(record.run.clone());
        }
        Ok(())
    }

    fn forget_purged(&mut self, records: &BTreeMap<RunName, RunRecord>) {
        let purged = self.servings.keys().filter(|run| !records.contains_key(run));
        for run in purged.cloned().collect::<Vec<_>>() {
            warn!(%run, "the run is gone from the store");
            if let Some(mut serving) = self.servings.remove(&run) {
                serving.forget(&self.desk);
            }
        }
    }

    async fn passed(&mut self, passed: &Passed) -> Result<(), StoreError> {
        match self.servings.get_mut(&passed.cut.run) {
            Some(serving) => serving.passed(&self.desk, passed).await,
            None => Ok(()),
        }
    }

    async fn passed_and_offer(&mut self, passed: &Passed) -> Result<(), StoreError> {
        self.passed(passed).await?;
        match self.servings.get_mut(&passed.cut.run) {
            Some(serving) => serving.offer(&self.desk, passed.cut.partition).await,
            None => Ok(()),
        }
    }

    /// Until the next second is complete; meanwhile sinks report.
    async fn wait(&mut self) {
        let draining = self
            .servings
            .values()
            .any(|serving| serving.record.state == RunState::Draining || serving.is_ending());
        let deadline = Instant::now()
            + if self.goes_on {
                Duration::ZERO
            } else if draining {
                DRAINING_ROUND
            } else {
                self.until_next_second()
            };
        let stop = self.context.stop.clone();
        loop {
            tokio::select! {
                () = stop.finishing() => return,
                () = tokio::time::sleep_until(deadline) => return,
                Some(passed) = self.results.recv() => {
                    if let Err(error) = self.passed_and_offer(&passed).await
                        && let Err(error) = self.heed(error, true)
                    {
                        error!("failed to {error}");
                    }
                }
            }
        }
    }

    fn until_next_second(&self) -> Duration {
        let now = self.context.clock.reference() + -nanos(self.settings.grace);
        let left = NANOS_PER_SECOND - now.0.rem_euclid(NANOS_PER_SECOND);
        Duration::from_nanos(left.unsigned_abs()) + AFTER_THE_SECOND
    }

    /// A last cut of what is complete, then everything is given back.
    async fn close(mut self) {
        let second = self.complete_second();
        for serving in self.servings.values_mut() {
            if let Err(error) = serving.round(&self.desk, second).await {
                warn!(run = %serving.run(), "failed to {error} for the last time");
            }
        }
        let deadline = Instant::now() + SINK_DEADLINE;
        while self.servings.values().any(Serving::is_under_way) {
            let Ok(Some(passed)) = timeout_at(deadline, self.results.recv()).await else {
                break;
            };
            if let Err(error) = self.passed(&passed).await {
                warn!(run = %passed.cut.run, "failed to {error}; the next plotter does it again");
            }
        }
        for serving in self.servings.values_mut() {
            if let Err(error) = serving.leave(&self.desk, Departure::Moved).await {
                warn!(run = %serving.run(), "failed to {error}; the lease will run out");
            }
        }
        self.desk.sinks.close(SINK_DEADLINE).await;
    }
}

enum Next {
    Again,
    /// The run of ISOCHRONE_RUN is closed.
    Done,
}

/// One run that is corrupt holds up no other: the first such error waits for the end of the round.
fn unless_rejected(done: Result<(), StoreError>, rejected: &mut Option<StoreError>) -> Result<(), StoreError> {
    match done {
        Err(error) if error.fate() == Fate::Reject => {
            rejected.get_or_insert(error);
            Ok(())
        }
        done => done,
    }
}
