//! A daemon's life as a real process: `--check`, bad settings, signals once and twice, a work that fails or is too slow.
//!
//! The processes are this program itself: with LIFECYCLE_WORK in its environment it is a daemon.

#![expect(clippy::unwrap_used, reason = "a test may")]

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, ExitCode, Stdio},
};

use isochrone_daemon::{Context, chassis, settings::ProducerSettings};
use isochrone_store::types::Role;
use rustix::process::{Pid, Signal, kill_process};

/// Not of our prefix: it is no setting.
const WORK: &str = "LIFECYCLE_WORK";

fn main() -> ExitCode {
    if let Ok(work) = std::env::var(WORK) {
        return daemon(work);
    }
    let table: &[(&str, fn())] = &[
        (
            "one signal finishes, also before the store is there",
            one_signal_finishes,
        ),
        ("two signals interrupt with 130", two_signals_interrupt),
        ("too slow a finish is a failure", too_slow_is_a_failure),
        ("a work that fails exits with 1 and one line", failure_is_told),
        ("a task that ends early exits with 1 and its name", early_end_is_told),
        ("a work that is done exits with 0", done_is_done),
        ("bad settings exit with 2, all told", bad_settings_are_told),
        ("a check shows settings without secrets", check_shows_settings),
        ("help, version and unknown arguments", arguments),
        ("an idle daemon stays small", idle_is_small),
    ];
    for (sentence, test) in table {
        test();
        println!("ok: {sentence}");
    }
    ExitCode::SUCCESS
}

/// The daemon's side.
fn daemon(work: String) -> ExitCode {
    chassis::run(Role::Producer, |context: Context, _: ProducerSettings| async move {
        match work.as_str() {
            "wait" => context.stop.finishing().await,
            "stubborn" => context.stop.aborting().await,
            "never" => std::future::pending().await,
            "fail" => return Err("reach the end: on purpose".to_owned()),
            "early" => {
                drop(context.tasks.spawn("short one", async {}));
                context.stop.finishing().await;
            }
            _ => {}
        }
        Ok(())
    })
}

fn start(work: &str, variables: &[(&str, &str)], arguments: &[&str]) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(arguments)
        .env_clear()
        .env(WORK, work)
        .env("ISOCHRONE_REDIS_URL", "redis://127.0.0.1:1")
        .env("ISOCHRONE_LISTEN", "127.0.0.1:0")
        .envs(variables.iter().copied())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Everything it printed, and its exit code.
fn end(mut child: Child) -> (String, String, Option<i32>) {
    let (mut out, mut err) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    (out, err, child.wait().unwrap().code())
}

/// Reads stderr until a line holds `text`: by then its signal handlers stand.
fn wait_for(err: &mut impl BufRead, text: &str) {
    let mut line = String::new();
    loop {
        line.clear();
        assert_ne!(err.read_line(&mut line).unwrap(), 0, "ended before it said {text:?}");
        if line.contains(text) {
            return;
        }
    }
}

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

fn signalled(work: &str, variables: &[(&str, &str)], signals: &[Signal]) -> (String, Option<i32>) {
    let mut child = start(work, variables, &[]);
    let mut err = BufReader::new(child.stderr.take().unwrap());
    wait_for(&mut err, "producer starts");
    for signal in signals {
        send(&child, *signal);
        if signals.len() > 1 && *signal == signals[0] {
            wait_for(&mut err, "told to stop");
        }
    }
    let mut rest = String::new();
    err.read_to_string(&mut rest).unwrap();
    (rest, child.wait().unwrap().code())
}

fn one_signal_finishes() {
    for signal in [Signal::TERM, Signal::INT] {
        let (err, code) = signalled("wait", &[], &[signal]);
        assert_eq!(code, Some(0), "{err}");
        assert!(err.contains("producer is done"), "{err}");
    }
}

fn two_signals_interrupt() {
    for work in ["stubborn", "never"] {
        let (err, code) = signalled(work, &[], &[Signal::TERM, Signal::INT]);
        assert_eq!(code, Some(130), "{err}");
    }
}

fn too_slow_is_a_failure() {
    let (err, code) = signalled("never", &[("ISOCHRONE_SHUTDOWN", "50ms")], &[Signal::TERM]);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("not finished within ISOCHRONE_SHUTDOWN=50ms"), "{err}");
}

fn failure_is_told() {
    let (out, err, code) = end(start("fail", &[], &[]));
    assert_eq!((out.as_str(), code), ("", Some(1)));
    assert_eq!(err.matches("failed to reach the end: on purpose").count(), 1, "{err}");
}

fn early_end_is_told() {
    let (_, err, code) = end(start("early", &[("ISOCHRONE_LOG_FORMAT", "json")], &[]));
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("task short one"), "{err}");
    assert!(
        err.lines().all(|line| line.starts_with('{') && line.ends_with('}')),
        "{err}"
    );
}

fn done_is_done() {
    let (_, err, code) = end(start("nothing", &[], &[]));
    assert_eq!(code, Some(0), "{err}");
}

fn bad_settings_are_told() {
    let wrong = [("ISOCHRONE_QOS", "5"), ("ISOCHRONE_RTAE", "1"), ("ISOCHRONE_RATE", "x")];
    for arguments in [&[][..], &["--check"]] {
        let (out, err, code) = end(start("wait", &wrong, arguments));
        assert_eq!((out.as_str(), code), ("", Some(2)));
        assert_eq!(err.lines().count(), 3, "{err}");
    }
}

fn check_shows_settings() {
    let variables = [("ISOCHRONE_USERNAME", "u"), ("ISOCHRONE_PASSWORD", "hunter2")];
    let (out, err, code) = end(start("wait", &variables, &["--check"]));
    assert_eq!((err.as_str(), code), ("", Some(0)));
    assert!(out.contains("ISOCHRONE_PASSWORD=***  (environment)\n"), "{out}");
    assert!(!out.contains("hunter2"), "{out}");
}

fn arguments() {
    let (out, _, code) = end(start("wait", &[], &["--help"]));
    assert!(code == Some(0) && out.contains("ISOCHRONE_RATE"), "{out}");
    let (out, _, code) = end(start("wait", &[], &["--version"]));
    assert!(code == Some(0) && out.starts_with("isochrone-producer "), "{out}");
    let (_, err, code) = end(start("wait", &[], &["--rate", "5"]));
    assert!(code == Some(2) && err.contains("\"--rate\" is no argument"), "{err}");
}

fn idle_is_small() {
    let mut child = start("wait", &[], &[]);
    let mut err = BufReader::new(child.stderr.take().unwrap());
    wait_for(&mut err, "producer starts");
    wait_for(&mut err, "failed to read the reference clock");
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap()
        .trim();
    let kib: u64 = resident.trim_end_matches(" kB").trim().parse().unwrap();
    send(&child, Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    println!("    {kib} KiB resident");
    assert!(kib < 10 * 1024, "{kib} KiB resident");
}
