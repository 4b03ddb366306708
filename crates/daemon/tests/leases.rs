//! Lease keeper and warden against the store in memory: who lives keeps what it holds, what the dead held is freed, and
//! a run moves on to its end.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may")]

use std::{future::Future, sync::Arc, time::Duration};

use isochrone_daemon::{
    Context, Health, Metrics, Shared, Stop,
    clock::SystemClock,
    lease::{LeaseEvent, LeaseKeeper},
    settings::{PlotterSettings, Source, load},
    warden::Warden,
};
use isochrone_model::{
    id::{DaemonId, Domain, Epoch, Partition, RunName, Topic},
    row::{Device, SendRow},
    time::{Clock, Second},
    tracker::Book,
};
use isochrone_store::{
    Store,
    memory::MemoryStore,
    types::{DeviceState, EntryKind, NewEntry, OpenRun, Pins, Role, RunState, SendFlush, TopicStatus},
};
use tokio::{sync::mpsc::Receiver, time::timeout};

/// Leases of a second, drains of a second, two partitions.
struct Scene {
    shared: Shared,
    store: Arc<dyn Store>,
    run: RunName,
    partition: Partition,
    topic: Topic,
}

impl Scene {
    async fn new() -> Scene {
        let variables = [
            ("ISOCHRONE_LEASE", "1s"),
            ("ISOCHRONE_DRAIN", "1s"),
            ("ISOCHRONE_PARTITIONS", "2"),
        ];
        let source = Source::from_variables(variables.map(|(name, value)| (name.into(), value.into())));
        let common = Arc::new(load::<PlotterSettings>(&source).unwrap().common);
        let clock = SystemClock::alone(None);
        let store: Arc<dyn Store> = MemoryStore::new(clock.clone());
        let pins = Pins {
            schema: 1,
            partitions: 2,
            claim_unit: "topic".to_owned(),
        };
        let run = store
            .open_run(&OpenRun {
                run: None,
                pins,
                keep: Duration::from_secs(3600),
            })
            .await
            .unwrap()
            .run;
        let topic = Topic::from("t/0");
        let shared = Shared {
            common,
            store: store.clone(),
            clock,
            health: Health::new("test"),
            metrics: Metrics::new(),
        };
        Scene {
            shared,
            store,
            run,
            partition: topic.partition(2),
            topic,
        }
    }

    /// A new member of the run.
    async fn member(&self, role: Role) -> Context {
        let context = Context::new(role, &self.shared, Stop::new());
        self.store.enlist(&self.run, context.daemon, role, None).await.unwrap();
        context
    }

    /// Registers one device of `producer`, which has sent five messages of which three are acknowledged.
    async fn register(&self, producer: DaemonId) -> Epoch {
        let epoch = Epoch(7);
        let device = Device {
            epoch,
            device: "d".to_owned(),
            client_id: String::new(),
            topic: self.topic.clone(),
            response_topic: self.topic.clone(),
            url: "memory:x".to_owned(),
            qos: 1,
            mqtt_version: "5".to_owned(),
            rate: Some(1.0),
            domain: Domain(1),
            producer,
            ordinal: 0,
            number: 0,
        };
        let row = SendRow {
            scheduled: 6,
            sent: 5,
            queued: 1,
            acked: 3,
            unconfirmed: 2,
            ..SendRow::default()
        };
        let devices = [DeviceState { device, row }];
        self.store
            .register(&self.run, self.partition, producer, &devices)
            .await
            .unwrap();
        epoch
    }

    async fn standing(&self, daemon: DaemonId) -> bool {
        let roster = self.store.roster(&self.run).await.unwrap();
        roster.iter().any(|member| member.daemon == daemon && member.stands())
    }

    async fn state(&self) -> RunState {
        self.store.run(&self.run).await.unwrap().unwrap().state
    }
}

/// Waits for a condition, at most 20 s.
async fn until<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(
        timeout(Duration::from_secs(20), wait).await.is_ok(),
        "waited 20 s for: {what}"
    );
}

async fn event(events: &mut Receiver<LeaseEvent>, wanted: impl Fn(&LeaseEvent) -> bool) -> LeaseEvent {
    let wait = async {
        loop {
            match events.recv().await {
                Some(event) if wanted(&event) => return event,
                Some(_) => {}
                None => panic!("the keeper ended"),
            }
        }
    };
    timeout(Duration::from_secs(20), wait)
        .await
        .expect("an event within 20 s")
}

/// What is held stays valid while the keeper renews it, and every renewal tells the claims; what was taken is told once.
#[tokio::test]
async fn a_keeper_renews_and_tells_what_is_lost() {
    let scene = Scene::new().await;
    let producer = scene.member(Role::Producer).await;
    scene.register(producer.daemon).await;
    let consumer = scene.member(Role::Consumer).await;
    let (keeper, mut events) = LeaseKeeper::start(&consumer, &scene.run);
    assert!(!keeper.valid(scene.partition));

    let claimed = scene
        .store
        .claim(&scene.run, scene.partition, consumer.daemon, 1)
        .await
        .unwrap();
    keeper.add(scene.partition);
    assert!(keeper.renew_now().await);
    assert!(keeper.valid(scene.partition));
    let first = keeper.valid_until(scene.partition).unwrap();
    let held = event(&mut events, |event| matches!(event, LeaseEvent::Held { .. })).await;
    let LeaseEvent::Held { partition, claims, .. } = held else {
        panic!("{held:?}");
    };
    assert_eq!(
        (partition, claims),
        (scene.partition, vec![(scene.topic.clone(), claimed[0].token)])
    );
    until("a renewal by itself", || async {
        keeper.valid_until(scene.partition).unwrap() > first
    })
    .await;

    let leases = scene.store.leases(&scene.run, &[scene.partition]).await.unwrap();
    let ours = leases.iter().find(|lease| lease.1 == consumer.daemon).unwrap();
    // A renewal may slip in between the look and the eviction.
    let mut counter = ours.2;
    while !scene
        .store
        .evict(&scene.run, scene.partition, consumer.daemon, counter)
        .await
        .unwrap()
    {
        counter += 1;
    }
    event(&mut events, |event| {
        *event == LeaseEvent::PartitionLost(scene.partition)
    })
    .await;
    assert!(!keeper.valid(scene.partition));
    scene.store.discharge(&scene.run, consumer.daemon).await.unwrap();
    scene.store.purge(&scene.run).await.unwrap();
    keeper.close();
}

/// A producer that dies is evicted and expelled, its topic settled as unheard, its row rebuilt, the run closed; who lives stays.
#[tokio::test]
async fn a_warden_buries_the_dead_and_closes_the_run() {
    let scene = Scene::new().await;
    let dead = scene.member(Role::Producer).await;
    let epoch = scene.register(dead.daemon).await;
    let consumer = scene.member(Role::Consumer).await;
    let (_keeper, _events) = LeaseKeeper::start(&consumer, &scene.run);
    let warden = Warden::start(&consumer, &scene.run);

    until("the run to close", || async { scene.state().await == RunState::Closed }).await;
    until("the warden to end", || async { warden.is_over() }).await;
    assert!(!scene.standing(dead.daemon).await);
    assert!(scene.standing(consumer.daemon).await, "who renews is not expelled");
    let snapshot = scene.store.snapshot(&scene.run, scene.partition).await.unwrap();
    assert_eq!(snapshot.topics[0].status, TopicStatus::Closed);
    let row = &snapshot.devices[0].row;
    assert!(row.vanished);
    assert_eq!(
        (row.scheduled, row.sent, row.queued, row.acked, row.unconfirmed),
        (5, 5, 0, 3, 2)
    );
    let book = Book::load(&snapshot.states[0].1).unwrap().row();
    assert!(book.closed);
    assert_eq!(book.epochs[&epoch].unheard, 5);
}

/// Leases are watched by those that joined a run first. When all of them die at once the last one finds that out, and all that
/// they leave undone.
#[tokio::test]
async fn who_is_left_alone_takes_over_the_watch() {
    let scene = Scene::new().await;
    let producer = scene.member(Role::Producer).await;
    scene.register(producer.daemon).await;
    let mut consumers = Vec::new();
    for _ in 0..5 {
        consumers.push(scene.member(Role::Consumer).await);
    }
    let last = consumers.pop().unwrap();
    let (_keeper, _events) = LeaseKeeper::start(&last, &scene.run);
    let _warden = Warden::start(&last, &scene.run);

    let leases = || async { scene.store.leases(&scene.run, &[scene.partition]).await.unwrap() };
    assert_eq!(leases().await.len(), 1);
    until("the run to close", || async { scene.state().await == RunState::Closed }).await;
    assert_eq!(leases().await, []);
    for consumer in &consumers {
        assert!(!scene.standing(consumer.daemon).await);
    }
    assert!(scene.standing(last.daemon).await);
}

/// A run whose producer renews stays open, whoever else dies.
#[tokio::test]
async fn who_renews_keeps_the_run_open() {
    let scene = Scene::new().await;
    let producer = scene.member(Role::Producer).await;
    let (keeper, _events) = LeaseKeeper::start(&producer, &scene.run);
    scene.register(producer.daemon).await;
    keeper.add(scene.partition);
    let consumer = scene.member(Role::Consumer).await;
    let (_keeper, _events) = LeaseKeeper::start(&consumer, &scene.run);
    let dead = scene.member(Role::Consumer).await;
    let _warden = Warden::start(&consumer, &scene.run);

    until("the dead consumer to leave the roster", || async {
        !scene.standing(dead.daemon).await
    })
    .await;
    assert!(scene.standing(producer.daemon).await && scene.standing(consumer.daemon).await);
    assert_eq!(scene.state().await, RunState::Open);
    let topics = scene.store.topics(&scene.run, scene.partition).await.unwrap();
    assert_eq!(topics[0].status, TopicStatus::Free);
    let row = &scene.store.devices(&scene.run, scene.partition).await.unwrap()[0].row;
    assert!(!row.vanished);
}

/// A run with entries that no cut holds stays draining while a plotter lives, and closes when none does.
#[tokio::test]
async fn a_run_waits_for_its_plotter() {
    let scene = Scene::new().await;
    let producer = scene.member(Role::Producer).await;
    let epoch = scene.register(producer.daemon).await;
    let row = SendRow {
        scheduled: 5,
        sent: 5,
        acked: 5,
        ended: true,
        ..SendRow::default()
    };
    let second = Second(scene.shared.clock.reference().second().0);
    let entry = NewEntry {
        kind: EntryKind::Send,
        second,
        head: vec![].into(),
        parts: vec![],
    };
    let flush = SendFlush {
        batch: 1,
        entries: vec![entry],
        rows: vec![(epoch, row)],
    };
    scene
        .store
        .append_sends(&scene.run, scene.partition, producer.daemon, &flush)
        .await
        .unwrap();
    scene.store.discharge(&scene.run, producer.daemon).await.unwrap();

    let plotter = scene.member(Role::Plotter).await;
    let (_keeper, _events) = LeaseKeeper::start(&plotter, &scene.run);
    let _warden = Warden::start(&plotter, &scene.run);
    let settled = || async {
        let topics = scene.store.topics(&scene.run, scene.partition).await.unwrap();
        topics[0].status == TopicStatus::Closed
    };
    until("the topic to be settled", settled).await;
    assert_eq!(scene.state().await, RunState::Draining);
    scene.store.discharge(&scene.run, plotter.daemon).await.unwrap();
    until("the run to close", || async { scene.state().await == RunState::Closed }).await;
}
