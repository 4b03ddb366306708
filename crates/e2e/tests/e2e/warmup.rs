//! Warm-up and ramps are in the ledger and outside the figures, to the message.

use std::time::Duration;

use isochrone_e2e::{
    daemon::{Site, output},
    report::{assert_whole, closed, ledger, read},
};
use serde_json::Value;

const END: Duration = Duration::from_secs(90);
const LATENCIES: [&str; 5] = ["response", "transit", "publish_delay", "late", "ack"];

/// `measured` messages in each latency, all `scheduled` in the ledger.
fn assert_counts(report: &Value, scheduled: u64, measured: u64) {
    assert_whole(report);
    assert_eq!(ledger(report, "scheduled"), scheduled);
    for latency in LATENCIES {
        assert_eq!(report["latency_ns"][latency]["count"], measured, "{latency}");
    }
    let seconds = report["seconds"].as_object().expect("seconds");
    let seconds: u64 = seconds.values().filter_map(Value::as_u64).sum();
    assert!((1..=4).contains(&seconds), "{:#}", report["seconds"]);
}

/// A constant rate, warm-up ending within a second: 2.25 s of 100 msg/s each stay out, 1.5 s are measured.
#[test]
fn what_is_due_in_warm_up_is_not_measured() {
    let site = Site::start(&[("ISOCHRONE_RUN", "warm")]);
    let _plotter = site.daemon("plotter", &[]);
    let _consumers = site.daemons("consumer", 2, &[]);
    let settings = [
        ("ISOCHRONE_QOS", "1"),
        ("ISOCHRONE_RATE", "100"),
        ("ISOCHRONE_WARMUP", "2250ms"),
        ("ISOCHRONE_DURATION", "3750ms"),
    ];
    for producer in &mut site.daemons("producer", 2, &settings) {
        assert_eq!(producer.exit_code(END), 0, "{}", producer.stderr());
    }
    let (report, code) = closed(&site, Some("warm"));
    assert_eq!(code, 0);
    assert_counts(&report, 750, 300);
}

/// A ramp of 2 s holds half of its full rate; the warm-up of half a second follows it. In one process, and in three.
#[test]
fn a_ramp_and_the_warm_up_after_it_are_not_measured() {
    let fleet = "--devices 4 --rate 100 --qos 1 --ramp 2s --warmup 500ms --duration 4s --format json";
    let fleet: Vec<_> = fleet.split(' ').collect();
    let (report, code) = read(&output("isochrone", &fleet, &[]));
    assert_eq!(code, 0);
    assert_counts(&report, 4 * (100 + 200), 4 * 150);

    let site = Site::start(&[("ISOCHRONE_RUN", "ramp")]);
    let _plotter = site.daemon("plotter", &[]);
    let _consumer = site.daemon("consumer", &[("ISOCHRONE_CLAIMS", "2")]);
    let settings = [
        ("ISOCHRONE_QOS", "2"),
        ("ISOCHRONE_DEVICES", "2"),
        ("ISOCHRONE_RATE", "100"),
        ("ISOCHRONE_RAMP", "2s"),
        ("ISOCHRONE_WARMUP", "500ms"),
        ("ISOCHRONE_DURATION", "4s"),
    ];
    let mut producer = site.daemon("producer", &settings);
    assert_eq!(producer.exit_code(END), 0, "{}", producer.stderr());
    let (report, code) = closed(&site, Some("ramp"));
    assert_eq!(code, 0);
    assert_counts(&report, 2 * (100 + 200), 2 * 150);
}
