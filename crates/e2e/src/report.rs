//! The report as a test reads it.

use serde_json::Value;

use crate::daemon::Site;

/// The JSON report of a run (the newest when `run` is `None`), after it closed; with the exit code.
///
/// # Panics
/// When stdout is not one JSON object.
pub fn closed(site: &Site, run: Option<&str>) -> (Value, i32) {
    let mut arguments = vec!["report", "--wait", "--format", "json", "--per-topic"];
    if let Some(run) = run {
        arguments.extend(["--run", run]);
    }
    read(&site.isochrone(&arguments))
}

/// A report from a finished program's output.
///
/// # Panics
/// When stdout is not one JSON object.
pub fn read(output: &std::process::Output) -> (Value, i32) {
    let text = String::from_utf8_lossy(&output.stdout);
    let parsed = serde_json::from_str(&text);
    let report = parsed.unwrap_or_else(|error| {
        panic!(
            "not a report ({error}): {text}\n{}",
            String::from_utf8_lossy(&output.stderr)
        )
    });
    (report, output.status.code().unwrap_or(-1))
}

/// A number of the ledger.
///
/// # Panics
/// When it is not there.
pub fn ledger(report: &Value, name: &str) -> u64 {
    report["ledger"][name]
        .as_u64()
        .unwrap_or_else(|| panic!("no number ledger.{name} in {report:#}"))
}

/// Balanced, closed, and nothing lost in any way.
///
/// # Panics
/// When it is not so.
pub fn assert_whole(report: &Value) {
    assert_eq!(report["state"], "closed", "{report:#}");
    assert_eq!(report["ledger"]["balanced"], true, "{:#}", report["ledger"]);
    for name in [
        "lost",
        "unrecorded",
        "unheard",
        "dropped",
        "unsent",
        "queued",
        "in_flight",
    ] {
        assert_eq!(ledger(report, name), 0, "{name}: {:#}", report["ledger"]);
    }
    assert_eq!(ledger(report, "unique"), ledger(report, "sent"));
}
