//! The daemons' own telemetry, set by the standard OTEL_ variables.

use std::time::Duration;

use isochrone_e2e::{
    daemon::Site,
    report::{assert_whole, closed},
    servers::{Collector, free_port},
    wait,
};

const START: Duration = Duration::from_secs(30);
const END: Duration = Duration::from_secs(90);

/// Spans of a window's way and the daemons' own metrics reach a Collector; what there still is leaves at the end.
#[test]
fn own_telemetry_reaches_a_collector() {
    let collector = Collector::start();
    let endpoint = collector.http();
    let site = Site::start(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)]);
    let mut plotter = site.daemon("plotter", &[("ISOCHRONE_OTLP_ENDPOINT", &endpoint)]);
    let _consumer = site.daemon("consumer", &[]);
    let mut producer = site.daemon("producer", &[("ISOCHRONE_RATE", "50"), ("ISOCHRONE_DURATION", "2s")]);
    assert_eq!(producer.exit_code(END), 0, "{}", producer.stderr());
    let (report, _) = closed(&site, None);
    assert_whole(&report);
    assert_eq!(plotter.stop(START), 0, "{}", plotter.stderr());
    for name in ["round", "read", "cut", "export"] {
        wait::until(name, START, || collector.spans().iter().any(|span| span == name));
    }
    for name in ["isochrone_plotter_rounds", "isochrone_producer_sent"] {
        wait::until(name, START, || {
            collector
                .points(name)
                .iter()
                .any(|point| point.number("asDouble") > 0.0)
        });
    }
}

/// A receiver that is not there costs one line and a bounded time; a protocol that is not spoken, one line.
#[test]
fn own_telemetry_is_no_obstacle() {
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    let site = Site::start(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &nowhere)]);
    let plotter = site.daemon("plotter", &[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]);
    let _consumer = site.daemon("consumer", &[]);
    let mut producer = site.daemon("producer", &[("ISOCHRONE_RATE", "50"), ("ISOCHRONE_DURATION", "2s")]);
    assert_eq!(producer.exit_code(END), 0, "{}", producer.stderr());
    let (report, _) = closed(&site, None);
    assert_whole(&report);
    let lines = |log: String, what: &str| log.lines().filter(|line| line.contains(what)).count();
    assert_eq!(
        lines(producer.stderr(), "OTEL_EXPORTER_OTLP_ENDPOINT"),
        1,
        "{}",
        producer.stderr()
    );
    assert_eq!(
        lines(plotter.stderr(), "OTEL_EXPORTER_OTLP_PROTOCOL"),
        1,
        "{}",
        plotter.stderr()
    );
}
