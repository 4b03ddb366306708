//! Hand-made devices: register, publish so many messages, say the last word.

use std::{sync::Arc, time::Duration};

use isochrone_model::{
    id::{Epoch, Topic},
    payload::{DeviceSeed, Payload, StampPlace},
    row::{Device, SendRow},
    time::Clock,
};
use isochrone_store::types::{DeviceState, SendFlush};
use isochrone_transport::{
    Clean, ConnectionConfig, MqttVersion, Offer, PublishEvent, Publisher, PublisherConfig, TlsConfig, Worker, open,
};
use tokio::sync::{mpsc, oneshot};

use crate::site::Site;

/// A device with a connection on a thread of its own.
pub struct Hand {
    /// Its life.
    pub epoch: Epoch,
    /// Where it is listened for.
    pub topic: Topic,
    orders: mpsc::UnboundedSender<(u64, oneshot::Sender<()>)>,
    sent: u64,
}

impl Site {
    /// Registers a device that is said to publish to `topic` at `url`.
    pub async fn register(&self, topic: &str, qos: u8, url: &str) -> Epoch {
        let epoch = Epoch(rand::random());
        let device = Device {
            epoch,
            device: format!("device-{}", epoch.0 % 1000),
            client_id: String::new(),
            topic: topic.into(),
            response_topic: topic.into(),
            url: url.to_owned(),
            qos,
            mqtt_version: "5".to_owned(),
            rate: None,
            domain: self.clock.domain(),
            producer: self.producer,
            ordinal: 0,
            number: 0,
        };
        let state = DeviceState {
            device,
            row: SendRow::default(),
        };
        let partition = Topic::from(topic).partition(8);
        self.store
            .register(&self.run, partition, self.producer, &[state])
            .await
            .unwrap();
        epoch
    }

    /// Registers a device that publishes to `topic`.
    pub async fn device(&self, topic: &str, qos: u8) -> Hand {
        let epoch = self.register(topic, qos, &self.url).await;
        let (orders, taken) = mpsc::unbounded_channel();
        let (url, clock, topic) = (self.url.clone(), self.clock.clone(), Topic::from(topic));
        let name = topic.0.clone();
        let domain = self.clock.domain();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let worker = Worker {
                clock,
                domain,
                read_buffer: Default::default(),
            };
            let connection = ConnectionConfig {
                client_id: format!("hand-{epoch}"),
                username: None,
                password: None,
                tls: TlsConfig::default(),
                version: MqttVersion::V5,
                keep_alive: Duration::from_secs(60),
                session_expiry: Duration::from_secs(60),
                clear_session: true,
                reconnect: (Duration::from_millis(50), Duration::from_millis(500)),
                receive_maximum: 100,
                stamp: StampPlace::Text,
            };
            let config = PublisherConfig {
                connection,
                topic: name,
                qos,
                epoch,
                payload: Arc::new(
                    Payload::compile(Payload::default_template(StampPlace::Text), StampPlace::Text, None).unwrap(),
                ),
                device: DeviceSeed {
                    device: "hand".into(),
                    run: "run".into(),
                    seed: 1,
                },
                in_flight: 100,
            };
            runtime.block_on(async {
                let publisher = open(&url).unwrap().publisher(config, &worker).unwrap();
                publish(publisher, &*worker.clock, qos, taken).await;
            });
        });
        Hand {
            epoch,
            topic,
            orders,
            sent: 0,
        }
    }
}

/// Sends as ordered; an order is done when everything of it is sent and acknowledged.
async fn publish(
    mut publisher: Box<dyn Publisher>,
    clock: &dyn Clock,
    qos: u8,
    mut orders: mpsc::UnboundedReceiver<(u64, oneshot::Sender<()>)>,
) {
    let (mut next, mut until) = (0, 0);
    let (mut sent, mut acked) = (0, 0);
    let mut order: Option<oneshot::Sender<()>> = None;
    std::future::poll_fn(|context| {
        let mut events = Vec::new();
        loop {
            if order.is_none() {
                match orders.poll_recv(context) {
                    std::task::Poll::Ready(Some((count, done))) => {
                        until += count;
                        order = Some(done);
                    }
                    std::task::Poll::Ready(None) => publisher.close(Clean::RemoveSession),
                    std::task::Poll::Pending => {}
                }
            }
            if publisher.poll(context, &mut events).is_ready() {
                return std::task::Poll::Ready(());
            }
            while next < until && publisher.room() > 0 {
                let now = clock.monotonic();
                publisher.offer(Offer {
                    sequence: next,
                    due: clock.offset().at(now),
                    due_monotonic: now,
                    warmup: false,
                });
                next += 1;
            }
            publisher.flush(&mut events);
            for event in events.drain(..) {
                match event {
                    PublishEvent::Sent { .. } => sent += 1,
                    PublishEvent::Acked { .. } => acked += 1,
                    _ => {}
                }
            }
            let all = sent == until && (qos == 0 || acked == until);
            match order.take_if(|_| all) {
                Some(done) => drop(done.send(())),
                None => break,
            }
        }
        if next < until {
            context.waker().wake_by_ref();
        }
        std::task::Poll::Pending
    })
    .await;
}

impl Hand {
    /// Publishes so many messages and waits until the broker has them (QoS 0: until they are written).
    pub async fn send(&mut self, count: u64) {
        let (done, is_done) = oneshot::channel();
        self.orders.send((count, done)).unwrap();
        tokio::time::timeout(crate::site::LONG, is_done)
            .await
            .expect("in time")
            .unwrap();
        self.sent += count;
    }

    /// Says the last word: no more than was sent will come.
    pub async fn end(&mut self, site: &Site) {
        self.end_having_sent(self.sent, site).await;
    }

    /// Says the last word, and what it likes of how many messages were sent.
    pub async fn end_having_sent(&mut self, sent: u64, site: &Site) {
        site.end(self.epoch, &self.topic, sent).await;
    }
}

impl Site {
    /// Says a device's last word.
    pub async fn end(&self, epoch: Epoch, topic: &Topic, sent: u64) {
        let row = SendRow {
            scheduled: sent,
            sent,
            acked: sent,
            ended: true,
            ..SendRow::default()
        };
        let flush = SendFlush {
            batch: self.next_batch(),
            entries: Vec::new(),
            rows: vec![(epoch, row)],
        };
        let partition = topic.partition(8);
        self.store
            .append_sends(&self.run, partition, self.producer, &flush)
            .await
            .unwrap();
    }
}
