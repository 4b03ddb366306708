//! One connection that hears one or many claims, driven on its worker's thread.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use isochrone_model::{
    id::Topic,
    time::{Monotonic, Second},
};
use isochrone_transport::{Clean, DeliveryId, Subscriber};
use tokio::sync::Notify;

use crate::{
    connect::LinkKey,
    desk::Desk,
    receive::{Outcome, Receiver},
    tender::Tender,
};

/// A connection that takes longer than this to say goodbye is left.
const GOODBYE: Duration = Duration::from_secs(2);

/// Flush when so many samples are fresh.
pub const FRESH: usize = 1_000;

/// One connection.
pub struct Link {
    /// Its number in the slice.
    pub number: usize,
    /// Which topics share it.
    pub key: LinkKey,
    /// A successor finds its session.
    pub resumable: bool,
    /// How many topics it hears.
    pub topics: Cell<usize>,
    /// Since when it waits to be allowed to reconnect.
    pub lost_at: Cell<Option<Monotonic>>,
    subscriber: RefCell<Box<dyn Subscriber>>,
    waker: RefCell<Option<Waker>>,
    attended: Cell<Monotonic>,
    closed: Cell<bool>,
    gone: Notify,
}

impl Link {
    /// A connection that has not been driven yet.
    pub fn new(number: usize, key: LinkKey, resumable: bool, subscriber: Box<dyn Subscriber>, now: Monotonic) -> Link {
        Link {
            number,
            key,
            resumable,
            topics: Cell::new(0),
            lost_at: Cell::new(None),
            subscriber: RefCell::new(subscriber),
            waker: RefCell::new(None),
            attended: Cell::new(now),
            closed: Cell::new(false),
            gone: Notify::new(),
        }
    }

    /// Drives the connection until it is closed.
    pub async fn drive(self: Rc<Link>, tender: Rc<Tender>, desk: Rc<Desk>) {
        poll_fn(|context| self.poll(context, &tender, &desk)).await;
        self.closed.set(true);
        self.gone.notify_waiters();
    }

    fn poll(&self, context: &mut Context<'_>, tender: &Tender, desk: &Desk) -> Poll<()> {
        self.keep_waker(context);
        let now = desk.clock.monotonic();
        if desk.turn(now) {
            return Poll::Pending;
        }
        let offset = desk.clock.offset();
        let reference = offset.at(now);
        let second: Second = reference.second();
        let mut slice = tender.slice.borrow_mut();
        let mut absences = desk.absences.borrow_mut();
        let idle_until = self.attended.get().max(desk.woken.get());
        absences.worked((idle_until, now));
        let mut ration = desk.ration.borrow_mut();
        let mut receiver = Receiver {
            slice: &mut slice,
            ration: &mut ration,
            absences: &absences,
            link: self.number,
            offset,
            outcome: Outcome::default(),
            now: reference,
            second: (second.start(), second),
        };
        let done = self.subscriber.borrow_mut().poll(context, &mut receiver);
        let outcome = receiver.outcome;
        let excess = ration.excess();
        let hurry = slice.fresh >= FRESH || slice.unacknowledged();
        drop((slice, absences, ration));
        self.attended.set(desk.clock.monotonic());
        self.follow_up(&outcome, hurry, now, tender, desk);
        if excess > 0 {
            desk.drop_oldest(excess);
        }
        done
    }

    fn follow_up(&self, outcome: &Outcome, hurry: bool, now: Monotonic, tender: &Tender, desk: &Desk) {
        if outcome.messages > 0 {
            desk.last_message.set(now);
        }
        if outcome.connected {
            self.lost_at.set(None);
        }
        if let Some(lost) = &outcome.disconnected {
            self.lost_at.set(Some(now));
            desk.tell_lost(&self.key.url, lost);
        }
        for (topic, detail) in &outcome.refused {
            tracing::error!(topic, "failed to subscribe: {detail}");
        }
        if hurry || outcome.unknown || outcome.subscribed || outcome.disconnected.is_some() {
            tender.notify.notify_one();
        }
    }

    fn keep_waker(&self, context: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            *waker = Some(context.waker().clone());
        }
    }

    /// Has the connection polled soon.
    pub fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// Hears these topics too.
    pub fn subscribe(&self, topics: &[Topic]) {
        let names: Vec<Arc<str>> = topics.iter().map(|topic| topic.0.clone()).collect();
        self.topics.set(self.topics.get() + names.len());
        self.subscriber.borrow_mut().subscribe(&names);
        self.wake();
    }

    /// Hears these topics no more.
    pub fn unsubscribe(&self, topics: &[Topic]) {
        let names: Vec<Arc<str>> = topics.iter().map(|topic| topic.0.clone()).collect();
        self.topics.set(self.topics.get().saturating_sub(names.len()));
        self.subscriber.borrow_mut().unsubscribe(&names);
        self.wake();
    }

    /// Acknowledges what the store has.
    pub fn acknowledge(&self, up_to: DeliveryId) {
        self.subscriber.borrow_mut().acknowledge(up_to);
        self.wake();
    }

    /// The claims were found valid: it may connect again.
    pub fn allow_reconnect(&self) {
        self.lost_at.set(None);
        self.subscriber.borrow_mut().allow_reconnect();
        self.wake();
    }

    /// Says goodbye and waits until it is gone, for a bounded time.
    pub async fn close(&self, clean: Clean) {
        self.start_close(clean);
        let gone = self.gone.notified();
        if self.closed.get() {
            return;
        }
        // A broker that does not answer costs only this wait: the connection is dropped with its worker or its slice.
        let _ = tokio::time::timeout(GOODBYE, gone).await;
    }

    /// Says goodbye.
    pub fn start_close(&self, clean: Clean) {
        self.subscriber.borrow_mut().close(clean);
        self.wake();
    }
}
