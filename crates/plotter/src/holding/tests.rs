//! One partition in memory, with a sink that takes nothing until it is allowed to.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU32, Ordering},
};

use async_trait::async_trait;
use isochrone_daemon::clock::SystemClock;
use isochrone_model::{
    entry::{ConsumerDelay, ReceiptHead, ReceiptPart, Sample},
    id::{Domain, Topic},
    row::{Device, SendRow},
    tracker::Book,
};
use isochrone_sink::{Cut, Delivery, Needs, Sink, runner::Passed};
use isochrone_store::{
    Registry, Samples,
    memory::MemoryStore,
    types::{
        DeviceState, EntryId, EntryKind, NewEntry, NewPart, OpenRun, Pins, ReceiptFlush, Role, SCHEMA, SinkCounts,
        TopicSave,
    },
};
use tokio::sync::{Semaphore, mpsc};

use super::*;

const HERE: Partition = Partition(0);
const CONSUMER: DaemonId = DaemonId(2);
const EPOCH: Epoch = Epoch(7);
/// Samples of each second.
const EACH: u64 = 2_000;

/// Remembers which sequences it was given.
struct Slow {
    needs: Needs,
    may: Semaphore,
    /// How many deliveries it still refuses for good.
    refuses: AtomicU32,
    had: Mutex<Vec<u64>>,
}

#[async_trait]
impl Sink for Slow {
    fn name(&self) -> &'static str {
        "slow"
    }

    fn needs(&self) -> Needs {
        self.needs
    }

    async fn deliver(&self, batch: &[Arc<Cut>]) -> Result<Vec<Delivery>, isochrone_sink::Error> {
        self.may.acquire().await.unwrap().forget();
        let (set, fetch) = (Ordering::SeqCst, Ordering::SeqCst);
        if self
            .refuses
            .fetch_update(set, fetch, |left| left.checked_sub(1))
            .is_ok()
        {
            return Err(isochrone_sink::Error::Poison {
                address: "there".to_owned(),
                cause: "on purpose".to_owned(),
            });
        }
        let mut had = self.had.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in &batch[0].entries {
            let CutEntry::Receipt { parts, .. } = entry else {
                continue;
            };
            had.extend(
                parts
                    .iter()
                    .flat_map(|(_, part)| &part.samples)
                    .map(|sample| sample.sequence),
            );
        }
        Ok(vec![batch[0].delivered()])
    }
}

struct World {
    store: Arc<MemoryStore>,
    desk: Desk,
    results: mpsc::Receiver<Passed>,
    sink: Arc<Slow>,
    run: RunName,
    holding: Holding,
    token: Token,
    second: Second,
    count: u64,
}

impl World {
    async fn new(needs: Needs, retain: u64) -> World {
        let clock = SystemClock::alone(None);
        let store = MemoryStore::new(clock.clone());
        let pins = Pins {
            schema: SCHEMA,
            partitions: 1,
            claim_unit: "topic".to_owned(),
        };
        let request = OpenRun {
            run: None,
            pins,
            keep: Duration::from_secs(3600),
        };
        let run = store.open_run(&request).await.unwrap().run;
        let producer = DaemonId(1);
        store.enlist(&run, producer, Role::Producer, None).await.unwrap();
        let topic = Topic::from("t");
        let device = Device {
            epoch: EPOCH,
            device: "0-0".to_owned(),
            client_id: String::new(),
            topic: topic.clone(),
            response_topic: topic.clone(),
            url: "memory:".to_owned(),
            qos: 0,
            mqtt_version: "5".to_owned(),
            rate: None,
            domain: Domain(1),
            producer,
            ordinal: 0,
            number: 0,
        };
        let row = SendRow::default();
        store
            .register(&run, HERE, producer, &[DeviceState { device, row }])
            .await
            .unwrap();
        let claimed = store.claim(&run, HERE, CONSUMER, 1).await.unwrap().remove(0);
        store
            .ready(&run, HERE, CONSUMER, &[(topic, claimed.token)])
            .await
            .unwrap();

        let sink = Arc::new(Slow {
            needs,
            refuses: AtomicU32::new(0),
            may: Semaphore::new(0),
            had: Mutex::default(),
        });
        let (sinks, results) = Sinks::start(vec![sink.clone()]);
        let desk = Desk {
            store: store.clone(),
            daemon: DaemonId(3),
            clock,
            sinks,
            retain,
        };
        let hold = Hold::new(|| true);
        let mut holding = Holding::take(&desk, &run, HERE, 1, hold).await.unwrap().unwrap();
        holding.begin(&desk);
        World {
            store,
            desk,
            results,
            sink,
            run,
            holding,
            token: claimed.token,
            second: Second(1_000),
            count: 0,
        }
    }

    /// One second's samples are written, read and cut.
    async fn second(&mut self) {
        self.second = Second(self.second.0 + 1);
        let due = self.second.start();
        let sample = |n| Sample {
            epoch: EPOCH,
            sequence: self.count + n,
            due,
            sent: due + 10_000,
            received: due + 110_000 + n as i64,
            transit_ns: 100_000,
            delay: ConsumerDelay::None,
            warmup: false,
        };
        let part = ReceiptPart {
            samples: (0..EACH).map(sample).collect(),
            ..ReceiptPart::default()
        };
        let head = ReceiptHead {
            daemon: CONSUMER,
            domain: Domain(1),
            bound_ns: 0,
            era_changed: false,
            ack_limited: false,
            absences: Vec::new(),
        };
        let topic = Topic::from("t");
        let part = NewPart {
            key: topic.as_str().to_owned(),
            token: self.token,
            samples: EACH,
            body: part.encode().into(),
        };
        let entry = NewEntry {
            kind: EntryKind::Receipt,
            second: self.second,
            head: head.encode().into(),
            parts: vec![part],
        };
        let save = TopicSave {
            topic,
            token: self.token,
            total_before: self.count,
            state: Book::new().save().into(),
        };
        let flush = ReceiptFlush {
            batch: self.count / EACH + 1,
            entries: vec![entry],
            states: vec![save],
        };
        let answer = self.store.append(&self.run, HERE, CONSUMER, &flush).await.unwrap();
        assert_eq!((answer.fenced.len(), answer.shed), (0, 0));
        self.count += EACH;
        let page = self.holding.read(&self.desk).await.unwrap();
        self.holding.step(&self.desk, page, self.second).await.unwrap();
    }

    /// The sink takes all it is given; returns when it is behind no more.
    async fn catch_up(&mut self) {
        self.sink.may.add_permits(10_000);
        while self.holding.is_behind(&self.desk) {
            self.hear().await;
            self.holding.offer(&self.desk).await.unwrap();
        }
    }

    /// Takes what the sink says of one cut.
    async fn hear(&mut self) {
        let passed = tokio::time::timeout(Duration::from_secs(30), self.results.recv());
        let passed = passed.await.expect("a result").expect("the runner lives");
        self.holding.passed(&self.desk, &passed);
        self.holding.save(&self.desk).await.unwrap();
    }

    /// What the store says became of the samples.
    async fn account(&self) -> SinkCounts {
        let claim = self
            .store
            .hold(&self.run, HERE, DaemonId(3), &[])
            .await
            .unwrap()
            .unwrap();
        let (_, cursor) = claim.cursors.into_iter().find(|(sink, _)| sink == "slow").unwrap();
        cursor.topics.values().next().copied().unwrap_or_default()
    }

    fn had(&self) -> Vec<u64> {
        self.sink.had.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// However long a sink takes nothing, what waits for it in memory is bounded; it gets all of it in the end, once and in order.
#[tokio::test]
async fn a_slow_sink_is_served_from_the_store() {
    let mut world = World::new(Needs::EveryCut, 1 << 30).await;
    for _ in 0..600 {
        world.second().await;
    }
    assert!(world.holding.progress.kept_bytes() <= KEPT_BYTES);
    let bytes = world.holding.progress.kept_bytes();
    assert!(bytes > KEPT_BYTES / 2, "{bytes}: more would have fit");
    world.catch_up().await;
    assert!(world.had().into_iter().eq(0..world.count));
    let all = SinkCounts {
        exported: world.count,
        ..SinkCounts::default()
    };
    assert_eq!(world.account().await, all);
    let left = world
        .store
        .entries(&world.run, HERE, EntryId::default(), 9)
        .await
        .unwrap();
    assert_eq!(left, []);
}

/// What ISOCHRONE_RETAIN had dropped for a slow sink is counted as that, what the sink had all the same as exported, and
/// nothing twice; a successor goes on from there.
#[tokio::test]
async fn what_was_dropped_is_in_the_account() {
    let mut world = World::new(Needs::EveryCut, 2 << 20).await;
    for _ in 0..600 {
        world.second().await;
    }
    world.catch_up().await;
    let had = world.had();
    assert!(had.is_sorted_by(|a, b| a < b), "in order, nothing twice");
    let counts = world.account().await;
    let (exported, dropped) = (counts.exported, counts.sink_dropped);
    assert_eq!(exported, had.len() as u64);
    assert_eq!(exported + dropped, world.count);
    assert!(dropped > 0 && exported > 0, "{exported} {dropped}");
}

/// Running totals that are refused are made good by newer ones. The last ones come again, by themselves; refused once more, what
/// no earlier ones held is set aside, and nothing is left to do.
#[tokio::test]
async fn the_last_totals_are_set_aside_when_refused() {
    for (refusals, exported) in [(1, 3 * EACH), (2, 2 * EACH)] {
        let mut world = World::new(Needs::Totals, 1 << 30).await;
        world.sink.may.add_permits(100);
        world.sink.refuses.store(1, Ordering::SeqCst);
        world.second().await;
        world.hear().await;
        assert!(world.holding.is_behind(&world.desk), "nothing was taken yet");
        world.second().await;
        world.hear().await;
        assert!(!world.holding.is_behind(&world.desk), "newer ones hold all");

        world.sink.refuses.store(refusals, Ordering::SeqCst);
        world.second().await;
        world.hear().await;
        assert!(
            !world.holding.is_under_way(),
            "nothing is to come of them by themselves"
        );
        world.holding.finish(&world.desk).await.unwrap();
        assert!(!world.holding.is_done(), "offered once more");
        world.hear().await;
        world.holding.finish(&world.desk).await.unwrap();
        assert!(world.holding.is_done());
        let counts = SinkCounts {
            exported,
            set_aside: 3 * EACH - exported,
            ..SinkCounts::default()
        };
        assert_eq!(world.account().await, counts);
        let told = &world.desk.sinks.runners().next().unwrap().counters().set_aside;
        assert_eq!(told.load(Ordering::SeqCst), counts.set_aside);
    }
}
