//! Publishers and subscribers under one poller, and what they reported.

use std::{
    cell::RefCell,
    collections::VecDeque,
    future::poll_fn,
    rc::Rc,
    sync::{Arc, LazyLock},
    task::Poll,
    time::Duration,
};

use isochrone_model::{
    id::{Domain, Epoch},
    payload::{DeviceSeed, Payload, StampPlace},
    stamp::{Found, Stamp, find, from_property},
    time::{Clock, Monotonic, Offset},
};
use isochrone_transport::{
    ConnectionConfig, Deliveries, Delivery, DeliveryId, MqttVersion, Offer, PublishEvent, Publisher, PublisherConfig,
    SubscribeEvent, Subscriber, SubscriberConfig, TlsConfig, Transport, Worker,
};
use tokio::time::{Instant, timeout};

/// No condition of a test may take longer.
pub const PATIENCE: Duration = Duration::from_secs(30);

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

pub struct TestClock;

impl Clock for TestClock {
    fn monotonic(&self) -> Monotonic {
        Monotonic(1_000_000_000 + START.elapsed().as_nanos() as u64)
    }

    fn offset(&self) -> Offset {
        Offset {
            reference_minus_monotonic_ns: 1_700_000_000_000_000_000,
            bound_ns: 0,
            era: 0,
        }
    }
}

pub fn worker() -> Worker {
    Worker {
        clock: Arc::new(TestClock),
        domain: Domain(42),
        read_buffer: Rc::new(RefCell::new(Vec::new())),
    }
}

pub fn connection(client_id: &str, version: MqttVersion) -> ConnectionConfig {
    ConnectionConfig {
        client_id: client_id.to_owned(),
        username: None,
        password: None,
        tls: TlsConfig::default(),
        version,
        keep_alive: Duration::from_secs(30),
        session_expiry: Duration::from_secs(3600),
        clear_session: false,
        reconnect: (Duration::from_millis(5), Duration::from_millis(50)),
        receive_maximum: 1000,
        stamp: StampPlace::Text,
    }
}

/// A publisher, what it reported, and what it is still to send.
pub struct Sending {
    pub publisher: Box<dyn Publisher>,
    pub events: Vec<PublishEvent>,
    pub todo: VecDeque<u64>,
    pub next: u64,
}

/// A subscriber and what it got.
pub struct Receiving {
    pub subscriber: Box<dyn Subscriber>,
    pub got: Got,
    pub reconnect: bool,
}

#[derive(Default)]
pub struct Got {
    pub messages: Vec<Message>,
    pub events: Vec<SubscribeEvent>,
}

pub struct Message {
    pub id: DeliveryId,
    pub topic: String,
    pub payload: Vec<u8>,
    pub retained: bool,
    pub stamp: Option<Stamp>,
    pub received: Monotonic,
}

impl Deliveries for Got {
    fn message(&mut self, message: Delivery<'_>) {
        let found = message.property.map_or_else(|| find(message.payload), from_property);
        self.messages.push(Message {
            id: message.id,
            topic: message.topic.to_owned(),
            payload: message.payload.to_vec(),
            retained: message.retained,
            stamp: if let Found::Stamp(stamp) = found {
                Some(stamp)
            } else {
                None
            },
            received: message.received,
        });
    }

    fn event(&mut self, event: SubscribeEvent) {
        self.events.push(event);
    }
}

impl Got {
    pub fn sequences(&self) -> Vec<u64> {
        self.messages
            .iter()
            .filter_map(|message| message.stamp.map(|stamp| stamp.sequence))
            .collect()
    }

    pub fn subscribed(&self) -> usize {
        self.events
            .iter()
            .filter(|event| matches!(event, SubscribeEvent::Subscribed { .. }))
            .count()
    }

    pub fn closed(&self) -> bool {
        self.events.contains(&SubscribeEvent::Closed)
    }

    pub fn sessions_present(&self) -> Vec<bool> {
        let present = |event: &SubscribeEvent| match event {
            SubscribeEvent::Connected(connected) => Some(connected.session_present),
            _ => None,
        };
        self.events.iter().filter_map(present).collect()
    }
}

pub fn sending(transport: &dyn Transport, connection: ConnectionConfig, topic: &str, qos: u8) -> Sending {
    sending_sized(transport, connection, topic, qos, "{{stamp}} {{device}} {{seq}}")
}

pub fn sending_sized(
    transport: &dyn Transport,
    connection: ConnectionConfig,
    topic: &str,
    qos: u8,
    template: &str,
) -> Sending {
    let template = if connection.stamp == StampPlace::Property {
        "no stamp here {{seq}}"
    } else {
        template
    };
    let payload = Payload::compile(template.as_bytes(), connection.stamp, None).unwrap();
    // Beyond 20 QoS 2 messages in flight mosquitto answers a 3.1.1 client with PUBREC and drops them.
    let in_flight = if qos == 2 && connection.version == MqttVersion::V311 {
        20
    } else {
        100
    };
    let config = PublisherConfig {
        connection,
        topic: topic.into(),
        qos,
        epoch: Epoch(77),
        payload: Arc::new(payload),
        device: DeviceSeed {
            device: "0-0".into(),
            run: "run".into(),
            seed: 1,
        },
        in_flight,
    };
    let publisher = transport.publisher(config, &worker()).unwrap();
    Sending {
        publisher,
        events: Vec::new(),
        todo: VecDeque::new(),
        next: 0,
    }
}

pub fn receiving(
    transport: &dyn Transport,
    connection: ConnectionConfig,
    topics: &[&str],
    qos: u8,
    acknowledge_at_once: bool,
) -> Receiving {
    let config = SubscriberConfig {
        connection,
        qos,
        acknowledge_at_once,
    };
    let mut subscriber = transport.subscriber(config, &worker()).unwrap();
    subscriber.subscribe(&topics.iter().map(|&topic| topic.into()).collect::<Vec<_>>());
    Receiving {
        subscriber,
        got: Got::default(),
        reconnect: true,
    }
}

impl Sending {
    pub fn send(&mut self, count: u64) {
        self.todo.extend(self.next..self.next + count);
        self.next += count;
    }

    pub fn count(&self, what: impl Fn(&PublishEvent) -> bool) -> usize {
        self.events.iter().filter(|event| what(event)).count()
    }

    pub fn sent(&self) -> Vec<u64> {
        let sent = |event: &PublishEvent| match event {
            PublishEvent::Sent { sequence, .. } => Some(*sequence),
            _ => None,
        };
        self.events.iter().filter_map(sent).collect()
    }

    pub fn acked(&self) -> usize {
        self.count(|event| matches!(event, PublishEvent::Acked { .. }))
    }

    pub fn closed(&self) -> bool {
        self.events.contains(&PublishEvent::Closed)
    }

    fn turn(&mut self, cx: &mut std::task::Context<'_>) -> bool {
        let before = (self.events.len(), self.todo.len());
        let _ = self.publisher.poll(cx, &mut self.events);
        loop {
            let room = self.publisher.room().min(self.todo.len());
            if room == 0 {
                break;
            }
            for sequence in self.todo.drain(..room) {
                let now = TestClock.monotonic();
                self.publisher.offer(Offer {
                    sequence,
                    due: TestClock.offset().at(now),
                    due_monotonic: now,
                    warmup: false,
                });
            }
            self.publisher.flush(&mut self.events);
        }
        before != (self.events.len(), self.todo.len())
    }
}

impl Receiving {
    fn turn(&mut self, cx: &mut std::task::Context<'_>) -> bool {
        let before = (self.got.events.len(), self.got.messages.len());
        let _ = self.subscriber.poll(cx, &mut self.got);
        let new = &self.got.events[before.0..];
        if self.reconnect && new.iter().any(|event| matches!(event, SubscribeEvent::Disconnected(_))) {
            self.subscriber.allow_reconnect();
        }
        before != (self.got.events.len(), self.got.messages.len())
    }
}

/// Drives all until the condition holds.
pub async fn until(
    what: &str,
    sending: &mut [&mut Sending],
    receiving: &mut [&mut Receiving],
    mut done: impl FnMut(&[&mut Sending], &[&mut Receiving]) -> bool,
) {
    let driving = poll_fn(|cx| {
        loop {
            let mut moved = false;
            for one in receiving.iter_mut() {
                moved |= one.turn(cx);
            }
            for one in sending.iter_mut() {
                moved |= one.turn(cx);
            }
            if done(sending, receiving) {
                return Poll::Ready(());
            }
            if !moved {
                return Poll::Pending;
            }
        }
    });
    if timeout(PATIENCE, driving).await.is_err() {
        for one in sending {
            let count = one.events.len();
            let seldom =
                |event: &&PublishEvent| matches!(event, PublishEvent::Connected(_) | PublishEvent::Disconnected(_));
            eprintln!("{:?}", one.events.iter().filter(seldom).take(12).collect::<Vec<_>>());
            eprintln!(
                "publisher: {count} events, {} to do, last {:?}",
                one.todo.len(),
                &one.events[count.saturating_sub(5)..]
            );
        }
        for one in receiving {
            let count = one.got.events.len();
            eprintln!(
                "subscriber: {} messages, events {:?}",
                one.got.messages.len(),
                &one.got.events[count.saturating_sub(5)..]
            );
        }
        panic!("waited too long for: {what}");
    }
}
