//! What has been received and is not stored yet, by topic and second of receipt, bounded for the whole worker.

use std::collections::VecDeque;

use isochrone_model::{
    entry::{Missing, ReceiptPart, Sample},
    time::Second,
};

/// Seconds one topic keeps apart while the store is away; the oldest are folded together beyond it.
const SECONDS: usize = 120;

/// Due-seconds of dropped samples that one part tells apart.
const DROPPED_SECONDS: usize = 600;

/// Ranges given up that one part tells apart; beyond them neighbours are joined.
const RANGES: usize = 4_096;

/// A sample buffer up to this capacity is kept for the next second.
const SPARE: usize = 16_384;

/// The parts of one topic that no flush holds yet, oldest second first.
#[derive(Debug, Default)]
pub struct Pending {
    parts: VecDeque<(Second, ReceiptPart)>,
    spare: Vec<Sample>,
}

/// ISOCHRONE_BUFFER: how many samples a worker may hold in all.
#[derive(Debug)]
pub struct Ration {
    limit: usize,
    /// Samples held now: not yet in a flush, or in one that is not answered.
    pub held: usize,
    /// Samples dropped since the start.
    pub dropped: u64,
}

impl Ration {
    /// At most `limit` samples.
    pub fn new(limit: usize) -> Ration {
        Ration {
            limit: limit.max(1),
            held: 0,
            dropped: 0,
        }
    }

    /// So many samples are not held any more.
    pub fn release(&mut self, count: usize) {
        self.held = self.held.saturating_sub(count);
    }

    /// How many samples must go now: what is too much, and a little room so that it is not asked for at every message.
    pub fn excess(&self) -> usize {
        match self.held.checked_sub(self.limit) {
            Some(excess) if excess > 0 => excess + self.limit / 32,
            _ => 0,
        }
    }
}

impl Pending {
    /// The part of `second`.
    pub fn at(&mut self, second: Second) -> &mut ReceiptPart {
        let place = match self.parts.back() {
            Some((newest, _)) if *newest == second => self.parts.len() - 1,
            _ => self.place(second),
        };
        &mut self.parts[place].1
    }

    fn place(&mut self, second: Second) -> usize {
        let place = self.parts.partition_point(|(other, _)| *other < second);
        if self.parts.get(place).is_some_and(|(other, _)| *other == second) {
            return place;
        }
        let part = ReceiptPart {
            samples: std::mem::take(&mut self.spare),
            ..ReceiptPart::default()
        };
        self.parts.insert(place, (second, part));
        if self.parts.len() > SECONDS && place > 0 && self.fold() {
            place - 1
        } else {
            place
        }
    }

    /// Joins the two oldest seconds. Only a second without samples can be joined: the caller drops those first, and what
    /// a long outage leaves are counts.
    fn fold(&mut self) -> bool {
        if self.parts.len() < 2 || !self.parts[0].1.samples.is_empty() {
            return false;
        }
        let Some((_, old)) = self.parts.pop_front() else {
            return false;
        };
        if let Some((_, into)) = self.parts.front_mut() {
            put_before(into, old);
        }
        true
    }

    /// Seconds held.
    pub fn parts(&self) -> usize {
        self.parts.len()
    }

    /// A part that the store left out: its samples are dropped, and it is told with `second` what else it counted.
    pub fn left_out(&mut self, second: Second, mut part: ReceiptPart) {
        for sample in part.samples.drain(..) {
            count_dropped(&mut part.dropped, sample.due.second(), 1);
        }
        put_before(self.at(second), part);
    }

    /// The oldest second that holds samples.
    pub fn oldest(&self) -> Option<Second> {
        let mut parts = self.parts.iter();
        parts
            .find(|(_, part)| !part.samples.is_empty())
            .map(|(second, _)| *second)
    }

    /// Drops up to `count` of the oldest samples of `second`, counted by the second they were due in; answers how many.
    pub fn drop_oldest(&mut self, second: Second, count: usize) -> usize {
        let Some((_, part)) = self.parts.iter_mut().find(|(other, _)| *other == second) else {
            return 0;
        };
        let count = count.min(part.samples.len());
        for sample in part.samples.drain(..count) {
            count_dropped(&mut part.dropped, sample.due.second(), 1);
        }
        count
    }

    /// Everything pending, oldest second first.
    pub fn take(&mut self) -> VecDeque<(Second, ReceiptPart)> {
        std::mem::take(&mut self.parts)
    }

    /// Gives a buffer back for the next second.
    pub fn reuse(&mut self, mut samples: Vec<Sample>) {
        samples.clear();
        if samples.capacity() <= SPARE && samples.capacity() > self.spare.capacity() {
            self.spare = samples;
        }
    }

    /// How many samples are pending.
    pub fn samples(&self) -> usize {
        self.parts.iter().map(|(_, part)| part.samples.len()).sum()
    }
}

/// Adds the counts of an earlier part without samples.
fn put_before(into: &mut ReceiptPart, earlier: ReceiptPart) {
    into.duplicates += earlier.duplicates;
    into.retained += earlier.retained;
    into.unstamped += earlier.unstamped;
    into.foreign += earlier.foreign;
    into.reordered += earlier.reordered;
    for (second, count) in earlier.dropped {
        count_dropped(&mut into.dropped, second, count);
    }
    add_ranges(&mut into.missing, earlier.missing);
    add_ranges(&mut into.found, earlier.found);
}

/// Adds ranges given up, or found again, to those of a part.
pub fn add_ranges(into: &mut Vec<Missing>, more: impl IntoIterator<Item = Missing>) {
    into.extend(more);
    Missing::bound(into, RANGES);
}

fn count_dropped(dropped: &mut Vec<(Second, u64)>, second: Second, count: u64) {
    if let Some((_, sum)) = dropped.iter_mut().rev().find(|(other, _)| *other == second) {
        *sum += count;
    } else if dropped.len() < DROPPED_SECONDS {
        dropped.push((second, count));
    } else if let Some((_, sum)) = dropped.last_mut() {
        *sum += count;
    }
}

#[cfg(test)]
mod tests {
    use isochrone_model::{
        entry::ConsumerDelay,
        id::Epoch,
        time::{NANOS_PER_SECOND, Reference},
    };
    use proptest::prelude::*;

    use super::*;

    fn sample(second: i64, sequence: u64) -> Sample {
        Sample {
            epoch: Epoch(1),
            sequence,
            due: Reference(second * NANOS_PER_SECOND),
            sent: Reference(second * NANOS_PER_SECOND),
            received: Reference(second * NANOS_PER_SECOND + 5),
            transit_ns: 5,
            delay: ConsumerDelay::None,
            warmup: false,
        }
    }

    proptest! {
        /// What was put in is either taken out, in order of seconds, or counted as dropped; nothing else.
        #[test]
        fn samples_are_kept_or_counted(seconds in prop::collection::vec(0i64..200, 1..500), drops in prop::collection::vec(0usize..20, 0..50)) {
            let mut pending = Pending::default();
            for (sequence, second) in seconds.iter().enumerate() {
                pending.at(Second(*second)).samples.push(sample(*second, sequence as u64));
            }
            let mut dropped = 0;
            for count in drops {
                let Some(oldest) = pending.oldest() else { break };
                dropped += pending.drop_oldest(oldest, count);
            }
            prop_assert_eq!(pending.samples() + dropped, seconds.len());
            let parts = pending.take();
            let counted: u64 = parts.iter().flat_map(|(_, part)| &part.dropped).map(|(_, count)| count).sum();
            prop_assert_eq!(counted, dropped as u64);
            prop_assert!(parts.iter().zip(parts.iter().skip(1)).all(|(a, b)| a.0 < b.0));
            for (second, part) in &parts {
                prop_assert!(part.samples.iter().all(|sample| sample.received.second() == *second));
            }
        }
    }

    /// A long outage leaves a bounded number of parts, and every count in them.
    #[test]
    fn seconds_without_samples_fold() {
        let mut pending = Pending::default();
        for second in 0..10_000 {
            pending.at(Second(second)).duplicates += 1;
        }
        let parts = pending.take();
        assert!(parts.len() <= SECONDS);
        assert_eq!(parts.iter().map(|(_, part)| part.duplicates).sum::<u64>(), 10_000);
    }

    /// The ration asks for a little more than the excess, and for nothing below the limit.
    #[test]
    fn the_ration_asks_for_room() {
        let mut ration = Ration::new(3200);
        ration.held = 3200;
        assert_eq!(ration.excess(), 0);
        ration.held = 3201;
        assert_eq!(ration.excess(), 101);
    }
}
