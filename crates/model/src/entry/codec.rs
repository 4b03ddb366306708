//! The bytes of heads and parts: varints, deltas against what the last message of the same epoch foretells.
//!
//! A sample costs a flags byte, the publish delay, the transit, and whatever else differs from the forecast: about 8
//! to 11 bytes. Decoders never trust a length they have not got the bytes for.

mod receipt;
mod send;
#[cfg(test)]
mod tests;

use crate::{
    entry::{Missing, MissingKind},
    id::Epoch,
    range::SeqRange,
    time::Reference,
    varint::{get_i64, get_u64, put_i64, put_u64},
};

/// First byte of everything encoded here.
const VERSION: u8 = 1;

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
