//! How long payloads are.

use std::{fmt, str::FromStr};

use crate::{quantity, random::Random};

/// The size of payloads in bytes (ISOCHRONE_PAYLOAD_SIZE).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SizeSpec {
    /// Each as long.
    Fixed(u64),
    /// Drawn from a normal distribution of this mean and deviation; never longer than [`SizeSpec::LONGEST`].
    Gauss(u64, u64),
    /// Drawn from this range, both ends included.
    Uniform(u64, u64),
}

impl SizeSpec {
    /// What a packet of MQTT can carry at most.
    pub const LONGEST: u64 = 268_435_455;

    /// The size that must at least hold all but the padding: what is drawn below it is raised.
    pub fn least(self) -> u64 {
        match self {
            SizeSpec::Fixed(size) | SizeSpec::Gauss(size, _) | SizeSpec::Uniform(size, _) => size,
        }
    }

    /// Draws one; `random` is called only where chance has a part in it.
    pub(super) fn draw(self, random: impl FnOnce() -> Random) -> u64 {
        match self {
            SizeSpec::Fixed(size) => size,
            SizeSpec::Gauss(mean, deviation) => {
                let size = mean as f64 + random().normal() * deviation as f64;
                (size.round().max(0.0) as u64).min(SizeSpec::LONGEST)
            }
            SizeSpec::Uniform(low, high) => low + random().below(high.saturating_sub(low) + 1),
        }
    }
}

/// `100`, `64KiB`, `gauss(100,5)`, `uniform(64,1024)`.
impl FromStr for SizeSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<SizeSpec, String> {
        let text = text.trim();
        let invalid = || format!("{text:?} is not a size such as 100, 64KiB, gauss(100,5) or uniform(64,1024)");
        let bounded = |text: &str| match quantity::size(text) {
            Ok(size) if size > SizeSpec::LONGEST => Err(format!("{text:?} is more than a message can hold (256MiB)")),
            Ok(size) => Ok(size),
            Err(_) => Err(invalid()),
        };
        let Some((name, arguments)) = text.strip_suffix(')').and_then(|text| text.split_once('(')) else {
            return bounded(text).map(SizeSpec::Fixed);
        };
        let (first, second) = arguments.split_once(',').ok_or_else(invalid)?;
        let (first, second) = (bounded(first)?, bounded(second)?);
        match name.trim() {
            "gauss" => Ok(SizeSpec::Gauss(first, second)),
            "uniform" if first <= second => Ok(SizeSpec::Uniform(first, second)),
            _ => Err(invalid()),
        }
    }
}

/// What [`FromStr`] reads back as the same.
impl fmt::Display for SizeSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = quantity::display_size;
        match *self {
            SizeSpec::Fixed(size) => f.write_str(&show(size)),
            SizeSpec::Gauss(mean, deviation) => write!(f, "gauss({},{})", show(mean), show(deviation)),
            SizeSpec::Uniform(low, high) => write!(f, "uniform({},{})", show(low), show(high)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings() {
        let sizes = [
            ("64KiB", SizeSpec::Fixed(65_536)),
            ("100", SizeSpec::Fixed(100)),
            ("gauss(100,5)", SizeSpec::Gauss(100, 5)),
            ("uniform( 64 , 1KiB )", SizeSpec::Uniform(64, 1_024)),
        ];
        for (text, size) in sizes {
            assert_eq!(text.parse(), Ok(size), "{text}");
            assert_eq!(size.to_string().parse(), Ok(size), "{text}");
        }
        for text in [
            "",
            "gauss",
            "gauss(100)",
            "gauss(a,5)",
            "uniform(9,8)",
            "pareto(1,2)",
            "1GiB",
            "-1",
        ] {
            assert!(text.parse::<SizeSpec>().is_err(), "{text}");
        }
    }
}
