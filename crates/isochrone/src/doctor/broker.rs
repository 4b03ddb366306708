//! Whether the broker takes our connections, and how much it queues for a subscriber that is slow.

use std::{cell::RefCell, future::poll_fn, rc::Rc, sync::Arc, task::Poll, time::Duration};

use isochrone_daemon::{clock::SystemClock, settings::All};
use isochrone_model::{
    id::Epoch,
    payload::{DeviceSeed, Payload},
};
use isochrone_producer::connection;
use isochrone_store::Finding;
use isochrone_transport::{
    Clean, ConnectionConfig, Deliveries, Delivery, DeliveryId, Offer, PublishEvent, Publisher, PublisherConfig,
    SubscribeEvent, Subscriber, SubscriberConfig, Worker,
};
use tokio::time::timeout;

use crate::apart::apart;

/// More than brokers queue by default for one subscriber (mosquitto: 1,000).
const PROBE: u64 = 3_000;
/// How long each step of the probe may take.
const STEP: Duration = Duration::from_secs(5);

/// Connects as a device and as a consumer would, and fills the queue of a subscriber that does not acknowledge.
pub async fn examine(all: &All, url: &str) -> Vec<Finding> {
    let (all, url) = (all.clone(), url.to_owned());
    match apart("doctor", move || async move { probe(&all, &url).await }).await {
        Ok(findings) => findings,
        Err(error) => vec![Finding::fails("broker", &error, "see the log")],
    }
}

async fn probe(all: &All, url: &str) -> Vec<Finding> {
    let transport = match isochrone_transport::open(url) {
        Ok(transport) => transport,
        Err(error) => return vec![Finding::fails("broker", &error.to_string(), "mend ISOCHRONE_BROKER")],
    };
    let clock = SystemClock::new(None);
    let worker = Worker {
        domain: clock.domain(),
        clock,
        read_buffer: Rc::new(RefCell::new(vec![0; 64 * 1024])),
    };
    let name = format!("isochrone-doctor-{:016x}", rand::random::<u64>());
    let topic: Arc<str> = format!("isochrone/doctor/{name}").into();
    let Ok(payload) = Payload::compile(b"{{stamp}}", isochrone_model::payload::StampPlace::Text, None) else {
        return Vec::new();
    };
    let identity = |side: &str| {
        let values = [
            ("run", "doctor"),
            ("device", name.as_str()),
            ("producer", "0"),
            ("n", "0"),
            ("topic", &topic),
        ];
        let own = connection(&all.producer, &values).map_err(|error| error.to_string())?;
        Ok::<_, String>(ConnectionConfig {
            client_id: format!("{name}-{side}"),
            clear_session: false,
            ..own
        })
    };
    let (inward, outward) = match (identity("in"), identity("out")) {
        (Ok(inward), Ok(outward)) => (inward, outward),
        (Err(error), _) | (_, Err(error)) => {
            return vec![Finding::fails("broker", &error, "mend the setting it names")];
        }
    };
    let subscriber = SubscriberConfig {
        connection: inward,
        qos: 1,
        acknowledge_at_once: false,
    };
    let publisher = PublisherConfig {
        connection: outward,
        topic: topic.clone(),
        qos: 1,
        epoch: Epoch(rand::random()),
        payload: Arc::new(payload),
        device: DeviceSeed {
            device: name.as_str().into(),
            run: "doctor".into(),
            seed: 0,
        },
        in_flight: all.producer.in_flight(),
    };
    let opened = transport
        .subscriber(subscriber, &worker)
        .and_then(|subscriber| Ok((subscriber, transport.publisher(publisher, &worker)?)));
    let (mut subscriber, mut publisher) = match opened {
        Ok(both) => both,
        Err(error) => {
            return vec![Finding::fails(
                "broker",
                &error.to_string(),
                "mend the setting it names",
            )];
        }
    };
    let mut seen = Seen::default();
    subscriber.subscribe(&[topic]);
    let subscribed = drive(&mut *subscriber, &mut seen, |seen| {
        seen.subscribed || seen.trouble.is_some()
    })
    .await;
    if !subscribed || seen.trouble.is_some() {
        let trouble = seen.trouble.unwrap_or_else(|| format!("no answer within {STEP:?}"));
        return vec![Finding::fails("broker", &trouble, "a consumer could not subscribe")];
    }
    let mut findings = vec![Finding::good(
        "broker",
        &format!("takes connections and subscriptions at {}", transport.url()),
    )];
    findings.push(fill(&mut *publisher, &mut *subscriber, &mut seen, &worker).await);
    subscriber.close(Clean::RemoveSession);
    publisher.close(Clean::RemoveSession);
    let _ = timeout(STEP, poll_fn(|context| publisher.poll(context, &mut Vec::new()))).await;
    let _ = timeout(STEP, poll_fn(|context| subscriber.poll(context, &mut seen))).await;
    findings
}

/// Publishes to a subscriber that does not acknowledge, then acknowledges all: what the broker did not queue is missing.
async fn fill(
    publisher: &mut dyn Publisher,
    subscriber: &mut dyn Subscriber,
    seen: &mut Seen,
    worker: &Worker,
) -> Finding {
    let (mut offered, mut acked) = (0, 0);
    let mut events = Vec::new();
    let published = timeout(
        STEP,
        poll_fn(|context| {
            let _ = publisher.poll(context, &mut events);
            while publisher.room() > 0 && offered < PROBE {
                let now = worker.clock.monotonic();
                publisher.offer(Offer {
                    sequence: offered,
                    due: worker.clock.reference(),
                    due_monotonic: now,
                    warmup: false,
                });
                offered += 1;
                publisher.flush(&mut events);
            }
            acked += events
                .drain(..)
                .filter(|event| matches!(event, PublishEvent::Acked { .. }))
                .count() as u64;
            let _ = subscriber.poll(context, seen);
            if acked >= PROBE { Poll::Ready(()) } else { Poll::Pending }
        }),
    );
    if published.await.is_err() {
        return Finding::mend(
            "broker queue",
            &format!("{acked} of {PROBE} acknowledged"),
            "the broker is slow or refuses publishes: see its log",
        );
    }
    loop {
        let before = seen.messages;
        subscriber.acknowledge(seen.newest);
        drive(subscriber, seen, |seen| seen.messages > before).await;
        if seen.messages >= PROBE || seen.messages == before {
            break;
        }
    }
    let found = format!(
        "{} of {PROBE} messages kept for a subscriber that was slow to acknowledge",
        seen.messages
    );
    if seen.messages >= PROBE {
        return Finding::good("broker queue", &found);
    }
    Finding::mend(
        "broker queue",
        &found,
        "the broker drops what waits for a slow subscriber; for mosquitto set `max_queued_messages 0` and `max_inflight_messages 0`",
    )
}

/// Polls the subscriber until `done`, at most a step long (a fifth of it when only silence is to be told).
async fn drive(subscriber: &mut dyn Subscriber, seen: &mut Seen, done: impl Fn(&Seen) -> bool) -> bool {
    let reached = poll_fn(|context| {
        let _ = subscriber.poll(context, seen);
        if done(seen) { Poll::Ready(()) } else { Poll::Pending }
    });
    timeout(STEP / 2, reached).await.is_ok()
}

#[derive(Default)]
struct Seen {
    subscribed: bool,
    messages: u64,
    newest: DeliveryId,
    trouble: Option<String>,
}

impl Deliveries for Seen {
    fn message(&mut self, message: Delivery<'_>) {
        self.messages += 1;
        self.newest = message.id;
    }

    fn event(&mut self, event: SubscribeEvent) {
        match event {
            SubscribeEvent::Subscribed { .. } => self.subscribed = true,
            SubscribeEvent::SubscribeRefused { detail, .. } => self.trouble = Some(detail),
            SubscribeEvent::Disconnected(disconnected) => self.trouble = Some(disconnected.detail),
            SubscribeEvent::Connected(_) | SubscribeEvent::Closed => {}
        }
    }
}
