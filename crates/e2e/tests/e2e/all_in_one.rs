//! One program, nothing else installed.

use std::{process::Output, time::Duration};

use isochrone_e2e::{
    daemon::{command, output},
    process::Process,
    report::{assert_whole, ledger, read},
    servers::{Mosquitto, free_port},
    wait,
};
use rustix::process::Signal;

fn isochrone(arguments: &[&str]) -> Output {
    output("isochrone", arguments, &[])
}

/// The fleet's every message is scheduled, sent, received and in the report.
#[test]
fn a_fleet_on_the_embedded_broker_is_whole() {
    let run = [
        "--devices",
        "20",
        "--rate",
        "200",
        "--duration",
        "4s",
        "--qos",
        "1",
        "--format",
        "json",
    ];
    let (report, code) = read(&isochrone(&run));
    assert_whole(&report);
    assert_eq!(code, 0);
    assert_eq!(ledger(&report, "scheduled"), 16_000);
    assert_eq!(report["latency_ns"]["response"]["count"], 16_000);
}

/// QoS 0 and 2 and MQTT 5 take the same way.
#[test]
fn every_qos_and_version_is_whole() {
    for (qos, version) in [("0", "3.1.1"), ("2", "3.1.1"), ("0", "5"), ("1", "5"), ("2", "5")] {
        let run = [
            "--devices",
            "5",
            "--rate",
            "100",
            "--duration",
            "2s",
            "--qos",
            qos,
            "--mqtt-version",
            version,
            "--format",
            "json",
        ];
        let (report, code) = read(&isochrone(&run));
        assert_whole(&report);
        assert_eq!(
            (code, ledger(&report, "scheduled")),
            (0, 1_000),
            "QoS {qos}, MQTT {version}"
        );
    }
}

/// More than the machine can carry: the report says so, its equations hold, and memory stays within bounds.
#[test]
fn overload_is_balanced_and_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut overloaded = command("isochrone", &[]);
    overloaded.args([
        "--devices",
        "200",
        "--rate",
        "1000",
        "--duration",
        "10s",
        "--qos",
        "1",
        "--format",
        "json",
    ]);
    let mut running = Process::start("isochrone", overloaded, folder.path());
    let (mut most_kib, begun) = (0, wait::now());
    while running.runs() {
        assert!(begun.elapsed() < Duration::from_secs(120), "{}", running.stderr());
        most_kib = most_kib.max(running.peak_kib());
        std::thread::sleep(Duration::from_millis(50));
    }
    let (report, code) = read(&running.output(Duration::ZERO));
    assert!((1..300 * 1_024).contains(&most_kib), "{most_kib} KiB");
    assert_eq!(report["ledger"]["balanced"], true, "{:#}", report["ledger"]);
    assert_eq!(code, 0);
    assert_eq!(ledger(&report, "scheduled"), 2_000_000);
}

/// An objective out of reach is exit code 4, one within reach 0.
#[test]
fn objectives_decide_the_exit_code() {
    let run = [
        "--devices",
        "2",
        "--rate",
        "100",
        "--duration",
        "2s",
        "--format",
        "json",
    ];
    let missed = read(&isochrone(&[&run[..], &["--slo", "p99<1us"]].concat()));
    assert_eq!((missed.0["slo"][0]["met"].as_bool(), missed.1), (Some(false), 4));
    let met = read(&isochrone(&[&run[..], &["--slo", "p99<10s, loss<1%"]].concat()));
    assert_eq!((met.0["slo"][1]["met"].as_bool(), met.1), (Some(true), 0));
}

/// The first signal ends the run early and in order, with a report.
#[test]
fn a_signal_ends_the_run_in_order() {
    let folder = tempfile::tempdir().expect("temp dir");
    for signal in [Signal::TERM, Signal::INT] {
        let name = format!("isochrone-{}", signal.as_raw());
        let mut run = command("isochrone", &[]);
        run.args([
            "--devices",
            "5",
            "--rate",
            "100",
            "--duration",
            "60s",
            "--format",
            "json",
        ]);
        let mut process = Process::start(&name, run, folder.path());
        isochrone_e2e::wait::until("the run to be under way", Duration::from_secs(20), || {
            process.stderr().contains("msg/s")
        });
        process.signal(signal);
        assert_eq!(process.exit_code(Duration::from_secs(30)), 0);
        let report: serde_json::Value = serde_json::from_str(&process.stdout()).expect("a report");
        assert_whole(&report);
        assert!(was_interrupted(&report), "{:#}", report["events"]);
    }
}

fn was_interrupted(report: &serde_json::Value) -> bool {
    let events = report["events"].as_array().expect("events");
    let what = "interrupted: told to stop before its end (planned: for 60s)";
    events
        .iter()
        .any(|event| event["what"] == what && event["at"].is_string())
}

/// A broker that nobody can reach ends the run with what is wrong, after as long as a topic is waited for; and before that the
/// first signal does, without waiting for messages that nobody sent.
#[test]
fn a_broker_out_of_reach_ends_the_run() {
    let nobody = format!("mqtt://127.0.0.1:{}", free_port());
    let run = ["--broker", &nobody, "--devices", "2", "--duration", "1s"];
    let output = isochrone(&[&run[..], &["--wait-for-consumer", "2s"]].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&nobody) && said.contains("tcp refused"), "{said}");

    let folder = tempfile::tempdir().expect("temp dir");
    let mut waiting = command("isochrone", &[]);
    waiting.args(run).args(["--drain", "300s"]);
    let mut process = Process::start("out-of-reach", waiting, folder.path());
    isochrone_e2e::wait::until("the broker to be missed", Duration::from_secs(20), || {
        process.stderr().contains("connection refused")
    });
    process.signal(Signal::TERM);
    assert_eq!(process.exit_code(Duration::from_secs(60)), 0, "{}", process.stderr());
}

/// A part that cannot work ends the run at once, with the cause; nobody sends for a minute what nobody plots.
#[test]
fn a_part_that_fails_ends_the_run() {
    let begun = isochrone_e2e::wait::now();
    let output = isochrone(&[
        "--devices",
        "2",
        "--rate",
        "10",
        "--duration",
        "60s",
        "--otlp-endpoint",
        "http://127.0.0.1:9",
        "--otlp-headers",
        "x=%0A",
    ]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("failed to") && said.contains("ISOCHRONE_OTLP_HEADERS"),
        "{said}"
    );
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

/// What does not finish within ISOCHRONE_SHUTDOWN is a failure; what is interrupted twice is 130.
#[test]
fn a_run_that_does_not_finish_says_why() {
    let folder = tempfile::tempdir().expect("temp dir");
    for (shutdown, signals, expected) in [("500ms", 1, 1), ("30s", 2, 130)] {
        let mut mosquitto = Mosquitto::start();
        let broker = mosquitto.url();
        let mut run = command("isochrone", &[("ISOCHRONE_BROKER", broker.as_str())]);
        run.args(["--devices", "2", "--rate", "100", "--qos", "1", "--drain", "20s"]);
        run.args(["--duration", "60s", "--log", "info", "--shutdown", shutdown]);
        let mut process = Process::start(&format!("isochrone-{expected}"), run, folder.path());
        let soon = Duration::from_secs(20);
        isochrone_e2e::wait::until("the run to be under way", soon, || process.stderr().contains("msg/s"));
        // Acknowledgements stay away: there is something to wait for.
        mosquitto.process().signal(Signal::STOP);
        for _ in 0..signals {
            process.signal(Signal::TERM);
            isochrone_e2e::wait::until("a signal to be heard", soon, || {
                process.stderr().contains("told to stop")
            });
        }
        assert_eq!(process.exit_code(soon), expected, "{}", process.stderr());
        let slow = process.stderr().contains("ISOCHRONE_SHUTDOWN=500ms");
        assert_eq!(slow, expected == 1, "{}", process.stderr());
        mosquitto.process().signal(Signal::CONT);
    }
}

/// A sink that is away is named while the run waits for it, and what it has not had at the end.
#[test]
fn a_sink_that_is_awaited_is_said() {
    let folder = tempfile::tempdir().expect("temp dir");
    let mut run = command("isochrone", &[("ISOCHRONE_INFLUXDB_URL", "http://127.0.0.1:9")]);
    run.args(["--devices", "2", "--rate", "50", "--duration", "2s", "--drain", "1s"]);
    run.args(["--shutdown", "1s", "--format", "json"]);
    let mut process = Process::start("isochrone", run, folder.path());
    isochrone_e2e::wait::until("the wait to be said", Duration::from_secs(40), || {
        let said = process.stderr();
        said.lines().any(|line| {
            line.contains("waiting for influxdb (200 samples pending), ") && line.ends_with(" s more at most")
        })
    });
    // It would wait for a minute.
    process.signal(Signal::TERM);
    assert_eq!(process.exit_code(Duration::from_secs(30)), 1, "{}", process.stderr());
    let said = process.stderr();
    let fate = "isochrone: influxdb did not receive 200 samples (pending): they are gone with this process's store";
    assert!(said.contains(fate) && !said.contains("cuts="), "{said}");
}

/// The text report is for people: it names the run, the figures and the ledger.
#[test]
fn the_text_report_says_what_matters() {
    let output = isochrone(&["--devices", "3", "--rate", "50", "--duration", "3s"]);
    let text = String::from_utf8_lossy(&output.stdout);
    for word in [
        "response",
        "transit",
        "p99",
        "scheduled",
        "lost",
        "balanced",
        "seconds:",
    ] {
        assert!(text.contains(word), "no {word:?} in:\n{text}");
    }
    assert_eq!(output.status.code(), Some(0));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("for 3s; broker embedded, store embedded"), "{said}");
}
