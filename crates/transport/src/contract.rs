//! What every transport promises. The contract suite in `tests/` holds each of them to it.
//!
//! Connections are not `Send`: each belongs to one worker thread, is driven by `poll` from that thread's runtime, and
//! shares the thread's buffers. Nothing here blocks, and nothing here waits without a deadline.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use isochrone_model::{
    id::Epoch,
    payload::Payload,
    time::{Monotonic, Reference},
};

use crate::{
    Error,
    connection::{Clean, ConnectionConfig, Worker},
};

/// A way to reach a system under test, opened by URL.
pub trait Transport: Send + Sync {
    /// The URL without secrets.
    fn url(&self) -> &str;
    /// One device's outgoing connection. Does not connect yet: the first `poll` does.
    fn publisher(&self, config: PublisherConfig, worker: &Worker) -> Result<Box<dyn Publisher>, Error>;
    /// One claim's (or many claims') incoming connection. Does not connect yet.
    fn subscriber(&self, config: SubscriberConfig, worker: &Worker) -> Result<Box<dyn Subscriber>, Error>;
}

/// What a device's connection needs.
#[derive(Clone, Debug)]
pub struct PublisherConfig {
    /// Identity, session, TLS and so on.
    pub connection: ConnectionConfig,
    /// What it publishes to.
    pub topic: Arc<str>,
    /// QoS 0, 1 or 2.
    pub qos: u8,
    /// Stamped into every message.
    pub epoch: Epoch,
    /// How a message is made from (device, sequence): shared by all devices of a worker.
    pub payload: Arc<Payload>,
    /// The device's name and number, for the payload.
    pub device: isochrone_model::payload::DeviceSeed,
    /// How many messages may await acknowledgement (further bounded by the broker's receive maximum).
    pub in_flight: usize,
}

/// One message to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Which of its epoch.
    pub sequence: u64,
    /// When the schedule wanted it out.
    pub due: Reference,
    /// The same moment on the host's monotonic clock.
    pub due_monotonic: Monotonic,
    /// Due in warm-up or a ramp: its stamp says so.
    pub warmup: bool,
}

impl Offer {
    /// `now` on the reference clock, by the offset that `due` was made with.
    pub fn sent_at(&self, now: Monotonic) -> Reference {
        self.due + now.since_ns(self.due_monotonic)
    }
}

/// One device's outgoing half.
///
/// The caller offers only while `room() > 0`, then calls `flush`; both may be repeated at will. `poll` must be called
/// when its waker fires and after `close`; it reports what happened through `events`, in order.
pub trait Publisher {
    /// How many messages may be offered now: 0 while not connected, while the socket takes no more, or while the window is full.
    fn room(&self) -> usize;
    /// Takes one message: what it says is final, `sent` is set by the write that offers it.
    fn offer(&mut self, offer: Offer);
    /// Writes what was offered: stamps `sent` once a write of at most 64 KiB. What the socket did not take is written by `poll`.
    fn flush(&mut self, events: &mut Vec<PublishEvent>);
    /// Drives the connection: connects and reconnects with jittered backoff, reads, keeps alive, writes what is left.
    /// Returns Ready once, after [`PublishEvent::Closed`].
    fn poll(&mut self, context: &mut Context<'_>, events: &mut Vec<PublishEvent>) -> Poll<()>;
    /// Stops sending. With `Clean::RemoveSession` the broker's session is deleted on the way out. Safe before connect and when repeated.
    fn close(&mut self, clean: Clean);
    /// Sequences offered and not yet answered, oldest first (QoS > 0).
    fn unanswered(&self) -> Vec<u64>;
}

/// What happened on a publishing connection.
#[derive(Clone, Debug, PartialEq)]
pub enum PublishEvent {
    /// Connected.
    Connected(Connected),
    /// A connection attempt failed or a connection ended; the next attempt follows by itself.
    Disconnected(Disconnected),
    /// Offered to the socket for the first time.
    Sent {
        sequence: u64,
        due: Reference,
        sent: Reference,
        sent_monotonic: Monotonic,
    },
    /// PUBACK (QoS 1) or PUBREC (QoS 2) with success. `unrouted`: reason 0x10.
    Acked {
        sequence: u64,
        due: Reference,
        sent_monotonic: Monotonic,
        at: Monotonic,
        unrouted: bool,
    },
    /// PUBCOMP; `released` is when PUBREL was first sent.
    Completed {
        sequence: u64,
        due: Reference,
        released: Monotonic,
        at: Monotonic,
    },
    /// PUBACK or PUBREC with an error.
    Refused {
        sequence: u64,
        due: Reference,
        reason: &'static str,
    },
    /// A PUBLISH frame was sent again.
    Retransmitted { sequence: u64 },
    /// Done: nothing follows.
    Closed,
}

/// A connection came up. Times are of this attempt, in nanoseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Connected {
    /// When CONNACK had been read.
    pub at: Monotonic,
    /// The broker resumed a session.
    pub session_present: bool,
    /// TCP connect.
    pub tcp_ns: u64,
    /// TLS handshake, where there is one.
    pub tls_ns: Option<u64>,
    /// CONNECT to CONNACK.
    pub connack_ns: u64,
}

/// A connection attempt failed or a connection ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Disconnected {
    /// A short fixed phrase for counting: `tcp refused`, `tls unknown ca`, `not authorised`, `closed by peer`, `keep alive`…
    pub reason: &'static str,
    /// One full line that names cause and setting, without secrets.
    pub detail: String,
    /// The broker or TLS refused in a way that only a setting can mend; attempts go on, at the slowest backoff.
    pub needs_setting: bool,
}

/// What a claim's connection needs.
#[derive(Clone, Debug)]
pub struct SubscriberConfig {
    /// Identity, session, TLS and so on.
    pub connection: ConnectionConfig,
    /// QoS asked for.
    pub qos: u8,
    /// Acknowledge at once, or when [`Subscriber::acknowledge`] says so.
    pub acknowledge_at_once: bool,
}

/// The incoming half. Subscriptions are kept over reconnects (asked for again when the broker has no session).
pub trait Subscriber {
    /// Adds topics (no wildcards). Several SUBSCRIBE packets of many filters each.
    fn subscribe(&mut self, topics: &[Arc<str>]);
    /// Removes topics.
    fn unsubscribe(&mut self, topics: &[Arc<str>]);
    /// Acknowledges deliveries up to and including this one, in the order they came.
    fn acknowledge(&mut self, up_to: DeliveryId);
    /// Drives the connection and hands over what arrives. Ready once, after [`SubscribeEvent::Closed`].
    fn poll(&mut self, context: &mut Context<'_>, deliveries: &mut dyn Deliveries) -> Poll<()>;
    /// As for a publisher.
    fn close(&mut self, clean: Clean);
    /// Holds back the next reconnect until `allow_reconnect` (the claim must be found valid first).
    fn allow_reconnect(&mut self);
}

/// Numbers deliveries of one connection object, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeliveryId(pub u64);

/// Takes what a subscriber hands over.
pub trait Deliveries {
    /// One message, borrowed from the read buffer.
    fn message(&mut self, message: Delivery<'_>);
    /// What else happened.
    fn event(&mut self, event: SubscribeEvent);
}

/// One message as it arrived.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// Its number on this connection object.
    pub id: DeliveryId,
    /// The topic it arrived on.
    pub topic: &'a str,
    /// The payload.
    pub payload: &'a [u8],
    /// The value of the property or header named `isochrone`, where there is one.
    pub property: Option<&'a [u8]>,
    /// A retained message.
    pub retained: bool,
    /// When the read that completed it returned.
    pub received: Monotonic,
}

/// What happened on a subscribing connection.
#[derive(Clone, Debug, PartialEq)]
pub enum SubscribeEvent {
    /// Connected.
    Connected(Connected),
    /// Attempt failed or connection ended; waits for `allow_reconnect`.
    Disconnected(Disconnected),
    /// The broker took the subscription (again, after a reconnect without session). `suback_ns` from SUBSCRIBE to SUBACK.
    Subscribed {
        topic: Arc<str>,
        at: Monotonic,
        suback_ns: u64,
    },
    /// The broker refused it.
    SubscribeRefused { topic: Arc<str>, detail: String },
    /// Done: nothing follows.
    Closed,
}
