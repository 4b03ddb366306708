//! Plotters at work on a run written by hand, in memory and on Redis: partitions are shared and given back, nothing is
//! counted twice or not at all, no counter falls.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail the test")]

mod support;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use isochrone_daemon::{Stop, clock::SystemClock};
use isochrone_model::time::Clock;
use isochrone_store::{
    Store,
    memory::MemoryStore,
    types::{Holder, RunState},
};
use support::{Corrupt, Deadline, PARTITIONS, Running, Server, World, sum};

const DEVICES: u64 = 20;

/// Each case runs on both stores.
macro_rules! on_both_stores {
    ($($case:ident)+) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let clock = super::SystemClock::alone(None);
                super::$case(super::MemoryStore::new(clock.clone()), clock).await;
            })+
        }

        mod redis {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let server = super::Server::start().await;
                super::$case(server.store(), super::SystemClock::alone(None)).await;
            })+
        }
    };
}

on_both_stores! {
    shares_gives_back_and_counts_once
    end_together
    leaves_what_others_have_to_do
    comes_late_and_leaves
}

/// One plotter takes all, a second one half, which comes back when that one leaves, and when a third one dies; late samples
/// are counted like others; the closed run shows what the ledger says.
async fn shares_gives_back_and_counts_once(store: Arc<dyn Store>, clock: Arc<SystemClock>) {
    let mut world = World::new(store, clock, DEVICES).await;
    let mut seen = BTreeMap::new();
    let all = usize::from(PARTITIONS);

    let first = world.plotter();
    work_until(&mut world, &[&first], &mut seen, "the first to hold all", |held| {
        held == [all]
    })
    .await;
    let second = world.plotter();
    work_until(
        &mut world,
        &[&first, &second],
        &mut seen,
        "the second to have its share",
        |held| held == [all / 2; 2],
    )
    .await;
    // For a while both work.
    for _ in 0..20 {
        world.messages(3).await;
        Deadline::new("").moment().await;
        watch(&[&first, &second], &mut seen);
    }
    second.finish().await;
    work_until(&mut world, &[&first], &mut seen, "the share to come back", |held| {
        held == [all]
    })
    .await;

    let third = world.plotter();
    work_until(
        &mut world,
        &[&first, &third],
        &mut seen,
        "the third to have its share",
        |held| held == [all / 2; 2],
    )
    .await;
    third.kill().await;
    work_until(
        &mut world,
        &[&first],
        &mut seen,
        "the dead one's share to come back",
        |held| held == [all],
    )
    .await;

    world.messages(5).await;
    world.end().await;
    let closed = Deadline::new("the run to close");
    while world.record().await.state != RunState::Closed {
        closed.moment().await;
        watch(&[&first], &mut seen);
    }
    let shown = Deadline::new("the page to show everything");
    while sum(&first.series(), "isochrone_received_total") < world.sent() as f64 {
        shown.moment().await;
        watch(&[&first], &mut seen);
    }
    let page = first.series();
    for metric in [
        "isochrone_received_total",
        "isochrone_sent_total",
        "isochrone_transit_seconds_count",
    ] {
        assert_eq!(sum(&page, metric), world.sent() as f64, "{metric}");
    }
    assert_eq!(sum(&page, "isochrone_unknown_epochs_total"), 0.0);
    let (stored, exported, left) = world.ledger().await;
    assert_eq!(stored, exported);
    assert_eq!(stored.values().sum::<u64>(), world.sent());
    assert_eq!(left, 0, "entries are left in the stream");
    for (topic, exported) in &exported {
        let partition = topic.partition(PARTITIONS);
        let name = format!(
            "isochrone_transit_seconds_count{{run=\"{}\",partition=\"{partition}\",topic=\"{topic}\"}}",
            world.run
        );
        assert_eq!(page[&name], *exported as f64, "{topic}");
    }
    let left = Deadline::new("the plotter to leave the run");
    while !world.is_finished().await {
        left.moment().await;
    }
    first.finish().await;
}

/// Two plotters see a run closed one after the other: each shows its share of the final figures, none shows the other's.
async fn end_together(store: Arc<dyn Store>, clock: Arc<SystemClock>) {
    let mut world = World::new(store, clock, DEVICES).await;
    let plotters = [world.plotter(), world.plotter()];
    let half = usize::from(PARTITIONS) / 2;
    let both: Vec<_> = plotters.iter().collect();
    let mut seen = BTreeMap::new();
    work_until(&mut world, &both, &mut seen, "both to hold half", |held| {
        held == [half; 2]
    })
    .await;
    world.end().await;
    let finished = Deadline::new("every partition to be finished");
    while !world.is_finished().await {
        finished.moment().await;
    }
    let metric = "isochrone_transit_seconds_count";
    let shown: f64 = plotters.iter().map(|plotter| sum(&plotter.series(), metric)).sum();
    assert_eq!(shown, world.sent() as f64);
    for plotter in plotters {
        plotter.finish().await;
    }
}

/// What a sink of another plotter has not had is not finished, and in a closed run, too, the share of a dead plotter comes to
/// the one that lives.
async fn leaves_what_others_have_to_do(store: Arc<dyn Store>, clock: Arc<SystemClock>) {
    let mut world = World::new(store, clock, DEVICES).await;
    world.owe("elsewhere").await;
    let (first, second) = (world.plotter(), world.plotter());
    let (half, all) = (usize::from(PARTITIONS) / 2, usize::from(PARTITIONS));
    let mut seen = BTreeMap::new();
    work_until(&mut world, &[&first, &second], &mut seen, "both to hold half", |held| {
        held == [half; 2]
    })
    .await;
    world.end().await;
    world.close().await;
    second.kill().await;
    let inherited = Deadline::new("the dead one's share to come to the other");
    while world.holders().await != BTreeMap::from([(first.daemon, all)]) {
        inherited.moment().await;
    }
    first.finish().await;
    assert!(world.all_holders().await.is_empty(), "another plotter can take them");
}

/// Messages keep coming until the plotters hold what `held` accepts, in their order.
async fn work_until(
    world: &mut World,
    plotters: &[&Running],
    seen: &mut BTreeMap<String, f64>,
    what: &'static str,
    held: impl Fn(&[usize]) -> bool,
) {
    let deadline = Deadline::new(what);
    loop {
        world.messages(0).await;
        let holders = world.holders().await;
        let of: Vec<_> = plotters
            .iter()
            .map(|plotter| holders.get(&plotter.daemon).copied().unwrap_or(0))
            .collect();
        if held(&of) && holders.len() == plotters.len() {
            return;
        }
        watch(plotters, seen);
        deadline.moment().await;
    }
}

/// No counter is ever below what any page has shown before.
fn watch(plotters: &[&Running], seen: &mut BTreeMap<String, f64>) {
    for plotter in plotters {
        for (name, value) in plotter.series() {
            let counts = ["_total{", "_count{", "_bucket{"]
                .iter()
                .any(|kind| name.contains(kind));
            if counts && name.contains("run=") {
                let before = seen.insert(name.clone(), value).unwrap_or(0.0);
                assert!(before <= value, "{name} fell from {before} to {value}");
            }
        }
    }
}

/// A run that was closed while no plotter lived is plotted to its end all the same, once.
async fn comes_late_and_leaves(store: Arc<dyn Store>, clock: Arc<SystemClock>) {
    let mut world = World::new(store, clock, DEVICES).await;
    world.messages(3).await;
    world.messages(2).await;
    world.end().await;
    world.close().await;
    let plotter = world.plotter();
    let done = Deadline::new("everything to be exported");
    loop {
        let (stored, exported, left) = world.ledger().await;
        if left == 0 && stored == exported {
            assert_eq!(stored.values().sum::<u64>(), world.sent());
            break;
        }
        done.moment().await;
    }
    let left = Deadline::new("the plotter to leave the run");
    while !world.is_finished().await {
        left.moment().await;
    }
    plotter.finish().await;
}

/// Messages shown of a run.
fn received(plotter: &Running, world: &World) -> f64 {
    let of_run = format!("run=\"{}\"", world.run);
    let mut series = plotter.series();
    series.retain(|name, _| name.contains(&of_run));
    sum(&series, "isochrone_received_total")
}

/// A partition that cannot be read holds up no other; it is read on when it is mended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_corrupt_partition_holds_up_no_other() {
    let mut corrupt = Corrupt::new(DEVICES).await;
    let (world, bad) = (&mut corrupt.world, corrupt.partition);
    let plotter = world.plotter();
    world.messages(0).await;
    let of_others = world.sent_outside(bad) as f64;
    assert!(of_others < world.sent() as f64);
    let shown = Deadline::new("all other partitions to be shown");
    while received(&plotter, world) < of_others {
        shown.moment().await;
    }
    assert_eq!(received(&plotter, world), of_others);
    let said = Deadline::new("readiness to tell of the entry");
    while !matches!(plotter.health.readiness(), (false, why) if why.contains(Corrupt::ENTRY)) {
        said.moment().await;
    }
    corrupt.mend();
    let world = &corrupt.world;
    let mended = Deadline::new("the mended partition to be shown");
    while received(&plotter, world) < world.sent() as f64 || !plotter.health.readiness().0 {
        mended.moment().await;
    }
    plotter.finish().await;
}

/// A partition of a closed run that cannot be read is not finished: it is delivered when it is mended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_not_finished() {
    let mut corrupt = Corrupt::new(DEVICES).await;
    let (world, bad) = (&mut corrupt.world, corrupt.partition);
    world.messages(0).await;
    world.end().await;
    world.close().await;
    let plotter = world.plotter();
    let others = Deadline::new("all other partitions to be finished");
    loop {
        let holders = world.all_holders().await;
        let open = holders.iter().filter(|holder| **holder != Holder::Finished).count();
        if open == 1 && plotter.health.readiness().1.contains(Corrupt::ENTRY) {
            break;
        }
        others.moment().await;
    }
    assert_eq!(received(&plotter, world), world.sent_outside(bad) as f64);
    corrupt.mend();
    let world = &corrupt.world;
    let mended = Deadline::new("the mended partition to be finished");
    while !world.is_finished().await {
        mended.moment().await;
    }
    assert_eq!(received(&plotter, world), world.sent() as f64);
    plotter.finish().await;
}

/// Many closed runs of which much is left to do, over a slow line: a live run is shown as if there were none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closed_runs_do_not_delay_a_live_one() {
    let server = Server::start().await;
    let clock = SystemClock::alone(None);
    for _ in 0..30 {
        let mut over = World::new(server.store(), clock.clone(), DEVICES).await;
        over.messages(1).await;
        over.end().await;
        over.close().await;
    }
    let mut live = World::new(server.store(), clock, DEVICES).await;
    let plotter = live.plotter_with(server.far_store(Duration::from_millis(10)).await);
    for _ in 0..3 {
        live.messages(0).await;
        // All of the closed ones together would take a minute.
        let shown = Deadline::within(Duration::from_secs(15), "the live run to be shown");
        while received(&plotter, &live) < live.sent() as f64 {
            shown.moment().await;
        }
    }
    plotter.kill().await;
}

/// A store that forgets its last moments just when a run has ended is told again that partitions are finished: no other plotter
/// takes and shows them a second time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_finished_is_finished_again_after_a_rollback() {
    let done = Deadline::new("a rollback within the time that a store may forget");
    while !is_finished_again_after_a_rollback().await {
        done.moment().await;
    }
}

/// Whether this machine was quick enough to lose what a plotter must still know; if it stood still for longer in between, a
/// plotter rightly counts on the store, and there is nothing to see.
async fn is_finished_again_after_a_rollback() -> bool {
    let (mut server, stop) = (Server::start().await, Stop::new());
    let clock = server.clock(&stop).await;
    let mut world = World::new(server.store(), clock.clone(), DEVICES).await;
    let first = world.plotter();
    let mut seen = BTreeMap::new();
    let all = usize::from(PARTITIONS);
    work_until(&mut world, &[&first], &mut seen, "it to hold all", |held| held == [all]).await;
    world.end().await;
    let finished = Deadline::new("every partition to be finished");
    // When that was saved which is lost; what is finished later is told again.
    let mut kept_at = None;
    loop {
        let asked_at = clock.monotonic();
        server.save();
        if world.is_finished().await {
            break;
        }
        // Nor was it a moment ago, when that was saved.
        server.keep();
        kept_at = Some(asked_at);
        finished.moment().await;
    }
    let kept_at = kept_at.expect("it was not finished at once");
    server.kill();
    if clock.monotonic().since_ns(kept_at) > world.store.memory().as_nanos() as i64 {
        first.kill().await;
        stop.abort();
        return false;
    }
    server.restart_from_kept().await;
    let back = Deadline::new("the store to answer again");
    while world.store.runs().await.is_err() {
        back.moment().await;
    }
    let second = world.plotter();
    let again = Deadline::new("every partition to be finished again");
    while !world.is_finished().await {
        again.moment().await;
    }
    let shown = Deadline::new("all to be shown once");
    while received(&first, &world) + received(&second, &world) != world.sent() as f64 {
        shown.moment().await;
    }
    assert!(!world.record().await.restored);
    for plotter in [first, second] {
        plotter.finish().await;
    }
    stop.abort();
    true
}
