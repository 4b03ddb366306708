//! What only a store that is another process can do: go away, come back, be misread, be tampered with.

use std::{process::Command, sync::Arc, time::Duration};

use isochrone_store::{
    Error, Fate, ReferenceClock, Registry, Store,
    redis::{RedisConfig, RedisStore},
    types::{ClaimEnd, EntryId, Left, TopicStatus},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::{
    fixture::{ALICE, BOB, Fixture, HERE, flush, given_back, request, run, until},
    server::{Server, connect},
};

/// A restart with its append-only file loses nothing of an orderly stop, and shows as another life.
#[tokio::test]
async fn a_restart_is_another_life_with_the_same_state() {
    let mut server = Server::start(&["--appendonly", "yes"]);
    let fixture = Fixture::new(server.store(), "r", &["a", "b"]).await;
    let claim = fixture.claim_one(ALICE).await;
    let counter = fixture.counter(ALICE).await;
    fixture.append(ALICE, &flush(1, &claim, 0, 5, 100)).await;
    let (before, life) = fixture.store.read(None).await.unwrap();

    server.stop();
    let away = fixture.store.free(&fixture.run).await.unwrap_err();
    assert!(
        matches!(away, Error::Away { .. }) && matches!(away.fate(), Fate::Retry(_)),
        "{away}"
    );
    assert!(away.to_string().contains(&server.port.to_string()), "{away}");
    assert!(fixture.store.read(None).await.is_err());

    server.start_again();
    until("the store is back", || async {
        fixture.store.free(&fixture.run).await.is_ok()
    })
    .await;
    let (after, another) = fixture.store.read(None).await.unwrap();
    assert!(after > before);
    assert_ne!(another, life);
    assert_eq!(fixture.free().await, 1);
    assert_eq!(fixture.counter(ALICE).await, counter);
    fixture.append(ALICE, &flush(1, &claim, 0, 5, 100)).await;
    fixture.append(ALICE, &flush(2, &claim, 5, 1, 100)).await;
    assert_eq!(fixture.topic(claim.topic.as_str()).await.stored, 6);
}

/// A server that hangs is away after half a second, for every call that waits, and usable as soon as it goes on.
#[tokio::test]
async fn a_server_that_hangs_is_away() {
    let server = Server::start(&[]);
    let fixture = Arc::new(Fixture::new(server.store(), "r", &["a"]).await);
    let signal = |name: &str| {
        let sent = Command::new("kill")
            .args([name, &server.process_id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
    };
    signal("-STOP");
    let waiting: Vec<_> = (0..10)
        .map(|_| {
            let fixture = fixture.clone();
            tokio::spawn(async move { fixture.store.free(&fixture.run).await })
        })
        .collect();
    for call in waiting {
        let answer = tokio::time::timeout(Duration::from_secs(5), call)
            .await
            .expect("it gives up");
        assert!(matches!(answer.unwrap(), Err(Error::Away { .. })));
    }
    signal("-CONT");
    until("the store is back", || async {
        fixture.store.free(&fixture.run).await.is_ok()
    })
    .await;
}

/// Scripts are sent again in full after the server forgot them, in pipelines too.
#[tokio::test]
async fn forgotten_scripts_are_sent_again() {
    let server = Server::start(&[]);
    let fixture = Fixture::new(server.store(), "r", &["a"]).await;
    fixture.claim_one(ALICE).await;
    let _: () = server.ask(&["SCRIPT", "FLUSH"]).await;
    let (_, renewals) = fixture.store.renew(&fixture.run, ALICE, &[HERE]).await.unwrap();
    assert!(renewals[0].alive && renewals[0].claims.len() == 1);
}

/// A server that cannot write now, or not answer, says so and is tried again: it is mended without any of us ending.
#[tokio::test]
async fn a_server_that_cannot_now_is_away() {
    let server = Server::start(&["--busy-reply-threshold", "50"]);
    let fixture = Fixture::new(server.store(), "r", &["a"]).await;
    let claim = fixture.claim_one(ALICE).await;
    let samples = flush(1, &claim, 0, 5, 100);
    let append = || fixture.store.append(&fixture.run, HERE, ALICE, &samples);
    for (setting, bad, good, word) in [
        ("maxmemory", "1", "0", "maxmemory"),
        ("min-replicas-to-write", "1", "0", "replicas"),
    ] {
        let _: () = server.ask(&["CONFIG", "SET", setting, bad]).await;
        let away = append().await.unwrap_err();
        assert!(
            matches!(away, Error::Away { .. }) && matches!(away.fate(), Fate::Retry(_)),
            "{setting}: {away}"
        );
        assert!(away.to_string().contains(word), "{away}");
        let _: () = server.ask(&["CONFIG", "SET", setting, good]).await;
    }
    let url = server.url();
    let endless = tokio::spawn(async move {
        let mut connection = redis::Client::open(url)
            .unwrap()
            .get_multiplexed_async_connection()
            .await
            .unwrap();
        let endless = redis::cmd("EVAL").arg("while true do end").arg(0).clone();
        endless.query_async::<()>(&mut connection).await
    });
    until("the server is busy", || async {
        match fixture.store.free(&fixture.run).await {
            Ok(_) => false,
            Err(error) => {
                assert!(matches!(error, Error::Away { .. }), "{error}");
                error.to_string().contains("busy running a script")
            }
        }
    })
    .await;
    let _: () = server.ask(&["SCRIPT", "KILL"]).await;
    endless.abort();
    until("the server is busy no more", || async {
        fixture.store.free(&fixture.run).await.is_ok()
    })
    .await;
    assert!(append().await.unwrap().fenced.is_empty());
    assert_eq!(fixture.topic("a").await.stored, 5);
}

/// A wrong password is refused for good, and shown to nobody.
#[tokio::test]
async fn a_wrong_password_is_refused_and_not_shown() {
    let server = Server::start(&["--requirepass", "right"]);
    let url = |password: &str| format!("redis://:{password}@127.0.0.1:{}/0", server.port);
    let refused = connect(&[url("sesame")]).runs().await.unwrap_err();
    assert!(
        matches!(refused, Error::Refused { .. }) && refused.fate() == Fate::Reject,
        "{refused}"
    );
    let unlocked = connect(&[url("right")]);
    assert!(unlocked.runs().await.unwrap().is_empty());
    let refused_too = connect(&[server.url()]).runs().await.unwrap_err();
    assert!(matches!(refused_too, Error::Refused { .. }), "{refused_too}");
    let config = RedisConfig {
        urls: vec![url("sesame")],
        tls_ca: None,
        announce: false,
    };
    for shown in [format!("{refused}"), format!("{refused:?}"), format!("{config:?}")] {
        assert!(shown.contains("127.0.0.1") && !shown.contains("sesame"), "{shown}");
    }
    let bad = |url: &str| RedisConfig {
        urls: vec![url.to_owned()],
        ..config.clone()
    };
    for url in ["http://:sesame@host", "redis://:sesame@host:port", "sesame"] {
        let error = RedisStore::connect(&bad(url)).err().unwrap();
        assert!(
            matches!(error, Error::Url(_)) && !error.to_string().contains("sesame"),
            "{error}"
        );
    }
}

/// Every key expires with the run, and a purge leaves none.
#[tokio::test]
async fn keys_expire_and_are_purged() {
    let server = Server::start(&[]);
    let fixture = Fixture::new(server.store(), "r", &["a", "b", "c"]).await;
    let claims = fixture.claim(ALICE, 2).await;
    fixture.append(ALICE, &flush(1, &claims[0], 3, 5, 100)).await;
    fixture
        .store
        .ready(&fixture.run, HERE, ALICE, &[(claims[0].topic.clone(), claims[0].token)])
        .await
        .unwrap();
    let back = [given_back(&claims[0], ClaimEnd::Settled(1))];
    fixture
        .store
        .give_back(&fixture.run, HERE, ALICE, &back, Left::GivenBack { session: true })
        .await
        .unwrap();
    let held = fixture
        .store
        .hold(&fixture.run, HERE, BOB, &["s".to_owned()])
        .await
        .unwrap()
        .unwrap();
    fixture.store.retain(&fixture.run, HERE, 1 << 20).await.unwrap();
    let cut = isochrone_store::types::NewCut {
        cut: isochrone_store::types::Cut {
            number: 1,
            ..Default::default()
        },
        changed: vec![("x".to_owned(), bytes::Bytes::from_static(b"y"))],
    };
    fixture.cut(BOB, held.token, &cut).await;

    let mut keys: Vec<String> = server.ask(&["KEYS", "*"]).await;
    keys.retain(|key| key != "isochrone:{runs}:index");
    assert!(
        keys.len() > 15 && keys.iter().all(|key| key.starts_with("isochrone:{r")),
        "{keys:?}"
    );
    assert!(keys.contains(&"isochrone:{r:1}:latency".to_owned()));
    for key in &keys {
        let left: i64 = server.ask(&["PTTL", key]).await;
        assert!(left > 0 && left <= 3_600_000, "{key} expires in {left} ms");
    }
    // A renewal makes all of the partition's keys live on.
    for key in &keys {
        let _: () = server.ask(&["PEXPIRE", key, "60000"]).await;
    }
    fixture.store.renew(&fixture.run, BOB, &[HERE]).await.unwrap();
    fixture.store.renew(&fixture.run, ALICE, &[HERE]).await.unwrap();
    for key in keys
        .iter()
        .filter(|key| key.starts_with("isochrone:{r:1}:") && !key.contains("speaks"))
    {
        assert!(server.ask::<i64>(&["PTTL", key]).await > 60_000, "{key}");
    }
    fixture.store.purge(&fixture.run).await.unwrap();
    assert_eq!(server.ask::<Vec<String>>(&["KEYS", "*"]).await, Vec::<String>::new());
}

/// Samples are counted in the entries themselves: one deleted by hand is missed.
#[tokio::test]
async fn an_entry_deleted_by_hand_is_missed() {
    let server = Server::start(&[]);
    let fixture = Fixture::new(server.store(), "r", &["a"]).await;
    let claim = fixture.claim_one(ALICE).await;
    fixture.append(ALICE, &flush(1, &claim, 0, 5, 100)).await;
    fixture.append(ALICE, &flush(2, &claim, 5, 7, 101)).await;
    let entries = fixture
        .store
        .entries(&fixture.run, HERE, EntryId::default(), 1)
        .await
        .unwrap();
    let id = format!("{}-{}", entries[0].id.0, entries[0].id.1);
    assert_eq!(server.ask::<u64>(&["XDEL", "isochrone:{r:1}:latency", &id]).await, 1);
    let snapshot = fixture.store.snapshot(&fixture.run, HERE).await.unwrap();
    assert_eq!((snapshot.topics[0].stored, snapshot.pending[0].1), (12, 7));
}

/// More topics in a flush than Lua's stack takes arguments, and more samples than a script should copy twice.
#[tokio::test]
async fn a_flush_of_thousands_of_topics_is_stored() {
    let server = Server::start(&[]);
    let names: Vec<String> = (0..5000).map(|n| format!("topic/{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let fixture = Fixture::new(server.store(), "r", &names).await;
    let claims = fixture.claim(ALICE, usize::MAX).await;
    assert_eq!(claims.len(), 5000);
    let mut all = flush(1, &claims[0], 0, 1, 100);
    for claim in &claims[1..] {
        let mut one = flush(1, claim, 0, 1, 100);
        all.entries[0].parts.append(&mut one.entries[0].parts);
        all.states.append(&mut one.states);
    }
    assert!(fixture.append(ALICE, &all).await.fenced.is_empty());
    let snapshot = fixture.store.snapshot(&fixture.run, HERE).await.unwrap();
    assert_eq!((snapshot.pending.len(), snapshot.states.len()), (5000, 5000));
    let entries = fixture
        .store
        .entries(&fixture.run, HERE, EntryId::default(), 100)
        .await
        .unwrap();
    assert_eq!(entries.iter().map(|entry| entry.entry.parts.len()).sum::<usize>(), 5000);
    fixture.evict(ALICE).await;
    assert!(snapshot.topics.iter().all(|topic| topic.status == TopicStatus::Claimed));
    assert_eq!(fixture.free().await, 5000);
}

/// A server's certificate is verified: with its CA it serves, with another it is refused.
#[tokio::test]
async fn certificates_are_verified() {
    let dir = tempfile::TempDir::new().unwrap();
    let authority = || {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    };
    let (ca, other) = (authority(), authority());
    let key = KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &ca).unwrap();
    let write = |name: &str, text: String| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let ca_path = write("ca.pem", ca.pem());
    let other_path = write("other.pem", other.pem());
    let certificate = write("server.pem", certificate.pem());
    let key = write("server.key", key.serialize_pem());
    let server = Server::start(&[
        "--port",
        "0",
        "--tls-port",
        "PORT",
        "--tls-cert-file",
        certificate.to_str().unwrap(),
        "--tls-key-file",
        key.to_str().unwrap(),
        "--tls-ca-cert-file",
        ca_path.to_str().unwrap(),
        "--tls-auth-clients",
        "no",
    ]);
    let store = |tls_ca| {
        let urls = vec![format!("rediss://127.0.0.1:{}", server.port)];
        RedisStore::connect(&RedisConfig {
            urls,
            tls_ca: Some(tls_ca),
            announce: true,
        })
        .unwrap()
    };
    let trusted = store(ca_path);
    trusted.open_run(&request(Some("r"))).await.unwrap();
    assert!(trusted.run(&run("r")).await.unwrap().is_some());
    assert!(trusted.memory() > Duration::ZERO);
    trusted.read(None).await.unwrap();
    let refused = store(other_path).runs().await.unwrap_err();
    assert!(matches!(refused, Error::Refused { .. }), "{refused:?}");
    let missing = RedisConfig {
        urls: vec!["rediss://localhost".to_owned()],
        tls_ca: Some(dir.path().join("missing.pem")),
        announce: true,
    };
    assert!(
        matches!(RedisStore::connect(&missing), Err(Error::Url(cause)) if cause.contains("ISOCHRONE_REDIS_TLS_CA"))
    );
}
