//! A store, a broker, a run, and consumers in it.

use std::{
    ffi::OsString,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use isochrone_consumer::Error;
use isochrone_daemon::{
    Cause, Context, Health, Metrics, Shared, Stop, Tasks,
    clock::{SystemClock, discipline},
    settings::{self, ConsumerSettings, Loaded, Source},
};
use isochrone_model::{
    id::{DaemonId, Partition, RunName, Topic},
    row::ReceiptRow,
    tracker::Book,
};
use isochrone_store::{
    Store,
    memory::MemoryStore,
    redis::{RedisConfig, RedisStore},
    types::{OpenRun, PartitionSnapshot, Pins, Role, SCHEMA, TopicState, TopicStatus},
};
use tokio::task::JoinHandle;

use crate::servers::{Server, deadline};

/// Longer than anything here takes on a busy machine.
pub const LONG: Duration = Duration::from_secs(60);

/// Where a test takes place.
pub struct Site {
    /// The run all of it is about.
    pub run: RunName,
    /// The tests' own view of the store.
    pub store: Arc<dyn Store>,
    /// The clock of all consumers.
    pub clock: Arc<SystemClock>,
    /// Where devices publish.
    pub url: String,
    /// The producer that registers devices.
    pub producer: DaemonId,
    /// Redis, where there is one.
    pub redis: Option<Server>,
    batches: AtomicU64,
    unit: &'static str,
    memory: Option<Arc<MemoryStore>>,
    _tasks: Tasks,
    _stop: Stop,
    /// mosquitto, where there is one.
    pub broker: Option<Server>,
}

/// A consumer at work.
pub struct Consumer {
    /// Its life.
    pub daemon: DaemonId,
    /// Ends it.
    pub stop: Stop,
    /// Its own metrics.
    pub metrics: Metrics,
    work: JoinHandle<Result<(), Error>>,
}

impl Site {
    /// Everything in this process.
    pub async fn memory(name: &str, unit: &'static str) -> Site {
        let clock = SystemClock::alone(None);
        let memory = MemoryStore::new(clock.clone());
        Site::new(name, unit, memory.clone(), clock, None, Some(memory), None).await
    }

    /// Redis and mosquitto.
    pub async fn real(name: &str, unit: &'static str) -> Site {
        let (redis, broker) = (Server::redis(), Server::mosquitto());
        let clock = SystemClock::new(None);
        let store = connect(redis.port);
        Site::new(name, unit, store, clock, Some(redis), None, Some(broker)).await
    }

    async fn new(
        name: &str,
        unit: &'static str,
        store: Arc<dyn Store>,
        clock: Arc<SystemClock>,
        redis: Option<Server>,
        memory: Option<Arc<MemoryStore>>,
        broker: Option<Server>,
    ) -> Site {
        let (stop, metrics) = (Stop::new(), Metrics::new());
        let tasks = Tasks::new(stop.clone());
        let run: RunName = name.parse().unwrap();
        let url = broker.as_ref().map_or(format!("memory:{name}"), |broker| {
            format!("mqtt://127.0.0.1:{}", broker.port)
        });
        if redis.is_some() {
            discipline::start(&clock, &store, &metrics, &tasks, &stop);
        }
        let pins = Pins {
            schema: SCHEMA,
            partitions: 8,
            claim_unit: unit.to_owned(),
        };
        let keep = Duration::from_secs(3600);
        let request = OpenRun {
            run: Some(run.clone()),
            pins,
            keep,
        };
        store.open_run(&request).await.unwrap();
        let producer = DaemonId(rand::random());
        store.enlist(&run, producer, Role::Producer, None).await.unwrap();
        tokio::spawn(stay_alive(store.clone(), run.clone(), producer));
        let site = Site {
            run,
            store,
            clock,
            url,
            producer,
            redis,
            batches: AtomicU64::new(0),
            unit,
            memory,
            _tasks: tasks,
            _stop: stop,
            broker,
        };
        site.wait("a disciplined clock", async || site.clock.is_disciplined())
            .await;
        site
    }

    /// Waits for a condition.
    pub async fn wait(&self, what: &str, mut condition: impl AsyncFnMut() -> bool) {
        let late = deadline(LONG);
        while !condition().await {
            assert!(!late(), "waited in vain for {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Starts a consumer with these settings over lease 1s and drain 1s; an empty one is not set.
    pub fn consumer(&self, extra: &[(&str, &str)]) -> Consumer {
        let mut variables = vec![
            ("ISOCHRONE_RUN", self.run.as_str()),
            ("ISOCHRONE_PARTITIONS", "8"),
            ("ISOCHRONE_CLAIM_UNIT", self.unit),
            ("ISOCHRONE_LEASE", "1s"),
            ("ISOCHRONE_DRAIN", "1s"),
        ];
        variables.retain(|(name, _)| !extra.contains(&(*name, "")));
        variables.extend_from_slice(extra);
        let pairs = variables
            .iter()
            .map(|(name, text)| (OsString::from(name), OsString::from(text)));
        let Loaded { common, settings, .. } =
            settings::load::<ConsumerSettings>(&Source::from_variables(pairs)).unwrap();
        let store: Arc<dyn Store> = match (&self.memory, &self.redis) {
            (Some(memory), _) => memory.another(),
            (None, Some(redis)) => connect(redis.port),
            (None, None) => unreachable!("a site has a store"),
        };
        isochrone_daemon::start_logs(&common);
        let shared = Shared {
            common: Arc::new(common),
            store,
            clock: self.clock.clone(),
            health: Health::new("test"),
            metrics: Metrics::new(),
        };
        let stop = Stop::new();
        let context = Context::new(Role::Consumer, &shared, stop.clone());
        Consumer {
            daemon: context.daemon,
            metrics: shared.metrics,
            work: tokio::spawn(isochrone_consumer::run(context, settings, None)),
            stop,
        }
    }

    /// Numbers the producer's flushes.
    pub fn next_batch(&self) -> u64 {
        self.batches.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Every response topic of the run.
    pub async fn topics(&self) -> Vec<TopicState> {
        let mut all = Vec::new();
        for partition in 0..8 {
            all.extend(
                self.store
                    .topics(&self.run, Partition(partition))
                    .await
                    .unwrap_or_default(),
            );
        }
        all
    }

    /// Waits until so many topics stand there.
    pub async fn await_status(&self, status: TopicStatus, count: usize) {
        self.wait(&format!("{count} topics {status:?}"), async || {
            let topics = self.topics().await;
            topics.iter().filter(|topic| topic.status == status).count() == count
        })
        .await;
    }

    /// All that is stored of a topic's partition.
    pub async fn snapshot(&self, topic: &str) -> PartitionSnapshot {
        let partition = Topic::from(topic).partition(8);
        self.store.snapshot(&self.run, partition).await.unwrap()
    }

    /// What consumers saved of a topic, and how many samples of it are stored and dropped.
    pub async fn row(&self, topic: &str) -> (ReceiptRow, u64, u64) {
        let snapshot = self.snapshot(topic).await;
        let state = snapshot
            .states
            .iter()
            .find(|(other, _)| other.as_str() == topic)
            .expect("a saved state");
        let counts = snapshot
            .topics
            .iter()
            .find(|other| other.topic.as_str() == topic)
            .expect("the topic");
        (Book::load(&state.1).unwrap().row(), counts.stored, counts.dropped)
    }
}

/// Renews the leases of the hand-made producer, which would be buried otherwise.
async fn stay_alive(store: Arc<dyn Store>, run: RunName, producer: DaemonId) {
    let all: Vec<Partition> = (0..8).map(Partition).collect();
    loop {
        // A failure is repeated soon enough.
        let _ = store.renew(&run, producer, &all).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn connect(port: u16) -> Arc<dyn Store> {
    RedisStore::connect(&RedisConfig {
        urls: vec![format!("redis://127.0.0.1:{port}")],
        tls_ca: None,
        announce: true,
    })
    .unwrap()
}

impl Consumer {
    /// Told once: finishes, gives back, returns.
    pub async fn finish(self) {
        self.stop.finish();
        tokio::time::timeout(LONG, self.work)
            .await
            .expect("in time")
            .unwrap()
            .unwrap();
    }

    /// Told twice: gone as if killed, as far as store and broker can see.
    pub async fn kill(self) {
        self.stop.abort();
        tokio::time::timeout(LONG, self.work)
            .await
            .expect("at once")
            .unwrap()
            .unwrap();
    }

    /// Stops by itself: why.
    pub async fn failure(self) -> String {
        tokio::time::timeout(LONG, self.stop.finishing())
            .await
            .expect("in time");
        // Its work ends as when it is told to stop; the chassis tells the cause.
        let _ = tokio::time::timeout(LONG, self.work).await.expect("in time").unwrap();
        match self.stop.cause() {
            Cause::Failed(what) => what,
            other => panic!("stopped by {other:?}"),
        }
    }

    /// One of its own counters.
    pub fn counter(&self, name: &str) -> u64 {
        let text = self.metrics.encode();
        let line = text.lines().find(|line| line.starts_with(name)).expect("a metric");
        line.rsplit(' ')
            .next()
            .and_then(|value| value.parse().ok())
            .expect("a number")
    }
}
