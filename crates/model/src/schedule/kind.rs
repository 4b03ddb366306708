//! How due times are spread.

use std::{fmt, str::FromStr, time::Duration};

use crate::{quantity, rate::Rate};

/// The pattern of a schedule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ScheduleKind {
    /// Evenly spaced.
    Constant,
    /// Evenly spaced, each interval longer or shorter by up to this share of it, 0.0 to 1.0.
    Jitter(f64),
    /// Independent of each other: exponential intervals.
    Poisson,
    /// So many at once, each such time. Takes the place of the rate.
    Burst(u32, Duration),
}

/// `constant`, `jitter(20%)`, `poisson`, `burst(10,1s)`.
impl FromStr for ScheduleKind {
    type Err = String;

    fn from_str(text: &str) -> Result<ScheduleKind, String> {
        let text = text.trim();
        let invalid = |why: &str| format!("{text:?} is not one of constant, jitter(20%), poisson, burst(10,1s){why}");
        match text {
            "constant" => return Ok(ScheduleKind::Constant),
            "poisson" => return Ok(ScheduleKind::Poisson),
            _ => {}
        }
        let call = text.strip_suffix(')').and_then(|text| text.split_once('('));
        match call.map(|(name, arguments)| (name.trim(), arguments)) {
            Some(("jitter", share)) => match quantity::share(share) {
                Ok(share) if share <= 1.0 => Ok(ScheduleKind::Jitter(share)),
                _ => Err(invalid(": jitter takes 0% to 100%")),
            },
            Some(("burst", arguments)) => burst(arguments).ok_or_else(|| invalid(": burst takes a number and a time")),
            _ => Err(invalid("")),
        }
    }
}

fn burst(arguments: &str) -> Option<ScheduleKind> {
    let (size, interval) = arguments.split_once(',')?;
    let size = size.trim().parse::<u32>().ok().filter(|size| *size > 0)?;
    let interval = quantity::duration(interval)
        .ok()
        .filter(|interval| !interval.is_zero())?;
    let rate = f64::from(size) / interval.as_secs_f64();
    (Rate::SLOWEST..=Rate::FASTEST)
        .contains(&rate)
        .then_some(ScheduleKind::Burst(size, interval))
}

/// What [`FromStr`] reads back as the same.
impl fmt::Display for ScheduleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ScheduleKind::Constant => f.write_str("constant"),
            ScheduleKind::Jitter(share) => {
                // Percent when that is exact: 0.07 is 7%, not 7.000000000000001%.
                let percent = (share * 1e14).round() / 1e12;
                if percent / 100.0 == *share {
                    write!(f, "jitter({percent}%)")
                } else {
                    write!(f, "jitter({share})")
                }
            }
            ScheduleKind::Poisson => f.write_str("poisson"),
            ScheduleKind::Burst(size, interval) => write!(f, "burst({size},{})", quantity::display_duration(*interval)),
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
        fn round_trip(share in 0.0..=1.0_f64, size in 1..1000_u32, ns in 1_000..=1_000_000_000_000_000_000_u64) {
            for kind in [ScheduleKind::Jitter(share), ScheduleKind::Burst(size, Duration::from_nanos(ns))] {
                prop_assert_eq!(kind.to_string().parse(), Ok(kind));
            }
        }
    }

    #[test]
    fn spellings() {
        assert_eq!("constant".parse(), Ok(ScheduleKind::Constant));
        assert_eq!("jitter( 20% )".parse(), Ok(ScheduleKind::Jitter(0.2)));
        assert_eq!("jitter(7%)".parse::<ScheduleKind>().unwrap().to_string(), "jitter(7%)");
        assert_eq!(
            "burst(10, 1s)".parse(),
            Ok(ScheduleKind::Burst(10, Duration::from_secs(1)))
        );
        for text in [
            "",
            "jitter",
            "jitter()",
            "jitter(120%)",
            "burst(0,1s)",
            "burst(10)",
            "burst(10,0s)",
            "Constant",
            "poisson()",
        ] {
            assert!(
                text.parse::<ScheduleKind>().unwrap_err().contains("jitter(20%)"),
                "{text}"
            );
        }
    }
}
