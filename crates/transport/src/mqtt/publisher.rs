//! A device's outgoing connection.

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
};

use isochrone_model::time::{Clock, Monotonic};
use tokio::task::unconstrained;

use crate::{
    Clean, Disconnected, MqttVersion, Offer, PublishEvent, Publisher, PublisherConfig, Worker,
    mqtt::{
        frame::FrameTemplate,
        reason,
        sender::Sender,
        session::{Session, Step},
        wire::Frame,
    },
};

/// What common 3.1.1 brokers take of QoS 2 at once.
const QOS2_COMMON: usize = 20;
/// Reads in one `poll` before other connections of the worker get their turn.
const READS: usize = 16;

/// One device's connection.
pub(super) struct MqttPublisher {
    session: Session,
    clock: Arc<dyn Clock>,
    sender: Sender,
    reported: bool,
}

impl MqttPublisher {
    pub fn new(session: Session, frame: FrameTemplate, config: PublisherConfig, worker: &Worker) -> MqttPublisher {
        let sender = Sender::new(frame, config, worker.domain);
        MqttPublisher {
            session,
            clock: worker.clock.clone(),
            sender,
            reported: false,
        }
    }

    fn drive(&mut self, cx: &mut Context<'_>, events: &mut Vec<PublishEvent>) -> Poll<()> {
        loop {
            match self.session.drive(cx) {
                Step::Wait => return Poll::Pending,
                Step::Failed(disconnected) => events.push(PublishEvent::Disconnected(disconnected)),
                Step::Closed => {
                    if !std::mem::replace(&mut self.reported, true) {
                        events.push(PublishEvent::Closed);
                    }
                    return Poll::Ready(());
                }
                Step::Connected(connected, accepted) => {
                    if accepted.max_qos < self.sender.qos() {
                        let detail = format!("the broker's maximum QoS is {}: lower ISOCHRONE_QOS", accepted.max_qos);
                        self.end(reason::needs_setting("qos not supported", detail), events);
                        continue;
                    }
                    self.sender.begin(&accepted);
                    events.push(PublishEvent::Connected(connected));
                }
                Step::Up => match self.run(cx, events) {
                    Ok(()) => return Poll::Pending,
                    Err(disconnected) => self.end(disconnected, events),
                },
            }
        }
    }

    /// Reads, keeps alive, writes.
    fn run(&mut self, cx: &mut Context<'_>, events: &mut Vec<PublishEvent>) -> Result<(), Disconnected> {
        let MqttPublisher {
            session, clock, sender, ..
        } = self;
        let shared = session.buffer.clone();
        let Some(link) = session.link() else { return Ok(()) };
        let mut buffer = std::mem::take(&mut *shared.borrow_mut());
        let mut reads = 0;
        let read = loop {
            let mut handle = |frame: Frame<'_>, at: Monotonic, out: &mut Vec<u8>| sender.answer(frame, at, out, events);
            match link.read(cx, &**clock, &mut buffer, &mut handle) {
                Poll::Pending => break Ok(()),
                Poll::Ready(Err(error)) => break Err(error),
                Poll::Ready(Ok(())) => reads += 1,
            }
            if reads == READS {
                cx.waker().wake_by_ref();
                break Ok(());
            }
        };
        let done = read.and_then(|()| link.keep_alive(cx, &**clock)).and_then(|silent| {
            if silent {
                sender.shrink();
            }
            sender.write(link, cx, &**clock, &mut buffer, events)
        });
        *shared.borrow_mut() = buffer;
        done
    }

    fn end(&mut self, mut disconnected: Disconnected, events: &mut Vec<PublishEvent>) {
        let version = self.session.dialer.config.version;
        let in_flight = self.sender.in_flight();
        if version == MqttVersion::V311 && self.sender.qos() == 2 && in_flight > QOS2_COMMON && is_cut(&disconnected) {
            disconnected.detail.push_str(&format!(
                " with {in_flight} QoS 2 messages in flight: MQTT 3.1.1 brokers cannot announce their limit \
                 (mosquitto's max_inflight_messages is {QOS2_COMMON}): lower ISOCHRONE_IN_FLIGHT"
            ));
        }
        self.sender.end();
        self.session.lost(&disconnected, self.clock.monotonic());
        events.push(PublishEvent::Disconnected(disconnected));
    }
}

fn is_cut(disconnected: &Disconnected) -> bool {
    matches!(disconnected.reason, "reset by peer" | "closed by peer")
}

impl Publisher for MqttPublisher {
    fn room(&self) -> usize {
        if !self.session.is_writable() {
            0
        } else {
            self.sender.room()
        }
    }

    fn offer(&mut self, offer: Offer) {
        self.sender.offer(offer);
    }

    fn flush(&mut self, events: &mut Vec<PublishEvent>) {
        if self.sender.is_idle() {
            return;
        }
        let waker = self.session.waker();
        let MqttPublisher {
            session, clock, sender, ..
        } = self;
        let shared = session.buffer.clone();
        let Some(link) = session.link() else { return };
        let mut buffer = std::mem::take(&mut *shared.borrow_mut());
        let write = std::future::poll_fn(|cx| Poll::Ready(sender.write(link, cx, &**clock, &mut buffer, events)));
        // tokio's budget counts polls of one task; a worker's task writes for all its devices.
        let done = pin!(unconstrained(write)).poll(&mut Context::from_waker(&waker));
        *shared.borrow_mut() = buffer;
        if let Poll::Ready(Err(disconnected)) = done {
            self.end(disconnected, events);
            self.session.wake();
        }
    }

    fn poll(&mut self, context: &mut Context<'_>, events: &mut Vec<PublishEvent>) -> Poll<()> {
        self.session.remember(context);
        let drive = std::future::poll_fn(|cx| self.drive(cx, events));
        pin!(unconstrained(drive)).poll(context)
    }

    fn close(&mut self, clean: Clean) {
        self.sender.drop_pending();
        self.session.close(clean);
    }

    fn unanswered(&self) -> Vec<u64> {
        self.sender.unanswered()
    }
}
