//! What every sink promises, and what it is given.

use std::{collections::BTreeMap, fmt, sync::Arc};

use async_trait::async_trait;
use isochrone_model::{
    id::{Partition, RunName, Topic},
    time::Second,
    window::{CutEntry, Totals, Window},
};

use crate::Error;

/// One time-series store.
///
/// The [runner](crate::runner) is the only caller. What it promises to a sink:
/// - `open` is called before the first `deliver`, and again until it succeeds.
/// - `deliver` is never called twice at a time. A batch is never empty, its cuts of one partition are in the order of their
///   numbers. A batch that failed, or whose answer was lost, comes again, maybe split or with other cuts beside it: the sink
///   must make its documents' identity from run, partition, topic, kind, second and cut number, which never change.
/// - Everything it is given has already been stored as a cut: a crash anywhere here is followed by the same bytes again.
/// - `depart` is called when a partition's cuts stop coming, whatever is still queued.
/// - `close` is called once, after the last `deliver`; it must end within its caller's deadline.
///
/// What a sink promises:
/// - `Ok` from `deliver` means that the back end has everything durably, as far as it promises that at all.
/// - It accounts for every sample of every cut: one [`Delivery`] a cut, in the order of the batch. Fewer than there are cuts
///   mean that the others come again at once; a sink answers so only when it got further.
/// - Each call ends within the runner's attempt deadline or may be dropped there without harm.
#[async_trait]
pub trait Sink: Send + Sync {
    /// The name of its cursor in the store, and its label in metrics; never changes.
    fn name(&self) -> &'static str;
    /// What it must be given.
    fn needs(&self) -> Needs;
    /// Prepares the back end: templates, buckets, a first connection.
    async fn open(&self) -> Result<(), Error> {
        Ok(())
    }
    /// A partition was taken: the fields that [`Sink::keep`] last returned for it, under whichever plotter. Before any cut of it.
    fn recall(&self, run: &RunName, partition: Partition, kept: &[(String, Vec<u8>)]) {
        let _ = (run, partition, kept);
    }
    /// What must outlive this plotter, asked before each cut is stored and stored with it in one step: fields that changed.
    /// `second` is the cut's.
    fn keep(&self, run: &RunName, partition: Partition, second: Second, totals: &Totals) -> Vec<(String, Vec<u8>)> {
        let _ = (run, partition, second, totals);
        Vec::new()
    }
    /// Delivers cuts.
    async fn deliver(&self, batch: &[Arc<Cut>]) -> Result<Vec<Delivery>, Error>;
    /// A partition of a run is no longer this plotter's.
    fn depart(&self, run: &RunName, partition: Partition, how: Departure) {
        let _ = (run, partition, how);
    }
    /// Sends what it holds back.
    async fn close(&self) -> Result<(), Error> {
        Ok(())
    }
}

/// What a sink is built on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// The newest cumulative state: cuts may be skipped, a newer one replaces an older one in the queue.
    Totals,
    /// Every cut, with its windows and entries.
    EveryCut,
}

/// One cut of one partition. The same cut always holds the same, whoever builds it.
pub struct Cut {
    /// The run.
    pub run: RunName,
    /// The partition.
    pub partition: Partition,
    /// 1, 2, 3… within the partition.
    pub number: u64,
    /// Nothing in it is of a later second.
    pub second: Second,
    /// Its entries in stream order; empty for sinks that need [`Needs::Totals`].
    pub entries: Vec<CutEntry>,
    /// What the entries add to the windows of both kinds; empty likewise.
    pub windows: Vec<Window>,
    /// The partition's cumulative state, this cut (at least) included. Sinks that need [`Needs::EveryCut`] are given its
    /// [outline](Totals::outline): many cuts may wait for them.
    pub totals: Arc<Totals>,
    /// Unique samples in this cut, by response topic.
    pub samples: BTreeMap<Topic, u64>,
    /// Whether the partition is still this plotter's.
    pub hold: Hold,
}

/// Says at any moment whether a partition's lease is valid.
#[derive(Clone)]
pub struct Hold(Arc<dyn Fn() -> bool + Send + Sync>);

/// What became of one cut's samples.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    /// By response topic; the sum of a topic's counts is its [`Cut::samples`].
    pub topics: BTreeMap<Topic, Counts>,
}

/// One topic's part of a [`Delivery`], in samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Delivered.
    pub exported: u64,
    /// Left out by thinning.
    pub thinned: u64,
    /// Refused for good.
    pub set_aside: u64,
}

/// Why a partition's cuts stop coming.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure {
    /// The run is closed: its figures are final.
    Closed,
    /// Another plotter has it, or will have: it is no longer ours to show.
    Moved,
}

impl Cut {
    /// The delivery that says: all of it went out.
    pub fn delivered(&self) -> Delivery {
        self.account(|samples| Counts {
            exported: samples,
            ..Counts::default()
        })
    }

    /// The delivery that says: none of it can ever go out.
    pub fn set_aside(&self) -> Delivery {
        self.account(|samples| Counts {
            set_aside: samples,
            ..Counts::default()
        })
    }

    fn account(&self, counts: impl Fn(u64) -> Counts) -> Delivery {
        let topics = self
            .samples
            .iter()
            .map(|(topic, samples)| (topic.clone(), counts(*samples)));
        Delivery {
            topics: topics.collect(),
        }
    }
}

impl Hold {
    /// Asks `valid` each time.
    pub fn new(valid: impl Fn() -> bool + Send + Sync + 'static) -> Hold {
        Hold(Arc::new(valid))
    }

    /// Whether both are of the same taking of the partition.
    pub fn is(&self, other: &Hold) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether the lease is valid now.
    pub fn is_valid(&self) -> bool {
        (self.0)()
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hold").field(&self.is_valid()).finish()
    }
}

impl fmt::Debug for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cut")
            .field("run", &self.run)
            .field("partition", &self.partition)
            .field("number", &self.number)
            .field("second", &self.second)
            .field("entries", &self.entries.len())
            .field("samples", &self.samples)
            .finish()
    }
}
