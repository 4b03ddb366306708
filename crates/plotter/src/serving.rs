//! One run: this plotter's membership in it and its share of partitions.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::future::join_all;
use isochrone_daemon::{
    Context,
    lease::{LeaseEvent, LeaseKeeper},
    telemetry::TARGET,
    warden::Warden,
};
use isochrone_model::{
    id::{Partition, RunName},
    time::{Clock, Second},
};
use isochrone_sink::{Departure, Hold, runner::Passed};
use isochrone_store::{
    Error, Fate,
    types::{Role, RunRecord, RunState},
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};
use tracing::{Instrument, debug, debug_span, info, warn};

use crate::{
    holding::{Desk, Holding, SINK_DEADLINE},
    share::{Held, Load, fair_share, surplus},
};

/// How often cuts are offered again while a run ends.
const SETTLE_STEP: Duration = Duration::from_millis(100);

/// A run that is not closed.
pub struct Serving {
    /// As last read.
    pub record: RunRecord,
    ordinal: u32,
    clock: Arc<dyn Clock>,
    keeper: Arc<LeaseKeeper>,
    events: mpsc::Receiver<LeaseEvent>,
    _warden: Warden,
    holdings: BTreeMap<Partition, Holding>,
    /// The share last spoken of in the log.
    share: Option<usize>,
}

impl Serving {
    /// Joins the run.
    pub async fn join(context: &Context, record: RunRecord) -> Result<Serving, Error> {
        let ordinal = context
            .store
            .enlist(&record.run, context.daemon, Role::Plotter, None)
            .await?;
        let (keeper, events) = LeaseKeeper::start(context, &record.run);
        let warden = Warden::start(context, &record.run);
        info!(run = %record.run, ordinal, "joined the run");
        let clock = context.clock.clone();
        Ok(Serving {
            record,
            ordinal,
            clock,
            keeper,
            events,
            _warden: warden,
            holdings: BTreeMap::new(),
            share: None,
        })
    }

    /// How many partitions are held.
    pub fn held(&self) -> usize {
        self.holdings.len()
    }

    /// One round: what happened to the leases, the share, then what came in; seconds up to `second` are complete.
    pub async fn round(&mut self, desk: &Desk, second: Second) -> Result<(), Error> {
        self.heed_events(desk).await?;
        self.balance(desk).await?;
        let way = debug_span!(target: TARGET, "round", run = %self.record.run, second = second.0);
        self.work(desk, second).instrument(way).await
    }

    async fn heed_events(&mut self, desk: &Desk) -> Result<(), Error> {
        while let Ok(event) = self.events.try_recv() {
            match event {
                LeaseEvent::RosterLost => {
                    let wish = Some(self.ordinal);
                    self.ordinal = desk
                        .store
                        .enlist(&self.record.run, desk.daemon, Role::Plotter, wish)
                        .await?;
                    warn!(run = %self.record.run, ordinal = self.ordinal, "was taken off the roster, joined again");
                }
                LeaseEvent::PartitionLost(partition) => self.lose(desk, partition),
                LeaseEvent::NewServerLife => self.reload(desk).await?,
                LeaseEvent::Held(..) | LeaseEvent::Away | LeaseEvent::Back => {}
            }
        }
        Ok(())
    }

    /// The store may have forgotten its last moments: what it has now is the truth.
    async fn reload(&mut self, desk: &Desk) -> Result<(), Error> {
        for partition in self.holdings.keys().copied().collect::<Vec<_>>() {
            desk.sinks.depart(&self.record.run, partition, Departure::Moved);
            match self.take(desk, partition).await? {
                Some(holding) => drop(self.holdings.insert(partition, holding)),
                None => self.lose(desk, partition),
            }
        }
        Ok(())
    }

    fn lose(&mut self, desk: &Desk, partition: Partition) {
        self.keeper.remove(partition);
        if self.holdings.remove(&partition).is_some() {
            desk.sinks.depart(&self.record.run, partition, Departure::Moved);
            warn!(run = %self.record.run, %partition, "lost the partition");
        }
    }

    /// Holds as many partitions as there are plotters to share them with.
    async fn balance(&mut self, desk: &Desk) -> Result<(), Error> {
        let run = self.record.run.clone();
        let partitions = self.record.pins.partitions;
        let roster = desk.store.roster(&run).await?;
        let Some(share) = fair_share(partitions, &roster, desk.daemon) else {
            self.ordinal = desk
                .store
                .enlist(&run, desk.daemon, Role::Plotter, Some(self.ordinal))
                .await?;
            return Ok(());
        };
        if self.share.replace(share) != Some(share) {
            info!(%run, share, partitions, "share of partitions");
        }
        let held: Vec<_> = self
            .holdings
            .iter()
            .map(|(partition, holding)| Held {
                partition: *partition,
                load: if holding.has_data() { Load::Data } else { Load::Empty },
            })
            .collect();
        for partition in surplus(&held, share) {
            self.let_go(desk, partition, Departure::Moved).await?;
        }
        if self.holdings.len() < share {
            self.take_free(desk, share).await?;
        }
        Ok(())
    }

    async fn take_free(&mut self, desk: &Desk, share: usize) -> Result<(), Error> {
        let run = self.record.run.clone();
        let all: Vec<_> = (0..self.record.pins.partitions).map(Partition).collect();
        let holders: BTreeMap<_, _> = desk.store.holders(&run, &all).await?.into_iter().collect();
        let free = all
            .into_iter()
            .filter(|partition| holders.get(partition).is_none_or(|holder| *holder == desk.daemon));
        let mut taken = 0;
        for partition in free {
            if self.holdings.len() >= share {
                break;
            }
            if self.holdings.contains_key(&partition) {
                continue;
            }
            if let Some(holding) = self.take(desk, partition).await? {
                self.holdings.insert(partition, holding);
                taken += 1;
            }
        }
        if taken > 0 {
            debug!(%run, taken, held = self.holdings.len(), "took partitions");
        }
        Ok(())
    }

    async fn take(&self, desk: &Desk, partition: Partition) -> Result<Option<Holding>, Error> {
        // Weak: a page that is still shown must not keep a lease alive that nobody works under.
        let keeper = Arc::downgrade(&self.keeper);
        let asked_at = self.clock.monotonic();
        let hold = Hold::new(move || keeper.upgrade().is_some_and(|keeper| keeper.valid(partition)));
        let holding = Holding::take(desk, &self.record.run, partition, self.record.pins.partitions, hold).await?;
        if holding.is_some() {
            self.keeper.add_from(partition, asked_at);
        }
        Ok(holding)
    }

    async fn let_go(&mut self, desk: &Desk, partition: Partition, how: Departure) -> Result<(), Error> {
        let Some(mut holding) = self.holdings.remove(&partition) else {
            return Ok(());
        };
        // What cannot be stored now is done again by the next holder.
        let saved = holding.save(desk).await;
        desk.sinks.depart(&self.record.run, partition, how);
        self.keeper.remove(partition);
        let gone = holding.let_go(desk).await;
        saved.or_else(not_ours)?;
        gone.or_else(not_ours)
    }

    async fn work(&mut self, desk: &Desk, second: Second) -> Result<(), Error> {
        let run = self.record.run.clone();
        // Asked for together: one trip to the store instead of one for each partition.
        let reads = self.holdings.iter().map(|(partition, holding)| async {
            let page = holding.read(desk).await;
            (*partition, page)
        });
        let way = debug_span!(target: TARGET, "read", partitions = self.holdings.len());
        let pages = join_all(reads).instrument(way).await;
        let draining = self.record.state >= RunState::Draining;
        for (partition, page) in pages {
            let page = page?;
            let Some(holding) = self.holdings.get_mut(&partition) else {
                continue;
            };
            let mut done = holding.step(desk, page, second).await;
            if done.is_ok() && draining {
                done = holding.drain(desk).await;
            }
            // One thread serves all: leases are renewed between two partitions too.
            tokio::task::yield_now().await;
            match done {
                Err(error) if error.fate() == Fate::LetGo => {
                    debug!(%run, %partition, "failed to {error}");
                    self.lose(desk, partition);
                }
                done => done?,
            }
        }
        Ok(())
    }

    /// A sink is done with a cut of this run.
    pub async fn passed(&mut self, desk: &Desk, passed: &Passed) -> Result<(), Error> {
        let Some(holding) = self.holdings.get_mut(&passed.cut.partition) else {
            return Ok(());
        };
        holding.passed(desk, passed);
        match holding.save(desk).await {
            Err(error) if error.fate() == Fate::LetGo => {
                self.lose(desk, passed.cut.partition);
                Ok(())
            }
            saved => saved,
        }
    }

    /// The run is closed: a last cut of all there is.
    pub async fn finish(&mut self, desk: &Desk) -> Result<(), Error> {
        for partition in self.holdings.keys().copied().collect::<Vec<_>>() {
            let Some(holding) = self.holdings.get_mut(&partition) else {
                continue;
            };
            match holding.finish(desk).await {
                Err(error) if error.fate() == Fate::LetGo => self.lose(desk, partition),
                done => done?,
            }
        }
        Ok(())
    }

    /// Waits until every sink is done with what it was offered, or, when nobody comes after us, with all there is; or until
    /// some seconds have passed.
    pub async fn settle(
        &mut self,
        desk: &Desk,
        results: &mut mpsc::Receiver<Passed>,
        how: Departure,
    ) -> Result<Vec<Passed>, Error> {
        let deadline = Instant::now() + SINK_DEADLINE;
        let mut others = Vec::new();
        let waits = |holding: &Holding| match how {
            Departure::Moved => holding.is_under_way(),
            Departure::Closed => holding.is_behind(desk),
        };
        while self.holdings.values().any(waits) && Instant::now() < deadline {
            if how == Departure::Closed {
                // A cut that the store could still lose was not offered before.
                self.holdings.values_mut().for_each(|holding| holding.offer(desk));
            }
            let until = deadline.min(Instant::now() + SETTLE_STEP);
            match timeout_at(until, results.recv()).await {
                Ok(Some(passed)) if passed.cut.run == self.record.run => self.passed(desk, &passed).await?,
                Ok(Some(passed)) => others.push(passed),
                Ok(None) => break,
                Err(_) => {}
            }
        }
        Ok(others)
    }

    /// Gives everything up and leaves the roster.
    pub async fn leave(&mut self, desk: &Desk, how: Departure) -> Result<(), Error> {
        for partition in self.holdings.keys().copied().collect::<Vec<_>>() {
            self.let_go(desk, partition, how).await?;
        }
        desk.store.discharge(&self.record.run, desk.daemon).await?;
        info!(run = %self.record.run, "left the run");
        Ok(())
    }

    /// The run was purged: nothing is left to give back.
    pub fn forget(&mut self, desk: &Desk) {
        for partition in std::mem::take(&mut self.holdings).into_keys() {
            self.keeper.remove(partition);
            desk.sinks.depart(&self.record.run, partition, Departure::Moved);
        }
    }

    /// Which run.
    pub fn run(&self) -> &RunName {
        &self.record.run
    }
}

/// Settling what was lost is an answer, not an error.
fn not_ours(error: Error) -> Result<(), Error> {
    if error.fate() == Fate::LetGo {
        Ok(())
    } else {
        Err(error)
    }
}
