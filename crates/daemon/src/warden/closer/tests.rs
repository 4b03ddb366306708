//! A run against the store in memory, pass by pass.

use std::time::Duration;

use isochrone_model::{
    id::Domain,
    row::{Device, SendRow},
};
use isochrone_store::{
    Store,
    memory::MemoryStore,
    types::{ClaimEnd, GivenBack, Left, OpenRun, Pins, ReceiptFlush, TopicSave},
};
use tokio::time::timeout;

use super::*;
use crate::{
    Health, Metrics, Shared, Stop,
    clock::SystemClock,
    settings::{PlotterSettings, Source, load},
};

/// Two partitions; leases and drains of a second.
async fn scene() -> (Context, RunRecord) {
    let variables = [("ISOCHRONE_LEASE", "1s"), ("ISOCHRONE_DRAIN", "1s")];
    let source = Source::from_variables(variables.map(|(name, value)| (name.into(), value.into())));
    let clock = SystemClock::alone(None);
    let shared = Shared {
        common: Arc::new(load::<PlotterSettings>(&source).unwrap().common),
        store: MemoryStore::new(clock.clone()),
        clock,
        health: Health::new("test"),
        metrics: Metrics::new(),
    };
    let request = OpenRun {
        run: None,
        pins: Pins {
            schema: 1,
            partitions: 2,
            claim_unit: "topic".to_owned(),
        },
        keep: Duration::from_secs(3600),
    };
    let record = shared.store.open_run(&request).await.unwrap();
    (Context::new(Role::Consumer, &shared, Stop::new()), record)
}

/// Some topic of a partition.
fn topic_of(partition: Partition) -> Topic {
    (0..)
        .map(|number| Topic::from(format!("t/{number}").as_str()))
        .find(|topic| topic.partition(2) == partition)
        .unwrap()
}

/// Registers a device that has sent a message and ended.
async fn register(store: &dyn Store, run: &RunName, partition: Partition, producer: DaemonId) {
    let topic = topic_of(partition);
    let device = Device {
        epoch: Epoch(u64::from(partition.0)),
        device: "d".to_owned(),
        client_id: String::new(),
        topic: topic.clone(),
        response_topic: topic,
        url: "memory:x".to_owned(),
        qos: 0,
        mqtt_version: "5".to_owned(),
        rate: Some(1.0),
        domain: Domain(1),
        producer,
        ordinal: 0,
        number: u32::from(partition.0),
    };
    let row = SendRow {
        scheduled: 1,
        sent: 1,
        ended: true,
        ..SendRow::default()
    };
    let devices = [DeviceState { device, row }];
    store.register(run, partition, producer, &devices).await.unwrap();
}

/// Leaves the topic of a partition closed, with a state that nobody can read.
async fn spoil(store: &dyn Store, run: &RunName, partition: Partition, consumer: DaemonId) {
    let claimed = store.claim(run, partition, consumer, 1).await.unwrap();
    let (topic, token) = (topic_of(partition), claimed[0].token);
    let flush = ReceiptFlush {
        batch: 1,
        entries: Vec::new(),
        states: vec![TopicSave {
            topic: topic.clone(),
            token,
            total_before: 0,
            state: vec![0xff; 3].into(),
        }],
    };
    store.append(run, partition, consumer, &flush).await.unwrap();
    let end = ClaimEnd::Settled(1);
    let given = [GivenBack { topic, token, end }];
    let left = Left::GivenBack { session: false };
    store.give_back(run, partition, consumer, &given, left).await.unwrap();
    store.release(run, partition, consumer).await.unwrap();
}

/// A partition that cannot be read keeps no other from being settled; the run waits for it as long as for a sink, and no longer.
#[tokio::test]
async fn a_corrupt_partition_holds_up_no_other() {
    let (context, record) = scene().await;
    let (store, run) = (context.store.clone(), record.run.clone());
    let producer = DaemonId(7);
    store.enlist(&run, producer, Role::Producer, None).await.unwrap();
    let (bad, good) = (Partition(0), Partition(1));
    for partition in [bad, good] {
        register(&*store, &run, partition, producer).await;
    }
    spoil(&*store, &run, bad, context.daemon).await;
    store.discharge(&run, producer).await.unwrap();

    let mut closer = Closer::new(Arc::new(context), &record, watch::channel(None).1);
    let settled = async {
        loop {
            assert!(matches!(closer.pass().await, Ok(Pass::Leads)), "the run waits");
            let topics = store.topics(&run, good).await.unwrap();
            if topics[0].status == TopicStatus::Closed {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(20), settled)
        .await
        .expect("the other partition to be settled");
    assert_eq!(store.run(&run).await.unwrap().unwrap().state, RunState::Draining);
    assert_eq!(closer.unreadable.keys().collect::<Vec<_>>(), [&bad]);

    // As if it had been so for long enough.
    let patience = SINK_PATIENCE.as_nanos() as u64;
    for since in closer.unreadable.values_mut() {
        since.0 = since.0.wrapping_sub(patience);
    }
    assert!(matches!(closer.pass().await, Ok(Pass::Over)));
    assert_eq!(store.run(&run).await.unwrap().unwrap().state, RunState::Closed);
}
