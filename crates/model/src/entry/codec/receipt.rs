//! What a consumer writes: samples, gaps, and the facts of a second.

use super::{VERSION, get_byte, get_fixed, get_list, get_missing, put_missing, versioned};
use crate::{
    entry::{BadEntry, ConsumerDelay, ReceiptHead, ReceiptPart, Sample},
    id::{DaemonId, Domain, Epoch},
    time::{Reference, Second},
    varint::{get_i64, get_u64, put_i64, put_u64},
};

// Flags of a sample.
const OTHER_EPOCH: u8 = 1;
const SEQUENCE_JUMPS: u8 = 1 << 1;
const DUE_DIFFERS: u8 = 1 << 2;
const RECEIVED_DIFFERS: u8 = 1 << 3;
const WARMUP: u8 = 1 << 4;
const DELAY_SHIFT: u8 = 5;

/// What the last sample of an epoch foretells of its next.
#[derive(Clone, Copy)]
struct Forecast {
    epoch: Epoch,
    sequence: u64,
    due: i64,
    step: i64,
}

impl Forecast {
    /// `base` keeps the first sample's absolute times short.
    fn new(epoch: Epoch, base: i64) -> Forecast {
        Forecast {
            epoch,
            sequence: 0,
            due: base,
            step: 0,
        }
    }

    fn next_due(&self) -> i64 {
        self.due.wrapping_add(self.step)
    }

    fn learn(&mut self, sample: &Sample) {
        self.sequence = sample.sequence.wrapping_add(1);
        self.step = sample.due.0.wrapping_sub(self.due);
        self.due = sample.due.0;
    }
}

/// Epochs in the order of their first appearance, with an index for those that have many.
#[derive(Default)]
struct EpochTable {
    epochs: Vec<Epoch>,
    index: std::collections::HashMap<Epoch, usize>,
}

impl EpochTable {
    fn of(part: &ReceiptPart) -> EpochTable {
        let mut table = EpochTable::default();
        let missing = part.missing.iter().chain(&part.found).map(|missing| missing.epoch);
        let mut last = None;
        for epoch in part.samples.iter().map(|sample| sample.epoch).chain(missing) {
            if last == Some(epoch) {
                continue;
            }
            last = Some(epoch);
            let next = table.epochs.len();
            table.index.entry(epoch).or_insert_with(|| {
                table.epochs.push(epoch);
                next
            });
        }
        table
    }

    fn position(&self, epoch: Epoch) -> usize {
        self.index.get(&epoch).copied().unwrap_or(0)
    }
}

impl ReceiptPart {
    /// The part as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32 + self.samples.len() * 11);
        out.push(VERSION);
        let table = EpochTable::of(self);
        put_u64(&mut out, table.epochs.len() as u64);
        for epoch in &table.epochs {
            out.extend_from_slice(&epoch.0.to_le_bytes());
        }
        for count in [
            self.duplicates,
            self.retained,
            self.unstamped,
            self.foreign,
            self.reordered,
        ] {
            put_u64(&mut out, count);
        }
        put_u64(&mut out, self.dropped.len() as u64);
        for &(second, count) in &self.dropped {
            put_i64(&mut out, second.0);
            put_u64(&mut out, count);
        }
        let base = self.samples.first().map_or(0, |sample| sample.due.0);
        put_i64(&mut out, base);
        for list in [&self.missing, &self.found] {
            put_u64(&mut out, list.len() as u64);
            for missing in list {
                put_u64(&mut out, table.position(missing.epoch) as u64);
                put_missing(&mut out, missing, base);
            }
        }
        put_u64(&mut out, self.samples.len() as u64);
        let mut forecasts: Vec<Forecast> = table.epochs.iter().map(|&epoch| Forecast::new(epoch, base)).collect();
        let mut current = 0;
        for sample in &self.samples {
            let mut position = current;
            if forecasts
                .get(current)
                .is_none_or(|forecast| forecast.epoch != sample.epoch)
            {
                position = table.position(sample.epoch);
            }
            if let Some(forecast) = forecasts.get_mut(position) {
                put_sample(&mut out, sample, forecast, (position != current).then_some(position));
            }
            current = position;
        }
        out
    }

    /// Reads what [`ReceiptPart::encode`] wrote; any bytes are safe.
    pub fn decode(bytes: &[u8]) -> Result<ReceiptPart, BadEntry> {
        let damaged = BadEntry("receipt part");
        let mut input = versioned(bytes).ok_or(damaged)?;
        let part = get_receipt_part(&mut input).ok_or(damaged)?;
        if input.is_empty() { Ok(part) } else { Err(damaged) }
    }
}

fn get_receipt_part(input: &mut &[u8]) -> Option<ReceiptPart> {
    let epochs = get_list(input, |input| {
        get_fixed(input).map(|bytes| Epoch(u64::from_le_bytes(bytes)))
    })?;
    let mut part = ReceiptPart {
        duplicates: get_u64(input)?,
        retained: get_u64(input)?,
        unstamped: get_u64(input)?,
        foreign: get_u64(input)?,
        reordered: get_u64(input)?,
        dropped: get_list(input, |input| Some((Second(get_i64(input)?), get_u64(input)?)))?,
        ..ReceiptPart::default()
    };
    let base = get_i64(input)?;
    let mut missing = || {
        get_list(input, |input| {
            let epoch = *epochs.get(usize::try_from(get_u64(input)?).ok()?)?;
            get_missing(input, epoch, base)
        })
    };
    part.missing = missing()?;
    part.found = missing()?;
    let mut forecasts: Vec<Forecast> = epochs.iter().map(|&epoch| Forecast::new(epoch, base)).collect();
    let mut current = 0;
    part.samples = get_list(input, |input| get_sample(input, &mut forecasts, &mut current))?;
    Some(part)
}

fn put_sample(out: &mut Vec<u8>, sample: &Sample, forecast: &mut Forecast, other: Option<usize>) {
    let at = out.len();
    out.push(0);
    let mut flags = (sample.delay as u8) << DELAY_SHIFT;
    if let Some(position) = other {
        flags |= OTHER_EPOCH;
        put_u64(out, position as u64);
    }
    if sample.sequence != forecast.sequence {
        flags |= SEQUENCE_JUMPS;
        put_i64(out, sample.sequence.wrapping_sub(forecast.sequence) as i64);
    }
    if sample.due.0 != forecast.next_due() {
        flags |= DUE_DIFFERS;
        put_i64(out, sample.due.0.wrapping_sub(forecast.next_due()));
    }
    put_i64(out, sample.sent.0.wrapping_sub(sample.due.0));
    put_i64(out, sample.transit_ns);
    let received = sample.sent.0.wrapping_add(sample.transit_ns);
    if sample.received.0 != received {
        flags |= RECEIVED_DIFFERS;
        put_i64(out, sample.received.0.wrapping_sub(received));
    }
    if sample.warmup {
        flags |= WARMUP;
    }
    if let Some(byte) = out.get_mut(at) {
        *byte = flags;
    }
    forecast.learn(sample);
}

fn get_sample(input: &mut &[u8], forecasts: &mut [Forecast], current: &mut usize) -> Option<Sample> {
    let flags = get_byte(input)?;
    if flags & OTHER_EPOCH != 0 {
        *current = usize::try_from(get_u64(input)?).ok()?;
    }
    let forecast = forecasts.get_mut(*current)?;
    let mut optional = |flag: u8| if flags & flag != 0 { get_i64(input) } else { Some(0) };
    let sequence = forecast.sequence.wrapping_add(optional(SEQUENCE_JUMPS)? as u64);
    let due = forecast.next_due().wrapping_add(optional(DUE_DIFFERS)?);
    let sent = due.wrapping_add(get_i64(input)?);
    let transit_ns = get_i64(input)?;
    let received = sent.wrapping_add(transit_ns);
    let received = if flags & RECEIVED_DIFFERS != 0 {
        received.wrapping_add(get_i64(input)?)
    } else {
        received
    };
    let sample = Sample {
        epoch: forecast.epoch,
        sequence,
        due: Reference(due),
        sent: Reference(sent),
        received: Reference(received),
        transit_ns,
        delay: match flags >> DELAY_SHIFT {
            0 => ConsumerDelay::None,
            1 => ConsumerDelay::Late,
            2 => ConsumerDelay::Extreme,
            _ => return None,
        },
        warmup: flags & WARMUP != 0,
    };
    forecast.learn(&sample);
    Some(sample)
}

impl ReceiptHead {
    /// The head as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.daemon.0.to_le_bytes());
        out.extend_from_slice(&self.domain.0.to_le_bytes());
        out.push(u8::from(self.era_changed) | u8::from(self.ack_limited) << 1);
        put_u64(&mut out, self.bound_ns);
        put_u64(&mut out, self.absences.len() as u64);
        let mut after = 0;
        for (from, to) in &self.absences {
            put_i64(&mut out, from.0.wrapping_sub(after));
            put_i64(&mut out, to.0.wrapping_sub(from.0));
            after = to.0;
        }
        out
    }

    /// Reads what [`ReceiptHead::encode`] wrote; any bytes are safe.
    pub fn decode(bytes: &[u8]) -> Result<ReceiptHead, BadEntry> {
        let damaged = BadEntry("receipt head");
        let mut input = versioned(bytes).ok_or(damaged)?;
        let head = get_receipt_head(&mut input).ok_or(damaged)?;
        if input.is_empty() { Ok(head) } else { Err(damaged) }
    }
}

fn get_receipt_head(input: &mut &[u8]) -> Option<ReceiptHead> {
    let daemon = DaemonId(u64::from_le_bytes(get_fixed(input)?));
    let domain = Domain(u32::from_le_bytes(get_fixed(input)?));
    let flags = get_byte(input)?;
    let bound_ns = get_u64(input)?;
    let mut after = 0_i64;
    let absences = get_list(input, |input| {
        let from = after.wrapping_add(get_i64(input)?);
        after = from.wrapping_add(get_i64(input)?);
        Some((Reference(from), Reference(after)))
    })?;
    Some(ReceiptHead {
        daemon,
        domain,
        bound_ns,
        era_changed: flags & 1 != 0,
        ack_limited: flags & 2 != 0,
        absences,
    })
}
