//! What consumers do when something does.

use std::time::Duration;

use isochrone_model::id::{Partition, Topic};
use isochrone_store::types::TopicStatus;

use crate::{
    device::Hand,
    site::{Consumer, Site},
};

/// A consumer killed: its successor takes over after the lease, and what the dead one had read and not stored is
/// unrecorded; every message is in one count.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_consumer_is_followed() {
    let site = Site::real("killed", "topic").await;
    let first = site.consumer(&[]);
    let mut device = site.device("t/1", 1).await;
    site.await_status(TopicStatus::Ready, 1).await;
    device.send(500).await;
    first.kill().await;
    let second = site.consumer(&[]);
    device.send(500).await;
    site.wait("the successor", async || {
        let topics = site.topics().await;
        topics
            .iter()
            .any(|topic| topic.holder.is_some_and(|(daemon, _)| daemon == second.daemon))
    })
    .await;
    site.await_status(TopicStatus::Ready, 1).await;
    device.send(500).await;
    device.end(&site).await;
    site.await_status(TopicStatus::Closed, 1).await;
    let (row, stored, dropped) = site.row("t/1").await;
    let epoch = &row.epochs[&device.epoch];
    assert_eq!(epoch.unique + epoch.unrecorded, 1_500, "{row:?}");
    assert_eq!((epoch.lost, epoch.unheard, dropped), (0, 0, 0), "{row:?}");
    assert_eq!(stored, epoch.unique);
    second.finish().await;
}

/// With ISOCHRONE_ACK=stored a killed consumer loses nothing.
#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_when_stored_loses_nothing() {
    let site = Site::real("stored", "topic").await;
    let first = site.consumer(&[("ISOCHRONE_ACK", "stored")]);
    let mut device = site.device("t/1", 1).await;
    site.await_status(TopicStatus::Ready, 1).await;
    device.send(500).await;
    first.kill().await;
    let second = site.consumer(&[("ISOCHRONE_ACK", "stored")]);
    device.send(500).await;
    site.wait("the successor", async || {
        let topics = site.topics().await;
        topics
            .iter()
            .any(|topic| topic.holder.is_some_and(|(daemon, _)| daemon == second.daemon))
    })
    .await;
    device.send(500).await;
    device.end(&site).await;
    site.await_status(TopicStatus::Closed, 1).await;
    all_stored(&site, &device, 1_500).await;
    second.finish().await;
}

/// Redis away for three leases: the consumer reads on, buffers, keeps its claim, and stores all of it afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_outage_costs_nothing() {
    let site = Site::real("outage", "topic").await;
    let consumer = site.consumer(&[]);
    let other = site.consumer(&[]);
    let mut device = site.device("t/1", 1).await;
    site.await_status(TopicStatus::Ready, 1).await;
    let holder = site.topics().await[0].holder;
    device.send(200).await;
    let redis = site.redis.as_ref().unwrap();
    redis.freeze();
    for _ in 0..6 {
        device.send(200).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    redis.thaw();
    device.send(200).await;
    device.end(&site).await;
    site.await_status(TopicStatus::Closed, 1).await;
    assert_eq!(all_stored(&site, &device, 1_600).await, 0, "samples dropped");
    assert!(holder.is_some_and(|(daemon, _)| daemon == consumer.daemon || daemon == other.daemon));
    assert_eq!(
        consumer.counter("isochrone_consumer_fenced_total") + other.counter("isochrone_consumer_fenced_total"),
        0
    );
    consumer.finish().await;
    other.finish().await;
}

/// A consumer that is found dead, and may not join again for a while: it does when it may.
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_is_refused_joins_later() {
    let site = Site::real("again", "topic").await;
    let consumer = site.consumer(&[]);
    let listed = async || {
        let roster = site.store.roster(&site.run).await.unwrap();
        roster
            .iter()
            .any(|member| member.daemon == consumer.daemon && !member.ended)
    };
    site.wait("the consumer in the roster", listed).await;
    let redis = site.redis.as_ref().unwrap();
    // Of what a serving consumer asks for, only this needs it: a place in the roster.
    assert_eq!(redis.ask("ACL SETUSER default -hvals"), "+OK");
    let roster = format!("isochrone:{{{}}}:roster", site.run);
    assert_eq!(redis.ask(&format!("HDEL {roster} {}", consumer.daemon)), ":1");
    site.wait("a refusal", async || redis.ask("ACL LOG") != "*0").await;
    assert!(!listed().await);
    assert_eq!(redis.ask("ACL SETUSER default +hvals"), "+OK");
    site.wait("the consumer in the roster again", listed).await;
    consumer.finish().await;
}

/// A full buffer drops the oldest samples and counts every one: what is stored and dropped is what was received.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_buffer_counts_what_it_drops() {
    let site = Site::real("full", "topic").await;
    let consumer = site.consumer(&[("ISOCHRONE_BUFFER", "1000")]);
    let mut device = site.device("t/1", 1).await;
    site.await_status(TopicStatus::Ready, 1).await;
    let redis = site.redis.as_ref().unwrap();
    redis.freeze();
    device.send(5_000).await;
    site.wait("drops", async || {
        consumer.counter("isochrone_consumer_dropped_total") > 0
    })
    .await;
    redis.thaw();
    device.send(10).await;
    device.end(&site).await;
    site.await_status(TopicStatus::Closed, 1).await;
    let (row, stored, dropped) = site.row("t/1").await;
    assert_eq!(row.unique, 5_010);
    assert_eq!(stored + dropped, 5_010);
    assert!(dropped >= 3_000, "{dropped}");
    consumer.finish().await;
}

/// A lease that somebody else has taken over: the consumer lets go at once, and what it wrote afterwards is not stored.
#[tokio::test(flavor = "multi_thread")]
async fn a_fenced_consumer_lets_go() {
    let site = Site::memory("fenced", "topic").await;
    let consumer = site.consumer(&[]);
    let mut device = site.device("t/1", 1).await;
    site.await_status(TopicStatus::Ready, 1).await;
    device.send(100).await;
    let partition = device.topic.partition(8);
    evict(&site, &consumer, partition).await;
    device.send(100).await;
    site.wait("the claim to be let go", async || {
        consumer.counter("isochrone_consumer_fenced_total") == 1
    })
    .await;
    site.await_status(TopicStatus::Ready, 1).await;
    device.send(100).await;
    device.end(&site).await;
    site.await_status(TopicStatus::Closed, 1).await;
    let (row, stored, dropped) = site.row("t/1").await;
    let epoch = &row.epochs[&device.epoch];
    assert_eq!(
        epoch.unique + epoch.unrecorded + epoch.lost + epoch.unheard,
        300,
        "{row:?}"
    );
    assert_eq!(stored + dropped, epoch.unique);
    consumer.finish().await;
}

/// With ISOCHRONE_ACK=stored it acknowledges nothing that was not stored: its session has it still for whoever is next.
#[tokio::test(flavor = "multi_thread")]
async fn a_fenced_consumer_acknowledges_only_what_is_stored() {
    let site = Site::real("fenced-stored", "topic").await;
    let consumer = site.consumer(&[("ISOCHRONE_ACK", "stored")]);
    let mut device = site.device("t/1", 1).await;
    site.await_status(TopicStatus::Ready, 1).await;
    device.send(100).await;
    evict(&site, &consumer, device.topic.partition(8)).await;
    device.send(200).await;
    site.wait("the claim to be let go", async || {
        consumer.counter("isochrone_consumer_fenced_total") == 1
    })
    .await;
    site.await_status(TopicStatus::Ready, 1).await;
    device.end(&site).await;
    site.await_status(TopicStatus::Closed, 1).await;
    all_stored(&site, &device, 300).await;
    consumer.finish().await;
}

/// All that a device sent came and is stored; answers how many samples were dropped.
async fn all_stored(site: &Site, device: &Hand, sent: u64) -> u64 {
    let (row, stored, dropped) = site.row(device.topic.as_str()).await;
    let epoch = &row.epochs[&device.epoch];
    assert_eq!(
        (epoch.unique, epoch.lost, epoch.unrecorded, epoch.unheard),
        (sent, 0, 0, 0),
        "{row:?}"
    );
    assert_eq!(stored, sent);
    dropped
}

/// Has a consumer found dead in a partition, as a watcher would that never saw it renew.
async fn evict(site: &Site, consumer: &Consumer, partition: Partition) {
    site.wait("an eviction", async || {
        let leases = site.store.leases(&site.run, &[partition]).await.unwrap();
        let row = leases.iter().find(|(_, daemon, _)| *daemon == consumer.daemon);
        let Some((_, daemon, counter)) = row else { return false };
        site.store.evict(&site.run, partition, *daemon, *counter).await.unwrap()
    })
    .await;
}

/// Two topics of one partition.
fn neighbours() -> (String, String) {
    let partition = |number: u32| Topic::from(format!("t/{number}").as_str()).partition(8);
    let other = (2..).find(|number| partition(*number) == partition(1)).unwrap();
    ("t/1".to_owned(), format!("t/{other}"))
}

/// A claim that the store lists as a consumer's and that this consumer knows nothing of goes back, and another takes it.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_nobody_knows_goes_back() {
    let site = Site::memory("unknown", "topic").await;
    let (known, unknown) = neighbours();
    let first = site.consumer(&[]);
    let mut devices = vec![site.device(&known, 1).await];
    site.await_status(TopicStatus::Ready, 1).await;
    devices.push(site.device(&unknown, 1).await);
    let partition = Topic::from(unknown.as_str()).partition(8);
    let claimed = site.store.claim(&site.run, partition, first.daemon, 1).await.unwrap();
    let marks = [(claimed[0].topic.clone(), claimed[0].token)];
    assert_eq!(marks[0].0.as_str(), unknown);
    site.store
        .ready(&site.run, partition, first.daemon, &marks)
        .await
        .unwrap();
    let second = site.consumer(&[]);
    site.wait("another holder", async || {
        let topics = site.topics().await;
        let topic = topics.iter().find(|topic| topic.topic.as_str() == unknown).unwrap();
        topic.status == TopicStatus::Ready && topic.holder.is_some_and(|(daemon, _)| daemon == second.daemon)
    })
    .await;
    for device in &mut devices {
        device.send(100).await;
        device.end(&site).await;
    }
    site.await_status(TopicStatus::Closed, 2).await;
    for device in &devices {
        let (row, stored, _) = site.row(device.topic.as_str()).await;
        assert_eq!((row.epochs[&device.epoch].unique, stored), (100, 100), "{row:?}");
    }
    first.finish().await;
    second.finish().await;
}

/// A topic whose broker is not there holds up no other of its partition. Nobody ever heard it: when its device has ended
/// it is closed, and what was sent is unheard.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_never_heard_is_closed() {
    let site = Site::memory("deaf", "topic").await;
    let (deaf, heard) = neighbours();
    let consumer = site.consumer(&[("ISOCHRONE_CLAIMS", "unlimited")]);
    let epoch = site.register(&deaf, 1, "mqtt://127.0.0.1:1").await;
    site.await_status(TopicStatus::Claimed, 1).await;
    let mut device = site.device(&heard, 1).await;
    site.await_status(TopicStatus::Ready, 1).await;
    device.send(100).await;
    device.end(&site).await;
    site.end(epoch, &Topic::from(deaf.as_str()), 10).await;
    site.await_status(TopicStatus::Closed, 2).await;
    let (row, ..) = site.row(&deaf).await;
    let epoch = &row.epochs[&epoch];
    assert_eq!(
        (epoch.unique, epoch.lost, epoch.unrecorded, epoch.unheard),
        (0, 0, 0, 10),
        "{row:?}"
    );
    assert_eq!(site.row(&heard).await.1, 100);
    consumer.finish().await;
}

/// A URL that cannot be used costs a consumer of every run that topic, and nothing else; a consumer of that run alone fails.
#[tokio::test(flavor = "multi_thread")]
async fn an_unusable_url_costs_one_topic() {
    let site = Site::memory("unusable", "topic").await;
    let (bad, good) = neighbours();
    let consumer = site.consumer(&[("ISOCHRONE_CLAIMS", "unlimited"), ("ISOCHRONE_RUN", "")]);
    let epoch = site.register(&bad, 1, "http://localhost").await;
    site.await_status(TopicStatus::Claimed, 1).await;
    let mut device = site.device(&good, 1).await;
    site.await_status(TopicStatus::Ready, 1).await;
    device.send(100).await;
    device.end(&site).await;
    site.await_status(TopicStatus::Closed, 1).await;
    consumer.finish().await;

    let alone = site.consumer(&[]);
    let problem = alone.failure().await;
    assert!(
        problem.contains("http://localhost") && problem.contains("ISOCHRONE_CONSUMER_BROKER"),
        "{problem}"
    );
    let consumer = site.consumer(&[("ISOCHRONE_CLAIMS", "unlimited"), ("ISOCHRONE_RUN", "")]);
    site.end(epoch, &Topic::from(bad.as_str()), 0).await;
    site.await_status(TopicStatus::Closed, 2).await;
    consumer.finish().await;
}

/// A broker that goes for good under a held claim: what did not come is lost, and the topic is closed all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_whose_broker_is_gone_is_closed() {
    let mut site = Site::real("gone", "topic").await;
    let consumer = site.consumer(&[]);
    let mut device = site.device("t/1", 1).await;
    site.await_status(TopicStatus::Ready, 1).await;
    device.send(100).await;
    site.wait("all of it", async || {
        consumer.counter("isochrone_consumer_received_total") == 100
    })
    .await;
    drop(site.broker.take());
    device.end_having_sent(110, &site).await;
    site.await_status(TopicStatus::Closed, 1).await;
    let (row, stored, _) = site.row("t/1").await;
    let epoch = &row.epochs[&device.epoch];
    assert_eq!(
        (epoch.unique, epoch.lost, epoch.unrecorded, epoch.unheard, stored),
        (100, 10, 0, 0, 100),
        "{row:?}"
    );
    consumer.finish().await;
}

/// Redis forgets that a topic was closed: it is closed again, by whoever the store says has it.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_brings_back_what_was_closed() {
    let mut site = Site::real("rollback", "topic").await;
    let (closed, open) = neighbours();
    let consumer = site.consumer(&[("ISOCHRONE_CLAIMS", "2")]);
    let mut devices = [site.device(&closed, 1).await, site.device(&open, 1).await];
    site.await_status(TopicStatus::Ready, 2).await;
    for device in &mut devices {
        device.send(100).await;
    }
    // One more than it sent: that one is awaited for ISOCHRONE_DRAIN.
    devices[0].end_having_sent(101, &site).await;
    site.redis.as_ref().unwrap().save();
    let topics = site.topics().await;
    assert!(
        topics.iter().all(|topic| topic.status == TopicStatus::Ready),
        "what was saved: {topics:?}"
    );
    site.await_status(TopicStatus::Closed, 1).await;
    site.redis.as_mut().unwrap().roll_back();
    site.await_status(TopicStatus::Closed, 1).await;
    devices[1].send(100).await;
    devices[1].end(&site).await;
    site.await_status(TopicStatus::Closed, 2).await;
    for (device, unique, lost) in [(&devices[0], 100, 1), (&devices[1], 200, 0)] {
        let (row, stored, dropped) = site.row(device.topic.as_str()).await;
        let epoch = &row.epochs[&device.epoch];
        assert_eq!(
            (epoch.unique, epoch.lost, epoch.unrecorded, epoch.unheard),
            (unique, lost, 0, 0),
            "{row:?}"
        );
        assert_eq!((stored, dropped), (unique, 0));
    }
    consumer.finish().await;
}

/// Told to stop before there is a run, or anything else: returns.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_before_anything_happened() {
    let site = Site::memory("early", "topic").await;
    let consumer = site.consumer(&[("ISOCHRONE_RUN", "another-run")]);
    consumer.finish().await;
    let consumer = site.consumer(&[]);
    consumer.kill().await;
}
