//! Takes what is free while there is room.

use std::sync::Arc;

use isochrone_daemon::settings::ClaimUnit;
use isochrone_model::id::Partition;
use isochrone_store::types::Claimed;

use super::Run;
use crate::{claims::order, tender::Hold, worker::Command};

/// Looks without anything free after which a consumer that holds nothing says that it idles.
const SURPLUS: u32 = 3;

impl Run {
    /// Takes what is free while there is room.
    pub(super) async fn take(&mut self, hold: &Arc<Hold>) {
        // The answer to a claim was lost: asked again, the store names what it had given.
        if let Some((partition, reserved)) = self.doubtful
            && !self.claim_again(hold, partition, reserved).await
        {
            return;
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

    /// Claims with room reserved; false when the store did not answer.
    pub(super) async fn claim(&mut self, hold: &Arc<Hold>, partition: Partition, reserved: usize) -> bool {
        self.ask(hold, partition, reserved, reserved).await
    }

    /// Asks what an answer that was lost had brought. Claims that wait for their subscription come with it: their room is
    /// given up again by the worker, which knows them.
    async fn claim_again(&mut self, hold: &Arc<Hold>, partition: Partition, reserved: usize) -> bool {
        self.ask(hold, partition, 0, reserved).await
    }

    async fn ask(&mut self, hold: &Arc<Hold>, partition: Partition, want: usize, reserved: usize) -> bool {
        let daemon = self.context.daemon;
        let claimed: Vec<Claimed> = match self.context.store.claim(&hold.run, partition, daemon, want).await {
            Ok(claimed) => claimed,
            Err(problem) => {
                // It may have happened: the room stays reserved until the store has said so.
                if self.is_away(&problem).is_some() {
                    self.doubtful = Some((partition, reserved));
                } else {
                    self.doubtful = None;
                    self.room.release(reserved);
                }
                return false;
            }
        };
        self.doubtful = None;
        self.is_back();
        // Quietly: this consumer itself is the one that would be woken.
        self.room.settle(reserved, claimed.len());
        if claimed.is_empty() {
            return true;
        }
        hold.keeper.add(partition);
        self.balance.holds(partition, true);
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
}
