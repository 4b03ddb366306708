//! The life of a connection: dialling, up, backing off, leaving, closed.

use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use isochrone_model::time::Monotonic;
use tokio::time::{Sleep, sleep};

use crate::{
    Clean, Connected, Disconnected, MqttVersion, Worker,
    mqtt::{
        codec::{self, Accepted},
        dial::{Dialer, Established, Sessions, leave},
        link::Link,
    },
};

type Local<T> = Pin<Box<dyn Future<Output = T>>>;

/// A connection that stayed up this long begins its backoff anew.
const STEADY_NS: i64 = 1_000_000_000;

enum State {
    Idle,
    Dialing(Local<Result<Established, Disconnected>>),
    Up(Box<Link>),
    BackingOff(Pin<Box<Sleep>>),
    /// A subscriber's claim must be found valid first.
    Held,
    Leaving(Local<()>),
    Closed,
}

/// What [`Session::drive`] came to.
pub(super) enum Step {
    /// The connection is up: use [`Session::link`].
    Up,
    /// It has just come up.
    Connected(Connected, Accepted),
    /// An attempt failed.
    Failed(Disconnected),
    /// Nothing to do until the waker fires.
    Wait,
    /// It is over; said again if asked again.
    Closed,
}

/// A connection and its reconnects.
pub(super) struct Session {
    pub dialer: Rc<Dialer>,
    /// The worker's buffer.
    pub buffer: Rc<RefCell<Vec<u8>>>,
    state: State,
    /// Attempts since the connection was last steady.
    attempts: u32,
    /// No attempt has succeeded yet, so an old session is still to be cleared.
    first: bool,
    /// Reconnecting needs [`Session::allow`].
    held: bool,
    allowed: bool,
    waker: Waker,
}

impl Session {
    pub fn new(dialer: Dialer, worker: &Worker, held: bool) -> Session {
        Session {
            dialer: Rc::new(dialer),
            buffer: worker.read_buffer.clone(),
            state: State::Idle,
            attempts: 0,
            first: true,
            held,
            allowed: true,
            waker: Waker::noop().clone(),
        }
    }

    /// Remembers whom to wake; the writes that happen outside of `poll` register it with the socket.
    pub fn remember(&mut self, cx: &Context<'_>) {
        if !self.waker.will_wake(cx.waker()) {
            self.waker = cx.waker().clone();
        }
    }

    /// The waker of the last `poll`.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    pub fn wake(&self) {
        self.waker.wake_by_ref();
    }

    /// The connection, while it is up.
    pub fn link(&mut self) -> Option<&mut Link> {
        match &mut self.state {
            State::Up(link) => Some(link),
            _ => None,
        }
    }

    /// Whether the connection is up and the socket takes more.
    pub fn is_writable(&self) -> bool {
        matches!(&self.state, State::Up(link) if !link.blocked())
    }

    /// Drives everything but an established connection.
    pub fn drive(&mut self, cx: &mut Context<'_>) -> Step {
        loop {
            match &mut self.state {
                State::Up(_) => return Step::Up,
                State::Closed => return Step::Closed,
                State::Held if self.allowed => self.state = State::Idle,
                State::Held => return Step::Wait,
                State::Idle => {
                    self.allowed = !self.held;
                    let clear = self.first && self.dialer.config.clear_session;
                    let sessions = if clear { Sessions::Clear } else { Sessions::Resume };
                    let dialer = self.dialer.clone();
                    self.state = State::Dialing(Box::pin(async move { dialer.dial(sessions).await }));
                }
                State::BackingOff(timer) => {
                    if timer.as_mut().poll(cx).is_pending() {
                        return Step::Wait;
                    }
                    self.state = State::Held;
                }
                State::Leaving(leaving) => {
                    if leaving.as_mut().poll(cx).is_pending() {
                        return Step::Wait;
                    }
                    self.state = State::Closed;
                }
                State::Dialing(dialing) => match dialing.as_mut().poll(cx) {
                    Poll::Pending => return Step::Wait,
                    Poll::Ready(Err(disconnected)) => {
                        self.back_off(disconnected.needs_setting);
                        return Step::Failed(disconnected);
                    }
                    Poll::Ready(Ok(established)) => {
                        self.first = false;
                        let (connected, accepted) = (established.connected.clone(), established.accepted);
                        let keep_alive = self.dialer.config.keep_alive;
                        self.state = State::Up(Box::new(Link::new(established, keep_alive)));
                        return Step::Connected(connected, accepted);
                    }
                },
            }
        }
    }

    /// The connection broke: the next attempt follows after a backoff.
    pub fn lost(&mut self, disconnected: &Disconnected, now: Monotonic) {
        if let State::Up(link) = &self.state
            && now.since_ns(link.up_since()) > STEADY_NS
        {
            self.attempts = 0;
        }
        self.back_off(disconnected.needs_setting);
    }

    /// Lets the next reconnect happen.
    pub fn allow(&mut self) {
        self.allowed = true;
        self.wake();
    }

    /// Begins to leave. Repeated calls change nothing.
    pub fn close(&mut self, clean: Clean) {
        let dialer = self.dialer.clone();
        let remove = clean == Clean::RemoveSession && !dialer.is_clean();
        let version = dialer.config.version;
        let left = std::mem::replace(&mut self.state, State::Closed);
        self.state = match left {
            State::Closed => State::Closed,
            State::Leaving(leaving) => State::Leaving(leaving),
            State::Up(link) => {
                let (stream, mut last) = link.into_rest();
                last.extend_from_slice(&codec::disconnect(version, remove));
                State::Leaving(Box::pin(async move {
                    leave(stream, last).await;
                    if remove && version == MqttVersion::V311 {
                        dialer.remove_session().await;
                    }
                }))
            }
            // A predecessor, or an attempt that got as far as the broker, may have left a session there.
            _ if remove => State::Leaving(Box::pin(async move { dialer.remove_session().await })),
            _ => State::Closed,
        };
        self.wake();
    }

    fn back_off(&mut self, slowest: bool) {
        let (shortest, longest) = self.dialer.config.reconnect;
        let doubled = shortest.saturating_mul(1_u32.checked_shl(self.attempts.min(20)).unwrap_or(u32::MAX));
        let base = if slowest { longest } else { doubled.min(longest) };
        self.attempts = self.attempts.saturating_add(1);
        // Between half and all of it, so that a fleet does not come back as one.
        let jittered = base
            .mul_f64(0.5 + 0.5 * rand::random::<f64>())
            .max(Duration::from_millis(1));
        self.state = State::BackingOff(Box::pin(sleep(jittered)));
    }
}
