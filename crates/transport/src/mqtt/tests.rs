//! What we write and read ourselves, against rumqttc's codec.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use isochrone_model::{
    id::{Domain, Epoch},
    payload::{DeviceSeed, Payload, StampPlace},
    stamp::{Found, Stamp, find, from_property},
    time::{Monotonic, Reference},
};
use proptest::prelude::*;
use rumqttc::{mqttbytes::v4, v5::mqttbytes::v5};

use super::{
    codec,
    frame::FrameTemplate,
    reason,
    wire::{self, Frame},
};
use crate::MqttVersion;

fn device() -> DeviceSeed {
    DeviceSeed {
        device: "0-1".into(),
        run: "r".into(),
        seed: 7,
    }
}

fn stamp(sequence: u64) -> Stamp {
    Stamp {
        domain: Domain(3),
        epoch: Epoch(9),
        sequence,
        warmup: false,
        due: Reference(-5),
        sent: Reference(6),
        sent_monotonic: Monotonic(77),
    }
}

proptest! {
    /// Our PUBLISH, of whatever size after whatever size, decodes with the codec to the same fields, in both versions.
    #[test]
    fn frames_are_what_the_codec_reads(
        topic in "[a-z/]{1,40}", qos in 0_u8..3, id in 1_u16.., dup: bool, five: bool, place in 0_u8..3,
        sizes in proptest::collection::vec(prop_oneof![0_usize..200, 16_000_usize..17_000], 1..6),
    ) {
        let version = if five { MqttVersion::V5 } else { MqttVersion::V311 };
        let place = match place {
            0 => StampPlace::Text,
            1 => StampPlace::Bytes,
            _ if five => StampPlace::Property,
            _ => StampPlace::Text,
        };
        let mut template = FrameTemplate::new(version, &topic, qos, place).unwrap();
        let mut out = Vec::new();
        let mut expected = Vec::new();
        for (sequence, size) in (0..).zip(sizes) {
            let stamped = if place == StampPlace::Property { "" } else { "{{stamp}}" };
            let text = format!("{stamped}{}", "x".repeat(size));
            let payload = Payload::compile(text.as_bytes(), place, None).unwrap();
            let at = template.render(&mut out, &payload, &device(), sequence, id, dup).unwrap();
            template.patch(&mut out, at, &stamp(sequence));
            let mut plain = Vec::new();
            if let Some(at) = payload.render(&device(), sequence, &mut plain) {
                template.patch(&mut plain, at, &stamp(sequence));
            }
            expected.push(plain);
        }
        let mut stream = BytesMut::from(&out[..]);
        let mut rest = &out[..];
        for (sequence, payload) in (0..).zip(expected) {
            let bounds = wire::bounds(rest).unwrap().unwrap();
            let ours = Frame::new(&rest[..bounds.total], bounds).publish(version).unwrap();
            rest = &rest[bounds.total..];
            let expected_id = if qos == 0 { 0 } else { id };
            prop_assert_eq!((ours.topic, ours.id, ours.qos, ours.dup), (topic.as_str(), expected_id, qos, dup));
            prop_assert_eq!(ours.payload, &payload[..]);
            match place {
                StampPlace::Property => prop_assert_eq!(from_property(ours.property.unwrap()), Found::Stamp(stamp(sequence))),
                _ => prop_assert_eq!(find(ours.payload), Found::Stamp(stamp(sequence))),
            }
            match version {
                MqttVersion::V311 => {
                    let v4::Packet::Publish(theirs) = v4::Packet::read(&mut stream, 1 << 20).unwrap() else { panic!() };
                    prop_assert_eq!((theirs.topic, theirs.pkid, theirs.qos as u8, theirs.dup), (topic.clone(), expected_id, qos, dup));
                    prop_assert_eq!(theirs.payload, payload);
                }
                MqttVersion::V5 => {
                    let v5::Packet::Publish(theirs) = v5::Packet::read(&mut stream, None).unwrap() else { panic!() };
                    prop_assert_eq!((&theirs.topic[..], theirs.pkid, theirs.qos as u8), (topic.as_bytes(), expected_id, qos));
                    prop_assert_eq!(theirs.payload, payload);
                    let property = ours.property.map(|value| ("isochrone".to_owned(), String::from_utf8(value.to_vec()).unwrap()));
                    prop_assert_eq!(theirs.properties.map(|p| p.user_properties), property.map(|p| vec![p]));
                }
            }
        }
        prop_assert!(stream.is_empty() && rest.is_empty());
    }

    /// A PUBLISH of any properties that the codec writes is read alike.
    #[test]
    fn properties_are_walked(
        values in proptest::collection::vec(("[a-z]{0,12}", "[a-z]{0,12}"), 0..5), named in proptest::option::of("[a-z]{0,80}"),
        expiry: Option<u32>, format in proptest::option::of(0_u8..2), kind in proptest::option::of("[a-z]{0,9}"), ids in proptest::collection::vec(1_usize..99_999, 0..3),
        correlation in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..9)),
    ) {
        let mut user = values;
        user.retain(|(name, _)| name != "isochrone");
        user.extend(named.iter().map(|value| ("isochrone".to_owned(), value.clone())));
        let properties = v5::PublishProperties {
            payload_format_indicator: format,
            message_expiry_interval: expiry,
            topic_alias: None,
            response_topic: kind.clone(),
            correlation_data: correlation.map(Bytes::from),
            user_properties: user,
            subscription_identifiers: ids,
            content_type: kind,
        };
        let mut packet = v5::Publish::new("t", rumqttc::v5::mqttbytes::QoS::AtLeastOnce, "payload", Some(properties));
        packet.pkid = 5;
        let mut out = BytesMut::new();
        packet.write(&mut out).unwrap();
        let bounds = wire::bounds(&out).unwrap().unwrap();
        prop_assert_eq!(bounds.total, out.len());
        let ours = Frame::new(&out, bounds).publish(MqttVersion::V5).unwrap();
        prop_assert_eq!(ours.property, named.as_ref().map(|value| value.as_bytes()));
        prop_assert_eq!((ours.payload, ours.id), (&b"payload"[..], 5));
    }

    /// No bytes make a reader panic.
    #[test]
    fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 1..80), kind in 0_u8..16, five: bool) {
        let version = if five { MqttVersion::V5 } else { MqttVersion::V311 };
        let mut framed = vec![kind << 4 | bytes[0] & 15, (bytes.len() - 1) as u8];
        framed.extend_from_slice(&bytes[1..]);
        for raw in [&bytes, &framed] {
            if let Ok(Some(bounds)) = wire::bounds(raw) && let Some(whole) = raw.get(..bounds.total) {
                let frame = Frame::new(whole, bounds);
                let _ = frame.publish(version);
                let _ = frame.ack();
                if frame.kind() == wire::packet::CONNACK {
                    let _ = codec::connack(version, whole);
                }
                if frame.kind() == wire::packet::SUBACK {
                    let _ = codec::suback(version, whole);
                }
            }
        }
    }
}

#[test]
fn acknowledgements_are_what_the_codec_reads() {
    let mut out = Vec::new();
    for kind in [
        wire::packet::PUBACK,
        wire::packet::PUBREC,
        wire::packet::PUBREL,
        wire::packet::PUBCOMP,
    ] {
        wire::push_ack(&mut out, kind, 513);
    }
    let (mut four, mut five) = (BytesMut::from(&out[..]), BytesMut::from(&out[..]));
    assert!(matches!(v4::Packet::read(&mut four, 9), Ok(v4::Packet::PubAck(ack)) if ack.pkid == 513));
    assert!(matches!(v4::Packet::read(&mut four, 9), Ok(v4::Packet::PubRec(ack)) if ack.pkid == 513));
    assert!(matches!(v4::Packet::read(&mut four, 9), Ok(v4::Packet::PubRel(ack)) if ack.pkid == 513));
    assert!(matches!(v4::Packet::read(&mut four, 9), Ok(v4::Packet::PubComp(ack)) if ack.pkid == 513));
    assert!(matches!(v5::Packet::read(&mut five, None), Ok(v5::Packet::PubAck(ack)) if ack.pkid == 513));
    assert!(matches!(v5::Packet::read(&mut five, None), Ok(v5::Packet::PubRec(ack)) if ack.pkid == 513));
    assert!(matches!(v5::Packet::read(&mut five, None), Ok(v5::Packet::PubRel(ack)) if ack.pkid == 513));
    assert!(matches!(v5::Packet::read(&mut five, None), Ok(v5::Packet::PubComp(ack)) if ack.pkid == 513));
}

#[test]
fn control_packets_are_what_the_codec_reads() {
    let topics: Vec<Arc<str>> = vec!["a".into(), "b/c".into()];
    for version in [MqttVersion::V311, MqttVersion::V5] {
        let connect = codec::Connect {
            version,
            client_id: "id",
            username: "user",
            password: "012345",
            keep_alive: Duration::from_millis(500),
            clean: false,
            session_expiry: Duration::from_secs(60),
            receive_maximum: 99,
        };
        let mut stream = codec::connect(&connect).unwrap();
        stream.extend_from_slice(&codec::subscribe(version, 7, &topics, 2).unwrap());
        stream.extend_from_slice(&codec::unsubscribe(version, 8, &topics).unwrap());
        if version == MqttVersion::V311 {
            let v4::Packet::Connect(read) = v4::Packet::read(&mut stream, 999).unwrap() else {
                panic!()
            };
            assert_eq!(
                (
                    read.keep_alive,
                    read.clean_session,
                    read.login.unwrap().password.as_str()
                ),
                (1, false, "012345")
            );
            assert!(
                matches!(v4::Packet::read(&mut stream, 999), Ok(v4::Packet::Subscribe(s)) if s.pkid == 7 && s.filters.len() == 2)
            );
            assert!(
                matches!(v4::Packet::read(&mut stream, 999), Ok(v4::Packet::Unsubscribe(s)) if s.pkid == 8 && s.topics.len() == 2)
            );
        } else {
            let v5::Packet::Connect(read, _, login) = v5::Packet::read(&mut stream, None).unwrap() else {
                panic!()
            };
            let properties = read.properties.unwrap();
            assert_eq!(
                (properties.session_expiry_interval, properties.receive_maximum),
                (Some(60), Some(99))
            );
            assert_eq!((read.clean_start, login.unwrap().password.as_str()), (false, "012345"));
            assert!(
                matches!(v5::Packet::read(&mut stream, None), Ok(v5::Packet::Subscribe(s)) if s.pkid == 7 && s.filters.len() == 2)
            );
            assert!(
                matches!(v5::Packet::read(&mut stream, None), Ok(v5::Packet::Unsubscribe(s)) if s.pkid == 8 && s.filters.len() == 2)
            );
            let mut bye = BytesMut::from(&codec::disconnect(version, true)[..]);
            let v5::Packet::Disconnect(read) = v5::Packet::read(&mut bye, None).unwrap() else {
                panic!()
            };
            assert_eq!(read.properties.unwrap().session_expiry_interval, Some(0));
        }
        assert!(stream.is_empty());
    }
}

#[test]
fn refusals_name_cause_and_setting() {
    for (code, reason, setting) in [
        (1, "protocol version", "ISOCHRONE_MQTT_VERSION"),
        (2, "bad client id", "ISOCHRONE_CLIENT_ID"),
        (4, "bad user name or password", "ISOCHRONE_PASSWORD"),
        (5, "not authorised", "ISOCHRONE_USERNAME"),
        (0x87, "not authorised", "ISOCHRONE_PASSWORD"),
    ] {
        let refused = reason::connack(MqttVersion::V311, code);
        assert_eq!(refused.reason, reason);
        assert!(
            refused.needs_setting && refused.detail.contains(setting),
            "{}",
            refused.detail
        );
    }
    let line = reason::connack(MqttVersion::V311, 5).detail;
    assert_eq!(
        line,
        "not authorised (CONNACK 5): check ISOCHRONE_USERNAME and ISOCHRONE_PASSWORD"
    );
    assert!(!reason::connack(MqttVersion::V5, 0x88).needs_setting);
}

/// What a subscriber should change is its own setting.
#[test]
fn a_subscriber_is_told_its_own_client_id() {
    for told in [reason::disconnect(0x8e), reason::connack(MqttVersion::V5, 0x85)] {
        let detail = reason::of_subscriber(told).detail;
        assert!(detail.ends_with("check ISOCHRONE_CONSUMER_CLIENT_ID"), "{detail}");
    }
}
