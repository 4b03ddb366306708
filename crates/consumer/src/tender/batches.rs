//! Writes what is pending: one batch after the other, again what the server may have forgotten.

use std::sync::Arc;

use isochrone_model::id::Topic;
use isochrone_store::{
    Error, Fate,
    types::{FlushAnswer, GivenBack, Left, ReceiptFlush},
};
use isochrone_transport::DeliveryId;
use tokio::time::Instant;

use super::{GROUP_COMMIT, Tender};
use crate::{
    desk::{Asked, Desk},
    link::FRESH,
};

/// Writes remembered of one partition: a few seconds' worth, or as many when the server takes writes and does not tell its
/// life. The oldest are forgotten first.
const KEPT: usize = 1_024;

/// What the store has confirmed and its server may forget yet.
#[derive(Clone)]
pub(super) enum Write {
    /// Samples.
    Flush(Arc<ReceiptFlush>),
    /// Claims given back.
    GivenBack(Vec<GivenBack>, Left),
}

impl Tender {
    pub(super) fn flush_is_due(&self, desk: &Desk) -> bool {
        let now = Instant::now();
        if now < self.due.retry.get() {
            return false;
        }
        let since = now - self.due.flushed.get();
        let slice = self.slice.borrow();
        self.outstanding.borrow().is_some()
            || self.again.get()
            || slice.fresh >= FRESH
            || since >= desk.equipment.settings.flush_interval
            || (slice.unacknowledged() && since >= GROUP_COMMIT)
    }

    /// Writes everything pending; true when all of it is stored.
    pub(super) async fn flush(&self, desk: &Desk) -> bool {
        if self.again.get() && !self.resend(desk).await {
            return false;
        }
        if self.outstanding.borrow().is_some() && !self.send(desk).await {
            return false;
        }
        // What came since a round was left unfinished is in the next one.
        let mut resumes = self.slice.borrow().is_in_round();
        loop {
            if self.again.get() && !self.resend(desk).await {
                return false;
            }
            let now = desk.clock.monotonic();
            let offset = desk.clock.offset();
            let batch = {
                let mut slice = self.slice.borrow_mut();
                desk.equipment.counters.add(std::mem::take(&mut slice.tally));
                slice.flush(offset.at(now), offset, &desk.absences.borrow())
            };
            self.due.flushed.set(Instant::now());
            self.forget_old(desk);
            let Some(batch) = batch else {
                // Nothing is left to be stored: what came in vain (a topic that is not held any more) is acknowledged as it is.
                let covers = self.slice.borrow().covers();
                self.acknowledge(&covers);
                return true;
            };
            let is_last = batch.is_last;
            *self.outstanding.borrow_mut() = Some(batch);
            if !self.send(desk).await {
                return false;
            }
            if is_last && !std::mem::take(&mut resumes) {
                return true;
            }
        }
    }

    /// Sends the outstanding batch.
    async fn send(&self, desk: &Desk) -> bool {
        let Some(batch) = self.outstanding.borrow().clone() else {
            return true;
        };
        let answer = self.append(desk, batch.flush.clone()).await;
        let fenced = match answer {
            Ok(answer) => {
                desk.shed(answer.shed);
                if answer.shed > 0 {
                    let now = desk.clock.reference();
                    let mut slice = self.slice.borrow_mut();
                    slice.left_out(&batch.flush, answer.shed, &answer.fenced, now);
                }
                answer.fenced
            }
            Err(problem) if problem.fate() == Fate::LetGo => {
                batch.flush.states.iter().map(|state| state.topic.clone()).collect()
            }
            Err(problem) => {
                self.put_off(Asked::Writing, &problem, desk);
                return false;
            }
        };
        desk.store_is_back(Asked::Writing);
        if self.outstanding.borrow_mut().take().is_none() {
            // Dismissed meanwhile.
            return true;
        }
        desk.ration.borrow_mut().release(batch.samples);
        desk.equipment.counters.flushes.inc();
        self.keep(Write::Flush(batch.flush.clone()), desk);
        let still_ours = |topic: &Topic| {
            let slice = self.slice.borrow();
            let sent = batch
                .flush
                .states
                .iter()
                .find(|state| state.topic == *topic)
                .map(|state| state.token);
            slice
                .claims()
                .any(|claim| claim.topic == *topic && Some(claim.token) == sent)
        };
        let fenced: Vec<Topic> = fenced.into_iter().filter(still_ours).collect();
        self.drop_claims(&fenced, "another consumer holds it by now", desk);
        // Only now: what the store did not take is for whoever resumes the session, which went with the claim.
        self.acknowledge(&batch.covers);
        true
    }

    /// What this covers needs the store no more.
    fn acknowledge(&self, covers: &[(usize, DeliveryId)]) {
        let due = self.slice.borrow_mut().stored(covers);
        for (number, up_to) in due {
            let link = self.links.borrow().get(number).cloned().flatten();
            if let Some(link) = link {
                link.acknowledge(up_to);
            }
        }
    }

    async fn append(&self, desk: &Desk, flush: Arc<ReceiptFlush>) -> Result<FlushAnswer, Error> {
        let (store, run, partition) = (desk.equipment.store.clone(), self.hold.run.clone(), self.partition);
        let daemon = desk.equipment.daemon;
        desk.ask(async move { store.append(&run, partition, daemon, &flush).await })
            .await
    }

    /// Writes again what the server may have forgotten, in order; the store keeps what it still has.
    async fn resend(&self, desk: &Desk) -> bool {
        let kept: Vec<Write> = self.kept.borrow().iter().map(|(write, _)| write.clone()).collect();
        for write in kept {
            let repeated = match write {
                Write::Flush(flush) => self.append(desk, flush).await.map(drop),
                Write::GivenBack(claims, left) => self.tell_given_back(&claims, left, desk).await,
            };
            if let Err(problem) = repeated {
                self.put_off(Asked::Writing, &problem, desk);
                return false;
            }
        }
        self.again.set(false);
        self.strays.borrow_mut().clear();
        // The new life of the server may lose them too.
        let now = desk.clock.monotonic();
        self.kept.borrow_mut().iter_mut().for_each(|(_, at)| *at = now);
        self.slice.borrow_mut().forget_told();
        self.notify.notify_one();
        true
    }

    /// Remembers what the server may lose.
    pub(super) fn keep(&self, write: Write, desk: &Desk) {
        if desk.equipment.store.memory().is_zero() {
            return;
        }
        let mut kept = self.kept.borrow_mut();
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back((write, desk.clock.monotonic()));
    }

    /// Forgets what the server cannot lose any more, by when it confirmed that it had it.
    fn forget_old(&self, desk: &Desk) {
        let memory = desk.equipment.store.memory();
        let server = &desk.equipment.server;
        let mut kept = self.kept.borrow_mut();
        while kept.pop_front_if(|(_, at)| server.is_lasting(*at, memory)).is_some() {}
    }
}
