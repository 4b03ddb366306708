//! How many messages a second a device sends.

use std::{fmt, str::FromStr};

use crate::quantity;

/// Messages a second of one device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// As many as the connection takes; due is then the moment of sending.
    Max,
    /// So many a second: above zero, at most [`Rate::FASTEST`].
    PerSecond(f64),
}

impl Rate {
    /// One message each nanosecond: no schedule can tell more apart.
    pub const FASTEST: f64 = 1e9;

    /// Messages a second; `None` for [`Rate::Max`].
    pub fn per_second(self) -> Option<f64> {
        match self {
            Rate::Max => None,
            Rate::PerSecond(rate) => Some(rate),
        }
    }
}

/// `1000`, `0.5`, `1/30s`, `max`.
impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Rate, String> {
        let text = text.trim();
        if text.eq_ignore_ascii_case("max") {
            return Ok(Rate::Max);
        }
        let invalid = || format!("{text:?} is not a rate above 0 such as 1000, 1/30s or max");
        let (count, seconds) = match text.split_once('/') {
            None => (text, 1.0),
            Some((count, time)) => (count, period(time).ok_or_else(invalid)?),
        };
        let rate = count.trim().parse::<f64>().map_err(|_| invalid())? / seconds;
        if !rate.is_finite() || rate <= 0.0 {
            return Err(invalid());
        }
        if rate > Rate::FASTEST {
            return Err(format!(
                "{text:?} is more than one message each nanosecond; max is flat out"
            ));
        }
        Ok(Rate::PerSecond(rate))
    }
}

/// `30s`, `1m`, also `s`, `m`, `h` alone.
fn period(text: &str) -> Option<f64> {
    let text = text.trim();
    let one = format!("1{text}");
    let time = quantity::duration(text).or_else(|_| quantity::duration(&one)).ok()?;
    (!time.is_zero()).then_some(time.as_secs_f64())
}

/// What [`FromStr`] reads back as the same.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rate::Max => f.write_str("max"),
            Rate::PerSecond(rate) => write!(f, "{rate}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// What is shown is read back as the same.
        #[test]
        fn round_trip(rate in 1e-9..1e9_f64) {
            prop_assert_eq!(Rate::PerSecond(rate).to_string().parse(), Ok(Rate::PerSecond(rate)));
        }

        /// Whatever is taken can be scheduled.
        #[test]
        fn any_text(text in "[0-9./smhexinfa-]{0,8}") {
            if let Ok(Rate::PerSecond(rate)) = text.parse() {
                prop_assert!(rate > 0.0 && rate <= Rate::FASTEST);
            }
        }
    }

    #[test]
    fn spellings() {
        let rates = [
            ("1000", 1_000.0),
            ("0.5", 0.5),
            ("1/30s", 1.0 / 30.0),
            ("10/m", 10.0 / 60.0),
            ("100/s", 100.0),
            ("1/250ms", 4.0),
        ];
        for (text, rate) in rates {
            assert_eq!(text.parse(), Ok(Rate::PerSecond(rate)), "{text}");
        }
        assert_eq!("max".parse(), Ok(Rate::Max));
        for text in ["", "0", "-1", "inf", "nan", "1/0s", "1/", "/s", "2e9", "fast"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }
}
