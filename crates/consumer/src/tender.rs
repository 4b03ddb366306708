//! Tends one partition of one run on a worker: everything there that needs the store, one step after the other, so that
//! at most one flush of a partition is ever under way.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use isochrone_daemon::{Stop, lease::LeaseKeeper};
use isochrone_model::{
    id::{Partition, RunName, Token, Topic},
    time::Monotonic,
};
use isochrone_store::{
    Error, Fate,
    types::{Left, ReceiptFlush},
};
use isochrone_transport::Clean;
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use crate::{
    claims::Room,
    connect::{LinkPlan, Sharing},
    desk::Desk,
    link::{FRESH, Link},
    slice::Slice,
};

/// With ISOCHRONE_ACK=stored, deliveries wait for the store at most about this long.
const GROUP_COMMIT: Duration = Duration::from_millis(10);

/// Shortest time between two questions about unknown epochs.
const LOOK_UP: Duration = Duration::from_millis(200);

/// Between two looks at the rows of devices while one of them has said its last word.
const DRAINING_LOOK: Duration = Duration::from_secs(1);

/// Between two rounds of giving up what is missing.
const EXPIRE: Duration = Duration::from_secs(1);

/// Between two attempts at what must be done before a claim can go.
const INSIST: Duration = Duration::from_millis(100);

/// Before a connection is closed: it is quiet when nothing came for this long…
const QUIET: Duration = Duration::from_millis(30);

/// …and is not waited for longer than this.
const QUIET_AT_MOST: Duration = Duration::from_millis(500);

/// What all partitions of a run share.
pub struct Hold {
    /// The run.
    pub run: RunName,
    /// Renews its leases.
    pub keeper: Arc<LeaseKeeper>,
    /// What the daemon may hold in all.
    pub room: Arc<Room>,
    /// How sessions are shared.
    pub sharing: Sharing,
    /// The daemon's.
    pub stop: Stop,
}

/// One partition of one run.
pub struct Tender {
    /// The run's.
    pub hold: Arc<Hold>,
    /// Which.
    pub partition: Partition,
    /// What is known and pending.
    pub slice: RefCell<Slice>,
    /// Wakes the tender: something may be due.
    pub notify: Notify,
    links: RefCell<Vec<Option<Rc<Link>>>>,
    outstanding: RefCell<Option<crate::flush::Batch>>,
    kept: RefCell<VecDeque<(Arc<ReceiptFlush>, Monotonic)>>,
    again: Cell<bool>,
    leave: RefCell<Option<oneshot::Sender<()>>>,
    done: Cell<bool>,
    due: Due,
}

/// When what was done last, or may be done next.
struct Due {
    flushed: Cell<Instant>,
    retry: Cell<Instant>,
    looked: Cell<Instant>,
    look_pause: Cell<Duration>,
    expired: Cell<Instant>,
}

impl Tender {
    /// Nothing held yet.
    pub fn new(hold: Arc<Hold>, partition: Partition, desk: &Desk) -> Tender {
        let equipment = &desk.equipment;
        let now = Instant::now();
        Tender {
            slice: RefCell::new(Slice::new(equipment.daemon, equipment.domain)),
            hold,
            partition,
            notify: Notify::new(),
            links: RefCell::default(),
            outstanding: RefCell::default(),
            kept: RefCell::default(),
            again: Cell::new(false),
            leave: RefCell::default(),
            done: Cell::new(false),
            due: Due {
                flushed: Cell::new(now),
                retry: Cell::new(now),
                looked: Cell::new(now),
                look_pause: Cell::new(equipment.lease / 3),
                expired: Cell::new(now),
            },
        }
    }

    /// The connection of a plan, opened when there is none yet; it is to be driven when it is new.
    pub fn link(&self, plan: LinkPlan, desk: &Desk) -> Result<(Rc<Link>, bool), isochrone_transport::Error> {
        let mut links = self.links.borrow_mut();
        if let Some(open) = links.iter().flatten().find(|link| link.key == plan.key) {
            return Ok((open.clone(), false));
        }
        let waits_for_store = !plan.config.acknowledge_at_once && plan.config.qos > 0;
        let subscriber = desk.transport(&plan.key.url)?.subscriber(plan.config, &desk.lent)?;
        let number = links.len();
        let link = Link::new(number, plan.key, plan.resumable, subscriber, desk.clock.monotonic());
        let link = Rc::new(link);
        links.push(Some(link.clone()));
        self.slice
            .borrow_mut()
            .open_link(number, waits_for_store, link.resumable);
        Ok((link, true))
    }

    /// The server behind the store has lost its newest writes: what is young is written again.
    pub fn write_again(&self) {
        self.again.set(true);
        self.notify.notify_one();
    }

    /// Gives everything back, then tells `done`.
    pub fn start_leaving(&self, done: oneshot::Sender<()>) {
        *self.leave.borrow_mut() = Some(done);
        self.notify.notify_one();
    }

    /// Nothing more will come: stops tending.
    pub fn dismiss(&self, desk: &Desk) {
        self.done.set(true);
        let held = self.slice.borrow().len();
        self.freed(held, desk);
        for link in self.links.borrow_mut().drain(..).flatten() {
            link.start_close(Clean::RemoveSession);
        }
        self.notify.notify_one();
    }

    /// Has every connection polled.
    pub fn wake_links(&self) {
        for link in self.links.borrow().iter().flatten() {
            link.wake();
        }
    }

    /// Works until it has left or is dismissed.
    pub async fn tend(self: Rc<Tender>, desk: Rc<Desk>) {
        while !self.done.get() {
            self.wait(&desk).await;
            let leave = self.leave.borrow_mut().take();
            if let Some(done) = leave {
                self.give_back_all(&desk).await;
                // Who asked may have given up waiting.
                let _ = done.send(());
                return;
            }
            self.let_reconnect(&desk).await;
            self.look_up(&desk).await;
            self.expire(&desk);
            self.tell_ready(&desk).await;
            if self.flush_is_due(&desk) {
                self.flush(&desk).await;
            }
            self.close_settled(&desk).await;
        }
    }

    async fn wait(&self, desk: &Desk) {
        let now = Instant::now();
        let idle = self.slice.borrow().is_empty() && self.outstanding.borrow().is_none() && !self.again.get();
        if idle {
            self.notify.notified().await;
            return;
        }
        let pause = if self.slice.borrow().unacknowledged() {
            GROUP_COMMIT
        } else if self.slice.borrow().is_clean() && self.outstanding.borrow().is_none() {
            // The connection tells when something comes.
            EXPIRE
        } else {
            desk.equipment.settings.flush_interval
        };
        let next = (self.due.flushed.get() + pause).max(self.due.retry.get());
        let next = next.max(now + Duration::from_millis(1));
        // Whichever comes first: the time, or a reason to look earlier.
        let _ = tokio::time::timeout_at(next, self.notify.notified()).await;
    }

    fn flush_is_due(&self, desk: &Desk) -> bool {
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
    async fn flush(&self, desk: &Desk) -> bool {
        if self.again.get() && !self.resend(desk).await {
            return false;
        }
        if self.outstanding.borrow().is_some() && !self.send(desk).await {
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
        self.forget_old(desk, now);
        let Some(batch) = batch else { return true };
        *self.outstanding.borrow_mut() = Some(batch);
        self.send(desk).await
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
                answer.fenced
            }
            Err(problem) if problem.fate() == Fate::LetGo => {
                batch.flush.states.iter().map(|state| state.topic.clone()).collect()
            }
            Err(problem) => {
                self.put_off(desk, &problem);
                return false;
            }
        };
        desk.store_is_back();
        self.outstanding.borrow_mut().take();
        {
            let mut ration = desk.ration.borrow_mut();
            ration.held = ration.held.saturating_sub(batch.samples);
        }
        desk.equipment.counters.flushes.inc();
        if !desk.equipment.store.memory().is_zero() {
            let now = desk.clock.monotonic();
            self.kept.borrow_mut().push_back((batch.flush.clone(), now));
        }
        let acknowledge = self.slice.borrow_mut().stored(&batch.covers);
        for (number, up_to) in acknowledge {
            let link = self.links.borrow().get(number).cloned().flatten();
            if let Some(link) = link {
                link.acknowledge(up_to);
            }
        }
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
        true
    }

    async fn append(
        &self,
        desk: &Desk,
        flush: Arc<ReceiptFlush>,
    ) -> Result<isochrone_store::types::FlushAnswer, Error> {
        let (store, run, partition) = (desk.equipment.store.clone(), self.hold.run.clone(), self.partition);
        let daemon = desk.equipment.daemon;
        desk.ask(async move { store.append(&run, partition, daemon, &flush).await })
            .await
    }

    /// Writes again what the server may have forgotten, in order; the store keeps what it still has.
    async fn resend(&self, desk: &Desk) -> bool {
        let kept: Vec<Arc<ReceiptFlush>> = self.kept.borrow().iter().map(|(flush, _)| flush.clone()).collect();
        for flush in kept {
            if let Err(problem) = self.append(desk, flush).await {
                self.put_off(desk, &problem);
                return false;
            }
        }
        self.again.set(false);
        self.slice.borrow_mut().forget_told();
        self.notify.notify_one();
        true
    }

    fn forget_old(&self, desk: &Desk, now: Monotonic) {
        let memory = desk.equipment.store.memory().as_nanos() as i64;
        let mut kept = self.kept.borrow_mut();
        while kept.front().is_some_and(|(_, at)| now.since_ns(*at) > memory) {
            kept.pop_front();
        }
    }

    fn put_off(&self, desk: &Desk, problem: &Error) {
        let pause = match problem.fate() {
            Fate::Retry(after) => after.min(desk.equipment.lease / 6),
            Fate::LetGo | Fate::Reject => Duration::from_secs(1),
        };
        self.due.retry.set(Instant::now() + pause);
        desk.store_is_away(problem);
    }

    /// Tells the store of new subscriptions, so that producers start.
    async fn tell_ready(&self, desk: &Desk) {
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
                desk.store_is_back();
                self.slice.borrow_mut().told_ready(&topics);
                self.drop_claims(&lost, "it was no longer ours when we had subscribed", desk);
                // What the devices have said meanwhile decides how long to wait for them.
                self.due.look_pause.set(Duration::ZERO);
            }
            Err(problem) => self.put_off(desk, &problem),
        }
    }

    /// Asks for the devices of the partition when it is time, or when an unknown epoch waits.
    async fn look_up(&self, desk: &Desk) {
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

    async fn look(&self, desk: &Desk) {
        self.due.looked.set(Instant::now());
        let asked_at = desk.clock.monotonic();
        let (store, run, partition) = (desk.equipment.store.clone(), self.hold.run.clone(), self.partition);
        let devices = match desk.ask(async move { store.devices(&run, partition).await }).await {
            Ok(devices) => devices,
            Err(problem) => return self.put_off(desk, &problem),
        };
        desk.store_is_back();
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

    fn expire(&self, desk: &Desk) {
        if self.due.expired.get().elapsed() >= EXPIRE {
            self.due.expired.set(Instant::now());
            let now = desk.clock.reference();
            self.slice.borrow_mut().expire(now, desk.equipment.drain);
        }
    }

    /// Lets lost connections try again, once the lease has been renewed after they were lost.
    async fn let_reconnect(&self, desk: &Desk) {
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
        let lease = desk.equipment.lease.as_nanos() as u64;
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

    /// The leases' list of what is held here: what is not in it is gone.
    pub fn held(&self, held: &[(Topic, Token)], desk: &Desk) {
        let lost = self.slice.borrow().lost(held, desk.clock.monotonic());
        self.drop_claims(&lost, "its lease was taken over", desk);
    }

    /// The lease of the whole partition is gone.
    pub fn lost(&self, desk: &Desk) {
        let all: Vec<Topic> = self.slice.borrow().claims().map(|claim| claim.topic.clone()).collect();
        self.drop_claims(&all, "the partition's lease is gone", desk);
    }

    /// Lets claims go that are not ours any more: at once, without a last word, and without touching their session.
    fn drop_claims(&self, topics: &[Topic], why: &str, desk: &Desk) {
        for topic in topics {
            let claim = self.slice.borrow_mut().remove(topic, &mut desk.ration.borrow_mut());
            let Some(claim) = claim else { continue };
            tracing::warn!(run = %self.hold.run, %topic, "let go of a topic: {why}");
            desk.equipment.counters.fenced.inc();
            self.silence(claim.link, std::slice::from_ref(topic), Clean::KeepSession);
            self.freed(1, desk);
        }
    }

    fn freed(&self, count: usize, desk: &Desk) {
        self.hold.room.release(count);
        desk.equipment.counters.claims.sub(count as f64);
        desk.claims_changed();
    }

    /// Stops hearing topics; the last ones of a connection close it, and answer it.
    fn silence(&self, number: usize, topics: &[Topic], clean: Clean) -> Option<Rc<Link>> {
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

    /// Closes what is settled: its session goes first, then its last flush, then the claim.
    async fn close_settled(&self, desk: &Desk) {
        let topics = self.slice.borrow().settled();
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
    async fn give_back_all(&self, desk: &Desk) {
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
        if !self.slice.borrow().waiting.is_empty() {
            self.look(desk).await;
        }
        self.hand_over(&topics, false, desk).await;
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
            let list: Vec<(Topic, Token, bool)> = {
                let slice = self.slice.borrow();
                let ours = slice.claims().filter(|claim| topics.contains(&claim.topic));
                let ours = ours.filter(|claim| slice.resumable(claim.link) == session);
                ours.map(|claim| (claim.topic.clone(), claim.token, closed)).collect()
            };
            if !list.is_empty() {
                self.give_back(
                    &list,
                    Left::GivenBack {
                        session: session && !closed,
                    },
                    desk,
                )
                .await;
            }
        }
    }

    async fn give_back(&self, list: &[(Topic, Token, bool)], left: Left, desk: &Desk) {
        loop {
            let (store, run, partition) = (desk.equipment.store.clone(), self.hold.run.clone(), self.partition);
            let (daemon, given) = (desk.equipment.daemon, list.to_vec());
            let answer = desk
                .ask(async move { store.give_back(&run, partition, daemon, &given, left).await })
                .await;
            match answer {
                Ok(()) => break,
                Err(problem) if problem.fate() == Fate::LetGo => break,
                Err(problem) => desk.store_is_away(&problem),
            }
            if self.hold.stop.is_aborting() {
                return;
            }
            tokio::time::sleep(INSIST).await;
        }
        for (topic, _, closed) in list {
            let removed = self.slice.borrow_mut().remove(topic, &mut desk.ration.borrow_mut());
            if removed.is_some() {
                self.freed(1, desk);
                tracing::debug!(run = %self.hold.run, %topic, closed, "gave a topic back");
            }
        }
    }
}
