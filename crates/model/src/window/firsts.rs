//! In which second of due a sequence was: from the producers' rows, and by interpolation where those are gone.

use std::collections::BTreeMap;

use crate::{
    entry::Missing,
    id::Epoch,
    range::SeqRange,
    time::{NANOS_PER_SECOND, Second},
};

/// Seconds kept of each epoch: well above drain and grace together.
const KEPT: usize = 64;
/// No range is spread over more seconds than this (a day); nothing sane is.
const MAX_SPREAD: i64 = 86_400;

/// By epoch: second of due → its first sequence, the newest [`KEPT`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Firsts(pub BTreeMap<Epoch, BTreeMap<Second, u64>>);

impl Firsts {
    pub fn learn(&mut self, epoch: Epoch, second: Second, first: u64) {
        let seconds = self.0.entry(epoch).or_default();
        seconds
            .entry(second)
            .and_modify(|known| *known = first.min(*known))
            .or_insert(first);
        if seconds.len() > KEPT {
            seconds.pop_first();
        }
    }

    /// The seconds of due of a range, with how many of it each holds; at least one is named.
    pub fn spread(&self, missing: &Missing) -> Vec<(Second, u64)> {
        let Some(seconds) = self.0.get(&missing.epoch) else {
            return interpolate(missing);
        };
        let mut spread = Vec::new();
        let mut known = seconds.iter().peekable();
        let mut covered_from = None;
        while let Some((&second, &first)) = known.next() {
            covered_from.get_or_insert(first);
            // Beyond the newest second it is not known where it ends.
            let Some(&(_, &next)) = known.peek() else {
                let rest = SeqRange {
                    first: first.max(missing.range.first),
                    last: missing.range.last,
                };
                if rest.first <= rest.last {
                    let part = interpolate(&part_of(missing, rest));
                    spread.extend(part.into_iter().map(|(guess, count)| (guess.max(second), count)));
                }
                break;
            };
            let count = if next > first {
                missing.range.overlap(SeqRange { first, last: next - 1 })
            } else {
                0
            };
            if count > 0 {
                spread.push((second, count));
            }
        }
        // What lies before the oldest second that is still known.
        if let Some(from) = covered_from.filter(|&from| from > missing.range.first) {
            let last = missing.range.last.min(from - 1);
            spread.extend(interpolate(&part_of(
                missing,
                SeqRange {
                    first: missing.range.first,
                    last,
                },
            )));
        }
        spread
    }
}

/// `range` of `missing`, its due times interpolated.
fn part_of(missing: &Missing, range: SeqRange) -> Missing {
    let due = |sequence: u64| {
        let steps = i128::from(missing.range.last - missing.range.first).max(1);
        let span = i128::from(missing.due.1.0) - i128::from(missing.due.0.0);
        let passed = span * i128::from(sequence - missing.range.first) / steps;
        missing.due.0 + passed.clamp(i64::MIN.into(), i64::MAX.into()) as i64
    };
    Missing {
        range,
        due: (due(range.first), due(range.last)),
        ..*missing
    }
}

/// By a straight line between the due times of the range's ends.
pub fn interpolate(missing: &Missing) -> Vec<(Second, u64)> {
    let (from, to) = missing.due;
    let count = missing.range.count();
    let (first, last) = (from.second(), to.second());
    if first >= last || last.0.saturating_sub(first.0) > MAX_SPREAD || count == 1 {
        return vec![(first, count)];
    }
    let span = i128::from(to.0) - i128::from(from.0);
    let before = |boundary: i128| {
        // Those due before the boundary: the k with from + span·k/(count−1) < boundary.
        let passed = (boundary - i128::from(from.0)) * i128::from(count - 1);
        ((passed + span - 1) / span).clamp(0, count.into()) as u64
    };
    let mut spread = Vec::new();
    let mut done = 0;
    for second in first.0..=last.0 {
        let end = (i128::from(second) + 1) * i128::from(NANOS_PER_SECOND);
        let upto = if second == last.0 { count } else { before(end) };
        if upto > done {
            spread.push((Second(second), upto - done));
            done = upto;
        }
    }
    spread
}
