//! A run whose producer and consumer are written by hand, around real plotters.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    io::{Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use isochrone_daemon::{
    Context, Health, Metrics, Shared, Stop, Tasks,
    clock::{SystemClock, discipline},
    settings::{self, PlotterSettings, Source},
};
use isochrone_model::{
    entry::{ConsumerDelay, ReceiptHead, ReceiptPart, Sample, SendHead, SendPart},
    histogram::Histogram,
    id::{DaemonId, Domain, Epoch, Partition, RunName, Token, Topic},
    row::{Device, SendRow},
    time::{Clock, Second},
    tracker::Book,
};
use isochrone_store::{
    Registry, Store,
    redis::{RedisConfig, RedisStore},
    types::{
        ClaimEnd, DeviceState, EntryKind, GivenBack, Holder, Left, NewEntry, NewPart, OpenRun, Pins, ReceiptFlush,
        Role, RunRecord, RunState, SCHEMA, SendFlush, TopicSave,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
    time::Instant,
};

/// No condition takes longer, or something is broken.
pub const SOON: Duration = Duration::from_secs(60);

pub const PARTITIONS: u16 = 8;
pub const LEASE: Duration = Duration::from_secs(1);

/// A store, a clock, and a run on it.
pub struct World {
    pub store: Arc<dyn Store>,
    pub clock: Arc<SystemClock>,
    pub run: RunName,
    producer: DaemonId,
    consumer: DaemonId,
    topics: Vec<Held>,
    batch: BTreeMap<(DaemonId, Partition), u64>,
    renewer: JoinHandle<()>,
}

struct Held {
    topic: Topic,
    partition: Partition,
    token: Token,
    epoch: Epoch,
    /// Messages so far.
    count: u64,
}

/// A plotter at work.
pub struct Running {
    pub daemon: DaemonId,
    pub stop: Stop,
    pub metrics: Metrics,
    pub health: Health,
    pub task: JoinHandle<Result<(), isochrone_plotter::Error>>,
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
        let (producer, consumer) = (DaemonId(101), DaemonId(102));
        store.enlist(&run, producer, Role::Producer, None).await.unwrap();
        store.enlist(&run, consumer, Role::Consumer, None).await.unwrap();
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
                producer,
                ordinal: 0,
                number: 0,
            };
            let state = DeviceState {
                device,
                row: SendRow::default(),
            };
            store.register(&run, partition, producer, &[state]).await.unwrap();
            let claimed = store.claim(&run, partition, consumer, usize::MAX >> 1).await.unwrap();
            let claimed = claimed.into_iter().find(|claimed| claimed.topic == topic).unwrap();
            store
                .ready(&run, partition, consumer, &[(topic.clone(), claimed.token)])
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
                    for daemon in [producer, consumer] {
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
            producer,
            consumer,
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
        let variables = [
            ("ISOCHRONE_REDIS_URL", "memory:"),
            ("ISOCHRONE_GRACE", "200ms"),
            ("ISOCHRONE_LEASE", "1s"),
            ("ISOCHRONE_PARTITIONS", "8"),
        ];
        let variables = variables.map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let loaded = settings::load::<PlotterSettings>(&Source::from_variables(variables)).unwrap();
        let shared = Shared {
            common: Arc::new(loaded.common),
            store,
            clock: self.clock.clone(),
            health: Health::new("plotter"),
            metrics: Metrics::new(),
        };
        let stop = Stop::new();
        let context = Context::new(Role::Plotter, &shared, stop.clone());
        let (daemon, metrics, health) = (context.daemon, context.metrics.clone(), shared.health.clone());
        let task = tokio::spawn(isochrone_plotter::run(context, loaded.settings));
        Running {
            daemon,
            stop,
            metrics,
            health,
            task,
        }
    }

    /// Every device sends three messages that arrive at once; `late` seconds ago.
    pub async fn messages(&mut self, late: i64) {
        let second = self.clock.reference().second() - late;
        for topic in &mut self.topics {
            let batch = self.batch.entry((self.producer, topic.partition)).or_default();
            *batch += 1;
            let sends = SendFlush {
                batch: *batch,
                entries: vec![sends(topic, second)],
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
                .append_sends(&self.run, topic.partition, self.producer, &sends)
                .await
                .unwrap();
            let batch = self.batch.entry((self.consumer, topic.partition)).or_default();
            *batch += 1;
            let save = TopicSave {
                topic: topic.topic.clone(),
                token: topic.token,
                total_before: topic.count,
                state: Book::new().save().into(),
            };
            let receipts = ReceiptFlush {
                batch: *batch,
                entries: vec![receipts(topic, second)],
                states: vec![save],
            };
            let answer = self
                .store
                .append(&self.run, topic.partition, self.consumer, &receipts)
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
            let batch = self.batch.entry((self.producer, topic.partition)).or_default();
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
                .append_sends(&self.run, topic.partition, self.producer, &last)
                .await
                .unwrap();
            let given = [GivenBack {
                topic: topic.topic.clone(),
                token: topic.token,
                end: ClaimEnd::Settled(1),
            }];
            let left = Left::GivenBack { session: false };
            self.store
                .give_back(&self.run, topic.partition, self.consumer, &given, left)
                .await
                .unwrap();
        }
        self.store.discharge(&self.run, self.producer).await.unwrap();
        self.store.discharge(&self.run, self.consumer).await.unwrap();
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

fn receipts(topic: &Held, second: Second) -> NewEntry {
    let due = second.start();
    let samples = (0..3).map(|n| Sample {
        epoch: topic.epoch,
        sequence: topic.count + n,
        due,
        sent: due + 10_000,
        received: due + 110_000,
        transit_ns: 100_000,
        delay: ConsumerDelay::None,
        warmup: false,
    });
    let part = ReceiptPart {
        samples: samples.collect(),
        ..ReceiptPart::default()
    };
    let head = ReceiptHead {
        daemon: DaemonId(102),
        domain: Domain(1),
        bound_ns: 0,
        era_changed: false,
        ack_limited: false,
        absences: Vec::new(),
    };
    let part = NewPart {
        key: topic.topic.to_string(),
        token: topic.token,
        samples: 3,
        body: Bytes::from(part.encode()),
    };
    NewEntry {
        kind: EntryKind::Receipt,
        second,
        head: Bytes::from(head.encode()),
        parts: vec![part],
    }
}

fn sends(topic: &Held, second: Second) -> NewEntry {
    let mut late = Histogram::default();
    late.record_n(10_000, 3);
    let part = SendPart {
        epoch: topic.epoch,
        scheduled: 3,
        sent: 3,
        acked: 3,
        first_sequence: Some(topic.count),
        late,
        ..SendPart::default()
    };
    let head = SendHead {
        daemon: DaemonId(101),
        domain: Domain(1),
        messages: 3,
        late: 0,
        extreme: 0,
        bound_ns: 0,
        era_changed: false,
    };
    let part = NewPart {
        key: topic.epoch.to_string(),
        token: Token(0),
        samples: 0,
        body: Bytes::from(part.encode()),
    };
    NewEntry {
        kind: EntryKind::Send,
        second,
        head: Bytes::from(head.encode()),
        parts: vec![part],
    }
}

impl Running {
    /// Series of its page by their text.
    pub fn series(&self) -> BTreeMap<String, f64> {
        series(&self.metrics.encode())
    }

    /// Asks it to finish and waits for that.
    pub async fn finish(self) {
        self.stop.finish();
        tokio::time::timeout(SOON, self.task)
            .await
            .expect("finishes in time")
            .expect("does not panic")
            .expect("succeeds");
    }

    /// As `kill -9` leaves it: nothing is given back.
    pub async fn kill(self) {
        self.stop.abort();
        let _ = tokio::time::timeout(SOON, self.task).await.expect("aborts at once");
    }
}

/// Series by their text.
pub fn series(page: &str) -> BTreeMap<String, f64> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

/// The sum of a metric's series.
pub fn sum(series: &BTreeMap<String, f64>, metric: &str) -> f64 {
    let prefix = format!("{metric}{{");
    series
        .iter()
        .filter(|(name, _)| name.starts_with(&prefix))
        .map(|(_, value)| value)
        .sum()
}

/// A deadline that says what it waited for.
pub struct Deadline(Instant, &'static str);

impl Deadline {
    pub fn new(what: &'static str) -> Deadline {
        Deadline::within(SOON, what)
    }

    pub fn within(time: Duration, what: &'static str) -> Deadline {
        Deadline(Instant::now() + time, what)
    }

    /// Waits a moment, or fails.
    pub async fn moment(&self) {
        assert!(Instant::now() < self.0, "still waiting for: {}", self.1);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A Redis server of this test's own.
pub struct Server {
    child: Child,
    command: Command,
    port: u16,
    dir: tempfile::TempDir,
}

impl Server {
    /// Starts one on a free port.
    pub async fn start() -> Server {
        let dir = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let mut command = Command::new("redis-server");
        command
            .args([
                "--port",
                &port.to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--dir",
            ])
            .arg(dir.path())
            .stdout(Stdio::null());
        let child = command
            .spawn()
            .expect("redis-server is needed: apt-get install redis-server");
        let server = Server {
            child,
            command,
            port,
            dir,
        };
        server.answers().await;
        server
    }

    async fn answers(&self) {
        let store = self.store();
        let up = Deadline::new("redis-server to answer");
        while store.runs().await.is_err() {
            up.moment().await;
        }
    }

    pub fn store(&self) -> Arc<RedisStore> {
        store(self.port)
    }

    /// The store over a line that takes so long each way.
    pub async fn far_store(&self, way: Duration) -> Arc<RedisStore> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (near, far) = (listener.local_addr().unwrap().port(), self.port);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = tokio::net::TcpStream::connect(("127.0.0.1", far)).await.unwrap();
                let (client, server) = (client.into_split(), server.into_split());
                tokio::spawn(carry(client.0, server.1, way));
                tokio::spawn(carry(server.0, client.1, way));
            }
        });
        store(near)
    }

    /// A clock that follows this server, and knows of each life of it.
    pub async fn clock(&self, stop: &Stop) -> Arc<SystemClock> {
        let (clock, store): (_, Arc<dyn Store>) = (SystemClock::new(None), self.store());
        discipline::start(&clock, &store, &Metrics::new(), &Tasks::new(stop.clone()), stop);
        let read = Deadline::new("a reading of the reference clock");
        while !clock.is_disciplined() {
            read.moment().await;
        }
        clock
    }

    /// One command; the answer's first byte says of what kind it is.
    pub fn ask(&self, command: &str) -> String {
        let mut connection = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        connection
            .write_all(format!("{command}\r\nQUIT\r\n").as_bytes())
            .unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        answer
    }

    fn saved(&self) -> PathBuf {
        self.dir.path().join("dump.rdb")
    }

    fn kept(&self) -> PathBuf {
        self.dir.path().join("kept.rdb")
    }

    /// Has it save everything as it is now.
    pub fn save(&self) {
        assert!(self.ask("SAVE").starts_with("+OK"));
    }

    /// Remembers what was saved.
    pub fn keep(&self) {
        std::fs::copy(self.saved(), self.kept()).unwrap();
    }

    /// Kills it and starts it again with what was kept.
    pub async fn roll_back(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::fs::copy(self.kept(), self.saved()).expect("something was kept");
        self.child = self.command.spawn().unwrap();
        self.answers().await;
    }
}

fn store(port: u16) -> Arc<RedisStore> {
    let config = RedisConfig {
        urls: vec![format!("redis://127.0.0.1:{port}")],
        tls_ca: None,
        announce: true,
    };
    RedisStore::connect(&config).unwrap()
}

async fn carry(mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin, way: Duration) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        // Not a wait for anything: the line is as long as that.
        tokio::time::sleep(way).await;
        if to.write_all(&bytes[..count]).await.is_err() {
            break;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
