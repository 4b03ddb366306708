//! One life of a producer in a run: from joining it to the last word.
//!
//! Control only: devices live in the workers. Everything that waits for the store is a job of its own, so that the
//! store being away never delays anything else.

mod begin;
mod jobs;
mod store;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use isochrone_daemon::{
    Context,
    lease::{LeaseEvent, LeaseKeeper},
};
use isochrone_model::{
    id::{Partition, RunName},
    row::{Device, SendRow},
    time::{Clock, Second},
};
use isochrone_store::{
    Store,
    types::{Change, OpenRun, RunState},
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};
use tracing::{debug, info, warn};

use crate::{
    Error,
    flush::{Account, Outbox},
    metrics::Counters,
    run::{Patience, persist},
    waiting::Waiting,
    worker::{Command, DeviceReport, Notice},
};
use jobs::Done;
use store::Reach;

/// How often the store is asked for ready claims while some device waits.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// One wait for announcements.
const LISTEN: Duration = Duration::from_secs(5);
/// Longest wait for the clock discipline at the start; results say how unsure the clock was.
const CLOCK_WAIT: Duration = Duration::from_secs(2);
/// How often the clock is looked at meanwhile.
const CLOCK_POLL: Duration = Duration::from_millis(20);
/// Reports under way from workers; a worker that finds it full adds up until the next flush.
pub const NOTICES: usize = 64;

/// How a life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The last word is said.
    Done,
    /// The store gave the place away; the last words are said all the same.
    Lost,
    /// Told to drop everything.
    Aborted,
}

/// One registered device, by its place in the plan.
struct Registered {
    device: Device,
    partition: Partition,
}

/// See the module.
pub struct Life {
    context: Context,
    flush_interval: Duration,
    counters: Counters,
    request: OpenRun,
    run: RunName,
    ordinal: u32,
    keeper: Arc<LeaseKeeper>,
    leases: mpsc::Receiver<LeaseEvent>,
    devices: Vec<Registered>,
    rows: Vec<SendRow>,
    places: BTreeMap<Partition, Vec<usize>>,
    outboxes: BTreeMap<Partition, Outbox>,
    waiting: Waiting,
    workers: Vec<mpsc::Sender<Command>>,
    notices: mpsc::Receiver<Notice>,
    working: usize,
    jobs: JoinSet<Done>,
    /// Partitions with a flush on its way.
    flying: BTreeSet<Partition>,
    /// Partitions with a question on its way.
    asking: BTreeSet<Partition>,
    reach: Reach,
    /// It was said that the store is away, or refuses what is written.
    told_away: bool,
    server_life: Option<String>,
    /// Of the reference clock, as it was last seen.
    era: Option<u32>,
    /// The keeper still reports.
    leased: bool,
    lost: bool,
    /// What ends this life early; the last words are said all the same.
    failure: Option<Error>,
    finishing: bool,
    /// From here on devices start without a disciplined clock.
    clock_until: Instant,
    last_words_until: Option<Instant>,
}

impl Life {
    /// The run it works in.
    pub fn run(&self) -> &RunName {
        &self.run
    }

    /// Works until the last word is said; answers the devices' last rows.
    pub async fn live(mut self) -> Result<(End, Vec<SendRow>), Error> {
        let mut tick = interval(self.flush_interval.max(Duration::from_millis(1)));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ask = interval(ASK_EVERY);
        ask.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let stop = self.context.stop.clone();
        let store = self.context.store.clone();
        let mut changes = Box::pin(listen(&store));

        loop {
            let waits = self.waiting.left() > 0 && !self.finishing;
            let start_at = self.start_at().filter(|_| !self.finishing && !self.lost);
            tokio::select! {
                biased;
                () = stop.aborting() => return Ok((End::Aborted, self.rows)),
                () = stop.finishing(), if !self.finishing => self.finish().await,
                event = self.leases.recv(), if self.leased => self.lease_event(event),
                notice = self.notices.recv(), if self.working > 0 => self.notice(notice).await?,
                done = self.jobs.join_next(), if !self.jobs.is_empty() => self.done(done).await?,
                _ = tick.tick(), if self.has_work() => {
                    self.flush();
                    if self.is_over() {
                        break;
                    }
                }
                _ = ask.tick(), if waits => self.ask(),
                heard = &mut changes, if waits => {
                    changes = Box::pin(listen(&store));
                    self.heard(heard);
                }
                () = until(start_at), if start_at.is_some() => {}
            }
            self.start_ready().await;
            if self.last_words_until.is_some_and(|until| until <= Instant::now()) {
                let late = Error::LastWords {
                    run: self.run.to_string(),
                    waited: self.context.common.shutdown,
                };
                return Err(self.failure.unwrap_or(late));
            }
        }
        let end = if self.lost { End::Lost } else { End::Done };
        let left = self.leave().await;
        match self.failure {
            Some(cause) => Err(cause),
            None => left.map(|()| (end, self.rows)),
        }
    }

    async fn finish(&mut self) {
        self.finishing = true;
        self.context.health.set_ready(false, "finishes");
        info!(run = %self.run, "finishes: no more messages come due");
        self.tell(|| Command::Finish).await;
    }

    async fn tell(&self, command: impl Fn() -> Command) {
        for worker in &self.workers {
            // A worker that has ended needs no command.
            let _ = worker.send(command()).await;
        }
    }

    async fn notice(&mut self, notice: Option<Notice>) -> Result<(), Error> {
        match notice {
            Some(Notice::Counted(reports)) => {
                self.counted(reports);
                Ok(())
            }
            Some(Notice::Ended) => {
                self.one_ended();
                Ok(())
            }
            // Its devices have ended and were counted: the others end as well, and the last words are said.
            Some(Notice::Failed(cause @ Error::Transport(_))) => {
                self.one_ended();
                self.fail(cause).await;
                Ok(())
            }
            Some(Notice::Failed(cause)) => Err(cause),
            None => Err(Error::Worker(0)),
        }
    }

    /// Ends this life for a cause that its caller gets: every device disconnects, and the last words are said where they
    /// are taken.
    async fn fail(&mut self, cause: Error) {
        if self.failure.is_some() {
            return;
        }
        warn!(run = %self.run, "cannot go on: disconnects and says its last words");
        self.context.health.set_ready(false, "failed");
        self.failure = Some(cause);
        if self.working == 0 {
            self.all_ended();
        }
        self.tell(|| Command::GiveUp).await;
    }

    fn counted(&mut self, reports: Vec<DeviceReport>) {
        let mut accounts: BTreeMap<Second, Account> = BTreeMap::new();
        for report in reports {
            for due in &report.seconds {
                self.counters.add(&due.part, due.late);
                accounts.entry(due.second).or_default().add(Account::of(due));
            }
            self.counters
                .connects(&self.rows[report.place].connects, &report.row.connects);
            let registered = &self.devices[report.place];
            if let Some(outbox) = self.outboxes.get_mut(&registered.partition) {
                outbox.add(registered.device.epoch, report.row.clone(), report.seconds);
            }
            self.rows[report.place] = report.row;
        }
        let offset = self.context.clock.offset();
        let era_changed = self.era.replace(offset.era).is_some_and(|era| era != offset.era);
        for (second, mut account) in accounts {
            account.add(Account::clock(offset.bound_ns, era_changed));
            for outbox in self.outboxes.values_mut() {
                outbox.add_account(second, account);
            }
        }
    }

    fn one_ended(&mut self) {
        self.working -= 1;
        if self.working == 0 {
            self.all_ended();
        }
    }

    /// Only the last words are left to be written.
    fn all_ended(&mut self) {
        self.last_words_until = Some(Instant::now() + self.context.common.shutdown);
        if self.lost {
            for (partition, outbox) in &mut self.outboxes {
                let places = self.places.get(partition).into_iter().flatten();
                outbox.end_with(
                    places
                        .map(|&place| (self.devices[place].device.epoch, self.rows[place].clone()))
                        .collect(),
                );
            }
        }
        self.flush();
    }

    /// Whether the next tick has anything to do: an idle daemon should sleep.
    fn has_work(&self) -> bool {
        self.working == 0 || !self.outboxes.values().all(Outbox::is_safe)
    }

    fn is_over(&self) -> bool {
        let settled = |outbox: &Outbox| if self.lost { outbox.is_empty() } else { outbox.is_safe() };
        self.working == 0 && self.outboxes.values().all(settled)
    }

    fn heard(&mut self, changes: Vec<Change>) {
        for change in changes {
            if let Change::Ready(run, partition) = change
                && run == self.run
                && self.waiting.waits_in(partition)
            {
                self.ask_about(partition);
            }
        }
    }

    fn ask(&mut self) {
        for partition in self.waiting.next_to_ask() {
            self.ask_about(partition);
        }
    }

    /// A first message before the reference was read would be stamped by the host's idea of it.
    fn awaits_clock(&self) -> bool {
        !self.context.clock.is_disciplined() && Instant::now() < self.clock_until
    }

    /// When devices may start though nothing is heard.
    fn start_at(&self) -> Option<Instant> {
        let at = self.waiting.deadline()?;
        Some(if self.awaits_clock() {
            at.max(Instant::now() + CLOCK_POLL)
        } else {
            at
        })
    }

    async fn start_ready(&mut self) {
        if self.finishing || self.lost || self.failure.is_some() {
            return;
        }
        if self.awaits_clock() {
            return;
        }
        let now = Instant::now();
        let given_up = self.waiting.given_up(now);
        if given_up > 0 {
            warn!(run = %self.run, devices = given_up, "nobody listens for some devices within ISOCHRONE_WAIT_FOR_CONSUMER: they send all the same");
        }
        let places = self.waiting.take(now);
        if places.is_empty() {
            return;
        }
        self.counters.waiting.set(self.waiting.left() as f64);
        match self.waiting.left() {
            0 => info!(run = %self.run, devices = self.devices.len(), "all devices may send"),
            left => {
                info!(run = %self.run, devices = places.len(), left, "some devices may send; others wait for a consumer")
            }
        }
        self.context.health.set_ready(true, "sends");
        let count = self.workers.len();
        for (number, worker) in self.workers.iter().enumerate() {
            let mine: Vec<usize> = places.iter().copied().filter(|place| place % count == number).collect();
            if !mine.is_empty() {
                let _ = worker.send(Command::Start(mine)).await;
            }
        }
    }

    /// Gives the leases back and leaves the run.
    async fn leave(&mut self) -> Result<(), Error> {
        let until = self
            .last_words_until
            .unwrap_or_else(Instant::now)
            .max(Instant::now() + Duration::from_secs(2));
        let (context, run) = (&self.context, &self.run);
        let (store, daemon) = (&context.store, context.daemon);
        for &partition in self.outboxes.keys() {
            self.keeper.remove(partition);
            let released = persist(context, Patience::Until(until), "give a lease back", || {
                store.release(run, partition, daemon)
            });
            if let Err(error) = released.await {
                warn!(%partition, "failed to {error}");
            }
        }
        self.keeper.close();
        match persist(context, Patience::Until(until), "leave the run", || {
            store.discharge(run, daemon)
        })
        .await
        {
            Ok(Some(())) => {
                // Whoever comes after the last one has a run of its own. A warden does the same before long.
                if !self.lost
                    && let Err(error) = store.advance_run(run, RunState::Draining).await
                {
                    debug!(%run, "failed to {error}: a warden has it drain");
                }
                Ok(())
            }
            // The place is another's already, or nobody's: either way it is left.
            Err(_) if self.lost => Ok(()),
            Ok(None) if context.stop.is_aborting() => Ok(()),
            Ok(None) => Err(Error::LastWords {
                run: run.to_string(),
                waited: context.common.shutdown,
            }),
            Err(error) => Err(error.into()),
        }
    }

    fn now(&self) -> isochrone_model::time::Monotonic {
        self.context.clock.monotonic()
    }
}

/// One wait for announcements; nothing heard means nothing, the questions go on.
async fn listen(store: &Arc<dyn Store>) -> Vec<Change> {
    let heard = store.changes(LISTEN).await.unwrap_or_default();
    if heard.is_empty() {
        // Also a store that cannot listen at all answers so, at once.
        sleep(ASK_EVERY).await;
    }
    heard
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
