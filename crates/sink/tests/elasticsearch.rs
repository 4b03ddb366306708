//! The Elasticsearch sink behind its runner, against a real Elasticsearch, with a proxy that misbehaves in between: every
//! document is there exactly once, and every sample is accounted for.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail the test")]

#[expect(dead_code, reason = "each test program uses a part of it")]
#[path = "support/entries.rs"]
mod entries;
#[path = "elasticsearch/support.rs"]
mod support;

use std::{sync::atomic::Ordering, time::Duration};

use isochrone_e2e::{
    certs::Authority,
    http::{Deed, HttpProxy, TlsFront, lines},
    servers::Elasticsearch,
};
use isochrone_model::thinning::Thinning;
use isochrone_sink::{
    Departure,
    elasticsearch::{Access, Config, Login},
};
use serde_json::{Value, json};
use support::{DAY, Work, access, config};

/// Everything there is to know of one server, in one life of it: starting one takes longer than all of this.
#[tokio::test]
async fn every_document_exactly_once() {
    let server = Elasticsearch::start();
    documents_hold_what_was_measured(&server).await;
    faults_delay_and_double_nothing(&server).await;
    a_successor_writes_the_same(&server).await;
    days_have_their_own_indices(&server).await;
    tls_is_verified(&server).await;
    thinning_is_counted(&server).await;
    poison_is_set_aside_alone(&server).await;
    what_is_too_large_is_set_aside_alone(&server).await;
    a_read_only_index_is_waited_for(&server).await;
    templates_are_upgraded_and_newer_ones_left(&server).await;
    old_indices_are_deleted(&server).await;
}

async fn documents_hold_what_was_measured(server: &Elasticsearch) {
    let mut work = Work::start(config(access(&server.url())), "shape");
    let cuts = work.offer(1..=3, 40);
    let counts = work.passed(3).await;
    assert_eq!(counts.exported, 3 * 40);
    let run = json!({"term": {"run": "shape"}});
    assert_eq!(server.count("isochrone-samples-*", &run), 120);
    let found = server.documents(
        "isochrone-samples-*",
        &json!({"bool": {"filter": [{"term": {"run": "shape"}}, {"term": {"sequence": 41}}]}}),
    );
    let document = &found[0];
    assert_eq!(document["_index"], format!("isochrone-samples-{DAY}"));
    assert_eq!(document["_id"], "shape:ffffffffffffff01:41");
    let source = &document["_source"];
    assert_eq!(source["@timestamp"], "2026-11-23T00:00:02.011100041Z");
    assert_eq!(source["due"], "2026-11-23T00:00:02.010000041Z");
    assert_eq!(source["sent"], "2026-11-23T00:00:02.010100041Z");
    assert_eq!(source["received"], source["@timestamp"]);
    assert_eq!(
        (source["epoch"].as_str(), source["device"].as_str()),
        (Some("ffffffffffffff01"), Some("dev-1"))
    );
    assert_eq!(source["topic"], "t/1");
    let figures =
        ["transit_ns", "response_ns", "publish_delay_ns", "clock_bound_ns"].map(|name| source[name].as_i64().unwrap());
    assert_eq!(figures, [1_000_000, 1_100_000, 100_000, 7]);
    assert_eq!(
        (&source["verdict"], &source["consumer_delay"]),
        (&json!("consumer_late"), &json!("late"))
    );

    // Nanoseconds can be asked for, and the windows add up to the samples.
    let exactly = json!({"range": {"@timestamp": {"gte": "2026-11-23T00:00:02.011100041Z", "lte": "2026-11-23T00:00:02.011100041Z"}}});
    assert_eq!(server.count("isochrone-samples-*", &exactly), 1);
    for kind in ["due", "receipt"] {
        let query = json!({"bool": {"filter": [{"term": {"run": "shape"}}, {"term": {"kind": kind}}]}});
        assert_eq!(server.sum("isochrone-windows-*", "received", &query), 120, "{kind}");
    }
    let windows: usize = cuts.iter().map(|cut| cut.windows.len()).sum();
    assert_eq!(server.count("isochrone-windows-*", &run), windows as u64);
    let due =
        json!({"bool": {"filter": [{"term": {"run": "shape"}}, {"term": {"kind": "due"}}, {"term": {"cut": 2}}]}});
    let window = &server.documents("isochrone-windows-*", &due)[0]["_source"];
    assert_eq!(window["response_ns"]["count"], 40);
    for figure in ["min", "p50", "p90", "p99", "p999", "max"] {
        assert_eq!(window["response_ns"][figure], 1_100_000, "{figure}");
    }
    assert_eq!(window["response_ns"]["mean"], 1_100_000.0);
    assert_eq!(
        window["response_ns"]["histogram"],
        Value::Null,
        "the open distribution has no such field"
    );
    assert_eq!(window["transit_ns"], Value::Null, "transit is of the receipt kind");
    work.close().await;
}

async fn faults_delay_and_double_nothing(server: &Elasticsearch) {
    let error = |kind: &str| json!({"error": {"type": kind, "reason": "made"}, "status": 0});
    let proxy = HttpProxy::start(
        server.port,
        [
            Deed::Cut,
            Deed::LoseAnswer,
            Deed::Answer(429, error("es_rejected_execution_exception")),
            Deed::Answer(503, json!("not json of theirs")),
            Deed::Answer(413, json!({})),
            Deed::FailHalf(429),
            Deed::FailHalf(503),
            Deed::Delay(Duration::from_millis(700)),
            Deed::LoseAnswer,
            Deed::FailHalf(429),
        ],
    );
    let mut work = Work::start(config(access(&proxy.url())), "faults");
    // Not all at once, which might be fewer requests than faults.
    for first in [1, 6, 11, 16] {
        work.offer(first..=first + 4, 50);
        let counts = work.passed(5).await;
        assert_eq!((counts.exported, counts.set_aside), (250, 0));
    }
    assert_eq!(proxy.left(), 0, "every fault was met");
    let run = json!({"term": {"run": "faults"}});
    assert_eq!(server.count("isochrone-samples-*", &run), 1_000);
    assert_eq!(
        server.sum(
            "isochrone-windows-*",
            "received",
            &json!({"bool": {"filter": [run, {"term": {"kind": "due"}}]}})
        ),
        1_000
    );
    assert!(
        work.counter("isochrone_elasticsearch_documents_total", Some("existed")) > 0.0,
        "some were sent twice"
    );
    assert!(work.counter("isochrone_elasticsearch_retried_documents_total", None) > 0.0);
    let bulk = &proxy.bulks()[0];
    assert_eq!(bulk.header("content-encoding"), Some("gzip"));
    assert!(bulk.body.len() * 4 < lines(bulk).iter().map(String::len).sum::<usize>());
    work.close().await;
}

/// Another plotter writes the same cuts again, half of them cut differently into batches: nothing doubles.
async fn a_successor_writes_the_same(server: &Elasticsearch) {
    for _ in 0..2 {
        let mut work = Work::start(config(access(&server.url())), "successor");
        work.offer(1..=5, 30);
        assert_eq!(work.passed(5).await.exported, 150);
        work.close().await;
    }
    let run = json!({"term": {"run": "successor"}});
    assert_eq!(server.count("isochrone-samples-*", &run), 150);
    assert_eq!(
        server.sum(
            "isochrone-windows-*",
            "received",
            &json!({"bool": {"filter": [run, {"term": {"kind": "receipt"}}]}})
        ),
        150
    );
}

/// Each document is in the index of its own day, also when it is sent again after midnight with others.
async fn days_have_their_own_indices(server: &Elasticsearch) {
    for _ in 0..2 {
        let mut work = Work::start(config(access(&server.url())), "midnight");
        // Second 86,399 of the day and those after it.
        work.offer(86_399..=86_402, 10);
        work.passed(4).await;
        work.close().await;
    }
    let run = json!({"term": {"run": "midnight"}});
    assert_eq!(server.count(&format!("isochrone-samples-{DAY}"), &run), 10);
    assert_eq!(server.count("isochrone-samples-2026.11.24", &run), 30);
    assert_eq!(server.count("isochrone-windows-2026.11.24", &run), 6);
}

async fn thinning_is_counted(server: &Elasticsearch) {
    for (run, samples, most) in [("tenth", "1/10", 200), ("none", "off", 0)] {
        let thinning: Thinning = samples.parse().unwrap();
        let config = Config {
            samples: thinning,
            ..config(access(&server.url()))
        };
        let mut work = Work::start(config, run);
        work.offer(1..=10, 100);
        let counts = work.passed(10).await;
        assert_eq!((counts.exported + counts.thinned, counts.set_aside), (1_000, 0));
        assert!((most / 4..=most).contains(&counts.exported), "{counts:?}");
        let query = json!({"term": {"run": run}});
        assert_eq!(server.count("isochrone-samples-*", &query), counts.exported);
        let due = json!({"bool": {"filter": [query, {"term": {"kind": "due"}}]}});
        assert_eq!(server.sum("isochrone-windows-*", "received", &due), 1_000);
        work.close().await;
    }
}

/// An index whose mapping takes no device names: only what does not fit is set aside, with the server's reason.
async fn poison_is_set_aside_alone(server: &Elasticsearch) {
    let day = "2026.11.25";
    let mapping = json!({"mappings": {"properties": {"device": {"type": "keyword"}, "transit_ns": {"type": "byte"}}}});
    server.ask("PUT", &format!("/isochrone-samples-{day}"), &mapping.to_string());
    let mut work = Work::start(config(access(&server.url())), "poison");
    // Of cut n (second n) sample k has a transit of one millisecond, or of k nanoseconds where that is below 100.
    let second = 2 * 86_400;
    work.offer_with(second..=second + 1, 10, |sample| {
        if sample.sequence % 10 != 3 {
            sample.transit_ns = 5;
        }
    });
    let counts = work.passed(2).await;
    assert_eq!((counts.exported, counts.set_aside, counts.thinned), (18, 2, 0));
    assert_eq!(
        server.count(&format!("isochrone-samples-{day}"), &json!({"term": {"run": "poison"}})),
        18
    );
    assert_eq!(
        work.counter("isochrone_elasticsearch_documents_total", Some("set_aside")),
        2.0
    );
    assert_eq!(work.runner().counters().set_aside.load(Ordering::Relaxed), 2);
    work.close().await;
}

/// Something in between refuses a request, half of it, and half of that, which is one document: all others are written, and
/// requests do not stay that small.
async fn what_is_too_large_is_set_aside_alone(server: &Elasticsearch) {
    let proxy = HttpProxy::start(server.port, std::iter::repeat_n(Deed::Answer(413, json!({})), 3));
    let mut work = Work::start(config(access(&proxy.url())), "large");
    // Two samples, their second as it was due and as it was received, and little more: four to seven documents.
    work.offer(1..=1, 2);
    let counts = work.passed(1).await;
    assert_eq!((proxy.left(), counts.exported, counts.set_aside), (0, 1, 1));
    assert_eq!(
        server.count("isochrone-samples-*", &json!({"term": {"run": "large"}})),
        1
    );
    assert_eq!(
        work.counter("isochrone_elasticsearch_documents_total", Some("set_aside")),
        1.0
    );
    let bulks = proxy.bulks().len();
    work.offer(2..=2, 100);
    assert_eq!(work.passed(1).await.exported, 100);
    assert_eq!(proxy.bulks().len(), bulks + 1, "one request");
    work.close().await;
}

/// As a full disk leaves it: nothing is set aside, and all of it comes when the block is gone.
async fn a_read_only_index_is_waited_for(server: &Elasticsearch) {
    for (day, block) in [(3, "read_only_allow_delete"), (4, "write")] {
        let index = format!("isochrone-samples-2026.11.{}", 23 + day);
        server.ask("PUT", &format!("/{index}"), "{}");
        let set = |value: Value| json!({"index": {"blocks": {block: value}}}).to_string();
        server.ask("PUT", &format!("/{index}/_settings"), &set(json!(true)));
        let mut work = Work::start(config(access(&server.url())), block);
        let second = day * 86_400;
        work.offer(second..=second, 10);
        work.retried().await;
        server.ask("PUT", &format!("/{index}/_settings"), &set(Value::Null));
        let counts = work.passed(1).await;
        assert_eq!((counts.exported, counts.set_aside), (10, 0));
        assert_eq!(server.count(&index, &json!({"term": {"run": block}})), 10);
        work.close().await;
    }
}

async fn templates_are_upgraded_and_newer_ones_left(server: &Elasticsearch) {
    let path = "/_component_template/isochrone-samples";
    let there =
        |server: &Elasticsearch| server.ask("GET", path, "")["component_templates"][0]["component_template"].clone();
    let ours = there(server);
    assert_eq!(
        ours["template"]["mappings"]["properties"]["@timestamp"]["type"],
        "date_nanos"
    );
    for (version, replaced) in [(0, true), (1, false), (99, false)] {
        let other = json!({"version": version, "template": {"mappings": {"properties": {"mark": {"type": "long"}}}}});
        server.ask("PUT", path, &other.to_string());
        let mut work = Work::start(config(access(&server.url())), &format!("version-{version}"));
        work.offer(1..=1, 1);
        work.passed(1).await;
        work.close().await;
        let marked = there(server).pointer("/template/mappings/properties/mark").is_some();
        assert_eq!(marked, !replaced, "version {version}");
    }
    server.ask("PUT", path, &json!({"version": 0, "template": {}}).to_string());
}

async fn old_indices_are_deleted(server: &Elasticsearch) {
    for index in [
        "isochrone-samples-2020.01.01",
        "isochrone-windows-2020.01.01",
        "isochrone-samples-notes",
    ] {
        server.ask("PUT", &format!("/{index}"), "{}");
    }
    let config = Config {
        retention: Some(Duration::from_secs(86_400)),
        ..config(access(&server.url()))
    };
    let mut work = Work::start(config, "retention");
    work.offer(1..=1, 1);
    work.passed(1).await;
    work.close().await;
    let status = |index: &str| server.try_ask("GET", &format!("/{index}"), "").status();
    assert_eq!(status("isochrone-samples-2020.01.01"), 404);
    assert_eq!(status("isochrone-windows-2020.01.01"), 404);
    assert_eq!(status("isochrone-samples-notes"), 200);
    assert_eq!(status(&format!("isochrone-samples-{DAY}")), 200);
}

/// Away from the start, then wrong password, then no right to install templates, then all is well: each is waited for.
#[tokio::test]
async fn what_people_can_mend_is_waited_for() {
    let server = Elasticsearch::start();
    let proxy = HttpProxy::start(server.port, []);
    let refused = |kind: &str| json!({"error": {"type": kind, "reason": "made"}, "status": 0});
    proxy.answer_others(Some((401, refused("security_exception"))));
    let login = Login::Basic("user".to_owned(), "secret-012345".to_owned());
    let config = Config {
        access: Access {
            login,
            ..access(&proxy.url())
        },
        ..config(access(&proxy.url()))
    };
    assert!(!format!("{config:?}").contains("012345"));
    let mut work = Work::start(config, "rights");
    work.offer(1..=2, 5);
    work.retried().await;
    assert!(
        work.said().contains("ISOCHRONE_ELASTICSEARCH_PASSWORD"),
        "{}",
        work.said()
    );
    proxy.answer_others(Some((403, refused("security_exception"))));
    work.said_soon("manage_").await;
    assert!(!work.said().contains("012345"));
    proxy.answer_others(None);
    assert_eq!(work.passed(2).await.exported, 10);
    assert_eq!(
        server.count("isochrone-samples-*", &json!({"term": {"run": "rights"}})),
        10
    );
    work.depart(Departure::Moved);
    work.close().await;
}

/// The certificate is verified, against a private authority where one is set; a wrong one is said with its setting.
async fn tls_is_verified(server: &Elasticsearch) {
    let folder = tempfile::tempdir().unwrap();
    for name in ["right", "wrong"] {
        let authority = Authority::new(name);
        authority.write(&folder.path().join(format!("{name}-ca.pem")));
        if name == "right" {
            authority.server(folder.path(), "server", "localhost", false);
        }
    }
    let front = TlsFront::start(server.port, folder.path(), "server");
    let url = format!("https://localhost:{}", front.port);
    let with_ca = |name: &str| Access {
        ca: Some(folder.path().join(format!("{name}-ca.pem"))),
        ..access(&url)
    };
    let mut work = Work::start(config(with_ca("right")), "tls");
    work.offer(1..=2, 10);
    assert_eq!(work.passed(2).await.exported, 20);
    work.close().await;
    let work = Work::start(config(with_ca("wrong")), "tls");
    work.offer(3..=3, 10);
    work.said_soon("ISOCHRONE_ELASTICSEARCH_CA").await;
    work.depart(Departure::Moved);
    work.close().await;
}

/// Killed in mid-delivery and started again on the same data: nothing is lost or doubled.
#[tokio::test]
async fn a_killed_server_is_waited_for() {
    let mut server = Elasticsearch::start();
    let mut work = Work::start(config(access(&server.url())), "killed");
    work.offer(1..=10, 50);
    let before = work.passed(10).await;
    server.kill();
    work.offer(11..=20, 50);
    work.retried().await;
    server.start_again();
    assert_eq!(before.exported + work.passed(10).await.exported, 1_000);
    assert_eq!(
        server.count("isochrone-samples-*", &json!({"term": {"run": "killed"}})),
        1_000
    );
    work.close().await;
}
