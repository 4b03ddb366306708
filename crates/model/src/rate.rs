//! How many messages a second a device sends.

use std::{fmt, str::FromStr};

use crate::quantity::{self, BadDuration};

/// Messages a second of one device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// As many as the connection takes; due is then the moment of sending.
    Max,
    /// So many a second: from [`Rate::SLOWEST`] to [`Rate::FASTEST`].
    PerSecond(f64),
}

impl Rate {
    /// One message each nanosecond: no schedule can tell more apart.
    pub const FASTEST: f64 = 1e9;
    /// One message in 31 years: the time of each can be told in nanoseconds.
    pub const SLOWEST: f64 = 1e-9;

    /// Messages a second; `None` for [`Rate::Max`].
    pub fn per_second(self) -> Option<f64> {
        match self {
            Rate::Max => None,
            Rate::PerSecond(rate) => Some(rate),
        }
    }
}

/// A text that is not a rate to send at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRate {
    /// It says none.
    #[error("{0:?} is not a rate above 0 such as 1000, 1/30s or max")]
    Text(String),
    /// It says more than [`Rate::FASTEST`].
    #[error("more than one message each nanosecond; max is flat out")]
    TooFast,
    /// It says less than [`Rate::SLOWEST`].
    #[error("less than one message in 31 years")]
    TooSlow,
}

/// `1000`, `0.5`, `1/30s`, `max`.
impl FromStr for Rate {
    type Err = BadRate;

    fn from_str(text: &str) -> Result<Rate, BadRate> {
        let text = text.trim();
        if text.eq_ignore_ascii_case("max") {
            return Ok(Rate::Max);
        }
        let invalid = || BadRate::Text(text.to_owned());
        let (count, seconds) = match text.split_once('/') {
            None => (text, 1.0),
            Some((count, time)) => match period(time) {
                Ok(seconds) if seconds > 0.0 => (count, seconds),
                Err(BadDuration::TooLong(_)) => return Err(BadRate::TooSlow),
                _ => return Err(invalid()),
            },
        };
        let rate = count.trim().parse::<f64>().map_err(|_| invalid())? / seconds;
        if !rate.is_finite() || rate <= 0.0 {
            return Err(invalid());
        }
        match rate {
            rate if rate > Rate::FASTEST => Err(BadRate::TooFast),
            rate if rate < Rate::SLOWEST => Err(BadRate::TooSlow),
            rate => Ok(Rate::PerSecond(rate)),
        }
    }
}

/// `30s`, `1m`, also `s`, `m`, `h` alone.
fn period(text: &str) -> Result<f64, BadDuration> {
    let text = text.trim();
    let time = match quantity::duration(text) {
        Err(BadDuration::Text(_)) => quantity::duration(&format!("1{text}"))?,
        time => time?,
    };
    Ok(time.as_secs_f64())
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
                prop_assert!((Rate::SLOWEST..=Rate::FASTEST).contains(&rate));
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
        for slow in ["1/600y", "1/100y", "0.0000000001"] {
            assert_eq!(slow.parse::<Rate>(), Err(BadRate::TooSlow), "{slow}");
        }
    }
}
