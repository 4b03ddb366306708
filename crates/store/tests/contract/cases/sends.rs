//! What producers write.

use std::sync::Arc;

use isochrone_model::{
    id::{Epoch, Token},
    row::SendRow,
    time::Reference,
};
use isochrone_store::{
    Error, Store,
    types::{Cursor, EntryId, EntryKind, SendFlush},
};

use crate::fixture::{BOB, Fixture, HERE, PRODUCER, advance, entry, part};

pub async fn last_words_make_vanished_rows_exact(store: Arc<dyn Store>) {
    let fixture = Fixture::new(store, "r", &["a", "b"]).await;
    let row = |sent, ended| SendRow {
        scheduled: sent,
        sent,
        ended,
        due: Some((Reference(i64::MAX - 1), Reference(0))),
        ..SendRow::default()
    };
    let sends = |batch, epoch, row| SendFlush {
        batch,
        entries: vec![entry(
            EntryKind::Send,
            100,
            vec![part(&Epoch(epoch).to_string(), Token(0), 0, b"late")],
        )],
        rows: vec![(Epoch(epoch), row)],
    };
    let append = async |flush: SendFlush| fixture.store.append_sends(&fixture.run, HERE, PRODUCER, &flush).await;
    let rows = || async {
        let devices = fixture.store.devices(&fixture.run, HERE).await.unwrap();
        devices.into_iter().map(|state| state.row).collect::<Vec<_>>()
    };
    append(sends(1, 0, row(5, false))).await.unwrap();
    append(sends(1, 0, row(4, false))).await.unwrap();
    assert_eq!(rows().await[0], row(5, false));
    append(sends(2, 1, row(9, true))).await.unwrap();
    assert!(fixture.evict(PRODUCER).await);
    assert_eq!(
        rows().await,
        [
            SendRow {
                vanished: true,
                ..row(5, false)
            },
            row(9, true)
        ]
    );
    assert!(matches!(append(sends(3, 0, row(6, false))).await, Err(Error::Fenced)));
    let rebuilt = SendRow {
        vanished: true,
        ..row(6, false)
    };
    fixture
        .store
        .bury(&fixture.run, HERE, Epoch(0), &rebuilt)
        .await
        .unwrap();
    fixture
        .store
        .bury(&fixture.run, HERE, Epoch(1), &rebuilt)
        .await
        .unwrap();
    assert_eq!(rows().await, [rebuilt.clone(), row(9, true)]);
    append(sends(3, 0, row(7, true))).await.unwrap();
    fixture
        .store
        .bury(&fixture.run, HERE, Epoch(0), &rebuilt)
        .await
        .unwrap();
    assert_eq!(rows().await, [row(7, true), row(9, true)]);
    assert_eq!(fixture.entries().await.len(), 3);
    assert!(
        fixture
            .store
            .snapshot(&fixture.run, HERE)
            .await
            .unwrap()
            .pending
            .is_empty(),
        "samples are received"
    );
}

pub async fn what_was_sent_is_unplotted_until_its_cut(store: Arc<dyn Store>) {
    let fixture = Fixture::new(store, "r", &["a", "b"]).await;
    let second = 100;
    let flush = |batch, sent: &[(u64, u64)]| SendFlush {
        batch,
        entries: sent
            .iter()
            .map(|(epoch, sent)| {
                let part = part(&Epoch(*epoch).to_string(), Token(0), *sent, b"late");
                entry(EntryKind::Send, second, vec![part])
            })
            .collect(),
        rows: vec![],
    };
    let append = async |flush: SendFlush| {
        let answer = fixture.store.append_sends(&fixture.run, HERE, PRODUCER, &flush).await;
        answer.unwrap().shed
    };
    let counts = || async {
        let mut snapshot = fixture.store.snapshot(&fixture.run, HERE).await.unwrap();
        snapshot.unplotted.sort();
        snapshot.shed.sort();
        let plain = |counts: Vec<(Epoch, u64)>| counts.into_iter().map(|(e, n)| (e.0, n)).collect::<Vec<_>>();
        (plain(snapshot.unplotted), plain(snapshot.shed))
    };
    append(flush(1, &[(0, 10), (1, 20), (0, 5)])).await;
    assert_eq!(counts().await, (vec![(0, 15), (1, 20)], vec![]));
    let robbed: EntryId = fixture.entries().await[0].id;
    let held = fixture.store.hold(&fixture.run, HERE, BOB, &["sink".to_owned()]).await;
    let token = held.unwrap().unwrap().token;
    let cursor = Cursor::default();
    let moved = advance("sink", &cursor, 0, std::slice::from_ref(&robbed));
    fixture
        .store
        .advance(&fixture.run, HERE, BOB, token, moved)
        .await
        .unwrap();
    assert_eq!(
        counts().await.0,
        [(0, 5), (1, 20)],
        "an entry that is gone is not counted"
    );
    fixture.cut_newest(BOB, token, 1, second).await;
    assert_eq!(counts().await, (vec![], vec![]), "a plotter has it");

    fixture.store.retain(&fixture.run, HERE, 1).await.unwrap();
    append(flush(2, &[(1, 0)])).await;
    assert_eq!(append(flush(3, &[(0, 3), (1, 4)])).await, 2, "there is no room");
    assert_eq!(
        append(flush(3, &[(0, 3), (1, 4)])).await,
        2,
        "a repeat gets the same answer"
    );
    assert_eq!(append(flush(4, &[(1, 1)])).await, 1);
    assert_eq!(counts().await.1, [(0, 3), (1, 5)]);
}
