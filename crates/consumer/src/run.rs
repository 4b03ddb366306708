//! One run, from joining its roster to giving everything back: leases, room, claims.

mod balance;
mod take;

use std::{sync::Arc, time::Duration};

use isochrone_daemon::{
    Context,
    lease::{LeaseEvent, LeaseKeeper},
    settings::ClaimUnit,
    warden::Warden,
};
use isochrone_model::id::{Partition, RunName};
use isochrone_store::{
    Error, Fate,
    types::{Role, RunRecord},
};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{MissedTickBehavior, interval},
};

use self::balance::Balance;
use crate::{
    claims::Room,
    connect::Sharing,
    tender::Hold,
    worker::{Command, Pool},
};

/// Between two looks for free topics when nothing is announced.
const POLL: Duration = Duration::from_secs(1);

/// Announced topics are looked for after a part of this, each daemon after another, so that a hundred consumers do not
/// ask at once.
const SPREAD: Duration = Duration::from_millis(50);

/// Before the reference clock has been read nothing is measured; a store that is reached answers it at once.
const CLOCK_WAIT: Duration = Duration::from_secs(2);

/// Between two attempts to join a run that refuses.
const REFUSED: Duration = Duration::from_secs(1);

/// A run at work.
pub struct Run {
    context: Context,
    record: RunRecord,
    pool: Arc<Pool>,
    room: Arc<Room>,
    claims: Option<usize>,
    wake: Arc<Notify>,
    balance: Balance,
    doubtful: Option<(Partition, usize)>,
    empty_looks: u32,
    said_idle: bool,
    store_away: bool,
    refused: bool,
    /// In the roster, as far as is known.
    listed: bool,
}

/// What a run's task is started with.
pub struct Start {
    /// The daemon's.
    pub context: Context,
    /// The run as it was found.
    pub record: RunRecord,
    /// Who listens.
    pub pool: Arc<Pool>,
    /// What the daemon may hold.
    pub room: Arc<Room>,
    /// ISOCHRONE_CLAIMS.
    pub claims: Option<usize>,
    /// Topics were registered or freed.
    pub wake: Arc<Notify>,
}

impl Run {
    /// Nothing done yet.
    pub fn new(start: Start) -> Run {
        Run {
            context: start.context,
            record: start.record,
            pool: start.pool,
            room: start.room,
            claims: start.claims,
            wake: start.wake,
            balance: Balance::default(),
            doubtful: None,
            empty_looks: 0,
            said_idle: false,
            store_away: false,
            refused: false,
            listed: true,
        }
    }

    /// Works until the run is closed (`closed` says so) or the daemon finishes.
    pub async fn serve(mut self, mut closed: watch::Receiver<bool>) {
        let run = self.record.run.clone();
        let stop = self.context.stop.clone();
        let ordinal = tokio::select! {
            ordinal = self.join() => ordinal,
            () = stop.finishing() => return,
            () = is_closed(&mut closed) => return,
        };
        tracing::info!(%run, ordinal, "serving a run");
        self.context.clock.follow(&run);
        self.await_clock().await;
        let (keeper, mut events) = LeaseKeeper::start(&self.context, &run);
        let warden = Warden::start(&self.context, &run);
        let hold = Arc::new(Hold {
            run: run.clone(),
            keeper,
            room: self.room.clone(),
            sharing: Sharing::new(self.unit(), self.claims, self.context.daemon),
            alone: self.context.common.run.is_some(),
            stop: stop.clone(),
        });
        // Not a sleep in the loop: lease events that come more often would put it off for ever.
        let mut poll = interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.heed(event, &hold, ordinal).await,
                    // The keeper has ended: without leases everything goes back, and the run is begun anew.
                    None => break,
                },
                ended = self.balance.given_back() => self.gave_back(ended, &hold).await,
                () = self.wake.notified() => {
                    tokio::time::sleep(self.spread()).await;
                    self.take(&hold).await;
                }
                () = self.room.freed() => self.take(&hold).await,
                _ = poll.tick() => {
                    if !self.listed {
                        self.enlist_again(ordinal).await;
                    }
                    self.take(&hold).await;
                }
                () = is_closed(&mut closed) => break,
                () = stop.finishing() => break,
            }
        }
        if let Some((_, reserved)) = self.doubtful.take() {
            // Nobody asks again what the store had given; it is freed with the lease.
            self.room.release(reserved);
        }
        if *closed.borrow() {
            self.pool.tell_all(|| Command::Dismiss { run: run.clone() }).await;
            tracing::info!(%run, "the run is closed");
            self.sign_off(&hold, "left the closed run").await;
        } else {
            self.give_back(&hold, &mut events, ordinal).await;
        }
        hold.keeper.close();
        drop(warden);
    }

    fn unit(&self) -> ClaimUnit {
        if self.record.pins.claim_unit == ClaimUnit::Partition.as_str() {
            ClaimUnit::Partition
        } else {
            ClaimUnit::Topic
        }
    }

    fn spread(&self) -> Duration {
        SPREAD.mul_f64(f64::from(self.context.daemon.0 as u8) / 256.0)
    }

    async fn await_clock(&self) {
        let limit = tokio::time::Instant::now() + CLOCK_WAIT;
        while !self.context.clock.is_disciplined() && tokio::time::Instant::now() < limit {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Joins the roster, however long the run refuses.
    async fn join(&mut self) -> u32 {
        loop {
            match self.enlist(None).await {
                Some(ordinal) => return ordinal,
                None => tokio::time::sleep(REFUSED).await,
            }
        }
    }

    /// Joins the roster; `None` when the run refuses.
    async fn enlist(&mut self, wish: Option<u32>) -> Option<u32> {
        let (run, daemon) = (self.record.run.clone(), self.context.daemon);
        loop {
            match self.context.store.enlist(&run, daemon, Role::Consumer, wish).await {
                Ok(ordinal) => {
                    self.is_back();
                    return Some(ordinal);
                }
                Err(problem) => match self.is_away(&problem) {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => return None,
                },
            }
        }
    }

    /// Joins the roster under the same number; where the run refuses, it is tried again with the next poll.
    async fn enlist_again(&mut self, ordinal: u32) {
        self.listed = self.enlist(Some(ordinal)).await.is_some();
    }

    /// One line when the store goes away or refuses; how long to wait, or `None` when waiting does not help.
    fn is_away(&mut self, problem: &Error) -> Option<Duration> {
        match problem.fate() {
            Fate::Retry(pause) => {
                if !std::mem::replace(&mut self.store_away, true) {
                    tracing::warn!(run = %self.record.run, "failed to {problem}; trying again");
                }
                Some(pause)
            }
            Fate::LetGo | Fate::Reject => {
                if !std::mem::replace(&mut self.refused, true) {
                    tracing::error!(run = %self.record.run, "failed to {problem}");
                }
                None
            }
        }
    }

    fn is_back(&mut self) {
        self.store_away = false;
        self.refused = false;
    }

    async fn heed(&mut self, event: LeaseEvent, hold: &Hold, ordinal: u32) {
        let run = self.record.run.clone();
        match event {
            LeaseEvent::RosterLost => {
                tracing::warn!(%run, "this consumer was found dead; joining again");
                self.enlist_again(ordinal).await;
            }
            // Taken again meanwhile: what was held there before is missing in the next renewal's list.
            LeaseEvent::PartitionLost(partition) if hold.keeper.valid_until(partition).is_some() => {}
            LeaseEvent::PartitionLost(partition) => {
                self.balance.holds(partition, false);
                self.pool.tell(partition, Command::Lost { run, partition }).await;
            }
            LeaseEvent::Held {
                partition,
                asked_at,
                claims,
            } => {
                // An answer that was overtaken by the end of the hold says nothing.
                let held = hold.keeper.valid_until(partition).is_some();
                self.balance.holds(partition, held && !claims.is_empty());
                let held = Command::Held {
                    run,
                    partition,
                    asked_at,
                    claims,
                };
                self.pool.tell(partition, held).await;
            }
            LeaseEvent::NewServerLife => {
                tracing::warn!(%run, "the store has restarted; writing again what is young");
                self.enlist_again(ordinal).await;
                self.pool.tell_all(|| Command::WriteAgain { run: run.clone() }).await;
            }
            LeaseEvent::Away | LeaseEvent::Back => {}
        }
    }

    /// The daemon finishes: everything goes back, then the leases, then the place in the roster.
    async fn give_back(&mut self, hold: &Arc<Hold>, events: &mut mpsc::Receiver<LeaseEvent>, ordinal: u32) {
        let (run, pool) = (hold.run.clone(), self.pool.clone());
        let leaving = pool.leave(&run);
        tokio::pin!(leaving);
        loop {
            tokio::select! {
                () = &mut leaving => break,
                // Leases are renewed until nothing is held.
                Some(event) = events.recv() => self.heed(event, hold, ordinal).await,
                () = hold.stop.aborting() => return,
            }
        }
        self.sign_off(hold, "gave everything back").await;
    }

    /// The leases of partitions in which nothing is held any more, then the place in the roster, end in order. A consumer
    /// without this last word counts as vanished.
    async fn sign_off(&self, hold: &Hold, done: &str) {
        let (store, daemon, run) = (&self.context.store, self.context.daemon, &hold.run);
        let partitions = hold.keeper.partitions();
        let last = async {
            for partition in partitions {
                hold.keeper.remove(partition);
                store.release(run, partition, daemon).await?;
            }
            store.discharge(run, daemon).await
        };
        tokio::select! {
            last = last => match last {
                Ok(()) => tracing::info!(%run, "{done}"),
                Err(problem) => tracing::warn!(%run, "failed to {problem}; the leases run out by themselves"),
            },
            () = hold.stop.aborting() => {}
        }
    }
}

/// Returns once the run is closed.
async fn is_closed(closed: &mut watch::Receiver<bool>) {
    // An error means that nobody is left to say so: as good as closed.
    let _ = closed.wait_for(|closed| *closed).await;
}

/// A run's name and how to wake and end its task.
pub struct Handle {
    /// The run.
    pub run: RunName,
    /// Topics were registered or freed.
    pub wake: Arc<Notify>,
    /// The run is closed.
    pub closed: watch::Sender<bool>,
    /// Its task.
    pub task: tokio::task::JoinHandle<()>,
}
