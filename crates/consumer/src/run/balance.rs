//! Whole partitions, a fair share of them for each consumer: who has less takes more, who has too many gives some back.

use std::{collections::BTreeSet, future::pending, sync::Arc, time::Duration};

use isochrone_model::id::{DaemonId, Partition};
use isochrone_store::{Error, types::Role};
use tokio::{
    task::{JoinError, JoinSet},
    time::Instant,
};

use super::Run;
use crate::{
    claims::{fair_share, order},
    tender::Hold,
};

/// Partitions beyond the fair share are taken when nobody else has for this long.
const LEFT_OVER: Duration = Duration::from_secs(3);

/// Which partitions this consumer holds as a whole, and which are on their way to others.
#[derive(Default)]
pub struct Balance {
    held: BTreeSet<Partition>,
    yielded: BTreeSet<Partition>,
    yields: JoinSet<Partition>,
    /// Since when something is free beyond the fair share.
    left_over: Option<Instant>,
    /// These consumers left to us what was theirs: as long as nobody joins or leaves, it stays here.
    content: Option<BTreeSet<DaemonId>>,
}

impl Balance {
    /// Claims are held there, or none any more.
    pub fn holds(&mut self, partition: Partition, any: bool) {
        if any && !self.yielded.contains(&partition) {
            self.held.insert(partition);
        } else {
            self.held.remove(&partition);
        }
    }

    /// The next partition that has been given back.
    pub async fn given_back(&mut self) -> Result<Partition, JoinError> {
        match self.yields.join_next().await {
            Some(ended) => ended,
            None => pending().await,
        }
    }
}

impl Run {
    /// First those held already, then new ones up to a fair share, then what nobody else takes. What is held beyond the
    /// fair share goes to consumers that came later.
    pub(super) async fn take_partitions(&mut self, hold: &Arc<Hold>, free: Vec<(Partition, u64)>) {
        if free.is_empty() && self.balance.held.len() <= 1 {
            return;
        }
        let consumers = match self.consumers().await {
            Ok(consumers) => consumers,
            Err(problem) => {
                self.is_away(&problem);
                return;
            }
        };
        let share = fair_share(self.record.pins.partitions, consumers.len());
        if self
            .balance
            .content
            .as_ref()
            .is_some_and(|content| *content != consumers)
        {
            self.balance.content = None;
        }
        let left_over = self.left_over(&free, share);
        if left_over {
            self.balance.content = Some(consumers);
        }
        let limit = if left_over { usize::MAX } else { share };
        for (partition, count) in free {
            let ours = self.balance.held.contains(&partition);
            let leaving = self.balance.yielded.contains(&partition);
            if leaving || (!ours && self.balance.held.len() >= limit) {
                continue;
            }
            let want = self.room.reserve(count as usize);
            // Where another holds the partition, the store gives nothing.
            if want == 0 || !self.claim(hold, partition, want).await {
                return;
            }
        }
        if self.balance.content.is_none() {
            self.give_way(hold, share);
        }
    }

    /// Whether others have left partitions free for long, that are beyond our share.
    fn left_over(&mut self, free: &[(Partition, u64)], share: usize) -> bool {
        let balance = &mut self.balance;
        let beyond = free
            .iter()
            .any(|(partition, _)| !balance.held.contains(partition) && !balance.yielded.contains(partition));
        if !beyond || balance.held.len() < share {
            balance.left_over = None;
            return false;
        }
        balance.left_over.get_or_insert_with(Instant::now).elapsed() >= LEFT_OVER
    }

    /// Consumers that live, as far as the roster knows.
    async fn consumers(&self) -> Result<BTreeSet<DaemonId>, Error> {
        let roster = self.context.store.roster(&self.record.run).await?;
        let alive = roster
            .iter()
            .filter(|member| member.role == Role::Consumer && member.stands());
        Ok(alive.map(|member| member.daemon).collect())
    }

    /// Gives back what is held beyond the share: sessions are kept, so that who takes them next misses nothing.
    fn give_way(&mut self, hold: &Arc<Hold>, share: usize) {
        // A claim whose answer was lost is settled first: it may be in one of them.
        if self.balance.held.len() <= share || self.doubtful.is_some() {
            return;
        }
        let held = self.balance.held.iter().map(|partition| (*partition, 0)).collect();
        for (partition, _) in order(held, self.context.daemon).into_iter().skip(share) {
            tracing::info!(run = %hold.run, %partition, "giving a partition back: another consumer has less than its share");
            self.balance.held.remove(&partition);
            self.balance.yielded.insert(partition);
            let (pool, run) = (self.pool.clone(), hold.run.clone());
            self.balance.yields.spawn(async move {
                pool.give_back(&run, partition).await;
                partition
            });
        }
    }

    /// A partition is given back: its lease goes too.
    pub(super) async fn gave_back(&mut self, ended: Result<Partition, JoinError>, hold: &Hold) {
        let Ok(partition) = ended else {
            // Nothing in there panics, and nobody aborts it but the end of the run.
            return;
        };
        hold.keeper.remove(partition);
        let released = self
            .context
            .store
            .release(&hold.run, partition, self.context.daemon)
            .await;
        if let Err(problem) = released {
            tracing::warn!(run = %hold.run, %partition, "failed to {problem}; the lease runs out by itself");
        }
        self.balance.yielded.remove(&partition);
    }
}
