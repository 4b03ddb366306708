//! The incoming connection of one or many claims.

mod receiver;

use std::{
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};

use isochrone_model::time::{Clock, Monotonic};
use tokio::{task::unconstrained, time::Sleep};

use self::receiver::Receiver;
use crate::{
    Clean, Deliveries, DeliveryId, Disconnected, SubscribeEvent, Subscriber, SubscriberConfig,
    mqtt::{
        reason,
        session::{Session, Step},
        wire::Frame,
    },
};

/// Reads in one `poll` before other connections of the worker get their turn.
const READS: usize = 16;

/// The incoming connection.
pub(super) struct MqttSubscriber {
    session: Session,
    clock: Arc<dyn Clock>,
    receiver: Receiver,
    /// Ends the connection when a SUBACK stays out.
    suback: Option<Pin<Box<Sleep>>>,
    reported: bool,
}

impl MqttSubscriber {
    pub fn new(session: Session, config: &SubscriberConfig) -> MqttSubscriber {
        let clock = session.dialer.clock.clone();
        let receiver = Receiver::new(config);
        MqttSubscriber {
            session,
            clock,
            receiver,
            suback: None,
            reported: false,
        }
    }

    fn drive(&mut self, cx: &mut Context<'_>, deliveries: &mut dyn Deliveries) -> Poll<()> {
        loop {
            match self.session.drive(cx) {
                Step::Wait => return Poll::Pending,
                Step::Failed(disconnected) => {
                    deliveries.event(SubscribeEvent::Disconnected(reason::of_subscriber(disconnected)));
                }
                Step::Closed => {
                    if !std::mem::replace(&mut self.reported, true) {
                        deliveries.event(SubscribeEvent::Closed);
                    }
                    return Poll::Ready(());
                }
                Step::Connected(connected, accepted) => {
                    self.receiver.begin(accepted.session_present);
                    self.suback = None;
                    deliveries.event(SubscribeEvent::Connected(connected));
                }
                Step::Up => match self.run(cx, deliveries) {
                    Ok(()) => return Poll::Pending,
                    Err(disconnected) => {
                        self.session.lost(&disconnected, self.clock.monotonic());
                        deliveries.event(SubscribeEvent::Disconnected(reason::of_subscriber(disconnected)));
                    }
                },
            }
        }
    }

    /// Subscribes, reads and acknowledges, keeps alive.
    fn run(&mut self, cx: &mut Context<'_>, deliveries: &mut dyn Deliveries) -> Result<(), Disconnected> {
        let MqttSubscriber {
            session,
            clock,
            receiver,
            suback,
            ..
        } = self;
        let shared = session.buffer.clone();
        let Some(link) = session.link() else { return Ok(()) };
        let max_packet = link.max_packet;
        receiver.ask(link.tail(), max_packet, &**clock)?;
        link.flush(cx, &**clock)?;

        let mut buffer = std::mem::take(&mut *shared.borrow_mut());
        let mut reads = 0;
        let read = loop {
            let mut handle =
                |frame: Frame<'_>, at: Monotonic, out: &mut Vec<u8>| receiver.take(frame, at, out, deliveries);
            match link.read(cx, &**clock, &mut buffer, &mut handle) {
                Poll::Pending => break Ok(()),
                Poll::Ready(Err(error)) => break Err(error),
                Poll::Ready(Ok(())) => reads += 1,
            }
            // All acknowledgements of one read leave in one write.
            if let Err(error) = link.flush(cx, &**clock) {
                break Err(error);
            }
            if reads == READS {
                cx.waker().wake_by_ref();
                break Ok(());
            }
        };
        *shared.borrow_mut() = buffer;
        read?;
        receiver.ask(link.tail(), max_packet, &**clock)?;
        link.keep_alive(cx, &**clock)?;
        link.flush(cx, &**clock)?;
        receiver.watch_suback(suback, cx, &**clock)
    }
}

impl Subscriber for MqttSubscriber {
    fn subscribe(&mut self, topics: &[Arc<str>]) {
        self.receiver.want(topics);
        self.session.wake();
    }

    fn unsubscribe(&mut self, topics: &[Arc<str>]) {
        self.receiver.drop_topics(topics);
        self.session.wake();
    }

    fn acknowledge(&mut self, up_to: DeliveryId) {
        let waker = self.session.waker();
        let MqttSubscriber {
            session,
            clock,
            receiver,
            ..
        } = self;
        receiver.acknowledge(up_to);
        let Some(link) = session.link() else { return };
        receiver.pay(link.tail());
        let flush = std::future::poll_fn(|cx| Poll::Ready(link.flush(cx, &**clock)));
        let flushed = pin!(unconstrained(flush)).poll(&mut Context::from_waker(&waker));
        if matches!(flushed, Poll::Ready(Err(_))) {
            // The next read meets the same error and reports it.
            session.wake();
        }
    }

    fn poll(&mut self, context: &mut Context<'_>, deliveries: &mut dyn Deliveries) -> Poll<()> {
        self.session.remember(context);
        let drive = std::future::poll_fn(|cx| self.drive(cx, deliveries));
        pin!(unconstrained(drive)).poll(context)
    }

    fn close(&mut self, clean: Clean) {
        self.session.close(clean);
    }

    fn allow_reconnect(&mut self) {
        self.session.allow();
    }
}
