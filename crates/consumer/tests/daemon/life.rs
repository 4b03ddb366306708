//! What consumers do when nothing goes wrong.

use std::collections::{BTreeMap, BTreeSet};

use isochrone_model::{
    entry::ReceiptPart,
    id::{DaemonId, Partition, Topic},
    row::ReceiptRow,
};
use isochrone_store::types::{EntryId, EntryKind, RunState, TopicStatus};

use crate::{device::Hand, site::Site};

/// Claimed, heard, measured, settled, closed: every message is one stored sample, and one stamped sample in an entry.
async fn one_topic(site: Site, qos: u8) {
    let consumer = site.consumer(&[]);
    let mut device = site.device("t/1", qos).await;
    site.await_status(TopicStatus::Ready, 1).await;
    device.send(3_000).await;
    device.end(&site).await;
    site.await_status(TopicStatus::Closed, 1).await;
    let (row, stored, dropped) = site.row("t/1").await;
    assert_complete(&row, &device, 3_000);
    assert_eq!((stored, dropped), (3_000, 0));
    assert!(row.closed);
    let samples = samples(&site, "t/1").await;
    assert_eq!(samples.len(), 3_000);
    assert!(samples.iter().all(|sample| sample.1 > 0), "one host: time runs forward");
    consumer.finish().await;
}

fn assert_complete(row: &ReceiptRow, device: &Hand, count: u64) {
    let epoch = &row.epochs[&device.epoch];
    assert_eq!(
        (epoch.unique, epoch.lost, epoch.unrecorded, epoch.unheard),
        (count, 0, 0, 0),
        "{row:?}"
    );
    assert!(epoch.settled);
    assert_eq!(
        row.arrived,
        row.unique + row.duplicate + row.retained + row.unstamped + row.foreign
    );
}

/// (sequence, transit) of every sample stored of a topic.
async fn samples(site: &Site, topic: &str) -> Vec<(u64, i64)> {
    let partition = Topic::from(topic).partition(8);
    let entries = site
        .store
        .entries(&site.run, partition, EntryId(0, 0), 100_000)
        .await
        .unwrap();
    let mut all = Vec::new();
    for entry in entries.iter().filter(|entry| entry.entry.kind == EntryKind::Receipt) {
        for part in entry.entry.parts.iter().filter(|part| part.key == topic) {
            let body = ReceiptPart::decode(&part.body).unwrap();
            assert!(
                body.samples
                    .iter()
                    .all(|sample| sample.received.second() == entry.entry.second)
            );
            all.extend(body.samples.iter().map(|sample| (sample.sequence, sample.transit_ns)));
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn one_topic_in_memory() {
    one_topic(Site::memory("one-memory", "topic").await, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_topic_on_real_servers_qos_0() {
    one_topic(Site::real("one-real-0", "topic").await, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_topic_on_real_servers_qos_1() {
    one_topic(Site::real("one-real-1", "topic").await, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_topic_on_real_servers_qos_2() {
    one_topic(Site::real("one-real-2", "topic").await, 2).await;
}

/// Two consumers with room for one topic each take one each; a third idles until one of them leaves.
#[tokio::test(flavor = "multi_thread")]
async fn one_to_one_and_a_surplus() {
    let site = Site::real("surplus", "topic").await;
    let consumers = [site.consumer(&[]), site.consumer(&[]), site.consumer(&[])];
    let mut devices = [site.device("t/1", 1).await, site.device("t/2", 1).await];
    site.await_status(TopicStatus::Ready, 2).await;
    let holders: Vec<_> = site
        .topics()
        .await
        .iter()
        .map(|topic| topic.holder.unwrap().0)
        .collect();
    assert_ne!(holders[0], holders[1]);
    for device in &mut devices {
        device.send(500).await;
    }
    let mut staying = Vec::new();
    for consumer in consumers {
        if consumer.daemon == holders[0] {
            consumer.finish().await;
        } else {
            staying.push(consumer);
        }
    }
    site.await_status(TopicStatus::Ready, 2).await;
    for device in &mut devices {
        device.send(500).await;
        device.end(&site).await;
    }
    site.await_status(TopicStatus::Closed, 2).await;
    for (topic, device) in ["t/1", "t/2"].into_iter().zip(&devices) {
        let (row, stored, dropped) = site.row(topic).await;
        assert_complete(&row, device, 1_000);
        assert_eq!((stored, dropped), (1_000, 0));
    }
    for consumer in staying {
        consumer.finish().await;
    }
}

/// Messages sent between give-back and take-over wait in the session and are lost to nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_bridges_a_gap_between_holders() {
    let site = Site::real("bridge", "topic").await;
    let first = site.consumer(&[]);
    let mut device = site.device("t/1", 1).await;
    site.await_status(TopicStatus::Ready, 1).await;
    device.send(100).await;
    first.finish().await;
    site.await_status(TopicStatus::Free, 1).await;
    device.send(100).await;
    let second = site.consumer(&[]);
    site.await_status(TopicStatus::Ready, 1).await;
    device.send(100).await;
    device.end(&site).await;
    site.await_status(TopicStatus::Closed, 1).await;
    let (row, stored, _) = site.row("t/1").await;
    assert_complete(&row, &device, 300);
    assert_eq!(stored, 300);
    second.finish().await;
}

/// Many devices of one response topic, some of them registered after the claim, are all complete from one consumer.
#[tokio::test(flavor = "multi_thread")]
async fn devices_fan_in() {
    let site = Site::real("fan-in", "topic").await;
    let consumer = site.consumer(&[]);
    let mut devices = vec![site.device("t/in", 1).await];
    site.await_status(TopicStatus::Ready, 1).await;
    for _ in 0..30 {
        devices.push(site.device("t/in", 1).await);
    }
    for device in &mut devices {
        device.send(50).await;
    }
    for device in &mut devices {
        device.end(&site).await;
    }
    site.await_status(TopicStatus::Closed, 1).await;
    let (row, stored, _) = site.row("t/in").await;
    for device in &devices {
        assert_complete(&row, device, 50);
    }
    assert_eq!((stored, row.foreign), (31 * 50, 0));
    consumer.finish().await;
}

/// Whole partitions: each topic is heard by exactly one of two consumers, and both have some.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_shared() {
    let site = Site::real("partitions", "partition").await;
    let consumers = [site.consumer(&[]), site.consumer(&[])];
    site.wait("both in the roster", async || {
        site.store.roster(&site.run).await.unwrap().len() == 3
    })
    .await;
    let mut devices = Vec::new();
    for number in 0..40 {
        devices.push(site.device(&format!("t/{number}"), 1).await);
    }
    site.await_status(TopicStatus::Ready, 40).await;
    for device in &mut devices {
        device.send(20).await;
    }
    let holders = holders(&site).await;
    assert_eq!(
        holders.values().sum::<usize>(),
        8,
        "no partition is shared: {holders:?}"
    );
    assert!(holders.values().all(|count| *count == 4), "fair shares: {holders:?}");
    for device in &mut devices {
        device.end(&site).await;
    }
    site.await_status(TopicStatus::Closed, 40).await;
    for device in &devices {
        let (row, stored, _) = site.row(device.topic.as_str()).await;
        assert_complete(&row, device, 20);
        assert_eq!(stored, 20);
    }
    for consumer in consumers {
        consumer.finish().await;
    }
}

/// How many partitions each consumer holds topics in.
async fn holders(site: &Site) -> BTreeMap<DaemonId, usize> {
    let mut holders = BTreeMap::new();
    for partition in 0..8 {
        let topics = site.store.topics(&site.run, Partition(partition)).await.unwrap();
        let here: BTreeSet<_> = topics
            .iter()
            .filter_map(|topic| topic.holder)
            .map(|(daemon, _)| daemon)
            .collect();
        for daemon in here {
            *holders.entry(daemon).or_insert(0) += 1;
        }
    }
    holders
}

/// A consumer that comes later gets its share of the partitions, and its share goes back when it leaves; sessions bridge
/// both, so that nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_change_hands_for_fairness() {
    let site = Site::real("fair", "partition").await;
    let first = site.consumer(&[]);
    let mut devices = Vec::new();
    for number in 0..40 {
        devices.push(site.device(&format!("t/{number}"), 1).await);
    }
    site.await_status(TopicStatus::Ready, 40).await;
    assert_eq!(holders(&site).await, BTreeMap::from([(first.daemon, 8)]));

    let second = site.consumer(&[]);
    for device in &mut devices {
        device.send(20).await;
    }
    let shares = BTreeMap::from([(first.daemon, 4), (second.daemon, 4)]);
    site.wait("fair shares", async || holders(&site).await == shares).await;
    for device in &mut devices {
        device.send(20).await;
    }
    site.await_status(TopicStatus::Ready, 40).await;
    second.finish().await;
    for device in &mut devices {
        device.send(20).await;
    }
    let all = BTreeMap::from([(first.daemon, 8)]);
    site.wait("all at the one that stays", async || holders(&site).await == all)
        .await;
    site.await_status(TopicStatus::Ready, 40).await;
    for device in &mut devices {
        device.end(&site).await;
    }
    site.await_status(TopicStatus::Closed, 40).await;
    for device in &devices {
        let (row, stored, _) = site.row(device.topic.as_str()).await;
        assert_complete(&row, device, 60);
        assert_eq!(stored, 60);
    }
    first.finish().await;
}

/// A consumer that serves every run leaves a closed one in order: its place in the roster is ended, and never counts as
/// vanished though the consumer lives on without renewing it.
#[tokio::test(flavor = "multi_thread")]
async fn a_closed_run_is_left() {
    let site = Site::real("left", "topic").await;
    let consumer = site.consumer(&[("ISOCHRONE_RUN", "")]);
    let mut device = site.device("t/1", 1).await;
    site.await_status(TopicStatus::Ready, 1).await;
    device.send(10).await;
    device.end(&site).await;
    site.await_status(TopicStatus::Closed, 1).await;
    site.store.discharge(&site.run, site.producer).await.unwrap();
    for state in [RunState::Draining, RunState::Closed] {
        assert!(site.store.advance_run(&site.run, state).await.unwrap(), "{state:?}");
    }
    site.wait("the consumer's place to end", async || {
        let roster = site.store.roster(&site.run).await.unwrap();
        roster
            .iter()
            .any(|member| member.daemon == consumer.daemon && member.ended)
    })
    .await;
    consumer.finish().await;
}

/// A consumer without a limit, as in the all-in-one, hears every topic over few connections.
#[tokio::test(flavor = "multi_thread")]
async fn one_consumer_takes_all() {
    let site = Site::memory("all", "topic").await;
    let consumer = site.consumer(&[("ISOCHRONE_CLAIMS", "unlimited")]);
    let mut devices = Vec::new();
    for number in 0..50 {
        devices.push(site.device(&format!("t/{number}"), 1).await);
    }
    site.await_status(TopicStatus::Ready, 50).await;
    for device in &mut devices {
        device.send(100).await;
        device.end(&site).await;
    }
    site.await_status(TopicStatus::Closed, 50).await;
    for device in &devices {
        assert_complete(&site.row(device.topic.as_str()).await.0, device, 100);
    }
    assert_eq!(consumer.counter("isochrone_consumer_received_total"), 5_000);
    consumer.finish().await;
}
