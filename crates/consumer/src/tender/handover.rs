//! Claims on their way back: sessions first, then the last flush, then the claim.

use std::{rc::Rc, time::Duration};

use isochrone_model::id::Topic;
use isochrone_store::{
    Error, Fate,
    types::{ClaimEnd, GivenBack, Left},
};
use isochrone_transport::Clean;
use tokio::time::Instant;

use super::{INSIST, Tender, batches::Write};
use crate::{
    desk::{Asked, Desk},
    link::Link,
};

/// Before a connection is closed: it is quiet when nothing came for this long…
const QUIET: Duration = Duration::from_millis(30);

/// …and is not waited for longer than this.
const QUIET_AT_MOST: Duration = Duration::from_millis(500);

impl Tender {
    /// Stops hearing topics; the last ones of a connection close it, and answer it.
    pub(super) fn silence(&self, number: usize, topics: &[Topic], clean: Clean) -> Option<Rc<Link>> {
        let mut links = self.links.borrow_mut();
        let link = links.get(number).cloned().flatten()?;
        if link.topics.get() > topics.len() {
            link.unsubscribe(topics);
            return None;
        }
        link.topics.set(0);
        links[number] = None;
        link.start_close(clean);
        Some(link)
    }

    /// Closes what is settled, and what nothing more is heard of: its session goes first, then its last flush, then the
    /// claim.
    pub(super) async fn close_settled(&self, desk: &Desk) {
        let patience = desk.equipment.drain.saturating_add(desk.equipment.lease);
        let forsaken = self.slice.borrow().forsaken(desk.clock.reference(), patience);
        for topic in &forsaken {
            tracing::warn!(run = %self.hold.run, %topic, "closes a topic without a subscription: what is missing is given up");
        }
        let mut topics = self.slice.borrow().settled();
        topics.extend(forsaken);
        topics.extend(self.slice.borrow().never_used());
        if topics.is_empty() {
            return;
        }
        self.close_links(&topics, Some(Clean::RemoveSession)).await;
        for topic in &topics {
            self.slice.borrow_mut().close(topic, desk.clock.reference());
        }
        self.hand_over(&topics, true, desk).await;
    }

    /// Gives every claim back: reads what has come, keeps the sessions for whoever is next, flushes.
    pub(super) async fn give_back_all(&self, desk: &Desk) {
        self.close_settled(desk).await;
        let limit = Instant::now() + QUIET_AT_MOST;
        while !self.slice.borrow().is_empty() && Instant::now() < limit {
            tokio::time::sleep(QUIET).await;
            let quiet = desk.clock.monotonic().since_ns(desk.last_message.get());
            if quiet > QUIET.as_nanos() as i64 {
                break;
            }
        }
        let topics: Vec<Topic> = self.slice.borrow().claims().map(|claim| claim.topic.clone()).collect();
        if topics.is_empty() {
            return;
        }
        self.close_links(&topics, None).await;
        self.decide_waiting(desk).await;
        self.hand_over(&topics, false, desk).await;
    }

    /// Asks the registry until it has answered for every message that waits for it, or the daemon aborts.
    async fn decide_waiting(&self, desk: &Desk) {
        while !self.slice.borrow().waiting.is_empty() && !self.hold.stop.is_aborting() {
            self.look(desk).await;
            if !self.slice.borrow().waiting.is_empty() {
                tokio::time::sleep(INSIST).await;
            }
        }
    }

    /// Closes the connections of these topics; with `None` as their sessions are meant to be left.
    async fn close_links(&self, topics: &[Topic], clean: Option<Clean>) {
        let mut by_link: Vec<(usize, Vec<Topic>)> = Vec::new();
        for topic in topics {
            let slice = self.slice.borrow();
            let Some(claim) = slice.claims().find(|claim| claim.topic == *topic) else {
                continue;
            };
            match by_link.iter_mut().find(|(link, _)| *link == claim.link) {
                Some((_, topics)) => topics.push(topic.clone()),
                None => by_link.push((claim.link, vec![topic.clone()])),
            }
        }
        let mut closing = Vec::new();
        for (number, topics) in by_link {
            let resumable = self
                .links
                .borrow()
                .get(number)
                .is_some_and(|link| link.as_ref().is_some_and(|link| link.resumable));
            let kept = if resumable {
                Clean::KeepSession
            } else {
                Clean::RemoveSession
            };
            closing.push(
                self.silence(number, &topics, clean.unwrap_or(kept))
                    .map(|link| (link, clean.unwrap_or(kept))),
            );
        }
        for (link, clean) in closing.into_iter().flatten() {
            link.close(clean).await;
        }
    }

    /// The last flush of these topics, then their claims; insists until the store has taken both or the daemon aborts.
    async fn hand_over(&self, topics: &[Topic], closed: bool, desk: &Desk) {
        while !self.flush(desk).await {
            if self.hold.stop.is_aborting() {
                return;
            }
            tokio::time::sleep(INSIST).await;
        }
        for session in [false, true] {
            let list: Vec<GivenBack> = {
                let slice = self.slice.borrow();
                let ours = slice.claims().filter(|claim| topics.contains(&claim.topic));
                let ours = ours.filter(|claim| slice.resumable(claim.link) == session);
                ours.map(|claim| GivenBack {
                    topic: claim.topic.clone(),
                    token: claim.token,
                    end: if closed {
                        ClaimEnd::Settled(claim.devices)
                    } else {
                        ClaimEnd::Free
                    },
                })
                .collect()
            };
            if !list.is_empty() {
                let session = session && !closed;
                self.give_back(&list, Left::GivenBack { session }, desk).await;
            }
        }
    }

    async fn give_back(&self, list: &[GivenBack], left: Left, desk: &Desk) {
        loop {
            match self.tell_given_back(list, left, desk).await {
                Ok(()) => break,
                Err(problem) if problem.fate() == Fate::LetGo => break,
                Err(problem) => desk.store_is_away(Asked::Writing, &problem),
            }
            if self.hold.stop.is_aborting() {
                return;
            }
            tokio::time::sleep(INSIST).await;
        }
        self.keep(Write::GivenBack(list.to_vec(), left), desk);
        for GivenBack { topic, end, .. } in list {
            let removed = self.slice.borrow_mut().remove(topic, &mut desk.ration.borrow_mut());
            if removed.is_some() {
                self.freed(1, desk);
                tracing::debug!(run = %self.hold.run, %topic, ?end, "gave a topic back");
            }
        }
    }

    /// Tells the store what is given back.
    pub(super) async fn tell_given_back(&self, list: &[GivenBack], left: Left, desk: &Desk) -> Result<(), Error> {
        let (store, run, partition) = (desk.equipment.store.clone(), self.hold.run.clone(), self.partition);
        let (daemon, given) = (desk.equipment.daemon, list.to_vec());
        desk.ask(async move { store.give_back(&run, partition, daemon, &given, left).await })
            .await
    }
}
