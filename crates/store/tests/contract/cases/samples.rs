//! Flushes.

use std::{collections::BTreeMap, sync::Arc};

use isochrone_model::id::Topic;
use isochrone_store::{
    Store,
    types::{ClaimEnd, Claimed, Cursor, EntryId, EntryKind, FlushAnswer, Left, ReceiptFlush, SinkCounts},
};

use crate::fixture::{ALICE, BOB, Fixture, HERE, advance, entry, flush, given_back, part, save};

pub async fn a_flush_is_stored_once(store: Arc<dyn Store>) {
    let fixture = Fixture::new(store, "r", &["a", "b"]).await;
    let claims = fixture.claim(ALICE, 2).await;
    let (a, b) = (&claims[0], &claims[1]);
    let written = ReceiptFlush {
        batch: 1,
        entries: vec![
            entry(
                EntryKind::Receipt,
                100,
                vec![part("a", a.token, 2, b"\0 1 \xff"), part("b", b.token, 0, b"")],
            ),
            entry(EntryKind::Receipt, 101, vec![part("a", a.token, 3, b"three")]),
            entry(EntryKind::Receipt, 101, vec![]),
        ],
        states: vec![save(&a.topic, a.token, 0, b"A\0"), save(&b.topic, b.token, 0, b"B")],
    };
    assert_eq!(fixture.append(ALICE, &written).await, FlushAnswer::default());
    assert_eq!(
        fixture.append(ALICE, &written).await,
        FlushAnswer::default(),
        "a repeat"
    );
    let stored = fixture.entries().await;
    assert_eq!(
        stored.iter().map(|entry| entry.entry.clone()).collect::<Vec<_>>(),
        written.entries
    );
    assert!(stored.iter().all(|entry| entry.daemon == ALICE && entry.batch == 1));
    assert!(stored.windows(2).all(|pair| pair[0].id < pair[1].id));
    assert_eq!(
        (fixture.topic("a").await.stored, fixture.topic("b").await.stored),
        (5, 0)
    );

    // Another daemon counts its own batches; pages go on where the last one ended.
    let more = ReceiptFlush {
        batch: 1,
        entries: vec![entry(EntryKind::Receipt, 102, vec![])],
        states: vec![],
    };
    fixture.append(BOB, &more).await;
    let page = fixture
        .store
        .entries(&fixture.run, HERE, stored[1].id, 1)
        .await
        .unwrap();
    assert_eq!(page, stored[2..3]);
    let page = fixture
        .store
        .entries(&fixture.run, HERE, stored[2].id, 10)
        .await
        .unwrap();
    assert_eq!((page.len(), page[0].daemon), (1, BOB));

    // What came before the last is known to be stored.
    fixture.append(ALICE, &flush(2, a, 5, 1, 103)).await;
    fixture.append(ALICE, &written).await;
    assert_eq!((fixture.topic("a").await.stored, fixture.entries().await.len()), (6, 5));
    let snapshot = fixture.store.snapshot(&fixture.run, HERE).await.unwrap();
    let states: Vec<_> = snapshot
        .states
        .iter()
        .map(|(topic, state)| (topic.as_str(), &state[..]))
        .collect();
    assert!(
        states.contains(&("a", b"state")) && states.contains(&("b", b"B")),
        "{states:?}"
    );
}

pub async fn a_total_ahead_counts_as_dropped(store: Arc<dyn Store>) {
    let fixture = Fixture::new(store, "r", &["a"]).await;
    let claim = fixture.claim_one(ALICE).await;
    fixture.append(ALICE, &flush(1, &claim, 0, 10, 100)).await;
    fixture.append(ALICE, &flush(2, &claim, 14, 3, 101)).await;
    fixture.append(ALICE, &flush(2, &claim, 14, 3, 101)).await;
    fixture.append(ALICE, &flush(3, &claim, 17, 1, 101)).await;
    let topic = fixture.topic("a").await;
    assert_eq!((topic.stored, topic.dropped), (14, 4));
    assert!(fixture.evict(ALICE).await);
    let claim = fixture.claim_one(BOB).await;
    assert_eq!((claim.stored, claim.dropped), (14, 4));
}

pub async fn a_lost_token_fences_only_its_topic(store: Arc<dyn Store>) {
    let fixture = Fixture::new(store, "r", &["a", "b"]).await;
    let claims = fixture.claim(ALICE, 2).await;
    let (a, b) = (&claims[0], &claims[1]);
    let back = [given_back(a, ClaimEnd::Free)];
    fixture
        .store
        .give_back(&fixture.run, HERE, ALICE, &back, Left::GivenBack { session: true })
        .await
        .unwrap();
    let successor = fixture.claim_one(BOB).await;
    assert_ne!(successor.token, a.token);

    let stale = ReceiptFlush {
        batch: 1,
        entries: vec![
            entry(
                EntryKind::Receipt,
                100,
                vec![part("a", a.token, 2, b"x"), part("b", b.token, 1, b"y")],
            ),
            entry(EntryKind::Receipt, 101, vec![part("a", a.token, 2, b"x")]),
        ],
        states: vec![save(&a.topic, a.token, 9, b"stale"), save(&b.topic, b.token, 0, b"B")],
    };
    let answer = FlushAnswer {
        fenced: vec![a.topic.clone()],
        shed: 0,
    };
    assert_eq!(fixture.append(ALICE, &stale).await, answer);
    assert_eq!(
        fixture.append(ALICE, &stale).await,
        answer,
        "a repeat gets the same answer"
    );
    let kept = fixture.entries().await;
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].entry.parts, [part("b", b.token, 1, b"y")]);
    let topic = fixture.topic("a").await;
    assert_eq!((topic.stored, topic.dropped), (0, 0));
    // Another's token does not help.
    let theirs = ReceiptFlush {
        batch: 2,
        ..flush(2, &successor, 0, 1, 100)
    };
    assert_eq!(
        fixture.append(ALICE, &theirs).await.fenced,
        std::slice::from_ref(&a.topic)
    );
    assert_eq!(
        fixture.append(BOB, &flush(1, &successor, 0, 1, 100)).await,
        FlushAnswer::default()
    );
}

pub async fn a_full_partition_sheds_and_counts(store: Arc<dyn Store>) {
    let fixture = Fixture::new(store, "r", &["a"]).await;
    let claim = fixture.claim_one(ALICE).await;
    fixture.append(ALICE, &flush(1, &claim, 0, 10, 100)).await;
    fixture.store.retain(&fixture.run, HERE, 1).await.unwrap();
    let answer = fixture.append(ALICE, &flush(2, &claim, 10, 3, 101)).await;
    assert_eq!(
        answer,
        FlushAnswer {
            fenced: vec![],
            shed: 1
        }
    );
    fixture.store.retain(&fixture.run, HERE, 1 << 20).await.unwrap();
    assert_eq!(fixture.append(ALICE, &flush(3, &claim, 13, 1, 101)).await.shed, 0);
    let topic = fixture.topic("a").await;
    assert_eq!((topic.stored, topic.dropped), (11, 3));
    assert_eq!(fixture.entries().await.len(), 2);
}

/// Large enough for Redis to keep in a block of its own.
static LARGE: [u8; 100_000] = [b'x'; 100_000];

pub async fn a_slow_sink_alone_loses_what_it_holds_back(store: Arc<dyn Store>) {
    let fixture = Fixture::new(store, "r", &["a"]).await;
    let claim = fixture.claim_one(ALICE).await;
    let large = |batch, before, samples, second| large_flush(batch, &claim, before, samples, second);
    let sinks = ["fast".to_owned(), "slow".to_owned()];
    let held = fixture.store.hold(&fixture.run, HERE, BOB, &sinks).await.unwrap();
    let token = held.unwrap().token;
    let mut before = 0;
    for number in 1..=3 {
        let samples = 10 * number;
        fixture
            .append(ALICE, &large(number, before, samples, 100 + number as i64))
            .await;
        before += samples;
        fixture.cut_newest(BOB, token, number, 100 + number as i64).await;
    }
    let cursor = |cut, exported| Cursor {
        cut,
        topics: BTreeMap::from([(
            claim.topic.clone(),
            SinkCounts {
                exported,
                ..SinkCounts::default()
            },
        )]),
    };
    for (sink, cursor) in [("fast", cursor(3, 60)), ("slow", cursor(1, 10))] {
        let moved = advance(sink, &cursor, 0, &[]);
        let answer = fixture.store.advance(&fixture.run, HERE, BOB, token, moved).await;
        assert_eq!(answer.unwrap(), None);
    }
    // One more does not fit beside what the slow one has left.
    fixture.store.retain(&fixture.run, HERE, 300_000).await.unwrap();
    let first = fixture.entries().await[0].id;
    let (at, gone) = (cursor(3, 60), [first]);
    let moved = advance("fast", &at, 3, &gone);
    fixture
        .store
        .advance(&fixture.run, HERE, BOB, token, moved)
        .await
        .unwrap();
    assert_eq!(
        fixture.append(ALICE, &large(4, 60, 5, 104)).await,
        FlushAnswer::default()
    );
    assert_eq!(
        fixture.append(ALICE, &large(5, 65, 6, 105)).await,
        FlushAnswer::default()
    );
    let left: Vec<_> = fixture
        .entries()
        .await
        .iter()
        .map(|entry| entry.entry.second.0)
        .collect();
    assert_eq!(
        left,
        [103, 104, 105],
        "the oldest that only the slow one waits for is gone"
    );
    let topic = fixture.topic("a").await;
    assert_eq!((topic.stored, topic.dropped), (71, 0), "nothing is dropped for all");
    let counts = async || {
        let snapshot = fixture.store.snapshot(&fixture.run, HERE).await.unwrap();
        let counts = snapshot.cursors.into_iter().map(|(sink, cursor)| {
            let counts = cursor.topics[&claim.topic];
            (sink, (cursor.cut, counts.exported, counts.sink_dropped))
        });
        counts.collect::<BTreeMap<_, _>>()
    };
    let of = |fast, slow| BTreeMap::from([("fast".to_owned(), fast), ("slow".to_owned(), slow)]);
    assert_eq!(counts().await, of((3, 60, 0), (2, 10, 20)));

    // The plotter, which still believes the slow one to be where it was, is told.
    let (believed, store) = (cursor(1, 10), &fixture.store);
    let moved = advance("slow", &believed, 1, &[]);
    let told = store.advance(&fixture.run, HERE, BOB, token, moved).await;
    let told = told.unwrap().expect("the stored cursor is ahead");
    assert_eq!((told.cut, told.topics[&claim.topic].sink_dropped), (2, 20));
    assert_eq!(counts().await, of((3, 60, 0), (2, 10, 20)), "and stays");
    let level = advance("slow", &told, 2, &[]);
    let answer = store.advance(&fixture.run, HERE, BOB, token, level).await;
    assert_eq!(answer.unwrap(), None);

    // When sinks hold nothing back any more, what no cut holds is all there is: then new samples are left out.
    fixture.store.retain(&fixture.run, HERE, 1).await.unwrap();
    assert_eq!(fixture.append(ALICE, &large(6, 71, 7, 106)).await.shed, 1);
    let topic = fixture.topic("a").await;
    assert_eq!((topic.stored, topic.dropped), (71, 7));
    assert_eq!(counts().await, of((3, 60, 0), (3, 10, 50)));
    let left: Vec<_> = fixture
        .entries()
        .await
        .iter()
        .map(|entry| entry.entry.second.0)
        .collect();
    assert_eq!(left, [104, 105]);
}

/// A slow sink that has not passed two cuts of a large entry each, with 10 and 20 samples: one more entry fits beside one
/// of them only.
async fn behind_by_two(fixture: &Fixture, claim: &Claimed) {
    let held = fixture
        .store
        .hold(&fixture.run, HERE, BOB, &["slow".to_owned()])
        .await
        .unwrap()
        .unwrap();
    for number in 1..=2 {
        let (before, second) = (10 * (number - 1), 100 + number as i64);
        fixture
            .append(ALICE, &large_flush(number, claim, before, 10 * number, second))
            .await;
        fixture.cut_newest(BOB, held.token, number, second).await;
    }
    fixture.store.retain(&fixture.run, HERE, 150_000).await.unwrap();
}

fn large_flush(batch: u64, claim: &Claimed, before: u64, samples: u64, second: i64) -> ReceiptFlush {
    let parts = vec![part(claim.topic.as_str(), claim.token, samples, &LARGE)];
    ReceiptFlush {
        batch,
        entries: vec![entry(EntryKind::Receipt, second, parts)],
        states: vec![save(&claim.topic, claim.token, before, b"state")],
    }
}

/// By sink: the cut its cursor stands at, and samples dropped for it.
async fn dropped_for(fixture: &Fixture) -> BTreeMap<String, (u64, u64)> {
    let snapshot = fixture.store.snapshot(&fixture.run, HERE).await.unwrap();
    let cursors = snapshot.cursors.into_iter();
    cursors
        .map(|(sink, cursor)| {
            let dropped = cursor.topics.values().map(|counts| counts.sink_dropped).sum();
            (sink, (cursor.cut, dropped))
        })
        .collect()
}

pub async fn a_sink_that_joins_amid_a_drop_misses_no_count(store: Arc<dyn Store>) {
    let fixture = Fixture::new(store, "r", &["a"]).await;
    let claim = fixture.claim_one(ALICE).await;
    behind_by_two(&fixture, &claim).await;
    // Asked for at once, so that whatever joining takes more than one step for is overtaken by the drop.
    let sinks = ["slow".to_owned(), "new".to_owned()];
    let next = large_flush(3, &claim, 30, 5, 103);
    let (joined, answer) = tokio::join!(
        fixture.store.hold(&fixture.run, HERE, BOB, &sinks),
        fixture.append(ALICE, &next)
    );
    assert!(joined.unwrap().is_some());
    assert_eq!(answer, FlushAnswer::default());
    let dropped = (1, 10);
    assert_eq!(
        dropped_for(&fixture).await,
        BTreeMap::from([("slow".to_owned(), dropped), ("new".to_owned(), dropped)])
    );
}

pub async fn what_is_fenced_drops_nothing_for_slow_sinks(store: Arc<dyn Store>) {
    let fixture = Fixture::new(store, "r", &["a"]).await;
    let claim = fixture.claim_one(ALICE).await;
    behind_by_two(&fixture, &claim).await;
    let back = [given_back(&claim, ClaimEnd::Free)];
    fixture
        .store
        .give_back(&fixture.run, HERE, ALICE, &back, Left::GivenBack { session: true })
        .await
        .unwrap();
    let answer = fixture.append(ALICE, &large_flush(3, &claim, 30, 5, 103)).await;
    assert_eq!((answer.fenced.len(), answer.shed), (1, 0));
    assert_eq!(
        dropped_for(&fixture).await,
        BTreeMap::from([("slow".to_owned(), (0, 0))])
    );
    assert_eq!(fixture.entries().await.len(), 2);
    let topic = fixture.topic("a").await;
    assert_eq!((topic.stored, topic.dropped), (30, 0));
}

pub async fn an_entry_is_pending_until_its_cut(store: Arc<dyn Store>) {
    let fixture = Fixture::new(store, "r", &["a", "b"]).await;
    let claims = fixture.claim(ALICE, 2).await;
    let (a, b) = (&claims[0], &claims[1]);
    let second = fixture.topic("a").await.since.second().0;
    let pending = || async {
        let mut pending = fixture.store.snapshot(&fixture.run, HERE).await.unwrap().pending;
        pending.sort();
        pending
            .into_iter()
            .map(|(topic, samples)| (topic.as_str().to_owned(), samples))
            .collect::<Vec<_>>()
    };
    let some = |pairs: &[(&str, u64)]| pairs.iter().map(|(t, n)| ((*t).to_owned(), *n)).collect::<Vec<_>>();
    fixture.append(ALICE, &flush(1, a, 0, 10, second)).await;
    fixture.append(ALICE, &flush(2, b, 0, 20, second + 1)).await;
    fixture.append(ALICE, &flush(3, a, 10, 5, second)).await;
    assert_eq!(pending().await, some(&[("a", 15), ("b", 20)]));
    let held = fixture
        .store
        .hold(&fixture.run, HERE, BOB, &["sink".to_owned()])
        .await
        .unwrap()
        .unwrap();
    fixture.cut_newest(BOB, held.token, 1, second).await;
    assert_eq!(
        pending().await,
        some(&[("b", 20)]),
        "up to the id, but after the second"
    );
    fixture.append(ALICE, &flush(4, a, 15, 1, second)).await;
    assert_eq!(
        pending().await,
        some(&[("a", 1), ("b", 20)]),
        "of the second, but after the id"
    );
    let topic = Topic::from("a");
    assert_eq!(fixture.topic(topic.as_str()).await.stored, 16);

    let behind = || async {
        let mut behind = fixture.store.snapshot(&fixture.run, HERE).await.unwrap().behind;
        behind.sort();
        behind
    };
    let of_sink = |samples| vec![("sink".to_owned(), vec![(Topic::from("a"), samples)])];
    assert_eq!(behind().await, of_sink(15), "cut, and not passed");
    let robbed = fixture.entries().await[0].id;
    let to = |cut, delete: Vec<EntryId>| {
        let (fixture, topics) = (&fixture, BTreeMap::new());
        async move {
            let cursor = Cursor { cut, topics };
            let store = &fixture.store;
            let moved = advance("sink", &cursor, 0, &delete);
            let answer = store.advance(&fixture.run, HERE, BOB, held.token, moved).await;
            assert_eq!(answer.unwrap(), None);
        }
    };
    to(0, vec![robbed]).await;
    assert_eq!(behind().await, of_sink(5), "an entry that is gone is not counted");
    to(1, vec![]).await;
    assert_eq!(behind().await, [], "passed, though not deleted yet");
    assert_eq!(pending().await, some(&[("a", 1), ("b", 20)]));
    let other = fixture.store.hold(&fixture.run, HERE, BOB, &["late".to_owned()]).await;
    assert!(other.unwrap().is_some());
    assert_eq!(behind().await, [], "a sink that joins starts where the slowest stands");
}
