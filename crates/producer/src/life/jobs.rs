//! What a life asks of the store, each as a job of its own.

use std::time::Duration;

use isochrone_model::id::Partition;
use isochrone_store::{
    Error as StoreError, Fate,
    types::{FlushAnswer, Role, TopicState},
};
use tokio::{task::JoinError, time::sleep};
use tracing::{info, warn};

use super::{Life, begin::DEVICES_AT_ONCE};
use crate::Error;

/// The end of a job.
pub enum Done {
    /// A flush was answered.
    Flushed(Partition, Result<FlushAnswer, StoreError>),
    /// A question for ready claims was answered.
    Topics(Partition, Result<Vec<TopicState>, StoreError>),
    /// The server's life was read.
    Read(Result<String, StoreError>),
    /// Everything was registered again, with this ordinal.
    Restored(Result<u32, StoreError>),
}

impl Life {
    /// Sends what every partition has to say, where nothing is on its way.
    pub(super) fn flush(&mut self) {
        let (clock, memory) = (&self.context.clock, self.context.store.memory());
        let there = self.reach.is_there();
        // After a lost lease only last words are taken, and what comes with them.
        let silent = self.lost && self.working > 0;
        for (&partition, outbox) in &mut self.outboxes {
            outbox.forget(|stored| clock.is_lasting(stored, memory));
            if !there || silent || self.flying.contains(&partition) {
                continue;
            }
            let Some(flush) = outbox.next() else { continue };
            self.flying.insert(partition);
            let (store, run, daemon) = (self.context.store.clone(), self.run.clone(), self.context.daemon);
            self.jobs.spawn(async move {
                Done::Flushed(partition, store.append_sends(&run, partition, daemon, &flush).await)
            });
        }
    }

    /// Asks which claims of a partition are ready, unless that is being asked.
    pub(super) fn ask_about(&mut self, partition: Partition) {
        if !self.asking.insert(partition) {
            return;
        }
        let (store, run) = (self.context.store.clone(), self.run.clone());
        self.jobs
            .spawn(async move { Done::Topics(partition, store.topics(&run, partition).await) });
    }

    /// Reads the server's life after a pause.
    pub(super) fn read_life(&mut self, pause: Duration) {
        let (store, run) = (self.context.store.clone(), self.run.clone());
        self.jobs.spawn(async move {
            sleep(pause).await;
            Done::Read(store.read(Some(&run)).await.map(|(_, life)| life))
        });
    }

    /// Enters run, roster and registry again, with the newest rows.
    pub(super) fn restore(&mut self) {
        let (store, run, daemon) = (self.context.store.clone(), self.run.clone(), self.context.daemon);
        let (request, ordinal) = (self.request.clone(), self.ordinal);
        let mut registrations = Vec::new();
        for (&partition, places) in &self.places {
            for some in places.chunks(DEVICES_AT_ONCE) {
                let states = some
                    .iter()
                    .map(|&place| self.devices[place].state(self.rows[place].clone()));
                registrations.push((partition, states.collect::<Vec<_>>()));
            }
        }
        self.jobs.spawn(async move {
            let restore = async {
                store.open_run(&request).await?;
                let ordinal = store.enlist(&run, daemon, Role::Producer, Some(ordinal)).await?;
                for (partition, states) in &registrations {
                    store.register(&run, *partition, daemon, states).await?;
                }
                Ok(ordinal)
            };
            Done::Restored(restore.await)
        });
    }

    pub(super) async fn done(&mut self, done: Option<Result<Done, JoinError>>) -> Result<(), Error> {
        match done {
            None => Ok(()),
            Some(Err(cause)) => Err(Error::Task(cause)),
            Some(Ok(Done::Flushed(partition, answer))) => {
                self.flying.remove(&partition);
                self.flushed(partition, answer).await;
                Ok(())
            }
            Some(Ok(Done::Topics(partition, answer))) => {
                self.asking.remove(&partition);
                match answer {
                    Ok(states) => self.waiting.see(partition, &states),
                    Err(error) if error.fate() == Fate::Reject => self.fail(error.into()).await,
                    // Asked again before long.
                    Err(_) => {}
                }
                Ok(())
            }
            Some(Ok(Done::Read(answer))) => {
                self.life_read(answer).await;
                Ok(())
            }
            Some(Ok(Done::Restored(answer))) => {
                self.restored(answer).await;
                Ok(())
            }
        }
    }

    async fn flushed(&mut self, partition: Partition, answer: Result<FlushAnswer, StoreError>) {
        let now = self.now();
        let last_words = self.working == 0 && (self.lost || self.failure.is_some());
        let Some(outbox) = self.outboxes.get_mut(&partition) else {
            return;
        };
        match answer {
            Ok(answer) => {
                outbox.stored(now);
                if std::mem::take(&mut self.told_away) {
                    info!(run = %self.run, "the store is back");
                }
                if answer.shed > 0 {
                    warn!(%partition, entries = answer.shed, "the store holds more than ISOCHRONE_RETAIN: entries were left out");
                }
                // The end should not wait for the next tick.
                if self.working == 0 {
                    self.flush();
                }
            }
            Err(error) if last_words && matches!(error.fate(), Fate::LetGo | Fate::Reject) => {
                warn!(%partition, "failed to {error}: the store does not take the last words");
                outbox.give_up();
            }
            Err(error) => self.trouble(error).await,
        }
    }
}
