//! The whole daemon in this process: in memory, and against a real mosquitto and a real Redis.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking, in its helpers as well"
)]

use std::{collections::BTreeMap, ffi::OsString, sync::Arc, time::Duration};

use isochrone_daemon::{
    Context, Health, Metrics, Shared, Stop,
    chassis::open_store,
    clock::discipline,
    settings::{Loaded, ProducerSettings, Source, load},
};
use isochrone_e2e::servers::{Mosquitto, Redis, free_port};
use isochrone_model::{
    entry::SendPart,
    id::{DaemonId, Epoch, Partition, RunName},
    range::SeqRange,
    row::SendRow,
};
use isochrone_producer::{Error, Outcome, run};
use isochrone_store::{
    Store,
    types::{Entry, EntryId, EntryKind, Left, OpenRun, Pins, Role, RunState, SCHEMA},
};
use tokio::{
    task::{JoinHandle, spawn},
    time::{Instant, sleep, timeout},
};

const PARTITIONS: u16 = 4;
const LONG: Duration = Duration::from_secs(30);

fn load_settings(variables: &[(&str, &str)]) -> Loaded<ProducerSettings> {
    let basic = [
        ("ISOCHRONE_PARTITIONS", "4"),
        ("ISOCHRONE_LEASE", "1s"),
        ("ISOCHRONE_DRAIN", "1s"),
    ];
    let variables = basic.iter().chain(variables);
    load(&Source::from_variables(
        variables.map(|(name, value)| (OsString::from(name), OsString::from(value))),
    ))
    .unwrap()
}

/// A daemon that can be told to stop, and the store it works with.
struct Producer {
    stop: Stop,
    store: Arc<dyn Store>,
    work: JoinHandle<Result<Outcome, Error>>,
}

impl Producer {
    fn start(variables: &[(&str, &str)]) -> Producer {
        let Loaded { common, settings, .. } = load_settings(variables);
        let (clock, store) = open_store(&common).unwrap();
        Producer::start_on(common, settings, clock, store)
    }

    fn start_on(
        common: isochrone_daemon::settings::Common,
        settings: ProducerSettings,
        clock: Arc<isochrone_daemon::clock::SystemClock>,
        store: Arc<dyn Store>,
    ) -> Producer {
        let stop = Stop::new();
        let shared = Shared {
            common: Arc::new(common),
            store: store.clone(),
            clock,
            health: Health::new("producer"),
            metrics: Metrics::new(),
        };
        let context = Context::new(Role::Producer, &shared, stop.clone());
        // Only it knows when the server can forget nothing of what it was told any more.
        discipline::start(&shared.clock, &shared.store, &shared.metrics, &context.tasks, &stop);
        Producer {
            stop,
            store,
            work: spawn(run(context, settings, None)),
        }
    }

    async fn outcome(self) -> Result<Outcome, Error> {
        timeout(LONG, self.work).await.expect("ends in time").expect("no panic")
    }
}

/// Claims every topic of the run and says that it listens.
fn listen(store: &Arc<dyn Store>) -> JoinHandle<()> {
    let store = store.clone();
    spawn(async move {
        let daemon = DaemonId(0xC0);
        loop {
            for record in store.runs().await.unwrap_or_default() {
                for (partition, _) in store.free(&record.run).await.unwrap_or_default() {
                    let claimed = store
                        .claim(&record.run, partition, daemon, 1000)
                        .await
                        .unwrap_or_default();
                    assert!(
                        claimed
                            .iter()
                            .all(|claim| claim.left == Left::Never || claim.left == Left::Died)
                    );
                    let topics: Vec<_> = claimed.into_iter().map(|claim| (claim.topic, claim.token)).collect();
                    let _ = store.ready(&record.run, partition, daemon, &topics).await;
                }
            }
            sleep(Duration::from_millis(20)).await;
        }
    })
}

/// Everything producers wrote.
struct Written {
    rows: BTreeMap<Epoch, SendRow>,
    parts: Vec<SendPart>,
}

async fn written(store: &Arc<dyn Store>, run: &RunName) -> Written {
    let mut written = Written {
        rows: BTreeMap::new(),
        parts: Vec::new(),
    };
    for partition in (0..PARTITIONS).map(Partition) {
        for state in store.devices(run, partition).await.unwrap_or_default() {
            written.rows.insert(state.device.epoch, state.row);
        }
        let mut after = EntryId::default();
        loop {
            let entries = store.entries(run, partition, after, 500).await.unwrap_or_default();
            let Some(last) = entries.last() else { break };
            after = last.id;
            for Entry { entry, .. } in entries {
                assert_eq!(entry.kind, EntryKind::Send);
                written
                    .parts
                    .extend(entry.parts.iter().map(|part| SendPart::decode(&part.body).unwrap()));
            }
        }
    }
    written
}

impl Written {
    fn row_sum(&self, of: impl Fn(&SendRow) -> u64) -> u64 {
        self.rows.values().map(of).sum()
    }

    fn part_sum(&self, of: impl Fn(&SendPart) -> u64) -> u64 {
        self.parts.iter().map(of).sum()
    }

    /// The equations of the ledger that a producer answers for, and its parts beside them.
    fn check(&self, qos: u8) {
        for row in self.rows.values() {
            assert!(row.ended, "{row:?}");
            assert_eq!(row.queued, 0);
            assert_eq!(row.scheduled, row.sent + row.unsent);
            if qos > 0 {
                assert_eq!(row.sent, row.acked + row.refused + row.unconfirmed);
            }
        }
        assert_eq!(self.row_sum(|row| row.scheduled), self.part_sum(|part| part.scheduled));
        assert_eq!(self.row_sum(|row| row.sent), self.part_sum(|part| part.sent));
        assert_eq!(self.row_sum(|row| row.sent), self.part_sum(|part| part.late.count()));
        assert_eq!(self.row_sum(|row| row.unsent), self.part_sum(|part| part.unsent));
        assert_eq!(self.row_sum(|row| row.acked), self.part_sum(|part| part.acked));
        let counted = |ranges: &[SeqRange]| ranges.iter().map(|range| range.count()).sum::<u64>();
        assert_eq!(
            self.row_sum(|row| row.unconfirmed),
            self.part_sum(|part| counted(&part.unconfirmed))
        );
    }
}

async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let deadline = Instant::now() + LONG;
    while !condition().await {
        assert!(Instant::now() < deadline, "waited for: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// In memory, with somebody listening: every place of the schedule is sent, acknowledged and written down; the daemon
/// leaves the run.
#[tokio::test]
async fn a_schedule_from_start_to_end_in_memory() {
    let producer = Producer::start(&[
        ("ISOCHRONE_REDIS_URL", "memory:"),
        ("ISOCHRONE_BROKER", "memory:start-to-end"),
        ("ISOCHRONE_DEVICES", "5"),
        ("ISOCHRONE_RATE", "200"),
        ("ISOCHRONE_COUNT", "100"),
        ("ISOCHRONE_QOS", "2"),
    ]);
    let store = producer.store.clone();
    let listener = listen(&store);
    let outcome = producer.outcome().await.unwrap();
    listener.abort();
    let run = outcome.run.clone().unwrap();
    assert_eq!(
        (outcome.scheduled, outcome.sent, outcome.acked, outcome.devices),
        (500, 500, 500, 5)
    );
    let written = written(&store, &run).await;
    written.check(2);
    assert_eq!(written.row_sum(|row| row.sent), 500);
    assert_eq!(written.part_sum(|part| part.complete.count()), 500);
    let roster = store.roster(&run).await.unwrap();
    assert!(
        roster
            .iter()
            .all(|member| member.role != Role::Producer || member.ended),
        "{roster:?}"
    );
}

/// Without anybody listening a device waits; told to finish it says its last word without having sent.
#[tokio::test]
async fn a_device_waits_for_a_consumer() {
    let producer = Producer::start(&[("ISOCHRONE_REDIS_URL", "memory:"), ("ISOCHRONE_BROKER", "memory:waits")]);
    let (store, stop) = (producer.store.clone(), producer.stop.clone());
    until("a registered device", async || registered(&store).await).await;
    sleep(Duration::from_millis(700)).await;
    stop.finish();
    let outcome = producer.outcome().await.unwrap();
    assert_eq!((outcome.devices, outcome.scheduled), (1, 0));
    written(&store, &outcome.run.unwrap()).await.check(0);
}

async fn registered(store: &Arc<dyn Store>) -> bool {
    for record in store.runs().await.unwrap_or_default() {
        if !store.free(&record.run).await.unwrap_or_default().is_empty() {
            return true;
        }
    }
    false
}

/// Rate `max` keeps the connection busy until its count, and due is the moment of sending.
#[tokio::test]
async fn flat_out_counts_like_any_other() {
    let producer = Producer::start(&[
        ("ISOCHRONE_REDIS_URL", "memory:"),
        ("ISOCHRONE_BROKER", "memory:flat-out"),
        ("ISOCHRONE_DEVICES", "2"),
        ("ISOCHRONE_RATE", "max"),
        ("ISOCHRONE_COUNT", "50000"),
        ("ISOCHRONE_WAIT_FOR_CONSUMER", "false"),
    ]);
    let store = producer.store.clone();
    let outcome = producer.outcome().await.unwrap();
    assert_eq!((outcome.scheduled, outcome.sent, outcome.unsent), (100_000, 100_000, 0));
    written(&store, &outcome.run.unwrap()).await.check(0);
}

/// A producer whose place is given away says its last words and goes on as another; no place of either is missing.
#[tokio::test]
async fn a_lost_place_begins_a_new_life() {
    let (producer, run) = lose_place(&[("ISOCHRONE_BROKER", "memory:lost-place"), ("ISOCHRONE_RUN", "lost")]).await;
    let (store, stop) = (producer.store.clone(), producer.stop.clone());
    let sent = async || written(&store, &run).await.row_sum(|row| row.sent);
    until("devices of a second life", async || {
        written(&store, &run).await.rows.len() == 6
    })
    .await;
    let before = sent().await;
    until("messages of the second life", async || sent().await > before + 20).await;
    stop.finish();
    let outcome = producer.outcome().await.unwrap();
    assert_eq!((outcome.lives, outcome.devices), (2, 6));
    let written = written(&store, &run).await;
    written.check(1);
    assert_eq!(written.row_sum(|row| row.sent), outcome.sent);
}

/// Where its run drains meanwhile, for it was the only producer, it goes on in another, unless the run was named.
#[tokio::test]
async fn a_lost_place_in_a_run_that_drains_begins_another_run() {
    let (producer, run) = lose_place(&[("ISOCHRONE_BROKER", "memory:lost-run")]).await;
    let (store, stop) = (producer.store.clone(), producer.stop.clone());
    store.advance_run(&run, RunState::Draining).await.unwrap();
    let other = async || {
        let runs = store.runs().await.unwrap();
        runs.into_iter().find(|record| record.run != run)
    };
    until("another run", async || other().await.is_some()).await;
    let second = other().await.unwrap().run;
    until("messages in it", async || {
        written(&store, &second).await.row_sum(|row| row.sent) > 20
    })
    .await;
    stop.finish();
    let outcome = producer.outcome().await.unwrap();
    assert_eq!((outcome.lives, outcome.run), (2, Some(second)));
}

/// A producer of three devices whose roster row and leases were taken while it sent.
async fn lose_place(variables: &[(&str, &str)]) -> (Producer, RunName) {
    let basic = [
        ("ISOCHRONE_REDIS_URL", "memory:"),
        ("ISOCHRONE_DEVICES", "3"),
        ("ISOCHRONE_RATE", "100"),
        ("ISOCHRONE_QOS", "1"),
        ("ISOCHRONE_WAIT_FOR_CONSUMER", "false"),
    ];
    let producer = Producer::start(&[&basic, variables].concat());
    let store = producer.store.clone();
    until("a run", async || !store.runs().await.unwrap().is_empty()).await;
    let run = store.runs().await.unwrap()[0].run.clone();
    until("messages", async || {
        written(&store, &run).await.row_sum(|row| row.sent) > 20
    })
    .await;
    let first = store.roster(&run).await.unwrap()[0].daemon;
    until("the producer's expulsion", async || {
        let counter = store.roster(&run).await.unwrap()[0].counter;
        store.expel(&run, first, counter).await.unwrap()
    })
    .await;
    for partition in (0..PARTITIONS).map(Partition) {
        until("eviction", async || {
            let leases = store.leases(&run, &[partition]).await.unwrap();
            let Some(row) = leases.into_iter().find(|row| row.1 == first) else {
                return true;
            };
            store.evict(&run, partition, first, row.2).await.unwrap()
        })
        .await;
    }
    (producer, run)
}

/// A run with other pins refuses by name.
#[tokio::test]
async fn a_run_with_other_pins_refuses() {
    let Loaded { common, settings, .. } = load_settings(&[
        ("ISOCHRONE_REDIS_URL", "memory:"),
        ("ISOCHRONE_BROKER", "memory:pins"),
        ("ISOCHRONE_RUN", "pinned"),
    ]);
    let (clock, store) = open_store(&common).unwrap();
    let pins = Pins {
        schema: SCHEMA,
        partitions: 8,
        claim_unit: "topic".to_owned(),
    };
    let keep = Duration::from_secs(60);
    store
        .open_run(&OpenRun {
            run: Some("pinned".parse().unwrap()),
            pins,
            keep,
        })
        .await
        .unwrap();
    let error = Producer::start_on(common, settings, clock, store)
        .outcome()
        .await
        .unwrap_err();
    assert!(error.to_string().contains("ISOCHRONE_PARTITIONS"), "{error}");
}

/// Told to stop while the store was never there: it ends, once politely, once at once.
#[tokio::test]
async fn it_stops_while_the_store_is_away() {
    let url = format!("redis://127.0.0.1:{}", free_port());
    for abort in [false, true] {
        let producer = Producer::start(&[("ISOCHRONE_REDIS_URL", &url), ("ISOCHRONE_BROKER", "memory:away")]);
        sleep(Duration::from_millis(300)).await;
        if abort {
            producer.stop.abort()
        } else {
            producer.stop.finish()
        }
        assert_eq!(producer.outcome().await.unwrap(), Outcome::default());
    }
}

/// On real servers, for each QoS and version: the rows say what happened, and the broker keeps no session.
#[tokio::test]
async fn real_servers_each_qos_and_version() {
    let (broker, redis) = (Mosquitto::start(), Redis::start());
    for (qos, version) in [
        ("0", "3.1.1"),
        ("1", "3.1.1"),
        ("2", "3.1.1"),
        ("0", "5"),
        ("1", "5"),
        ("2", "5"),
    ] {
        let name = format!("real-{qos}-{version}");
        let producer = Producer::start(&[
            ("ISOCHRONE_REDIS_URL", &redis.url()),
            ("ISOCHRONE_BROKER", &broker.url()),
            ("ISOCHRONE_RUN", &name),
            ("ISOCHRONE_DEVICES", "10"),
            ("ISOCHRONE_RATE", "100"),
            ("ISOCHRONE_DURATION", "1s"),
            ("ISOCHRONE_QOS", qos),
            ("ISOCHRONE_MQTT_VERSION", version),
        ]);
        let store = producer.store.clone();
        let listener = listen(&store);
        let outcome = producer.outcome().await.unwrap();
        listener.abort();
        assert_eq!(
            (outcome.scheduled, outcome.unsent, outcome.unconfirmed, outcome.refused),
            (1000, 0, 0, 0),
            "{name}"
        );
        assert_eq!(outcome.acked, if qos == "0" { 0 } else { 1000 }, "{name}");
        written(&store, &outcome.run.unwrap()).await.check(qos.parse().unwrap());
    }
    isochrone_e2e::wait::until("no session left at the broker", LONG, || {
        broker.sys("clients/disconnected") == 0
    });
}

/// Servers that come late, a Redis that is away for longer than a lease, a broker that restarts: nothing is missing
/// in the rows and parts.
#[tokio::test]
async fn servers_that_come_late_and_go_away() {
    let (mut broker, mut redis) = (Mosquitto::start(), Redis::start());
    redis.stop();
    let producer = Producer::start(&[
        ("ISOCHRONE_REDIS_URL", &redis.url()),
        ("ISOCHRONE_BROKER", &broker.url()),
        ("ISOCHRONE_RUN", "outages"),
        ("ISOCHRONE_DEVICES", "4"),
        ("ISOCHRONE_RATE", "50"),
        ("ISOCHRONE_QOS", "1"),
        ("ISOCHRONE_WAIT_FOR_CONSUMER", "false"),
    ]);
    let (store, stop) = (producer.store.clone(), producer.stop.clone());
    let run: RunName = "outages".parse().unwrap();
    sleep(Duration::from_millis(300)).await;
    redis.start_again();
    let sent = async || {
        let mut sum = 0;
        for partition in (0..PARTITIONS).map(Partition) {
            sum += store
                .devices(&run, partition)
                .await
                .unwrap_or_default()
                .iter()
                .map(|state| state.row.sent)
                .sum::<u64>();
        }
        sum
    };
    until("messages", async || sent().await > 50).await;

    redis.stop();
    sleep(Duration::from_secs(3)).await;
    redis.start_again();
    let before = sent().await;
    until("messages after the store's outage", async || sent().await > before + 50).await;

    broker.restart();
    let before = sent().await;
    until("messages after the broker's restart", async || {
        sent().await > before + 50
    })
    .await;

    stop.finish();
    let outcome = producer.outcome().await.unwrap();
    assert_eq!(outcome.lives, 1);
    assert!(outcome.scheduled > 600, "the outage stopped nothing: {outcome:?}");
    let written = written(&store, &run).await;
    written.check(1);
    assert_eq!(written.row_sum(|row| row.scheduled), outcome.scheduled);
    assert!(written.rows.values().all(|row| row.connects.attempts > 1));
}

/// A store that comes back with nothing is told everything again: run, roster, devices and their whole rows.
#[tokio::test]
async fn a_store_that_forgot_everything_is_told_again() {
    let mut redis = Redis::start_with(&[], free_port());
    let producer = Producer::start(&[
        ("ISOCHRONE_REDIS_URL", &redis.url()),
        ("ISOCHRONE_BROKER", "memory:forgot"),
        ("ISOCHRONE_RUN", "forgot"),
        ("ISOCHRONE_DEVICES", "4"),
        ("ISOCHRONE_RATE", "50"),
        ("ISOCHRONE_WAIT_FOR_CONSUMER", "false"),
    ]);
    let (store, stop) = (producer.store.clone(), producer.stop.clone());
    let run: RunName = "forgot".parse().unwrap();
    let sent = async || written(&store, &run).await.row_sum(|row| row.sent);
    until("messages", async || sent().await > 50).await;
    redis.stop();
    redis.start_again();
    until("messages after the loss", async || sent().await > 300).await;
    stop.finish();
    let outcome = producer.outcome().await.unwrap();
    assert_eq!((outcome.lives, outcome.devices), (1, 4));
    let written = written(&store, &run).await;
    assert_eq!(written.row_sum(|row| row.sent), outcome.sent);
    assert!(
        written
            .rows
            .values()
            .all(|row| row.ended && row.scheduled == row.sent + row.unsent)
    );
}

/// A device's file that holds no certificate is an error that names its setting; the producer leaves the run all the same.
#[tokio::test]
async fn a_bad_certificate_file_fails_and_leaves_the_run() {
    let producer = Producer::start(&[
        ("ISOCHRONE_REDIS_URL", "memory:"),
        ("ISOCHRONE_BROKER", "mqtts://127.0.0.1:1"),
        ("ISOCHRONE_RUN", "certificate"),
        ("ISOCHRONE_TLS_INSECURE", "true"),
        ("ISOCHRONE_TLS_CERT", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")),
        ("ISOCHRONE_TLS_KEY", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")),
    ]);
    let store = producer.store.clone();
    let error = producer.outcome().await.unwrap_err();
    assert!(error.to_string().contains("ISOCHRONE_TLS_CERT"), "{error}");
    let run = "certificate".parse().unwrap();
    assert!(store.roster(&run).await.unwrap().iter().all(|member| member.ended));
    written(&store, &run).await.check(0);
}

/// What settings take as a broker's scheme can be opened, and nothing else.
#[test]
fn settings_and_transports_know_the_same_schemes() {
    for scheme in isochrone_daemon::settings::BROKER_SCHEMES {
        assert!(
            isochrone_transport::open(&format!("{scheme}://localhost")).is_ok(),
            "{scheme}"
        );
    }
    let other = isochrone_transport::open("http://localhost")
        .err()
        .expect("no transport");
    for scheme in isochrone_daemon::settings::BROKER_SCHEMES {
        assert!(other.to_string().contains(&format!("{scheme}:")), "{other}");
    }
}

/// A store that says no: the devices leave the broker in order, the last words are said, and the producer fails with what
/// the store said.
#[tokio::test]
async fn a_store_that_refuses_ends_it_in_order() {
    let (broker, redis) = (Mosquitto::start(), Redis::start());
    let permit = |rule: &str| {
        let address = redis.url().replace("redis://", "");
        let mut connection = std::net::TcpStream::connect(address).unwrap();
        std::io::Write::write_all(&mut connection, format!("ACL SETUSER default {rule}\r\n").as_bytes()).unwrap();
        let mut answer = [0; 5];
        std::io::Read::read_exact(&mut connection, &mut answer).unwrap();
        assert_eq!(&answer, b"+OK\r\n");
    };
    let producer = Producer::start(&[
        ("ISOCHRONE_REDIS_URL", &redis.url()),
        ("ISOCHRONE_BROKER", &broker.url()),
        ("ISOCHRONE_RUN", "refused"),
        ("ISOCHRONE_DEVICES", "4"),
        ("ISOCHRONE_QOS", "1"),
    ]);
    let (store, run): (_, RunName) = (producer.store.clone(), "refused".parse().unwrap());
    until("connections", async || {
        let rows = written(&store, &run).await.rows;
        rows.values().filter(|row| row.connects.attempts > 0).count() == 4
    })
    .await;
    // What is asked while devices wait for a consumer is refused from here on; what is written is taken.
    permit("-hgetall");
    let error = producer.outcome().await.unwrap_err();
    permit("+hgetall");
    assert!(error.to_string().contains("use the store at"), "{error}");
    let written = written(&store, &run).await;
    assert!(written.rows.values().all(|row| row.ended), "{:?}", written.rows);
    assert!(store.roster(&run).await.unwrap().iter().all(|member| member.ended));
    isochrone_e2e::wait::until("no session left at the broker", LONG, || {
        broker.sys("clients/disconnected") == 0
    });
}
