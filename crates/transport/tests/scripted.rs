//! What no real broker does on demand: a scripted peer that cuts, stalls, refuses and talks nonsense.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test program")]

#[expect(dead_code, reason = "each test program uses a part of it")]
#[path = "support/bench.rs"]
mod bench;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use bench::{connection, receiving, sending, until};
use isochrone_transport::{Clean, MqttVersion, PublishEvent, SubscribeEvent, open};

/// Takes connections one after the other with `script`, which gets the connection's number.
fn peer(script: impl Fn(usize, &mut Peer) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("mqtt://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for (number, stream) in listener.incoming().flatten().enumerate() {
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            script(number, &mut Peer(stream));
        }
    });
    url
}

struct Peer(TcpStream);

impl Peer {
    /// Reads one packet; an empty one at the end.
    fn read(&mut self) -> Vec<u8> {
        let mut packet = vec![0; 2];
        if self.0.read_exact(&mut packet).is_err() {
            return Vec::new();
        }
        let mut length = usize::from(packet[1] & 0x7f);
        if packet[1] & 0x80 != 0 {
            packet.push(0);
            self.0.read_exact(&mut packet[2..]).unwrap();
            length |= usize::from(packet[2]) << 7;
        }
        let header = packet.len();
        packet.resize(header + length, 0);
        self.0.read_exact(&mut packet[header..]).unwrap();
        packet
    }

    /// Reads up to the first packet of this type.
    fn until(&mut self, kind: u8) -> Vec<u8> {
        loop {
            let packet = self.read();
            if packet.is_empty() || packet[0] >> 4 == kind {
                return packet;
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes);
    }

    fn accept_3_1_1(&mut self, session_present: u8) {
        self.until(1);
        self.write(&[0x20, 2, session_present, 0]);
    }
}

/// Of a PUBLISH.
fn packet_id(packet: &[u8]) -> [u8; 2] {
    let header = if packet[1] & 0x80 == 0 { 2 } else { 3 };
    let at = header + 2 + usize::from(packet[header + 1]);
    [packet[at], packet[at + 1]]
}

fn told<T>(receiver: &Receiver<T>) -> T {
    receiver.recv_timeout(Duration::from_secs(20)).unwrap()
}

/// The same QoS 2 message again before its PUBREL is delivered once, a new one under the same id after it is delivered.
#[tokio::test]
async fn qos_2_is_delivered_exactly_once_over_reconnects() {
    for at_once in [true, false] {
        let (tell, answers) = channel();
        let url = peer(move |number, peer| {
            let publish = |dup: u8, body: u8| [0x34 | dup << 3, 6, 0, 1, b't', 0, 9, body];
            peer.accept_3_1_1(u8::from(number > 0));
            match number {
                0 => {
                    let subscribe = peer.until(8);
                    peer.write(&[0x90, 3, subscribe[2], subscribe[3], 2]);
                    peer.write(&publish(0, b'a'));
                    peer.until(5);
                }
                1 => {
                    peer.write(&publish(1, b'a'));
                    tell.send(peer.until(5)).unwrap();
                    peer.write(&[0x62, 2, 0, 9]);
                    tell.send(peer.until(7)).unwrap();
                }
                _ => {
                    // The PUBCOMP was lost: PUBREL again, then another message.
                    peer.write(&[0x62, 2, 0, 9]);
                    tell.send(peer.until(7)).unwrap();
                    peer.write(&publish(0, b'b'));
                    tell.send(peer.until(5)).unwrap();
                    peer.read();
                }
            }
        });
        let transport = open(&url).unwrap();
        let mut receiver = receiving(&*transport, connection("r", MqttVersion::V311), &["t"], 2, at_once);
        for wanted in 1..=2 {
            until("a message", &mut [], &mut [&mut receiver], |_, r| {
                r[0].got.messages.len() == wanted
            })
            .await;
            receiver.subscriber.acknowledge(receiver.got.messages[wanted - 1].id);
        }
        assert_eq!(
            receiver.got.messages.iter().map(|m| m.payload[0]).collect::<Vec<_>>(),
            *b"ab"
        );
        for kind in [0x50, 0x70, 0x70, 0x50] {
            assert_eq!(told(&answers), [kind, 2, 0, 9]);
        }
    }
}

/// An UNSUBSCRIBE that a broken connection took with it is said again to the session that is resumed, until it is answered.
#[tokio::test]
async fn unsubscribing_is_not_forgotten() {
    let (tell, heard) = channel();
    let url = peer(move |number, peer| {
        peer.accept_3_1_1(u8::from(number > 0));
        match number {
            0 => {
                let subscribe = peer.until(8);
                peer.write(&[0x90, 3, subscribe[2], subscribe[3], 1]);
                peer.until(10);
            }
            1 => {
                let again = peer.until(10);
                tell.send(again[4..].to_vec()).unwrap();
                peer.write(&[0xb0, 2, again[2], again[3]]);
                // Read, and so answered, before the connection breaks.
                peer.until(12);
            }
            _ => {
                tell.send(peer.read()).unwrap();
                while !peer.read().is_empty() {}
            }
        }
    });
    let transport = open(&url).unwrap();
    let mut config = connection("r", MqttVersion::V311);
    config.keep_alive = Duration::from_secs(1);
    let mut receiver = receiving(&*transport, config, &["t"], 1, true);
    until("subscribed", &mut [], &mut [&mut receiver], |_, r| {
        r[0].got.subscribed() == 1
    })
    .await;
    receiver.subscriber.unsubscribe(&["t".into()]);
    let mut told = Vec::new();
    until("an answer, and peace", &mut [], &mut [&mut receiver], |_, _| {
        told.extend(heard.try_iter());
        told.len() == 2
    })
    .await;
    // The topic again; then nothing but PINGREQ.
    assert_eq!(told, [vec![0, 1, b't'], vec![0xc0, 0]]);
}

/// No more than the receive maximum is in flight, reasons are told apart, and a connection that stalls is given up.
#[tokio::test]
async fn receive_maximum_and_reasons_are_honoured() {
    let (tell, seen) = channel();
    let url = peer(move |_, peer| {
        peer.until(1);
        peer.write(&[0x20, 6, 0, 0, 3, 0x21, 0, 3]);
        let ids: Vec<[u8; 2]> = (0..3).map(|_| packet_id(&peer.until(3))).collect();
        peer.0.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        tell.send(peer.read().len()).unwrap();
        peer.0.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        for (id, reason) in ids.iter().zip([0, 0x10, 0x87]) {
            peer.write(&[0x40, 3, id[0], id[1], reason]);
        }
        tell.send(peer.until(3).len()).unwrap();
        while !peer.read().is_empty() {}
    });
    let transport = open(&url).unwrap();
    let mut sender = sending(&*transport, connection("s", MqttVersion::V5), "t", 1);
    sender.send(10);
    until("answers", &mut [&mut sender], &mut [], |s, _| {
        s[0].acked() == 2
            && s[0].count(|event| matches!(event, PublishEvent::Refused { .. })) == 1
            && s[0].sent().len() == 6
    })
    .await;
    assert_eq!(told(&seen), 0, "a fourth message in flight");
    assert!(told(&seen) > 0);
    assert_eq!(
        sender.count(|event| matches!(
            event,
            PublishEvent::Acked {
                sequence: 1,
                unrouted: true,
                ..
            }
        )),
        1
    );
    assert_eq!(
        sender.count(|event| matches!(
            event,
            PublishEvent::Refused {
                sequence: 2,
                reason: "not authorised",
                ..
            }
        )),
        1
    );
    assert_eq!(sender.publisher.unanswered(), (3..6).collect::<Vec<_>>());
    sender.publisher.close(Clean::KeepSession);
    until("closed", &mut [&mut sender], &mut [], |s, _| s[0].closed()).await;
}

/// A broker that takes fewer messages than before, so that those to be released are all it takes, is told their PUBREL at once.
#[tokio::test]
async fn a_lower_receive_maximum_stalls_nothing() {
    let (tell, seen) = channel();
    let url = peer(move |number, peer| {
        peer.until(1);
        if number == 0 {
            peer.write(&[0x20, 6, 0, 0, 3, 0x21, 0, 2]);
            peer.until(3);
            let [high, low] = packet_id(&peer.until(3));
            peer.write(&[0x50, 2, high, low]);
            peer.until(6);
            return;
        }
        peer.write(&[0x20, 6, 1, 0, 3, 0x21, 0, 1]);
        let release = peer.read();
        tell.send(release[0]).unwrap();
        peer.write(&[0x70, 2, release[2], release[3]]);
        let again = peer.read();
        tell.send(again[0]).unwrap();
        let [high, low] = packet_id(&again);
        peer.write(&[0x50, 2, high, low]);
        peer.until(6);
        peer.write(&[0x70, 2, high, low]);
        while !peer.read().is_empty() {}
    });
    let transport = open(&url).unwrap();
    let mut sender = sending(&*transport, connection("s", MqttVersion::V5), "t", 2);
    sender.send(2);
    until("answers", &mut [&mut sender], &mut [], |s, _| s[0].acked() == 2).await;
    assert_eq!((told(&seen), told(&seen)), (0x62, 0x3c), "PUBREL, then PUBLISH again");
}

#[tokio::test]
async fn a_peer_that_falls_silent_is_given_up() {
    let (tell, pings) = channel();
    let url = peer(move |_, peer| {
        peer.accept_3_1_1(0);
        tell.send(peer.until(12)).unwrap();
        while !peer.read().is_empty() {}
    });
    let transport = open(&url).unwrap();
    let mut config = connection("s", MqttVersion::V311);
    config.keep_alive = Duration::from_secs(1);
    let mut sender = sending(&*transport, config, "t", 1);
    let gone = |event: &PublishEvent| matches!(event, PublishEvent::Disconnected(gone) if gone.reason == "keep alive");
    until("given up", &mut [&mut sender], &mut [], |s, _| s[0].count(gone) > 0).await;
    assert_eq!(told(&pings), [0xc0, 0]);
}

/// However short ISOCHRONE_KEEP_ALIVE is, an idle connection says PINGREQ within it, again and again.
#[tokio::test]
async fn a_short_keep_alive_is_kept() {
    let (tell, pings) = channel();
    let url = peer(move |_, peer| {
        peer.accept_3_1_1(0);
        for _ in 0..4 {
            peer.until(12);
            peer.write(&[0xd0, 0]);
            tell.send(()).unwrap();
        }
        while !peer.read().is_empty() {}
    });
    let transport = open(&url).unwrap();
    let mut config = connection("s", MqttVersion::V311);
    config.keep_alive = Duration::from_secs(1);
    let mut sender = sending(&*transport, config, "t", 1);
    let mut count = 0;
    // Four times three quarters of it, and time for a busy machine; the wait for an answer alone is five seconds.
    let (mut all, mut none) = ([&mut sender], []);
    let pinging = until("four pings", &mut all, &mut none, |_, _| {
        count += pings.try_iter().count();
        count == 4
    });
    let in_time = tokio::time::timeout(Duration::from_millis(4_500), pinging).await;
    assert!(in_time.is_ok(), "the broker would have cut the connection");
}

#[tokio::test]
async fn phases_have_deadlines() {
    let url = peer(|_, peer| while !peer.read().is_empty() {});
    let transport = open(&url).unwrap();
    let mut sender = sending(&*transport, connection("s", MqttVersion::V311), "t", 1);
    let gone =
        |event: &PublishEvent| matches!(event, PublishEvent::Disconnected(gone) if gone.reason == "connack timeout");
    let url = peer(|_, peer| {
        peer.accept_3_1_1(0);
        while !peer.read().is_empty() {}
    });
    let transport = open(&url).unwrap();
    let mut receiver = receiving(&*transport, connection("r", MqttVersion::V311), &["t"], 1, true);
    let late =
        |event: &SubscribeEvent| matches!(event, SubscribeEvent::Disconnected(gone) if gone.reason == "suback timeout");
    until("given up", &mut [&mut sender], &mut [&mut receiver], |s, r| {
        s[0].count(gone) > 0 && r[0].got.events.iter().any(late)
    })
    .await;
}

/// Whatever comes is a Disconnected event with a reason.
#[tokio::test]
async fn nonsense_ends_the_connection_and_nothing_else() {
    let nonsense: [&[u8]; 9] = [
        &[0x00, 0x00],
        &[0x30, 0xff, 0xff, 0xff, 0xff, 0x01],
        &[0x36, 5, 0, 1, b't', 0, 1],
        &[0x32, 5, 0, 1, b't', 0, 0],
        &[0x30, 2, 0, 9],
        &[0x90, 3, 0, 99, 0],
        &[0x30, 0xff, 0xff, 0xff, 0x7f],
        &[0x40, 1, 0],
        &[0xa2, 1, 0],
    ];
    let url = peer(move |number, peer| {
        peer.accept_3_1_1(0);
        peer.write(nonsense[number % nonsense.len()]);
        while !peer.read().is_empty() {}
    });
    let transport = open(&url).unwrap();
    let mut receiver = receiving(&*transport, connection("r", MqttVersion::V311), &[], 1, true);
    let gone = |event: &&SubscribeEvent| matches!(event, SubscribeEvent::Disconnected(_));
    until("all tried", &mut [], &mut [&mut receiver], |_, r| {
        r[0].got.events.iter().filter(gone).count() >= nonsense.len()
    })
    .await;
    for event in receiver.got.events.iter().filter(gone) {
        let SubscribeEvent::Disconnected(gone) = event else {
            continue;
        };
        assert!(
            ["protocol error", "packet too large"].contains(&gone.reason),
            "{gone:?}"
        );
    }
    assert!(receiver.got.messages.is_empty());
}
