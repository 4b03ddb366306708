//! One run, from joining its roster to giving everything back: leases, room, claims.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use isochrone_daemon::{
    Context,
    lease::{LeaseEvent, LeaseKeeper},
    settings::ClaimUnit,
    warden::Warden,
};
use isochrone_model::id::{Partition, RunName};
use isochrone_store::{
    Error, Fate,
    types::{Claimed, Role, RunRecord, TopicStatus},
};
use tokio::sync::{Notify, mpsc, watch};

use crate::{
    claims::{Room, fair_share, order},
    connect::Sharing,
    tender::Hold,
    worker::{Command, Pool},
};

/// Between two looks for free topics when nothing is announced.
const POLL: Duration = Duration::from_secs(1);

/// Announced topics are looked for after a part of this, each daemon after another, so that a hundred consumers do not
/// ask at once.
const SPREAD: Duration = Duration::from_millis(50);

/// Looks without anything free after which a consumer that holds nothing says that it idles.
const SURPLUS: u32 = 3;

/// Looks after which partitions beyond the fair share are taken because nobody else does.
const LEFT_OVER: u32 = 3;

/// Before the reference clock has been read nothing is measured; a store that is reached answers it at once.
const CLOCK_WAIT: Duration = Duration::from_secs(2);

/// A run at work.
pub struct Run {
    context: Context,
    record: RunRecord,
    pool: Arc<Pool>,
    room: Arc<Room>,
    claims: Option<usize>,
    wake: Arc<Notify>,
    partitions: BTreeSet<Partition>,
    doubtful: Option<(Partition, usize)>,
    empty_looks: u32,
    said_idle: bool,
    store_away: bool,
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
            partitions: BTreeSet::new(),
            doubtful: None,
            empty_looks: 0,
            said_idle: false,
            store_away: false,
        }
    }

    /// Works until the run is closed (`closed` says so) or the daemon finishes.
    pub async fn serve(mut self, mut closed: watch::Receiver<bool>) {
        let run = self.record.run.clone();
        let stop = self.context.stop.clone();
        let enlisted = tokio::select! {
            enlisted = self.enlist(None) => enlisted,
            () = stop.finishing() => None,
            () = is_closed(&mut closed) => None,
        };
        let Some(ordinal) = enlisted else { return };
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
            stop: stop.clone(),
        });
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.heed(event, ordinal).await,
                    // The keeper has ended; its end has stopped the daemon.
                    None => break,
                },
                () = self.wake.notified() => {
                    tokio::time::sleep(self.spread()).await;
                    self.take(&hold).await;
                }
                () = self.room.freed() => self.take(&hold).await,
                () = tokio::time::sleep(POLL) => self.take(&hold).await,
                () = is_closed(&mut closed) => break,
                () = stop.finishing() => break,
            }
        }
        if *closed.borrow() {
            self.pool.tell_all(|| Command::Dismiss { run: run.clone() }).await;
            tracing::info!(%run, "the run is closed");
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

    /// Joins the roster; `None` when the run takes no one any more.
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

    /// One line when the store goes away; how long to wait, or `None` when waiting does not help.
    fn is_away(&mut self, problem: &Error) -> Option<Duration> {
        match problem.fate() {
            Fate::Retry(pause) => {
                if !std::mem::replace(&mut self.store_away, true) {
                    tracing::warn!(run = %self.record.run, "failed to {problem}; trying again");
                }
                Some(pause)
            }
            Fate::LetGo | Fate::Reject => {
                tracing::error!(run = %self.record.run, "failed to {problem}");
                None
            }
        }
    }

    fn is_back(&mut self) {
        self.store_away = false;
    }

    async fn heed(&mut self, event: LeaseEvent, ordinal: u32) {
        let run = self.record.run.clone();
        match event {
            LeaseEvent::RosterLost => {
                tracing::warn!(%run, "this consumer was found dead; joining again");
                self.enlist(Some(ordinal)).await;
            }
            LeaseEvent::PartitionLost(partition) => {
                self.partitions.remove(&partition);
                self.pool.tell(partition, Command::Lost { run, partition }).await;
            }
            LeaseEvent::Held(partition, claims) => {
                self.pool
                    .tell(partition, Command::Held { run, partition, claims })
                    .await;
            }
            LeaseEvent::NewServerLife => {
                tracing::warn!(%run, "the store has restarted; writing again what is young");
                self.enlist(Some(ordinal)).await;
                self.pool.tell_all(|| Command::WriteAgain { run: run.clone() }).await;
            }
            LeaseEvent::Away | LeaseEvent::Back => {}
        }
    }

    /// Takes what is free while there is room.
    async fn take(&mut self, hold: &Arc<Hold>) {
        if let Some((partition, want)) = self.doubtful {
            // The answer to a claim was lost: asked again, the store names what it had given.
            if !self.claim(hold, partition, want).await {
                return;
            }
        }
        if !self.room.is_free() {
            return;
        }
        let run = self.record.run.clone();
        let free = match self.context.store.free(&run).await {
            Ok(free) => free,
            Err(problem) => {
                self.is_away(&problem);
                return;
            }
        };
        self.is_back();
        let free = order(free, self.context.daemon);
        self.say_idle(free.is_empty());
        match self.unit() {
            ClaimUnit::Topic => self.take_topics(hold, free).await,
            ClaimUnit::Partition => self.take_partitions(hold, free).await,
        }
        let held = self.room.held();
        self.context
            .health
            .set_ready(true, &format!("listens for {held} topics"));
    }

    fn say_idle(&mut self, nothing_free: bool) {
        let surplus = nothing_free && self.room.held() == 0;
        self.empty_looks = if surplus { self.empty_looks + 1 } else { 0 };
        if self.empty_looks == SURPLUS && !std::mem::replace(&mut self.said_idle, true) {
            tracing::info!(run = %self.record.run, "no topic is free: this consumer idles until one is");
        }
    }

    async fn take_topics(&mut self, hold: &Arc<Hold>, free: Vec<(Partition, u64)>) {
        for (partition, count) in free {
            let want = self.room.reserve(count as usize);
            if want == 0 || !self.claim(hold, partition, want).await {
                return;
            }
        }
    }

    /// Whole partitions: those we hold already, then new ones up to a fair share, then what nobody else takes.
    async fn take_partitions(&mut self, hold: &Arc<Hold>, free: Vec<(Partition, u64)>) {
        if free.is_empty() {
            return;
        }
        let share = match self.share().await {
            Ok(share) => share,
            Err(problem) => {
                self.is_away(&problem);
                return;
            }
        };
        let beyond = free.iter().any(|(partition, _)| !self.partitions.contains(partition));
        self.empty_looks = if beyond && self.partitions.len() >= share {
            self.empty_looks + 1
        } else {
            0
        };
        let limit = if self.empty_looks >= LEFT_OVER {
            usize::MAX
        } else {
            share
        };
        for (partition, count) in free {
            let ours = self.partitions.contains(&partition);
            if !ours && (self.partitions.len() >= limit || self.is_anothers(partition).await) {
                continue;
            }
            let want = self.room.reserve(count as usize);
            if want == 0 || !self.claim(hold, partition, want).await {
                return;
            }
        }
    }

    async fn share(&self) -> Result<usize, Error> {
        let roster = self.context.store.roster(&self.record.run).await?;
        let alive = roster
            .iter()
            .filter(|member| member.role == Role::Consumer && !member.ended && !member.vanished);
        Ok(fair_share(self.record.pins.partitions, alive.count()))
    }

    /// Another consumer listens for this partition with the session that we would take away from it.
    async fn is_anothers(&self, partition: Partition) -> bool {
        let topics = self.context.store.topics(&self.record.run, partition).await;
        let Ok(topics) = topics else { return true };
        topics.iter().any(|topic| {
            matches!(topic.status, TopicStatus::Claimed | TopicStatus::Ready)
                && topic.holder.is_some_and(|(daemon, _)| daemon != self.context.daemon)
        })
    }

    /// Claims with room reserved; false when the store did not answer.
    async fn claim(&mut self, hold: &Arc<Hold>, partition: Partition, want: usize) -> bool {
        let daemon = self.context.daemon;
        let claimed: Vec<Claimed> = match self.context.store.claim(&hold.run, partition, daemon, want).await {
            Ok(claimed) => claimed,
            Err(problem) => {
                // It may have happened: the room stays reserved until the store has said so.
                if self.is_away(&problem).is_some() {
                    self.doubtful = Some((partition, want));
                } else {
                    self.doubtful = None;
                    self.room.release(want);
                }
                return false;
            }
        };
        self.doubtful = None;
        self.is_back();
        // Quietly: this consumer itself is the one that would be woken.
        self.room.give_up(want - claimed.len().min(want));
        if claimed.is_empty() {
            return true;
        }
        hold.keeper.add(partition);
        self.partitions.insert(partition);
        if claimed.len() == 1 {
            tracing::info!(run = %hold.run, topic = %claimed[0].topic, "claimed a topic");
        } else {
            tracing::info!(run = %hold.run, %partition, topics = claimed.len(), "claimed topics");
        }
        let hold = hold.clone();
        self.pool
            .tell(
                partition,
                Command::Claim {
                    hold,
                    partition,
                    claimed,
                },
            )
            .await;
        true
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
                Some(event) = events.recv() => self.heed(event, ordinal).await,
                () = hold.stop.aborting() => return,
            }
        }
        let (store, daemon) = (self.context.store.clone(), self.context.daemon);
        let partitions = std::mem::take(&mut self.partitions);
        let last = async {
            for partition in partitions {
                hold.keeper.remove(partition);
                store.release(&run, partition, daemon).await?;
            }
            store.discharge(&run, daemon).await
        };
        tokio::select! {
            last = last => match last {
                Ok(()) => tracing::info!(%run, "gave everything back"),
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
