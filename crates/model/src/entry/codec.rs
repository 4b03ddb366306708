//! The bytes of heads and parts: varints, deltas against what the last message of the same epoch foretells.
//!
//! A sample costs a flags byte, the publish delay, the transit, and whatever else differs from the forecast: about 8
//! to 11 bytes. Decoders never trust a length they have not got the bytes for.

use crate::{
    entry::{BadEntry, ConsumerDelay, Missing, MissingKind, ReceiptHead, ReceiptPart, Sample, SendHead, SendPart},
    histogram::Histogram,
    id::{DaemonId, Domain, Epoch},
    range::SeqRange,
    time::{Reference, Second},
    varint::{get_i64, get_u64, put_i64, put_u64},
};

/// First byte of everything encoded here.
const VERSION: u8 = 1;

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

/// Without its epoch.
pub(crate) fn put_missing(out: &mut Vec<u8>, missing: &Missing, base: i64) {
    out.push(match missing.kind {
        MissingKind::Unrecorded => 0,
        MissingKind::Unheard => 1,
        MissingKind::Lost => 2,
    });
    put_range(out, missing.range, 0);
    put_i64(out, missing.due.0.0.wrapping_sub(base));
    put_i64(out, missing.due.1.0.wrapping_sub(missing.due.0.0));
}

pub(crate) fn get_missing(input: &mut &[u8], epoch: Epoch, base: i64) -> Option<Missing> {
    let kind = match get_byte(input)? {
        0 => MissingKind::Unrecorded,
        1 => MissingKind::Unheard,
        2 => MissingKind::Lost,
        _ => return None,
    };
    let range = get_range(input, 0)?;
    let first = base.wrapping_add(get_i64(input)?);
    let last = first.wrapping_add(get_i64(input)?);
    Some(Missing {
        epoch,
        kind,
        range,
        due: (Reference(first), Reference(last)),
    })
}

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

pub(crate) fn put_range(out: &mut Vec<u8>, range: SeqRange, after: u64) {
    put_i64(out, range.first.wrapping_sub(after) as i64);
    put_u64(out, range.last.wrapping_sub(range.first));
}

/// `None` also for a range whose count would not fit.
pub(crate) fn get_range(input: &mut &[u8], after: u64) -> Option<SeqRange> {
    let first = after.wrapping_add(get_i64(input)? as u64);
    let last = first.checked_add(get_u64(input)?)?;
    (last - first < u64::MAX).then_some(SeqRange { first, last })
}

/// A length and as many items; each takes at least a byte, so that a forged length costs nothing.
pub(crate) fn get_list<T>(input: &mut &[u8], mut item: impl FnMut(&mut &[u8]) -> Option<T>) -> Option<Vec<T>> {
    let length = usize::try_from(get_u64(input)?).ok()?;
    if length > input.len() {
        return None;
    }
    let mut list = Vec::with_capacity(length.min(4096));
    for _ in 0..length {
        list.push(item(input)?);
    }
    Some(list)
}

pub(crate) fn get_byte(input: &mut &[u8]) -> Option<u8> {
    let (&byte, rest) = input.split_first()?;
    *input = rest;
    Some(byte)
}

pub(crate) fn get_fixed<const N: usize>(input: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, rest) = input.split_first_chunk::<N>()?;
    *input = rest;
    Some(*bytes)
}

fn versioned(bytes: &[u8]) -> Option<&[u8]> {
    let (&version, rest) = bytes.split_first()?;
    (version == VERSION).then_some(rest)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn sample() -> impl Strategy<Value = Sample> {
        (
            0..4_u64,
            any::<u64>(),
            any::<i64>(),
            any::<i64>(),
            any::<i64>(),
            any::<i64>(),
            0..3_u8,
            any::<bool>(),
        )
            .prop_map(
                |(epoch, sequence, due, sent, received, transit_ns, delay, warmup)| Sample {
                    epoch: Epoch(epoch << 60),
                    sequence,
                    due: Reference(due),
                    sent: Reference(sent),
                    received: Reference(received),
                    transit_ns,
                    delay: [ConsumerDelay::None, ConsumerDelay::Late, ConsumerDelay::Extreme][usize::from(delay)],
                    warmup,
                },
            )
    }

    fn missing() -> impl Strategy<Value = Missing> {
        (
            0..9_u64,
            0..3_u8,
            any::<u32>(),
            any::<u32>(),
            any::<i64>(),
            any::<i64>(),
        )
            .prop_map(|(epoch, kind, first, more, from, to)| Missing {
                epoch: Epoch(epoch << 60),
                kind: [MissingKind::Unrecorded, MissingKind::Unheard, MissingKind::Lost][usize::from(kind)],
                range: SeqRange {
                    first: first.into(),
                    last: u64::from(first) + u64::from(more),
                },
                due: (Reference(from), Reference(to)),
            })
    }

    proptest! {
        /// A receipt part survives its encoding.
        #[test]
        fn receipt_round_trip(
            samples in vec(sample(), 0..40), missing in vec(missing(), 0..5), found in vec(missing(), 0..5),
            counts: [u64; 5], dropped in vec((any::<i64>(), any::<u64>()), 0..4),
        ) {
            let [duplicates, retained, unstamped, foreign, reordered] = counts;
            let dropped = dropped.into_iter().map(|(second, count)| (Second(second), count)).collect();
            let part = ReceiptPart { samples, duplicates, retained, unstamped, foreign, reordered, dropped, missing, found };
            prop_assert_eq!(ReceiptPart::decode(&part.encode()), Ok(part));
        }

        /// A send part and both heads survive their encoding.
        #[test]
        fn send_round_trip(
            epoch: u64, counts: [u64; 4], first: Option<u64>, warmup: bool, late in vec(any::<i32>(), 0..20),
            ranges in vec((any::<u32>(), any::<u32>()), 0..5), bound_ns: u64, flags: [bool; 2], absences in vec(any::<(i64, i64)>(), 0..4),
        ) {
            let ranges: Vec<SeqRange> =
                ranges.into_iter().map(|(a, b)| SeqRange { first: a.into(), last: u64::from(a) + u64::from(b) }).collect();
            let mut histogram = Histogram::default();
            late.iter().for_each(|&late| histogram.record(late.into()));
            let part = SendPart {
                epoch: Epoch(epoch), scheduled: counts[0], sent: counts[1], unsent: counts[2], first_sequence: first,
                acked: counts[3], refused: ranges.clone(), unconfirmed: ranges, warmup,
                late: histogram.clone(), ack: Histogram::default(), complete: histogram,
            };
            prop_assert_eq!(SendPart::decode(&part.encode()), Ok(part));
            let head = SendHead { daemon: DaemonId(epoch), domain: Domain(7), messages: counts[0], late: counts[1], extreme: counts[2], bound_ns, era_changed: flags[0] };
            prop_assert_eq!(SendHead::decode(&head.encode()), Ok(head));
            let head = ReceiptHead {
                daemon: DaemonId(epoch), domain: Domain(7), bound_ns, era_changed: flags[0], ack_limited: flags[1],
                absences: absences.into_iter().map(|(from, to)| (Reference(from), Reference(to))).collect(),
            };
            prop_assert_eq!(ReceiptHead::decode(&head.encode()), Ok(head));
        }

        /// No bytes make a decoder panic, however they begin.
        #[test]
        fn any_bytes(mut bytes: Vec<u8>) {
            for _ in 0..2 {
                let _ = ReceiptPart::decode(&bytes);
                let _ = SendPart::decode(&bytes);
                let _ = ReceiptHead::decode(&bytes);
                let _ = SendHead::decode(&bytes);
                bytes.insert(0, VERSION);
            }
        }

        /// Nor does a valid part with a byte changed or its end cut off.
        #[test]
        fn damaged_bytes(samples in vec(sample(), 0..10), missing in vec(missing(), 0..3), at: prop::sample::Index, byte: u8, cut: bool) {
            let mut bytes = ReceiptPart { samples, missing, ..ReceiptPart::default() }.encode();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if cut {
                bytes.truncate(at);
            }
            let _ = ReceiptPart::decode(&bytes);
        }
    }

    /// An ordinary second of a device costs no more than was promised.
    #[test]
    fn samples_are_small() {
        let samples = (0..1000_i64).map(|n| {
            let due = 1_800_000_000_000_000_000 + n * 1_000_000;
            let sent = due + 90_000 + n * 37 % 20_000;
            let transit_ns = 600_000 + n * 7919 % 900_000;
            Sample {
                epoch: Epoch(0xfeed_beef_dead_cafe),
                sequence: 123_456 + n as u64,
                due: Reference(due),
                sent: Reference(sent),
                received: Reference(sent + transit_ns + n % 50),
                transit_ns,
                delay: ConsumerDelay::None,
                warmup: false,
            }
        });
        let bytes = ReceiptPart {
            samples: samples.collect(),
            ..ReceiptPart::default()
        }
        .encode()
        .len();
        assert!(bytes < 9_000, "{bytes} bytes for 1000 samples");
    }
}
