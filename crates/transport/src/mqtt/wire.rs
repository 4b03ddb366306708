//! The borrowed fast path of what arrives: frame bounds, PUBLISH, and the four acknowledgements.
//!
//! Everything here reads slices of the worker's read buffer and allocates nothing; packets that come once a
//! connection go through rumqttc's codec (see `codec`). Layouts: MQTT 3.1.1 section 3, MQTT 5 section 3.

use crate::MqttVersion;

/// Packet types as they stand in the upper half of the first byte.
pub(super) mod packet {
    pub const CONNACK: u8 = 2;
    pub const PUBLISH: u8 = 3;
    pub const PUBACK: u8 = 4;
    pub const PUBREC: u8 = 5;
    pub const PUBREL: u8 = 6;
    pub const PUBCOMP: u8 = 7;
    pub const SUBACK: u8 = 9;
    pub const UNSUBACK: u8 = 11;
    pub const PINGRESP: u8 = 13;
    pub const DISCONNECT: u8 = 14;
}

/// PINGREQ, the same in both versions.
pub(super) const PINGREQ: [u8; 2] = [0xc0, 0];

/// Where a frame begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Bytes before the variable header.
    pub header: usize,
    /// Bytes of the whole frame.
    pub total: usize,
}

/// One complete frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame<'a> {
    /// All of it.
    pub raw: &'a [u8],
    /// Without the fixed header.
    pub body: &'a [u8],
}

/// An arriving PUBLISH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Inbound<'a> {
    pub topic: &'a str,
    /// 0 at QoS 0.
    pub id: u16,
    pub qos: u8,
    pub dup: bool,
    pub retained: bool,
    /// The first user property named `isochrone`.
    pub property: Option<&'a [u8]>,
    pub payload: &'a [u8],
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ack {
    pub id: u16,
    /// 0 where there is none.
    pub reason: u8,
}

/// Bounds of the frame that `bytes` begin with; None when its fixed header has not come yet.
pub(super) fn bounds(bytes: &[u8]) -> Result<Option<Bounds>, &'static str> {
    let mut length = 0;
    for position in 1..=4 {
        let Some(&byte) = bytes.get(position) else {
            return Ok(None);
        };
        length |= usize::from(byte & 0x7f) << (7 * (position - 1));
        if byte & 0x80 == 0 {
            return Ok(Some(Bounds {
                header: position + 1,
                total: position + 1 + length,
            }));
        }
    }
    Err("a remaining length of more than four bytes")
}

impl<'a> Frame<'a> {
    /// `raw` must be as long as `bounds` says.
    pub fn new(raw: &'a [u8], bounds: Bounds) -> Frame<'a> {
        Frame {
            raw,
            body: &raw[bounds.header.min(raw.len())..],
        }
    }

    /// Packet type.
    pub fn kind(&self) -> u8 {
        self.raw[0] >> 4
    }

    /// Reads a PUBLISH.
    pub fn publish(&self, version: MqttVersion) -> Result<Inbound<'a>, &'static str> {
        let flags = self.raw[0];
        let qos = (flags >> 1) & 3;
        if qos == 3 {
            return Err("a PUBLISH of QoS 3");
        }
        let mut rest = self.body;
        let topic = take_string(&mut rest).ok_or("a PUBLISH whose topic is cut off")?;
        let topic = std::str::from_utf8(topic).map_err(|_| "a PUBLISH whose topic is not UTF-8")?;
        if topic.is_empty() {
            return Err("a PUBLISH without topic (no topic alias was offered)");
        }
        let mut id = 0;
        if qos > 0 {
            id = take_u16(&mut rest).ok_or("a PUBLISH whose packet id is cut off")?;
            if id == 0 {
                return Err("a PUBLISH of packet id 0");
            }
        }
        let mut property = None;
        if version == MqttVersion::V5 {
            let length = take_varint(&mut rest).ok_or("a PUBLISH whose properties are cut off")?;
            if length > rest.len() {
                return Err("a PUBLISH whose properties are cut off");
            }
            let (properties, payload) = rest.split_at(length);
            property = named_isochrone(properties)?;
            rest = payload;
        }
        let (dup, retained) = (flags & 8 != 0, flags & 1 != 0);
        Ok(Inbound {
            topic,
            id,
            qos,
            dup,
            retained,
            property,
            payload: rest,
        })
    }

    /// Reads PUBACK, PUBREC, PUBREL or PUBCOMP, whose properties are of no use here; of UNSUBACK the id.
    pub fn ack(&self) -> Result<Ack, &'static str> {
        let mut rest = self.body;
        let id = take_u16(&mut rest).ok_or("an acknowledgement without packet id")?;
        Ok(Ack {
            id,
            reason: rest.first().copied().unwrap_or(0),
        })
    }
}

/// Appends PUBACK, PUBREC, PUBREL or PUBCOMP with reason success.
pub(super) fn push_ack(out: &mut Vec<u8>, kind: u8, id: u16) {
    let flags = if kind == packet::PUBREL { 2 } else { 0 };
    let [high, low] = id.to_be_bytes();
    out.extend_from_slice(&[kind << 4 | flags, 2, high, low]);
}

/// Walks the properties of a PUBLISH (MQTT 5, 3.3.2.3).
fn named_isochrone(mut rest: &[u8]) -> Result<Option<&[u8]>, &'static str> {
    const CUT: &str = "a PUBLISH whose properties are cut off";
    while let Some((&identifier, after)) = rest.split_first() {
        rest = after;
        match identifier {
            0x01 => drop(take(&mut rest, 1).ok_or(CUT)?),
            0x23 => drop(take(&mut rest, 2).ok_or(CUT)?),
            0x02 => drop(take(&mut rest, 4).ok_or(CUT)?),
            0x03 | 0x08 | 0x09 => drop(take_string(&mut rest).ok_or(CUT)?),
            0x0b => drop(take_varint(&mut rest).ok_or(CUT)?),
            0x26 => {
                let name = take_string(&mut rest).ok_or(CUT)?;
                let value = take_string(&mut rest).ok_or(CUT)?;
                if name == b"isochrone" {
                    return Ok(Some(value));
                }
            }
            _ => return Err("a PUBLISH with an unknown property"),
        }
    }
    Ok(None)
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(count)?;
    *rest = after;
    Some(taken)
}

fn take_u16(rest: &mut &[u8]) -> Option<u16> {
    let pair = take(rest, 2)?;
    Some(u16::from_be_bytes([pair[0], pair[1]]))
}

fn take_string<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = take_u16(rest)?;
    take(rest, usize::from(length))
}

fn take_varint(rest: &mut &[u8]) -> Option<usize> {
    let mut value = 0;
    for shift in [0, 7, 14, 21] {
        let byte = take(rest, 1)?[0];
        value |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
