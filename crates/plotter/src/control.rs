//! The plotter's own task: finds runs, keeps time, stops.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use isochrone_daemon::{Context, Metric, settings::PlotterSettings};
use isochrone_model::{
    id::{Partition, RunName},
    time::{Clock, NANOS_PER_SECOND, Second},
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
    serving::Serving,
    sinks::Sinks,
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
        refused: BTreeMap::new(),
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
    /// Runs that cannot be worked on, and why, as it was said.
    refused: BTreeMap<RunName, String>,
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
        let records = self.find_runs().await?;
        self.finished.retain(|run| records.contains_key(run));
        for record in records.values() {
            if let Some(serving) = self.servings.get_mut(&record.run) {
                serving.record = record.clone();
            } else if self.finished.contains(&record.run) {
                continue;
            } else if self.may_serve(record)? {
                if !self.has_work(record).await? {
                    self.finished.insert(record.run.clone());
                    continue;
                }
                let serving = Serving::join(&self.context, record.clone()).await?;
                self.servings.insert(record.run.clone(), serving);
            }
            self.describe(record);
        }
        let second = self.complete_second();
        let mut rejected = None;
        for run in self.servings.keys().cloned().collect::<Vec<_>>() {
            // Purged, or closed by whoever saw first that nothing is left to do.
            let done = if records.get(&run).is_none_or(|record| record.state == RunState::Closed) {
                self.end(&run, records.contains_key(&run)).await
            } else if let Some(serving) = self.servings.get_mut(&run) {
                serving.round(&self.desk, second).await
            } else {
                Ok(())
            };
            match done {
                // One run that is corrupt holds up no other.
                Err(error) if error.fate() == Fate::Reject => rejected = rejected.or(Some(error)),
                done => done?,
            }
        }
        rejected.map_or(Ok(()), Err)?;
        // Only now is it known to work (again).
        if std::mem::take(&mut self.away) {
            info!("the store answers again");
        }
        let held: usize = self.servings.values().map(Serving::held).sum();
        let why = if self.servings.is_empty() {
            "waits for a run".to_owned()
        } else {
            format!("plots {held} partitions of {} runs", self.servings.len())
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

    /// Whether a run is not closed, or was closed while a sink had not had everything.
    async fn has_work(&self, record: &RunRecord) -> Result<bool, StoreError> {
        if record.state != RunState::Closed {
            return Ok(true);
        }
        for partition in (0..record.pins.partitions).map(Partition) {
            let snapshot = self.desk.store.snapshot(&record.run, partition).await?;
            let newest = snapshot.cut.map_or(0, |cut| cut.number);
            let behind = snapshot.cursors.iter().any(|(_, cursor)| cursor.cut < newest);
            if behind || snapshot.pending.iter().any(|(_, samples)| *samples > 0) {
                return Ok(true);
            }
        }
        Ok(false)
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
        let why = error.to_string();
        if self.refused.get(&record.run) != Some(&why) {
            error!("failed to {why}");
            self.refused.insert(record.run.clone(), why);
        }
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
        (self.context.clock.reference() + -nanoseconds(self.settings.grace)).second() - 1
    }

    /// The run is over (`known`): it is left when its sinks have had everything. Or it was purged.
    async fn end(&mut self, run: &RunName, known: bool) -> Result<(), StoreError> {
        let patience = self.patience();
        let Some(serving) = self.servings.get_mut(run) else {
            return Ok(());
        };
        if known {
            if serving.end(&self.desk, patience).await? {
                serving.leave(&self.desk, Departure::Closed).await?;
                self.servings.remove(run);
                self.finished.insert(run.clone());
            }
        } else if let Some(mut serving) = self.servings.remove(run) {
            warn!(%run, "the run is gone from the store");
            serving.forget(&self.desk);
        }
        Ok(())
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
            + if draining {
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
        let now = self.context.clock.reference() + -nanoseconds(self.settings.grace);
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

fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}
