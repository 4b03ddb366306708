//! Holds, cuts and cursors.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use isochrone_model::{
    id::{Partition, Topic},
    time::Second,
};
use isochrone_store::{
    Error, Store,
    types::{Cursor, Cut, EntryId, Holder, NewCut, SinkCounts},
};

use crate::fixture::{ALICE, BOB, Fixture, HERE, advance, flush};

fn new_cut(number: u64, last: EntryId, changed: &[(&str, &'static [u8])]) -> NewCut {
    let changed = changed
        .iter()
        .map(|(field, value)| ((*field).to_owned(), Bytes::from_static(value)))
        .collect();
    NewCut {
        cut: Cut {
            number,
            last,
            second: Second(-5 + number as i64),
        },
        changed,
    }
}

fn cursor(cut: u64, exported: u64, thinned: u64) -> Cursor {
    let counts = SinkCounts {
        exported,
        thinned,
        ..SinkCounts::default()
    };
    Cursor {
        cut,
        topics: BTreeMap::from([(Topic::from("a/\"b\""), counts)]),
    }
}

/// Where a sink's cursor stands.
async fn held_at(fixture: &Fixture, sink: &str) -> u64 {
    let snapshot = fixture.store.snapshot(&fixture.run, HERE).await.unwrap();
    let cursors: BTreeMap<_, _> = snapshot.cursors.into_iter().collect();
    cursors.get(sink).map_or(0, |cursor| cursor.cut)
}

fn sinks(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

pub async fn what_is_finished_is_held_by_nobody_again(store: Arc<dyn Store>) {
    let fixture = &Fixture::new(store, "r", &[]).await;
    let (store, run) = (&fixture.store, &fixture.run);
    let first = store.hold(run, HERE, ALICE, &sinks(&["s"])).await.unwrap().unwrap();
    let foreign = store.finish(run, HERE, BOB, first.token).await;
    assert!(matches!(foreign, Err(Error::Fenced)), "only its holder finishes it");
    store.finish(run, HERE, ALICE, first.token).await.unwrap();
    store.finish(run, HERE, ALICE, first.token).await.unwrap();
    assert!(fixture.counter(ALICE).await.is_none(), "its lease row is gone");
    for daemon in [ALICE, BOB] {
        assert!(
            store
                .hold(run, HERE, daemon, &sinks(&["s", "t"]))
                .await
                .unwrap()
                .is_none()
        );
    }
    assert_eq!(store.holders(run, &[HERE]).await.unwrap(), [(HERE, Holder::Finished)]);
    let late = store
        .cut(run, HERE, ALICE, first.token, &new_cut(1, EntryId(1, 0), &[]))
        .await;
    assert!(matches!(late, Err(Error::Fenced)));
}

pub async fn one_plotter_holds_a_partition(store: Arc<dyn Store>) {
    let fixture = &Fixture::new(store, "r", &[]).await;
    let hold = |daemon| async move {
        fixture
            .store
            .hold(&fixture.run, HERE, daemon, &sinks(&["s"]))
            .await
            .unwrap()
    };
    let first = hold(ALICE).await.unwrap();
    assert_eq!(first.cursors, [("s".to_owned(), Cursor::default())]);
    assert!(first.cuts.is_empty() && first.cumulative.is_empty());
    assert_eq!(
        hold(ALICE).await.unwrap().token,
        first.token,
        "a repeat brings the same"
    );
    assert!(hold(BOB).await.is_none());
    let all: Vec<_> = (0..4).map(Partition).collect();
    assert_eq!(
        fixture.store.holders(&fixture.run, &all).await.unwrap(),
        [(HERE, Holder::Plotter(ALICE))]
    );
    fixture
        .store
        .let_go(&fixture.run, HERE, BOB, first.token)
        .await
        .unwrap();
    assert!(hold(BOB).await.is_none(), "only its holder lets it go");
    fixture
        .store
        .let_go(&fixture.run, HERE, ALICE, first.token)
        .await
        .unwrap();
    fixture
        .store
        .let_go(&fixture.run, HERE, ALICE, first.token)
        .await
        .unwrap();
    let second = hold(BOB).await.unwrap();
    assert!(second.token > first.token);
    assert!(fixture.evict(BOB).await);
    assert!(hold(ALICE).await.unwrap().token > second.token);
    let late = fixture
        .store
        .cut(&fixture.run, HERE, BOB, second.token, &new_cut(1, EntryId(1, 0), &[]))
        .await;
    assert!(matches!(late, Err(Error::Fenced)));
    let late = fixture
        .store
        .advance(
            &fixture.run,
            HERE,
            BOB,
            second.token,
            advance("s", &cursor(1, 1, 0), 0, &[]),
        )
        .await;
    assert!(matches!(late, Err(Error::Fenced)));
}

pub async fn cuts_follow_each_other(store: Arc<dyn Store>) {
    let fixture = &Fixture::new(store, "r", &[]).await;
    let held = fixture
        .store
        .hold(&fixture.run, HERE, ALICE, &sinks(&["s"]))
        .await
        .unwrap()
        .unwrap();
    let cut = |cut: NewCut| async move { fixture.store.cut(&fixture.run, HERE, ALICE, held.token, &cut).await };
    let (one, two) = (
        new_cut(1, EntryId(5, 1), &[("x", b"1"), ("y", b"\0\xff")]),
        new_cut(2, EntryId(6, 0), &[("x", b"2")]),
    );
    cut(one.clone()).await.unwrap();
    cut(one.clone()).await.unwrap();
    assert!(
        matches!(cut(new_cut(1, EntryId(9, 9), &[])).await, Err(Error::Fenced)),
        "another one of that number"
    );
    assert!(
        matches!(cut(new_cut(3, EntryId(9, 9), &[])).await, Err(Error::Fenced)),
        "one is missing"
    );
    cut(two.clone()).await.unwrap();
    let held = fixture
        .store
        .hold(&fixture.run, HERE, ALICE, &[])
        .await
        .unwrap()
        .unwrap();
    assert_eq!(held.cuts, [one.cut, two.cut]);
    let mut cumulative = held.cumulative;
    cumulative.sort();
    assert_eq!(
        cumulative,
        [
            ("x".to_owned(), Bytes::from_static(b"2")),
            ("y".to_owned(), Bytes::from_static(b"\0\xff"))
        ]
    );
    assert_eq!(
        fixture.store.snapshot(&fixture.run, HERE).await.unwrap().cut,
        Some(two.cut)
    );
}

pub async fn entries_go_when_all_cursors_have_passed(store: Arc<dyn Store>) {
    let fixture = &Fixture::new(store, "r", &["a"]).await;
    let claim = fixture.claim_one(ALICE).await;
    for batch in 1..=3 {
        fixture.append(ALICE, &flush(batch, &claim, batch - 1, 1, -4)).await;
    }
    let ids: Vec<_> = fixture.entries().await.iter().map(|entry| entry.id).collect();
    let held = fixture
        .store
        .hold(&fixture.run, HERE, BOB, &sinks(&["fast", "slow"]))
        .await
        .unwrap()
        .unwrap();
    for number in 1..=3 {
        let cut = new_cut(number, ids[number as usize - 1], &[]);
        fixture.cut(BOB, held.token, &cut).await;
    }
    let to = |sink: &'static str, cursor: Cursor, delete: Vec<EntryId>| async move {
        let known = held_at(fixture, sink).await;
        let moved = advance(sink, &cursor, known, &delete);
        let answer = fixture.store.advance(&fixture.run, HERE, BOB, held.token, moved).await;
        assert_eq!(answer.unwrap(), None);
        let held = fixture.store.hold(&fixture.run, HERE, BOB, &[]).await.unwrap().unwrap();
        let left = fixture.entries().await;
        (held.cuts.iter().map(|cut| cut.number).collect::<Vec<_>>(), left.len())
    };
    assert_eq!(to("fast", cursor(3, 3, 0), vec![]).await, (vec![1, 2, 3], 3));
    assert_eq!(to("slow", cursor(1, 1, 0), vec![ids[0]]).await, (vec![1, 2, 3], 2));
    assert_eq!(
        to("slow", cursor(3, 3, 0), vec![ids[1], ids[2], ids[0]]).await,
        (vec![3], 0)
    );
    // Who believes a cursor to be where it is no more is told where it is, and moves nothing.
    let (late, at) = (cursor(4, 4, 0), cursor(3, 3, 0));
    let late = advance("slow", &late, 1, &[]);
    let answer = fixture.store.advance(&fixture.run, HERE, BOB, held.token, late).await;
    assert_eq!(answer.unwrap(), Some(at));
    let snapshot = fixture.store.snapshot(&fixture.run, HERE).await.unwrap();
    let mut cursors = snapshot.cursors;
    cursors.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(
        cursors,
        [
            ("fast".to_owned(), cursor(3, 3, 0)),
            ("slow".to_owned(), cursor(3, 3, 0))
        ]
    );
    // The newest cut stays, so that the next one has its number.
    fixture.cut(BOB, held.token, &new_cut(4, ids[2], &[])).await;
}

pub async fn a_sink_that_joins_counts_what_it_missed(store: Arc<dyn Store>) {
    let fixture = &Fixture::new(store, "r", &[]).await;
    let held = fixture
        .store
        .hold(&fixture.run, HERE, ALICE, &sinks(&["old"]))
        .await
        .unwrap()
        .unwrap();
    for number in 1..=2 {
        let cut = new_cut(number, EntryId(number, 0), &[]);
        fixture.cut(ALICE, held.token, &cut).await;
    }
    let at = cursor(2, 70, 5);
    fixture
        .store
        .advance(&fixture.run, HERE, ALICE, held.token, advance("old", &at, 0, &[]))
        .await
        .unwrap();
    let held = fixture
        .store
        .hold(&fixture.run, HERE, ALICE, &sinks(&["old", "new"]))
        .await
        .unwrap()
        .unwrap();
    let cursors: BTreeMap<_, _> = held.cursors.into_iter().collect();
    assert_eq!(cursors["old"], at);
    assert_eq!(cursors["new"].cut, 2);
    let counts = SinkCounts {
        sink_dropped: 75,
        ..SinkCounts::default()
    };
    assert_eq!(cursors["new"].topics.values().collect::<Vec<_>>(), [&counts]);
}
