//! Objectives as text.

use std::{fmt, str::FromStr};

use super::{Comparison, Limit, Measure, Objective, Subject};
use crate::quantity;

const VALID: &str = "an objective such as p99<50ms, p99.9(transit)<=1s, max<1s, mean(ack)<2ms, loss<0.01% or unsent<1%";
const MEASURES: [(&str, Measure); 5] = [
    ("response", Measure::Response),
    ("transit", Measure::Transit),
    ("publish_delay", Measure::PublishDelay),
    ("late", Measure::Late),
    ("ack", Measure::Ack),
];

/// Parses objectives with commas between them; none in an empty text. The error names the one at fault and what would be valid.
pub fn list(text: &str) -> Result<Vec<Objective>, String> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    text.split(',').map(str::parse).collect()
}

impl FromStr for Objective {
    type Err = String;

    fn from_str(text: &str) -> Result<Objective, String> {
        let text = text.trim();
        let invalid = |why: &str| format!("{text:?} is not {VALID}{why}");
        let (subject, limit) = text.split_once('<').ok_or_else(|| invalid(""))?;
        let subject = parse_subject(subject.trim()).ok_or_else(|| invalid(""))?;
        let (comparison, limit) = match limit.strip_prefix('=') {
            Some(limit) => (Comparison::AtMost, limit),
            None => (Comparison::Below, limit),
        };
        let limit = match subject {
            Subject::Loss | Subject::Unsent => {
                let share = quantity::share(limit).ok();
                let is_percent = limit.trim_end().ends_with('%');
                if share.is_some_and(|share| !is_percent && (1.0..=100.0).contains(&share)) {
                    // `loss<1` would mean any loss; whoever writes it means one per cent.
                    return Err(invalid(&format!(
                        ": without % a share is below 1; did you mean {text}%?"
                    )));
                }
                let share = share.filter(|share| *share <= 1.0);
                Limit::Share(share.ok_or_else(|| invalid(": the limit is a share of 0% to 100%"))?)
            }
            Subject::Percentile(..) | Subject::Max(_) | Subject::Mean(_) => {
                let time = quantity::duration(limit)
                    .ok()
                    .and_then(|time| i64::try_from(time.as_nanos()).ok());
                Limit::Nanoseconds(time.ok_or_else(|| invalid(": the limit is a time"))?)
            }
        };
        Ok(Objective {
            subject,
            comparison,
            limit,
        })
    }
}

fn parse_subject(text: &str) -> Option<Subject> {
    let (name, measure) = match text.split_once('(') {
        None => (text, Measure::Response),
        Some((name, rest)) => {
            let measure = rest.strip_suffix(')')?.trim();
            (name.trim(), MEASURES.iter().find(|(other, _)| *other == measure)?.1)
        }
    };
    match name {
        "loss" | "unsent" if name != text => None,
        "loss" => Some(Subject::Loss),
        "unsent" => Some(Subject::Unsent),
        "max" => Some(Subject::Max(measure)),
        "mean" => Some(Subject::Mean(measure)),
        name => Some(Subject::Percentile(
            parse_percent(name.strip_prefix('p')?)? / 100.0,
            measure,
        )),
    }
}

/// `99.9`, or `999` for the same, as the report's keys have it: nines alone, for `p101` is a slip and not 10.1.
fn parse_percent(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let percent = if plain { text.parse::<f64>().ok()? } else { return None };
    match text.contains('.') {
        false if percent > 100.0 && text.bytes().all(|byte| byte == b'9') => {
            let (whole, decimals) = text.split_at_checked(2)?;
            format!("{whole}.{decimals}").parse().ok()
        }
        _ => (percent <= 100.0).then_some(percent),
    }
}

/// What [`FromStr`] reads back as the same.
impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let measure = match self.subject {
            Subject::Percentile(q, measure) => {
                write!(f, "p{}", percent(q))?;
                measure
            }
            Subject::Max(measure) => {
                f.write_str("max")?;
                measure
            }
            Subject::Mean(measure) => {
                f.write_str("mean")?;
                measure
            }
            Subject::Loss => {
                f.write_str("loss")?;
                Measure::Response
            }
            Subject::Unsent => {
                f.write_str("unsent")?;
                Measure::Response
            }
        };
        if measure != Measure::Response {
            let name = MEASURES
                .iter()
                .find(|(_, other)| *other == measure)
                .map_or("", |(name, _)| *name);
            write!(f, "({name})")?;
        }
        f.write_str(match self.comparison {
            Comparison::Below => "<",
            Comparison::AtMost => "<=",
        })?;
        match self.limit {
            Limit::Nanoseconds(ns) => {
                let time = std::time::Duration::from_nanos(ns.unsigned_abs());
                f.write_str(&quantity::display_duration(time).replace(' ', ""))
            }
            Limit::Share(share) => write!(f, "{}%", percent(share)),
        }
    }
}

/// Percent without the noise of multiplying: 0.999 is 99.9.
fn percent(share: f64) -> f64 {
    (share * 1e14).round() / 1e12
}
