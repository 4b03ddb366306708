//! Finds the dead: polls leases and roster, evicts and expels whose counters stood still.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use isochrone_model::{
    id::{DaemonId, Partition, RunName},
    time::{Clock, Monotonic},
};
use isochrone_store::{
    lease::{ANSWER_WITHIN, Observer},
    types::{Member, Note, NoteKind, RunRecord},
};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{answer, watches_leases};
use crate::Context;

/// The roster is observed like one more partition.
const ROSTER: Partition = Partition(0);

pub struct Watcher {
    context: Arc<Context>,
    run: RunName,
    partitions: Vec<Partition>,
    leases: Observer,
    members: Observer,
    /// The roster as last read, for the closer.
    seen: watch::Sender<Option<Vec<Member>>>,
    /// It is among the few that watch leases.
    watches_leases: bool,
    /// Told of once each; a run has only so many daemons die.
    told: BTreeSet<DaemonId>,
}

impl Watcher {
    pub fn new(context: Arc<Context>, record: &RunRecord, seen: watch::Sender<Option<Vec<Member>>>) -> Watcher {
        let lease = context.common.lease;
        Watcher {
            context,
            run: record.run.clone(),
            partitions: (0..record.pins.partitions).map(Partition).collect(),
            leases: Observer::new(lease),
            members: Observer::new(lease),
            seen,
            watches_leases: true,
            told: BTreeSet::new(),
        }
    }

    /// Polls four times a lease, for polls more than a third of one apart start the observation anew.
    pub async fn run(&mut self) {
        let mut ticks = interval(self.context.common.lease / 4);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let _: Instant = ticks.tick().await;
            let (leases, members) = tokio::join!(self.ask_leases(), self.ask_members());
            let now = self.context.clock.monotonic();
            let dead = self.leases.see(now, leases.0, leases.1.as_deref());
            for (partition, daemon, counter) in dead {
                self.evict(partition, daemon, counter).await;
            }
            let rows = members.1.as_deref().map(standing);
            let dead = self.members.see(now, members.0, rows.as_deref());
            if let Some(members) = members.1 {
                self.watches_leases = watches_leases(self.context.daemon, &members, |daemon| self.lives(now, daemon));
                self.seen.send_replace(Some(members));
            }
            for (_, daemon, counter) in dead {
                self.expel(daemon, counter).await;
            }
        }
    }

    /// Nothing while others watch them: an observation begins when this daemon's turn has come.
    async fn ask_leases(&self) -> (Monotonic, Option<Vec<(Partition, DaemonId, u64)>>) {
        let asked_at = self.context.clock.monotonic();
        if !self.watches_leases {
            return (asked_at, None);
        }
        let leases = self.context.store.leases(&self.run, &self.partitions);
        (asked_at, answer(ANSWER_WITHIN, leases).await.ok())
    }

    /// Whether its counter has moved within five sixths of a lease: it does each third, and is seen to a quarter later. Less than
    /// what makes it dead, so that another begins to watch before it is off the roster.
    fn lives(&self, now: Monotonic, daemon: DaemonId) -> bool {
        let patience = self.context.common.lease * 5 / 6;
        u128::from(self.members.stood_ns(now, ROSTER, daemon)) < patience.as_nanos()
    }

    async fn ask_members(&self) -> (Monotonic, Option<Vec<Member>>) {
        let asked_at = self.context.clock.monotonic();
        let roster = self.context.store.roster(&self.run);
        (asked_at, answer(ANSWER_WITHIN, roster).await.ok())
    }

    async fn evict(&mut self, partition: Partition, daemon: DaemonId, counter: u64) {
        // Our own row: the keeper will find out by itself whether others took it.
        if daemon == self.context.daemon {
            return;
        }
        // A lost answer is no matter: the row is seen again, or is gone.
        if let Ok(true) = answer(
            ANSWER_WITHIN,
            self.context.store.evict(&self.run, partition, daemon, counter),
        )
        .await
        {
            self.tell(daemon, "is dead; what it held is free").await;
            tracing::debug!(run = %self.run, %daemon, %partition, "evicted");
        }
    }

    async fn expel(&mut self, daemon: DaemonId, counter: u64) {
        if daemon == self.context.daemon {
            return;
        }
        if let Ok(true) = answer(ANSWER_WITHIN, self.context.store.expel(&self.run, daemon, counter)).await {
            self.tell(daemon, "is dead; it leaves the roster").await;
        }
    }

    async fn tell(&mut self, daemon: DaemonId, what: &str) {
        if !self.told.insert(daemon) {
            return;
        }
        tracing::warn!(run = %self.run, %daemon, "a daemon of this run {what}");
        let note = Note {
            daemon,
            what: NoteKind::Dead,
            at: self.context.clock.reference(),
            lasted_ns: 0,
        };
        if let Err(error) = answer(ANSWER_WITHIN, self.context.store.note(&self.run, &note)).await {
            tracing::warn!(run = %self.run, %daemon, "failed to keep for the report when it was found dead: {error}");
        }
    }
}

/// Members that neither ended nor vanished.
fn standing(members: &[Member]) -> Vec<(Partition, DaemonId, u64)> {
    let standing = members.iter().filter(|member| member.stands());
    standing.map(|member| (ROSTER, member.daemon, member.counter)).collect()
}

/// How often a warden that does not lead looks whether it must.
pub fn poll_every(lease: Duration) -> Duration {
    (lease / 4).min(Duration::from_secs(5))
}
