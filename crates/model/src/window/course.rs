//! Latencies in the course of a run, for its picture: of every second, and of wider steps once the run is long.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    entry::ReceiptPart,
    histogram::Coarse,
    id::Topic,
    time::Second,
    varint::{get_u64, put_u64},
};

const VERSION: u8 = 1;

/// Steps kept at the most; one more, and all are made twice as wide. Five minutes of single seconds.
const STEPS: usize = 300;

/// Wider than any run.
const MOST_DOUBLINGS: u32 = 60;

/// The messages of one step, warm-up and ramps left out, in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Response of those that were due in it.
    pub response: Coarse,
    /// Transit of those that were received in it.
    pub transit: Coarse,
}

/// Steps of one width, a power of two in seconds, each beginning at a multiple of it. Which width follows from the set of
/// seconds alone, and histograms merge without loss: so the same entries make the same state in any order.
#[derive(Clone, Debug, Default)]
pub struct Course {
    /// A step is this power of two seconds wide.
    doublings: u32,
    /// By beginning, divided by the width. Shared with clones, as most are not changed any more.
    steps: BTreeMap<i64, Arc<Step>>,
    /// Beginnings of steps that changed or went: the names of their fields.
    changed: BTreeSet<i64>,
}

impl PartialEq for Course {
    /// What is known, saved or not.
    fn eq(&self, other: &Course) -> bool {
        self.doublings == other.doublings && self.steps == other.steps
    }
}

impl Course {
    /// How many seconds a step is wide.
    pub fn width(&self) -> i64 {
        1 << self.doublings
    }

    /// Steps with any message, by their first second.
    pub fn steps(&self) -> impl Iterator<Item = (Second, &Step)> {
        self.steps
            .iter()
            .map(|(number, step)| (Second(number << self.doublings), step.as_ref()))
    }

    /// Adds what was received in one second.
    pub fn record(&mut self, received: Second, parts: &[(Topic, ReceiptPart)]) {
        let samples = || parts.iter().map(|(_, part)| &part.samples);
        // Messages due in the same second mostly follow each other.
        for run in samples().flat_map(|samples| samples.chunk_by(|a, b| a.due.second() == b.due.second())) {
            let mut measured = run.iter().filter(|sample| !sample.warmup);
            if let Some(first) = measured.next() {
                let response = &mut self.step_mut(first.due.second()).response;
                response.record(first.response_ns());
                measured.for_each(|sample| response.record(sample.response_ns()));
            }
        }
        let mut measured = samples().flatten().filter(|sample| !sample.warmup);
        if let Some(first) = measured.next() {
            let transit = &mut self.step_mut(received).transit;
            transit.record(first.transit_ns);
            measured.for_each(|sample| transit.record(sample.transit_ns));
        }
    }

    /// Adds what another partition knows.
    pub fn merge(&mut self, other: &Course) {
        self.widen(other.doublings);
        for (second, step) in other.steps() {
            self.step_mut(second).merge(step);
        }
    }

    /// A field for each step that changed, `c:` and its first second; an empty one for each that went.
    pub fn save(&mut self, fields: &mut Vec<(String, Vec<u8>)>) {
        for begin in std::mem::take(&mut self.changed) {
            let number = begin >> self.doublings;
            let step = self.steps.get(&number).filter(|_| number << self.doublings == begin);
            let mut bytes = Vec::new();
            if let Some(step) = step {
                bytes.push(VERSION);
                put_u64(&mut bytes, u64::from(self.doublings));
                step.response.encode(&mut bytes);
                step.transit.encode(&mut bytes);
            }
            fields.push((format!("c:{begin}"), bytes));
        }
    }

    /// `field` without its prefix.
    pub fn load(&mut self, field: &str, bytes: &[u8]) -> Option<()> {
        let begin = Second(field.parse().ok()?);
        let Some((&version, mut input)) = bytes.split_first() else {
            return Some(());
        };
        let input = &mut input;
        let doublings = u32::try_from(get_u64(input)?).ok()?;
        let step = Step {
            response: Coarse::decode(input)?,
            transit: Coarse::decode(input)?,
        };
        if version != VERSION || doublings > MOST_DOUBLINGS || !input.is_empty() {
            return None;
        }
        // Fields come in any order, and all of them were saved at one width.
        self.widen(doublings);
        let number = begin.0 >> self.doublings;
        Arc::make_mut(self.steps.entry(number).or_default()).merge(&step);
        Some(())
    }

    fn step_mut(&mut self, second: Second) -> &mut Step {
        if !self.steps.contains_key(&(second.0 >> self.doublings)) {
            self.steps.insert(second.0 >> self.doublings, Arc::default());
            while self.steps.len() > STEPS && self.doublings < MOST_DOUBLINGS {
                self.widen(self.doublings + 1);
            }
        }
        let number = second.0 >> self.doublings;
        self.changed.insert(number << self.doublings);
        Arc::make_mut(self.steps.entry(number).or_default())
    }

    fn widen(&mut self, doublings: u32) {
        let Some(more) = doublings.checked_sub(self.doublings).filter(|&more| more > 0) else {
            return;
        };
        for (number, step) in std::mem::take(&mut self.steps) {
            self.changed.insert(number << self.doublings);
            let wide = number >> more;
            self.changed.insert(wide << doublings);
            match self.steps.get_mut(&wide) {
                Some(half) => Arc::make_mut(half).merge(&step),
                None => drop(self.steps.insert(wide, step)),
            }
        }
        self.doublings = doublings;
    }
}

impl Step {
    /// Adds another one's messages.
    pub fn merge(&mut self, other: &Step) {
        self.response.merge(&other.response);
        self.transit.merge(&other.transit);
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn of(messages: &[(i64, i64)]) -> Course {
        let mut course = Course::default();
        for &(second, response) in messages {
            course.step_mut(Second(second)).response.record(response);
        }
        course
    }

    fn count(course: &Course) -> u64 {
        course.steps().map(|(_, step)| step.response.count()).sum()
    }

    proptest! {
        /// In any order, in parts, or saved and loaded in between: the same messages make the same steps, never too many, and
        /// none is lost.
        #[test]
        fn the_same_messages_make_the_same_steps(
            messages in vec((-2000..2000_i64, 0..1_000_000_i64), 0..1500), at: prop::sample::Index, turn: prop::sample::Index,
        ) {
            let whole = of(&messages);
            prop_assert_eq!(count(&whole), messages.len() as u64);
            prop_assert!(whole.steps.len() <= STEPS);

            let mut turned = messages.clone();
            if !turned.is_empty() {
                turned.rotate_left(turn.index(messages.len()));
            }
            prop_assert_eq!(&of(&turned), &whole);

            let (left, right) = turned.split_at(if turned.is_empty() { 0 } else { at.index(turned.len()) });
            let mut merged = of(right);
            merged.merge(&of(left));
            prop_assert_eq!(&merged, &whole);

            let mut hash = BTreeMap::new();
            let mut saved = of(left);
            let mut fields = Vec::new();
            saved.save(&mut fields);
            hash.extend(fields);
            for &(second, response) in right {
                saved.step_mut(Second(second)).response.record(response);
            }
            let mut fields = Vec::new();
            saved.save(&mut fields);
            hash.extend(fields);
            let mut loaded = Course::default();
            for (field, bytes) in &hash {
                prop_assert!(loaded.load(&field[2..], bytes).is_some());
            }
            prop_assert_eq!(&loaded, &whole);
        }
    }

    /// A day: a few hundred steps, and fields of which most are in use.
    #[test]
    fn a_long_run_stays_small() {
        let mut course = Course::default();
        let mut names = BTreeSet::new();
        for second in 0..86_400 {
            course.step_mut(Second(second)).response.record(second);
            let mut fields = Vec::new();
            course.save(&mut fields);
            names.extend(fields.into_iter().map(|(name, _)| name));
        }
        assert_eq!((course.width(), course.steps.len()), (512, 169));
        assert_eq!(count(&course), 86_400);
        assert!(names.len() < 2_000, "{} fields", names.len());
    }
}
