//! One connection that hears one or many claims, driven on its worker's thread.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    pin::pin,
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
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
    waker: Arc<LinkWaker>,
    attended: Cell<Monotonic>,
    closed: Cell<bool>,
    gone: Notify,
}

/// Wakes the connection's task, except from within its own poll: a connection with more to read wakes itself at once, and
/// a thread that did nothing else would look at its timers far too seldom.
#[derive(Default)]
struct LinkWaker {
    task: Mutex<Option<Waker>>,
    polling: AtomicBool,
    again: AtomicBool,
}

impl Wake for LinkWaker {
    fn wake(self: Arc<LinkWaker>) {
        LinkWaker::wake_by_ref(&self);
    }

    fn wake_by_ref(self: &Arc<LinkWaker>) {
        // Wakes from other threads that fall into a poll are kept for its end.
        if self.polling.load(Ordering::SeqCst) {
            self.again.store(true, Ordering::SeqCst);
            if self.polling.load(Ordering::SeqCst) {
                return;
            }
        }
        if let Some(task) = self.task.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            task.wake_by_ref();
        }
    }
}

impl LinkWaker {
    /// A poll begins.
    fn enter(self: &Arc<LinkWaker>, context: &Context<'_>) -> Waker {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if !task.as_ref().is_some_and(|task| task.will_wake(context.waker())) {
            *task = Some(context.waker().clone());
        }
        drop(task);
        self.polling.store(true, Ordering::SeqCst);
        Waker::from(self.clone())
    }

    /// A poll ends: true when it is wanted again.
    fn leave(&self) -> bool {
        self.polling.store(false, Ordering::SeqCst);
        self.again.swap(false, Ordering::SeqCst)
    }
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
            waker: Arc::default(),
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
        let waker = self.waker.enter(context);
        let now = desk.clock.monotonic();
        if desk.turn(now) {
            self.waker.leave();
            return Poll::Pending;
        }
        let offset = desk.clock.offset();
        let reference = offset.at(now);
        let second: Second = reference.second();
        let mut slice = tender.slice.borrow_mut();
        let was_clean = slice.is_clean();
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
        let mut inner = Context::from_waker(&waker);
        let done = self.subscriber.borrow_mut().poll(&mut inner, &mut receiver);
        let outcome = receiver.outcome;
        let excess = ration.excess();
        let begun = was_clean && !slice.is_clean();
        let hurry = begun || slice.fresh >= FRESH || slice.unacknowledged();
        drop((slice, absences, ration));
        self.attended.set(desk.clock.monotonic());
        self.follow_up(&outcome, hurry, now, tender, desk);
        if excess > 0 {
            desk.drop_oldest(excess);
        }
        if self.waker.leave() && done.is_pending() {
            // There is more to read: after timers, sockets and answers of the store have had their turn.
            let _ = pin!(tokio::task::yield_now()).poll(context);
        }
        done
    }

    fn follow_up(&self, outcome: &Outcome, hurry: bool, now: Monotonic, tender: &Tender, desk: &Desk) {
        if outcome.messages > 0 {
            desk.received(now);
        }
        if outcome.connected {
            self.lost_at.set(None);
        }
        if let Some(lost) = &outcome.disconnected {
            self.lost_at.set(Some(now));
            desk.tell_lost(&self.key.url, lost);
        }
        for (topic, detail) in &outcome.refused {
            tracing::error!(topic, broker = %self.key.url, "failed to subscribe: {detail}");
        }
        if hurry || outcome.unknown || outcome.subscribed || outcome.disconnected.is_some() {
            tender.notify.notify_one();
        }
    }

    /// Has the connection polled soon.
    pub fn wake(&self) {
        self.waker.wake_by_ref();
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
