//! Registration and claims.

use std::sync::Arc;

use isochrone_model::id::{Epoch, Token, Topic};
use isochrone_store::{
    Store,
    types::{ClaimEnd, Claimed, Left, OpenRun, TopicStatus, WHOLE_PARTITIONS},
};

use crate::fixture::{ALICE, BOB, Fixture, HERE, device, flush, given_back, request};

pub async fn topics_are_claimed_once(store: Arc<dyn Store>) {
    let fixture = Fixture::new(store, "r", &["a", "b", "c"]).await;
    assert_eq!(fixture.free().await, 3);
    let mine = fixture.claim(ALICE, 2).await;
    let rest = fixture.claim(BOB, 5).await;
    assert_eq!((mine.len(), rest.len(), fixture.free().await), (2, 1, 0));
    let mut topics: Vec<_> = mine.iter().chain(&rest).map(|claim| claim.topic.as_str()).collect();
    topics.sort_unstable();
    assert_eq!(topics, ["a", "b", "c"]);
    let mut tokens: Vec<_> = mine.iter().chain(&rest).map(|claim| claim.token).collect();
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!(tokens.len(), 3, "every claim has a token of its own");
    for claim in mine.iter().chain(&rest) {
        assert_eq!(
            (claim.left, claim.stored, claim.dropped, &claim.state),
            (Left::Never, 0, 0, &None)
        );
        assert_eq!(claim.devices.len(), 1);
        assert_eq!(claim.devices[0].device.response_topic, claim.topic);
        assert_eq!(claim.devices[0].row.scheduled, 3);
    }
    let state = fixture.topic(mine[0].topic.as_str()).await;
    assert_eq!(
        (state.status, state.holder),
        (TopicStatus::Claimed, Some((ALICE, mine[0].token)))
    );

    let lost = Topic::from("lost");
    let marks = [
        (mine[0].topic.clone(), mine[0].token),
        (rest[0].topic.clone(), rest[0].token),
        (lost.clone(), Token(1)),
    ];
    let refused = fixture.store.ready(&fixture.run, HERE, ALICE, &marks).await.unwrap();
    assert_eq!(refused, [rest[0].topic.clone(), lost]);
    let ready = fixture.topic(mine[0].topic.as_str()).await;
    assert_eq!(ready.status, TopicStatus::Ready);
    assert!(ready.since >= state.since);
    assert_eq!(fixture.topic(rest[0].topic.as_str()).await.status, TopicStatus::Claimed);
}

pub async fn a_repeated_claim_brings_the_same(store: Arc<dyn Store>) {
    let fixture = Fixture::new(store, "r", &["a", "b"]).await;
    let first = fixture.claim_one(ALICE).await;
    let mut again = fixture.claim(ALICE, 0).await;
    assert_eq!(again.len(), 1);
    let again = again.remove(0);
    assert_eq!(
        (&again.topic, again.token),
        (&first.topic, first.token),
        "the answer may have been lost"
    );
    fixture
        .store
        .ready(&fixture.run, HERE, ALICE, &[(first.topic.clone(), first.token)])
        .await
        .unwrap();
    let next = fixture.claim_one(ALICE).await;
    assert_ne!(next.topic, first.topic);
    assert!(fixture.claim(BOB, 9).await.is_empty());
    assert_eq!(fixture.counter(BOB).await, None, "who took nothing has no lease");
}

pub async fn a_claim_tells_how_it_was_left(store: Arc<dyn Store>) {
    let fixture = Fixture::new(store, "r", &["a"]).await;
    let back = |claim: &Claimed, end| [given_back(claim, end)];

    // Never used: as if it had not been claimed.
    let claim = fixture.claim_one(ALICE).await;
    let left = Left::GivenBack { session: true };
    fixture
        .store
        .give_back(&fixture.run, HERE, ALICE, &back(&claim, ClaimEnd::Free), left)
        .await
        .unwrap();
    let claim = fixture.claim_one(BOB).await;
    assert_eq!(claim.left, Left::Never);

    // Flushed to: given back with its state.
    fixture.append(BOB, &flush(1, &claim, 0, 5, 100)).await;
    fixture
        .store
        .give_back(&fixture.run, HERE, BOB, &back(&claim, ClaimEnd::Free), left)
        .await
        .unwrap();
    fixture
        .store
        .give_back(&fixture.run, HERE, BOB, &back(&claim, ClaimEnd::Free), Left::Died)
        .await
        .unwrap();
    let after = fixture.topic("a").await;
    assert_eq!(
        (after.status, after.holder, after.left, after.stored),
        (TopicStatus::Free, None, left, 5)
    );
    let claim = fixture.claim_one(ALICE).await;
    assert_eq!(
        (claim.left, claim.stored, claim.state.as_deref()),
        (left, 5, Some(&b"state"[..]))
    );
    assert_eq!(claim.left_at, after.since);

    // Its holder died.
    assert!(fixture.evict(ALICE).await);
    let claim = fixture.claim_one(BOB).await;
    assert_eq!((claim.left, claim.state.as_deref()), (Left::Died, Some(&b"state"[..])));

    // Closed for good.
    fixture
        .store
        .give_back(&fixture.run, HERE, BOB, &back(&claim, ClaimEnd::Settled(1)), left)
        .await
        .unwrap();
    assert_eq!(
        (fixture.topic("a").await.status, fixture.free().await),
        (TopicStatus::Closed, 0)
    );
    assert!(fixture.claim(ALICE, 1).await.is_empty());
}

pub async fn a_closed_topic_reopens_for_a_new_epoch(store: Arc<dyn Store>) {
    let fixture = Fixture::new(store, "r", &["a"]).await;
    let claim = fixture.claim_one(ALICE).await;
    fixture.append(ALICE, &flush(1, &claim, 0, 5, 100)).await;
    let closed = [given_back(&claim, ClaimEnd::Settled(1))];
    fixture
        .store
        .give_back(&fixture.run, HERE, ALICE, &closed, Left::GivenBack { session: false })
        .await
        .unwrap();
    fixture.register(&[device(0, "a")]).await;
    assert_eq!(
        fixture.topic("a").await.status,
        TopicStatus::Closed,
        "a repeated registration is none"
    );
    fixture.register(&[device(9, "a")]).await;
    assert_eq!(
        (fixture.topic("a").await.status, fixture.free().await),
        (TopicStatus::Free, 1)
    );
    let claim = fixture.claim_one(BOB).await;
    let epochs: Vec<_> = claim.devices.iter().map(|state| state.device.epoch).collect();
    assert_eq!((epochs, claim.stored), (vec![Epoch(0), Epoch(9)], 5));
    // A device that comes while the topic is held changes nothing of the claim.
    fixture.register(&[device(10, "a")]).await;
    assert_eq!(
        (fixture.topic("a").await.status, fixture.free().await),
        (TopicStatus::Claimed, 0)
    );
    assert_eq!(fixture.store.devices(&fixture.run, HERE).await.unwrap().len(), 3);
}

pub async fn a_topic_that_a_device_joined_is_not_closed(store: Arc<dyn Store>) {
    let fixture = Fixture::new(store, "r", &["a"]).await;
    let left = Left::GivenBack { session: false };
    let claim = fixture.claim_one(ALICE).await;
    fixture.append(ALICE, &flush(1, &claim, 0, 5, 100)).await;
    fixture.register(&[device(9, "a")]).await;
    let settled = [given_back(&claim, ClaimEnd::Settled(1))];
    fixture
        .store
        .give_back(&fixture.run, HERE, ALICE, &settled, left)
        .await
        .unwrap();
    assert_eq!(
        (fixture.topic("a").await.status, fixture.free().await),
        (TopicStatus::Free, 1),
        "its holder did not know of the second device"
    );
    let claim = fixture.claim_one(BOB).await;
    assert_eq!((claim.devices.len(), claim.left, claim.stored), (2, left, 5));
    fixture.append(BOB, &flush(1, &claim, 5, 5, 101)).await;
    let settled = [given_back(&claim, ClaimEnd::Settled(2))];
    fixture
        .store
        .give_back(&fixture.run, HERE, BOB, &settled, left)
        .await
        .unwrap();
    assert_eq!(
        (fixture.topic("a").await.status, fixture.free().await),
        (TopicStatus::Closed, 0)
    );
}

pub async fn a_whole_partition_has_one_holder(store: Arc<dyn Store>) {
    let mut whole: OpenRun = request(Some("r"));
    whole.pins.claim_unit = WHOLE_PARTITIONS.to_owned();
    let fixture = Fixture::open(store, &whole, &["a", "b", "c"]).await;
    let first = fixture.claim(ALICE, 2).await;
    assert_eq!(first.len(), 2);
    assert!(fixture.claim(BOB, 9).await.is_empty(), "another holds topics there");
    assert_eq!(fixture.counter(BOB).await, None, "who took nothing has no lease");
    assert_eq!((fixture.free().await, fixture.claim(ALICE, 3).await.len()), (1, 1));

    // Until its holder has given back the last of them…
    let back: Vec<_> = fixture.claim(ALICE, 0).await;
    assert_eq!(back.len(), 3);
    let give_back = async |claims: &[Claimed]| {
        let back: Vec<_> = claims.iter().map(|claim| given_back(claim, ClaimEnd::Free)).collect();
        let left = Left::GivenBack { session: true };
        fixture
            .store
            .give_back(&fixture.run, HERE, ALICE, &back, left)
            .await
            .unwrap();
    };
    give_back(&back[..2]).await;
    assert!(fixture.claim(BOB, 9).await.is_empty());
    give_back(&back[2..]).await;
    assert_eq!(fixture.claim(BOB, 1).await.len(), 1);
    assert!(fixture.claim(ALICE, 1).await.is_empty());

    // …or was evicted.
    assert!(fixture.evict(BOB).await);
    assert_eq!(fixture.claim(ALICE, 9).await.len(), 3);
}

pub async fn a_shared_topic_brings_all_its_devices(store: Arc<dyn Store>) {
    let fixture = Fixture::new(store, "r", &[]).await;
    let devices: Vec<_> = (0..1000).map(|epoch| device(epoch, "fan/in")).collect();
    fixture.register(&devices).await;
    assert_eq!(fixture.free().await, 1);
    assert_eq!(fixture.claim_one(ALICE).await.devices, devices);
    assert_eq!(fixture.store.devices(&fixture.run, HERE).await.unwrap(), devices);
}

pub async fn nobody_settles_what_is_held(store: Arc<dyn Store>) {
    let fixture = Fixture::new(store, "r", &["a", "b"]).await;
    let claim = fixture.claim_one(ALICE).await;
    let other = Topic::from(if claim.topic.as_str() == "a" { "b" } else { "a" });
    let settle = |topic: Topic| {
        let fixture = &fixture;
        async move {
            fixture
                .store
                .settle(&fixture.run, HERE, &topic, b"final")
                .await
                .unwrap()
        }
    };
    assert!(!settle(claim.topic.clone()).await);
    assert!(settle(other.clone()).await);
    assert!(settle(other.clone()).await, "its answer may have been lost");
    assert!(!settle(Topic::from("unknown")).await);
    assert_eq!(fixture.topic(other.as_str()).await.status, TopicStatus::Closed);
    let snapshot = fixture.store.snapshot(&fixture.run, HERE).await.unwrap();
    assert_eq!(snapshot.states, [(other, bytes::Bytes::from_static(b"final"))]);
}
