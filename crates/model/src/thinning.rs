//! Which samples a store of raw samples keeps: a pure function of the message, so that every replay picks the same.

use std::{fmt, num::NonZeroU64, str::FromStr};

use crate::{id::Epoch, random::Random};

/// How many raw samples are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thinning {
    /// Every one.
    All,
    /// One in so many, picked by hash of (epoch, sequence).
    OneIn(NonZeroU64),
    /// None.
    Off,
}

/// A text that is no thinning.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not all, off or a share such as 1/10")]
pub struct BadThinning(pub String);

impl Thinning {
    /// Whether the message's sample is written.
    pub fn keeps(self, epoch: Epoch, sequence: u64) -> bool {
        match self {
            Thinning::All => true,
            Thinning::OneIn(n) => mix(epoch.0 ^ mix(sequence)).is_multiple_of(n.get()),
            Thinning::Off => false,
        }
    }
}

fn mix(value: u64) -> u64 {
    Random::new(value).bits()
}

impl FromStr for Thinning {
    type Err = BadThinning;
    fn from_str(text: &str) -> Result<Thinning, BadThinning> {
        match text {
            "all" => Ok(Thinning::All),
            "off" => Ok(Thinning::Off),
            share => match share.strip_prefix("1/").map(str::parse) {
                Some(Ok(n)) => Ok(Thinning::OneIn(n)),
                _ => Err(BadThinning(text.to_owned())),
            },
        }
    }
}

impl fmt::Display for Thinning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Thinning::All => f.write_str("all"),
            Thinning::OneIn(n) => write!(f, "1/{n}"),
            Thinning::Off => f.write_str("off"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One in ten is a tenth, of consecutive sequences and of consecutive epochs, and always the same ones.
    #[test]
    fn a_tenth_is_kept() {
        let tenth: Thinning = "1/10".parse().unwrap();
        let kept = |keeps: &dyn Fn(u64) -> bool| (0..100_000).filter(|n| keeps(*n)).count();
        for count in [kept(&|n| tenth.keeps(Epoch(7), n)), kept(&|n| tenth.keeps(Epoch(n), 7))] {
            assert!((9_500..10_500).contains(&count), "{count}");
        }
        let kept: Vec<u64> = (0..100).filter(|n| tenth.keeps(Epoch(1), *n)).collect();
        assert_eq!(kept, [0, 10, 17, 20, 24, 27, 44, 46, 70, 77, 83, 86, 91, 94]);
    }

    /// The setting's words, and nothing else.
    #[test]
    fn texts() {
        for text in ["all", "off", "1/10", "1/1"] {
            assert_eq!(text.parse::<Thinning>().unwrap().to_string(), text);
        }
        for text in ["", "1/0", "2/3", "10%", "1/-1", "All"] {
            assert!(text.parse::<Thinning>().is_err(), "{text}");
        }
    }
}
