//! A real Prometheus scrapes the plotters.

use std::time::Duration;

use isochrone_e2e::{
    daemon::{Site, ready},
    report::{assert_whole, closed},
    servers::{Prometheus, get, promtool},
    wait,
};

const START: Duration = Duration::from_secs(30);
const END: Duration = Duration::from_secs(90);

/// Counts there equal the ledger's, a quantile there is within a bucket of the report's, and the page is clean.
#[test]
fn prometheus_agrees_with_the_ledger() {
    let site = Site::start(&[]);
    let plotters = site.daemons("plotter", 2, &[]);
    let ports: Vec<_> = plotters.iter().map(|plotter| ready(plotter, START)).collect();
    let prometheus = Prometheus::start(&ports);
    let _consumers = site.daemons("consumer", 4, &[]);
    let mut producers = site.daemons(
        "producer",
        4,
        &[("ISOCHRONE_RATE", "100"), ("ISOCHRONE_DURATION", "8s")],
    );
    for producer in &mut producers {
        assert_eq!(producer.exit_code(END), 0, "{}", producer.stderr());
    }
    let (report, _) = closed(&site, None);
    assert_whole(&report);
    assert_eq!(report["ledger"]["exported"]["prometheus"], 3_200);
    wait::until_equal("the count scraped", Some(3_200.0), START, || {
        prometheus.query("sum(isochrone_transit_seconds_count)")
    });
    let quantile = prometheus
        .query("histogram_quantile(0.5, sum by (le) (isochrone_response_seconds_bucket))")
        .expect("a quantile");
    let p50 = report["latency_ns"]["response"]["p50"].as_f64().expect("p50") / 1e9;
    let page: String = ports.iter().filter_map(|port| get(*port, "/metrics")).collect();
    let mut bounds: Vec<f64> = page
        .lines()
        .filter(|line| line.starts_with("isochrone_response_seconds_bucket"))
        .filter_map(|line| line.split("le=\"").nth(1)?.split('"').next()?.parse().ok())
        .collect();
    bounds.sort_by(f64::total_cmp);
    bounds.dedup();
    let bucket = |value: f64| bounds.partition_point(|bound| *bound < value);
    assert_eq!(bucket(quantile), bucket(p50), "{quantile} there, {p50} in the report");
    for port in ports {
        let page = get(port, "/metrics").expect("a page");
        assert_eq!(promtool(&page), "", "{page}");
    }
}
