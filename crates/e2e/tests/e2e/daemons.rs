//! The three daemons against a real broker and a real Redis.

use std::{collections::BTreeSet, time::Duration};

use isochrone_e2e::{
    daemon::{Site, ready},
    report::{assert_whole, closed, ledger},
    servers::{Mosquitto, Redis, free_port},
    wait,
};

const START: Duration = Duration::from_secs(30);
const END: Duration = Duration::from_secs(90);

/// Producers and consumers as processes, 1:1, for each QoS and version; afterwards the broker is as before.
#[test]
fn a_fleet_of_processes_is_whole() {
    for (qos, version) in [
        ("0", "3.1.1"),
        ("1", "3.1.1"),
        ("2", "3.1.1"),
        ("0", "5"),
        ("1", "5"),
        ("2", "5"),
    ] {
        let site = Site::start(&[]);
        let _plotter = site.daemon("plotter", &[]);
        let _consumers = site.daemons("consumer", 5, &[]);
        let before = sessions(&site.mosquitto);
        let settings = [
            ("ISOCHRONE_QOS", qos),
            ("ISOCHRONE_MQTT_VERSION", version),
            ("ISOCHRONE_RATE", "100"),
            ("ISOCHRONE_DURATION", "4s"),
        ];
        let mut producers = site.daemons("producer", 5, &settings);
        for producer in &mut producers {
            assert_eq!(producer.exit_code(END), 0, "{}", producer.stderr());
        }
        let (report, code) = closed(&site, None);
        assert_whole(&report);
        assert_eq!(
            (code, ledger(&report, "scheduled")),
            (0, 2_000),
            "QoS {qos}, MQTT {version}"
        );
        assert_eq!(report["per_topic"].as_array().map(Vec::len), Some(5));
        wait::until("the broker to be as before", START, || {
            sessions(&site.mosquitto) <= before
        });
    }
}

/// Sessions the broker keeps, apart from those of the question itself.
fn sessions(mosquitto: &Mosquitto) -> u64 {
    mosquitto.sys("clients/total").saturating_sub(1)
}

/// Daemons wait for their servers, in whatever order all of it starts.
#[test]
fn daemons_may_start_before_their_servers() {
    let (broker_port, redis_port) = (free_port(), free_port());
    let nowhere = Site::start(&[]);
    let (broker, redis) = (
        format!("mqtt://127.0.0.1:{broker_port}"),
        format!("redis://127.0.0.1:{redis_port}"),
    );
    let settings = [
        ("ISOCHRONE_BROKER", broker.as_str()),
        ("ISOCHRONE_REDIS_URL", redis.as_str()),
        ("ISOCHRONE_RATE", "100"),
        ("ISOCHRONE_DURATION", "3s"),
    ];
    let mut producer = nowhere.daemon("producer", &settings);
    let consumer = nowhere.daemon("consumer", &settings);
    let plotter = nowhere.daemon("plotter", &settings);
    for daemon in [&producer, &consumer, &plotter] {
        wait::until("each to say what it waits for", START, || {
            daemon.stderr().contains(&redis_port.to_string())
        });
    }
    let redis = Redis::start_with(&["--appendonly", "yes"], redis_port);
    let mosquitto = Mosquitto::start_with("allow_anonymous true\n", broker_port);
    assert_eq!(producer.exit_code(END), 0, "{}", producer.stderr());
    let site = Site::with(mosquitto, redis, &[]);
    let (report, code) = closed(&site, None);
    assert_whole(&report);
    assert_eq!((code, ledger(&report, "scheduled")), (0, 300));
}

/// Producers that join in mid-run are claimed while consumers have room; a surplus consumer says that it idles;
/// a producer stopped by a signal leaves complete rows.
#[test]
fn a_run_grows_and_shrinks() {
    let site = Site::start(&[("ISOCHRONE_RUN", "grow")]);
    let _plotter = site.daemon("plotter", &[]);
    let consumers = site.daemons("consumer", 5, &[]);
    let mut first = site.daemons("producer", 2, &[("ISOCHRONE_RATE", "50")]);
    for producer in &first {
        ready(producer, START);
    }
    let mut later = site.daemons("producer", 2, &[("ISOCHRONE_RATE", "50")]);
    for producer in &later {
        ready(producer, START);
    }
    wait::until("the surplus consumer to say so", START, || {
        consumers.iter().any(|consumer| consumer.stderr().contains("idle"))
    });
    for producer in first.iter_mut().chain(&mut later) {
        assert_eq!(producer.stop(START), 0, "{}", producer.stderr());
    }
    let (report, code) = closed(&site, Some("grow"));
    assert_whole(&report);
    assert_eq!((code, report["per_topic"].as_array().map(Vec::len)), (0, Some(4)));
}

/// A run started right after another, with no name set anywhere, is a run of its own.
#[test]
fn the_next_run_is_its_own() {
    let site = Site::start(&[("ISOCHRONE_RATE", "50"), ("ISOCHRONE_DURATION", "2s")]);
    let _plotter = site.daemon("plotter", &[]);
    let _consumers = site.daemons("consumer", 1, &[]);
    let mut names = BTreeSet::new();
    for _ in 0..3 {
        let mut producer = site.daemon("producer", &[]);
        assert_eq!(producer.exit_code(END), 0, "{}", producer.stderr());
        let log = producer.stderr();
        let name = log.split("run=").nth(1).and_then(|rest| rest.split_whitespace().next());
        names.insert(name.expect("a run's name").to_owned());
    }
    assert_eq!(names.len(), 3, "{names:?}");
    for name in &names {
        let (report, _) = closed(&site, Some(name));
        assert_whole(&report);
        assert_eq!(ledger(&report, "scheduled"), 100);
    }
}

/// 100 devices on one response topic are 100 complete rows from one consumer.
#[test]
fn devices_may_share_a_response_topic() {
    let settings = [
        ("ISOCHRONE_DEVICES", "100"),
        ("ISOCHRONE_TOPIC", "fleet/in"),
        ("ISOCHRONE_RESPONSE_TOPIC", "fleet/in"),
        ("ISOCHRONE_RATE", "10"),
        ("ISOCHRONE_DURATION", "3s"),
    ];
    let site = Site::start(&[]);
    let _plotter = site.daemon("plotter", &[]);
    let _consumer = site.daemon("consumer", &[]);
    let mut producer = site.daemon("producer", &settings);
    assert_eq!(producer.exit_code(END), 0, "{}", producer.stderr());
    let (report, code) = closed(&site, None);
    assert_whole(&report);
    assert_eq!((code, ledger(&report, "scheduled")), (0, 3_000));
    let rows = report["per_topic"][0]["devices"].as_array().expect("rows");
    assert_eq!(rows.len(), 100);
    for row in rows {
        assert_eq!((&row["sent"], &row["unique"]), (&30.into(), &30.into()), "{row:#}");
    }
}

/// A platform that parses, wraps and re-encodes JSON leaves the stamp measurable.
#[test]
fn the_stamp_survives_a_json_platform() {
    let site = Site::start(&[]);
    let _platform = site.mosquitto.pipeline(
        "mosquitto_sub -p $PORT -t device/up | jq --unbuffered -c '{meta: {z: 1, a: [.pad, 2]}, body: {inner: .}}' \
         | mosquitto_pub -p $PORT -t app/down -l",
    );
    let _plotter = site.daemon("plotter", &[]);
    let _consumer = site.daemon("consumer", &[]);
    let settings = [
        ("ISOCHRONE_TOPIC", "device/up"),
        ("ISOCHRONE_RESPONSE_TOPIC", "app/down"),
        ("ISOCHRONE_RATE", "50"),
        ("ISOCHRONE_DURATION", "3s"),
    ];
    wait::until("the platform to listen", START, || {
        site.mosquitto.sys("clients/connected") >= 2
    });
    let mut producer = site.daemon("producer", &settings);
    assert_eq!(producer.exit_code(END), 0, "{}", producer.stderr());
    let (report, code) = closed(&site, None);
    assert_whole(&report);
    assert_eq!((code, ledger(&report, "unique")), (0, 150));
}
