//! What the registry is told and asked: subscriptions that stand, devices and their last words.

use std::time::Duration;

use isochrone_model::id::Topic;
use tokio::time::Instant;

use super::{EXPIRE, Tender};
use crate::desk::{Asked, Desk};

/// Shortest time between two questions about unknown epochs.
const LOOK_UP: Duration = Duration::from_millis(200);

/// Between two looks at the rows of devices while one of them has said its last word.
const DRAINING_LOOK: Duration = Duration::from_secs(1);

impl Tender {
    /// Tells the store of new subscriptions, so that producers start.
    pub(super) async fn tell_ready(&self, desk: &Desk) {
        let topics = self.slice.borrow().subscribed();
        if topics.is_empty() || Instant::now() < self.due.retry.get() {
            return;
        }
        let (store, run, partition) = (desk.equipment.store.clone(), self.hold.run.clone(), self.partition);
        let (daemon, told) = (desk.equipment.daemon, topics.clone());
        let answer = desk
            .ask(async move { store.ready(&run, partition, daemon, &told).await })
            .await;
        match answer {
            Ok(lost) => {
                desk.store_is_back(Asked::Writing);
                self.slice.borrow_mut().told_ready(&topics);
                self.drop_claims(&lost, "it was no longer ours when we had subscribed", desk);
                // What the devices have said meanwhile decides how long to wait for them.
                self.due.look_pause.set(Duration::ZERO);
            }
            Err(problem) => self.put_off(Asked::Writing, &problem, desk),
        }
    }

    /// Asks for the devices of the partition when it is time, or when an unknown epoch waits.
    pub(super) async fn look_up(&self, desk: &Desk) {
        let now = Instant::now();
        let since = now - self.due.looked.get();
        let wanted = {
            let slice = self.slice.borrow();
            let unknown = !slice.waiting.is_empty() && since >= LOOK_UP;
            !slice.is_empty() && (unknown || since >= self.due.look_pause.get())
        };
        if !wanted || now < self.due.retry.get() {
            return;
        }
        self.look(desk).await;
    }

    pub(super) async fn look(&self, desk: &Desk) {
        self.due.looked.set(Instant::now());
        let asked_at = desk.clock.monotonic();
        let (store, run, partition) = (desk.equipment.store.clone(), self.hold.run.clone(), self.partition);
        let devices = match desk.ask(async move { store.devices(&run, partition).await }).await {
            Ok(devices) => devices,
            Err(problem) => return self.put_off(Asked::Reading, &problem, desk),
        };
        desk.store_is_back(Asked::Reading);
        let now = desk.clock.reference();
        let mut slice = self.slice.borrow_mut();
        slice.devices(
            &devices,
            asked_at,
            now,
            &desk.absences.borrow(),
            &mut desk.ration.borrow_mut(),
        );
        let ours = |topic: &Topic| slice.find(topic.as_str()).is_some();
        let draining = devices
            .iter()
            .any(|state| (state.row.ended || state.row.vanished) && ours(&state.device.response_topic));
        let pause = if draining {
            DRAINING_LOOK
        } else {
            desk.equipment.lease / 3
        };
        // A large fleet is looked at less often: reading its rows must not take over a twentieth of the time. A store that
        // was away while it was asked says nothing about the fleet.
        let rest = (self.due.looked.get().elapsed() * 20).min(desk.equipment.lease);
        self.due.look_pause.set(pause.max(rest));
    }

    pub(super) fn expire(&self, desk: &Desk) {
        if self.due.expired.get().elapsed() >= EXPIRE {
            self.due.expired.set(Instant::now());
            let now = desk.clock.reference();
            self.slice.borrow_mut().expire(now, desk.equipment.drain);
        }
    }
}
