//! The sinks of this plotter, each behind its runner.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use isochrone_model::id::{Partition, RunName};
use isochrone_sink::{
    Departure, Sink,
    runner::{Counters, Limits, Passed, Runner},
};
use prometheus::{IntCounterVec, Opts, core::Collector, proto::MetricFamily};
use tokio::sync::mpsc;

/// Results that wait to be stored; when they do, sinks wait too (nothing is lost: a cut is passed only when it is stored so).
const PASSED_CAPACITY: usize = 256;

/// What of a runner's counters is shown: name, help, which.
type Shown = (&'static str, &'static str, fn(&Counters) -> &AtomicU64);

const SHOWN: [Shown; 4] = [
    (
        "isochrone_sink_cuts_total",
        "Cuts (of one partition) that a sink has done with.",
        |counters| &counters.delivered,
    ),
    (
        "isochrone_sink_retries_total",
        "Attempts of a sink that failed and were repeated.",
        |counters| &counters.retries,
    ),
    (
        "isochrone_sink_set_aside_samples_total",
        "Samples that a back end refused for good.",
        |counters| &counters.set_aside,
    ),
    (
        "isochrone_sink_full_total",
        "Times that a sink's queue was full; the cut stayed in the store.",
        |counters| &counters.full,
    ),
];

/// All sinks.
pub struct Sinks {
    all: Vec<(Arc<dyn Sink>, Runner)>,
}

impl Sinks {
    /// Starts them.
    pub fn start(sinks: Vec<Arc<dyn Sink>>) -> (Sinks, mpsc::Receiver<Passed>) {
        let (sender, passed) = mpsc::channel(PASSED_CAPACITY);
        let start = |sink: Arc<dyn Sink>| (sink.clone(), Runner::start(sink, Limits::default(), sender.clone()));
        (
            Sinks {
                all: sinks.into_iter().map(start).collect(),
            },
            passed,
        )
    }

    /// Their names: those of their cursors.
    pub fn names(&self) -> Vec<String> {
        self.all.iter().map(|(sink, _)| sink.name().to_owned()).collect()
    }

    /// The sinks themselves.
    pub fn each(&self) -> impl Iterator<Item = &Arc<dyn Sink>> {
        self.all.iter().map(|(sink, _)| sink)
    }

    /// Their runners.
    pub fn runners(&self) -> impl Iterator<Item = &Runner> {
        self.all.iter().map(|(_, runner)| runner)
    }

    /// What the runners have counted, for a page.
    pub fn families(&self) -> impl Fn() -> Vec<MetricFamily> + Send + Sync + 'static {
        let runners: Vec<_> = self
            .runners()
            .map(|runner| (runner.name(), runner.counters().clone()))
            .collect();
        move || {
            let families = SHOWN.iter().filter_map(|(name, help, which)| {
                // The names are constants, and valid.
                let family = IntCounterVec::new(Opts::new(*name, *help), &["sink"]).ok()?;
                for (sink, counters) in &runners {
                    let count = which(counters).load(Ordering::Relaxed);
                    family.with_label_values(&[sink]).inc_by(count);
                }
                Some(family.collect())
            });
            families.flatten().collect()
        }
    }

    /// A partition is no longer ours.
    pub fn depart(&self, run: &RunName, partition: Partition, how: Departure) {
        for runner in self.runners() {
            runner.depart(run, partition, how);
        }
    }

    /// A sink whose task has ended: it has panicked, and its cuts would wait for ever.
    pub fn dead(&self) -> Option<&'static str> {
        self.runners().find(|runner| runner.is_finished()).map(Runner::name)
    }

    /// Lets each finish what it has, all at the same time.
    pub async fn close(self, deadline: Duration) {
        join_all(self.all.into_iter().map(|(_, runner)| runner.close(deadline))).await;
    }
}
