//! The report as people like to read it.

mod ledger;

use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets::NOTHING};
use isochrone_model::{
    quantity::display_share,
    report::{Latency, Report, SloReport, Stretch},
    slo::Measured,
};

use crate::facts::utc;

/// How many lost ranges, unequal equations or stretches of doubtful seconds are listed before the rest is only counted.
const LISTED: usize = 10;

/// The whole report.
pub fn report(report: &Report) -> String {
    let mut out = String::new();
    heading(&mut out, report);
    latencies(&mut out, report);
    ledger::section(&mut out, report);
    trust(&mut out, report);
    topics(&mut out, report);
    out
}

/// Nanoseconds with a unit that fits: three significant digits.
pub fn nanos(ns: f64) -> String {
    let (value, unit) = match ns.abs() {
        n if n < 1e3 => (ns, "ns"),
        n if n < 1e6 => (ns / 1e3, "us"),
        n if n < 1e9 => (ns / 1e6, "ms"),
        _ => (ns / 1e9, "s"),
    };
    match value.abs() {
        _ if unit == "ns" => format!("{value:.0} {unit}"),
        v if v < 10.0 => format!("{value:.2} {unit}"),
        v if v < 100.0 => format!("{value:.1} {unit}"),
        _ => format!("{value:.0} {unit}"),
    }
}

/// A count with thin groups of three.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn heading(out: &mut String, report: &Report) {
    let rate = |rate: Option<f64>| rate.map_or_else(|| "–".to_owned(), |rate| count(rate.round() as u64));
    let mut topics = format!("{} topics", count(report.topics));
    if report.response_topics != report.topics {
        let _ = write!(topics, ", {} response topics", count(report.response_topics));
    }
    let _ = writeln!(
        out,
        "run {}  {}  {:.1} s  {}  {} msg/s offered, {} achieved\n",
        report.run,
        report.state,
        report.duration_s,
        topics,
        rate(report.rate.offered),
        rate(report.rate.achieved),
    );
}

fn latencies(out: &mut String, report: &Report) {
    let figures = &report.latency_ns;
    let rows: [(&str, &Latency, &str); 5] = [
        ("response", &figures.response, "received − due: what a user waits"),
        ("transit", &figures.transit, "received − sent: broker and network"),
        ("publish delay", &figures.publish_delay, "sent − due: late + blocked"),
        ("late", &figures.late, "ready − due: Isochrone's own part"),
        ("ack", &figures.ack, "publish to PUBACK or PUBREC"),
    ];
    let mut table = plain_table();
    table.set_header(["", "count", "min", "mean", "p50", "p90", "p99", "p99.9", "max", ""]);
    for (name, latency, meaning) in rows {
        if latency.count == 0 && name == "ack" {
            continue;
        }
        let figure = |value: Option<i64>| value.map_or_else(|| "–".to_owned(), |ns| nanos(ns as f64));
        table.add_row([
            name.to_owned(),
            count(latency.count),
            figure(latency.min),
            latency.mean.map_or_else(|| "–".to_owned(), nanos),
            figure(latency.p50),
            figure(latency.p90),
            figure(latency.p99),
            figure(latency.p999),
            figure(latency.max),
            meaning.to_owned(),
        ]);
    }
    align(&mut table, 1..9);
    let _ = writeln!(out, "{table}");
    let negative: u64 = rows.iter().map(|(_, latency, _)| latency.negative).sum();
    if negative > 0 {
        let _ = writeln!(
            out,
            "{} negative values (clock skew) are in these figures",
            count(negative)
        );
    }
    let clock = &report.clock;
    let _ = match clock.domains {
        0 | 1 => writeln!(
            out,
            "one clock domain: times are from one monotonic clock, ± {}\n",
            nanos(clock.resolution_ns as f64)
        ),
        domains => writeln!(
            out,
            "{domains} clock domains: times across them hold within ± {}\n",
            nanos(clock.bound_ns as f64)
        ),
    };
}

fn trust(out: &mut String, report: &Report) {
    let seconds: Vec<_> = report
        .seconds
        .iter()
        .filter(|(_, number)| **number > 0)
        .map(|(name, number)| format!("{number} {name}"))
        .collect();
    let _ = writeln!(
        out,
        "seconds: {}",
        if seconds.is_empty() {
            "none yet".to_owned()
        } else {
            seconds.join(", ")
        }
    );
    for stretch in report.doubtful.iter().take(LISTED) {
        let Stretch { from, seconds, reason } = stretch;
        let _ = writeln!(out, "  {}: {seconds} s {}", utc(from.start()), reason.name());
    }
    if report.doubtful.len() > LISTED {
        let _ = writeln!(out, "  and {} times more", report.doubtful.len() - LISTED);
    }
    let connects = &report.connects;
    let _ = write!(out, "connects: {} attempts", count(connects.attempts));
    for (reason, number) in &connects.failed {
        let _ = write!(out, ", {} {reason}", count(*number));
    }
    for (phase, time) in &connects.phases {
        let mean = time.sum_ns as f64 / time.count.max(1) as f64;
        let _ = write!(out, "; {phase} {} mean, {} max", nanos(mean), nanos(time.max_ns as f64));
    }
    out.push('\n');
    for event in &report.events {
        if event.what != "opened" && event.what != "closed" {
            let at = event.at.as_deref().unwrap_or("–");
            let who = event
                .daemon
                .as_ref()
                .map_or_else(String::new, |daemon| format!("{daemon}: "));
            let _ = writeln!(out, "event: {at}  {who}{}", event.what);
        }
    }
    for one in &report.slo {
        let _ = writeln!(out, "objective {}", objective(one));
    }
}

/// What was asked for, what came of it, and by which figure.
pub fn objective(objective: &SloReport) -> String {
    let met = if objective.met { "met" } else { "MISSED" };
    let found = match objective.measured {
        Measured::Nanoseconds(ns) => nanos(ns),
        Measured::Share(share) => display_share(share),
        Measured::Infinite => "infinite (what never arrived counts)".to_owned(),
        Measured::Nothing => "nothing measured".to_owned(),
    };
    let few = if objective.supported || objective.measured == Measured::Nothing {
        ""
    } else {
        ", from few messages: fewer than 10 lie beyond this percentile"
    };
    format!("{}: {met}: {found}{few}", objective.objective)
}

fn topics(out: &mut String, report: &Report) {
    let Some(topics) = &report.per_topic else { return };
    let mut table = plain_table();
    table.set_header([
        "topic",
        "devices",
        "sent",
        "unique",
        "lost",
        "duplicate",
        "response p50",
        "p99",
        "max",
    ]);
    for topic in topics {
        let figure = |value: Option<i64>| value.map_or_else(|| "–".to_owned(), |ns| nanos(ns as f64));
        let response = &topic.latency_ns.response;
        table.add_row([
            topic.topic.to_string(),
            count(topic.devices.len() as u64),
            count(topic.ledger.sent),
            count(topic.ledger.unique),
            count(topic.ledger.lost),
            count(topic.ledger.duplicate),
            figure(response.p50),
            figure(response.p99),
            figure(response.max),
        ]);
    }
    align(&mut table, 1..9);
    let _ = writeln!(out, "\n{table}");
}

/// A table without lines, for figures.
pub fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING);
    table
}

fn align(table: &mut Table, columns: std::ops::Range<usize>) {
    for index in columns {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An objective's line has the figure that was judged, and what makes it doubtful.
    #[test]
    fn objectives_say_what_was_measured() {
        let line = |met, measured: Measured, supported| {
            objective(&SloReport {
                objective: "p99<50ms".to_owned(),
                value: measured.number(),
                met,
                supported,
                measured,
            })
        };
        for (met, measured, supported, text) in [
            (true, Measured::Nanoseconds(1.234e6), true, "p99<50ms: met: 1.23 ms"),
            (
                true,
                Measured::Nanoseconds(1.234e6),
                false,
                "p99<50ms: met: 1.23 ms, from few messages: fewer than 10 lie beyond this percentile",
            ),
            (false, Measured::Share(0.0012), true, "p99<50ms: MISSED: 0.12 %"),
            (
                false,
                Measured::Infinite,
                true,
                "p99<50ms: MISSED: infinite (what never arrived counts)",
            ),
            (false, Measured::Nothing, false, "p99<50ms: MISSED: nothing measured"),
        ] {
            assert_eq!(line(met, measured, supported), text);
        }
    }

    /// Figures keep three digits and the unit that suits them.
    #[test]
    fn figures_have_units() {
        for (ns, text) in [
            (0.0, "0 ns"),
            (999.0, "999 ns"),
            (1_234.0, "1.23 us"),
            (-45_600_000.0, "-45.6 ms"),
            (2.5e9, "2.50 s"),
        ] {
            assert_eq!(nanos(ns), text);
        }
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (12_345_678, "12,345,678")] {
            assert_eq!(count(number), text);
        }
    }
}
