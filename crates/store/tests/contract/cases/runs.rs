//! Runs, rosters, announcements and the clock.

use std::{sync::Arc, time::Duration};

use isochrone_model::{
    id::{DaemonId, RunName},
    time::Reference,
};
use isochrone_store::{
    Error, Store,
    types::{Change, Note, NoteKind, Role, RunState},
};

use crate::fixture::{ALICE, BOB, Fixture, HERE, PRODUCER, device, request, run, until};

async fn end_all(store: &Arc<dyn Store>, run: &RunName) {
    for member in store.roster(run).await.unwrap() {
        store.discharge(run, member.daemon).await.unwrap();
    }
}

pub async fn a_run_opens_is_joined_and_closes(store: Arc<dyn Store>) {
    assert!(store.run(&run("r")).await.unwrap().is_none());
    let opened = store.open_run(&request(Some("r"))).await.unwrap();
    assert_eq!(
        (opened.run.as_str(), opened.state, opened.restored),
        ("r", RunState::Open, false)
    );
    assert_eq!(opened.keep, Duration::from_secs(3600));
    assert_eq!(store.open_run(&request(Some("r"))).await.unwrap(), opened);

    store.enlist(&opened.run, ALICE, Role::Consumer, None).await.unwrap();
    assert!(
        !store.advance_run(&opened.run, RunState::Draining).await.unwrap(),
        "no producer has enlisted yet, and somebody waits for one"
    );
    store.enlist(&opened.run, PRODUCER, Role::Producer, None).await.unwrap();
    assert!(
        !store.advance_run(&opened.run, RunState::Closed).await.unwrap(),
        "a producer stands"
    );
    store.discharge(&opened.run, PRODUCER).await.unwrap();
    assert!(store.advance_run(&opened.run, RunState::Draining).await.unwrap());
    assert!(
        store.advance_run(&opened.run, RunState::Open).await.unwrap(),
        "never back: it is past it"
    );
    store.mark_restored(&opened.run).await.unwrap();
    assert!(store.advance_run(&opened.run, RunState::Closed).await.unwrap());
    let closed = store.run(&opened.run).await.unwrap().unwrap();
    assert_eq!((closed.state, closed.restored), (RunState::Closed, true));
    assert!(closed.closed_at.unwrap() >= closed.opened_at);

    let deserted = store.open_run(&request(Some("deserted"))).await.unwrap().run;
    assert!(
        store.advance_run(&deserted, RunState::Draining).await.unwrap(),
        "nobody is there"
    );

    store.purge(&opened.run).await.unwrap();
    assert!(store.run(&opened.run).await.unwrap().is_none());
    store.purge(&opened.run).await.unwrap();
    assert!(matches!(store.roster(&opened.run).await, Err(Error::Run { cause, .. }) if cause == "unknown"));
}

pub async fn pins_and_states_refuse_by_name(store: Arc<dyn Store>) {
    store.open_run(&request(Some("r"))).await.unwrap();
    for (name, change) in [
        (
            "schema version",
            (|r| r.pins.schema = 2) as fn(&mut isochrone_store::types::OpenRun),
        ),
        ("ISOCHRONE_PARTITIONS", |r| r.pins.partitions = 64),
        ("ISOCHRONE_CLAIM_UNIT", |r| r.pins.claim_unit = "partition".to_owned()),
    ] {
        let mut request = request(Some("r"));
        change(&mut request);
        let refused = store.open_run(&request).await;
        assert!(
            matches!(refused, Err(Error::Pins { setting, .. }) if setting == name),
            "{name}: {refused:?}"
        );
    }
    store.enlist(&run("r"), PRODUCER, Role::Producer, None).await.unwrap();
    end_all(&store, &run("r")).await;
    store.advance_run(&run("r"), RunState::Draining).await.unwrap();
    assert!(matches!(
        store.open_run(&request(Some("r"))).await,
        Err(Error::Run { .. })
    ));
    assert!(matches!(
        store.enlist(&run("r"), BOB, Role::Producer, None).await,
        Err(Error::Run { .. })
    ));
    assert_eq!(store.enlist(&run("r"), ALICE, Role::Consumer, None).await.unwrap(), 0);
    assert!(matches!(
        store.snapshot(&run("unknown"), HERE).await,
        Err(Error::Run { .. })
    ));
}

pub async fn unnamed_producers_share_the_newest_open_run(store: Arc<dyn Store>) {
    let first = store.open_run(&request(None)).await.unwrap();
    assert!(
        first.run.as_str().ends_with('Z') && first.run.as_str().contains('T'),
        "{}",
        first.run
    );
    assert_eq!(store.open_run(&request(None)).await.unwrap().run, first.run);
    store.enlist(&first.run, PRODUCER, Role::Producer, None).await.unwrap();
    end_all(&store, &first.run).await;
    assert!(store.advance_run(&first.run, RunState::Draining).await.unwrap());
    // Even within the same second it is a run of its own.
    let second = store.open_run(&request(None)).await.unwrap();
    assert_ne!(second.run, first.run);
    assert_eq!(store.open_run(&request(None)).await.unwrap().run, second.run);
    let names: Vec<_> = store
        .runs()
        .await
        .unwrap()
        .into_iter()
        .map(|record| record.run)
        .collect();
    assert_eq!(names, [second.run, first.run]);

    // All at once, they still meet in one.
    for record in store.runs().await.unwrap() {
        store.purge(&record.run).await.unwrap();
    }
    let all: Vec<_> = (0..8)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.open_run(&request(None)).await.unwrap().run })
        })
        .collect();
    let mut names = Vec::new();
    for one in all {
        names.push(one.await.unwrap());
    }
    names.dedup();
    assert_eq!(names.len(), 1);
}

pub async fn ordinals_are_the_lowest_free(store: Arc<dyn Store>) {
    let run = run("r");
    store.open_run(&request(Some("r"))).await.unwrap();
    for n in 0..3 {
        assert_eq!(
            store.enlist(&run, DaemonId(n), Role::Producer, None).await.unwrap(),
            n as u32
        );
    }
    assert_eq!(
        store.enlist(&run, ALICE, Role::Consumer, None).await.unwrap(),
        0,
        "each role counts alone"
    );
    assert_eq!(
        store.enlist(&run, DaemonId(1), Role::Producer, None).await.unwrap(),
        1,
        "a repeat changes nothing"
    );
    store.discharge(&run, DaemonId(1)).await.unwrap();
    assert_eq!(
        store.enlist(&run, DaemonId(3), Role::Producer, Some(2)).await.unwrap(),
        1,
        "the wish is taken"
    );
    assert_eq!(
        store.enlist(&run, DaemonId(4), Role::Producer, Some(7)).await.unwrap(),
        7
    );
    let mut roster = store.roster(&run).await.unwrap();
    assert_eq!(roster.len(), 6);
    roster.sort_by_key(|member| member.joined);
    let joined: Vec<u64> = roster.iter().map(|member| member.daemon.0).collect();
    assert_eq!(joined, [0, 1, 2, ALICE.0, 3, 4], "in the order of their coming");
    assert!(roster.is_sorted_by(|one, other| one.joined < other.joined));
    let ended = roster.iter().find(|member| member.daemon == DaemonId(1)).unwrap();
    assert!(ended.ended && !ended.vanished);
}

pub async fn expelled_members_vanish(store: Arc<dyn Store>) {
    let run = run("r");
    store.open_run(&request(Some("r"))).await.unwrap();
    store.enlist(&run, PRODUCER, Role::Producer, None).await.unwrap();
    let seen = store.roster(&run).await.unwrap().remove(0).counter;
    assert!(store.renew(&run, PRODUCER, &[]).await.unwrap().0);
    assert!(!store.expel(&run, PRODUCER, seen).await.unwrap(), "it moved");
    let seen = store.roster(&run).await.unwrap().remove(0).counter;
    assert!(store.expel(&run, PRODUCER, seen).await.unwrap());
    let member = store.roster(&run).await.unwrap().remove(0);
    assert!(member.vanished && !member.ended);
    assert!(
        !store.renew(&run, PRODUCER, &[]).await.unwrap().0,
        "a renewal revives nobody"
    );
    assert!(!store.renew(&run, BOB, &[]).await.unwrap().0);
    assert_eq!(
        store.enlist(&run, BOB, Role::Producer, None).await.unwrap(),
        0,
        "its ordinal is free"
    );
    assert_eq!(
        store.enlist(&run, PRODUCER, Role::Producer, None).await.unwrap(),
        1,
        "it may come again"
    );
}

pub async fn changes_are_announced(store: Arc<dyn Store>) {
    // The first call only begins to listen.
    let heard = Arc::new(std::sync::Mutex::new(Vec::new()));
    let ears = {
        let (store, heard) = (store.clone(), heard.clone());
        tokio::spawn(async move {
            loop {
                let changes = store.changes(Duration::from_millis(200)).await.unwrap();
                heard.lock().unwrap().extend(changes);
            }
        })
    };
    let has = |change: Change| {
        let heard = heard.clone();
        move || {
            let there = heard.lock().unwrap().contains(&change);
            async move { there }
        }
    };
    // Until someone listens nothing is heard: say it again.
    let mut n = 0;
    until("an announcement is heard", || {
        n += 1;
        let (store, heard, name) = (store.clone(), heard.clone(), format!("run-{n}"));
        async move {
            store.open_run(&request(Some(&name))).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
            !heard.lock().unwrap().is_empty()
        }
    })
    .await;
    let fixture = Fixture::new(store, "r", &["a"]).await;
    until("the run is announced", has(Change::Run(run("r")))).await;
    until("topics are announced", has(Change::Free(run("r"), HERE))).await;
    let claim = fixture.claim_one(ALICE).await;
    fixture
        .store
        .ready(&fixture.run, HERE, ALICE, &[(claim.topic, claim.token)])
        .await
        .unwrap();
    until("claims are announced", has(Change::Ready(run("r"), HERE))).await;
    heard.lock().unwrap().clear();
    fixture.register(&[device(77, "b")]).await;
    until("new topics are announced", has(Change::Free(run("r"), HERE))).await;
    ears.abort();
}

pub async fn the_clock_goes_on(store: Arc<dyn Store>) {
    let (first, life) = store.read(None).await.unwrap();
    let (second, same) = store.read(None).await.unwrap();
    assert!(
        second >= first && first.0 > 1_600_000_000_000_000_000,
        "{first:?} {second:?}"
    );
    assert_eq!(life, same);
    assert!(!life.is_empty());
    store.open_run(&request(Some("r"))).await.unwrap();
    let (of_run, _) = store.read(Some(&run("r"))).await.unwrap();
    assert!((of_run.since_ns(second)).abs() < 60_000_000_000);
}

pub async fn notes_are_kept_once(store: Arc<dyn Store>) {
    let run = store.open_run(&request(Some("r"))).await.unwrap().run;
    let note = |daemon, what, at| Note {
        daemon,
        what,
        at: Reference(at),
        lasted_ns: 5,
    };
    let kept = [
        note(ALICE, NoteKind::Away, 1_795_312_800_000_000_001),
        note(ALICE, NoteKind::Away, 1_795_312_800_000_000_002),
        note(ALICE, NoteKind::StoreAway, 1_795_312_800_000_000_002),
        note(BOB, NoteKind::Dead, 7),
    ];
    for _ in 0..2 {
        for note in &kept {
            store.note(&run, note).await.unwrap();
        }
    }
    store.note(&run, &note(BOB, NoteKind::Dead, 8)).await.unwrap();
    let (mut notes, omitted) = store.notes(&run).await.unwrap();
    notes.sort_by_key(|note| (note.daemon, note.at, note.what));
    assert_eq!(
        (notes, omitted),
        (kept.to_vec(), 0),
        "the dead are found once, whoever finds them"
    );

    for at in 0..Note::MOST as i64 {
        store.note(&run, &note(BOB, NoteKind::Away, at)).await.unwrap();
    }
    let (notes, omitted) = store.notes(&run).await.unwrap();
    assert_eq!((notes.len(), omitted), (Note::MOST, 4));
    for (daemon, total) in [(ALICE, 3), (ALICE, 7), (ALICE, 5), (BOB, 2), (BOB, 2)] {
        store.omit(&run, daemon, total).await.unwrap();
    }
    let (notes, omitted) = store.notes(&run).await.unwrap();
    assert_eq!((notes.len(), omitted), (Note::MOST, 4 + 7 + 2));
    store.purge(&run).await.unwrap();
    store.open_run(&request(Some("r"))).await.unwrap();
    assert_eq!(store.notes(&run).await.unwrap(), (vec![], 0));
}
