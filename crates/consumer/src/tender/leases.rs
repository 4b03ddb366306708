//! What the leases say: connections that may come back, claims that are gone, claims nobody here knows.

use std::{rc::Rc, slice, time::Duration};

use isochrone_model::{
    id::{Token, Topic},
    time::{Monotonic, nanos, unsigned_nanos},
};
use isochrone_store::{
    Fate,
    types::{ClaimEnd, GivenBack, Left},
};
use isochrone_transport::Clean;
use tokio::time::Instant;

use super::{INSIST, Tender};
use crate::{
    desk::{Asked, Desk},
    link::Link,
    slice::Claim,
};

/// How long a claim that only the store knows may still be on its way here, or on its way back.
const ON_ITS_WAY: Duration = Duration::from_millis(1_500);

impl Tender {
    /// Lets lost connections try again, once the lease has been renewed after they were lost.
    pub(super) async fn let_reconnect(&self, desk: &Desk) {
        let lost: Vec<(Rc<Link>, Monotonic)> = {
            let links = self.links.borrow();
            let lost = links
                .iter()
                .flatten()
                .filter_map(|link| Some((link.clone(), link.lost_at.get()?)));
            lost.collect()
        };
        let Some(newest) = lost.iter().map(|(_, at)| *at).max() else {
            return;
        };
        if !self.renewed_since(newest, desk) {
            self.renew(desk).await;
        }
        for (link, at) in lost {
            if self.renewed_since(at, desk) {
                link.allow_reconnect();
            }
        }
        if !self.renewed_since(newest, desk) {
            self.due
                .retry
                .set(Instant::now() + INSIST.min(desk.equipment.lease / 6));
        }
    }

    /// Whether a renewal that began after `at` found this partition's lease standing.
    fn renewed_since(&self, at: Monotonic, desk: &Desk) -> bool {
        let lease = unsigned_nanos(desk.equipment.lease);
        let until = self.hold.keeper.valid_until(self.partition);
        until.is_some_and(|until| until.0 >= at.0 + lease)
    }

    /// Has the run's leases renewed now.
    pub async fn renew(&self, desk: &Desk) {
        let keeper = self.hold.keeper.clone();
        let renewal = desk.ask(async move {
            keeper.renew_now().await;
            Ok(())
        });
        // What it found arrives as lease events.
        let _ = renewal.await;
    }

    /// The leases' list of what was held here at `asked_at`: what is not in it is gone, and what only it knows is nobody's.
    pub fn held(&self, held: &[(Topic, Token)], asked_at: Monotonic, desk: &Desk) {
        let now = desk.clock.monotonic();
        let lost = self.slice.borrow().lost(held, asked_at);
        self.drop_claims(&lost, "its lease was taken over", desk);
        let strange = self.slice.borrow().unknown(held);
        let mut unknown = self.unknown.borrow_mut();
        let since = |claim: &(Topic, Token)| unknown.get(claim).copied().unwrap_or(now);
        let listed = strange
            .into_iter()
            .map(|claim| (claim.clone(), since(&claim)))
            .collect();
        *unknown = listed;
        // A server that has lost its newest writes is told them again first: what was given back is then given back as it was.
        let same_life = if desk.equipment.store.memory().is_zero() {
            now
        } else {
            desk.equipment.server.life_confirmed_at()
        };
        let is_stray = |since: Monotonic| now.since_ns(since) > nanos(ON_ITS_WAY) && same_life > since;
        let strays = unknown.iter().filter(|(_, since)| is_stray(**since));
        let strays: Vec<_> = strays.map(|(claim, _)| claim.clone()).collect();
        if !strays.is_empty() {
            *self.strays.borrow_mut() = strays;
            self.notify.notify_one();
        }
    }

    /// Gives back what the store says that we hold and nobody here listens for: a server that lost its newest writes
    /// says so.
    pub(super) async fn return_strays(&self, desk: &Desk) {
        if self.strays.borrow().is_empty() || self.again.get() || Instant::now() < self.due.retry.get() {
            return;
        }
        let strays = self.strays.take().into_iter().map(|(topic, token)| GivenBack {
            topic,
            token,
            end: ClaimEnd::Free,
        });
        let strays: Vec<GivenBack> = strays.collect();
        match self.tell_given_back(&strays, Left::Died, desk).await {
            Ok(()) => {}
            Err(problem) if problem.fate() == Fate::LetGo => {}
            // The next renewals name them again.
            Err(problem) => return self.put_off(Asked::Writing, &problem, desk),
        }
        desk.store_is_back(Asked::Writing);
        for GivenBack { topic, token, .. } in strays {
            tracing::warn!(run = %self.hold.run, %topic, "gave back a topic that the store had listed as ours and that was not listened for");
            let ours = |claim: &Claim| claim.topic == topic && claim.token == token;
            let came_late = self.slice.borrow().claims().any(ours);
            if came_late {
                self.drop_claims(slice::from_ref(&topic), "it had been given back", desk);
            }
        }
    }

    /// The lease of the whole partition is gone.
    pub fn lost(&self, desk: &Desk) {
        let all: Vec<Topic> = self.slice.borrow().claims().map(|claim| claim.topic.clone()).collect();
        self.drop_claims(&all, "the partition's lease is gone", desk);
    }

    /// Lets claims go that are not ours any more: at once, without a last word, and without touching their session.
    pub(super) fn drop_claims(&self, topics: &[Topic], why: &str, desk: &Desk) {
        for topic in topics {
            let claim = self.slice.borrow_mut().remove(topic, &mut desk.ration.borrow_mut());
            let Some(claim) = claim else { continue };
            tracing::warn!(run = %self.hold.run, %topic, "let go of a topic: {why}");
            desk.equipment.counters.fenced.inc();
            self.silence(claim.link, slice::from_ref(topic), Clean::KeepSession);
            self.freed(1, desk);
        }
    }

    pub(super) fn freed(&self, count: usize, desk: &Desk) {
        self.hold.room.release(count);
        desk.equipment.counters.claims.sub(count as f64);
        desk.claims_changed();
    }
}
