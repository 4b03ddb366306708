//! Which bucket a value falls into.

/// Magnitudes below this have a bucket each; above, each doubling has half as many, so a bucket is at most 1/1024 of its value wide.
const LINEAR: u64 = 2048;
const HALF: i32 = 1024;

/// Keys lie in `-MAX_KEY..=MAX_KEY`.
pub const MAX_KEY: i32 = 55_296;

/// The bucket of `value`: keys are in the order of values, negative for negative ones, zero for zero.
pub fn key(value: i64) -> i32 {
    let magnitude = value.unsigned_abs();
    let key = if magnitude < LINEAR {
        magnitude as i32
    } else {
        let exponent = 53 - magnitude.leading_zeros() as i32;
        exponent * HALF + (magnitude >> exponent) as i32
    };
    if value < 0 { -key } else { key }
}

/// The least and the greatest value in the bucket of `value`, both included.
pub fn bounds(value: i64) -> (i64, i64) {
    let key = key(value);
    let exponent = exponent(key);
    let near = near_zero(key);
    let far = near + ((1_i128 << exponent) - 1);
    let clamp = |value: i128| value.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64;
    if key < 0 {
        (clamp(-far), clamp(-near))
    } else {
        (clamp(near), clamp(far))
    }
}

/// The value that stands for all of a bucket: its middle.
pub fn middle(key: i32) -> i64 {
    let middle = near_zero(key) + ((1_i128 << exponent(key)) - 1) / 2;
    let signed = if key < 0 { -middle } else { middle };
    signed.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

fn exponent(key: i32) -> i32 {
    (key.abs() / HALF - 1).max(0)
}

/// The magnitude in the bucket that is closest to zero.
fn near_zero(key: i32) -> i128 {
    let exponent = exponent(key);
    i128::from(key.abs() - exponent * HALF) << exponent
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A value lies in its bucket, the bucket is narrow, and its neighbours begin where it ends.
        #[test]
        fn buckets_tile_the_line(value in any::<i64>(), shift in 0..63_u32) {
            let value = value >> shift;
            let (low, high) = bounds(value);
            prop_assert!(low <= value && value <= high);
            prop_assert!((i128::from(high) - i128::from(low)) * 1024 <= i128::from(value.unsigned_abs()));
            prop_assert_eq!(key(low), key(value));
            prop_assert_eq!(key(high), key(value));
            prop_assert_eq!(key(middle(key(value))), key(value));
            if let Some(above) = high.checked_add(1) {
                prop_assert_eq!(key(above), key(value) + 1);
            }
            if let Some(below) = low.checked_sub(1) {
                prop_assert_eq!(key(below), key(value) - 1);
            }
        }
    }

    #[test]
    fn ends_of_the_line() {
        assert_eq!(key(i64::MIN), -MAX_KEY);
        assert_eq!(key(i64::MAX), MAX_KEY - 1);
        assert_eq!(key(0), 0);
        assert_eq!(middle(-MAX_KEY), i64::MIN);
    }
}
