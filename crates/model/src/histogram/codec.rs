//! Histograms as bytes.
//!
//! A kind, then for raw values: their number, the first, and the distance of each to the one before. For buckets: count, extremes, sums, the number of
//! buckets, and for each its distance to the one before and its count.

use super::{
    buckets::{Buckets, MAX_COUNT},
    layout,
    moments::Moments,
    sparse::{RAW, Values},
};
use crate::varint::{get_i64, get_i128, get_u64, get_u128, put_i64, put_i128, put_u64, put_u128};

const KIND_RAW: u8 = 1;
const KIND_BUCKETS: u8 = 2;

pub fn put_raw(out: &mut Vec<u8>, raw: &[i64]) {
    out.push(KIND_RAW);
    put_u64(out, raw.len() as u64);
    let Some(&first) = raw.first() else { return };
    put_i64(out, first);
    for pair in raw.windows(2) {
        put_u64(out, pair[1].wrapping_sub(pair[0]) as u64);
    }
}

pub fn put_buckets(out: &mut Vec<u8>, moments: &Moments, buckets: impl Iterator<Item = (i32, u64)> + Clone) {
    out.push(KIND_BUCKETS);
    put_u64(out, moments.count);
    put_i64(out, moments.min);
    put_u64(out, moments.max.wrapping_sub(moments.min) as u64);
    put_i128(out, moments.sum);
    put_u128(out, moments.squares);
    put_u64(out, buckets.clone().count() as u64);
    let mut last = -layout::MAX_KEY;
    for (key, count) in buckets {
        put_u64(out, (key - last) as u64);
        put_u64(out, count);
        last = key;
    }
}

/// Takes either kind; checks that what it says of itself agrees.
pub fn take(input: &mut &[u8]) -> Option<(Moments, Values)> {
    let (&kind, rest) = input.split_first()?;
    *input = rest;
    match kind {
        KIND_RAW => take_raw(input),
        KIND_BUCKETS => take_buckets(input),
        _ => None,
    }
}

fn take_raw(input: &mut &[u8]) -> Option<(Moments, Values)> {
    let length = get_u64(input)?;
    if length > RAW {
        return None;
    }
    let mut moments = Moments::default();
    let mut raw = Vec::with_capacity(length as usize);
    for _ in 0..length {
        let value = match raw.last() {
            None => get_i64(input)?,
            Some(&last) => i64::checked_add_unsigned(last, get_u64(input)?)?,
        };
        raw.push(value);
        moments.record(value, 1);
    }
    Some((moments, Values::Raw(raw)))
}

fn take_buckets(input: &mut &[u8]) -> Option<(Moments, Values)> {
    let count = get_u64(input)?;
    let min = get_i64(input)?;
    let max = min.checked_add_unsigned(get_u64(input)?)?;
    let mut moments = Moments {
        count,
        min,
        max,
        sum: get_i128(input)?,
        squares: get_u128(input)?,
        negative: 0,
    };
    let length = usize::try_from(get_u64(input)?).ok()?;
    // A bucket takes two bytes at least: no announced length reserves more than the input could hold.
    let mut buckets = Buckets::with_capacity(length.min(input.len() / 2));
    let mut first = None;
    let (mut seen, mut last) = (0_u64, -layout::MAX_KEY);
    for _ in 0..length {
        let distance = get_u64(input)?;
        let key = i32::try_from(i64::from(last).checked_add_unsigned(distance)?).ok()?;
        let count = get_u64(input)?;
        let repeats = distance == 0 && first.is_some();
        if key > layout::MAX_KEY || !(1..=MAX_COUNT).contains(&count) || repeats {
            return None;
        }
        seen = seen.checked_add(count)?;
        if key < 0 {
            moments.negative += count;
        }
        buckets.push(key, count);
        first = first.or(Some(key));
        last = key;
    }
    let ends_agree = match first {
        None => moments == Moments::default(),
        Some(first) => first == layout::key(min) && last == layout::key(max),
    };
    (seen == count && ends_agree).then_some((moments, Values::Buckets(buckets)))
}
