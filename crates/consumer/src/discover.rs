//! Which runs there are: asks the store at the start and every second, listens for announcements in between.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use isochrone_daemon::{Context, settings::ConsumerSettings};
use isochrone_model::id::RunName;
use isochrone_store::{
    Error as StoreError,
    types::{Change, RunRecord, RunState},
};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use crate::{
    Error,
    claims::Room,
    run::{Handle, Run, Start},
    worker::Pool,
};

/// Between two looks at the list of runs; also the longest wait for an announcement.
const POLL: Duration = Duration::from_secs(1);

/// Where announcements cannot be had, the wait for one returns at once.
const NO_ANNOUNCEMENT: Duration = Duration::from_millis(100);

/// A closed run's task, or a finishing daemon's, ends by itself; this is only the bound.
const RUN_END: Duration = Duration::from_secs(5);

/// Serves runs until the daemon finishes, or until the one named run is closed.
pub struct Discovery {
    context: Context,
    settings: Arc<ConsumerSettings>,
    pool: Arc<Pool>,
    room: Arc<Room>,
    runs: BTreeMap<RunName, Handle>,
    refused: Vec<RunName>,
    store_away: bool,
}

impl Discovery {
    /// Nothing found yet.
    pub fn new(context: Context, settings: Arc<ConsumerSettings>, pool: Arc<Pool>, room: Arc<Room>) -> Discovery {
        Discovery {
            context,
            settings,
            pool,
            room,
            runs: BTreeMap::new(),
            refused: Vec::new(),
            store_away: false,
        }
    }

    /// See the type.
    pub async fn serve(mut self) -> Result<(), Error> {
        let stop = self.context.stop.clone();
        let mut next = Instant::now();
        let outcome = loop {
            if Instant::now() >= next {
                next = Instant::now() + POLL;
                match self.look().await {
                    Ok(false) => {}
                    Ok(true) => break Ok(()),
                    Err(problem) => {
                        // Its runs give back what they hold only when the daemon finishes. Who called tells why it failed.
                        self.context.health.set_ready(false, "failed");
                        stop.fail(problem.to_string());
                        break Err(problem);
                    }
                }
            }
            tokio::select! {
                () = self.listen(next) => {}
                () = stop.finishing() => break Ok(()),
            }
        };
        self.end().await;
        outcome
    }

    /// Waits for announcements until `until` and passes them on.
    async fn listen(&mut self, until: Instant) {
        let asked = Instant::now();
        let pause = until.saturating_duration_since(asked);
        let changes = self.context.store.changes(pause).await.unwrap_or_default();
        if changes.is_empty() {
            if asked.elapsed() < NO_ANNOUNCEMENT {
                tokio::time::sleep_until(until.min(asked + POLL)).await;
            }
            return;
        }
        let mut look = false;
        for change in changes {
            match change {
                Change::Run(_) => look = true,
                Change::Free(run, _) => match self.runs.get(&run) {
                    Some(known) => known.wake.notify_one(),
                    None => look = true,
                },
                Change::Ready(..) => {}
            }
        }
        if look && self.look().await.is_err() {
            // What is wrong is told by the regular look.
        }
    }

    /// Starts what is new and ends what is closed; true when the one named run is closed.
    async fn look(&mut self) -> Result<bool, Error> {
        let store = self.context.store.clone();
        let found = match &self.context.common.run {
            Some(name) => store.run(name).await.map(|run| run.into_iter().collect()),
            None => store.runs().await,
        };
        let found: Vec<RunRecord> = match found {
            Ok(found) => found,
            Err(problem @ StoreError::Away { .. }) => {
                if !std::mem::replace(&mut self.store_away, true) {
                    tracing::warn!("failed to {problem}; trying again");
                    self.context.health.set_ready(false, "waits for the store");
                }
                return Ok(false);
            }
            Err(problem) => return Err(problem.into()),
        };
        if std::mem::replace(&mut self.store_away, false) {
            tracing::info!("the store is there");
        }
        if self.runs.is_empty() {
            self.context.health.set_ready(true, "waits for a run");
        }
        // What ended by itself, whyever that was, is started again.
        self.runs.retain(|_, handle| !handle.task.is_finished());
        for record in &found {
            let known = self.runs.contains_key(&record.run);
            match record.state {
                RunState::Closed if known => self.end_run(&record.run).await,
                RunState::Closed => {}
                RunState::Open | RunState::Draining if known => {}
                RunState::Open | RunState::Draining => self.start_run(record)?,
            }
        }
        // A run that was purged is as good as closed.
        let purged = self
            .runs
            .keys()
            .filter(|run| !found.iter().any(|record| record.run == **run));
        for run in purged.cloned().collect::<Vec<_>>() {
            self.end_run(&run).await;
        }
        self.refused.retain(|run| found.iter().any(|record| record.run == *run));
        let named = self.context.common.run.is_some();
        let closed = found.iter().find(|record| record.state == RunState::Closed);
        if let Some(record) = closed.filter(|_| named) {
            tracing::info!(run = %record.run, "the run that ISOCHRONE_RUN names is closed: nothing is left to listen for");
        }
        Ok(named && closed.is_some())
    }

    fn start_run(&mut self, record: &RunRecord) -> Result<(), Error> {
        if let Err(problem) = record.must_agree(&self.context.common.pins()) {
            if self.context.common.run.is_some() {
                return Err(problem.into());
            }
            if !self.refused.contains(&record.run) {
                tracing::error!("failed to {problem}; leaving that run to others");
                self.refused.push(record.run.clone());
            }
            return Ok(());
        }
        let wake = Arc::new(Notify::new());
        wake.notify_one();
        let (closed, is_closed) = watch::channel(false);
        let run = Run::new(Start {
            context: self.context.clone(),
            record: record.clone(),
            pool: self.pool.clone(),
            room: self.room.clone(),
            claims: self.settings.claims,
            wake: wake.clone(),
        });
        let task = self.context.tasks.spawn_job("run", run.serve(is_closed));
        let handle = Handle {
            run: record.run.clone(),
            wake,
            closed,
            task,
        };
        self.runs.insert(record.run.clone(), handle);
        Ok(())
    }

    async fn end_run(&mut self, run: &RunName) {
        let Some(handle) = self.runs.remove(run) else { return };
        handle.closed.send_replace(true);
        if tokio::time::timeout(RUN_END, handle.task).await.is_err() {
            tracing::warn!(run = %handle.run, "a closed run's task did not end");
        }
    }

    /// The daemon finishes: every run gives back what it holds. Bounded by ISOCHRONE_SHUTDOWN, which aborts.
    async fn end(&mut self) {
        for (_, handle) in std::mem::take(&mut self.runs) {
            if handle.task.await.is_err() {
                tracing::warn!(run = %handle.run, "a run's task ended badly");
            }
        }
    }
}
