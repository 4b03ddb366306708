//! What cases are made of.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use isochrone_model::{
    id::{DaemonId, Domain, Epoch, Partition, RunName, Token, Topic},
    row::{Device, SendRow},
    time::{Clock, Monotonic, Offset, Second},
};
use isochrone_store::{
    Store,
    types::{
        Advance, ClaimEnd, Claimed, Cursor, Cut, DeviceState, Entry, EntryId, EntryKind, GivenBack, NewCut, NewEntry,
        NewPart, OpenRun, Pins, ReceiptFlush, Role, TopicSave, TopicState,
    },
};

pub const PRODUCER: DaemonId = DaemonId(0x1111_1111_1111_1111);
pub const ALICE: DaemonId = DaemonId(0xaaaa_aaaa_aaaa_aaaa);
pub const BOB: DaemonId = DaemonId(0xbbbb_bbbb_bbbb_bbbb);

/// Each reading is a millisecond after the one before.
#[derive(Default)]
pub struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn monotonic(&self) -> Monotonic {
        Monotonic(self.0.fetch_add(1_000_000, Ordering::Relaxed))
    }

    fn offset(&self) -> Offset {
        Offset {
            reference_minus_monotonic_ns: 1_770_000_000_000_000_000,
            bound_ns: 0,
            era: 0,
        }
    }
}

pub fn run(name: &str) -> RunName {
    name.parse().unwrap()
}

pub fn request(name: Option<&str>) -> OpenRun {
    let pins = Pins {
        schema: 1,
        partitions: 4,
        claim_unit: "topic".to_owned(),
    };
    OpenRun {
        run: name.map(run),
        pins,
        keep: Duration::from_secs(3600),
    }
}

pub fn device(epoch: u64, response_topic: &str) -> DeviceState {
    let device = Device {
        epoch: Epoch(epoch),
        device: format!("device-{epoch}"),
        client_id: String::new(),
        topic: Topic::from(format!("to/{epoch}").as_str()),
        response_topic: Topic::from(response_topic),
        url: "mqtt://localhost:1883".to_owned(),
        qos: 1,
        mqtt_version: "5".to_owned(),
        rate: Some(0.1),
        domain: Domain(7),
        producer: PRODUCER,
        ordinal: 0,
        number: 0,
    };
    DeviceState {
        device,
        row: SendRow {
            scheduled: 3,
            ..SendRow::default()
        },
    }
}

/// A run with one producer and these response topics, each of one device, in partition 1.
pub struct Fixture {
    pub store: Arc<dyn Store>,
    pub run: RunName,
}

pub const HERE: Partition = Partition(1);

impl Fixture {
    pub async fn new(store: Arc<dyn Store>, name: &str, topics: &[&str]) -> Fixture {
        Fixture::open(store, &request(Some(name)), topics).await
    }

    pub async fn open(store: Arc<dyn Store>, request: &OpenRun, topics: &[&str]) -> Fixture {
        let run = store.open_run(request).await.unwrap().run;
        let fixture = Fixture { store, run };
        fixture
            .store
            .enlist(&fixture.run, PRODUCER, Role::Producer, None)
            .await
            .unwrap();
        let devices: Vec<_> = topics
            .iter()
            .enumerate()
            .map(|(n, topic)| device(n as u64, topic))
            .collect();
        fixture.register(&devices).await;
        fixture
    }

    pub async fn register(&self, devices: &[DeviceState]) {
        self.store.register(&self.run, HERE, PRODUCER, devices).await.unwrap();
    }

    pub async fn claim(&self, daemon: DaemonId, room: usize) -> Vec<Claimed> {
        let mut claims = self.store.claim(&self.run, HERE, daemon, room).await.unwrap();
        claims.sort_by(|a, b| a.topic.cmp(&b.topic));
        claims
    }

    /// The only free topic.
    pub async fn claim_one(&self, daemon: DaemonId) -> Claimed {
        let mut claims = self.claim(daemon, 1).await;
        assert_eq!(claims.len(), 1);
        claims.remove(0)
    }

    pub async fn topic(&self, name: &str) -> TopicState {
        let topics = self.store.topics(&self.run, HERE).await.unwrap();
        topics.into_iter().find(|state| state.topic.as_str() == name).unwrap()
    }

    pub async fn free(&self) -> u64 {
        let free = self.store.free(&self.run).await.unwrap();
        free.iter()
            .map(|(partition, free)| (*partition == HERE).then_some(*free).unwrap())
            .sum()
    }

    pub async fn counter(&self, daemon: DaemonId) -> Option<u64> {
        let rows = self.store.leases(&self.run, &[Partition(0), HERE]).await.unwrap();
        rows.into_iter()
            .find(|row| row.1 == daemon)
            .map(|(partition, _, counter)| {
                assert_eq!(partition, HERE);
                counter
            })
    }

    pub async fn evict(&self, daemon: DaemonId) -> bool {
        let counter = self.counter(daemon).await.unwrap();
        self.store.evict(&self.run, HERE, daemon, counter).await.unwrap()
    }

    /// The first hundred entries.
    pub async fn entries(&self) -> Vec<Entry> {
        self.store
            .entries(&self.run, HERE, EntryId::default(), 100)
            .await
            .unwrap()
    }

    pub async fn cut(&self, daemon: DaemonId, token: Token, cut: &NewCut) {
        self.store.cut(&self.run, HERE, daemon, token, cut).await.unwrap();
    }

    /// A cut of this second at the newest entry, without anything cumulative.
    pub async fn cut_newest(&self, daemon: DaemonId, token: Token, number: u64, second: i64) {
        let cut = Cut {
            number,
            last: self.entries().await.last().unwrap().id,
            second: Second(second),
        };
        let changed = Vec::new();
        self.cut(daemon, token, &NewCut { cut, changed }).await;
    }

    pub async fn append(&self, daemon: DaemonId, flush: &ReceiptFlush) -> isochrone_store::types::FlushAnswer {
        self.store.append(&self.run, HERE, daemon, flush).await.unwrap()
    }
}

pub fn given_back(claim: &Claimed, end: ClaimEnd) -> GivenBack {
    GivenBack {
        topic: claim.topic.clone(),
        token: claim.token,
        end,
    }
}

pub fn part(key: &str, token: Token, samples: u64, body: &'static [u8]) -> NewPart {
    NewPart {
        key: key.to_owned(),
        token,
        samples,
        body: Bytes::from_static(body),
    }
}

pub fn entry(kind: EntryKind, second: i64, parts: Vec<NewPart>) -> NewEntry {
    NewEntry {
        kind,
        second: Second(second),
        head: Bytes::from_static(b"\0head \xff"),
        parts,
    }
}

pub fn save(topic: &Topic, token: Token, total_before: u64, state: &'static [u8]) -> TopicSave {
    TopicSave {
        topic: topic.clone(),
        token,
        total_before,
        state: Bytes::from_static(state),
    }
}

/// What a plotter says that believes the cursor to be at `known`.
pub fn advance<'a>(sink: &'a str, cursor: &'a Cursor, known: u64, delete: &'a [EntryId]) -> Advance<'a> {
    Advance {
        sink,
        cursor,
        known,
        delete,
    }
}

/// A flush of one second with one part.
pub fn flush(batch: u64, claim: &Claimed, before: u64, samples: u64, second: i64) -> ReceiptFlush {
    ReceiptFlush {
        batch,
        entries: vec![entry(
            EntryKind::Receipt,
            second,
            vec![part(claim.topic.as_str(), claim.token, samples, b"body 1 2\n\0")],
        )],
        states: vec![save(&claim.topic, claim.token, before, b"state")],
    }
}

/// Runs a case and says which one failed.
pub async fn on(name: &str, case: impl Future<Output = ()>) {
    println!("{name}");
    case.await;
}

/// Waits until the condition holds, ten seconds at most.
pub async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
