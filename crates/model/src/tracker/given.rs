//! Sequences given up, as ranges: counted for ever, remembered only so many.

use std::collections::BTreeMap;

use crate::{
    entry::{Missing, MissingKind},
    id::Epoch,
    range::SeqRange,
    time::Reference,
    tracker::point::Point,
};

/// Ranges remembered of one epoch. A late copy of an older one counts as a duplicate: the loss stays on the books,
/// which errs on the side of more loss.
pub const MAX_REMEMBERED: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Given {
    pub last: u64,
    pub kind: MissingKind,
    pub due: (Reference, Reference),
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GivenUp {
    pub lost: u64,
    pub unrecorded: u64,
    pub unheard: u64,
    /// Keyed by the first sequence.
    pub remembered: BTreeMap<u64, Given>,
    /// Lost ranges no longer remembered.
    pub forgotten_ranges: u64,
}

impl GivenUp {
    pub fn count(&self, kind: MissingKind) -> u64 {
        match kind {
            MissingKind::Lost => self.lost,
            MissingKind::Unrecorded => self.unrecorded,
            MissingKind::Unheard => self.unheard,
        }
    }

    fn count_mut(&mut self, kind: MissingKind) -> &mut u64 {
        match kind {
            MissingKind::Lost => &mut self.lost,
            MissingKind::Unrecorded => &mut self.unrecorded,
            MissingKind::Unheard => &mut self.unheard,
        }
    }

    pub fn add(&mut self, missing: Missing) {
        *self.count_mut(missing.kind) += missing.range.count();
        let SeqRange { mut first, last } = missing.range;
        let mut due = missing.due;
        // A range that goes on where one of its kind ended is one with it.
        let before = self
            .remembered
            .range(..first)
            .next_back()
            .map(|(&first, &given)| (first, given));
        if let Some((earlier, given)) = before
            && given.last.checked_add(1) == Some(first)
            && given.kind == missing.kind
        {
            first = earlier;
            due.0 = given.due.0;
        }
        self.remembered.insert(
            first,
            Given {
                last,
                kind: missing.kind,
                due,
            },
        );
        self.forget();
    }

    /// Takes one sequence back: its kind and its due time.
    pub fn take(&mut self, point: Point) -> Option<(MissingKind, Reference)> {
        let sequence = point.sequence;
        let (&first, &given) = self.remembered.range(..=sequence).next_back()?;
        if given.last < sequence {
            return None;
        }
        self.remembered.remove(&first);
        if first < sequence {
            self.remembered.insert(
                first,
                Given {
                    last: sequence - 1,
                    due: (given.due.0, point.due),
                    ..given
                },
            );
        }
        if sequence < given.last {
            self.remembered.insert(
                sequence + 1,
                Given {
                    due: (point.due, given.due.1),
                    ..given
                },
            );
        }
        let count = self.count_mut(given.kind);
        *count = count.saturating_sub(1);
        self.forget();
        // Where the sequence had been counted, so that taking it back hits the same second.
        let ends = (
            Point {
                sequence: first,
                due: given.due.0,
                sent: given.due.0,
            },
            Point {
                sequence: given.last,
                due: given.due.1,
                sent: given.due.1,
            },
        );
        Some((given.kind, Point::between(ends.0, ends.1, sequence).due))
    }

    fn forget(&mut self) {
        while self.remembered.len() > MAX_REMEMBERED {
            if let Some((_, given)) = self.remembered.pop_first()
                && given.kind == MissingKind::Lost
            {
                self.forgotten_ranges += 1;
            }
        }
    }

    pub fn ranges(&self, epoch: Epoch) -> Vec<Missing> {
        let range = |(&first, given): (&u64, &Given)| {
            let range = SeqRange {
                first,
                last: given.last,
            };
            Missing {
                epoch,
                kind: given.kind,
                range,
                due: given.due,
            }
        };
        self.remembered.iter().map(range).collect()
    }
}
