//! What must be known of a partition beside its cuts: times that never fall, and the names its topics show under.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use isochrone_model::{
    time::{NANOS_PER_SECOND, Second},
    verdict::{Reason, SecondFacts},
    window::Totals,
};
use tokio::time::Instant;

use super::points::Interval;
use crate::{
    Cut,
    prometheus::kept::{SECONDS, TOPICS, Verdicts},
    topics::Topics,
};

/// Field of the times: first second and latest time so far, in nanoseconds, big-endian.
const TIMES: &str = "times";
/// Field of `messaging.system`.
const SYSTEM: &str = "system";

/// Two cuts may end with the same second; receivers that count in milliseconds must still see two times.
const STEP_NS: i64 = 1_000_000;

/// Cuts of which the times are remembered: more than one batch has of a partition, and only the last batch comes again.
const REMEMBERED: usize = 256;

/// One partition.
#[derive(Default)]
pub struct Held {
    pub topics: Topics,
    /// Points of it, or of another that was in the same request, were refused.
    pub refused: bool,
    verdicts: Verdicts,
    system: Option<String>,
    /// Start of the first second.
    start: Option<i64>,
    /// No point has a later time: stored with each cut, so that a successor goes on after it.
    latest: i64,
    /// The same when the partition was taken.
    recalled: i64,
    /// The last time given.
    last: Option<i64>,
    /// Whether a cut was kept since the partition was taken.
    fresh: bool,
    /// By cut: a batch that comes again has the times it had.
    given: BTreeMap<u64, Interval>,
    /// When cuts were stored that the store may still lose, by their seconds, oldest first.
    stored: VecDeque<(Second, Instant)>,
}

impl Held {
    /// As its last holder stored it.
    pub fn recall(kept: &[(String, Vec<u8>)]) -> Held {
        let mut held = Held::default();
        for (field, bytes) in kept {
            match field.as_str() {
                TOPICS => held.topics = Topics::unpack(bytes),
                SECONDS => held.verdicts = Verdicts::unpack(bytes),
                SYSTEM => held.system = Some(String::from_utf8_lossy(bytes).into_owned()),
                TIMES => {
                    if let [start, latest] = bytes.as_chunks::<8>().0 {
                        held.start = Some(i64::from_be_bytes(*start));
                        held.latest = i64::from_be_bytes(*latest);
                        held.recalled = held.latest;
                    }
                }
                _ => {}
            }
        }
        held
    }

    /// The cut of that second is about to be stored, where it may be lost for as long as `memory`.
    pub fn store(&mut self, second: Second, now: Instant, memory: Duration) {
        while self.stored.front().is_some_and(|(_, stored)| *stored + memory <= now) {
            self.stored.pop_front();
        }
        self.stored.push_back((second, now));
    }

    /// What to store with the cut of that second; topics may take `room` more names.
    pub fn keep(&mut self, second: Second, totals: &Totals, room: usize) -> Vec<(String, Vec<u8>)> {
        let mut fields = Vec::new();
        if self.topics.admit(totals.topics().keys(), room) {
            fields.push((TOPICS.to_owned(), self.topics.pack()));
        }
        if self.verdicts.settle(totals.seconds(), second) {
            fields.push((SECONDS.to_owned(), self.verdicts.pack()));
        }
        if self.system.is_none()
            && let Some(device) = totals.devices().values().next()
        {
            let system = system(&device.url).to_owned();
            fields.push((SYSTEM.to_owned(), system.clone().into_bytes()));
            self.system = Some(system);
        }
        let start = *self
            .start
            .get_or_insert_with(|| first(totals).unwrap_or(second).start().0);
        self.latest = end(second).max(self.latest + STEP_NS);
        self.fresh = true;
        let times = [start.to_be_bytes(), self.latest.to_be_bytes()].concat();
        fields.push((TIMES.to_owned(), times));
        fields
    }

    /// The times of a running total: from the first second to the end of the cut's, and after any point before.
    pub fn running(&mut self, cut: &Cut) -> Interval {
        if let Some(given) = self.given.get(&cut.number) {
            return *given;
        }
        let least = match self.last {
            Some(last) => last + STEP_NS,
            None if self.fresh => self.recalled + STEP_NS,
            // What the last holder sent at that time, if it did, was this cut.
            None => self.recalled,
        };
        let end = end(cut.second).max(least);
        let start = self.start.unwrap_or(cut.second.start().0);
        self.give(cut.number, Interval { start, end })
    }

    /// The times of a difference: from where the cut before ended to the end of this one's second. What the last holder
    /// left over begins with its own first second.
    pub fn between(&mut self, cut: &Cut, added: &Totals) -> Interval {
        if let Some(given) = self.given.get(&cut.number) {
            return *given;
        }
        let own = first(added).unwrap_or(cut.second).min(cut.second);
        let start = self.last.unwrap_or(own.start().0);
        let end = end(cut.second).max(start + STEP_NS);
        self.give(cut.number, Interval { start, end })
    }

    /// From when on the store can no longer lose the cut, which it may for as long as `memory`; `None`: it no longer can.
    pub fn safe_at(&self, cut: &Cut, memory: Duration) -> Option<Instant> {
        let stored = self.stored.iter().rev().find(|(second, _)| *second <= cut.second)?;
        Some(stored.1 + memory)
    }

    fn give(&mut self, cut: u64, interval: Interval) -> Interval {
        self.last = Some(interval.end);
        self.given.insert(cut, interval);
        // Of what is refused for good nobody says that it is delivered.
        while self.given.len() > REMEMBERED {
            self.given.pop_first();
        }
        interval
    }

    /// A cut and those before it are done with.
    pub fn delivered(&mut self, cut: u64) {
        self.given = self.given.split_off(&(cut + 1));
    }

    /// `messaging.system`.
    pub fn system(&self) -> &str {
        self.system.as_deref().unwrap_or("mqtt")
    }

    /// All seconds so far by their verdict, those that may still change included.
    pub fn verdicts(&self, seconds: &BTreeMap<Second, SecondFacts>) -> Vec<(&'static str, u64)> {
        let mut verdicts = self.verdicts;
        verdicts.finish(seconds);
        Reason::ALL.into_iter().map(Reason::name).zip(verdicts.counts).collect()
    }
}

fn first(totals: &Totals) -> Option<Second> {
    let seconds = totals.topics().values().filter_map(|topic| topic.seconds);
    seconds.map(|(first, _)| first).min()
}

fn end(second: Second) -> i64 {
    second.start().0.saturating_add(NANOS_PER_SECOND)
}

/// The conventions' name of what a URL leads to.
fn system(url: &str) -> &str {
    match url.split_once(':').map_or("", |(scheme, _)| scheme) {
        "mqtt" | "mqtts" | "ws" | "wss" | "" => "mqtt",
        "amqp" | "amqps" => "amqp",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The times of what a receiver refuses all day long are forgotten, those of the last cuts are not.
    #[test]
    fn times_are_remembered_for_the_last_cuts() {
        let mut held = Held::default();
        let given: Vec<_> = (1..=1_000)
            .map(|cut| {
                held.give(
                    cut,
                    Interval {
                        start: 0,
                        end: cut as i64,
                    },
                )
            })
            .collect();
        assert_eq!(held.given.len(), REMEMBERED);
        assert_eq!(held.given.last_key_value(), Some((&1_000, &given[999])));
    }

    /// What the store can no longer lose is forgotten, however long nothing is delivered.
    #[test]
    fn what_is_safe_is_forgotten() {
        let (mut held, begun, memory) = (Held::default(), Instant::now(), Duration::from_secs(2));
        for second in 0..1_000 {
            held.store(Second(second), begun + Duration::from_secs(second as u64), memory);
            assert!(held.stored.len() <= 2, "{}", held.stored.len());
        }
    }
}
