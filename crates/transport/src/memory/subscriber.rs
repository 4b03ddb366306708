//! A claim on a hub.

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use isochrone_model::time::Clock;

use crate::{
    Clean, Connected, Deliveries, Delivery, DeliveryId, Disconnected, SubscribeEvent, Subscriber, SubscriberConfig,
    Worker,
    memory::hub::{Hub, Inbox, Queue},
};

/// What is taken from the hub in one `poll` before others of the thread get their turn: each time all that is there.
const TAKES: usize = 4;

pub(super) struct MemorySubscriber {
    hub: Arc<Hub>,
    config: SubscriberConfig,
    clock: Arc<dyn Clock>,
    state: State,
    /// Asked for, to be done by the next poll.
    changes: VecDeque<(Arc<str>, Change)>,
    topics: Vec<Arc<str>>,
    delivered: u64,
    /// Delivered and not acknowledged, with the number of each one's first message.
    owed: VecDeque<(u64, Queue)>,
    spare: Queue,
    first: bool,
    waker: Waker,
}

enum State {
    Idle,
    Held,
    Up { inbox: Arc<Inbox>, holder: u64 },
    Closing,
    Closed,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Add,
    Remove,
}

impl MemorySubscriber {
    pub fn new(hub: Arc<Hub>, config: SubscriberConfig, worker: &Worker) -> MemorySubscriber {
        MemorySubscriber {
            hub,
            config,
            clock: worker.clock.clone(),
            state: State::Idle,
            changes: VecDeque::new(),
            topics: Vec::new(),
            delivered: 0,
            owed: VecDeque::new(),
            spare: Queue::default(),
            first: true,
            waker: Waker::noop().clone(),
        }
    }

    fn is_clean(&self) -> bool {
        self.config.connection.session_expiry.is_zero()
    }

    fn connect(&mut self, deliveries: &mut dyn Deliveries) {
        let client_id = &self.config.connection.client_id;
        if self.is_clean() || (self.first && self.config.connection.clear_session) {
            self.hub.remove_session(client_id);
        }
        self.first = false;
        let (inbox, session_present) = self.hub.session(client_id);
        let holder = inbox.attach();
        if !session_present {
            self.changes
                .extend(self.topics.drain(..).map(|topic| (topic, Change::Add)));
        }
        self.state = State::Up { inbox, holder };
        let at = self.clock.monotonic();
        let connected = Connected {
            at,
            session_present,
            tcp_ns: 0,
            tls_ns: None,
            connack_ns: 0,
        };
        deliveries.event(SubscribeEvent::Connected(connected));
    }

    /// Lets go of the session: what is owed goes back for a successor.
    fn detach(&mut self) {
        if let State::Up { inbox, holder } = &self.state {
            while let Some((_, queue)) = self.owed.pop_back() {
                inbox.put_back(queue);
            }
            inbox.detach(Some(*holder));
        }
    }

    fn receive(&mut self, queue: &Queue, deliveries: &mut dyn Deliveries) {
        let received = self.clock.monotonic();
        let mut start = 0;
        for message in &queue.messages {
            let payload = start + message.property;
            let end = start + message.length;
            self.delivered += 1;
            deliveries.message(Delivery {
                id: DeliveryId(self.delivered),
                topic: &message.topic,
                payload: &queue.bytes[payload..end],
                property: (message.property > 0).then_some(&queue.bytes[start..payload]),
                retained: false,
                received,
            });
            start = end;
        }
    }
}

impl Subscriber for MemorySubscriber {
    fn subscribe(&mut self, topics: &[Arc<str>]) {
        self.changes
            .extend(topics.iter().map(|topic| (topic.clone(), Change::Add)));
        self.waker.wake_by_ref();
    }

    fn unsubscribe(&mut self, topics: &[Arc<str>]) {
        self.changes
            .extend(topics.iter().map(|topic| (topic.clone(), Change::Remove)));
        self.waker.wake_by_ref();
    }

    fn acknowledge(&mut self, up_to: DeliveryId) {
        while let Some((first, queue)) = self.owed.front_mut() {
            let count = (up_to.0 + 1).saturating_sub(*first).min(queue.messages.len() as u64) as usize;
            let bytes: usize = queue.messages.drain(..count).map(|message| message.length).sum();
            queue.bytes.drain(..bytes);
            *first += count as u64;
            if !queue.messages.is_empty() {
                return;
            }
            self.owed.pop_front();
        }
    }

    fn poll(&mut self, context: &mut Context<'_>, deliveries: &mut dyn Deliveries) -> Poll<()> {
        self.waker.clone_from(context.waker());
        let mut takes = 0;
        loop {
            let (inbox, holder) = match &self.state {
                State::Idle => {
                    self.connect(deliveries);
                    continue;
                }
                State::Held => return Poll::Pending,
                State::Up { inbox, holder } => (inbox.clone(), *holder),
                State::Closing => {
                    self.state = State::Closed;
                    deliveries.event(SubscribeEvent::Closed);
                    return Poll::Ready(());
                }
                State::Closed => return Poll::Ready(()),
            };
            for (topic, change) in std::mem::take(&mut self.changes) {
                let inboxes = self.hub.topic(&topic);
                self.topics.retain(|known| *known != topic);
                match change {
                    Change::Add => {
                        inboxes.add(&inbox, self.config.qos);
                        self.topics.push(topic.clone());
                        let at = self.clock.monotonic();
                        deliveries.event(SubscribeEvent::Subscribed {
                            topic,
                            at,
                            suback_ns: 0,
                        });
                    }
                    Change::Remove => inboxes.remove(&inbox),
                }
            }
            if takes == TAKES {
                self.waker.wake_by_ref();
                return Poll::Pending;
            }
            takes += 1;
            let mut queue = std::mem::take(&mut self.spare);
            if !inbox.take(holder, &mut queue, &self.waker) {
                self.owed.clear();
                self.state = State::Held;
                deliveries.event(SubscribeEvent::Disconnected(Disconnected {
                    reason: "session taken over",
                    detail: "another subscriber has the same client id: check ISOCHRONE_CONSUMER_CLIENT_ID".to_owned(),
                    needs_setting: false,
                }));
                continue;
            }
            if queue.messages.is_empty() {
                self.spare = queue;
                return Poll::Pending;
            }
            let first = self.delivered + 1;
            self.receive(&queue, deliveries);
            if self.config.acknowledge_at_once || self.config.qos == 0 {
                queue.bytes.clear();
                queue.messages.clear();
                self.spare = queue;
            } else {
                self.owed.push_back((first, queue));
            }
        }
    }

    fn close(&mut self, clean: Clean) {
        if matches!(self.state, State::Closing | State::Closed) {
            return;
        }
        self.detach();
        if clean == Clean::RemoveSession || self.is_clean() {
            self.hub.remove_session(&self.config.connection.client_id);
        }
        self.state = State::Closing;
        self.waker.wake_by_ref();
    }

    fn allow_reconnect(&mut self) {
        if matches!(self.state, State::Held) {
            self.state = State::Idle;
            self.waker.wake_by_ref();
        }
    }
}

impl Drop for MemorySubscriber {
    fn drop(&mut self) {
        self.detach();
        if matches!(self.state, State::Up { .. }) && self.is_clean() {
            self.hub.remove_session(&self.config.connection.client_id);
        }
    }
}
