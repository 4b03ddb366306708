//! Tends one partition of one run on a worker: everything there that needs the store, one step after the other, so that
//! at most one flush of a partition is ever under way.

mod batches;
mod handover;
mod leases;
mod registry;

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use isochrone_daemon::{Stop, lease::LeaseKeeper};
use isochrone_model::{
    id::{Partition, RunName, Token, Topic},
    time::Monotonic,
};
use isochrone_store::{Error, Fate};
use isochrone_transport::Clean;
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use crate::{
    claims::Room,
    connect::{LinkPlan, Sharing},
    desk::{Asked, Desk},
    link::Link,
    slice::Slice,
};

/// With ISOCHRONE_ACK=stored, deliveries wait for the store at most about this long.
const GROUP_COMMIT: Duration = Duration::from_millis(10);

/// Between two rounds of giving up what is missing.
const EXPIRE: Duration = Duration::from_secs(1);

/// Between two attempts at what must be done before a claim can go.
const INSIST: Duration = Duration::from_millis(100);

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
    /// The daemon serves this run only.
    pub alone: bool,
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
    kept: RefCell<VecDeque<(batches::Write, Monotonic)>>,
    again: Cell<bool>,
    /// Claims that the store lists as ours and nobody here knows, and since when.
    unknown: RefCell<HashMap<(Topic, Token), Monotonic>>,
    /// Those of them that are to be given back.
    strays: RefCell<Vec<(Topic, Token)>>,
    yields: RefCell<Option<oneshot::Sender<()>>>,
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
            unknown: RefCell::default(),
            strays: RefCell::default(),
            yields: RefCell::default(),
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

    /// Gives everything back for another consumer to take, then tells `done`; goes on when something is claimed again.
    pub fn start_yielding(&self, done: oneshot::Sender<()>) {
        *self.yields.borrow_mut() = Some(done);
        self.notify.notify_one();
    }

    /// Gives everything back, then tells `done` and ends.
    pub fn start_leaving(&self, done: oneshot::Sender<()>) {
        *self.leave.borrow_mut() = Some(done);
        self.notify.notify_one();
    }

    /// Nothing more will come: stops tending.
    pub fn dismiss(&self, desk: &Desk) {
        self.done.set(true);
        {
            let (mut slice, mut ration) = (self.slice.borrow_mut(), desk.ration.borrow_mut());
            let held = slice.dismiss(&mut ration);
            let outstanding = self.outstanding.borrow_mut().take();
            ration.release(outstanding.map_or(0, |batch| batch.samples));
            self.freed(held, desk);
        }
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
            let yields = self.yields.borrow_mut().take();
            if let Some(done) = yields {
                self.give_back_all(&desk).await;
                // Who asked may be gone.
                let _ = done.send(());
            }
            let leave = self.leave.borrow_mut().take();
            if let Some(done) = leave {
                self.give_back_all(&desk).await;
                // Who asked may have given up waiting.
                let _ = done.send(());
                return;
            }
            self.let_reconnect(&desk).await;
            self.return_strays(&desk).await;
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

    fn put_off(&self, asked: Asked, problem: &Error, desk: &Desk) {
        let pause = match problem.fate() {
            Fate::Retry(after) => after.min(desk.equipment.lease / 6),
            Fate::LetGo | Fate::Reject => Duration::from_secs(1),
        };
        self.due.retry.set(Instant::now() + pause);
        desk.store_is_away(asked, problem);
    }
}
