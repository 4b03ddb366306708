//! The stores that people look at agree with the ledger, also when they come late.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use isochrone_e2e::{
    daemon::{Site, ready},
    report::{assert_whole, closed, read},
    servers::{Collector, Elasticsearch, InfluxDb, OtlpPrometheus, Point, Prometheus, free_port},
    wait,
};
use serde_json::Value;

use crate::elasticsearch::assert_exactly_once;

const START: Duration = Duration::from_secs(30);
const END: Duration = Duration::from_secs(90);

/// Bounds of the latency buckets as they are by default.
const BUCKETS: [&str; 18] = [
    "0.0001", "0.00025", "0.0005", "0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1",
    "2.5", "5", "10", "30", "60",
];

/// So many producers and as many consumers at 100 messages a second for `seconds`.
fn fleet(site: &Site, size: usize, seconds: u64, meanwhile: impl FnOnce()) {
    let _consumers = site.daemons("consumer", size, &[]);
    let duration = format!("{seconds}s");
    let settings = [
        ("ISOCHRONE_RATE", "100"),
        ("ISOCHRONE_QOS", "1"),
        ("ISOCHRONE_DURATION", duration.as_str()),
    ];
    let mut producers = site.daemons("producer", size, &settings);
    for producer in &producers {
        ready(producer, START);
    }
    meanwhile();
    for producer in &mut producers {
        assert_eq!(producer.exit_code(END), 0, "{}", producer.stderr());
    }
}

/// The report once these sinks have everything: they get a cut when the store can no longer lose it, seconds after it was
/// made, and so after the run has closed.
fn exported(site: &Site, sinks: &[&str], expected: u64) -> Value {
    let (report, code) = closed(site, None);
    assert_whole(&report);
    assert_eq!(code, 0);
    let run = report["run"].as_str().expect("a name").to_owned();
    let arguments = ["report", "--format", "json", "--run", run.as_str()];
    wait::until_some(&format!("{sinks:?} to have {expected}"), START, || {
        let (report, _) = read(&site.isochrone(&arguments));
        let has = |sink: &&str| report["ledger"]["exported"][*sink] == expected;
        sinks.iter().all(has).then_some(report)
    })
}

fn percentile(report: &Value, what: &str, name: &str) -> f64 {
    report["latency_ns"][what][name].as_f64().expect("a percentile") / 1e9
}

/// Within the width of a bucket of that scale, and our own three digits.
fn assert_near(found: f64, expected: f64, scale: f64) {
    let width = (-scale).exp2().exp2() - 1.0 + 0.001;
    assert!(
        (found - expected).abs() <= expected * width,
        "{found} there, {expected} in the report"
    );
}

/// The smallest bound that a fraction of all values lies within, and the one that a value does.
fn assert_same_bucket(influxdb: &InfluxDb, fraction: f64, expected: f64, count: f64) {
    let within = |bound: &str| {
        influxdb
            .number(&format!(
                "SELECT sum(\"response_le_{bound}\") FROM isochrone_window WHERE kind = 'due'"
            ))
            .expect("a bucket")
    };
    let theirs = BUCKETS.iter().position(|bound| within(bound) >= fraction * count);
    assert_eq!(theirs, Some(bucket(expected)), "{expected} in the report");
}

/// All sinks at once, of twenty producers and as many consumers: documents of Elasticsearch, a Prometheus that scrapes, native
/// histograms that go over OTLP through the Collector's file to another Prometheus, windows in InfluxDB. All counts are the
/// ledger's, quantiles the report's within a bucket.
#[test]
fn every_sink_agrees_with_the_ledger() {
    let (prometheus, influxdb, elasticsearch) = (OtlpPrometheus::start(), InfluxDb::start(), Elasticsearch::start());
    let collector = Collector::forwarding(&prometheus.endpoint());
    let site = Site::start(&[]);
    let settings = [
        ("ISOCHRONE_OTLP_ENDPOINT", collector.http()),
        ("ISOCHRONE_INFLUXDB_URL", influxdb.url()),
        ("ISOCHRONE_ELASTICSEARCH_URL", elasticsearch.url()),
    ];
    let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
    let plotter = site.daemon("plotter", &settings);
    let scraping = Prometheus::start(&[ready(&plotter, START)]);
    fleet(&site, 20, 10, || {});
    let all = 20_000;
    let report = exported(&site, &["prometheus", "otlp", "influxdb", "elasticsearch"], all);
    let count = all as f64;
    let expected = |what: &str| {
        let percentiles = [("p50", 0.5), ("p99", 0.99)];
        percentiles.map(|(name, q)| (q, percentile(&report, what, name)))
    };

    assert_exactly_once(&elasticsearch, &report);

    wait::until_equal("the count scraped", Some(count), START, || {
        scraping.query("sum(isochrone_response_seconds_count)")
    });
    for (q, expected) in expected("response") {
        let query = format!("histogram_quantile({q}, sum by (le) (isochrone_response_seconds_bucket))");
        let found = scraping.query(&query).expect("a quantile");
        assert_eq!(
            bucket(found),
            bucket(expected),
            "{found} there, {expected} in the report"
        );
    }

    let points = wait::until_some("the Collector's file", START, || {
        let points = newest(collector.points("isochrone.response"));
        (total(&points) >= count).then_some(points)
    });
    assert_eq!(total(&points), count);
    for (q, expected) in expected("response") {
        assert_near(quantile(&points, q), expected, 5.0);
    }

    let run = report["run"].as_str().expect("a name");
    let own = format!(r#"isochrone_run="{run}""#);
    for what in ["transit", "response"] {
        let query = format!("sum(histogram_count(isochrone_{what}_seconds{{{own}}}))");
        wait::until_equal(&query, Some(count), START, || prometheus.query(&query));
        for (q, expected) in expected(what) {
            let query = format!("histogram_quantile({q}, sum(isochrone_{what}_seconds{{{own}}}))");
            assert_near(prometheus.query(&query).expect("a quantile"), expected, 5.0);
        }
    }
    for (counter, expected) in [
        ("messaging_client_sent_messages_total", count),
        ("messaging_client_consumed_messages_total", count),
        ("isochrone_received_total", count),
        ("isochrone_acked_total", count),
        ("isochrone_lost_total", 0.0),
    ] {
        let query = format!("sum({counter}{{{own}}})");
        assert_eq!(prometheus.query(&query), Some(expected), "{counter}");
    }

    for kind in ["due", "receipt"] {
        let sum = format!("SELECT sum(received) FROM isochrone_window WHERE kind = '{kind}'");
        assert_eq!(influxdb.number(&sum), Some(count), "{kind}");
    }
    for (fraction, expected) in expected("response") {
        assert_same_bucket(&influxdb, fraction, expected, count);
    }
}

/// The last point of each series: cumulative ones hold all before.
fn newest(points: Vec<Point>) -> Vec<Point> {
    let series = |point: &Point| (point.instance.clone(), point.value["attributes"].to_string());
    let newest: BTreeMap<_, _> = points.into_iter().map(|point| (series(&point), point)).collect();
    newest.into_values().collect()
}

fn total(points: &[Point]) -> f64 {
    points.iter().map(|point| point.number("count")).sum()
}

/// The place of the default bucket that a value lies in.
fn bucket(value: f64) -> usize {
    BUCKETS.partition_point(|bound| bound.parse::<f64>().expect("a bound") < value)
}

/// The nearest-rank quantile over many exponential histograms, each bucket by its middle.
fn quantile(points: &[Point], q: f64) -> f64 {
    let mut all: Vec<(f64, f64)> = Vec::new();
    for point in points {
        let base = (-point.number("scale")).exp2();
        let side = &point.value["positive"];
        let counts = side["bucketCounts"].as_array().map(Vec::as_slice).unwrap_or_default();
        let offset = side["offset"].as_f64().unwrap_or(0.0);
        for (at, count) in counts.iter().enumerate() {
            let count: f64 = count.as_str().and_then(|text| text.parse().ok()).expect("a count");
            all.push((((offset + at as f64 + 0.5) * base).exp2(), count));
        }
    }
    all.sort_by(|one, other| one.0.total_cmp(&other.0));
    let rank = (q * all.iter().map(|(_, count)| count).sum::<f64>()).ceil();
    let mut seen = 0.0;
    let found = all.iter().find(|(_, count)| {
        seen += count;
        seen >= rank
    });
    found.expect("a value").0
}

/// Collector and InfluxDB are away when everything starts: the plotter says so once for each, goes on without them, and
/// brings them everything when they are there.
#[test]
fn back_ends_may_come_late() {
    let (mut collector, mut influxdb) = (Collector::prepare(), InfluxDb::start());
    // It has its database by now: the plotter is to find it whole when it is back.
    influxdb.stop();
    let site = Site::start(&[]);
    let settings = [
        ("ISOCHRONE_OTLP_ENDPOINT", collector.grpc()),
        ("ISOCHRONE_OTLP_PROTOCOL", "grpc".to_owned()),
        ("ISOCHRONE_OTLP_TEMPORALITY", "delta".to_owned()),
        ("ISOCHRONE_INFLUXDB_URL", influxdb.url()),
    ];
    let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
    let plotter = site.daemon("plotter", &settings);
    let said = |what: &str| plotter.stderr().lines().filter(|line| line.contains(what)).count();
    fleet(&site, 5, 15, || {
        for setting in ["ISOCHRONE_OTLP_ENDPOINT", "ISOCHRONE_INFLUXDB_URL"] {
            wait::until("the plotter to say what is away", START, || said(setting) > 0);
        }
        collector.run();
        influxdb.run();
        wait::until("both to work", START, || said("sink works again") == 2);
    });
    let report = exported(&site, &["prometheus", "otlp", "influxdb"], 7_500);
    assert_eq!(
        (said("ISOCHRONE_OTLP_ENDPOINT"), said("ISOCHRONE_INFLUXDB_URL")),
        (1, 1)
    );

    let points = wait::until_some("the Collector's file", START, || {
        let points = collector.points("isochrone.response");
        (total(&points) >= 7_500.0).then_some(points)
    });
    assert_eq!(total(&points), 7_500.0);
    assert!(points.iter().all(|point| point.temporality == 1));
    for (name, q) in [("p50", 0.5), ("p99", 0.99)] {
        assert_near(quantile(&points, q), percentile(&report, "response", name), 5.0);
    }
    let instances: BTreeSet<_> = points.iter().map(|point| &point.instance).collect();
    let run = report["run"].as_str().expect("a name");
    assert!(
        instances
            .iter()
            .all(|instance| instance.starts_with(&format!("{run}/"))),
        "{instances:?}"
    );
    let sum = "SELECT sum(received) FROM isochrone_window WHERE kind = 'receipt'";
    assert_eq!(influxdb.number(sum), Some(7_500.0));
}

/// A back end that never answers, and one that refuses the password: a line each that names the setting, no secret, the
/// other sink is not delayed, and what waits is pending.
#[test]
fn bad_back_ends_are_pending() {
    let influxdb = InfluxDb::start_with_users("admin", "right");
    let site = Site::start(&[]);
    let (nowhere, url) = (format!("http://127.0.0.1:{}", free_port()), influxdb.url());
    let settings = [
        ("ISOCHRONE_OTLP_ENDPOINT", nowhere.as_str()),
        ("ISOCHRONE_INFLUXDB_URL", url.as_str()),
        ("ISOCHRONE_INFLUXDB_USERNAME", "admin"),
        ("ISOCHRONE_INFLUXDB_PASSWORD", "s3cret-and-wrong"),
    ];
    let plotter = site.daemon("plotter", &settings);
    let _consumer = site.daemon("consumer", &[]);
    let mut producer = site.daemon("producer", &[("ISOCHRONE_RATE", "50"), ("ISOCHRONE_DURATION", "3s")]);
    assert_eq!(producer.exit_code(END), 0, "{}", producer.stderr());
    let output = site.isochrone(&["report", "--wait", "--format", "json"]);
    let (report, code) = read(&output);
    let said = String::from_utf8_lossy(&output.stderr);
    let awaited = "waiting for influxdb (150 samples pending), otlp (150 samples pending), ";
    assert_eq!(said.matches(awaited).count(), 1, "{said}");
    assert_eq!(
        (code, &report["ledger"]["exported"]["prometheus"]),
        (0, &150.into()),
        "{:#}",
        report["ledger"]
    );
    for sink in ["otlp", "influxdb"] {
        assert_eq!(report["ledger"]["pending"][sink], 150, "{sink}: {:#}", report["ledger"]);
    }
    let log = plotter.stderr();
    let lines = |what: &str| log.lines().filter(|line| line.contains(what)).count();
    assert_eq!(
        (lines("ISOCHRONE_OTLP_ENDPOINT"), lines("ISOCHRONE_INFLUXDB_PASSWORD")),
        (1, 1),
        "{log}"
    );
    assert!(!log.contains("s3cret"), "{log}");
}
