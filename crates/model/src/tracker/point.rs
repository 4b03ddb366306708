//! Straight lines between what is known of two sequences.

use crate::{range::SeqRange, time::Reference};

/// What is known of one sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    pub sequence: u64,
    pub due: Reference,
    pub sent: Reference,
}

impl Point {
    /// Where `sequence` lies on the line through both points; `a` where they are the same sequence.
    pub fn between(a: Point, b: Point, sequence: u64) -> Point {
        let line = |from: Reference, to: Reference| {
            let run = i128::from(b.sequence) - i128::from(a.sequence);
            let steps = i128::from(sequence) - i128::from(a.sequence);
            if run == 0 {
                return from;
            }
            let value = i128::from(from.0) + (i128::from(to.0) - i128::from(from.0)) * steps / run;
            Reference(value.clamp(i64::MIN.into(), i64::MAX.into()) as i64)
        };
        Point {
            sequence,
            due: line(a.due, b.due),
            sent: line(a.sent, b.sent),
        }
    }
}

/// How many sequences of `range`, from its first, were sent no later than `until`, on the line through its ends.
pub fn sent_until(range: SeqRange, ends: (Point, Point), until: Reference) -> u64 {
    let (first, last) = (ends.0.sent.0, ends.1.sent.0);
    if first > until.0 {
        return 0;
    }
    if last <= until.0 || range.first == range.last {
        return range.count();
    }
    let steps = i128::from(range.last - range.first);
    let passed = (i128::from(until.0) - i128::from(first)) * steps / (i128::from(last) - i128::from(first)).max(1);
    (passed.clamp(0, steps) as u64) + 1
}
