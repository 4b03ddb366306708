//! Both protocol versions behind one set of functions, over rumqttc's codec.
//!
//! Only packets that come a few times a connection pass here; what comes with every message is in `wire` and `frame`.

use std::{sync::Arc, time::Duration};

use bytes::BytesMut;
use rumqttc::{
    mqttbytes::{self, v4},
    v5::mqttbytes::{self as mqttbytes5, v5},
};

use crate::MqttVersion;

/// The largest packet we take.
pub(super) const MAX_PACKET: usize = 16 * 1024 * 1024;

/// What a CONNECT says.
pub(super) struct Connect<'a> {
    pub version: MqttVersion,
    pub client_id: &'a str,
    pub username: &'a str,
    pub password: &'a str,
    pub keep_alive: Duration,
    pub clean: bool,
    /// Zero: none.
    pub session_expiry: Duration,
    pub receive_maximum: u16,
}

/// What a successful CONNACK says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Accepted {
    pub session_present: bool,
    pub receive_maximum: u16,
    pub max_packet: usize,
    pub max_qos: u8,
    pub keep_alive: Option<Duration>,
}

/// One answer in a SUBACK: the granted QoS, or why not.
pub(super) type Granted = Result<u8, String>;

/// Encodes CONNECT.
pub(super) fn connect(packet: &Connect<'_>) -> Result<BytesMut, String> {
    let keep_alive = packet.keep_alive.as_secs().min(u64::from(u16::MAX)) as u16;
    let keep_alive = if packet.keep_alive.is_zero() {
        0
    } else {
        keep_alive.max(1)
    };
    let mut out = BytesMut::new();
    let login = !packet.username.is_empty() || !packet.password.is_empty();
    match packet.version {
        MqttVersion::V311 => {
            let mut connect = v4::Connect::new(packet.client_id);
            connect.keep_alive = keep_alive;
            connect.clean_session = packet.clean;
            connect.login = login.then(|| v4::Login::new(packet.username, packet.password));
            connect.write(&mut out).map_err(|error| error.to_string())?;
        }
        MqttVersion::V5 => {
            let mut properties = v5::ConnectProperties::new();
            if !packet.session_expiry.is_zero() {
                let seconds = packet.session_expiry.as_secs().clamp(1, u64::from(u32::MAX)) as u32;
                properties.session_expiry_interval = Some(seconds);
            }
            properties.receive_maximum = Some(packet.receive_maximum.max(1));
            properties.max_packet_size = Some(MAX_PACKET as u32);
            let connect = v5::Connect {
                keep_alive,
                client_id: packet.client_id.to_owned(),
                clean_start: packet.clean,
                properties: Some(properties),
            };
            let login = login.then(|| v5::Login {
                username: packet.username.into(),
                password: packet.password.into(),
            });
            connect
                .write(&None, &login, &mut out)
                .map_err(|error| error.to_string())?;
        }
    }
    Ok(out)
}

/// Reads the properties of a CONNACK whose code is 0.
pub(super) fn connack(version: MqttVersion, frame: &[u8]) -> Result<Accepted, String> {
    let mut accepted = Accepted {
        session_present: false,
        receive_maximum: u16::MAX,
        max_packet: usize::MAX,
        max_qos: 2,
        keep_alive: None,
    };
    match version {
        MqttVersion::V311 => match read4(frame)? {
            v4::Packet::ConnAck(ack) => accepted.session_present = ack.session_present,
            _ => return Err("another packet than CONNACK".to_owned()),
        },
        MqttVersion::V5 => match read5(frame)? {
            v5::Packet::ConnAck(ack) => {
                accepted.session_present = ack.session_present;
                if let Some(properties) = ack.properties {
                    accepted.receive_maximum = properties.receive_max.unwrap_or(u16::MAX).max(1);
                    accepted.max_packet = properties.max_packet_size.map_or(usize::MAX, |size| size as usize);
                    accepted.max_qos = properties.max_qos.unwrap_or(2);
                    accepted.keep_alive = properties.server_keep_alive.map(|s| Duration::from_secs(u64::from(s)));
                }
            }
            _ => return Err("another packet than CONNACK".to_owned()),
        },
    }
    Ok(accepted)
}

/// Encodes SUBSCRIBE.
pub(super) fn subscribe(version: MqttVersion, id: u16, topics: &[Arc<str>], qos: u8) -> Result<BytesMut, String> {
    let mut out = BytesMut::new();
    match version {
        MqttVersion::V311 => {
            let qos = mqttbytes::qos(qos).map_err(|error| error.to_string())?;
            let filters = topics
                .iter()
                .map(|topic| v4::SubscribeFilter::new(topic.to_string(), qos));
            let mut packet = v4::Subscribe::new_many(filters);
            packet.pkid = id;
            packet.write(&mut out).map_err(|error| error.to_string())?;
        }
        MqttVersion::V5 => {
            let qos = mqttbytes5::qos(qos).ok_or("a QoS above 2")?;
            let filters = topics.iter().map(|topic| v5::Filter::new(topic.to_string(), qos));
            let mut packet = v5::Subscribe::new_many(filters, None);
            packet.pkid = id;
            packet.write(&mut out).map_err(|error| error.to_string())?;
        }
    }
    Ok(out)
}

/// Reads SUBACK: packet id and one answer a filter.
pub(super) fn suback(version: MqttVersion, frame: &[u8]) -> Result<(u16, Vec<Granted>), String> {
    match version {
        MqttVersion::V311 => match read4(frame)? {
            v4::Packet::SubAck(ack) => {
                let answers = ack.return_codes.iter().map(|code| match code {
                    v4::SubscribeReasonCode::Success(qos) => Ok(*qos as u8),
                    v4::SubscribeReasonCode::Failure => Err("SUBACK 0x80".to_owned()),
                });
                Ok((ack.pkid, answers.collect()))
            }
            _ => Err("another packet than SUBACK".to_owned()),
        },
        MqttVersion::V5 => match read5(frame)? {
            v5::Packet::SubAck(ack) => {
                let answers = ack.return_codes.iter().map(|code| match code {
                    v5::SubscribeReasonCode::Success(qos) => Ok(*qos as u8),
                    v5::SubscribeReasonCode::NotAuthorized => Err("SUBACK 0x87, not authorised".to_owned()),
                    v5::SubscribeReasonCode::TopicFilterInvalid => Err("SUBACK 0x8F, topic filter invalid".to_owned()),
                    v5::SubscribeReasonCode::QuotaExceeded => Err("SUBACK 0x97, quota exceeded".to_owned()),
                    v5::SubscribeReasonCode::Failure | v5::SubscribeReasonCode::Unspecified => {
                        Err("SUBACK 0x80".to_owned())
                    }
                    other => Err(format!("SUBACK {other:?}")),
                });
                Ok((ack.pkid, answers.collect()))
            }
            _ => Err("another packet than SUBACK".to_owned()),
        },
    }
}

/// Encodes UNSUBSCRIBE.
pub(super) fn unsubscribe(version: MqttVersion, id: u16, topics: &[Arc<str>]) -> Result<BytesMut, String> {
    let mut out = BytesMut::new();
    let filters: Vec<String> = topics.iter().map(|topic| topic.to_string()).collect();
    match version {
        MqttVersion::V311 => v4::Unsubscribe {
            pkid: id,
            topics: filters,
        }
        .write(&mut out)
        .map_err(|e| e.to_string())?,
        MqttVersion::V5 => {
            let packet = v5::Unsubscribe {
                pkid: id,
                filters,
                properties: None,
            };
            packet.write(&mut out).map_err(|error| error.to_string())?
        }
    };
    Ok(out)
}

/// Encodes DISCONNECT; with `expire_session` (MQTT 5) the broker is to delete the session now.
pub(super) fn disconnect(version: MqttVersion, expire_session: bool) -> Vec<u8> {
    let plain = vec![0xe0, 0];
    if version == MqttVersion::V311 || !expire_session {
        return plain;
    }
    let properties = v5::DisconnectProperties {
        session_expiry_interval: Some(0),
        reason_string: None,
        user_properties: Vec::new(),
        server_reference: None,
    };
    let packet = v5::Disconnect {
        reason_code: v5::DisconnectReasonCode::NormalDisconnection,
        properties: Some(properties),
    };
    let mut out = BytesMut::new();
    packet.write(&mut out).map_or(plain, |_| out.to_vec())
}

/// First byte and variable header of a PUBLISH, with `property` as the value of a user property `isochrone`.
pub(super) fn publish_head(
    version: MqttVersion,
    topic: &str,
    qos: u8,
    property: Option<&str>,
) -> Result<(u8, Box<[u8]>), String> {
    if topic.is_empty() || topic.len() > usize::from(u16::MAX) || topic.contains(['+', '#', '\0']) {
        return Err(format!("{topic:?} is not a topic that can be published to"));
    }
    let mut out = BytesMut::new();
    match version {
        MqttVersion::V311 => {
            let qos = mqttbytes::qos(qos).map_err(|error| error.to_string())?;
            let mut packet = v4::Publish::new(topic, qos, Vec::new());
            packet.pkid = 1;
            packet.write(&mut out).map_err(|error| error.to_string())?;
        }
        MqttVersion::V5 => {
            let qos = mqttbytes5::qos(qos).ok_or("a QoS above 2")?;
            let properties = property.map(|value| v5::PublishProperties {
                user_properties: vec![("isochrone".to_owned(), value.to_owned())],
                ..Default::default()
            });
            let mut packet = v5::Publish::new(topic, qos, Vec::new(), properties);
            packet.pkid = 1;
            packet.write(&mut out).map_err(|error| error.to_string())?;
        }
    }
    let bounds = super::wire::bounds(&out)?.ok_or("an empty packet")?;
    Ok((out[0], out[bounds.header..].into()))
}

/// Never lets the codec see a packet that a client does not receive: its readers of those may panic.
fn read4(frame: &[u8]) -> Result<v4::Packet, String> {
    v4::Packet::read(&mut BytesMut::from(frame), MAX_PACKET).map_err(|error| error.to_string())
}

fn read5(frame: &[u8]) -> Result<v5::Packet, String> {
    v5::Packet::read(&mut BytesMut::from(frame), Some(MAX_PACKET as u32)).map_err(|error| error.to_string())
}
