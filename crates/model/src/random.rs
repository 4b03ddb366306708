//! Randomness that is the same on every machine, in every version, for the same seed, in eight bytes of state.
//!
//! SplitMix64: G. Steele, D. Lea, C. Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014. Not for secrets.

/// A stream of random numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Random(u64);

/// A seed of its own for each name under one seed.
pub fn seed_for(seed: u64, name: &str) -> u64 {
    mix(seed, fnv(name.as_bytes()))
}

/// FNV-1a, 64 bit (Fowler, Noll, Vo 1991): the same number for the same bytes everywhere. Its low bits mix poorly.
pub fn fnv(bytes: &[u8]) -> u64 {
    let add = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, add)
}

/// A seed of its own for each number under one seed.
pub fn mix(seed: u64, number: u64) -> u64 {
    scramble(scramble(seed.wrapping_add(GAMMA)) ^ number)
}

/// What SplitMix64 counts in: odd, with its bits well spread.
pub const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finaliser of SplitMix64: every bit of the input changes half of the output, and no two inputs have the same.
pub fn scramble(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

impl Random {
    /// The stream of `seed`.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GAMMA);
        scramble(self.0)
    }

    /// Uniform in `0.0..1.0`, of 53 bits.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Uniform in `0..bound` (0 for a bound of 0), by multiplication; uneven by less than `bound` in 2^64.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }

    /// Uniform in `low..=high`; `low` when `high` is not above it.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        let span = i128::from(high.max(low)) - i128::from(low) + 1;
        match u64::try_from(span) {
            Ok(span) => low.wrapping_add_unsigned(self.below(span)),
            Err(_) => self.bits() as i64,
        }
    }

    /// Exponential of mean 1.
    pub fn exponential(&mut self) -> f64 {
        -(1.0 - self.unit()).ln()
    }

    /// Normal of mean 0 and deviation 1 (Box and Muller 1958).
    pub fn normal(&mut self) -> f64 {
        (2.0 * self.exponential()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The published first outputs for seed 1234567: payloads and schedules stay the same for ever.
    #[test]
    fn reference_values() {
        let mut random = Random::new(1_234_567);
        assert_eq!(random.bits(), 6_457_827_717_110_365_317);
        assert_eq!(random.bits(), 3_203_168_211_198_807_973);
    }

    /// The published values of FNV-1a: partitions and client ids stay the same for ever.
    #[test]
    fn fnv_values() {
        assert_eq!(fnv(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn distributions() {
        let mut random = Random::new(1);
        let n = 100_000;
        let mean = |draw: &mut dyn FnMut() -> f64| (0..n).map(|_| draw()).sum::<f64>() / f64::from(n);
        assert!((mean(&mut || random.exponential()) - 1.0).abs() < 0.02);
        assert!(mean(&mut || random.normal()).abs() < 0.02);
        assert!((mean(&mut || random.normal().powi(2)) - 1.0).abs() < 0.03);
        assert!((mean(&mut || random.between(-3, 3) as f64)).abs() < 0.05);
        assert!((0..1_000).all(|_| (-3..=3).contains(&random.between(-3, 3))));
        assert_eq!(random.between(5, 5), 5);
        let _ = random.between(i64::MIN, i64::MAX);
    }
}
