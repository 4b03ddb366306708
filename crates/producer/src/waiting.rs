//! Devices that wait until somebody listens on their response topics.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use isochrone_model::id::{Partition, Topic};
use isochrone_store::types::{TopicState, TopicStatus};
use tokio::time::Instant;

use crate::plan::Planned;

/// How long those that are ready wait for the others, so that they start together.
const GATHER: Duration = Duration::from_millis(500);
/// Partitions asked in one turn when nothing is announced.
const ASKED_AT_ONCE: usize = 16;

/// See the module. Places are those of the plan.
pub struct Waiting {
    topics: BTreeMap<Partition, HashMap<Topic, Vec<usize>>>,
    ready: Vec<usize>,
    gather_until: Option<Instant>,
    /// From here on nobody waits.
    give_up: Option<Instant>,
    started_some: bool,
    next_asked: Partition,
    left: usize,
}

impl Waiting {
    /// All wait, until `give_up` at the latest.
    pub fn new(devices: &[Planned], give_up: Option<Instant>) -> Waiting {
        let mut topics: BTreeMap<Partition, HashMap<Topic, Vec<usize>>> = BTreeMap::new();
        for (place, device) in devices.iter().enumerate() {
            let of_partition = topics.entry(device.partition).or_default();
            of_partition
                .entry(device.registration.response_topic.clone())
                .or_default()
                .push(place);
        }
        Waiting {
            topics,
            ready: Vec::new(),
            gather_until: None,
            give_up,
            started_some: false,
            next_asked: Partition(0),
            left: devices.len(),
        }
    }

    /// How many still wait for a consumer.
    pub fn left(&self) -> usize {
        self.left
    }

    /// Whether any device of that partition waits.
    pub fn waits_in(&self, partition: Partition) -> bool {
        self.topics.contains_key(&partition)
    }

    /// The partitions to ask now, in turn.
    pub fn next_to_ask(&mut self) -> Vec<Partition> {
        let after = self.topics.range(self.next_asked..).map(|(partition, _)| *partition);
        let before = self.topics.range(..self.next_asked).map(|(partition, _)| *partition);
        let asked: Vec<Partition> = after.chain(before).take(ASKED_AT_ONCE).collect();
        if let Some(last) = asked.last() {
            self.next_asked = Partition(last.0.wrapping_add(1));
        }
        asked
    }

    /// What the store says of a partition's topics.
    pub fn see(&mut self, partition: Partition, states: &[TopicState]) {
        let Some(topics) = self.topics.get_mut(&partition) else {
            return;
        };
        for state in states.iter().filter(|state| state.status == TopicStatus::Ready) {
            self.ready.extend(topics.remove(&state.topic).into_iter().flatten());
        }
        if topics.is_empty() {
            self.topics.remove(&partition);
        }
        self.left = self.topics.values().flat_map(HashMap::values).map(Vec::len).sum();
        if !self.ready.is_empty() && self.gather_until.is_none() {
            self.gather_until = Some(Instant::now() + GATHER);
        }
    }

    /// When [`take`](Waiting::take) may have something though nothing is seen.
    pub fn deadline(&self) -> Option<Instant> {
        let gather = self.gather_until.filter(|_| !self.ready.is_empty());
        let give_up = self.give_up.filter(|_| self.left > 0);
        gather.into_iter().chain(give_up).min()
    }

    /// How many devices would start now though nobody listens for them.
    pub fn given_up(&self, now: Instant) -> usize {
        if self.give_up.is_some_and(|at| at <= now) {
            self.left
        } else {
            0
        }
    }

    /// The places that start now, in partition order.
    pub fn take(&mut self, now: Instant) -> Vec<usize> {
        if self.given_up(now) > 0 {
            let topics = std::mem::take(&mut self.topics);
            self.ready
                .extend(topics.into_values().flat_map(HashMap::into_values).flatten());
            self.left = 0;
        }
        let together = self.left == 0 || self.started_some || self.gather_until.is_some_and(|at| at <= now);
        if self.ready.is_empty() || !together {
            return Vec::new();
        }
        self.started_some = true;
        let mut places = std::mem::take(&mut self.ready);
        places.sort_unstable();
        places
    }
}
