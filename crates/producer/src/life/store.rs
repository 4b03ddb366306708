//! What a life does when the store is away, was rolled back, or gave its place away.
//!
//! After every break the server's life is read before anything is written: a store that lost its last second must get
//! what it lost before anything newer, or the older numbers would look like repeats.

use std::time::Duration;

use isochrone_daemon::lease::LeaseEvent;
use isochrone_store::{Error as StoreError, Fate};
use tracing::{info, warn};

use super::Life;
use crate::worker::Command;

/// Whether the store may be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Yes.
    There,
    /// It is being asked whether it is the one it was; `doubt`: it said that our place is gone.
    Asking {
        /// See there.
        doubt: bool,
    },
    /// Everything is being registered again.
    Restoring,
}

impl Reach {
    /// Whether the store may be written to.
    pub fn is_there(self) -> bool {
        self == Reach::There
    }
}

impl Life {
    pub(super) fn lease_event(&mut self, event: Option<LeaseEvent>) {
        match event {
            Some(LeaseEvent::RosterLost | LeaseEvent::PartitionLost(_)) => self.doubt(),
            Some(LeaseEvent::NewServerLife) if self.reach != Reach::Restoring => {
                info!(run = %self.run, "the store has a new life: registers and sends again what it may have forgotten");
                self.reach = Reach::Restoring;
                self.restore();
            }
            Some(LeaseEvent::NewServerLife | LeaseEvent::Held { .. } | LeaseEvent::Away | LeaseEvent::Back) => {}
            // The keeper ends before this life only when the daemon's tasks are dropped.
            None => self.leased = false,
        }
    }

    /// A call failed.
    pub(super) async fn trouble(&mut self, error: StoreError) {
        match error.fate() {
            Fate::Retry(after) => {
                if self.reach.is_there() {
                    if !std::mem::replace(&mut self.told_away, true) {
                        warn!(run = %self.run, "failed to {error}; keeps counting and tries again");
                    }
                    self.reach = Reach::Asking { doubt: false };
                    self.read_life(self.pause(after));
                }
            }
            Fate::LetGo => self.doubt(),
            Fate::Reject => self.fail(error.into()).await,
        }
    }

    /// Our place seems gone: given away, or forgotten with a second of the server's life?
    fn doubt(&mut self) {
        match self.reach {
            Reach::There => {
                self.reach = Reach::Asking { doubt: true };
                self.read_life(Duration::ZERO);
            }
            Reach::Asking { .. } => self.reach = Reach::Asking { doubt: true },
            Reach::Restoring => {}
        }
    }

    pub(super) async fn life_read(&mut self, answer: Result<String, StoreError>) {
        let Reach::Asking { doubt } = self.reach else {
            return;
        };
        let life = match answer {
            Ok(life) => life,
            Err(error) => {
                let Fate::Retry(after) = error.fate() else {
                    return self.refused(error).await;
                };
                return self.read_life(self.pause(after));
            }
        };
        if self.server_life.as_ref() != Some(&life) {
            self.server_life = Some(life);
            self.reach = Reach::Restoring;
            return self.restore();
        }
        self.reach = Reach::There;
        if doubt {
            self.lose().await;
        } else {
            // Whether it takes what is written, the next flush tells.
            self.flush();
        }
    }

    /// The store answers again, and says no: what it still takes is written.
    async fn refused(&mut self, error: StoreError) {
        self.reach = Reach::There;
        self.fail(error.into()).await;
    }

    pub(super) async fn restored(&mut self, answer: Result<u32, StoreError>) {
        match answer {
            Ok(ordinal) if ordinal == self.ordinal => {
                for (place, registered) in self.devices.iter().enumerate() {
                    if let Some(outbox) = self.outboxes.get_mut(&registered.partition) {
                        outbox.touch(registered.device.epoch, &self.rows[place]);
                    }
                }
                self.repeat_recent();
                self.places.keys().for_each(|partition| self.keeper.add(*partition));
                self.reach = Reach::There;
                self.flush();
            }
            Ok(ordinal) => {
                warn!(run = %self.run, had = self.ordinal, ordinal, "another producer has this one's place");
                self.reach = Reach::There;
                self.repeat_recent();
                self.lose().await;
            }
            // It went on without us: found dead, and drained or closed.
            Err(error @ StoreError::Run { .. }) => {
                warn!(run = %self.run, "failed to {error}");
                self.reach = Reach::There;
                self.repeat_recent();
                self.lose().await;
            }
            Err(error) => {
                let Fate::Retry(after) = error.fate() else {
                    return self.refused(error).await;
                };
                self.reach = Reach::Asking { doubt: false };
                // Not the life it was: the next reading restores again.
                self.server_life = None;
                self.read_life(self.pause(after));
            }
        }
    }

    /// The store may have forgotten what it last took, whoever has this producer's place by now.
    fn repeat_recent(&mut self) {
        self.outboxes.values_mut().for_each(crate::flush::Outbox::repeat_recent);
    }

    /// Disconnects; the last words follow when the workers have ended.
    async fn lose(&mut self) {
        if self.lost {
            return;
        }
        self.lost = true;
        self.context.health.set_ready(false, "its place in the run is gone");
        warn!(run = %self.run, "its place in the run is gone: disconnects and says its last words");
        if self.working == 0 {
            self.all_ended();
        }
        self.tell(|| Command::GiveUp).await;
    }

    /// Redis is tried again at least every sixth of a lease.
    fn pause(&self, after: Duration) -> Duration {
        after.min(self.context.common.lease / 6).max(Duration::from_millis(10))
    }
}
