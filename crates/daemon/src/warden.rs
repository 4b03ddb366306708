//! Cares for what dead daemons leave behind, and moves a run on.
//!
//! Every consumer and plotter (and `report --wait`) has one a run. All of them watch the roster, which is one key. Those that
//! joined the run first, of those that live, watch the leases of every partition, for an observation counts only for who made
//! it; the very first moves the run on.

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
    lease::ANSWER_WITHIN,
    types::{Member, Role, RunRecord},
};
use tokio::{sync::watch, task::JoinHandle};

use crate::{Context, lease::answer};

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
            let (seen, roster) = watch::channel(None);
            let mut watcher = Watcher::new(context.clone(), &record, seen);
            let mut closer = Closer::new(context, &record, roster);
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

/// The consumers and plotters that joined before this daemon and stand; all of them when it is not on the roster itself. Who
/// joins later comes later, so that daemons which start and die again and again stand before nobody.
fn elders(daemon: DaemonId, roster: &[Member]) -> impl Iterator<Item = &Member> {
    let standing = || roster.iter().filter(|member| member.stands());
    let own = standing().find(|member| member.daemon == daemon);
    let own = own.map(|member| (member.joined, member.daemon));
    standing()
        .filter(|member| member.role != Role::Producer)
        .filter(move |member| own.is_none_or(|own| (member.joined, member.daemon) < own))
}

/// Whether this daemon moves the run on.
fn leads(daemon: DaemonId, roster: &[Member]) -> bool {
    elders(daemon, roster).next().is_none()
}

/// Whether this daemon watches the leases: always when it is not on the roster (`report --wait`: nobody else may be left).
fn watches_leases(daemon: DaemonId, roster: &[Member], lives: impl Fn(DaemonId) -> bool) -> bool {
    let is_outside = !roster.iter().any(|member| member.daemon == daemon && member.stands());
    is_outside || elders(daemon, roster).filter(|elder| lives(elder.daemon)).count() < LEASE_WATCHERS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(daemon: u64, role: Role, joined: u64) -> Member {
        Member {
            daemon: DaemonId(daemon),
            role,
            ordinal: 0,
            counter: 0,
            joined,
            ended: false,
            vanished: false,
        }
    }

    /// Of those that live, the three that joined first watch, and who is not on the roster; one leads. A sentence for each row:
    /// who stands still, and who watches then.
    #[test]
    fn the_first_to_join_watch() {
        let mut roster: Vec<Member> = (1..=6).map(|n| member(100 - n, Role::Consumer, n)).collect();
        roster[1].role = Role::Plotter;
        roster.push(member(1, Role::Producer, 0));
        roster.push(Member {
            ended: true,
            ..member(2, Role::Consumer, 0)
        });
        roster.push(Member {
            vanished: true,
            ..member(3, Role::Consumer, 0)
        });
        let outsider = 50;
        for (dead, watching, sentence) in [
            (&[][..], &[99, 98, 97, outsider][..], "all live"),
            (
                &[98],
                &[99, 98, 97, 96, outsider],
                "one has died: another joins in before it is off the roster",
            ),
            (
                &[99, 98, 97],
                &[99, 98, 97, 96, 95, 94, outsider],
                "three have died together",
            ),
            (&[94, 95], &[99, 98, 97, outsider], "newcomers have died"),
        ] {
            let lives = |daemon: DaemonId| !dead.contains(&daemon.0);
            let watches = |id: &u64| watches_leases(DaemonId(*id), &roster, lives);
            let found: Vec<u64> = [99, 98, 97, 96, 95, 94, outsider].into_iter().filter(watches).collect();
            assert_eq!(found, watching, "{sentence}");
        }
        let leading: Vec<u64> = [99, 98, 50]
            .into_iter()
            .filter(|id| leads(DaemonId(*id), &roster))
            .collect();
        assert_eq!(leading, [99]);
        assert!(leads(DaemonId(outsider), &roster[6..]), "nobody else is left");
    }
}
