//! What a producer writes: counts, ranges and histograms.

use super::{VERSION, get_byte, get_fixed, get_list, get_range, put_range, versioned};
use crate::{
    entry::{BadEntry, SendHead, SendPart},
    histogram::Histogram,
    id::{DaemonId, Domain, Epoch},
    varint::{get_u64, put_u64},
};

impl SendPart {
    /// The part as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        out.push(VERSION);
        out.extend_from_slice(&self.epoch.0.to_le_bytes());
        out.push(u8::from(self.warmup) | u8::from(self.first_sequence.is_some()) << 1);
        for count in [self.scheduled, self.sent, self.unsent, self.acked] {
            put_u64(&mut out, count);
        }
        if let Some(first) = self.first_sequence {
            put_u64(&mut out, first);
        }
        for ranges in [&self.refused, &self.unconfirmed] {
            put_u64(&mut out, ranges.len() as u64);
            let mut after = 0;
            for &range in ranges {
                put_range(&mut out, range, after);
                after = range.last;
            }
        }
        for histogram in [&self.late, &self.ack, &self.complete] {
            histogram.encode(&mut out);
        }
        out
    }

    /// Reads what [`SendPart::encode`] wrote; any bytes are safe.
    pub fn decode(bytes: &[u8]) -> Result<SendPart, BadEntry> {
        let damaged = BadEntry("send part");
        let mut input = versioned(bytes).ok_or(damaged)?;
        let part = get_send_part(&mut input).ok_or(damaged)?;
        if input.is_empty() { Ok(part) } else { Err(damaged) }
    }
}

fn get_send_part(input: &mut &[u8]) -> Option<SendPart> {
    let epoch = Epoch(u64::from_le_bytes(get_fixed(input)?));
    let flags = get_byte(input)?;
    let [scheduled, sent, unsent, acked] = [get_u64(input)?, get_u64(input)?, get_u64(input)?, get_u64(input)?];
    let first_sequence = if flags & 2 != 0 { Some(get_u64(input)?) } else { None };
    let mut ranges = || {
        let mut after = 0;
        get_list(input, |input| {
            let range = get_range(input, after)?;
            after = range.last;
            Some(range)
        })
    };
    Some(SendPart {
        epoch,
        scheduled,
        sent,
        unsent,
        first_sequence,
        acked,
        refused: ranges()?,
        unconfirmed: ranges()?,
        warmup: flags & 1 != 0,
        late: Histogram::decode(input)?,
        ack: Histogram::decode(input)?,
        complete: Histogram::decode(input)?,
    })
}

impl SendHead {
    /// The head as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.daemon.0.to_le_bytes());
        out.extend_from_slice(&self.domain.0.to_le_bytes());
        for count in [self.messages, self.late, self.extreme, self.bound_ns] {
            put_u64(&mut out, count);
        }
        out.push(u8::from(self.era_changed));
        out
    }

    /// Reads what [`SendHead::encode`] wrote; any bytes are safe.
    pub fn decode(bytes: &[u8]) -> Result<SendHead, BadEntry> {
        let damaged = BadEntry("send head");
        let mut input = versioned(bytes).ok_or(damaged)?;
        let head = get_send_head(&mut input).ok_or(damaged)?;
        if input.is_empty() { Ok(head) } else { Err(damaged) }
    }
}

fn get_send_head(input: &mut &[u8]) -> Option<SendHead> {
    Some(SendHead {
        daemon: DaemonId(u64::from_le_bytes(get_fixed(input)?)),
        domain: Domain(u32::from_le_bytes(get_fixed(input)?)),
        messages: get_u64(input)?,
        late: get_u64(input)?,
        extreme: get_u64(input)?,
        bound_ns: get_u64(input)?,
        era_changed: get_byte(input)? != 0,
    })
}
