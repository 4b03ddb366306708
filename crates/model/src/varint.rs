//! Numbers of few bytes: LEB128, seven bits a byte, least significant first; signed ones in zigzag order (0, −1, 1, −2, …).

/// Appends `value` in 1 to 10 bytes.
pub fn put_u64(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends `value` in 1 to 10 bytes, few for a small magnitude.
pub fn put_i64(out: &mut Vec<u8>, value: i64) {
    put_u64(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Appends `value` in 1 to 19 bytes.
pub fn put_u128(out: &mut Vec<u8>, mut value: u128) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends `value` in 1 to 19 bytes, few for a small magnitude.
pub fn put_i128(out: &mut Vec<u8>, value: i128) {
    put_u128(out, ((value << 1) ^ (value >> 127)) as u128);
}

/// Appends the length of `bytes` and `bytes`.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u64(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Takes a number from the front of `input`; `None` when it is cut short or does not fit.
pub fn get_u64(input: &mut &[u8]) -> Option<u64> {
    get_u128(input).and_then(|value| u64::try_from(value).ok())
}

/// Takes a signed number from the front of `input`; `None` when it is cut short or does not fit.
pub fn get_i64(input: &mut &[u8]) -> Option<i64> {
    let value = get_u64(input)?;
    Some((value >> 1) as i64 ^ -((value & 1) as i64))
}

/// Takes a number from the front of `input`; `None` when it is cut short or does not fit.
pub fn get_u128(input: &mut &[u8]) -> Option<u128> {
    let mut value = 0;
    for shift in (0..128).step_by(7) {
        let (&byte, rest) = input.split_first()?;
        *input = rest;
        let bits = u128::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            return None;
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// Takes a signed number from the front of `input`; `None` when it is cut short or does not fit.
pub fn get_i128(input: &mut &[u8]) -> Option<i128> {
    let value = get_u128(input)?;
    Some((value >> 1) as i128 ^ -((value & 1) as i128))
}

/// Takes what [`put_bytes`] wrote.
pub fn get_bytes<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(get_u64(input)?).ok()?;
    let (bytes, rest) = input.split_at_checked(length)?;
    *input = rest;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// What was written is read, to the last byte.
        #[test]
        fn round_trip(a: u64, b: i64, c: u128, d: i128, e: Vec<u8>) {
            let mut out = Vec::new();
            put_u64(&mut out, a);
            put_i64(&mut out, b);
            put_u128(&mut out, c);
            put_i128(&mut out, d);
            put_bytes(&mut out, &e);
            let mut input = &out[..];
            prop_assert_eq!(get_u64(&mut input), Some(a));
            prop_assert_eq!(get_i64(&mut input), Some(b));
            prop_assert_eq!(get_u128(&mut input), Some(c));
            prop_assert_eq!(get_i128(&mut input), Some(d));
            prop_assert_eq!(get_bytes(&mut input), Some(&e[..]));
            prop_assert!(input.is_empty());
        }

        /// No input makes a reader panic.
        #[test]
        fn any_bytes(bytes: Vec<u8>) {
            let _ = get_u64(&mut &bytes[..]);
            let _ = get_i128(&mut &bytes[..]);
            let _ = get_bytes(&mut &bytes[..]);
        }
    }

    #[test]
    fn extremes() {
        for value in [0, -1, 1, i64::MIN, i64::MAX] {
            let mut out = Vec::new();
            put_i64(&mut out, value);
            assert_eq!(get_i64(&mut &out[..]), Some(value));
        }
        assert_eq!(get_u64(&mut &[0xff; 10][..]), None, "more than 64 bits");
        assert_eq!(get_u128(&mut &[0xff; 30][..]), None, "more than 128 bits");
    }
}
