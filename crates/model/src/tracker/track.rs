//! One epoch: the sequences that came, those still awaited and those given up.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    entry::{Missing, MissingKind},
    id::Epoch,
    range::SeqRange,
    row::{EpochReceipt, SendRow},
    time::{Reference, nanos},
    tracker::{
        given::GivenUp,
        point::{Point, sent_until},
    },
};

/// Ranges awaited at most; the oldest is given up early beyond that. At 50 % loss and 1,000 messages a second that is
/// eight seconds' worth, above the default drain.
const MAX_OPEN: usize = 4096;
/// A message sent this long after the subscription, by estimate, was certainly listened for: estimates between two
/// neighbours are that far off at most in a bursty schedule.
const SLACK_NS: i64 = 1_000_000_000;

/// Messages sent in it were not listened for, or were received by a holder who died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub kind: MissingKind,
    /// The subscription that ended it.
    pub until: Option<Reference>,
}

/// Sequences awaited though a later one came, keyed by their first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    pub last: u64,
    /// When the later one came.
    pub since: Reference,
    pub window: Option<Window>,
    /// The nearest sequences around it that came; `above` may be its own last, as the producer told.
    pub below: Option<Point>,
    pub above: Option<Point>,
}

/// The producer's last word, or what is known of one that vanished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Sequences `0..total` exist.
    pub total: u64,
    /// When it was heard.
    pub at: Reference,
    /// The last sequence, where known.
    pub last: Option<Point>,
    /// No more is to come: the producer said so itself, or vanished and nothing came for a drain. Who vanished may only be
    /// cut off from the store, and sending.
    pub is_final: bool,
}

/// What one message was to its epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    First { reordered: bool },
    Duplicate,
    Found { missing: Missing, reordered: bool },
}

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Track {
    pub epoch: Epoch,
    /// Everything below is received, open or given up.
    pub frontier: u64,
    /// Highest received plus one.
    pub top: u64,
    pub unique: u64,
    pub window: Option<Window>,
    pub open: BTreeMap<u64, Open>,
    pub given: GivenUp,
    /// The lowest and the highest received.
    pub first: Option<Point>,
    pub highest: Option<Point>,
    /// The first message of the epoch, told by the producer.
    pub began: Option<Point>,
    pub last_arrival: Reference,
    pub end: Option<End>,
    /// Given up to keep `open` bounded, not returned yet.
    pub early: Vec<Missing>,
}

impl Track {
    pub fn new(epoch: Epoch, window: Option<Window>) -> Track {
        Track {
            epoch,
            frontier: 0,
            top: 0,
            unique: 0,
            window,
            open: BTreeMap::new(),
            given: GivenUp::default(),
            first: None,
            highest: None,
            began: None,
            last_arrival: Reference::default(),
            end: None,
            early: Vec::new(),
        }
    }

    pub fn arrive(&mut self, point: Point, now: Reference) -> Step {
        // The way of nearly every message: the next in order, nothing special going on.
        if point.sequence == self.frontier && point.sequence == self.top && self.window.is_none() && self.top > 0 {
            self.take(point, now);
            return Step::First { reordered: false };
        }
        self.arrive_out_of_order(point, now)
    }

    fn take(&mut self, point: Point, now: Reference) {
        self.frontier = point.sequence.saturating_add(1);
        self.top = self.frontier;
        self.unique += 1;
        self.highest = Some(point);
        self.last_arrival = now;
    }

    fn arrive_out_of_order(&mut self, point: Point, now: Reference) -> Step {
        self.last_arrival = now;
        if point.sequence >= self.frontier {
            self.advance_to(point, now);
            return Step::First { reordered: false };
        }
        let reordered = point.sequence < self.top;
        if self.fill(point) {
            self.unique += 1;
            return Step::First { reordered };
        }
        let Some((kind, due)) = self.given.take(point) else {
            return Step::Duplicate;
        };
        self.unique += 1;
        if !reordered {
            self.top = point.sequence.saturating_add(1);
            self.highest = Some(point);
        }
        let range = SeqRange {
            first: point.sequence,
            last: point.sequence,
        };
        Step::Found {
            missing: Missing {
                epoch: self.epoch,
                kind,
                range,
                due: (due, due),
            },
            reordered,
        }
    }

    fn advance_to(&mut self, point: Point, now: Reference) {
        let window = self.window;
        if self
            .window
            .is_some_and(|window| window.until.is_some_and(|until| point.sent >= until))
        {
            self.window = None;
        }
        if point.sequence > self.frontier {
            let range = SeqRange {
                first: self.frontier,
                last: point.sequence - 1,
            };
            self.open_range(range, Some(point), window, now);
        }
        self.first.get_or_insert(point);
        self.take(point, now);
        while self.open.len() > MAX_OPEN {
            self.give_up_first();
        }
    }

    /// Awaits `range`. `above` is the known neighbour above it, or its last sequence itself.
    fn open_range(&mut self, range: SeqRange, above: Option<Point>, window: Option<Window>, since: Reference) {
        let below = self.highest.filter(|highest| highest.sequence < range.first);
        self.open.insert(
            range.first,
            Open {
                last: range.last,
                since,
                window,
                below,
                above,
            },
        );
    }

    /// Takes one sequence out of what is awaited.
    fn fill(&mut self, point: Point) -> bool {
        let sequence = point.sequence;
        let Some((&first, &open)) = self.open.range(..=sequence).next_back() else {
            return false;
        };
        if open.last < sequence {
            return false;
        }
        self.open.remove(&first);
        if first < sequence {
            self.open.insert(
                first,
                Open {
                    last: sequence - 1,
                    above: Some(point),
                    ..open
                },
            );
        }
        if sequence < open.last {
            self.open.insert(
                sequence + 1,
                Open {
                    below: Some(point),
                    ..open
                },
            );
        }
        true
    }

    pub fn hear(&mut self, row: &SendRow, now: Reference) {
        if let (Some(due), Some(sent), None) = (row.due, row.sent_at, self.began) {
            self.began = Some(Point {
                sequence: 0,
                due: due.0,
                sent: sent.0,
            });
        }
        if !row.ended && !row.vanished {
            return;
        }
        let total = row.sent.max(self.frontier);
        let last = row.due.zip(row.sent_at).filter(|_| row.sent > 0);
        let last = last.map(|(due, sent)| Point {
            sequence: row.sent - 1,
            due: due.1,
            sent: sent.1,
        });
        let heard = End {
            total,
            at: now,
            last,
            is_final: row.ended,
        };
        match &mut self.end {
            // A vanished producer that comes back knows better.
            Some(end) if total > end.total || row.ended && !end.is_final => *end = heard,
            Some(_) => {}
            None => self.end = Some(heard),
        }
    }

    /// Gives up what has waited for `drain`.
    pub fn expire(&mut self, now: Reference, drain: Duration) -> Vec<Missing> {
        let drain = nanos(drain);
        self.raise_total();
        let waited = self.end.map(|end| now.since_ns(end.at.max(self.last_arrival)));
        if waited.is_some_and(|waited| waited >= drain) {
            self.open_tail();
            return self.give_up_all();
        }
        while let Some((_, open)) = self.open.first_key_value() {
            if now.since_ns(open.since) < drain {
                break;
            }
            self.give_up_first();
        }
        std::mem::take(&mut self.early)
    }

    /// Gives up everything now.
    pub fn give_up_all(&mut self) -> Vec<Missing> {
        while !self.open.is_empty() {
            self.give_up_first();
        }
        std::mem::take(&mut self.early)
    }

    /// Makes what was sent last and never came an open range: no more is to come.
    pub fn open_tail(&mut self) {
        self.raise_total();
        if let Some(end) = &mut self.end {
            end.is_final = true;
        }
        let Some(end) = self.end.filter(|end| end.total > self.frontier) else {
            return;
        };
        let range = SeqRange {
            first: self.frontier,
            last: end.total - 1,
        };
        let window = self.window;
        self.open_range(
            range,
            end.last.filter(|last| last.sequence >= range.first),
            window,
            end.at,
        );
        self.frontier = end.total;
    }

    /// More may come than a producer's last word knew of, when it vanished.
    fn raise_total(&mut self) {
        let frontier = self.frontier;
        if let Some(end) = &mut self.end {
            end.total = end.total.max(frontier);
        }
    }

    fn give_up_first(&mut self) {
        let Some((first, open)) = self.open.pop_first() else {
            return;
        };
        let range = SeqRange { first, last: open.last };
        let below = open.below.or_else(|| self.anchor(range));
        let (low, high) = match (below, open.above) {
            (Some(low), Some(high)) => (low, high),
            (Some(only), None) | (None, Some(only)) => (only, only),
            (None, None) => {
                let unknown = Point {
                    sequence: first,
                    due: open.since,
                    sent: open.since,
                };
                (unknown, unknown)
            }
        };
        let ends = (Point::between(low, high, first), Point::between(low, high, range.last));
        let inside = match open.window {
            None => 0,
            Some(Window { until: None, .. }) => range.count(),
            Some(Window { until: Some(until), .. }) => match below {
                Some(below) if below.sent >= until => 0,
                // Times are estimates here: who was sent shortly after gets the benefit of the doubt.
                Some(_) => sent_until(range, ends, until + SLACK_NS),
                None => range.count(),
            },
        };
        if let Some(window) = open.window.filter(|_| inside > 0) {
            let part = SeqRange {
                first,
                last: first + (inside - 1),
            };
            self.give_up(window.kind, part, (ends.0, Point::between(low, high, part.last)));
        }
        if inside < range.count() {
            let part = SeqRange {
                first: first + inside,
                last: range.last,
            };
            self.give_up(MissingKind::Lost, part, (Point::between(low, high, part.first), ends.1));
        }
    }

    /// What lies at the beginning of a range that nothing came before: by the producer's word, else by the pace since.
    fn anchor(&self, range: SeqRange) -> Option<Point> {
        if let Some(began) = self.began.filter(|began| began.sequence <= range.first) {
            return Some(began);
        }
        let (first, highest) = self.first.zip(self.highest)?;
        let has_pace = first.sequence < highest.sequence && range.last < first.sequence;
        has_pace.then(|| Point::between(first, highest, range.first))
    }

    fn give_up(&mut self, kind: MissingKind, range: SeqRange, ends: (Point, Point)) {
        let due = (ends.0.due, ends.1.due);
        let missing = Missing {
            epoch: self.epoch,
            kind,
            range,
            due,
        };
        self.given.add(missing);
        self.early.push(missing);
    }

    /// What is missing and not given up.
    pub fn in_flight(&self) -> u64 {
        let open: u64 = self.open.iter().map(|(&first, open)| open.last - first + 1).sum();
        let tail = self.end.map_or(0, |end| end.total.saturating_sub(self.frontier));
        open + tail
    }

    /// A new holder: what it cannot have heard, or its predecessor may have heard, is nobody's loss.
    pub fn adopt(&mut self, window: Window) {
        self.window = Some(window);
        if window.kind == MissingKind::Unrecorded {
            // What was awaited may have come after the last save.
            self.open
                .values_mut()
                .for_each(|open| open.window = open.window.or(Some(window)));
        }
    }

    /// The holder listens: deliveries start now, and so does every wait.
    pub fn subscribed(&mut self, at: Reference) {
        if let Some(window) = &mut self.window {
            window.until.get_or_insert(at);
        }
        self.open.values_mut().for_each(|open| open.since = open.since.max(at));
        if let Some(end) = &mut self.end {
            end.at = end.at.max(at);
        }
    }

    /// Nobody ever listened for what is in flight.
    pub fn forsake(&mut self) {
        let window = Some(Window {
            kind: MissingKind::Unheard,
            until: None,
        });
        self.window = window;
        self.open.values_mut().for_each(|open| open.window = window);
    }

    pub fn settled(&self) -> bool {
        let is_over = |end: End| end.is_final && end.total <= self.frontier;
        self.early.is_empty() && self.open.is_empty() && self.end.is_some_and(is_over)
    }

    pub fn row(&self) -> EpochReceipt {
        EpochReceipt {
            unique: self.unique,
            lost: self.given.count(MissingKind::Lost),
            unrecorded: self.given.count(MissingKind::Unrecorded),
            unheard: self.given.count(MissingKind::Unheard),
            next: self.top,
            ranges: self.given.ranges(self.epoch),
            forgotten_ranges: self.given.forgotten_ranges,
            settled: self.settled(),
        }
    }
}
