//! Durations, sizes and shares as people write and read them.

use std::time::Duration;

/// Factors of size suffixes, longest spelling first where one ends in another.
const UNITS: [(&str, u64); 8] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

/// The longest duration that is taken: two of them in nanoseconds are still an `i64`, and MQTT's longest session expiry is one.
pub const LONGEST: Duration = Duration::from_secs(u32::MAX as u64);

/// A text that is not a duration to work with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadDuration {
    /// It says none.
    #[error("{0:?} is not a duration such as 250ms, 30s or 5m")]
    Text(String),
    /// It says more than [`LONGEST`].
    #[error("{0:?} is longer than 136 years")]
    TooLong(String),
}

/// Parses `250ms`, `30s`, `5m`, `1h 30m`, `0`; the error says what would be valid.
pub fn duration(text: &str) -> Result<Duration, BadDuration> {
    let text = text.trim();
    match humantime::parse_duration(text) {
        Ok(duration) if duration > LONGEST => Err(BadDuration::TooLong(text.to_owned())),
        Ok(duration) => Ok(duration),
        Err(_) => Err(BadDuration::Text(text.to_owned())),
    }
}

/// Parses bytes: `4096`, `64KiB`, `512MiB`, `1kB`; the error says what would be valid.
pub fn size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let unit = UNITS
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)));
    let (number, factor) = unit.unwrap_or((text, 1));
    let number = number.trim_end();
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let bytes = if digits { number.parse::<u64>().ok() } else { None };
    bytes
        .and_then(|bytes| bytes.checked_mul(factor))
        .ok_or_else(|| format!("{text:?} is not a size such as 100, 64KiB or 512MiB"))
}

/// Parses `20%` or `0.2` as 0.2, not below 0; the error says what would be valid.
pub fn share(text: &str) -> Result<f64, String> {
    let text = text.trim();
    let value = match text.strip_suffix('%') {
        Some(percent) => percent.trim_end().parse::<f64>().map(|percent| percent / 100.0),
        None => text.parse::<f64>(),
    };
    match value {
        Ok(value) if value >= 0.0 && value.is_finite() => Ok(value),
        _ => Err(format!("{text:?} is not a share such as 20% or 0.01%")),
    }
}

/// `1h 30m`, `250ms`, `0s`: what [`duration`] reads back as the same.
pub fn display_duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// `64KiB`, `100`: what [`size`] reads back as the same.
pub fn display_size(bytes: u64) -> String {
    let exact = |factor: u64| bytes >= factor && bytes.is_multiple_of(factor);
    match bytes {
        _ if exact(1 << 30) => format!("{}GiB", bytes >> 30),
        _ if exact(1 << 20) => format!("{}MiB", bytes >> 20),
        _ if exact(1 << 10) => format!("{}KiB", bytes >> 10),
        _ => bytes.to_string(),
    }
}

/// A time of three significant digits in the unit that suits it: `812 ns`, `83.1 us`, `1.24 ms`, `12.0 s`, `-3.00 us`.
pub fn display_ns(ns: i64) -> String {
    const NAMES: [&str; 4] = ["ns", "us", "ms", "s"];
    let sign = if ns < 0 { "-" } else { "" };
    let (mut value, mut unit) = (ns.unsigned_abs() as f64, 0);
    // 999.5 would be printed as 1000.
    while value >= 999.5 && unit + 1 < NAMES.len() {
        value /= 1_000.0;
        unit += 1;
    }
    let decimals = match value {
        _ if unit == 0 => 0,
        value if value < 9.995 => 2,
        value if value < 99.95 => 1,
        _ => 0,
    };
    format!("{sign}{value:.decimals$} {}", NAMES[unit])
}

/// A share as percent, with the digits it takes to see it: `0 %`, `0.0012 %`, `12.5 %`.
pub fn display_share(share: f64) -> String {
    let percent = share * 100.0;
    let magnitude = if percent == 0.0 {
        0.0
    } else {
        percent.abs().log10().floor()
    };
    let decimals = (2.0 - magnitude).clamp(0.0, 9.0) as usize;
    let digits = format!("{percent:.decimals$}");
    let digits = if digits.contains('.') {
        digits.trim_end_matches('0').trim_end_matches('.')
    } else {
        &digits
    };
    format!("{digits} %")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// What is shown is read back as the same.
        #[test]
        fn round_trip(bytes in 0..u64::MAX / 2, shift in 0..62_u32, ns in 0..=LONGEST.as_nanos() as u64) {
            let bytes = bytes >> shift;
            prop_assert_eq!(size(&display_size(bytes)), Ok(bytes));
            let time = Duration::from_nanos(ns >> shift);
            prop_assert_eq!(duration(&display_duration(time)), Ok(time));
        }

        /// Nothing panics, nothing unreadable is taken.
        #[test]
        fn any_text(text: String) {
            let _ = (duration(&text), size(&text), share(&text));
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("100", 100),
            ("100B", 100),
            ("64KiB", 65_536),
            ("512 MiB", 536_870_912),
            ("1kB", 1_000),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "KiB", "-1", "+1", "1.5KiB", "64kib", "99999999999GiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times() {
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration(" 250ms "), Ok(Duration::from_millis(250)));
        assert!(duration("30").unwrap_err().to_string().contains("250ms, 30s or 5m"));
        assert_eq!(duration("4294967295s"), Ok(LONGEST));
        for long in ["4294967296s", "300y", "99999999999y"] {
            assert!(duration(long).is_err(), "{long}");
        }
        assert_eq!(duration("300y"), Err(BadDuration::TooLong("300y".to_owned())));
        let shown = [
            (0, "0 ns"),
            (812, "812 ns"),
            (999, "999 ns"),
            (1_000, "1.00 us"),
            (83_140, "83.1 us"),
            (999_600, "1.00 ms"),
        ];
        for (ns, text) in shown.into_iter().chain([
            (-3_000, "-3.00 us"),
            (12_000_000_000, "12.0 s"),
            (i64::MAX, "9223372037 s"),
        ]) {
            assert_eq!(display_ns(ns), text);
        }
    }

    #[test]
    fn shares() {
        assert_eq!(share("20%"), Ok(0.2));
        assert_eq!(share("0.25"), Ok(0.25));
        assert!(share("-1%").is_err() && share("%").is_err() && share("NaN").is_err());
        for (value, text) in [
            (0.0, "0 %"),
            (0.000_012, "0.0012 %"),
            (0.125, "12.5 %"),
            (1.0, "100 %"),
            (0.01, "1 %"),
        ] {
            assert_eq!(display_share(value), text);
        }
    }
}
