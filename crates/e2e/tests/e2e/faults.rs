//! One fault of each kind: the run goes on, the equations hold, the report tells what happened.

use std::{ops::RangeInclusive, time::Duration};

use isochrone_e2e::{
    daemon::{Site, command, holder, ready},
    process::Process,
    report::{assert_whole, closed, ledger, read},
    servers::{Redis, free_port},
    wait::{self, pause},
    witness::Witness,
};
use roxmltree::{Document, Node};
use rustix::process::Signal;
use serde_json::Value;

const START: Duration = Duration::from_secs(30);
const END: Duration = Duration::from_secs(120);

fn invalid_seconds(report: &Value) -> u64 {
    let seconds = report["seconds"].as_object().expect("seconds");
    seconds
        .iter()
        .filter(|(name, _)| *name != "valid")
        .filter_map(|(_, count)| count.as_u64())
        .sum()
}

/// The report tells of it, with its time and the daemon.
fn assert_told(report: &Value, daemon: &str, what: &str) {
    let events = report["events"].as_array().expect("events");
    let text = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
    let told = events.iter().any(|event| {
        text(event, "what").contains(what) && text(event, "daemon").contains(daemon) && text(event, "at").ends_with('Z')
    });
    assert!(told, "no {what:?} of {daemon:?} in {events:#?}");
}

/// A consumer killed with `-9`: its topic is taken over, what it had not stored is `unrecorded`, nothing is unequal.
#[test]
fn a_killed_consumer_leaves_unrecorded_at_most() {
    let site = Site::start(&[("ISOCHRONE_RUN", "killed"), ("ISOCHRONE_LEASE", "2s")]);
    let _plotter = site.daemon("plotter", &[]);
    let mut consumers = site.daemons("consumer", 2, &[]);
    let settings = [
        ("ISOCHRONE_RATE", "200"),
        ("ISOCHRONE_DURATION", "12s"),
        ("ISOCHRONE_QOS", "1"),
    ];
    let mut producer = site.daemon("producer", &settings);
    ready(&producer, START);
    pause(Duration::from_secs(3));
    let victim = holder(&consumers, START);
    consumers[victim].kill();
    assert_eq!(producer.exit_code(END), 0, "{}", producer.stderr());
    let (report, code) = closed(&site, None);
    assert_eq!(
        (code, &report["ledger"]["balanced"]),
        (0, &Value::Bool(true)),
        "{:#}",
        report["ledger"]
    );
    assert_eq!(ledger(&report, "sent"), 2_400);
    assert_eq!(ledger(&report, "lost"), 0, "{:#}", report["ledger"]);
    assert!(ledger(&report, "unrecorded") <= 400, "{:#}", report["ledger"]);
    assert!(
        ledger(&report, "unique") + ledger(&report, "unrecorded") == 2_400,
        "{:#}",
        report["ledger"]
    );
    assert_told(&report, "consumer", "vanished without a last word");
    assert_told(&report, "consumer", "took over 1 response topics");
    let text = site.isochrone(&["report", "--run", "killed"]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("took over 1 response topics"), "{text}");
}

/// A consumer killed while acknowledgements wait for the store: nothing is missing.
#[test]
fn a_killed_consumer_loses_nothing_with_stored_acks() {
    let site = Site::start(&[("ISOCHRONE_LEASE", "2s"), ("ISOCHRONE_ACK", "stored")]);
    let _plotter = site.daemon("plotter", &[]);
    let mut consumers = site.daemons("consumer", 2, &[]);
    let settings = [
        ("ISOCHRONE_RATE", "200"),
        ("ISOCHRONE_DURATION", "12s"),
        ("ISOCHRONE_QOS", "1"),
    ];
    let mut producer = site.daemon("producer", &settings);
    ready(&producer, START);
    pause(Duration::from_secs(3));
    let victim = holder(&consumers, START);
    consumers[victim].kill();
    assert_eq!(producer.exit_code(END), 0, "{}", producer.stderr());
    let (report, code) = closed(&site, None);
    assert_eq!(code, 0, "{:#}", report["ledger"]);
    assert_whole(&report);
}

/// A plotter killed in mid-run: its successor goes on, nothing is counted twice or left out.
#[test]
fn a_killed_plotter_is_replaced() {
    let site = Site::start(&[("ISOCHRONE_LEASE", "2s")]);
    let mut plotter = site.daemon("plotter", &[]);
    let _consumers = site.daemons("consumer", 2, &[]);
    let settings = [("ISOCHRONE_RATE", "100"), ("ISOCHRONE_DURATION", "10s")];
    let mut producers = site.daemons("producer", 2, &settings);
    for producer in &producers {
        ready(producer, START);
    }
    pause(Duration::from_secs(4));
    plotter.kill();
    let _successor = site.daemon("plotter", &[]);
    for producer in &mut producers {
        assert_eq!(producer.exit_code(END), 0, "{}", producer.stderr());
    }
    let (report, code) = closed(&site, None);
    assert_eq!(code, 0, "{:#}", report["ledger"]);
    assert_whole(&report);
    assert_eq!(ledger(&report, "stored"), 2_000);
    assert_eq!(report["ledger"]["exported"]["prometheus"], 2_000);
    assert_eq!(report["latency_ns"]["transit"]["count"], 2_000);
}

/// Redis away for twice the lease: no claim changes hands, nothing is lost.
#[test]
fn redis_may_be_away() {
    let mut site = Site::start(&[("ISOCHRONE_LEASE", "5s"), ("ISOCHRONE_RUN", "away")]);
    let _plotter = site.daemon("plotter", &[]);
    let consumers = site.daemons("consumer", 2, &[]);
    let settings = [
        ("ISOCHRONE_RATE", "100"),
        ("ISOCHRONE_DURATION", "18s"),
        ("ISOCHRONE_QOS", "1"),
    ];
    let mut producer = site.daemon("producer", &settings);
    ready(&producer, START);
    pause(Duration::from_secs(2));
    site.redis.stop();
    pause(Duration::from_secs(10));
    site.redis.start_again();
    assert_eq!(producer.exit_code(END), 0, "{}", producer.stderr());
    let (report, code) = closed(&site, None);
    assert_eq!(code, 0, "{:#}", report["ledger"]);
    assert_whole(&report);
    assert_eq!(ledger(&report, "unique"), 1_800);
    for daemon in ["producer 0", "consumer", "plotter 0"] {
        assert_told(&report, daemon, "Redis did not answer");
    }
    let claimed = |consumer: &isochrone_e2e::process::Process| consumer.stderr().matches("claimed a topic").count();
    assert_eq!(
        consumers.iter().map(claimed).sum::<usize>(),
        1,
        "the claim stayed where it was"
    );
}

/// The broker restarted: devices and consumers come back, QoS 1 loses nothing.
#[test]
fn the_broker_may_restart() {
    let mut site = Site::start(&[]);
    let _plotter = site.daemon("plotter", &[]);
    let _consumer = site.daemon("consumer", &[]);
    let settings = [
        ("ISOCHRONE_RATE", "100"),
        ("ISOCHRONE_DURATION", "10s"),
        ("ISOCHRONE_QOS", "1"),
    ];
    let mut producer = site.daemon("producer", &settings);
    ready(&producer, START);
    pause(Duration::from_secs(3));
    site.mosquitto.restart();
    assert_eq!(producer.exit_code(END), 0, "{}", producer.stderr());
    let (report, code) = closed(&site, None);
    assert_eq!(
        (code, &report["ledger"]["balanced"]),
        (0, &Value::Bool(true)),
        "{:#}",
        report["ledger"]
    );
    assert_eq!(ledger(&report, "scheduled"), 1_000);
    assert_eq!(ledger(&report, "lost"), 0, "{:#}", report["ledger"]);
    for daemon in ["producer 0", "consumers"] {
        assert_told(&report, daemon, "connections to the broker failed or ended");
    }
}

/// A run in which one of its parts stood still for two seconds.
struct Stopped {
    report: Value,
    /// Seconds that are not valid, as the run's picture counts them, and why.
    invalid: Vec<(i64, String)>,
    /// Those in which the part stood still or what had waited went on.
    stop: RangeInclusive<i64>,
    /// The longest time that this machine was seen to hold a thread up.
    machine: Duration,
}

fn with_a_stop_of(victim: &str) -> Stopped {
    // Far from this machine's own jitter: what is tried is a stop of two seconds.
    let mut site = Site::start(&[("ISOCHRONE_RUN", victim), ("ISOCHRONE_VALID_LATE", "50ms")]);
    let _plotter = site.daemon("plotter", &[]);
    let consumer = site.daemon("consumer", &[]);
    let settings = [("ISOCHRONE_RATE", "100"), ("ISOCHRONE_DURATION", "10s")];
    let witness = Witness::start();
    let mut producer = site.daemon("producer", &settings);
    ready(&producer, START);
    pause(Duration::from_secs(4));
    let stop = |site: &mut Site, signal| match victim {
        "consumer" => consumer.signal(signal),
        "producer" => producer.signal(signal),
        _ => site.mosquitto.process().signal(signal),
    };
    let stopped = second_of_day(&site);
    stop(&mut site, Signal::STOP);
    pause(Duration::from_secs(2));
    stop(&mut site, Signal::CONT);
    let went_on = second_of_day(&site);
    assert_eq!(producer.exit_code(END), 0, "{}", producer.stderr());
    let (report, code) = closed(&site, None);
    assert_eq!(code, 0, "{:#}", report["ledger"]);
    assert_whole(&report);
    let max = report["latency_ns"]["response"]["max"].as_i64().expect("max");
    assert!(max > 1_500_000_000, "{victim}: response shows the stall: {max}");
    let machine = witness.worst();
    let (began, invalid) = verdicts(&site, victim);
    assert_eq!(invalid.len() as u64, invalid_seconds(&report), "{invalid:?}");
    let within = |second: i64| (second - began).rem_euclid(DAY);
    Stopped {
        report,
        invalid,
        stop: within(stopped)..=within(went_on) + 1,
        machine,
    }
}

const DAY: i64 = 24 * 60 * 60;

/// The reference clock's.
fn second_of_day(site: &Site) -> i64 {
    let (seconds, _): (i64, i64) = site.redis.command(&["TIME"]);
    seconds % DAY
}

/// The second of the day at which the run's picture begins, and in it the seconds that are not valid.
fn verdicts(site: &Site, run: &str) -> (i64, Vec<(i64, String)>) {
    let output = site.isochrone(&["report", "--run", run, "--format", "svg"]);
    let picture = String::from_utf8_lossy(&output.stdout).into_owned();
    let picture = Document::parse(&picture).expect("a picture");
    let texts = || picture.descendants().filter_map(|node| node.text());
    let since = texts().find_map(|text| text.strip_prefix("since ")).expect("its begin");
    // 2026-11-26T06:13:38.000Z
    let clock: Vec<i64> = since[11..19].split(':').filter_map(|part| part.parse().ok()).collect();
    let [hours, minutes, seconds] = clock[..] else {
        panic!("no time in {since}");
    };
    let of_verdicts = |node: &Node<'_, '_>| {
        node.attribute("class")
            .is_some_and(|class| class.starts_with("verdict "))
    };
    // 5 s: generator_late
    let cells = picture.descendants().filter(of_verdicts).map(|cell| {
        let title = cell.descendants().find_map(|node| node.text()).expect("a title");
        let (second, name) = title.split_once(" s: ").expect("second and verdict");
        (second.parse().expect("a second"), name.to_owned())
    });
    let invalid = cells.filter(|(_, name): &(i64, String)| name != "valid").collect();
    ((hours * 60 + minutes) * 60 + seconds, invalid)
}

/// A stopped consumer, or a stopped producer: their seconds are not valid.
#[test]
fn the_verdict_has_teeth() {
    for victim in ["consumer", "producer"] {
        let Stopped {
            report, invalid, stop, ..
        } = with_a_stop_of(victim);
        assert_told(&report, victim, "was away from its work");
        let of_stop = invalid.iter().filter(|(second, _)| stop.contains(second)).count();
        assert!(of_stop >= 2, "{victim} in {stop:?}: {invalid:?}");
    }
}

/// A stopped broker: its seconds are valid. Where they are not although this machine was not seen to stand still, the broker is
/// blamed. Everything else says nothing of that, and is tried again.
#[test]
fn the_verdict_blames_no_broker() {
    const ATTEMPTS: usize = 5;
    for attempt in 1..=ATTEMPTS {
        let Stopped {
            invalid, stop, machine, ..
        } = with_a_stop_of("broker");
        if invalid.is_empty() {
            return;
        }
        let of_stop = invalid.iter().any(|(second, _)| stop.contains(second));
        let reason = if of_stop {
            // A little below ISOCHRONE_VALID_LATE: a thread that sleeps sees less than one that works.
            assert!(
                machine >= Duration::from_millis(40),
                "in {stop:?}: {invalid:?}; this machine: {machine:?}"
            );
            "this machine stood still"
        } else {
            "nothing in the stop's seconds"
        };
        println!("attempt {attempt}: {reason} ({machine:?}); not valid: {invalid:?}; the stop: {stop:?}");
    }
    panic!("none of {ATTEMPTS} runs says anything of the broker");
}

/// A Redis that promises nothing is said at the start of the page that asks for it.
#[test]
fn doctor_names_what_to_mend() {
    let site = Site::with(
        isochrone_e2e::servers::Mosquitto::start(),
        Redis::start_with(&["--appendonly", "no"], free_port()),
        &[],
    );
    let broker = site.mosquitto.url();
    let output = site.isochrone(&["doctor", "--broker", &broker]);
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(text.contains("appendonly"), "{text}");
}

/// A run whose daemons were all killed is closed by the report that waits for it, and its rows are rebuilt.
#[test]
fn a_run_without_a_living_daemon_is_closed_by_the_report() {
    let settings = [
        ("ISOCHRONE_LEASE", "2s"),
        ("ISOCHRONE_DRAIN", "2s"),
        ("ISOCHRONE_PARTITIONS", "8"),
        ("ISOCHRONE_QOS", "1"),
        ("ISOCHRONE_RATE", "50"),
    ];
    let site = Site::start(&[&settings[..], &[("ISOCHRONE_RUN", "dead")]].concat());
    let plotter = site.daemon("plotter", &[]);
    let consumers = site.daemons("consumer", 2, &[]);
    let producers = site.daemons("producer", 2, &[]);
    let mut all: Vec<_> = producers.into_iter().chain(consumers).chain([plotter]).collect();
    for daemon in &all {
        ready(daemon, START);
    }
    wait::until("messages to be measured", START, || {
        let (report, _) = read(&site.isochrone(&["report", "--run", "dead", "--format", "json"]));
        report["latency_ns"]["response"]["count"].as_u64() > Some(50)
    });
    all.iter_mut().for_each(Process::kill);

    let environment = site.environment(&[]);
    let environment: Vec<_> = environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let wait_for = |run: &str| {
        let mut report = command("isochrone", &environment);
        report.args(["report", "--wait", "--format", "json", "--run", run]);
        let mut report = Process::start(&format!("report-{run}"), report, site.folder.path());
        let code = report.exit_code(Duration::from_secs(40));
        let text = report.stdout();
        (serde_json::from_str::<Value>(&text).expect("a report"), code)
    };
    let (report, code) = wait_for("dead");
    assert_eq!(
        (report["state"].as_str(), code),
        (Some("closed"), 0),
        "{:#}",
        report["ledger"]
    );
    assert_eq!(report["ledger"]["balanced"], true, "{:#}", report["ledger"]);
    assert_eq!(report["ledger"]["vanished"], 2);
    for daemon in ["producer 0", "producer 1", "consumer 0", "consumer 1", "plotter 0"] {
        assert_told(&report, daemon, "vanished without a last word");
    }

    // Opened, and left before anybody joined.
    let fields = [
        "schema",
        "1",
        "partitions",
        "8",
        "claim_unit",
        "topic",
        "state",
        "open",
        "opened_us",
        "1795312800000000",
    ];
    let words = [&["HSET", "isochrone:{still}:run"], &fields[..], &["keep_ms", "3600000"]].concat();
    let _: u64 = site.redis.command(&words);
    let (report, code) = wait_for("still");
    assert_eq!((report["state"].as_str(), code), (Some("closed"), 0));
}

/// A producer that idles after its schedule has left the run, which closes.
#[test]
fn an_idling_producer_keeps_no_run_open() {
    let site = Site::start(&[("ISOCHRONE_RUN", "idle")]);
    let _plotter = site.daemon("plotter", &[]);
    let _consumer = site.daemon("consumer", &[]);
    let settings = [
        ("ISOCHRONE_AT_END", "idle"),
        ("ISOCHRONE_RATE", "50"),
        ("ISOCHRONE_DURATION", "2s"),
    ];
    let mut producer = site.daemon("producer", &settings);
    ready(&producer, START);
    let (report, code) = closed(&site, Some("idle"));
    assert_whole(&report);
    assert_eq!((code, ledger(&report, "scheduled")), (0, 100));
    assert!(producer.runs(), "{}", producer.stderr());
    producer.signal(Signal::TERM);
    assert_eq!(producer.exit_code(END), 0);
}
