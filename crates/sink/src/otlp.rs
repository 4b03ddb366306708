//! The OpenTelemetry sink: sums, gauges and exponential histograms with the cuts' own times, over http/protobuf or gRPC.
//!
//! Each partition is a resource of its own, so that it moves between plotters as a whole. Cumulative points are the newest
//! state (a refused or skipped one is made good by the next), delta points are what one cut added.

mod client;
mod exponential;
mod instruments;
mod points;
mod state;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use isochrone_model::{
    id::{Partition, RunName},
    time::Second,
    window::{CutEntry, TopicTotals, Totals},
};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsPartialSuccess;
use prometheus::proto::{MetricFamily, MetricType};
use tokio::time::{Instant, sleep_until};
use tracing::warn;

pub use client::BadConfig;
pub use exponential::MAX_BUCKETS;

use crate::{
    Cut, Delivery, Departure, Error, Needs, Sink,
    prometheus::families::{counter, family},
};
use client::Client;
use points::{Subject, requests};
use state::Held;

/// Bytes of one request before compression; receivers commonly take 4 MiB (gRPC's default).
const REQUEST_BYTES: usize = 2 << 20;

/// What the sink is made of.
#[derive(Clone)]
pub struct Config {
    /// A base URL such as `http://localhost:4318`; `/v1/metrics` is added for [`Protocol::Http`].
    pub endpoint: String,
    /// How it is sent.
    pub protocol: Protocol,
    /// Sent with every request; values are secrets.
    pub headers: Vec<(String, String)>,
    /// What a point adds up.
    pub temporality: Temporality,
    /// PEM file with the certificates to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// Topics with series of their own.
    pub topics: usize,
    /// How long the store may still lose a cut (2 s for Redis, 0 in memory): a running total waits for that, or it could fall.
    pub hold_back: Duration,
}

/// How requests travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Protobuf over HTTP.
    Http,
    /// gRPC.
    Grpc,
}

/// What a point adds up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Temporality {
    /// Everything since the run began in this partition.
    Cumulative,
    /// What one cut added.
    Delta,
}

/// The sink.
pub struct Otlp {
    temporality: Temporality,
    topics: usize,
    hold_back: Duration,
    client: Client,
    partitions: Mutex<BTreeMap<(RunName, Partition), Held>>,
    progress: Mutex<Progress>,
    rejected: AtomicU64,
}

/// How far a batch has come, for when it comes again, whole or in pieces.
#[derive(Default)]
struct Progress {
    /// Run, partition and number of its cuts.
    batch: Vec<(RunName, Partition, u64)>,
    /// How many of its requests were answered.
    answered: usize,
    /// All of them were.
    complete: bool,
    /// Of which instances points were refused.
    refused: BTreeSet<String>,
    /// What the receiver last said about that.
    message: String,
}

impl Otlp {
    /// Nothing is connected yet.
    ///
    /// # Errors
    /// Settings that cannot work.
    pub fn new(config: &Config) -> Result<Otlp, BadConfig> {
        Ok(Otlp {
            temporality: config.temporality,
            topics: config.topics,
            hold_back: config.hold_back,
            client: Client::new(config)?,
            partitions: Mutex::default(),
            progress: Mutex::default(),
            rejected: AtomicU64::new(0),
        })
    }

    /// Points that the receiver refused while it took the rest of their request.
    pub fn rejected_points(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }

    /// What it counts of itself, for the plotter's page.
    pub fn families(&self) -> Vec<MetricFamily> {
        vec![family(
            "isochrone_otlp_rejected_points_total",
            "Points that the OTLP receiver refused while it took the rest of their request.",
            MetricType::COUNTER,
            vec![counter(Vec::new(), self.rejected_points())],
        )]
    }

    fn partitions(&self) -> MutexGuard<'_, BTreeMap<(RunName, Partition), Held>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a cut says; `None` when its partition has left meanwhile.
    fn subject<'a>(&self, cut: &'a Cut) -> Option<Subject<'a>> {
        let added = (self.temporality == Temporality::Delta).then(|| difference(cut));
        let totals = added.as_ref().unwrap_or(&cut.totals);
        let mut partitions = self.partitions();
        let held = partitions.get_mut(&(cut.run.clone(), cut.partition))?;
        let interval = match self.temporality {
            Temporality::Cumulative => held.running(cut),
            Temporality::Delta => held.between(cut, totals),
        };
        let mut topics: BTreeMap<&str, TopicTotals> = BTreeMap::new();
        for (topic, totals) in totals.topics() {
            topics.entry(held.topics.label(topic)).or_default().merge(totals);
        }
        Some(Subject {
            run: &cut.run,
            partition: cut.partition,
            system: held.system().to_owned(),
            interval,
            topics: topics
                .into_iter()
                .map(|(name, totals)| (name.to_owned(), totals))
                .collect(),
            bound_ns: cut.totals.run().bound_ns(),
            verdicts: held.verdicts(cut.totals.seconds()),
            alone: held.refused,
        })
    }

    /// What was already said of all these cuts: the instances of which points were refused.
    fn said(&self, batch: &[Arc<Cut>]) -> Option<BTreeSet<String>> {
        let progress = self.progress();
        let is_known = |cut: &Arc<Cut>| progress.batch.contains(&identity(cut));
        (progress.complete && batch.iter().all(is_known)).then(|| progress.refused.clone())
    }

    /// Sends what is not there yet; the instances of which points were refused.
    async fn send(&self, batch: &[Arc<Cut>], subjects: &[Subject<'_>]) -> Result<BTreeSet<String>, Error> {
        let batch: Vec<_> = batch.iter().map(identity).collect();
        let answered = {
            let mut progress = self.progress();
            if progress.batch != batch {
                *progress = Progress {
                    batch,
                    ..Progress::default()
                };
            }
            progress.answered
        };
        for request in requests(subjects, self.temporality, REQUEST_BYTES)
            .into_iter()
            .skip(answered)
        {
            let about: Vec<_> = request.resource_metrics.iter().filter_map(points::instance).collect();
            let answer = self.client.export(request).await?;
            let refused = answer.partial_success.filter(|partial| self.note(partial));
            let mut progress = self.progress();
            progress.answered += 1;
            if let Some(partial) = refused {
                progress.refused.extend(about);
                progress.message = partial.error_message;
            }
        }
        let mut progress = self.progress();
        progress.complete = true;
        Ok(progress.refused.clone())
    }

    /// Counts refused points; whether there were any (without them the message is a warning of the receiver's).
    fn note(&self, partial: &ExportMetricsPartialSuccess) -> bool {
        let rejected = u64::try_from(partial.rejected_data_points).unwrap_or_default();
        if rejected > 0 && self.rejected.fetch_add(rejected, Ordering::Relaxed) == 0 {
            warn!(
                rejected,
                "the OTLP receiver refused points and took the others: {}; further ones are only counted",
                partial.error_message
            );
        }
        rejected > 0
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the store can no longer lose any of these.
    fn safe_at(&self, batch: &[Arc<Cut>]) -> Option<Instant> {
        if self.temporality == Temporality::Delta {
            // The plotter offers single cuts only then.
            return None;
        }
        let partitions = self.partitions();
        let safe = batch.iter().filter_map(|cut| {
            let held = partitions.get(&(cut.run.clone(), cut.partition))?;
            held.safe_at(cut, self.hold_back)
        });
        safe.max()
    }
}

#[async_trait]
impl Sink for Otlp {
    fn name(&self) -> &'static str {
        "otlp"
    }

    fn needs(&self) -> Needs {
        match self.temporality {
            Temporality::Cumulative => Needs::Totals,
            Temporality::Delta => Needs::EveryCut,
        }
    }

    fn recall(&self, run: &RunName, partition: Partition, kept: &[(String, Vec<u8>)]) {
        self.partitions().insert((run.clone(), partition), Held::recall(kept));
    }

    fn keep(&self, run: &RunName, partition: Partition, second: Second, totals: &Totals) -> Vec<(String, Vec<u8>)> {
        let mut partitions = self.partitions();
        let named: usize = partitions.values().map(|held| held.topics.named()).sum();
        let room = self.topics.saturating_sub(named);
        let held = partitions.entry((run.clone(), partition)).or_default();
        // Single cuts are offered only when they are safe; nobody would ask for them.
        if self.temporality == Temporality::Cumulative {
            held.store(second, Instant::now(), self.hold_back);
        }
        held.keep(second, totals, room)
    }

    async fn deliver(&self, batch: &[Arc<Cut>]) -> Result<Vec<Delivery>, Error> {
        let refused = match self.said(batch) {
            Some(refused) => refused,
            None => {
                if let Some(safe) = self.safe_at(batch) {
                    sleep_until(safe).await;
                }
                let subjects: Vec<_> = batch.iter().filter_map(|cut| self.subject(cut)).collect();
                self.send(batch, &subjects).await?
            }
        };
        let is_refused = |cut: &Cut| refused.contains(&points::instance_id(&cut.run, cut.partition));
        let mut partitions = self.partitions();
        for cut in batch {
            if let Some(held) = partitions.get_mut(&(cut.run.clone(), cut.partition)) {
                held.refused = is_refused(cut);
            }
        }
        // The runner finds by halving which of them it is; what is known of a batch is known of its pieces.
        if self.temporality == Temporality::Cumulative && batch.iter().any(|cut| is_refused(cut)) {
            let mut progress = self.progress();
            // When the same comes again after that, it is to be sent again.
            if let [cut] = batch {
                progress.batch.retain(|known| *known != identity(cut));
            }
            return Err(Error::Poison {
                address: self.client.address().to_owned(),
                cause: format!("points of running totals were refused: {}", progress.message),
            });
        }
        let deliveries = batch.iter().map(|cut| {
            if let Some(held) = partitions.get_mut(&(cut.run.clone(), cut.partition)) {
                held.delivered(cut.number);
            }
            // That all of it went out is not known.
            if is_refused(cut) {
                cut.set_aside()
            } else {
                cut.delivered()
            }
        });
        Ok(deliveries.collect())
    }

    fn depart(&self, run: &RunName, partition: Partition, _: Departure) {
        self.partitions().remove(&(run.clone(), partition));
        // Whoever takes it next may count its cuts anew.
        let mut progress = self.progress();
        if progress.complete {
            *progress = Progress::default();
        }
    }
}

fn identity(cut: &Arc<Cut>) -> (RunName, Partition, u64) {
    (cut.run.clone(), cut.partition, cut.number)
}

/// What one cut adds, counted as the totals are.
fn difference(cut: &Cut) -> Totals {
    let mut added = Totals::new();
    for entry in &cut.entries {
        if let CutEntry::Send { parts, .. } = entry {
            for device in parts.iter().filter_map(|part| cut.totals.devices().get(&part.epoch)) {
                added.know_device(device);
            }
        }
    }
    cut.entries.iter().for_each(|entry| added.apply(entry));
    added
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("endpoint", &self.endpoint)
            .field("protocol", &self.protocol)
            .field("temporality", &self.temporality)
            .finish_non_exhaustive()
    }
}
