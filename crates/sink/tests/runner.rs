//! The runner around a sink that fails on demand: everything offered is accounted for exactly once, in order.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail the test")]

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use isochrone_model::{
    id::{Partition, RunName, Topic},
    time::Second,
    window::Totals,
};
use isochrone_sink::{
    Cut, Delivery, Departure, Error, Hold, Needs, Sink,
    runner::{Limits, Offer, Passed, Runner},
};
use tokio::{sync::mpsc, time::timeout};

const SOON: Duration = Duration::from_secs(10);

struct Flaky {
    needs: Needs,
    failures: AtomicU32,
    poison: Option<u64>,
    got: Mutex<Vec<u64>>,
    gate: tokio::sync::Semaphore,
}

impl Flaky {
    fn new(needs: Needs, failures: u32, poison: Option<u64>, open: usize) -> Arc<Flaky> {
        let gate = tokio::sync::Semaphore::new(open);
        Arc::new(Flaky {
            needs,
            failures: AtomicU32::new(failures),
            poison,
            got: Mutex::default(),
            gate,
        })
    }
}

#[async_trait]
impl Sink for Flaky {
    fn name(&self) -> &'static str {
        "flaky"
    }
    fn needs(&self) -> Needs {
        self.needs
    }
    async fn deliver(&self, batch: &[Arc<Cut>]) -> Result<Vec<Delivery>, Error> {
        self.gate.acquire().await.unwrap().forget();
        let address = "there".to_owned();
        if self
            .failures
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
            .is_ok()
        {
            return Err(Error::Away {
                address,
                cause: "on purpose".to_owned(),
            });
        }
        if batch.iter().any(|cut| Some(cut.number) == self.poison) {
            return Err(Error::Poison {
                address,
                cause: "on purpose".to_owned(),
            });
        }
        self.got.lock().unwrap().extend(batch.iter().map(|cut| cut.number));
        Ok(batch.iter().map(|cut| cut.delivered()).collect())
    }
}

fn run() -> RunName {
    "r1".parse().unwrap()
}

fn cut(partition: u16, number: u64) -> Arc<Cut> {
    Arc::new(Cut {
        run: run(),
        partition: Partition(partition),
        number,
        second: Second(number as i64),
        entries: Vec::new(),
        windows: Vec::new(),
        totals: Arc::new(Totals::new()),
        samples: BTreeMap::from([(Topic::from("t"), number)]),
        hold: Hold::new(|| true),
    })
}

fn limits() -> Limits {
    Limits {
        queue: 8,
        retry: (Duration::from_millis(1), Duration::from_millis(2)),
        ..Limits::default()
    }
}

async fn next(passed: &mut mpsc::Receiver<Passed>) -> Passed {
    timeout(SOON, passed.recv())
        .await
        .expect("passes in time")
        .expect("the runner lives")
}

/// A back end that is away for a while delays, loses nothing, and keeps the order; one poisoned cut is set aside alone.
#[tokio::test]
async fn failures_delay_and_poison_is_set_aside() {
    let sink = Flaky::new(Needs::EveryCut, 3, Some(4), 1_000);
    let (sender, mut passed) = mpsc::channel(16);
    let runner = Runner::start(sink.clone(), limits(), sender);
    for number in 1..=6 {
        assert_eq!(runner.offer(cut(1, number)), Offer::Taken);
    }
    let mut numbers = Vec::new();
    for _ in 0..6 {
        let passed = next(&mut passed).await;
        let counts = passed.delivery.unwrap().topics[&Topic::from("t")];
        let number = passed.cut.number;
        assert_eq!(
            (counts.exported, counts.set_aside),
            if number == 4 { (0, 4) } else { (number, 0) }
        );
        numbers.push(number);
    }
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
    assert_eq!(*sink.got.lock().unwrap(), [1, 2, 3, 5, 6]);
    assert!(runner.counters().retries.load(Ordering::Relaxed) >= 3);
    runner.close(SOON).await;
}

/// What a back end asks for is heeded, but neither a loop nor a pause without end.
#[test]
fn a_pause_that_is_asked_for_has_bounds() {
    let limits = Limits {
        retry: (Duration::from_millis(200), SOON),
        patience: Duration::from_secs(300),
        ..Limits::default()
    };
    for (asked_ms, heeded_ms) in [(0, 200), (199, 200), (42_000, 42_000), (300_001, 300_000)] {
        let heeded = limits.heeded(Duration::from_millis(asked_ms));
        assert_eq!(heeded, Duration::from_millis(heeded_ms), "{asked_ms}");
    }
}

/// A full queue refuses, so that the cut stays in the store; nothing is dropped.
#[tokio::test]
async fn a_full_queue_refuses() {
    let sink = Flaky::new(Needs::EveryCut, 0, None, 0);
    let (sender, mut passed) = mpsc::channel(64);
    let runner = Runner::start(sink.clone(), limits(), sender);
    let taken = (1..=100)
        .take_while(|number| runner.offer(cut(1, *number)) == Offer::Taken)
        .count() as u64;
    assert!((8..=16).contains(&taken), "{taken}");
    sink.gate.add_permits(1_000);
    for number in 1..=taken {
        assert_eq!(next(&mut passed).await.cut.number, number);
    }
    runner.close(SOON).await;
}

/// Running totals: a newer state replaces the one that waits, of its own partition only.
#[tokio::test]
async fn running_totals_replace() {
    let sink = Flaky::new(Needs::Totals, 0, None, 0);
    let (sender, mut passed) = mpsc::channel(64);
    let runner = Runner::start(sink.clone(), limits(), sender);
    for number in 1..=100 {
        assert_eq!(runner.offer(cut(1, number)), Offer::Taken);
        assert_eq!(runner.offer(cut(2, number)), Offer::Taken);
        tokio::task::yield_now().await;
    }
    sink.gate.add_permits(1_000);
    let mut newest = BTreeMap::new();
    while newest.values().filter(|number| **number == 100).count() < 2 {
        let cut = next(&mut passed).await.cut;
        assert!(
            newest
                .insert(cut.partition, cut.number)
                .is_none_or(|before| before < cut.number)
        );
    }
    assert!(sink.got.lock().unwrap().len() <= 8);
    runner.close(SOON).await;
}

/// A total that is refused comes back without a delivery, so that what it holds stays pending; the next one makes it good.
#[tokio::test]
async fn a_refused_total_is_pending() {
    let sink = Flaky::new(Needs::Totals, 0, Some(1), 1_000);
    let (sender, mut passed) = mpsc::channel(64);
    let runner = Runner::start(sink.clone(), limits(), sender);
    runner.offer(cut(1, 1));
    let refused = next(&mut passed).await;
    assert_eq!((refused.cut.number, refused.delivery), (1, None));
    runner.offer(cut(1, 2));
    let taken = next(&mut passed).await;
    assert_eq!((taken.cut.number, taken.delivery), (2, Some(taken.cut.delivered())));
    assert_eq!(runner.counters().delivered.load(Ordering::Relaxed), 1);
    runner.close(SOON).await;
}

/// What waits of a partition that left is not delivered, also when its delivery is being retried; others are.
#[tokio::test]
async fn departed_partitions_are_forgotten() {
    let sink = Flaky::new(Needs::EveryCut, u32::MAX, None, 1_000_000);
    let (sender, mut passed) = mpsc::channel(64);
    let runner = Runner::start(sink.clone(), limits(), sender);
    runner.offer(cut(1, 1));
    runner.offer(cut(2, 2));
    timeout(SOON, async {
        while runner.counters().retries.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .expect("is being retried");
    runner.depart(&run(), Partition(1), Departure::Moved);
    sink.failures.store(0, Ordering::SeqCst);
    assert_eq!(next(&mut passed).await.cut.number, 2);
    runner.close(SOON).await;
    assert!(passed.recv().await.is_none());
}

/// Closing delivers what is queued, and ends by its deadline when that is impossible.
#[tokio::test]
async fn close_delivers_or_ends() {
    let sink = Flaky::new(Needs::EveryCut, 0, None, 1_000);
    let (sender, mut passed) = mpsc::channel(64);
    let runner = Runner::start(sink, limits(), sender);
    runner.offer(cut(1, 1));
    runner.close(SOON).await;
    assert_eq!(next(&mut passed).await.cut.number, 1);

    let stuck = Flaky::new(Needs::EveryCut, 0, None, 0);
    let (sender, mut passed) = mpsc::channel(64);
    let runner = Runner::start(stuck, limits(), sender);
    runner.offer(cut(1, 1));
    runner.close(Duration::from_millis(20)).await;
    assert!(passed.recv().await.is_none());
}
