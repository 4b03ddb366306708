//! One emulated device: its schedule, its queue, its connection and its account.
//!
//! Nothing here waits or reads a clock; the worker says what time it is. Open loop: what the connection does never
//! changes when the next message is due.

#[cfg(test)]
mod tests;

mod events;
mod sending;

use std::{
    collections::VecDeque,
    task::{Context, Poll, Waker},
    time::Duration,
};

use isochrone_model::{
    schedule::{Schedule, Slot},
    time::{Monotonic, Offset, Reference, nanos},
};
use isochrone_transport::{Clean, Disconnected, PublishEvent, Publisher};

use crate::rows::Account;

/// Longest wait for the connection's orderly end.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// Limits that all devices of a daemon share.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Messages that may wait for the connection (ISOCHRONE_QUEUE).
    pub queue: usize,
    /// Longest wait at the end for what is queued and for acknowledgements (ISOCHRONE_DRAIN).
    pub drain: Duration,
}

/// What a device follows from its start on.
pub enum Pace {
    /// Absolute due times.
    Slots(Box<Schedule>),
    /// As fast as the window allows.
    FlatOut {
        /// Messages in all.
        count: Option<u64>,
        /// Time in all.
        duration: Option<Duration>,
        /// Flagged as warm-up for this long.
        warmup: Duration,
    },
}

/// A moment, as the worker saw it: what is due by now is due.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// On the host's clock.
    pub now: Monotonic,
    /// To the reference clock.
    pub offset: Offset,
}

/// What the worker has to do for a device after a call.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wants {
    /// Poll its connection soon.
    pub poll: bool,
    /// It connected for the first time.
    pub first_connected: bool,
    /// It ended: nothing follows.
    pub ended: bool,
    /// Its connection failed or ended.
    pub trouble: Option<Box<Disconnected>>,
    /// The broker refused a message, for this reason.
    pub refused: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Waiting,
    Running,
    Draining,
    Closing,
    Ended,
}

/// A place in the schedule that came due and was not offered to the socket yet.
struct Place {
    due: Reference,
    due_monotonic: Monotonic,
    /// When the tool had it ready.
    ready: Monotonic,
    warmup: bool,
}

/// See the module.
pub struct Emulated {
    publisher: Option<Box<dyn Publisher>>,
    limits: Limits,
    pace: Option<Pace>,
    origin: Monotonic,
    next: Option<Slot>,
    phase: Phase,
    deadline: Option<Monotonic>,
    /// The front `offered` ones are in the publisher's hands.
    queue: VecDeque<Place>,
    offered: usize,
    next_sequence: u64,
    account: Account,
    connected: bool,
    ever_connected: bool,
    /// Fixed when it stops waiting for answers: sent, unanswered, in order.
    unanswered: Vec<u64>,
    waker: Option<Waker>,
}

impl Emulated {
    /// A device that waits to be connected and started.
    pub fn new(account: Account, limits: Limits) -> Emulated {
        Emulated {
            publisher: None,
            limits,
            pace: None,
            origin: Monotonic(0),
            next: None,
            phase: Phase::Waiting,
            deadline: None,
            queue: VecDeque::new(),
            offered: 0,
            next_sequence: 0,
            account,
            connected: false,
            ever_connected: false,
            unanswered: Vec::new(),
            waker: None,
        }
    }

    /// Gives it its connection.
    pub fn connect(&mut self, publisher: Box<dyn Publisher>) {
        self.publisher = Some(publisher);
    }

    /// Its account, for reports.
    pub fn account(&mut self) -> &mut Account {
        if self.account.wants_oldest_unanswered() {
            let oldest = self
                .publisher
                .as_ref()
                .and_then(|publisher| publisher.unanswered().first().copied());
            self.account.oldest_unanswered(oldest.unwrap_or(u64::MAX));
        }
        &mut self.account
    }

    /// When [`deadline_passed`](Emulated::deadline_passed) must be called, if this phase has an end.
    pub fn deadline(&self) -> Option<Monotonic> {
        self.deadline
    }

    /// Whether it is done.
    pub fn ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    /// Whether it has had a connection.
    pub fn ever_connected(&self) -> bool {
        self.ever_connected
    }

    /// Whether its connection stands.
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// Whether it sends as fast as it can.
    pub fn flat_out(&self) -> bool {
        matches!(self.pace, Some(Pace::FlatOut { .. }))
    }

    /// Starts its schedule; answers when its first message is due. Does nothing unless it is waiting.
    pub fn start(&mut self, pace: Pace, origin: Monotonic) -> Option<Monotonic> {
        if self.phase != Phase::Waiting {
            return None;
        }
        self.phase = Phase::Running;
        self.origin = origin;
        match &pace {
            Pace::Slots(_) => {}
            Pace::FlatOut { duration, .. } => {
                self.deadline = duration.map(|duration| origin + nanos(duration) as u64);
            }
        }
        self.pace = Some(pace);
        self.step()
    }

    /// Drives the connection: to be called when its waker fires. Ready when the device has ended.
    pub fn drive(
        &mut self,
        context: &mut Context<'_>,
        moment: Moment,
        events: &mut Vec<PublishEvent>,
    ) -> (Wants, Poll<()>) {
        if self.phase == Phase::Ended {
            self.publisher = None;
            return (Wants::default(), Poll::Ready(()));
        }
        if !self
            .waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(context.waker()))
        {
            self.waker = Some(context.waker().clone());
        }
        let Some(publisher) = &mut self.publisher else {
            return (Wants::default(), Poll::Pending);
        };
        let closed = publisher.poll(context, events).is_ready();
        let mut wants = self.apply(events, moment, false);
        if closed {
            self.end();
            wants.ended = true;
            self.publisher = None;
            return (wants, Poll::Ready(()));
        }
        let sent = self.send(moment, events);
        wants.poll |= sent.poll;
        wants.trouble = wants.trouble.or(sent.trouble);
        (wants, Poll::Pending)
    }

    /// Asks for a poll of the connection.
    pub fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    /// Ends the schedule now: what is queued is sent, answers are awaited for at most ISOCHRONE_DRAIN.
    pub fn finish(&mut self, now: Monotonic) -> Wants {
        let mut wants = Wants::default();
        if matches!(self.phase, Phase::Waiting | Phase::Running) {
            self.drain(now);
            self.settle(now, &mut wants);
        }
        wants
    }

    /// Ends everything now: the connection is closed, what was queued is unsent.
    pub fn give_up(&mut self, now: Monotonic) -> Wants {
        let mut wants = Wants::default();
        if !matches!(self.phase, Phase::Closing | Phase::Ended) {
            self.close(now, &mut wants);
        }
        wants
    }

    /// Moves on from a phase that took as long as it may.
    pub fn deadline_passed(&mut self, now: Monotonic) -> Wants {
        let mut wants = Wants::default();
        if self.deadline.is_none_or(|deadline| deadline > now) {
            return wants;
        }
        self.deadline = None;
        match self.phase {
            Phase::Running => {
                self.drain(now);
                self.settle(now, &mut wants);
            }
            Phase::Draining => self.close(now, &mut wants),
            Phase::Closing => {
                self.end();
                wants.ended = true;
                wants.poll = true;
            }
            Phase::Waiting | Phase::Ended => {}
        }
        wants
    }

    fn step(&mut self) -> Option<Monotonic> {
        self.next = match &mut self.pace {
            Some(Pace::Slots(schedule)) => schedule.next(),
            _ => None,
        };
        self.next.as_ref().map(|slot| self.origin + slot.at_ns)
    }

    fn drain(&mut self, now: Monotonic) {
        self.phase = Phase::Draining;
        self.next = None;
        self.pace = None;
        self.deadline = Some(now + nanos(self.limits.drain) as u64);
    }

    /// Draining and nothing left to wait for: close.
    fn settle(&mut self, now: Monotonic, wants: &mut Wants) {
        if self.phase == Phase::Draining && self.queue.is_empty() && self.account.answered() {
            self.close(now, wants);
        }
    }

    fn close(&mut self, now: Monotonic, wants: &mut Wants) {
        self.phase = Phase::Closing;
        self.pace = None;
        self.next = None;
        // What the publisher holds may still be on its way into the socket; the rest never will be.
        for place in self.queue.drain(self.offered..) {
            self.account.unsent(place.due);
        }
        let Some(publisher) = &mut self.publisher else {
            self.end();
            wants.ended = true;
            return;
        };
        let sent = self.account.row().sent;
        self.unanswered = publisher.unanswered();
        self.unanswered.retain(|&sequence| sequence < sent);
        publisher.close(Clean::RemoveSession);
        self.deadline = Some(now + CLOSE_LIMIT.as_nanos() as u64);
        wants.poll = true;
    }

    fn end(&mut self) {
        if self.phase == Phase::Ended {
            return;
        }
        self.phase = Phase::Ended;
        self.deadline = None;
        for place in self.queue.drain(..) {
            self.account.unsent(place.due);
        }
        self.offered = 0;
        self.account.end(&self.unanswered);
        self.unanswered = Vec::new();
    }
}
