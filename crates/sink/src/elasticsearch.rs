//! The Elasticsearch sink: raw samples and windows as documents of daily indices, each exactly once.
//!
//! A document's index is its own day and its id is made of what identifies it, and it is only ever created: so whatever is
//! sent again, after a lost answer, by a successor, past midnight, meets its first copy, and 409 is success. That is why
//! these are plain indices: a data stream takes the same id again after a rollover.

mod answer;
mod bulk;
mod client;
mod counters;
mod document;
mod progress;
mod retention;
mod settle;
mod templates;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use isochrone_model::{
    id::{Partition, RunName},
    thinning::Thinning,
    time::Clock,
};
use prometheus::proto::MetricFamily;
use tokio::time::Instant;

pub use client::{Access, BadAccess, Login};

use crate::{Cut, Delivery, Departure, Error, Needs, Sink};
use bulk::Bulk;
use client::Client;
use counters::Counters;
use document::{Document, View};
use progress::Progress;
use retention::Sweeper;
use templates::Features;

/// Bytes of documents in one request, before compression: small enough that compressing it does not hold up the plotter's
/// only thread for long, large enough that a request is 2,000 documents.
pub const BULK_BYTES: usize = 1 << 20;

/// After this long a delivery hands over what is complete, well before the runner gives the attempt up.
const HAND_OVER: Duration = Duration::from_secs(4);

/// No request is begun or awaited beyond this: the runner's deadline is ten seconds.
const DEADLINE: Duration = Duration::from_secs(9);

/// What the sink is made of.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where and as whom.
    pub access: Access,
    /// Which raw samples are written (ISOCHRONE_ELASTICSEARCH_SAMPLES).
    pub samples: Thinning,
    /// How long indices are kept (ISOCHRONE_ELASTICSEARCH_RETENTION): by the server's lifecycle management, or by this sink
    /// where the server has none.
    pub retention: Option<Duration>,
}

/// The sink.
pub struct Elasticsearch {
    client: Client,
    samples: Thinning,
    retention: Option<Duration>,
    /// What the server can do; `None` until its templates are known to be there.
    features: Mutex<Option<Features>>,
    progress: Mutex<Progress>,
    sweeper: Sweeper,
    /// [`BULK_BYTES`], or less where something in between takes less.
    bulk_bytes: AtomicUsize,
    counters: Counters,
}

impl Elasticsearch {
    /// A sink that has not connected yet.
    ///
    /// # Errors
    /// An address, a certificate file or credentials that cannot be used.
    pub fn new(config: Config, clock: Arc<dyn Clock>) -> Result<Elasticsearch, BadAccess> {
        Ok(Elasticsearch {
            client: Client::new(&config.access)?,
            samples: config.samples,
            retention: config.retention,
            features: Mutex::default(),
            progress: Mutex::default(),
            sweeper: Sweeper::new(clock),
            bulk_bytes: AtomicUsize::new(BULK_BYTES),
            counters: Counters::new(),
        })
    }

    /// Its own metrics, beside those of the runner.
    pub fn families(&self) -> Vec<MetricFamily> {
        self.counters.families()
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_features(&self, features: Option<Features>) {
        *self.features.lock().unwrap_or_else(PoisonError::into_inner) = features;
    }

    /// What the server can do, asked again after it was away: it may be another one, without our templates.
    async fn features(&self) -> Result<Features, Error> {
        let known = *self.features.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(features) = known {
            return Ok(features);
        }
        let features = templates::install(&self.client, self.retention).await?;
        self.set_features(Some(features));
        Ok(features)
    }

    /// Writes as much of the batch as time allows; what is complete is in `progress`.
    async fn write(&self, batch: &[Arc<Cut>]) -> Result<(), Error> {
        let begun = Instant::now();
        let features = self.features().await?;
        if let (Some(retention), false) = (self.retention, features.lifecycle) {
            self.sweeper.sweep(&self.client, retention).await;
        }
        let mut bulk = Bulk::default();
        for (at, cut) in batch.iter().enumerate() {
            let view = View::new(cut, features.histogram);
            let written = self.progress().written(cut);
            let mut count = 0;
            for (index, document) in view.documents().enumerate() {
                count = index + 1;
                if index < written || !self.keeps(&document) {
                    continue;
                }
                if bulk.bytes() >= self.bulk_bytes.load(Ordering::Relaxed) {
                    self.settle(&mut bulk, batch, begun + DEADLINE).await?;
                    if begun.elapsed() >= HAND_OVER {
                        return Ok(());
                    }
                }
                bulk.push(at, index, &view, &document);
            }
            bulk.end(at, count);
        }
        self.settle(&mut bulk, batch, begun + DEADLINE).await
    }

    fn keeps(&self, document: &Document<'_>) -> bool {
        match document {
            Document::Sample { sample, .. } => self.samples.keeps(sample.epoch, sample.sequence),
            Document::Window(_) => true,
        }
    }

    /// What became of a cut that is written.
    fn account(&self, cut: &Cut, set_aside: &progress::SetAside) -> Delivery {
        let mut delivery = cut.delivered();
        for (topic, counts) in &mut delivery.topics {
            counts.set_aside = set_aside.get(topic).copied().unwrap_or(0);
            counts.exported -= counts.set_aside.min(counts.exported);
        }
        if self.samples == Thinning::All {
            return delivery;
        }
        for (topic, sample) in document::samples(cut) {
            if !self.samples.keeps(sample.epoch, sample.sequence)
                && let Some(counts) = delivery.topics.get_mut(topic)
            {
                counts.thinned += 1;
                counts.exported = counts.exported.saturating_sub(1);
            }
        }
        delivery
    }
}

#[async_trait]
impl Sink for Elasticsearch {
    fn name(&self) -> &'static str {
        "elasticsearch"
    }

    fn needs(&self) -> Needs {
        Needs::EveryCut
    }

    async fn open(&self) -> Result<(), Error> {
        self.features().await.map(drop)
    }

    async fn deliver(&self, batch: &[Arc<Cut>]) -> Result<Vec<Delivery>, Error> {
        if let Err(error) = self.write(batch).await {
            if matches!(error, Error::Away { .. }) {
                self.set_features(None);
            }
            return Err(error);
        }
        let mut progress = self.progress();
        let complete = batch.iter().map_while(|cut| {
            let set_aside = progress.take_complete(cut)?;
            Some(self.account(cut, &set_aside))
        });
        Ok(complete.collect())
    }

    fn depart(&self, run: &RunName, partition: Partition, _how: Departure) {
        self.progress().forget(run, partition);
    }
}
