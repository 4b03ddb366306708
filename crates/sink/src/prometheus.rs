//! The Prometheus sink: nothing is sent, `/metrics` of the plotter shows the newest cumulative state.
//!
//! Every series comes from one partition (its label), so that it moves between plotters as a whole and never falls: what a
//! topic shows is the stored state of its partition, and which topics show by name is stored with it.

pub(crate) mod families;
pub(crate) mod kept;
mod series;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use isochrone_model::{
    id::{Partition, RunName, Topic},
    time::{Clock, Monotonic, Second, unsigned_nanos},
    window::Totals,
};
use prometheus::proto::MetricFamily;

pub use crate::topics::OTHER;

use crate::{Cut, Delivery, Departure, Error, Hold, Needs, Sink, topics::Topics};
use kept::Verdicts;
use series::Series;

/// How long the series of a closed run stay: a few scrapes at any usual interval see the final figures.
pub const LINGER: Duration = Duration::from_secs(300);

/// What the sink is made of.
#[derive(Clone, Debug)]
pub struct Config {
    /// Topics with series of their own (ISOCHRONE_PROMETHEUS_TOPICS). What another plotter showed by name is kept when its
    /// partitions are taken over, also beyond this.
    pub topics: usize,
    /// Upper bounds of the classic buckets in seconds, ascending (ISOCHRONE_PROMETHEUS_BUCKETS).
    pub buckets: Vec<f64>,
    /// How long a cut is held back: the store may still lose it (2 s for Redis, 0 in memory).
    pub hold_back: Duration,
}

/// The sink.
pub struct Prometheus {
    config: Config,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    partitions: BTreeMap<(RunName, Partition), Shown>,
    runs: BTreeMap<RunName, Vec<(String, String)>>,
}

/// What one partition shows.
#[derive(Default)]
struct Shown {
    topics: Topics,
    verdicts: Verdicts,
    /// The newest that may be shown, then those held back, oldest first.
    generations: VecDeque<Generation>,
    presence: Presence,
}

/// The figures as of one cut.
struct Generation {
    due: Monotonic,
    second: Second,
    topics: Vec<(Topic, Series)>,
    other: Option<Series>,
    verdicts: Verdicts,
    /// With all seconds counted, for when the run is closed.
    final_verdicts: Verdicts,
    bound_ns: u64,
    unknown_epochs: u64,
}

#[derive(Default)]
enum Presence {
    /// Taken, no cut yet.
    #[default]
    Expected,
    /// Shown while the lease is valid.
    Held(Hold),
    /// Final figures, shown until then.
    Lingers(Monotonic),
}

impl Prometheus {
    /// An empty page.
    pub fn new(config: Config, clock: Arc<dyn Clock>) -> Prometheus {
        Prometheus {
            config,
            clock,
            state: Mutex::default(),
        }
    }

    /// What `isochrone_run_info` says of a run beside its name.
    pub fn describe(&self, run: &RunName, labels: Vec<(String, String)>) {
        self.state().runs.insert(run.clone(), labels);
    }

    /// Everything to show now, families in the order of their names; none is empty.
    pub fn families(&self) -> Vec<MetricFamily> {
        let now = self.clock.monotonic();
        let mut state = self.state();
        state
            .partitions
            .retain(|_, shown| !matches!(shown.presence, Presence::Lingers(until) if now >= until));
        for shown in state.partitions.values_mut() {
            shown.promote(now);
        }
        families::render(&self.config.buckets, now, &state.partitions, &state.runs)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Sink for Prometheus {
    fn name(&self) -> &'static str {
        "prometheus"
    }

    fn needs(&self) -> Needs {
        Needs::Totals
    }

    fn recall(&self, run: &RunName, partition: Partition, kept: &[(String, Vec<u8>)]) {
        let mut shown = Shown::default();
        for (field, bytes) in kept {
            match field.as_str() {
                kept::TOPICS => shown.topics = Topics::unpack(bytes),
                kept::SECONDS => shown.verdicts = Verdicts::unpack(bytes),
                _ => {}
            }
        }
        self.state().partitions.insert((run.clone(), partition), shown);
    }

    fn keep(&self, run: &RunName, partition: Partition, second: Second, totals: &Totals) -> Vec<(String, Vec<u8>)> {
        let mut state = self.state();
        let named: usize = state.partitions.values().map(|shown| shown.topics.named()).sum();
        let room = self.config.topics.saturating_sub(named);
        let shown = state.partitions.entry((run.clone(), partition)).or_default();
        let mut fields = Vec::new();
        if shown.topics.admit(totals.topics().keys(), room) {
            fields.push((kept::TOPICS.to_owned(), shown.topics.pack()));
        }
        if shown.verdicts.settle(totals.seconds(), second) {
            fields.push((kept::SECONDS.to_owned(), shown.verdicts.pack()));
        }
        fields
    }

    async fn deliver(&self, batch: &[Arc<Cut>]) -> Result<Vec<Delivery>, Error> {
        let due = self.clock.monotonic() + unsigned_nanos(self.config.hold_back);
        for cut in batch {
            let mut state = self.state();
            // Recalled when the partition was taken, gone when it left: a straggler must not bring it back.
            if let Some(shown) = state.partitions.get_mut(&(cut.run.clone(), cut.partition)) {
                let generation = shown.generation(&self.config.buckets, due, cut);
                shown.generations.push_back(generation);
                shown.presence = Presence::Held(cut.hold.clone());
                // Nobody may be scraping: what is replaced goes here too.
                shown.promote(self.clock.monotonic());
            }
        }
        Ok(batch.iter().map(|cut| cut.delivered()).collect())
    }

    fn depart(&self, run: &RunName, partition: Partition, how: Departure) {
        let mut state = self.state();
        let key = (run.clone(), partition);
        let now = self.clock.monotonic();
        match how {
            Departure::Moved => {
                state.partitions.remove(&key);
            }
            Departure::Closed => {
                if let Some(shown) = state.partitions.get_mut(&key) {
                    shown.finish(now + unsigned_nanos(LINGER));
                }
            }
        }
        // A sweep, because a run of many would otherwise stay until the next scrape, which may never come.
        state
            .partitions
            .retain(|_, shown| !matches!(shown.presence, Presence::Lingers(until) if now >= until));
        let State { partitions, runs } = &mut *state;
        runs.retain(|run, _| partitions.keys().any(|(other, _)| other == run));
    }
}

impl Shown {
    fn generation(&self, buckets: &[f64], due: Monotonic, cut: &Cut) -> Generation {
        let (mut topics, mut other) = (Vec::new(), None);
        for (topic, totals) in cut.totals.topics() {
            let series = Series::new(buckets, totals);
            if self.topics.label(topic) == OTHER {
                other.get_or_insert_with(|| Series::empty(buckets)).add(&series);
            } else {
                topics.push((topic.clone(), series));
            }
        }
        let mut final_verdicts = self.verdicts;
        final_verdicts.finish(cut.totals.seconds());
        Generation {
            due,
            second: cut.second,
            topics,
            other,
            verdicts: self.verdicts,
            final_verdicts,
            bound_ns: cut.totals.run().bound_ns(),
            unknown_epochs: cut.totals.run().unknown_epochs,
        }
    }

    /// Drops what a newer generation that may be shown replaces.
    fn promote(&mut self, now: Monotonic) {
        while self.generations.get(1).is_some_and(|next| now >= next.due) {
            self.generations.pop_front();
        }
    }

    /// The run is closed: its figures are final.
    fn finish(&mut self, until: Monotonic) {
        self.generations.drain(..self.generations.len().saturating_sub(1));
        if let Some(last) = self.generations.front_mut() {
            last.due = Monotonic(0);
            last.verdicts = last.final_verdicts;
        }
        self.presence = Presence::Lingers(until);
    }

    fn visible(&self, now: Monotonic) -> Option<&Generation> {
        let shows = match &self.presence {
            Presence::Expected => false,
            Presence::Held(hold) => hold.is_valid(),
            Presence::Lingers(_) => true,
        };
        self.generations.front().filter(|first| shows && now >= first.due)
    }
}
