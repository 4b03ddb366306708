//! What everything on one worker thread shares: clock, store, bounds, and the watch over its own absences.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    future::Future,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use isochrone_daemon::{clock::SystemClock, settings::ConsumerSettings};
use isochrone_model::{
    id::{DaemonId, Domain, Partition, RunName},
    time::{Clock, Monotonic, nanos},
};
use isochrone_store::{Error, Fate, Store};
use isochrone_transport::{Disconnected, Transport, Worker};
use tokio::{runtime::Handle, sync::Notify};

use crate::{
    absence::{Absences, WokenAt},
    buffer::Ration,
    metrics::Counters,
    run_delay::RunDelay,
    tender::Tender,
};

/// The watched timer's period while messages flow: what a stop must last to be seen for sure.
const TICK: Duration = Duration::from_millis(10);

/// The same while messages are few, and the kernel tells how long the thread waits for a processor: each wake-up costs as much as
/// a message.
const SPARSE_TICK: Duration = Duration::from_millis(50);

/// The same while claims are held and nothing flows.
const SLOW_TICK: Duration = Duration::from_millis(100);

/// Messages flow when one came within this time, in nanoseconds; they are few when none came so close to the one before.
const FLOWING_NS: i64 = 2_000_000_000;
const CLOSE_NS: i64 = 20_000_000;

/// What a worker thread is given.
pub struct Equipment {
    /// This daemon's life.
    pub daemon: DaemonId,
    /// The host's clock.
    pub clock: Arc<dyn Clock>,
    /// Its domain.
    pub domain: Domain,
    /// The same clock, as the one that knows of the store's server.
    pub server: Arc<SystemClock>,
    /// The store, called on the daemon's runtime.
    pub store: Arc<dyn Store>,
    /// The daemon's runtime.
    pub runtime: Handle,
    /// Settings of a consumer.
    pub settings: Arc<ConsumerSettings>,
    /// Samples this worker may hold.
    pub buffer: usize,
    /// ISOCHRONE_LEASE.
    pub lease: Duration,
    /// ISOCHRONE_DRAIN.
    pub drain: Duration,
    /// ISOCHRONE_VALID_LATE.
    pub valid_late: Duration,
    /// Used instead of opening the devices' URL.
    pub transport: Option<Arc<dyn Transport>>,
    /// The daemon's own metrics.
    pub counters: Counters,
    /// Stops the daemon with a failure.
    pub fail: Arc<dyn Fn(String) + Send + Sync>,
}

/// What the store was asked to do. One that refuses to write may answer questions all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asked {
    /// To answer a question.
    Reading,
    /// To take something.
    Writing,
}

/// One worker thread's surroundings.
pub struct Desk {
    /// What it was given.
    pub equipment: Equipment,
    /// The host's clock.
    pub clock: Arc<dyn Clock>,
    /// When the thread was away.
    pub absences: RefCell<Absences>,
    /// When the thread last came back from waiting.
    pub woken: WokenAt,
    /// The bound on samples.
    pub ration: RefCell<Ration>,
    /// When the newest message came.
    pub last_message: Cell<Monotonic>,
    /// When a message last came close to the one before.
    last_close: Cell<Monotonic>,
    /// How long the thread waited for a processor, where the kernel says so, and the count at the last turn that asked for it.
    run_delay: Option<(RunDelay, Cell<Option<u64>>)>,
    /// What connections borrow.
    pub lent: Worker,
    /// Who tends which partition.
    pub tenders: RefCell<HashMap<(RunName, Partition), Rc<Tender>>>,
    transports: RefCell<HashMap<String, Arc<dyn Transport>>>,
    held_back: Cell<bool>,
    trouble: Cell<Option<Asked>>,
    reported_lost: RefCell<HashMap<(String, &'static str), Monotonic>>,
    been_away: Notify,
    watched: Notify,
}

impl Desk {
    /// An empty desk of the current thread.
    pub fn new(equipment: Equipment, woken: WokenAt) -> Desk {
        let clock = equipment.clock.clone();
        let now = clock.monotonic();
        Desk {
            absences: RefCell::new(Absences::new(nanos(equipment.valid_late) as u64, now)),
            ration: RefCell::new(Ration::new(equipment.buffer)),
            last_message: Cell::new(Monotonic(0)),
            last_close: Cell::new(now),
            run_delay: RunDelay::of_this_thread().map(|delay| (delay, Cell::default())),
            lent: Worker {
                clock: clock.clone(),
                domain: equipment.domain,
                read_buffer: Rc::default(),
            },
            tenders: RefCell::default(),
            transports: RefCell::default(),
            held_back: Cell::new(false),
            trouble: Cell::new(None),
            reported_lost: RefCell::default(),
            been_away: Notify::new(),
            watched: Notify::new(),
            woken,
            clock,
            equipment,
        }
    }

    /// Notes that the thread does something. True when its sockets must not be read: it was away for so long that its
    /// claims have to be found valid first.
    pub fn turn(&self, now: Monotonic) -> bool {
        if self.held_back.get() {
            return true;
        }
        let waited_ns = self.waited_for_processor(now);
        let away_ns = {
            let mut absences = self.absences.borrow_mut();
            absences.waited(waited_ns, now);
            absences.turn(now)
        };
        if u128::from(away_ns) > self.equipment.lease.as_nanos() / 3 {
            self.held_back.set(true);
            self.been_away.notify_one();
            return true;
        }
        false
    }

    /// Messages came.
    pub fn received(&self, now: Monotonic) {
        if now.since_ns(self.last_message.replace(now)) < CLOSE_NS {
            self.last_close.set(now);
        }
    }

    /// Whether the watched timer is slow because messages are few.
    fn watches_sparsely(&self, now: Monotonic) -> bool {
        self.run_delay.is_some() && now.since_ns(self.last_close.get()) >= FLOWING_NS
    }

    /// How long the thread waited for a processor since the last turn, where that has to be asked.
    fn waited_for_processor(&self, now: Monotonic) -> u64 {
        let Some((delay, last)) = &self.run_delay else { return 0 };
        if !self.watches_sparsely(now) {
            last.set(None);
            return 0;
        }
        let total = delay.total_ns();
        match (last.replace(total), total) {
            (Some(before), Some(total)) => total.saturating_sub(before),
            _ => 0,
        }
    }

    /// Calls the store on the daemon's runtime.
    pub async fn ask<T: Send + 'static>(
        &self,
        call: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        match self.equipment.runtime.spawn(call).await {
            Ok(answer) => answer,
            Err(ended) => Err(Error::Away {
                address: "the daemon's own runtime".to_owned(),
                cause: ended.to_string(),
            }),
        }
    }

    /// The transport for a URL, opened once.
    pub fn transport(&self, url: &str) -> Result<Arc<dyn Transport>, isochrone_transport::Error> {
        if let Some(given) = &self.equipment.transport {
            return Ok(given.clone());
        }
        if let Some(open) = self.transports.borrow().get(url) {
            return Ok(open.clone());
        }
        let opened = isochrone_transport::open(url)
            .map_err(|problem| problem.of("ISOCHRONE_CONSUMER_BROKER (unset, a producer's ISOCHRONE_BROKER)"))?;
        self.transports.borrow_mut().insert(url.to_owned(), opened.clone());
        Ok(opened)
    }

    /// Drops the oldest samples of the whole worker until so many are gone.
    pub fn drop_oldest(&self, excess: usize) {
        let tenders: Vec<Rc<Tender>> = self.tenders.borrow().values().cloned().collect();
        let mut dropped = 0;
        while dropped < excess {
            let oldest = tenders.iter().filter_map(|tender| tender.slice.borrow().oldest()).min();
            let Some(second) = oldest else { break };
            let before = dropped;
            for tender in &tenders {
                if dropped < excess {
                    dropped += tender.slice.borrow_mut().drop_oldest(second, excess - dropped);
                }
            }
            if dropped == before {
                break;
            }
        }
        let mut ration = self.ration.borrow_mut();
        ration.release(dropped);
        if ration.dropped == 0 && dropped > 0 {
            tracing::warn!(
                limit = self.equipment.buffer,
                "ISOCHRONE_BUFFER is full: dropping the oldest samples"
            );
        }
        ration.dropped += dropped as u64;
        self.equipment.counters.dropped.inc_by(dropped as u64);
    }

    /// The store left entries out because it may hold no more of them.
    pub fn shed(&self, entries: u64) {
        if entries > 0 {
            if self.equipment.counters.shed.get() == 0 {
                tracing::warn!(
                    "the store holds ISOCHRONE_RETAIN already and leaves samples out: is a plotter running?"
                );
            }
            self.equipment.counters.shed.inc_by(entries);
        }
    }

    /// One line when the store does not do what it was asked.
    pub fn store_is_away(&self, asked: Asked, problem: &Error) {
        let said = self.trouble.get();
        self.trouble.set(said.max(Some(asked)));
        if said.is_none() {
            match problem.fate() {
                Fate::Retry(_) => tracing::warn!("failed to {problem}; buffering until the store is back"),
                Fate::LetGo | Fate::Reject => tracing::error!("failed to {problem}; buffering until somebody mends it"),
            }
        }
    }

    /// One line when it does again.
    pub fn store_is_back(&self, asked: Asked) {
        if self.trouble.get().is_some_and(|trouble| trouble <= asked) {
            self.trouble.set(None);
            tracing::info!("the store is back");
        }
    }

    /// One line about a lost connection, once every ten seconds for each reason.
    pub fn tell_lost(&self, url: &str, lost: &Disconnected) {
        let now = self.clock.monotonic();
        let mut reported = self.reported_lost.borrow_mut();
        let key = (url.to_owned(), lost.reason);
        if reported
            .get(&key)
            .is_some_and(|last| now.since_ns(*last) < 10_000_000_000)
        {
            return;
        }
        reported.insert(key, now);
        if lost.needs_setting {
            tracing::error!(reason = lost.reason, "failed to listen: {}", lost.detail);
        } else {
            tracing::warn!(reason = lost.reason, "lost a connection that listens: {}", lost.detail);
        }
    }

    /// Claims came or went: the watched timer may have to start.
    pub fn claims_changed(&self) {
        self.watched.notify_one();
    }

    /// Keeps the timer whose lateness shows that the thread was away; waits without one while nothing is held.
    pub async fn tick(self: Rc<Desk>) {
        loop {
            let held = self
                .tenders
                .borrow()
                .values()
                .any(|tender| !tender.slice.borrow().is_empty());
            if !held {
                self.absences.borrow_mut().expect_tick(None, 0);
                self.watched.notified().await;
                continue;
            }
            let now = self.clock.monotonic();
            let flowing = now.since_ns(self.last_message.get()) < FLOWING_NS;
            let (period, reach) = match (flowing, self.watches_sparsely(now)) {
                (true, false) => (TICK, TICK),
                (true, true) => (SPARSE_TICK, SPARSE_TICK),
                (false, _) => (SLOW_TICK, TICK),
            };
            let period_ns = period.as_nanos() as u64;
            self.absences
                .borrow_mut()
                .expect_tick(Some(now + period_ns), reach.as_nanos() as u64);
            tokio::time::sleep(period).await;
            self.turn(self.clock.monotonic());
        }
    }

    /// After a long absence: has every lease renewed, then lets the sockets be read again.
    pub async fn recover(self: Rc<Desk>) {
        loop {
            self.been_away.notified().await;
            let start = self.clock.monotonic();
            let tenders: Vec<Rc<Tender>> = self.tenders.borrow().values().cloned().collect();
            tracing::warn!("this consumer was away for over a third of its lease; renewing before it reads on");
            let mut renewed: Vec<RunName> = Vec::new();
            for tender in &tenders {
                if !renewed.contains(&tender.hold.run) {
                    renewed.push(tender.hold.run.clone());
                    tender.renew(&self).await;
                }
            }
            self.absences.borrow_mut().note((start, self.clock.monotonic()));
            self.held_back.set(false);
            for tender in &tenders {
                tender.wake_links();
            }
        }
    }
}
