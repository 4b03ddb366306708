//! One contract suite for all transports: what `contract.rs` promises, held against each of them.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test program")]

#[path = "support/bench.rs"]
mod bench;
#[expect(dead_code, reason = "each test program uses a part of it")]
#[path = "support/broker.rs"]
mod broker;

use std::{sync::Arc, time::Duration};

use bench::{connection, receiving, sending, sending_sized, until};
use broker::Broker;
use isochrone_model::payload::StampPlace;
use isochrone_transport::{Clean, MqttVersion, PublishEvent, SubscribeEvent, Transport, open};

struct Subject {
    transport: Arc<dyn Transport>,
    version: MqttVersion,
    _broker: Option<Broker>,
}

impl Subject {
    fn memory(name: &str) -> Subject {
        Subject {
            transport: open(&format!("memory:{name}")).unwrap(),
            version: MqttVersion::V5,
            _broker: None,
        }
    }

    fn mqtt(version: MqttVersion) -> Subject {
        let broker = Broker::start();
        let transport = open(&format!("mqtt://127.0.0.1:{}", broker.port)).unwrap();
        Subject {
            transport,
            version,
            _broker: Some(broker),
        }
    }

    fn is_memory(&self) -> bool {
        self._broker.is_none()
    }
}

macro_rules! contract {
    ($($promise:ident),* $(,)?) => {
        mod memory { $(#[tokio::test] async fn $promise() { super::$promise(super::Subject::memory(stringify!($promise))).await }) * }
        mod mqtt_3_1_1 { $(#[tokio::test] async fn $promise() { super::$promise(super::Subject::mqtt(super::MqttVersion::V311)).await })* }
        mod mqtt_5 { $(#[tokio::test] async fn $promise() { super::$promise(super::Subject::mqtt(super::MqttVersion::V5)).await })* }
    };
}

contract!(
    every_message_arrives_once_in_order_at_every_qos,
    a_kept_session_waits_for_a_successor,
    a_removed_session_is_gone,
    a_cleared_session_is_gone,
    what_is_not_acknowledged_comes_again,
    closing_is_safe_at_any_time,
    a_successor_throws_the_zombie_out,
    unsubscribed_topics_fall_silent,
    many_topics_come_over_one_subscriber,
    stamps_travel_in_every_place,
    large_messages_pass,
);

async fn every_message_arrives_once_in_order_at_every_qos(subject: Subject) {
    for qos in 0..3_u8 {
        let topic = format!("t/{qos}");
        let id = |role: &str| format!("{role}{qos}");
        let transport = &*subject.transport;
        let mut receiver = receiving(transport, connection(&id("r"), subject.version), &[&topic], qos, true);
        until("subscribed", &mut [], &mut [&mut receiver], |_, r| {
            r[0].got.subscribed() == 1
        })
        .await;
        let mut sender = sending(transport, connection(&id("s"), subject.version), &topic, qos);
        assert_eq!(sender.publisher.room(), 0, "not connected yet");
        sender.send(1000);
        until("arrived", &mut [&mut sender], &mut [&mut receiver], |s, r| {
            r[0].got.messages.len() >= 1000
                && s[0].count(|event| match qos {
                    0 => matches!(event, PublishEvent::Sent { .. }),
                    1 => matches!(event, PublishEvent::Acked { .. }),
                    _ => matches!(event, PublishEvent::Completed { .. }),
                }) >= 1000
        })
        .await;
        assert_eq!(receiver.got.sequences(), (0..1000).collect::<Vec<_>>());
        assert_eq!(sender.sent(), (0..1000).collect::<Vec<_>>());
        assert!(matches!(sender.events[0], PublishEvent::Connected(_)));
        assert_eq!(sender.acked(), if qos == 0 { 0 } else { 1000 });
        assert!(sender.publisher.unanswered().is_empty());
        // What the events say is what the stamps say, and nothing arrives before it was sent.
        let mut reported = sender.events.iter().filter_map(|event| match event {
            PublishEvent::Sent {
                due,
                sent,
                sent_monotonic,
                ..
            } => Some((*due, *sent, *sent_monotonic)),
            _ => None,
        });
        for message in &receiver.got.messages {
            let stamp = message.stamp.unwrap();
            assert_eq!(reported.next(), Some((stamp.due, stamp.sent, stamp.sent_monotonic)));
            assert!(stamp.due <= stamp.sent && stamp.sent_monotonic <= message.received);
            assert_eq!((stamp.domain.0, stamp.epoch.0, message.retained), (42, 77, false));
            assert_eq!(message.topic, topic);
        }
        let ids: Vec<u64> = receiver.got.messages.iter().map(|message| message.id.0).collect();
        assert_eq!(ids, (1..=1000).collect::<Vec<_>>());
        sender.publisher.close(Clean::RemoveSession);
        receiver.subscriber.close(Clean::RemoveSession);
        until("closed", &mut [&mut sender], &mut [&mut receiver], |s, r| {
            s[0].closed() && r[0].got.closed()
        })
        .await;
    }
}

async fn a_kept_session_waits_for_a_successor(subject: Subject) {
    let transport = &*subject.transport;
    for qos in 1..3_u8 {
        let client = format!("claim{qos}");
        let topic = format!("t{qos}");
        let mut first = receiving(transport, connection(&client, subject.version), &[&topic], qos, true);
        let mut sender = sending(transport, connection(&format!("s{qos}"), subject.version), &topic, qos);
        until("subscribed", &mut [&mut sender], &mut [&mut first], |_, r| {
            r[0].got.subscribed() == 1
        })
        .await;
        sender.send(50);
        until("acked", &mut [&mut sender], &mut [&mut first], |s, r| {
            s[0].acked() == 50 && r[0].got.messages.len() == 50
        })
        .await;
        first.subscriber.close(Clean::KeepSession);
        until("closed", &mut [], &mut [&mut first], |_, r| r[0].got.closed()).await;

        sender.send(50);
        until("acked", &mut [&mut sender], &mut [], |s, _| s[0].acked() == 100).await;
        let mut second = receiving(transport, connection(&client, subject.version), &[&topic], qos, true);
        until("the rest", &mut [&mut sender], &mut [&mut second], |_, r| {
            r[0].got.messages.len() >= 50
        })
        .await;
        assert_eq!(second.got.sessions_present(), [true]);
        assert_eq!(second.got.sequences(), (50..100).collect::<Vec<_>>());
    }
}

async fn a_removed_session_is_gone(subject: Subject) {
    let transport = &*subject.transport;
    let mut first = receiving(transport, connection("claim", subject.version), &["t"], 1, true);
    let mut sender = sending(transport, connection("s", subject.version), "t", 1);
    until("subscribed", &mut [&mut sender], &mut [&mut first], |_, r| {
        r[0].got.subscribed() == 1
    })
    .await;
    first.subscriber.close(Clean::RemoveSession);
    until("closed", &mut [], &mut [&mut first], |_, r| r[0].got.closed()).await;
    sender.send(10);
    until("acked", &mut [&mut sender], &mut [], |s, _| s[0].acked() == 10).await;
    let mut second = receiving(transport, connection("claim", subject.version), &["t"], 1, true);
    until("subscribed", &mut [&mut sender], &mut [&mut second], |_, r| {
        r[0].got.subscribed() == 1
    })
    .await;
    sender.send(1);
    until("arrived", &mut [&mut sender], &mut [&mut second], |_, r| {
        !r[0].got.messages.is_empty()
    })
    .await;
    assert_eq!(second.got.sessions_present(), [false]);
    assert_eq!(second.got.sequences(), [10]);

    // The session of one that was never connected here goes as well.
    second.subscriber.close(Clean::KeepSession);
    until("closed", &mut [], &mut [&mut second], |_, r| r[0].got.closed()).await;
    let mut third = receiving(transport, connection("claim", subject.version), &[], 1, true);
    third.subscriber.close(Clean::RemoveSession);
    until("closed", &mut [], &mut [&mut third], |_, r| r[0].got.closed()).await;
    let mut fourth = receiving(transport, connection("claim", subject.version), &["t"], 1, true);
    until("subscribed", &mut [], &mut [&mut fourth], |_, r| {
        r[0].got.subscribed() == 1
    })
    .await;
    assert_eq!(fourth.got.sessions_present(), [false]);
}

async fn a_cleared_session_is_gone(subject: Subject) {
    let transport = &*subject.transport;
    let mut first = receiving(transport, connection("claim", subject.version), &["t"], 1, true);
    until("subscribed", &mut [], &mut [&mut first], |_, r| {
        r[0].got.subscribed() == 1
    })
    .await;
    first.subscriber.close(Clean::KeepSession);
    until("closed", &mut [], &mut [&mut first], |_, r| r[0].got.closed()).await;
    let mut sender = sending(transport, connection("s", subject.version), "t", 1);
    sender.send(5);
    until("acked", &mut [&mut sender], &mut [], |s, _| s[0].acked() == 5).await;

    let mut config = connection("claim", subject.version);
    config.clear_session = true;
    let mut second = receiving(transport, config, &["t"], 1, true);
    until("subscribed", &mut [], &mut [&mut second], |_, r| {
        r[0].got.subscribed() == 1
    })
    .await;
    assert_eq!(second.got.sessions_present(), [false]);
    second.subscriber.close(Clean::KeepSession);
    until("closed", &mut [], &mut [&mut second], |_, r| r[0].got.closed()).await;
    assert!(second.got.messages.is_empty());
    // Cleared, and then kept like any other.
    sender.send(1);
    until("acked", &mut [&mut sender], &mut [], |s, _| s[0].acked() == 6).await;
    let mut third = receiving(transport, connection("claim", subject.version), &["t"], 1, true);
    until("arrived", &mut [], &mut [&mut third], |_, r| {
        !r[0].got.messages.is_empty()
    })
    .await;
    assert_eq!(third.got.sequences(), [5]);
}

async fn what_is_not_acknowledged_comes_again(subject: Subject) {
    let transport = &*subject.transport;
    for qos in 1..3_u8 {
        let client = format!("claim{qos}");
        let topic = format!("t{qos}");
        let mut first = receiving(transport, connection(&client, subject.version), &[&topic], qos, false);
        let mut sender = sending(transport, connection(&format!("s{qos}"), subject.version), &topic, qos);
        until("subscribed", &mut [&mut sender], &mut [&mut first], |_, r| {
            r[0].got.subscribed() == 1
        })
        .await;
        sender.send(20);
        until("arrived", &mut [&mut sender], &mut [&mut first], |s, r| {
            s[0].acked() == 20 && r[0].got.messages.len() == 20
        })
        .await;
        first.subscriber.acknowledge(first.got.messages[11].id);
        first.subscriber.close(Clean::KeepSession);
        until("closed", &mut [], &mut [&mut first], |_, r| r[0].got.closed()).await;
        let mut second = receiving(transport, connection(&client, subject.version), &[&topic], qos, true);
        until("the rest", &mut [], &mut [&mut second], |_, r| {
            r[0].got.messages.len() >= 8
        })
        .await;
        assert_eq!(second.got.sequences(), (12..20).collect::<Vec<_>>(), "qos {qos}");
    }
}

async fn closing_is_safe_at_any_time(subject: Subject) {
    let transport = &*subject.transport;
    for clean in [Clean::KeepSession, Clean::RemoveSession] {
        let mut sender = sending(transport, connection("s", subject.version), "t", 1);
        let mut receiver = receiving(transport, connection("r", subject.version), &["t"], 1, true);
        for _ in 0..2 {
            sender.publisher.close(clean);
            receiver.subscriber.close(clean);
        }
        until("closed", &mut [&mut sender], &mut [&mut receiver], |s, r| {
            s[0].closed() && r[0].got.closed()
        })
        .await;
        sender.publisher.close(clean);
        receiver.subscriber.close(clean);
        until("still closed", &mut [&mut sender], &mut [&mut receiver], |_, _| true).await;
        assert_eq!(sender.count(|event| *event == PublishEvent::Closed), 1);
        assert_eq!(
            receiver
                .got
                .events
                .iter()
                .filter(|event| **event == SubscribeEvent::Closed)
                .count(),
            1
        );
        assert_eq!(sender.publisher.room(), 0);
    }
}

async fn a_successor_throws_the_zombie_out(subject: Subject) {
    let transport = &*subject.transport;
    let mut first = receiving(transport, connection("claim", subject.version), &["t"], 1, true);
    first.reconnect = false;
    until("subscribed", &mut [], &mut [&mut first], |_, r| {
        r[0].got.subscribed() == 1
    })
    .await;
    let mut second = receiving(transport, connection("claim", subject.version), &["t"], 1, true);
    second.reconnect = false;
    let gone = |event: &SubscribeEvent| matches!(event, SubscribeEvent::Disconnected(_));
    until("thrown out", &mut [], &mut [&mut first, &mut second], |_, r| {
        r[1].got.subscribed() == 1 && r[0].got.events.iter().any(gone)
    })
    .await;
    let mut sender = sending(transport, connection("s", subject.version), "t", 1);
    sender.send(10);
    until("arrived", &mut [&mut sender], &mut [&mut first, &mut second], |_, r| {
        r[1].got.messages.len() == 10
    })
    .await;
    assert!(first.got.messages.is_empty());
    assert_eq!(first.got.sessions_present().len(), 1, "it waits to be allowed");
    first.subscriber.allow_reconnect();
    until("back", &mut [], &mut [&mut first, &mut second], |_, r| {
        r[0].got.sessions_present().len() == 2 && r[1].got.events.iter().any(gone)
    })
    .await;
}

async fn unsubscribed_topics_fall_silent(subject: Subject) {
    let transport = &*subject.transport;
    let mut receiver = receiving(transport, connection("r", subject.version), &["a", "b"], 1, true);
    until("subscribed", &mut [], &mut [&mut receiver], |_, r| {
        r[0].got.subscribed() == 2
    })
    .await;
    receiver.subscriber.unsubscribe(&["a".into()]);
    receiver.subscriber.subscribe(&["c".into()]);
    until("subscribed", &mut [], &mut [&mut receiver], |_, r| {
        r[0].got.subscribed() == 3
    })
    .await;
    let mut a = sending(transport, connection("sa", subject.version), "a", 1);
    let mut b = sending(transport, connection("sb", subject.version), "b", 1);
    let mut c = sending(transport, connection("sc", subject.version), "c", 1);
    a.send(5);
    until("acked", &mut [&mut a], &mut [&mut receiver], |s, _| s[0].acked() == 5).await;
    b.send(5);
    c.send(5);
    until("arrived", &mut [&mut b, &mut c], &mut [&mut receiver], |_, r| {
        r[0].got.messages.len() == 10
    })
    .await;
    assert!(receiver.got.messages.iter().all(|message| message.topic != "a"));
    // Nobody listens: MQTT 5 and memory say so.
    if subject.version == MqttVersion::V5 {
        assert_eq!(
            a.count(|event| matches!(event, PublishEvent::Acked { unrouted: true, .. })),
            5
        );
    }
    assert_eq!(
        b.count(|event| matches!(event, PublishEvent::Acked { unrouted: true, .. })),
        0
    );
}

async fn many_topics_come_over_one_subscriber(subject: Subject) {
    let transport = &*subject.transport;
    let topics: Vec<String> = (0..3000).map(|n| format!("many/topics/{n}")).collect();
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    let mut receiver = receiving(transport, connection("r", subject.version), &names, 1, true);
    until("subscribed", &mut [], &mut [&mut receiver], |_, r| {
        r[0].got.subscribed() == 3000
    })
    .await;
    let mut first = sending(transport, connection("s0", subject.version), &topics[0], 1);
    let mut last = sending(transport, connection("s1", subject.version), &topics[2999], 1);
    first.send(3);
    last.send(3);
    until("arrived", &mut [&mut first, &mut last], &mut [&mut receiver], |_, r| {
        r[0].got.messages.len() == 6
    })
    .await;
}

async fn stamps_travel_in_every_place(subject: Subject) {
    let transport = &*subject.transport;
    for place in [StampPlace::Text, StampPlace::Bytes, StampPlace::Property] {
        if place == StampPlace::Property && subject.version == MqttVersion::V311 {
            continue;
        }
        let topic = format!("t/{place:?}");
        let mut receiver = receiving(
            transport,
            connection(&format!("r{place:?}"), subject.version),
            &[&topic],
            0,
            true,
        );
        let mut config = connection(&format!("s{place:?}"), subject.version);
        config.stamp = place;
        let mut sender = sending(transport, config, &topic, 0);
        until("subscribed", &mut [&mut sender], &mut [&mut receiver], |_, r| {
            r[0].got.subscribed() == 1
        })
        .await;
        sender.send(20);
        until("arrived", &mut [&mut sender], &mut [&mut receiver], |_, r| {
            r[0].got.messages.len() == 20
        })
        .await;
        assert_eq!(receiver.got.sequences(), (0..20).collect::<Vec<_>>());
    }
}

async fn large_messages_pass(subject: Subject) {
    let transport = &*subject.transport;
    let mut receiver = receiving(transport, connection("r", subject.version), &["t"], 1, true);
    let template = format!("{{{{stamp}}}}{}", "x".repeat(1_500_000));
    let mut config = connection("s", subject.version);
    config.keep_alive = Duration::from_secs(60);
    let mut sender = sending_sized(transport, config, "t", 1, &template);
    until("subscribed", &mut [&mut sender], &mut [&mut receiver], |_, r| {
        r[0].got.subscribed() == 1
    })
    .await;
    sender.send(12);
    until("arrived", &mut [&mut sender], &mut [&mut receiver], |s, r| {
        r[0].got.messages.len() == 12 && s[0].acked() == 12
    })
    .await;
    assert_eq!(receiver.got.sequences(), (0..12).collect::<Vec<_>>());
    assert!(
        receiver
            .got
            .messages
            .iter()
            .all(|message| message.payload.len() == 1_500_069)
    );
    assert!(subject.is_memory() || subject.transport.url().starts_with("mqtt://127.0.0.1:"));
}
