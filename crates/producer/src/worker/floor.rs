//! The devices of one worker thread, and what is due when.

use std::{
    cell::{Cell, RefCell},
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, binary_heap::PeekMut},
    sync::Arc,
    task::{Context, Poll},
};

use isochrone_model::{
    rate::Rate,
    schedule::Schedule,
    time::{Clock, Monotonic},
};
use isochrone_transport::{PublishEvent, Publisher, PublisherConfig};
use tokio::{sync::Notify, task::JoinSet};
use tracing::{error, info, warn};

use super::DeviceReport;
use crate::{
    Error,
    device::{Emulated, Moment, Pace, Wants},
    plan::{Planned, Shared},
    rows::Account,
};

/// See the module. Shared by the tasks of the thread; nothing is borrowed across an await.
pub struct Floor {
    clock: Arc<dyn Clock>,
    shared: Shared,
    desks: Vec<Desk>,
    /// Scratch of whoever has its turn.
    events: RefCell<Vec<PublishEvent>>,
    agenda: RefCell<Agenda>,
    tasks: RefCell<JoinSet<Result<(), Error>>>,
    /// Rung when the agenda changed outside a pass.
    bell: Notify,
    ended: Cell<usize>,
    last_pass: Cell<Monotonic>,
}

struct Desk {
    device: RefCell<Emulated>,
    config: RefCell<Option<PublisherConfig>>,
    /// Its number among the producer's devices.
    index: u32,
    seed: u64,
    allowed: Cell<bool>,
    /// In the list of those with news.
    listed: Cell<bool>,
}

/// What became of a device's connection.
#[derive(Clone, Copy)]
enum Change {
    Lost,
    Connected { first: bool },
}

#[derive(Default)]
struct Agenda {
    due: BinaryHeap<Reverse<(Monotonic, usize)>>,
    deadlines: BinaryHeap<Reverse<(Monotonic, usize)>>,
    to_start: Vec<usize>,
    news: Vec<usize>,
    /// Reasons already logged since all was well.
    troubles: BTreeSet<&'static str>,
    /// Reasons for which the broker refused a message, each logged once.
    refusals: BTreeSet<&'static str>,
    /// Devices that have been connected once.
    connected: usize,
    /// Devices that are connected now.
    up: usize,
}

impl Floor {
    /// Devices that wait for everything.
    pub fn new(shared: Shared, devices: Vec<Planned>, clock: Arc<dyn Clock>) -> Floor {
        let desks: Vec<Desk> = devices
            .into_iter()
            .map(|planned| {
                let Planned {
                    registration,
                    publisher,
                    index,
                    seed,
                    ..
                } = planned;
                let account = Account::new(registration.epoch, registration.qos, shared.valid_late_ns);
                Desk {
                    device: RefCell::new(Emulated::new(account, shared.limits)),
                    config: RefCell::new(publisher),
                    index,
                    seed,
                    allowed: Cell::new(false),
                    listed: Cell::new(false),
                }
            })
            .collect();
        Floor {
            clock,
            shared,
            desks,
            events: RefCell::default(),
            agenda: RefCell::default(),
            tasks: RefCell::default(),
            bell: Notify::new(),
            ended: Cell::new(0),
            last_pass: Cell::new(Monotonic(0)),
        }
    }

    /// How many devices there are.
    pub fn len(&self) -> usize {
        self.desks.len()
    }

    /// Whether every device has ended.
    pub fn all_ended(&self) -> bool {
        self.ended.get() == self.desks.len()
    }

    /// The host's clock.
    pub fn now(&self) -> Monotonic {
        self.clock.monotonic()
    }

    /// When the next pass is wanted: when something is due, but not within ISOCHRONE_PRECISION of the last one.
    pub fn next_pass(&self) -> Option<Monotonic> {
        let precision_ns = self.shared.precision.as_nanos() as u64;
        self.next_due().map(|at| at.max(self.last_pass.get() + precision_ns))
    }

    fn next_due(&self) -> Option<Monotonic> {
        let agenda = self.agenda.borrow();
        let due = agenda.due.peek().map(|Reverse((at, _))| *at);
        let deadline = agenda.deadlines.peek().map(|Reverse((at, _))| *at);
        due.into_iter().chain(deadline).min()
    }

    /// Returns when the agenda changed outside a pass.
    pub async fn rung(&self) {
        self.bell.notified().await;
    }

    /// Starts a task of this thread.
    pub fn spawn(&self, task: impl Future<Output = Result<(), Error>> + 'static) {
        self.tasks.borrow_mut().spawn_local(task);
    }

    /// Ready when a task failed.
    pub fn poll_tasks(&self, context: &mut Context<'_>) -> Poll<Error> {
        let mut tasks = self.tasks.borrow_mut();
        loop {
            match tasks.poll_join_next(context) {
                Poll::Ready(Some(Ok(Ok(())))) => {}
                Poll::Ready(Some(Ok(Err(cause)))) => return Poll::Ready(cause),
                Poll::Ready(Some(Err(cause))) => return Poll::Ready(Error::Task(cause)),
                // Empty; spawning rings no bell here, but the connector's end comes later than its spawns.
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// The configuration to connect a device with; none when it has been taken or the device has ended.
    pub fn take_config(&self, place: usize) -> Option<PublisherConfig> {
        let desk = &self.desks[place];
        let config = desk.config.borrow_mut().take();
        config.filter(|_| !desk.device.borrow().ended())
    }

    /// Gives a device its connection.
    pub fn connect(&self, place: usize, publisher: Box<dyn Publisher>) {
        self.desks[place].device.borrow_mut().connect(publisher);
    }

    /// These devices start as soon as they are connected.
    pub fn allow(&self, places: impl Iterator<Item = usize>) {
        let mut agenda = self.agenda.borrow_mut();
        for place in places {
            let desk = &self.desks[place];
            desk.allowed.set(true);
            if desk.device.borrow().ever_connected() {
                agenda.to_start.push(place);
            }
        }
    }

    /// Ends all schedules.
    pub fn finish(&self) {
        let now = self.now();
        for place in 0..self.desks.len() {
            self.with(place, |device, _| device.finish(now));
        }
    }

    /// Disconnects all.
    pub fn give_up(&self) {
        let now = self.now();
        for place in 0..self.desks.len() {
            self.with(place, |device, _| device.give_up(now));
        }
    }

    /// Sends what is due, starts who may start, ends what took too long.
    pub fn pass(&self) {
        let moment = self.moment();
        self.last_pass.set(moment.now);
        let to_start = std::mem::take(&mut self.agenda.borrow_mut().to_start);
        for place in to_start {
            self.start(place, moment);
        }
        loop {
            let place = match self.agenda.borrow().due.peek() {
                Some(Reverse((at, place))) if *at <= moment.now => *place,
                _ => break,
            };
            let mut next = None;
            self.with(place, |device, events| {
                next = device.collect(moment);
                device.send(moment, events)
            });
            let mut agenda = self.agenda.borrow_mut();
            if let Some(mut top) = agenda.due.peek_mut() {
                match next {
                    Some(at) => *top = Reverse((at, place)),
                    None => {
                        PeekMut::pop(top);
                    }
                }
            }
        }
        loop {
            let place = match self.agenda.borrow().deadlines.peek() {
                Some(Reverse((at, place))) if *at <= moment.now => *place,
                _ => break,
            };
            self.agenda.borrow_mut().deadlines.pop();
            self.with(place, |device, _| device.deadline_passed(moment.now));
        }
    }

    /// A turn of one device's connection.
    pub fn drive(&self, place: usize, context: &mut Context<'_>) -> Poll<()> {
        let mut poll = Poll::Pending;
        let mut moment = self.moment();
        // Many connections may be ready at a time; what is due does not wait until all of them have had their turn.
        if self.next_pass().is_some_and(|at| at <= moment.now) {
            self.pass();
            moment = self.moment();
        }
        self.with(place, |device, events| {
            let (wants, ended) = device.drive(context, moment, events);
            poll = ended;
            wants
        });
        poll
    }

    /// Whether anything was counted since the last report.
    pub fn has_news(&self) -> bool {
        !self.agenda.borrow().news.is_empty()
    }

    /// Everything counted since the last report.
    pub fn report(&self, number: usize, workers: usize) -> Vec<DeviceReport> {
        let news = std::mem::take(&mut self.agenda.borrow_mut().news);
        let mut reports = Vec::with_capacity(news.len());
        for place in news {
            let desk = &self.desks[place];
            desk.listed.set(false);
            let (row, seconds) = desk.device.borrow_mut().account().take();
            reports.push(DeviceReport {
                place: place * workers + number,
                row,
                seconds,
            });
        }
        reports
    }

    fn moment(&self) -> Moment {
        Moment {
            now: self.clock.monotonic(),
            offset: self.clock.offset(),
        }
    }

    fn start(&self, place: usize, moment: Moment) {
        let schedule = &self.shared.schedule;
        let Desk { index, seed, .. } = self.desks[place];
        let pace = match schedule.rate {
            Rate::Max => Pace::FlatOut {
                count: schedule.count,
                duration: schedule.duration,
                warmup: schedule.flagged(),
            },
            Rate::PerSecond(_) => Pace::Slots(Box::new(Schedule::new(schedule, seed, index, self.shared.devices))),
        };
        let mut first = None;
        self.with(place, |device, events| {
            first = device.start(pace, moment.now);
            // A schedule without a single place ends here, a device without a rate begins.
            match first {
                Some(_) => Wants::default(),
                None => {
                    device.collect(moment);
                    device.send(moment, events)
                }
            }
        });
        if let Some(at) = first {
            self.agenda.borrow_mut().due.push(Reverse((at, place)));
        }
    }

    /// Calls a device and does what it wants done.
    fn with(&self, place: usize, call: impl FnOnce(&mut Emulated, &mut Vec<PublishEvent>) -> Wants) {
        let desk = &self.desks[place];
        let mut device = desk.device.borrow_mut();
        let before = device.deadline();
        let was_up = device.is_connected();
        let wants = call(&mut device, &mut self.events.borrow_mut());

        if wants.poll {
            device.wake();
        }
        if device.account().changed() && !desk.listed.replace(true) {
            let mut agenda = self.agenda.borrow_mut();
            if agenda.news.is_empty() {
                // The next report is due within a flush interval.
                self.bell.notify_one();
            }
            agenda.news.push(place);
        }
        let deadline = device.deadline();
        if deadline != before
            && let Some(at) = deadline
        {
            self.agenda.borrow_mut().deadlines.push(Reverse((at, place)));
            self.bell.notify_one();
        }
        if wants.ended {
            self.ended.set(self.ended.get() + 1);
            self.bell.notify_one();
        }
        if wants.first_connected {
            self.first_connected(desk.allowed.get().then_some(place));
        }
        if device.is_connected() != was_up {
            let change = if was_up {
                Change::Lost
            } else {
                Change::Connected {
                    first: wants.first_connected,
                }
            };
            self.connection_changed(change);
        }
        if let Some(trouble) = wants.trouble {
            let new = self.agenda.borrow_mut().troubles.insert(trouble.reason);
            match (new, trouble.needs_setting) {
                (true, true) => error!(reason = trouble.reason, "failed to send: {}", trouble.detail),
                (true, false) => warn!(reason = trouble.reason, "connection: {}", trouble.detail),
                (false, _) => {}
            }
        }
        if let Some(reason) = wants.refused
            && self.agenda.borrow_mut().refusals.insert(reason)
        {
            error!(
                reason,
                "the broker refuses messages ({reason}); each is counted as refused: check its access list and limits for ISOCHRONE_TOPIC"
            );
        }
    }

    /// Once all are connected again, the next trouble is told again.
    fn connection_changed(&self, change: Change) {
        let mut agenda = self.agenda.borrow_mut();
        let Change::Connected { first } = change else {
            agenda.up -= 1;
            return;
        };
        agenda.up += 1;
        if agenda.up == self.desks.len() && !agenda.troubles.is_empty() {
            agenda.troubles.clear();
            if !first {
                info!(devices = agenda.up, "all devices are connected again");
            }
        }
    }

    fn first_connected(&self, to_start: Option<usize>) {
        let mut agenda = self.agenda.borrow_mut();
        agenda.connected += 1;
        if agenda.connected == self.desks.len() {
            info!(devices = agenda.connected, "all devices are connected");
        }
        if let Some(place) = to_start {
            agenda.to_start.push(place);
            self.bell.notify_one();
        }
    }
}
