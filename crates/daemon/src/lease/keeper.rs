//! The task behind [`LeaseKeeper`], and what is known of each partition's lease.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use isochrone_model::{
    id::{DaemonId, Partition, RunName},
    time::{Clock, Monotonic, unsigned_nanos},
};
use isochrone_store::{Store, lease::ANSWER_WITHIN, types::Renewal};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, sleep_until, timeout},
};

use super::{LeaseEvent, answer, diary::Diary};
use crate::{Context, clock::SystemClock};

/// Events on their way to the holder. `Held` ones that find no room are dropped, for the next renewal repeats them; the
/// others wait inside the keeper, never more than one of each.
const EVENTS: usize = 256;
/// How often it is seen whether the daemon was away.
const VIGIL: Duration = Duration::from_millis(500);

/// Keeps one daemon's leases in one run. Ends when dropped, or when closed.
#[derive(Debug)]
pub struct LeaseKeeper {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    held: Mutex<BTreeMap<Partition, Held>>,
    clock: Arc<SystemClock>,
    lease: Duration,
    nudge: Notify,
    /// Counts `renew_now`; `done` names the newest one that a renewal has taken in.
    asked: AtomicU64,
    done: watch::Sender<Done>,
    closed: watch::Sender<bool>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Done {
    asked: u64,
    answered: bool,
}

/// One partition's lease.
#[derive(Clone, Copy, Debug)]
struct Held {
    /// Nobody may take over before this.
    until: Monotonic,
    /// When it was last added: that it is gone, in answer to an earlier question, says nothing about it.
    added: Monotonic,
}

struct Task {
    shared: Arc<Shared>,
    store: Arc<dyn Store>,
    run: RunName,
    daemon: DaemonId,
    events: mpsc::Sender<LeaseEvent>,
    /// What must not be dropped and found no room yet.
    waiting: VecDeque<LeaseEvent>,
    away: bool,
    roster_lost: bool,
    diary: Diary,
}

impl LeaseKeeper {
    /// Starts renewing the roster row of this daemon in `run`, and each partition that is added.
    pub fn start(context: &Context, run: &RunName) -> (Arc<LeaseKeeper>, mpsc::Receiver<LeaseEvent>) {
        let (events, receiver) = mpsc::channel(EVENTS);
        let shared = Arc::new(Shared {
            held: Mutex::default(),
            clock: context.clock.clone(),
            lease: context.common.lease,
            nudge: Notify::new(),
            asked: AtomicU64::new(0),
            done: watch::Sender::default(),
            closed: watch::Sender::new(false),
        });
        let task = Task {
            shared: shared.clone(),
            store: context.store.clone(),
            run: run.clone(),
            daemon: context.daemon,
            events,
            waiting: VecDeque::new(),
            away: false,
            roster_lost: false,
            diary: Diary::new(context.daemon),
        };
        context.tasks.spawn_job("lease keeper", task.run());
        (Arc::new(LeaseKeeper { shared }), receiver)
    }

    /// Renews this partition from now on. Call it once the row stands (after `claim`, `register` or `hold`); the lease is
    /// then timed from 500 ms ago, for no such call takes longer. Adding again, for another claim there, makes answers that
    /// were asked for before it say nothing.
    pub fn add(&self, partition: Partition) {
        let now = self.shared.clock.monotonic();
        self.add_from(
            partition,
            Monotonic(now.0.saturating_sub(unsigned_nanos(ANSWER_WITHIN))),
        );
    }

    /// The same with the time just before the call that made the row.
    pub fn add_from(&self, partition: Partition, asked_at: Monotonic) {
        let added = self.shared.clock.monotonic();
        let held = Held {
            until: asked_at + unsigned_nanos(self.shared.lease),
            added,
        };
        self.shared
            .lock()
            .entry(partition)
            .and_modify(|held| held.added = added)
            .or_insert(held);
    }

    /// Stops renewing this partition.
    pub fn remove(&self, partition: Partition) {
        self.shared.lock().remove(&partition);
    }

    /// The partitions that are renewed.
    pub fn partitions(&self) -> Vec<Partition> {
        self.shared.lock().keys().copied().collect()
    }

    /// Nobody can have taken over yet: the last renewal, timed from before its call, is younger than a lease.
    pub fn valid(&self, partition: Partition) -> bool {
        self.valid_until(partition)
            .is_some_and(|until| self.shared.clock.monotonic() < until)
    }

    /// When that ends; `None` when the partition is not held.
    pub fn valid_until(&self, partition: Partition) -> Option<Monotonic> {
        self.shared.lock().get(&partition).map(|held| held.until)
    }

    /// Renews at once; true when the store answered a renewal that began after this call, within a second.
    pub async fn renew_now(&self) -> bool {
        let ticket = self.shared.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut done = self.shared.done.subscribe();
        self.shared.nudge.notify_one();
        // One renewal may be under way, the next one is ours.
        match timeout(2 * ANSWER_WITHIN, done.wait_for(|done| done.asked >= ticket)).await {
            Ok(Ok(done)) => done.answered,
            _ => false,
        }
    }

    /// Stops renewing anything. Safe to repeat.
    pub fn close(&self) {
        self.shared.closed.send_replace(true);
    }
}

impl Drop for LeaseKeeper {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Partition, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Task {
    async fn run(mut self) {
        let shared = self.shared.clone();
        let mut closed = shared.closed.subscribe();
        let mut life = shared.clock.server_life();
        let mut known_life = life.borrow_and_update().clone();
        let mut next = Instant::now() + shared.lease / 3;
        loop {
            let wake = next.min(Instant::now() + VIGIL);
            let must_renew = tokio::select! {
                () = sleep_until(wake) => Instant::now() >= next,
                () = shared.nudge.notified() => true,
                _ = closed.wait_for(|closed| *closed) => break,
                changed = life.changed() => {
                    let is = life.borrow_and_update().clone();
                    // The first life heard of is no change.
                    if changed.is_ok() && known_life.is_some() && known_life != is {
                        self.diary.new_server(shared.clock.reference());
                        self.tell(LeaseEvent::NewServerLife);
                    }
                    known_life = is;
                    true
                }
            };
            // Whatever is heard first after an absence: a worker that was away, too, asks for a renewal at once.
            self.diary.woke(wake.elapsed(), &shared.clock);
            if !must_renew {
                continue;
            }
            let begun = Instant::now();
            let answered = self.renew().await;
            next = begun + if answered { shared.lease / 3 } else { shared.lease / 6 };
            if answered {
                self.diary.deliver_one(&*self.store, &self.run, next).await;
            }
        }
        self.diary.deliver(&*self.store, &self.run).await;
    }

    /// One renewal of everything; false when the store did not answer it.
    async fn renew(&mut self) -> bool {
        let ticket = self.shared.asked.load(Ordering::SeqCst);
        let partitions: Vec<Partition> = self.shared.lock().keys().copied().collect();
        let asked_at = self.shared.clock.monotonic();
        let call = self.store.renew(&self.run, self.daemon, &partitions);
        let answer = answer(ANSWER_WITHIN, call).await;
        let answered = answer.is_ok();
        match answer {
            Ok((roster, renewals)) => self.renewed(roster, renewals, asked_at),
            Err(error) => {
                if !self.away {
                    self.away = true;
                    self.diary.store_away(self.shared.clock.reference());
                    tracing::warn!(run = %self.run, %error, "failed to renew leases; trying again");
                    self.tell(LeaseEvent::Away);
                }
            }
        }
        self.shared.done.send_replace(Done {
            asked: ticket,
            answered,
        });
        self.hand_over();
        answered
    }

    fn renewed(&mut self, roster: bool, renewals: Vec<Renewal>, asked_at: Monotonic) {
        if self.away {
            self.away = false;
            self.diary.store_back();
            tracing::info!(run = %self.run, "leases are renewed again");
            self.tell(LeaseEvent::Back);
        }
        if !roster && !self.roster_lost {
            self.tell(LeaseEvent::RosterLost);
        }
        self.roster_lost = !roster;
        let until = asked_at + unsigned_nanos(self.shared.lease);
        for renewal in renewals {
            let lost = {
                let mut held = self.shared.lock();
                match held.get_mut(&renewal.partition) {
                    // Given up while the question was under way.
                    None => continue,
                    Some(one) if renewal.alive => {
                        one.until = one.until.max(until);
                        false
                    }
                    // Gone, and taken again since.
                    Some(one) if one.added > asked_at => continue,
                    Some(_) => held.remove(&renewal.partition).is_some(),
                }
            };
            if lost {
                self.tell(LeaseEvent::PartitionLost(renewal.partition));
            } else {
                // Dropped when the holder is slow: the next renewal says it again.
                let _ = self.events.try_send(LeaseEvent::Held {
                    partition: renewal.partition,
                    asked_at,
                    claims: renewal.claims,
                });
            }
        }
    }

    fn tell(&mut self, event: LeaseEvent) {
        if !self.waiting.contains(&event) {
            self.waiting.push_back(event);
        }
        self.hand_over();
    }

    fn hand_over(&mut self) {
        while let Some(event) = self.waiting.pop_front() {
            if let Err(mpsc::error::TrySendError::Full(event)) = self.events.try_send(event) {
                self.waiting.push_front(event);
                return;
            }
        }
    }
}
