//! A run as a picture: what a reader sees is what the report says.

use std::{thread::sleep, time::Duration};

use isochrone_e2e::{
    daemon::{Site, command, output},
    process::Process,
    report::{ledger, read},
    wait,
};
use roxmltree::{Document, Node};
use rustix::process::Signal;

const START: Duration = Duration::from_secs(30);
const END: Duration = Duration::from_secs(90);
const OUTAGE: Duration = Duration::from_secs(3);

fn classed<'a>(document: &'a Document<'_>, class: &str) -> Vec<Node<'a, 'a>> {
    let of = |node: &Node<'_, '_>| {
        let classes = node.attribute("class").unwrap_or_default();
        classes.split(' ').any(|of| of == class)
    };
    document.descendants().filter(of).collect()
}

/// The places of a line, to the right and downwards.
fn places(document: &Document<'_>, class: &str) -> Vec<(f64, f64)> {
    let paths = classed(document, class);
    let path = paths.iter().find_map(|node| node.attribute("d")).expect(class);
    let place = |pair: &str| {
        let (x, y) = pair.split_once(' ').expect("a pair");
        (x.parse().expect("x"), y.parse().expect("y"))
    };
    path.split(['M', 'L'])
        .filter(|pair| !pair.is_empty())
        .map(place)
        .collect()
}

/// `1,234,567`
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(String::from_utf8_lossy)
        .collect();
    groups.join(",")
}

/// Nanoseconds of a text like `1.23 ms`.
fn nanoseconds(text: &str) -> Option<f64> {
    let (number, unit) = text.split_once(' ')?;
    let scale = match unit {
        "ns" => 1.0,
        "us" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * scale)
}

/// A broker that stands still is a gap in what was received and a peak of response in the seconds when messages were due;
/// cells, counts and figures are the report's; and the picture is the same when it is drawn again.
#[test]
fn an_outage_is_in_the_picture_as_in_the_report() {
    let mut site = Site::start(&[]);
    let mut run = command("isochrone", &[]);
    run.args(["--redis-url", &site.redis.url(), "--broker", &site.mosquitto.url()]);
    run.args([
        "--run",
        "pictured",
        "--device-name",
        "d&<{{n}}>",
        "--slo",
        "p99<1us, loss<1%",
    ]);
    run.args(["--devices", "10", "--rate", "200", "--duration", "10s", "--qos", "1"]);
    run.args(["--listen", "127.0.0.1:0", "--format", "svg"]);
    let mut process = Process::start("isochrone", run, site.folder.path());
    let received = |line: &str| line.contains(" in, response") && !line.contains(" 0 in,");
    wait::until("messages on their way", START, || {
        process.stderr().lines().any(received)
    });
    site.mosquitto.process().signal(Signal::STOP);
    sleep(OUTAGE);
    site.mosquitto.process().signal(Signal::CONT);
    assert_eq!(process.exit_code(END), 4, "{}", process.stderr());

    let svg = process.stdout();
    let document = Document::parse(&svg).unwrap_or_else(|error| panic!("{error} in {svg}"));
    let (report, _) = read(&site.isochrone(&["report", "--run", "pictured", "--format", "json"]));
    assert_eq!(report["ledger"]["balanced"], true, "{:#}", report["ledger"]);

    let seconds = report["seconds"].as_object().expect("seconds");
    for (verdict, number) in seconds {
        assert_eq!(
            Some(classed(&document, verdict).len() as u64),
            number.as_u64(),
            "{verdict}"
        );
    }
    let sum: u64 = seconds.values().filter_map(serde_json::Value::as_u64).sum();
    assert_eq!(classed(&document, "verdict").len() as u64, sum);

    let texts: Vec<_> = document.descendants().filter_map(|node| node.text()).collect();
    let has = |text: &str| assert!(texts.contains(&text), "no {text:?} in {texts:#?}");
    has("run pictured");
    has("balanced: every equation holds");
    let missed = |text: &&str| text.starts_with("objective p99<1us: MISSED: ");
    assert!(
        texts.iter().any(missed),
        "no missed objective with its figure in {texts:#?}"
    );
    let number = |name: &str| grouped(ledger(&report, name));
    has(&format!(
        "{} scheduled = {} sent + {} unsent + {} queued",
        number("scheduled"),
        number("sent"),
        number("unsent"),
        number("queued")
    ));
    for latency in ["response", "transit"] {
        for name in ["p50", "p99", "p999", "max"] {
            let expected = report["latency_ns"][latency][name].as_f64().expect(name);
            let close = |text: &&str| nanoseconds(text).is_some_and(|ns| (ns - expected).abs() <= expected * 0.006);
            assert!(texts.iter().any(close), "no {latency} {name} {expected} in {texts:#?}");
        }
    }

    let received = places(&document, "received");
    let ground = received.first().expect("a place").1;
    let inner = &received[1..received.len() - 1];
    let gap: Vec<f64> = inner
        .iter()
        .filter(|place| place.1 == ground)
        .map(|place| place.0)
        .collect();
    let (from, to) = (
        gap.first().copied().expect("a second without arrivals"),
        gap.last().copied().expect("its end"),
    );
    let second = inner[1].0 - inner[0].0;
    let peak = places(&document, "response-max");
    let peak = peak.into_iter().min_by(|a, b| a.1.total_cmp(&b.1)).expect("a peak");
    assert!(
        from - second <= peak.0 && peak.0 <= to,
        "the peak at {} belongs to the outage {from}..{to}",
        peak.0
    );
    let longest = report["latency_ns"]["response"]["max"].as_f64().expect("max");
    assert!(longest >= 0.9 * OUTAGE.as_nanos() as f64, "{longest}");

    let arguments = [
        "report",
        "--run",
        "pictured",
        "--slo",
        "p99<1us, loss<1%",
        "--format",
        "svg",
    ];
    let again = site.isochrone(&arguments);
    assert!(
        String::from_utf8_lossy(&again.stdout) == svg,
        "drawn again it is another"
    );
}

/// What is no report has no picture, and says so.
#[test]
fn other_commands_have_no_picture() {
    let output = output("isochrone", &["runs", "--format", "svg"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("--format svg is for the report of a run"));
}
