//! A run whose producer and consumer are written by hand.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use isochrone_daemon::clock::SystemClock;
use isochrone_model::{
    id::{DaemonId, Domain, Epoch, Partition, RunName, Topic},
    row::{Device, SendRow},
    time::Clock,
    tracker::Book,
};
use isochrone_store::{
    Store,
    types::{
        ClaimEnd, DeviceState, GivenBack, Holder, Left, OpenRun, Pins, ReceiptFlush, Role, RunRecord, RunState, SCHEMA,
        SendFlush, TopicSave,
    },
};
use tokio::task::JoinHandle;

use super::{
    plotter::Running,
    topic::{CONSUMER, Held, PRODUCER},
};

pub const PARTITIONS: u16 = 8;

const LEASE: Duration = Duration::from_secs(1);

/// A store, a clock, and a run on it.
pub struct World {
    pub store: Arc<dyn Store>,
    pub clock: Arc<SystemClock>,
    pub run: RunName,
    topics: Vec<Held>,
    batch: BTreeMap<(DaemonId, Partition), u64>,
    renewer: JoinHandle<()>,
}

impl World {
    /// A run with that many devices, all claimed.
    pub async fn new(store: Arc<dyn Store>, clock: Arc<SystemClock>, devices: u64) -> World {
        let pins = Pins {
            schema: SCHEMA,
            partitions: PARTITIONS,
            claim_unit: "topic".to_owned(),
        };
        let request = OpenRun {
            run: None,
            pins,
            keep: Duration::from_secs(3600),
        };
        let record = store.open_run(&request).await.unwrap();
        let run = record.run;
        store.enlist(&run, PRODUCER, Role::Producer, None).await.unwrap();
        store.enlist(&run, CONSUMER, Role::Consumer, None).await.unwrap();
        let mut topics = Vec::new();
        for device in 0..devices {
            let epoch = Epoch(1_000 + device);
            let topic = Topic::from(format!("fleet/{device}").as_str());
            let partition = topic.partition(PARTITIONS);
            let device = Device {
                epoch,
                device: format!("{device}"),
                client_id: String::new(),
                topic: topic.clone(),
                response_topic: topic.clone(),
                url: "mqtt://localhost:1883".to_owned(),
                qos: 1,
                mqtt_version: "5".to_owned(),
                rate: Some(1.0),
                domain: Domain(1),
                producer: PRODUCER,
                ordinal: 0,
                number: 0,
            };
            let state = DeviceState {
                device,
                row: SendRow::default(),
            };
            store.register(&run, partition, PRODUCER, &[state]).await.unwrap();
            let claimed = store.claim(&run, partition, CONSUMER, usize::MAX >> 1).await.unwrap();
            let claimed = claimed.into_iter().find(|claimed| claimed.topic == topic).unwrap();
            store
                .ready(&run, partition, CONSUMER, &[(topic.clone(), claimed.token)])
                .await
                .unwrap();
            topics.push(Held {
                topic,
                partition,
                token: claimed.token,
                epoch,
                count: 0,
            });
        }
        let renewer = tokio::spawn({
            let (store, run) = (store.clone(), run.clone());
            let all: Vec<_> = (0..PARTITIONS).map(Partition).collect();
            async move {
                loop {
                    for daemon in [PRODUCER, CONSUMER] {
                        let _ = store.renew(&run, daemon, &all).await;
                    }
                    tokio::time::sleep(LEASE / 5).await;
                }
            }
        });
        World {
            store,
            clock,
            run,
            topics,
            batch: BTreeMap::new(),
            renewer,
        }
    }

    /// Starts a plotter.
    pub fn plotter(&self) -> Running {
        self.plotter_with(self.store.clone())
    }

    /// The same with a way of its own to the store.
    pub fn plotter_with(&self, store: Arc<dyn Store>) -> Running {
        Running::start(store, self.clock.clone())
    }

    /// Every device sends three messages that arrive at once; `late` seconds ago.
    pub async fn messages(&mut self, late: i64) {
        let second = self.clock.reference().second() - late;
        for topic in &mut self.topics {
            let batch = self.batch.entry((PRODUCER, topic.partition)).or_default();
            *batch += 1;
            let sends = SendFlush {
                batch: *batch,
                entries: vec![topic.sends(second)],
                rows: vec![(
                    topic.epoch,
                    SendRow {
                        scheduled: topic.count + 3,
                        sent: topic.count + 3,
                        ..SendRow::default()
                    },
                )],
            };
            self.store
                .append_sends(&self.run, topic.partition, PRODUCER, &sends)
                .await
                .unwrap();
            let batch = self.batch.entry((CONSUMER, topic.partition)).or_default();
            *batch += 1;
            let save = TopicSave {
                topic: topic.topic.clone(),
                token: topic.token,
                total_before: topic.count,
                state: Book::new().save().into(),
            };
            let receipts = ReceiptFlush {
                batch: *batch,
                entries: vec![topic.receipts(second)],
                states: vec![save],
            };
            let answer = self
                .store
                .append(&self.run, topic.partition, CONSUMER, &receipts)
                .await
                .unwrap();
            assert_eq!((answer.fenced.len(), answer.shed), (0, 0));
            topic.count += 3;
        }
    }

    /// Moves the run on until nobody can write to it any more.
    pub async fn close(&self) {
        for state in [RunState::Draining, RunState::Closed] {
            assert!(self.store.advance_run(&self.run, state).await.unwrap());
        }
    }

    /// Every partition that has a topic.
    pub fn busy_partitions(&self) -> BTreeSet<Partition> {
        self.topics.iter().map(|topic| topic.partition).collect()
    }

    /// Messages sent so far to other partitions.
    pub fn sent_outside(&self, partition: Partition) -> u64 {
        let others = self.topics.iter().filter(|topic| topic.partition != partition);
        others.map(|topic| topic.count).sum()
    }

    /// Messages sent so far.
    pub fn sent(&self) -> u64 {
        self.topics.iter().map(|topic| topic.count).sum()
    }

    /// Producer and consumer say their last words.
    pub async fn end(&mut self) {
        for topic in &self.topics {
            let batch = self.batch.entry((PRODUCER, topic.partition)).or_default();
            *batch += 1;
            let row = SendRow {
                scheduled: topic.count,
                sent: topic.count,
                ended: true,
                ..SendRow::default()
            };
            let last = SendFlush {
                batch: *batch,
                entries: Vec::new(),
                rows: vec![(topic.epoch, row)],
            };
            self.store
                .append_sends(&self.run, topic.partition, PRODUCER, &last)
                .await
                .unwrap();
            let given = [GivenBack {
                topic: topic.topic.clone(),
                token: topic.token,
                end: ClaimEnd::Settled(1),
            }];
            let left = Left::GivenBack { session: false };
            self.store
                .give_back(&self.run, topic.partition, CONSUMER, &given, left)
                .await
                .unwrap();
        }
        self.store.discharge(&self.run, PRODUCER).await.unwrap();
        self.store.discharge(&self.run, CONSUMER).await.unwrap();
    }

    /// How many partitions each plotter holds.
    pub async fn holders(&self) -> BTreeMap<DaemonId, usize> {
        let mut holders = BTreeMap::new();
        for holder in self.all_holders().await {
            if let Holder::Plotter(daemon) = holder {
                *holders.entry(daemon).or_default() += 1;
            }
        }
        holders
    }

    /// Whether nobody can hold any partition any more.
    pub async fn is_finished(&self) -> bool {
        self.all_holders().await == [Holder::Finished; PARTITIONS as usize]
    }

    /// A plotter that is away has a sink of its own, which is to have everything.
    pub async fn owe(&self, sink: &str) {
        for partition in (0..PARTITIONS).map(Partition) {
            let (daemon, sinks) = (DaemonId(103), [sink.to_owned()]);
            let claim = self
                .store
                .hold(&self.run, partition, daemon, &sinks)
                .await
                .unwrap()
                .unwrap();
            self.store
                .let_go(&self.run, partition, daemon, claim.token)
                .await
                .unwrap();
        }
    }

    pub async fn all_holders(&self) -> Vec<Holder> {
        let all: Vec<_> = (0..PARTITIONS).map(Partition).collect();
        let holders = self.store.holders(&self.run, &all).await.unwrap();
        holders.into_iter().map(|(_, holder)| holder).collect()
    }

    /// Samples stored, and samples exported to Prometheus, by topic; and how many entries are left.
    pub async fn ledger(&self) -> (BTreeMap<Topic, u64>, BTreeMap<Topic, u64>, usize) {
        let (mut stored, mut exported, mut left) = (BTreeMap::new(), BTreeMap::new(), 0);
        for partition in (0..PARTITIONS).map(Partition) {
            let snapshot = self.store.snapshot(&self.run, partition).await.unwrap();
            stored.extend(snapshot.topics.iter().map(|topic| (topic.topic.clone(), topic.stored)));
            for (_, cursor) in snapshot.cursors.iter().filter(|(sink, _)| sink == "prometheus") {
                exported.extend(
                    cursor
                        .topics
                        .iter()
                        .map(|(topic, counts)| (topic.clone(), counts.exported)),
                );
            }
            left += self
                .store
                .entries(&self.run, partition, Default::default(), 10_000)
                .await
                .unwrap()
                .len();
        }
        (stored, exported, left)
    }

    pub async fn record(&self) -> RunRecord {
        self.store.run(&self.run).await.unwrap().unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.renewer.abort();
    }
}
