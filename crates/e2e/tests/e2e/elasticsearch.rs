//! The whole way into a real Elasticsearch, undisturbed and with what can happen to it.

use std::time::Duration;

use isochrone_e2e::{
    daemon::{Site, ready},
    http::{Deed, HttpProxy},
    process::Process,
    report::{assert_whole, closed, ledger, read},
    servers::{Elasticsearch, get},
    wait::{self, pause},
};
use serde_json::{Value, json};

const START: Duration = Duration::from_secs(60);
const END: Duration = Duration::from_secs(180);

const SAMPLES: &str = "isochrone-samples-*";
const WINDOWS: &str = "isochrone-windows-*";

fn producers(site: &Site, count: usize, duration: &str) -> Vec<Process> {
    let settings = [
        ("ISOCHRONE_RATE", "100"),
        ("ISOCHRONE_DURATION", duration),
        ("ISOCHRONE_QOS", "1"),
    ];
    site.daemons("producer", count, &settings)
}

fn end(producers: &mut [Process]) {
    for producer in producers {
        assert_eq!(producer.exit_code(END), 0, "{}", producer.stderr());
    }
}

fn of_sink(report: &Value, name: &str) -> u64 {
    report["ledger"][name]["elasticsearch"]
        .as_u64()
        .expect("a number of this sink")
}

/// Raw documents are the unique samples exactly, windows of both kinds add up to the same, and so says the ledger.
pub fn assert_exactly_once(server: &Elasticsearch, report: &Value) {
    let run = json!({"term": {"run": report["run"]}});
    let unique = ledger(report, "unique");
    assert_eq!(server.count(SAMPLES, &run), unique);
    for kind in ["due", "receipt"] {
        let query = json!({"bool": {"filter": [run, {"term": {"kind": kind}}]}});
        assert_eq!(server.sum(WINDOWS, "received", &query), unique, "{kind}");
    }
    let due = json!({"bool": {"filter": [run, {"term": {"kind": "due"}}]}});
    for count in ["scheduled", "sent", "acked", "lost"] {
        assert_eq!(server.sum(WINDOWS, count, &due), ledger(report, count), "{count}");
    }
    assert_eq!(of_sink(report, "exported"), unique);
    for name in ["pending", "thinned", "set_aside", "sink_dropped"] {
        assert_eq!(of_sink(report, name), 0, "{name}: {:#}", report["ledger"]);
    }
    assert_eq!(report["ledger"]["exported"]["prometheus"], unique);
}

/// Nothing happens: everything is there once, and percentiles of the documents are those of the report.
#[test]
fn documents_agree_with_the_ledger() {
    let server = Elasticsearch::start();
    let url = server.url();
    let site = Site::start(&[("ISOCHRONE_ELASTICSEARCH_URL", &url)]);
    let plotter = site.daemon("plotter", &[]);
    let _consumers = site.daemons("consumer", 5, &[]);
    end(&mut producers(&site, 5, "10s"));
    let (report, code) = closed(&site, None);
    assert_eq!(code, 0, "{:#}", report["ledger"]);
    assert_whole(&report);
    assert_eq!(ledger(&report, "unique"), 5_000);
    assert_exactly_once(&server, &report);

    // The report's figures have three significant digits, and the run is short of what warm-up would leave out.
    let body = json!({"size": 0, "query": {"term": {"run": report["run"]}}, "aggs": {
        "p50": {"percentiles": {"field": "response_ns", "percents": [50], "hdr": {"number_of_significant_value_digits": 3}}},
        "max": {"max": {"field": "response_ns"}},
        "devices": {"cardinality": {"field": "device"}}}});
    let found = server.ask("POST", &format!("/{SAMPLES}/_search"), &body.to_string());
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("no number in {found:#}"));
    let p50 = number(&found["aggregations"]["p50"]["values"]["50.0"]);
    let reported = number(&report["latency_ns"]["response"]["p50"]);
    assert!(
        (p50 / reported - 1.0).abs() < 0.005,
        "p50 {p50} there, {reported} in the report"
    );
    assert_eq!(
        found["aggregations"]["max"]["value"],
        number(&report["latency_ns"]["response"]["max"])
    );
    assert_eq!(found["aggregations"]["devices"]["value"], 5);

    let page = get(ready(&plotter, START), "/metrics").expect("a page");
    for line in [
        "isochrone_elasticsearch_documents_total{fate=\"created\",kind=\"sample\"} 5000",
        "isochrone_sink_set_aside_samples_total{sink=\"elasticsearch\"} 0",
    ] {
        assert!(page.contains(line), "{line} in\n{page}");
    }
}

/// Killed for a while in mid-run, answers lost, half of a bulk failing, the plotter killed while it writes and replaced: each
/// document is there once in the end, and Prometheus was not held up.
#[test]
fn faults_lose_and_double_nothing() {
    let mut server = Elasticsearch::start();
    let too_many = json!({"error": {"type": "es_rejected_execution_exception", "reason": "made"}, "status": 429});
    let proxy = HttpProxy::start(
        server.port,
        [Deed::LoseAnswer, Deed::FailHalf(429), Deed::Answer(503, json!({}))],
    );
    let url = proxy.url();
    let site = Site::start(&[("ISOCHRONE_ELASTICSEARCH_URL", &url), ("ISOCHRONE_LEASE", "2s")]);
    let mut plotter = site.daemon("plotter", &[]);
    let _consumers = site.daemons("consumer", 5, &[]);
    let mut producers = producers(&site, 5, "25s");
    wait::until("the first documents", START, || proxy.left() == 0);
    server.kill();
    let port = ready(&plotter, START);
    let received = || {
        let page = get(port, "/metrics").unwrap_or_default();
        let lines = page
            .lines()
            .filter(|line| line.starts_with("isochrone_received_total{"));
        let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        values.sum::<f64>()
    };
    let before = received();
    wait::until("Prometheus to go on without Elasticsearch", START, || {
        received() >= before + 1_500.0
    });
    proxy.then([
        Deed::LoseAnswer,
        Deed::Answer(429, too_many),
        Deed::FailHalf(503),
        Deed::Delay(START / 30),
    ]);
    server.start_again();
    // While the last of these is under way the plotter dies: what it had written and not noted is written again.
    wait::until("the backlog to be written", START, || proxy.left() == 0);
    plotter.kill();
    let _successor = site.daemon("plotter", &[]);
    end(&mut producers);
    let (report, code) = closed(&site, None);
    assert_eq!(code, 0, "{:#}", report["ledger"]);
    assert_whole(&report);
    assert_eq!(ledger(&report, "unique"), 12_500);
    assert_exactly_once(&server, &report);
}

/// Away from the start: said once with the address, counted as pending, and made up for when it comes.
#[test]
fn it_may_come_late() {
    let mut server = Elasticsearch::start();
    server.kill();
    let url = server.url();
    let settings = [
        ("ISOCHRONE_ELASTICSEARCH_URL", url.as_str()),
        ("ISOCHRONE_ELASTICSEARCH_SAMPLES", "1/10"),
    ];
    let site = Site::start(&settings);
    // It serves every run, and so closed ones until their sinks have everything: however long a server takes to start.
    let plotter = site.daemon("plotter", &[]);
    let _consumers = site.daemons("consumer", 2, &[]);
    end(&mut producers(&site, 2, "5s"));
    wait::until("the failure to be said", START, || {
        plotter.stderr().contains("failed to")
    });
    let said = plotter.stderr();
    assert_eq!(said.matches(&url).count(), 1, "{said}");
    let newest = || read(&site.isochrone(&["report", "--format", "json"])).0;
    wait::until("all to be pending", START, || of_sink(&newest(), "pending") == 1_000);
    pause(Duration::from_secs(3));
    server.start_again();
    let (report, code) = closed(&site, None);
    assert_eq!(code, 0, "{:#}", report["ledger"]);
    assert_whole(&report);
    let report = wait::until_some("the sink to have everything", START, || {
        Some(newest()).filter(|report| of_sink(report, "pending") == 0)
    });
    let kept = server.count(SAMPLES, &json!({"term": {"run": report["run"]}}));
    assert_eq!(
        (of_sink(&report, "exported"), of_sink(&report, "thinned")),
        (kept, 1_000 - kept)
    );
    assert!((50..=200).contains(&kept), "{kept}");
}
