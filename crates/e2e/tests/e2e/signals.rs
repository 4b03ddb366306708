//! SIGTERM and SIGINT, once and twice, to each daemon, also before it is connected.

use std::time::Duration;

use isochrone_e2e::{
    daemon::{Site, holder, listening, ready},
    report::{assert_whole, closed},
    servers::free_port,
    wait,
};
use rustix::process::Signal;

const START: Duration = Duration::from_secs(30);

/// A daemon that still waits for its servers ends at the first signal, with 0.
#[test]
fn a_waiting_daemon_ends_at_once() {
    let site = Site::start(&[]);
    let redis = format!("redis://127.0.0.1:{}", free_port());
    for role in ["producer", "consumer", "plotter"] {
        for signal in [Signal::TERM, Signal::INT] {
            let mut daemon = site.daemon(role, &[("ISOCHRONE_REDIS_URL", &redis)]);
            listening(&daemon, START);
            daemon.signal(signal);
            assert_eq!(
                daemon.exit_code(Duration::from_secs(10)),
                0,
                "{role}: {}",
                daemon.stderr()
            );
        }
    }
}

/// Two signals end a daemon that still has work with 130.
#[test]
fn the_second_signal_drops_the_work() {
    let site = Site::start(&[("ISOCHRONE_DRAIN", "20s")]);
    let _plotter = site.daemon("plotter", &[]);
    let _consumer = site.daemon("consumer", &[]);
    let mut producer = site.daemon("producer", &[("ISOCHRONE_RATE", "100"), ("ISOCHRONE_QOS", "1")]);
    ready(&producer, START);
    // The broker stands still: acknowledgements stay away, so that the first signal has something to wait for.
    let mut site = site;
    site.mosquitto.process().signal(Signal::STOP);
    producer.signal(Signal::TERM);
    wait::until("the first signal to be heard", START, || {
        producer.stderr().contains("told to stop")
    });
    producer.signal(Signal::TERM);
    assert_eq!(producer.exit_code(Duration::from_secs(5)), 130);
    site.mosquitto.process().signal(Signal::CONT);
}

/// The first signal to each daemon of a running fleet: claims and partitions given back, rows complete, nothing lost.
#[test]
fn the_first_signal_ends_the_work_cleanly() {
    let site = Site::start(&[("ISOCHRONE_RUN", "clean")]);
    let mut plotters = site.daemons("plotter", 2, &[]);
    let mut consumers = site.daemons("consumer", 2, &[]);
    let mut producer = site.daemon("producer", &[("ISOCHRONE_RATE", "100"), ("ISOCHRONE_QOS", "1")]);
    ready(&producer, START);
    let holder = holder(&consumers, START);
    assert_eq!(consumers[holder].stop(START), 0, "{}", consumers[holder].stderr());
    assert_eq!(plotters[0].stop(START), 0, "{}", plotters[0].stderr());
    wait::pause(Duration::from_secs(3));
    assert_eq!(producer.stop(START), 0, "{}", producer.stderr());
    let (report, code) = closed(&site, Some("clean"));
    assert_eq!(code, 0, "{:#}", report["ledger"]);
    assert_whole(&report);
}
