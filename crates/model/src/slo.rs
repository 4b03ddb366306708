//! Objectives of a run (ISOCHRONE_SLO): `p99<50ms, max(transit)<1s, loss<0.01%`.
//!
//! A message that never arrived is infinitely late. It counts among those of which a percentile is taken: with 2 % lost, p99 is infinite.
//!
//! What is judged is the run, so a percentile of few messages decides as well, though it says little of other runs: that is told beside it.

mod parse;

use crate::histogram::{Distribution, is_supported, nearest_rank};

pub use parse::list;

/// One objective.
#[derive(Clone, Debug, PartialEq)]
pub struct Objective {
    subject: Subject,
    comparison: Comparison,
    limit: Limit,
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Subject {
    /// The `ceil(q·n)`-th smallest; `q` in `0.0..=1.0`.
    Percentile(f64, Measure),
    Max(Measure),
    Mean(Measure),
    /// Lost and unrecorded of sent.
    Loss,
    /// Unsent of scheduled (sent + unsent).
    Unsent,
}

/// Which latency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measure {
    Response,
    Transit,
    PublishDelay,
    Late,
    Ack,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Below,
    AtMost,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Limit {
    Nanoseconds(i64),
    Share(f64),
}

/// What a run showed, warm-up and ramps left out.
#[derive(Clone, Copy)]
pub struct Evidence<'a> {
    /// Of the messages received, in nanoseconds.
    pub response: &'a dyn Distribution,
    /// Likewise.
    pub transit: &'a dyn Distribution,
    /// Likewise.
    pub publish_delay: &'a dyn Distribution,
    /// Of the messages sent, in nanoseconds.
    pub late: &'a dyn Distribution,
    /// Of the messages acknowledged, in nanoseconds.
    pub ack: &'a dyn Distribution,
    /// Messages offered to the socket.
    pub sent: u64,
    /// Of these, lost.
    pub lost: u64,
    /// Of these, unrecorded: they may have arrived.
    pub unrecorded: u64,
    /// Scheduled but never sent.
    pub unsent: u64,
}

/// What an objective found.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// As it was written.
    pub objective: String,
    /// What was measured.
    pub value: Measured,
    /// Whether it was met; never without anything measured.
    pub met: bool,
    /// False where fewer than ten messages lie beyond the percentile.
    pub supported: bool,
}

/// The measured side of a comparison.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Measured {
    /// A latency.
    Nanoseconds(f64),
    /// A share of messages, 0.0 to 1.0.
    Share(f64),
    /// Messages that never arrived are among those asked for.
    Infinite,
    /// There was nothing to measure.
    Nothing,
}

impl Measured {
    /// Nanoseconds or share as a number; `None` when infinite or nothing.
    pub fn number(self) -> Option<f64> {
        match self {
            Measured::Nanoseconds(value) | Measured::Share(value) => Some(value),
            Measured::Infinite | Measured::Nothing => None,
        }
    }
}

impl Objective {
    /// Whether a run met it.
    pub fn evaluate(&self, evidence: &Evidence<'_>) -> Outcome {
        let value = self.subject.measure(evidence);
        let limit = match self.limit {
            Limit::Nanoseconds(limit) => limit as f64,
            Limit::Share(limit) => limit,
        };
        let met = value.number().is_some_and(|value| match self.comparison {
            Comparison::Below => value < limit,
            Comparison::AtMost => value <= limit,
        });
        Outcome {
            objective: self.to_string(),
            value,
            met,
            supported: self.subject.is_supported(evidence),
        }
    }
}

impl Subject {
    fn measure(self, evidence: &Evidence<'_>) -> Measured {
        let missing = evidence.lost.saturating_add(evidence.unrecorded);
        let share = |part: u64, whole: u64| match whole {
            0 => Measured::Nothing,
            whole => Measured::Share(part as f64 / whole as f64),
        };
        match self {
            Subject::Loss => share(missing, evidence.sent),
            Subject::Unsent => share(evidence.unsent, evidence.sent.saturating_add(evidence.unsent)),
            Subject::Percentile(q, measure) => {
                let (values, _) = measure.of(evidence);
                let (rank, _) = measure.rank(q, evidence);
                match values.nth(rank) {
                    Some(value) => Measured::Nanoseconds(value as f64),
                    None if rank == 0 => Measured::Nothing,
                    None => Measured::Infinite,
                }
            }
            Subject::Max(measure) => Subject::Percentile(1.0, measure).measure(evidence),
            Subject::Mean(measure) => match measure.of(evidence) {
                (_, 1..) => Measured::Infinite,
                (values, 0) => values.mean().map_or(Measured::Nothing, Measured::Nanoseconds),
            },
        }
    }

    /// By the same rule as the percentiles of the report.
    fn is_supported(self, evidence: &Evidence<'_>) -> bool {
        match self {
            Subject::Percentile(q, measure) if q < 1.0 => {
                let (rank, count) = measure.rank(q, evidence);
                is_supported(rank, count)
            }
            // One value is enough for the rest.
            _ => true,
        }
    }
}

impl Measure {
    /// Which of how many a percentile is, with those infinitely late.
    fn rank(self, q: f64, evidence: &Evidence<'_>) -> (u64, u64) {
        let (values, infinite) = self.of(evidence);
        let count = values.count().saturating_add(infinite);
        (nearest_rank(q, count), count)
    }

    /// The values known, and how many are infinite beside them.
    fn of<'a>(self, evidence: &Evidence<'a>) -> (&'a dyn Distribution, u64) {
        let missing = evidence.lost.saturating_add(evidence.unrecorded);
        match self {
            Measure::Response => (evidence.response, missing.saturating_add(evidence.unsent)),
            // What was never sent was never on its way.
            Measure::Transit => (evidence.transit, missing),
            // What was lost on the way had been published; its delay stayed unknown, so only what never went counts.
            Measure::PublishDelay => (evidence.publish_delay, evidence.unsent),
            Measure::Late => (evidence.late, 0),
            Measure::Ack => (evidence.ack, 0),
        }
    }
}
