//! Outgoing PUBLISH frames: encoded once with rumqttc's codec, then copied and patched.

use isochrone_model::{
    payload::{DeviceSeed, Payload, StampPlace},
    stamp::Stamp,
};

use crate::{MqttVersion, mqtt::codec};

/// The part of a PUBLISH that stays the same from message to message.
pub(super) struct FrameTemplate {
    /// First byte, DUP 0.
    first: u8,
    /// Topic, packet id, properties: all between the remaining length and the payload.
    head: Box<[u8]>,
    /// Where the packet id stands in `head`.
    id_at: Option<usize>,
    /// Where the stamp stands in `head`, when it travels as a property.
    property_at: Option<usize>,
    place: StampPlace,
    /// How many bytes the last remaining length took: the room left for the next.
    length_bytes: usize,
}

impl FrameTemplate {
    /// Encodes the template of a topic; the codec's error when it cannot be encoded.
    pub fn new(version: MqttVersion, topic: &str, qos: u8, place: StampPlace) -> Result<FrameTemplate, String> {
        let placeholder = (place == StampPlace::Property).then(|| "0".repeat(Stamp::TEXT_LEN));
        let (first, head) = codec::publish_head(version, topic, qos, placeholder.as_deref())?;
        let id_at = (qos > 0).then_some(2 + topic.len());
        let property_at = placeholder.map(|text| head.len() - text.len());
        Ok(FrameTemplate {
            first,
            head,
            id_at,
            property_at,
            place,
            length_bytes: 1,
        })
    }

    /// Appends one frame and returns where its stamp is to be patched in.
    ///
    /// The payload is written where it would lie if the remaining length took as many bytes as the last one did; it
    /// is moved in the rare case that it does not.
    pub fn render(
        &mut self,
        out: &mut Vec<u8>,
        payload: &Payload,
        device: &DeviceSeed,
        sequence: u64,
        id: u16,
        dup: bool,
    ) -> Option<usize> {
        let start = out.len();
        out.push(if dup { self.first | 8 } else { self.first });
        out.extend_from_slice(&[0; 4][..self.length_bytes]);
        let mut body = out.len();
        out.extend_from_slice(&self.head);
        let in_payload = payload.render(device, sequence, out);
        let mut stamp_at = self.property_at.map(|at| body + at).or(in_payload);

        let length = out.len() - body;
        let needed = length_bytes(length);
        if needed != self.length_bytes {
            let end = out.len();
            let moved = start + 1 + needed;
            if needed > self.length_bytes {
                out.resize(end + needed - self.length_bytes, 0);
            }
            out.copy_within(body..end, moved);
            out.truncate(moved + length);
            stamp_at = stamp_at.map(|at| at - body + moved);
            body = moved;
            self.length_bytes = needed;
        }
        let mut left = length;
        for byte in &mut out[start + 1..body] {
            *byte = (left & 0x7f) as u8 | if left > 0x7f { 0x80 } else { 0 };
            left >>= 7;
        }
        if let Some(at) = self.id_at {
            out[body + at..body + at + 2].copy_from_slice(&id.to_be_bytes());
        }
        stamp_at
    }

    /// Writes the stamp of a rendered frame.
    pub fn patch(&self, out: &mut [u8], at: usize, stamp: &Stamp) {
        match self.place {
            StampPlace::Text | StampPlace::Property => stamp.write_text(&mut out[at..at + Stamp::TEXT_LEN]),
            StampPlace::Bytes => stamp.write_bytes(&mut out[at..at + Stamp::BYTES_LEN]),
        }
    }
}

/// Bytes a remaining length takes (MQTT 5, 1.5.5).
fn length_bytes(length: usize) -> usize {
    match length {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}
