//! Lease rows.

use std::sync::Arc;

use isochrone_model::id::Partition;
use isochrone_store::{
    Store,
    types::{ClaimEnd, Left},
};

use crate::fixture::{ALICE, BOB, Fixture, HERE, PRODUCER, given_back};

pub async fn renewals_never_create_a_row(store: Arc<dyn Store>) {
    let fixture = Fixture::new(store, "r", &["a", "b"]).await;
    let partitions = [Partition(0), HERE];
    let (stood, renewals) = fixture.store.renew(&fixture.run, ALICE, &partitions).await.unwrap();
    assert!(
        !stood
            && renewals
                .iter()
                .all(|renewal| !renewal.alive && renewal.claims.is_empty())
    );
    assert_eq!(fixture.counter(ALICE).await, None);

    let claims = fixture.claim(ALICE, 2).await;
    let before = fixture.counter(ALICE).await.unwrap();
    let (_, renewals) = fixture.store.renew(&fixture.run, ALICE, &partitions).await.unwrap();
    assert_eq!((renewals[0].partition, renewals[0].alive), (Partition(0), false));
    assert_eq!((renewals[1].partition, renewals[1].alive), (HERE, true));
    let mut held = renewals[1].claims.clone();
    held.sort();
    assert_eq!(
        held,
        claims
            .iter()
            .map(|claim| (claim.topic.clone(), claim.token))
            .collect::<Vec<_>>()
    );
    assert!(fixture.counter(ALICE).await.unwrap() > before);

    assert!(fixture.evict(ALICE).await);
    let (_, renewals) = fixture.store.renew(&fixture.run, ALICE, &partitions).await.unwrap();
    assert!(!renewals[1].alive && renewals[1].claims.is_empty());
    assert_eq!(fixture.counter(ALICE).await, None);
}

pub async fn eviction_compares_the_counter(store: Arc<dyn Store>) {
    let fixture = Fixture::new(store, "r", &["a"]).await;
    let claim = fixture.claim_one(ALICE).await;
    assert!(
        fixture
            .store
            .hold(&fixture.run, HERE, ALICE, &[])
            .await
            .unwrap()
            .is_some()
    );
    let seen = fixture.counter(ALICE).await.unwrap();
    fixture.store.renew(&fixture.run, ALICE, &[HERE]).await.unwrap();
    assert!(
        !fixture.store.evict(&fixture.run, HERE, ALICE, seen).await.unwrap(),
        "it moved"
    );
    assert_eq!(fixture.topic("a").await.holder, Some((ALICE, claim.token)));
    assert_eq!(fixture.free().await, 0);

    assert!(fixture.evict(ALICE).await);
    assert!(
        !fixture.store.evict(&fixture.run, HERE, ALICE, seen).await.unwrap(),
        "its row is gone"
    );
    assert_eq!((fixture.free().await, fixture.topic("a").await.left), (1, Left::Died));
    assert!(fixture.store.holders(&fixture.run, &[HERE]).await.unwrap().is_empty());

    // A producer's devices without a last word vanish with it.
    assert!(!fixture.store.devices(&fixture.run, HERE).await.unwrap()[0].row.vanished);
    assert!(fixture.evict(PRODUCER).await);
    let devices = fixture.store.devices(&fixture.run, HERE).await.unwrap();
    assert!(devices[0].row.vanished && devices[0].row.scheduled == 3);
    assert!(
        fixture.claim_one(BOB).await.devices[0].row.vanished,
        "and are claimed as such"
    );
}

pub async fn a_row_made_again_has_another_counter(store: Arc<dyn Store>) {
    let fixture = Fixture::new(store, "r", &["a"]).await;
    let mut counters = Vec::new();
    for _ in 0..5 {
        let claim = fixture.claim_one(ALICE).await;
        counters.push(fixture.counter(ALICE).await.unwrap());
        let back = [given_back(&claim, ClaimEnd::Free)];
        fixture
            .store
            .give_back(&fixture.run, HERE, ALICE, &back, Left::GivenBack { session: true })
            .await
            .unwrap();
        fixture.store.release(&fixture.run, HERE, ALICE).await.unwrap();
        assert_eq!(fixture.counter(ALICE).await, None);
    }
    let made = counters.len();
    counters.dedup();
    assert_eq!(counters.len(), made);
}

pub async fn a_row_goes_when_nothing_is_held(store: Arc<dyn Store>) {
    let fixture = Fixture::new(store, "r", &["a"]).await;
    let release = |daemon| fixture.store.release(&fixture.run, HERE, daemon);
    let claim = fixture.claim_one(ALICE).await;
    release(ALICE).await.unwrap();
    assert!(fixture.counter(ALICE).await.is_some(), "it holds a topic");
    let back = [given_back(&claim, ClaimEnd::Free)];
    fixture
        .store
        .give_back(&fixture.run, HERE, ALICE, &back, Left::GivenBack { session: true })
        .await
        .unwrap();
    let held = fixture
        .store
        .hold(&fixture.run, HERE, ALICE, &[])
        .await
        .unwrap()
        .unwrap();
    release(ALICE).await.unwrap();
    assert!(fixture.counter(ALICE).await.is_some(), "it aggregates");
    fixture
        .store
        .let_go(&fixture.run, HERE, ALICE, held.token)
        .await
        .unwrap();
    assert_eq!(fixture.counter(ALICE).await, None);
    release(PRODUCER).await.unwrap();
    assert!(
        fixture.counter(PRODUCER).await.is_some(),
        "its device has not said its last word"
    );
}
