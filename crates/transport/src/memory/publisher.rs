//! A device on a hub: every message is answered as soon as it is handed over.

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use isochrone_model::{payload::StampPlace, stamp::Stamp};

use crate::{
    Clean, Connected, Offer, PublishEvent, Publisher, PublisherConfig, Worker,
    memory::hub::{Hub, TopicInboxes},
};

/// The most that one reading of the clock stamps, as on a socket.
const WRITE: usize = 64 * 1024;

pub(super) struct MemoryPublisher {
    /// Keeps the hub alive.
    _hub: Arc<Hub>,
    inboxes: Arc<TopicInboxes>,
    config: PublisherConfig,
    worker: Worker,
    pending: VecDeque<Offer>,
    /// Of the write under way: where each message ends, and where its stamp goes.
    batch: Vec<(usize, Option<usize>)>,
    waker: Waker,
    state: State,
    blocked: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    Up,
    Closing,
    Closed,
}

impl MemoryPublisher {
    pub fn new(hub: Arc<Hub>, config: PublisherConfig, worker: &Worker) -> MemoryPublisher {
        let inboxes = hub.topic(&config.topic);
        MemoryPublisher {
            _hub: hub,
            inboxes,
            config,
            worker: worker.clone(),
            pending: VecDeque::new(),
            batch: Vec::new(),
            waker: Waker::noop().clone(),
            state: State::New,
            blocked: false,
        }
    }

    /// Renders up to 64 KiB, stamps and hands it over.
    fn write(&mut self, buffer: &mut Vec<u8>, events: &mut Vec<PublishEvent>) {
        buffer.clear();
        self.batch.clear();
        for offer in &self.pending {
            let start = buffer.len();
            let stamp_at = self.config.payload.render(&self.config.device, offer.sequence, buffer);
            if buffer.len() > WRITE && start > 0 {
                buffer.truncate(start);
                break;
            }
            self.batch.push((buffer.len(), stamp_at));
        }
        let now = self.worker.clock.monotonic();
        let mut start = 0;
        let batch = std::mem::take(&mut self.batch);
        for &(end, stamp_at) in &batch {
            let Some(offer) = self.pending.pop_front() else {
                break;
            };
            let Offer { sequence, due, .. } = offer;
            let sent = offer.sent_at(now);
            let stamp = Stamp {
                domain: self.worker.domain,
                epoch: self.config.epoch,
                sequence,
                warmup: offer.warmup,
                due,
                sent,
                sent_monotonic: now,
            };
            let mut property = [0; Stamp::TEXT_LEN];
            let property = match (self.config.connection.stamp, stamp_at) {
                (StampPlace::Property, _) => {
                    stamp.write_text(&mut property);
                    &property[..]
                }
                (StampPlace::Text, Some(at)) => {
                    stamp.write_text(&mut buffer[at..at + Stamp::TEXT_LEN]);
                    &[]
                }
                (StampPlace::Bytes, Some(at)) => {
                    stamp.write_bytes(&mut buffer[at..at + Stamp::BYTES_LEN]);
                    &[]
                }
                (_, None) => &[],
            };
            let heard = self
                .inboxes
                .publish(&self.config.topic, self.config.qos, property, &buffer[start..end]);
            start = end;
            events.push(PublishEvent::Sent {
                sequence,
                due,
                sent,
                sent_monotonic: now,
            });
            if self.config.qos > 0 {
                let at = self.worker.clock.monotonic();
                events.push(PublishEvent::Acked {
                    sequence,
                    due,
                    sent_monotonic: now,
                    at,
                    unrouted: !heard,
                });
                if self.config.qos == 2 {
                    events.push(PublishEvent::Completed {
                        sequence,
                        due,
                        released: at,
                        at,
                    });
                }
            }
        }
        self.batch = batch;
        self.inboxes.wake();
    }
}

impl Publisher for MemoryPublisher {
    fn room(&self) -> usize {
        if self.state != State::Up || self.blocked {
            return 0;
        }
        self.config.in_flight.max(1).saturating_sub(self.pending.len())
    }

    fn offer(&mut self, offer: Offer) {
        self.pending.push_back(offer);
    }

    fn flush(&mut self, events: &mut Vec<PublishEvent>) {
        if self.state != State::Up {
            return;
        }
        let mut buffer = std::mem::take(&mut *self.worker.read_buffer.borrow_mut());
        self.blocked = false;
        while !self.pending.is_empty() {
            if !self.inboxes.has_room(&self.waker) {
                self.blocked = true;
                break;
            }
            self.write(&mut buffer, events);
        }
        *self.worker.read_buffer.borrow_mut() = buffer;
    }

    fn poll(&mut self, context: &mut Context<'_>, events: &mut Vec<PublishEvent>) -> Poll<()> {
        self.waker.clone_from(context.waker());
        match self.state {
            State::New => {
                self.state = State::Up;
                let at = self.worker.clock.monotonic();
                let connected = Connected {
                    at,
                    session_present: false,
                    tcp_ns: 0,
                    tls_ns: None,
                    connack_ns: 0,
                };
                events.push(PublishEvent::Connected(connected));
            }
            State::Up => {}
            State::Closing => {
                self.state = State::Closed;
                events.push(PublishEvent::Closed);
                return Poll::Ready(());
            }
            State::Closed => return Poll::Ready(()),
        }
        self.flush(events);
        Poll::Pending
    }

    fn close(&mut self, _clean: Clean) {
        if self.state != State::Closed {
            self.state = State::Closing;
            self.pending = VecDeque::new();
            self.waker.wake_by_ref();
        }
    }

    fn unanswered(&self) -> Vec<u64> {
        if self.config.qos == 0 {
            return Vec::new();
        }
        self.pending.iter().map(|offer| offer.sequence).collect()
    }
}
