//! One emulated device: its schedule, its queue, its connection and its account.
//!
//! Nothing here waits or reads a clock; the worker says what time it is. Open loop: what the connection does never
//! changes when the next message is due.

use std::{
    collections::VecDeque,
    task::{Context, Poll, Waker},
    time::Duration,
};

use isochrone_model::{
    schedule::{Schedule, Slot},
    time::{Monotonic, Offset, Reference},
};
use isochrone_transport::{Clean, Disconnected, Offer, PublishEvent, Publisher};

use crate::rows::Account;

/// Messages a device without a rate offers before others get their turn.
const FLAT_OUT_TURN: usize = 256;
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
                self.deadline = duration.map(|duration| origin + duration.as_nanos() as u64);
            }
        }
        self.pace = Some(pace);
        self.step()
    }

    /// Takes every place that is due by now out of the schedule; answers when the next one is due. At the end of the
    /// schedule the device begins to drain and [`deadline`](Emulated::deadline) changes.
    ///
    /// A device without a rate has no places; [`send`](Emulated::send) makes them.
    pub fn collect(&mut self, moment: Moment) -> Option<Monotonic> {
        if self.phase != Phase::Running || self.flat_out() {
            return None;
        }
        while let Some(slot) = &self.next {
            let due_monotonic = self.origin + slot.at_ns;
            if due_monotonic > moment.now {
                return Some(due_monotonic);
            }
            let full = self.queue.len() >= self.limits.queue;
            if full && self.has_room() {
                // Only we were away: send first, then go on collecting.
                return Some(moment.now);
            }
            let warmup = slot.warmup;
            let due = moment.offset.at(due_monotonic);
            self.account.scheduled(due, warmup);
            // Full: the newest place is given up, so that order and the oldest due time stay.
            if full {
                self.account.unsent(due);
            } else {
                self.queue.push_back(Place {
                    due,
                    due_monotonic,
                    ready: moment.now,
                    warmup,
                });
            }
            self.step();
        }
        self.drain(moment.now);
        None
    }

    /// Offers what is queued while the connection takes it, and writes it.
    pub fn send(&mut self, moment: Moment, events: &mut Vec<PublishEvent>) -> Wants {
        let mut wants = Wants::default();
        // A long queue takes several turns of the connection's room.
        while self.offered == 0 && self.offer_queued() + self.offer_flat_out(moment) > 0 {
            self.flush(moment, events, &mut wants);
            if self.flat_out() {
                break;
            }
        }
        if self.offer_queued() > 0 {
            self.flush(moment, events, &mut wants);
        }
        self.settle(moment.now, &mut wants);
        wants
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

    fn flush(&mut self, moment: Moment, events: &mut Vec<PublishEvent>, wants: &mut Wants) {
        let Some(publisher) = &mut self.publisher else { return };
        publisher.flush(events);
        let applied = self.apply(events, moment, true);
        wants.first_connected |= applied.first_connected;
        wants.trouble = applied.trouble.or(wants.trouble.take());
        // What the socket did not take is the poll's to write; and a device without a rate always has more.
        wants.poll |= self.offered > 0 || self.flat_out();
    }

    fn has_room(&self) -> bool {
        let waiting = self.queue.len() > self.offered;
        waiting && self.publisher.as_ref().is_some_and(|publisher| publisher.room() > 0)
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
        self.deadline = Some(now + self.limits.drain.as_nanos() as u64);
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

    fn offer_queued(&mut self) -> usize {
        let Some(publisher) = &mut self.publisher else { return 0 };
        let waiting = self.queue.len() - self.offered;
        if waiting == 0 || !matches!(self.phase, Phase::Running | Phase::Draining) {
            return 0;
        }
        let taken = waiting.min(publisher.room());
        for place in self.queue.range(self.offered..self.offered + taken) {
            publisher.offer(Offer {
                sequence: self.next_sequence,
                due: place.due,
                due_monotonic: place.due_monotonic,
                warmup: place.warmup,
            });
            self.next_sequence += 1;
        }
        self.offered += taken;
        taken
    }

    /// Rate `max`: due is the moment of sending, and there is never a queue.
    fn offer_flat_out(&mut self, moment: Moment) -> usize {
        let Some(Pace::FlatOut { count, warmup, .. }) = self.pace else {
            return 0;
        };
        let Some(publisher) = &mut self.publisher else { return 0 };
        if self.phase != Phase::Running || moment.now < self.origin || self.offered > 0 {
            return 0;
        }
        let left = count.map_or(u64::MAX, |count| count.saturating_sub(self.account.row().scheduled));
        let taken = publisher
            .room()
            .min(FLAT_OUT_TURN)
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        let in_warmup = moment.now.since_ns(self.origin) < warmup.as_nanos() as i64;
        let due = moment.offset.at(moment.now);
        for _ in 0..taken {
            self.account.scheduled(due, in_warmup);
            self.queue.push_back(Place {
                due,
                due_monotonic: moment.now,
                ready: moment.now,
                warmup: in_warmup,
            });
            publisher.offer(Offer {
                sequence: self.next_sequence,
                due,
                due_monotonic: moment.now,
                warmup: in_warmup,
            });
            self.next_sequence += 1;
        }
        self.offered += taken;
        if taken as u64 == left {
            self.drain(moment.now);
        }
        taken
    }

    /// Counts what happened. `just_offered`: the events come from the write that directly followed the offering.
    fn apply(&mut self, events: &mut Vec<PublishEvent>, moment: Moment, just_offered: bool) -> Wants {
        let mut wants = Wants::default();
        for event in events.drain(..) {
            match event {
                PublishEvent::Sent {
                    sequence,
                    due,
                    sent,
                    sent_monotonic,
                } => {
                    let Some(place) = self.queue.pop_front() else { continue };
                    self.offered = self.offered.saturating_sub(1);
                    // Nothing of theirs lay between: the whole way to the socket was ours. Else ours ended when it was ready.
                    let ready = if just_offered && moment.now == place.ready {
                        sent_monotonic
                    } else {
                        place.ready
                    };
                    self.account
                        .sent(sequence, due, sent, ready.since_ns(place.due_monotonic));
                    if self.phase == Phase::Closing && !self.account.answered() {
                        self.unanswered.push(sequence);
                    }
                }
                PublishEvent::Acked {
                    sequence,
                    due,
                    sent_monotonic,
                    at,
                    unrouted,
                } => {
                    self.account.acked(due, at.since_ns(sent_monotonic), unrouted);
                    self.unanswered.retain(|&other| other != sequence);
                }
                PublishEvent::Completed { due, released, at, .. } => {
                    self.account.completed(due, at.since_ns(released));
                }
                PublishEvent::Refused { sequence, due, .. } => {
                    self.account.refused(sequence, due);
                    self.unanswered.retain(|&other| other != sequence);
                }
                PublishEvent::Retransmitted { .. } => self.account.retransmitted(),
                PublishEvent::Connected(connected) => {
                    self.connected = true;
                    if !connected.session_present {
                        self.account.session_lost();
                    }
                    self.account.connected(&connected);
                    wants.first_connected |= !self.ever_connected;
                    self.ever_connected = true;
                }
                PublishEvent::Disconnected(disconnected) => {
                    self.account
                        .disconnected(&disconnected, self.connected, moment.offset.at(moment.now));
                    self.connected = false;
                    wants.trouble = Some(Box::new(disconnected));
                }
                PublishEvent::Closed => {}
            }
        }
        wants
    }
}

#[cfg(test)]
mod tests;
