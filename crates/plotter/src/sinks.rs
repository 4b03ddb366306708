//! The sinks of this plotter, each behind its runner.

use std::{sync::Arc, time::Duration};

use isochrone_model::id::{Partition, RunName};
use isochrone_sink::{
    Departure, Sink,
    runner::{Limits, Passed, Runner},
};
use tokio::sync::mpsc;

/// Results that wait to be stored; when they do, sinks wait too (nothing is lost: a cut is passed only when it is stored so).
const PASSED_CAPACITY: usize = 256;

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

    /// A partition is no longer ours.
    pub fn depart(&self, run: &RunName, partition: Partition, how: Departure) {
        for runner in self.runners() {
            runner.depart(run, partition, how);
        }
    }

    /// Lets each finish what it has.
    pub async fn close(self, deadline: Duration) {
        for (_, runner) in self.all {
            runner.close(deadline).await;
        }
    }
}
