//! Cares for what dead daemons leave behind, and moves a run on.
//!
//! Every consumer and plotter (and `report --wait`) has one a run. They are ranked by their ids among those that live. All of
//! them watch the roster, which is one key; the first few watch the leases of every partition, for an observation counts only
//! for who made it; the first moves the run on.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use isochrone_model::id::{DaemonId, RunName};
use isochrone_store::{
    Error,
    lease::ANSWER_WITHIN,
    types::{Member, Role, RunRecord},
};
use tokio::{sync::watch, task::JoinHandle, time::timeout};

use crate::Context;

mod closer;
mod watcher;

pub use closer::SINK_PATIENCE;

use closer::Closer;
use watcher::Watcher;

/// Snapshots of a large partition take longer.
const LONG_ANSWER: Duration = Duration::from_secs(10);

/// How many watch leases: one would do, and the others have seen as much when it dies. All of them would ask for as many keys
/// as there are daemons times partitions.
const LEASE_WATCHERS: usize = 3;

/// The tasks that watch one run. Dropped, they end.
#[derive(Debug)]
pub struct Warden {
    task: JoinHandle<()>,
    over: Arc<AtomicBool>,
}

impl Warden {
    /// Starts watching; ends when dropped, when the run is gone, or when the daemon aborts. A closed run is watched on: a
    /// plotter may still work on what it left.
    pub fn start(context: &Context, run: &RunName) -> Warden {
        let (context, run) = (context.clone(), run.clone());
        let tasks = context.tasks.clone();
        let over = Arc::new(AtomicBool::new(false));
        let closed = over.clone();
        let task = tasks.spawn_job("warden", async move {
            let stop = context.stop.clone();
            let Some(record) = known(&context, &run).await else {
                return;
            };
            let context = Arc::new(context);
            let (rank, is_ranked) = watch::channel(None);
            let mut watcher = Watcher::new(context.clone(), &record, rank);
            let mut closer = Closer::new(context, &record, is_ranked);
            let caring = async {
                closer.run().await;
                closed.store(true, Ordering::Release);
                pending().await
            };
            tokio::select! {
                () = caring => {}
                () = watcher.run() => {}
                () = stop.aborting() => {}
            }
        });
        Warden { task, over }
    }

    /// The run is closed or gone (or the daemon aborts): there is nothing to watch any more.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire) || self.task.is_finished()
    }
}

impl Drop for Warden {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The run's record, as soon as the store answers; `None` when there is no such run.
async fn known(context: &Context, run: &RunName) -> Option<RunRecord> {
    loop {
        match answer(ANSWER_WITHIN, context.store.run(run)).await {
            Ok(record) => return record,
            Err(_) => tokio::time::sleep(context.common.lease / 6).await,
        }
    }
}

/// How many living consumers and plotters come before this daemon.
fn rank(daemon: DaemonId, roster: &[Member]) -> usize {
    let before = |member: &&Member| member.stands() && member.role != Role::Producer && member.daemon < daemon;
    roster.iter().filter(before).count()
}

/// A call with a deadline.
async fn answer<T>(within: Duration, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match timeout(within, call).await {
        Ok(answer) => answer,
        Err(_) => Err(Error::Away {
            address: "ISOCHRONE_REDIS_URL".to_owned(),
            cause: format!("no answer within {within:?}"),
        }),
    }
}
