//! One run: this plotter's membership in it and its share of partitions.

mod rollback;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

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
    types::{Holder, Role, RunRecord, RunState},
};
use tokio::{sync::mpsc, time::Instant};
use tracing::{Instrument, debug, debug_span, error, info, warn};

use self::rollback::Retired;
use crate::{
    holding::{Desk, Holding, SINK_DEADLINE},
    share::{Held, Load, fair_share, surplus},
    turn::{Until, in_turn},
};

/// A run that this plotter is a member of.
pub struct Serving {
    /// As last read.
    pub record: RunRecord,
    ordinal: u32,
    clock: Arc<dyn Clock>,
    keeper: Arc<LeaseKeeper>,
    events: mpsc::Receiver<LeaseEvent>,
    _warden: Warden,
    holdings: BTreeMap<Partition, Holding>,
    /// Read again from a store that has restarted: not done yet.
    to_reload: BTreeSet<Partition>,
    /// This plotter was taken off the roster.
    is_off_roster: bool,
    /// Given up for good, which the store may still forget.
    retired: BTreeMap<Partition, Retired>,
    /// Since when the run is closed, as far as this plotter has seen it.
    ends_since: Option<Instant>,
    /// Which partition had its turn last in a closed run, whose rounds may have no time for all.
    last_partition: Option<Partition>,
    /// It was worked on before it was closed.
    was_live: bool,
    /// The share last spoken of in the log.
    share: Option<usize>,
    /// Partitions that cannot be worked on, and why, as it was said.
    failing: BTreeMap<Partition, String>,
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
            to_reload: BTreeSet::new(),
            is_off_roster: false,
            retired: BTreeMap::new(),
            ends_since: None,
            last_partition: None,
            was_live: false,
            share: None,
            failing: BTreeMap::new(),
        })
    }

    /// How many partitions are held.
    pub fn held(&self) -> usize {
        self.holdings.len()
    }

    /// Why a partition cannot be worked on.
    pub fn trouble(&self) -> Option<&str> {
        self.failing.values().next().map(String::as_str)
    }

    /// One round: what happened to the leases, the share, then what came in; seconds up to `second` are complete.
    pub async fn round(&mut self, desk: &Desk, second: Second) -> Result<(), Error> {
        self.was_live = true;
        self.heed_events(desk).await?;
        self.balance(desk, Until::unlimited()).await?;
        let way = debug_span!(target: TARGET, "round", run = %self.record.run, second = second.0);
        self.work(desk, second).instrument(way).await
    }

    /// Notes what happened to the leases; what it asks for is done in the run's next round. Not only there: until a restart of
    /// the store is noted, what it may have lost counts as kept.
    pub fn hear(&mut self, desk: &Desk) {
        while let Ok(event) = self.events.try_recv() {
            match event {
                LeaseEvent::RosterLost => self.is_off_roster = true,
                LeaseEvent::PartitionLost(partition) => self.lose(desk, partition),
                LeaseEvent::NewServerLife => {
                    self.to_reload.extend(self.holdings.keys());
                    self.to_reload.extend(self.retired.keys());
                }
                LeaseEvent::Held { .. } | LeaseEvent::Away | LeaseEvent::Back => {}
            }
        }
    }

    async fn heed_events(&mut self, desk: &Desk) -> Result<(), Error> {
        self.hear(desk);
        if self.is_off_roster {
            let wish = Some(self.ordinal);
            self.ordinal = desk
                .store
                .enlist(&self.record.run, desk.daemon, Role::Plotter, wish)
                .await?;
            self.is_off_roster = false;
            warn!(run = %self.record.run, ordinal = self.ordinal, "was taken off the roster, joined again");
        }
        self.reload(desk).await?;
        self.forget_retired(desk);
        Ok(())
    }

    fn begin(&mut self, desk: &Desk, partition: Partition, mut holding: Holding) {
        holding.begin(desk);
        self.holdings.insert(partition, holding);
    }

    fn lose(&mut self, desk: &Desk, partition: Partition) {
        self.keeper.remove(partition);
        self.failing.remove(&partition);
        if self.holdings.remove(&partition).is_some() {
            desk.sinks.depart(&self.record.run, partition, Departure::Moved);
            warn!(run = %self.record.run, %partition, "lost the partition");
        }
    }

    /// Holds as many partitions as there are plotters to share them with.
    async fn balance(&mut self, desk: &Desk, until: Until) -> Result<(), Error> {
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
            let gone = self.let_go(desk, partition).await;
            self.heed(desk, partition, gone)?;
        }
        if self.holdings.len() < share {
            return self.take_free(desk, share, until).await;
        }
        self.failing
            .retain(|partition, _| self.holdings.contains_key(partition));
        Ok(())
    }

    async fn take_free(&mut self, desk: &Desk, share: usize, until: Until) -> Result<(), Error> {
        let run = self.record.run.clone();
        let all = self.partitions();
        let holders: BTreeMap<_, _> = desk.store.holders(&run, &all).await?.into_iter().collect();
        let me = Holder::Plotter(desk.daemon);
        let free = all
            .into_iter()
            .filter(|partition| holders.get(partition).is_none_or(|holder| *holder == me))
            .collect::<Vec<_>>();
        // What another has is no trouble of ours.
        self.failing.retain(|partition, _| free.contains(partition));
        let mut taken = 0;
        for partition in free {
            if self.holdings.len() >= share {
                break;
            }
            if self.holdings.contains_key(&partition) {
                continue;
            }
            match self.take(desk, partition).await {
                Ok(Some(holding)) => {
                    self.begin(desk, partition, holding);
                    taken += 1;
                }
                Ok(None) => {}
                Err(error) => self.heed(desk, partition, Err(error))?,
            }
            if until.is_over() {
                break;
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

    /// Gives the partition to whoever takes it next.
    async fn let_go(&mut self, desk: &Desk, partition: Partition) -> Result<(), Error> {
        let Some(mut holding) = self.holdings.remove(&partition) else {
            return Ok(());
        };
        // What cannot be stored now is done again by the next holder.
        let saved = holding.save(desk).await;
        desk.sinks.depart(&self.record.run, partition, Departure::Moved);
        self.keeper.remove(partition);
        self.failing.remove(&partition);
        let gone = holding.let_go(desk).await;
        saved.or_else(not_ours)?;
        gone.or_else(not_ours)
    }

    async fn work(&mut self, desk: &Desk, second: Second) -> Result<(), Error> {
        // Asked for together: one trip to the store instead of one for each partition.
        let known = self.holdings.iter().filter(|held| !self.to_reload.contains(held.0));
        let reads = known.map(|(partition, holding)| async {
            let page = holding.read(desk).await;
            (*partition, page)
        });
        let way = debug_span!(target: TARGET, "read", partitions = self.holdings.len());
        let pages = join_all(reads).instrument(way).await;
        let draining = self.record.state >= RunState::Draining;
        for (partition, page) in pages {
            let done = match (self.holdings.get_mut(&partition), page) {
                (None, _) => continue,
                (_, Err(error)) => Err(error),
                (Some(holding), Ok(page)) => {
                    let mut done = holding.step(desk, page, second).await;
                    if done.is_ok() && draining {
                        done = holding.drain(desk).await;
                    }
                    done
                }
            };
            // One thread serves all: leases are renewed between two partitions too.
            tokio::task::yield_now().await;
            self.worked(desk, partition, done)?;
        }
        Ok(())
    }

    /// A sink is done with a cut of this run.
    pub async fn passed(&mut self, desk: &Desk, passed: &Passed) -> Result<(), Error> {
        let partition = passed.cut.partition;
        let Some(holding) = self.holdings.get_mut(&partition) else {
            return Ok(());
        };
        holding.passed(desk, passed);
        let saved = holding.save(desk).await;
        self.heed(desk, partition, saved)
    }

    /// Offers sinks what they have not had of a partition: one of them has room again.
    pub async fn offer(&mut self, desk: &Desk, partition: Partition) -> Result<(), Error> {
        self.hear(desk);
        if self.to_reload.contains(&partition) {
            return Ok(());
        }
        let Some(holding) = self.holdings.get_mut(&partition) else {
            return Ok(());
        };
        let offered = holding.offer(desk).await;
        self.heed(desk, partition, offered)
    }

    /// What became of a whole round's work on a partition.
    fn worked(&mut self, desk: &Desk, partition: Partition, done: Result<(), Error>) -> Result<(), Error> {
        if done.is_ok() && self.failing.remove(&partition).is_some() {
            info!(run = %self.record.run, %partition, "the partition can be worked on again");
        }
        self.heed(desk, partition, done)
    }

    /// One that is lost is given up. One that the store refuses, or that is corrupt there, is tried again with the next round
    /// and holds up no other. Only what concerns all of them is an error.
    fn heed(&mut self, desk: &Desk, partition: Partition, done: Result<(), Error>) -> Result<(), Error> {
        let Err(error) = done else { return Ok(()) };
        match error {
            Error::Fenced => {
                debug!(run = %self.record.run, %partition, "failed to {error}");
                self.lose(desk, partition);
                Ok(())
            }
            Error::Corrupt { .. } | Error::Refused { .. } => {
                let why = format!("failed to {error}");
                // A server that refuses all of them says so once.
                if !self.failing.values().any(|known| *known == why) {
                    error!(run = %self.record.run, %partition, "{why}; retrying");
                }
                self.failing.insert(partition, why);
                Ok(())
            }
            error => Err(error),
        }
    }

    /// One round in a closed run: cuts all there is and gives sinks what they have not had, in as many partitions as there is
    /// time for. True when it may be left: nothing is left to do in it, also not for other plotters, whose share comes here when
    /// they die; or it was waited long enough.
    pub async fn end(&mut self, desk: &Desk, patience: Duration, until: Until) -> Result<bool, Error> {
        let since = *self.ends_since.get_or_insert_with(Instant::now);
        self.heed_events(desk).await?;
        self.balance(desk, until).await?;
        let known = self.holdings.keys().filter(|held| !self.to_reload.contains(held));
        let turns = in_turn(known.copied(), self.last_partition.as_ref());
        for (done, partition) in turns.into_iter().enumerate() {
            // One at least, or it would never end.
            if done > 0 && until.is_over() {
                return Ok(since.elapsed() >= patience);
            }
            self.last_partition = Some(partition);
            if let Some(holding) = self.holdings.get_mut(&partition) {
                let done = holding.finish(desk).await;
                self.worked(desk, partition, done)?;
            }
            if self.is_finished(partition) {
                self.retire(desk, partition).await?;
            }
        }
        let holders = desk.store.holders(self.run(), &self.partitions()).await?;
        // As long as the store may forget that one is finished, it may have to be said again.
        self.forget_retired(desk);
        let is_over = |(partition, holder): &(Partition, Holder)| match self.holdings.get(partition) {
            // What is left is for a sink of another plotter.
            Some(holding) => self.is_read_to_end(*partition) && !holding.is_behind(desk),
            None => *holder == Holder::Finished,
        };
        let over = self.retired.is_empty() && holders.len() == self.partitions().len() && holders.iter().all(is_over);
        Ok(over || since.elapsed() >= patience)
    }

    /// Whether all of a closed run's partition is read, and the store has not restarted since.
    fn is_read_to_end(&self, partition: Partition) -> bool {
        let holding = self.holdings.get(&partition);
        !self.to_reload.contains(&partition) && holding.is_some_and(Holding::is_read_to_end)
    }

    /// Whether nothing is left to do in a closed run's partition, also not for sinks of other plotters.
    fn is_finished(&self, partition: Partition) -> bool {
        self.is_read_to_end(partition) && self.holdings.get(&partition).is_some_and(Holding::is_done)
    }

    /// Whether it was live a moment ago: people wait for its last figures.
    pub fn is_urgent(&self) -> bool {
        self.was_live && self.ends_since.is_none_or(|since| since.elapsed() < SINK_DEADLINE)
    }

    /// Whether the end of the run was seen a moment ago.
    pub fn is_ending(&self) -> bool {
        self.ends_since.is_some_and(|since| since.elapsed() < SINK_DEADLINE)
    }

    /// Whether a sink still has a cut of ours in hand.
    pub fn is_under_way(&self) -> bool {
        self.holdings.values().any(Holding::is_under_way)
    }

    /// Gives everything up and leaves the roster; how its partitions go depends on whether the run is over.
    pub async fn leave(&mut self, desk: &Desk, how: Departure) -> Result<(), Error> {
        for partition in self.holdings.keys().copied().collect::<Vec<_>>() {
            match how {
                Departure::Closed => self.retire(desk, partition).await?,
                Departure::Moved => self.let_go(desk, partition).await?,
            }
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

    fn partitions(&self) -> Vec<Partition> {
        (0..self.record.pins.partitions).map(Partition).collect()
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
