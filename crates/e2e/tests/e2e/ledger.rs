//! The ledger is counted, not inferred.

use std::{collections::BTreeMap, time::Duration};

use isochrone_e2e::{
    daemon::{Site, ready},
    proxy::{Plan, Proxy},
    report::{closed, ledger, read},
    wait,
};
use rustix::process::Signal;
use serde_json::Value;

const START: Duration = Duration::from_secs(30);
const END: Duration = Duration::from_secs(120);

/// What a proxy deleted, doubled, swapped and held back is what the report says, range by range.
#[test]
fn tampering_is_found_to_the_message() {
    let site = Site::start(&[("ISOCHRONE_DRAIN", "2s")]);
    let hold_for = Duration::from_secs(4);
    let proxy = Proxy::start(
        site.mosquitto.port,
        Plan {
            delete: 137,
            double: 41,
            swap: 20,
            hold: 60,
            hold_for,
        },
    );
    let _plotter = site.daemon("plotter", &[]);
    let through = format!("mqtt://127.0.0.1:{}", proxy.port);
    let _consumers = site.daemons("consumer", 3, &[("ISOCHRONE_CONSUMER_BROKER", &through)]);
    let settings = [("ISOCHRONE_RATE", "200"), ("ISOCHRONE_DURATION", "12s")];
    let mut producers = site.daemons("producer", 3, &settings);
    for producer in &mut producers {
        assert_eq!(producer.exit_code(END), 0, "{}", producer.stderr());
    }
    let (report, code) = closed(&site, None);
    let notes = proxy.notes();
    assert_eq!(
        (notes.doubled, notes.swapped, notes.held),
        (41, 20, 60),
        "the proxy did as planned"
    );
    assert_eq!(report["ledger"]["balanced"], true, "{:#}", report["ledger"]);
    assert_eq!(code, 0);
    for (name, expected) in [
        ("sent", 7_200),
        ("lost", 137),
        ("duplicate", 41),
        ("reordered", 80),
        ("unique", 7_063),
    ] {
        assert_eq!(ledger(&report, name), expected, "{name}: {:#}", report["ledger"]);
    }
    let mut ranges: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for range in report["ledger"]["lost_ranges"].as_array().expect("ranges") {
        let epoch = u64::from_str_radix(range["epoch"].as_str().expect("epoch"), 16).expect("hex");
        let (first, last) = (
            range["first"].as_u64().expect("first"),
            range["last"].as_u64().expect("last"),
        );
        ranges.entry(epoch).or_default().extend(first..=last);
    }
    ranges.values_mut().for_each(|sequences| sequences.sort_unstable());
    let deleted: BTreeMap<u64, Vec<u64>> = notes
        .deleted
        .iter()
        .map(|(epoch, set)| (*epoch, set.iter().copied().collect()))
        .collect();
    assert_eq!(ranges, deleted);
}

/// A batch deleted from Redis by hand is an unequal equation that names the topic, whichever side wrote it: here a consumer.
#[test]
fn a_consumers_deleted_batch_is_exit_code_3() {
    a_deleted_batch_is_exit_code_3("R", &["stored = plotted_samples + ", "stored = exported + "]);
}

/// And here a producer.
#[test]
fn a_producers_deleted_batch_is_exit_code_3() {
    a_deleted_batch_is_exit_code_3("S", &["sent = plotted + "]);
}

/// `kind` of the batch, and how the equations begin that it is missing from.
fn a_deleted_batch_is_exit_code_3(kind: &str, equations: &[&str]) {
    let site = Site::start(&[("ISOCHRONE_RUN", "robbed"), ("ISOCHRONE_PARTITIONS", "1")]);
    let _consumer = site.daemon("consumer", &[]);
    let settings = [
        ("ISOCHRONE_RATE", "100"),
        ("ISOCHRONE_DURATION", "6s"),
        ("ISOCHRONE_TOPIC", "robbed/topic"),
    ];
    let mut producer = site.daemon("producer", &settings);
    ready(&producer, START);
    let key = "isochrone:{robbed:0}:latency";
    let mut robbed = 0;
    wait::until("a batch with messages to be robbed", START, || {
        let entries: Vec<(String, Vec<Vec<u8>>)> = site.redis.command(&["XREVRANGE", key, "+", "-", "COUNT", "5"]);
        let found = entries.iter().find_map(|(id, fields)| {
            let messages = messages(fields);
            (fields[7] == kind.as_bytes() && messages > 0).then_some((id, messages))
        });
        let Some((id, messages)) = found else { return false };
        robbed = messages;
        site.redis.command::<u64>(&["XDEL", key, id]) == 1
    });
    // No plotter has read it, nor will.
    assert_eq!(producer.exit_code(END), 0, "{}", producer.stderr());
    let (report, code) = closed(&site, Some("robbed"));
    assert_eq!(code, 3, "{:#}", report["ledger"]);
    assert_missing(&report, &equations[..1], robbed);

    // The same when a plotter comes after all.
    let _plotter = site.daemon("plotter", &[]);
    wait::until("the plotter to have what is left", START, || {
        now(&site, "robbed").0["ledger"]["unplotted"] == 0
    });
    let (report, code) = now(&site, "robbed");
    assert_eq!(code, 3, "{:#}", report["ledger"]);
    assert_missing(&report, equations, robbed);
    let output = site.isochrone(&["report", "--run", "robbed"]);
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(said.contains("robbed/topic"), "{said}");
}

/// So many messages are missing from these equations and no others.
fn assert_missing(report: &Value, equations: &[&str], messages: u64) {
    assert_eq!(report["ledger"]["balanced"], false);
    let unequal = report["ledger"]["unequal"].as_array().expect("what is unequal");
    assert_eq!(unequal.len(), equations.len(), "{unequal:#?}");
    for (found, begins) in unequal.iter().zip(equations) {
        let equation = found["equation"].as_str().expect("an equation");
        assert!(equation.starts_with(begins), "{equation}");
        let number = |side: &str| found[side].as_u64().expect("a number");
        assert_eq!(number("left") - number("right"), messages, "{equation}");
    }
}

/// How many messages the first part of an entry is about: its value is `token number body`.
fn messages(fields: &[Vec<u8>]) -> u64 {
    let value = fields.get(13).map(|value| String::from_utf8_lossy(value));
    let number = value.as_deref().and_then(|value| value.split(' ').nth(1)?.parse().ok());
    number.unwrap_or(0)
}

/// What a sink has still to come to is counted where it lies: an entry that is gone before the sink had it is missing from
/// the equation, though it was cut and another sink has it.
#[test]
fn an_entry_gone_before_a_sink_had_it_is_exit_code_3() {
    let site = Site::start(&[("ISOCHRONE_RUN", "behind"), ("ISOCHRONE_PARTITIONS", "1")]);
    let key = |name: &str| format!("isochrone:{{behind:0}}:{name}");
    // A sink whose plotter is away: nothing may be deleted before it has it.
    let away = r#"0 {"cut":0,"topics":{}}"#;
    let set: u64 = site.redis.command(&["HSET", &key("cursors"), "away", away]);
    assert_eq!(set, 1);
    let mut plotter = site.daemon("plotter", &[]);
    let mut consumer = site.daemon("consumer", &[]);
    let settings = [
        ("ISOCHRONE_RATE", "100"),
        ("ISOCHRONE_DURATION", "3s"),
        ("ISOCHRONE_TOPIC", "behind/topic"),
    ];
    let mut producer = site.daemon("producer", &settings);
    assert_eq!(producer.exit_code(END), 0, "{}", producer.stderr());
    wait::until("the other sink to have everything", START, || {
        let (report, _) = now(&site, "behind");
        report["ledger"]["exported"]["prometheus"] == 300
    });
    for daemon in [&mut consumer, &mut plotter] {
        daemon.signal(Signal::TERM);
        assert_eq!(daemon.exit_code(END), 0, "{}", daemon.stderr());
    }
    let (report, code) = closed(&site, Some("behind"));
    assert_eq!(code, 0, "{:#}", report["ledger"]);
    assert_eq!(
        report["ledger"]["pending"],
        serde_json::json!({"away": 300, "prometheus": 0})
    );

    let stream = key("latency");
    let entries: Vec<(String, Vec<redis::Value>)> = site.redis.command(&["XRANGE", &stream, "-", "+"]);
    let names_topic = |field: &redis::Value| matches!(field, redis::Value::BulkString(name) if name == b"behind/topic");
    let (id, _) = entries
        .iter()
        .find(|(_, fields)| fields.iter().any(names_topic))
        .expect("an entry with samples");
    assert_eq!(site.redis.command::<u64>(&["XDEL", &stream, id]), 1);
    let (report, code) = closed(&site, Some("behind"));
    assert_eq!(code, 3, "{:#}", report["ledger"]);
    let unequal = report["ledger"]["unequal"].as_array().expect("what is unequal");
    assert_eq!(unequal.len(), 1);
    assert_eq!(unequal[0]["topic"], "behind/topic (away)");
}

/// What cannot be read is named, and the rest is reported without it; such a run is never balanced.
#[test]
fn a_partition_that_cannot_be_read_is_named() {
    let site = Site::start(&[("ISOCHRONE_RUN", "spoilt"), ("ISOCHRONE_PARTITIONS", "2")]);
    let _plotter = site.daemon("plotter", &[]);
    let _consumer = site.daemon("consumer", &[("ISOCHRONE_CLAIMS", "unlimited")]);
    let settings = [
        ("ISOCHRONE_DEVICES", "20"),
        ("ISOCHRONE_COUNT", "5"),
        ("ISOCHRONE_RATE", "10"),
    ];
    let mut producer = site.daemon("producer", &settings);
    assert_eq!(producer.exit_code(END), 0, "{}", producer.stderr());
    let (whole, code) = closed(&site, Some("spoilt"));
    assert_eq!((code, ledger(&whole, "sent")), (0, 100), "{whole:#}");
    site.redis
        .command::<u64>(&["HSET", "isochrone:{spoilt:1}:cumulative", "run", "spoilt"]);
    let (rest, code) = now(&site, "spoilt");
    assert_eq!(code, 3, "{rest:#}");
    assert_eq!(
        (&rest["ledger"]["balanced"], rest["ledger"].get("unequal")),
        (&Value::Bool(false), None)
    );
    assert!((1..100).contains(&ledger(&rest, "sent")), "{rest:#}");
    let named = rest["unreadable"].to_string();
    assert!(named.contains("partition 1") && named.contains("cumulative"), "{named}");
}

/// The report as of now.
fn now(site: &Site, run: &str) -> (Value, i32) {
    read(&site.isochrone(&["report", "--run", run, "--format", "json"]))
}

/// Foreign and broken traffic on a claimed topic is counted by kind, and is never a latency.
#[test]
fn foreign_and_broken_traffic_is_counted_by_kind() {
    let site = Site::start(&[]);
    let _plotter = site.daemon("plotter", &[]);
    let _consumer = site.daemon("consumer", &[]);
    // Another run's stamp: taken from a run of its own, published by hand later.
    let taken = site.folder.path().join("stamp");
    let catch = site.mosquitto.pipeline(&format!(
        "mosquitto_sub -p $PORT -t other/topic -C 1 > {}",
        taken.display()
    ));
    wait::until("the catcher", START, || site.mosquitto.sys("clients/connected") >= 2);
    let settings = [
        ("ISOCHRONE_TOPIC", "other/topic"),
        ("ISOCHRONE_COUNT", "5"),
        ("ISOCHRONE_RUN", "other"),
    ];
    let mut other = site.daemon("producer", &settings);
    assert_eq!(other.exit_code(END), 0, "{}", other.stderr());
    drop(catch);
    let foreign = std::fs::read_to_string(&taken).expect("a caught message");
    let foreign = foreign.trim();
    let wrong_crc = {
        let at = foreign.find("isc1.").expect("a stamp") + 30;
        let swap = if foreign.as_bytes()[at] == b'A' { "B" } else { "A" };
        format!("{}{swap}{}", &foreign[..at], &foreign[at + 1..])
    };
    let large = site.folder.path().join("large");
    std::fs::write(&large, vec![b'x'; 1 << 20]).expect("large file");
    site.mosquitto.publish(&["-t", "main/topic", "-r", "-m", "retained"]);

    let settings = [
        ("ISOCHRONE_TOPIC", "main/topic"),
        ("ISOCHRONE_RATE", "50"),
        ("ISOCHRONE_DURATION", "6s"),
        ("ISOCHRONE_RUN", "main"),
    ];
    let own = site.folder.path().join("own");
    let _catch = site.mosquitto.pipeline(&format!(
        "mosquitto_sub -p $PORT -R -t main/topic -C 1 > {}",
        own.display()
    ));
    wait::until("the catcher", START, || site.mosquitto.sys("clients/connected") >= 2);
    let mut producer = site.daemon("producer", &settings);
    let own = wait::until_some("a message of the run", START, || {
        std::fs::read_to_string(&own)
            .ok()
            .filter(|text| text.contains("isc1.") && text.ends_with('\n'))
    });
    let publish = |message: &str| site.mosquitto.publish(&["-t", "main/topic", "-m", message]);
    publish("no stamp at all");
    publish("isc1.AAAA");
    publish(&wrong_crc);
    site.mosquitto
        .publish(&["-t", "main/topic", "-f", &large.display().to_string()]);
    publish(foreign);
    publish(foreign);
    publish(own.trim());
    publish(own.trim());
    publish(own.trim());
    assert_eq!(producer.exit_code(END), 0, "{}", producer.stderr());
    let (report, code) = closed(&site, Some("main"));
    assert_eq!(code, 0, "{:#}", report["ledger"]);
    let expected = [
        ("unique", 300),
        ("unstamped", 4),
        ("foreign", 2),
        ("duplicate", 3),
        ("retained", 1),
        ("lost", 0),
    ];
    for (name, number) in expected {
        assert_eq!(ledger(&report, name), number, "{name}: {:#}", report["ledger"]);
    }
    assert_eq!(report["latency_ns"]["response"]["count"], 300);
}
