//! What follows when the store restarts and has forgotten its last moments: what is held is read again, and what was given up
//! for good is given up again as long as that may be forgotten.

use isochrone_model::{id::Partition, time::Monotonic};
use isochrone_sink::Departure;
use isochrone_store::{Error, types::Holder};
use tracing::warn;

use super::Serving;
use crate::holding::{Desk, Holding};

/// A partition that was given up for good.
#[derive(Clone, Copy)]
pub(super) struct Retired {
    at: Monotonic,
    /// The newest cut, and the newest that the store has promised never to lose.
    newest: u64,
    promised: u64,
}

impl Serving {
    /// Gives the partition of a closed run up for good. One that a sink has not had all of goes to whoever still serves the
    /// run.
    pub(super) async fn retire(&mut self, desk: &Desk, partition: Partition) -> Result<(), Error> {
        self.hear(desk);
        if !self.is_finished(partition) {
            return self.let_go(desk, partition).await;
        }
        let Some(holding) = self.holdings.get_mut(&partition) else {
            return Ok(());
        };
        let (newest, promised) = (holding.newest(), holding.secure(desk));
        let retired = holding.retire(desk).await;
        if retired.is_ok() {
            let at = self.clock.monotonic();
            self.retired.insert(partition, Retired { at, newest, promised });
            self.holdings.remove(&partition);
            desk.sinks.depart(&self.record.run, partition, Departure::Closed);
            self.keeper.remove(partition);
        }
        self.heed(desk, partition, retired)
    }

    /// The store may have forgotten its last moments: what it has now is the truth. A partition that could not be read stays
    /// as it is until the next round. A store that has forgotten what it had promised to keep was restored from an old copy.
    pub(super) async fn reload(&mut self, desk: &Desk) -> Result<(), Error> {
        for partition in self.to_reload.clone() {
            let done = self.reload_one(desk, partition).await;
            if done.is_ok() {
                self.to_reload.remove(&partition);
            }
            self.heed(desk, partition, done)?;
        }
        Ok(())
    }

    async fn reload_one(&mut self, desk: &Desk, partition: Partition) -> Result<(), Error> {
        let retired = self.retired.get(&partition).copied();
        let held = self.holdings.get_mut(&partition).map(|holding| holding.secure(desk));
        let Some(promised) = held.or(retired.map(|retired| retired.promised)) else {
            return Ok(());
        };
        let Some(holding) = self.take(desk, partition).await? else {
            if retired.is_some() {
                self.hide_unless_finished(desk, partition).await?;
                self.retired.remove(&partition);
                return Ok(());
            }
            self.lose(desk, partition);
            return Ok(());
        };
        if let Some(retired) = retired.filter(|retired| retired.newest == holding.newest() && holding.is_done()) {
            // Only that was forgotten: what the page shows of it stays.
            return self.retire_again(desk, partition, holding, retired).await;
        }
        if holding.newest() < promised {
            warn!(run = %self.record.run, %partition, cut = holding.newest(), promised,
                "the store has lost more than its last moments; the run is marked restored");
            desk.store.mark_restored(&self.record.run).await?;
        }
        self.retired.remove(&partition);
        desk.sinks.depart(&self.record.run, partition, Departure::Moved);
        self.begin(desk, partition, holding);
        Ok(())
    }

    async fn retire_again(
        &mut self,
        desk: &Desk,
        partition: Partition,
        mut holding: Holding,
        retired: Retired,
    ) -> Result<(), Error> {
        holding.retire(desk).await?;
        self.keeper.remove(partition);
        let at = self.clock.monotonic();
        self.retired.insert(partition, Retired { at, ..retired });
        Ok(())
    }

    /// A partition that was finished here, and that nobody can take here: it still is, or another plotter has it, which shows it.
    async fn hide_unless_finished(&self, desk: &Desk, partition: Partition) -> Result<(), Error> {
        let holders = desk.store.holders(self.run(), &[partition]).await?;
        if holders.iter().any(|(_, holder)| matches!(holder, Holder::Plotter(_))) {
            desk.sinks.depart(self.run(), partition, Departure::Moved);
        }
        Ok(())
    }

    /// The store cannot forget any more that these were given up for good: unless it has restarted, which is heard first.
    pub(super) fn forget_retired(&mut self, desk: &Desk) {
        self.hear(desk);
        let to_reload = &self.to_reload;
        self.retired
            .retain(|partition, retired| to_reload.contains(partition) || !desk.keeps_what_it_had_at(retired.at));
    }
}
