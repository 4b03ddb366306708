//! The run's name, totals and figures above the panels, and all of it once more as plain text for those who cannot see it.

use isochrone_model::report::{Latency, LedgerReport, Report};

use super::{
    drawing::{ALARM, Anchor, Drawing, FAINT, Face, HEIGHTS, INK, RIGHT, shorten},
    points::Points,
};
use crate::text::{count, nanos, objective};

/// Characters in a line across the picture, and in one beside the figures.
const LINE: usize = 130;
const SHORT_LINE: usize = 80;
const NAME: usize = 46;

/// Unequal equations that are listed.
const LISTED: usize = 3;

/// Columns of figures, from the right edge.
const COLUMN: f64 = 78.0;

/// Draws it below `top` and gives where it ends.
pub fn draw(drawing: &mut Drawing, report: &Report, points: &Points, top: f64) -> f64 {
    let plain = Face::plain(INK, Anchor::Start);
    let name = Face {
        size: 19.0,
        ..plain.bold()
    };
    let left = HEIGHTS.margin;
    let mut y = top + 14.0;
    figures(drawing, report, y);
    drawing.text(left, y, name, &shorten(&format!("run {}", report.run), NAME));
    y += HEIGHTS.line + 5.0;
    drawing.text(left, y, plain, &shorten(&about(report), SHORT_LINE));
    y += HEIGHTS.line;
    let faint = Face::plain(FAINT, Anchor::Start);
    drawing.text(left, y, faint, &shorten(&clock(report), SHORT_LINE));
    y += 6.0;
    for equation in equations(&report.ledger) {
        y += HEIGHTS.line;
        drawing.text(left, y, plain, &shorten(&equation, LINE));
    }
    y += HEIGHTS.line;
    let wrong = report.ledger.balanced == Some(false);
    let verdict = Face {
        fill: if wrong { ALARM } else { INK },
        ..plain.bold()
    };
    drawing.text(left, y, verdict, balance(&report.ledger));
    let alarm = Face::plain(ALARM, Anchor::Start);
    for unequal in report.ledger.unequal.iter().take(LISTED) {
        y += HEIGHTS.line;
        let line = format!(
            "{}: {}: {} ≠ {}",
            unequal.topic, unequal.equation, unequal.left, unequal.right
        );
        drawing.text(left, y, alarm, &shorten(&line, LINE));
    }
    for one in &report.slo {
        y += HEIGHTS.line;
        let face = if one.met { plain } else { alarm };
        let line = format!("objective {}", objective(one));
        drawing.text(left, y, face, &shorten(&line, LINE));
    }
    if points.measured < report.latency_ns.response.count {
        y += HEIGHTS.line;
        let line = format!("latencies by second are known of {} messages", count(points.measured));
        drawing.text(left, y, alarm, &line);
    }
    y + HEIGHTS.gap
}

/// The table at the right: response and transit.
fn figures(drawing: &mut Drawing, report: &Report, top: f64) {
    let latency = &report.latency_ns;
    let rows = [("response", &latency.response), ("transit", &latency.transit)];
    let faint = Face::plain(FAINT, Anchor::End);
    let bold = Face::plain(INK, Anchor::End).bold();
    let columns = |latency: &Latency| [latency.p50, latency.p99, latency.p999, latency.max];
    let x = |column: usize| RIGHT - COLUMN * (3 - column) as f64;
    for (column, name) in ["p50", "p99", "p99.9", "max"].into_iter().enumerate() {
        drawing.text(x(column), top, faint, name);
    }
    let mut y = top;
    for (name, latency) in rows {
        y += HEIGHTS.line + 2.0;
        drawing.text(x(0) - COLUMN + 6.0, y, faint, name);
        for (column, figure) in columns(latency).into_iter().enumerate() {
            drawing.text(x(column), y, bold, &time(figure));
        }
    }
}

/// What was asked for and what came of it.
fn about(report: &Report) -> String {
    let rate = |rate: Option<f64>| rate.map_or_else(|| "–".to_owned(), |rate| count(rate.round() as u64));
    format!(
        "{} · {:.1} s · {} topics · {} msg/s offered, {} achieved",
        report.state,
        report.duration_s,
        count(report.topics),
        rate(report.rate.offered),
        rate(report.rate.achieved),
    )
}

fn clock(report: &Report) -> String {
    let clock = &report.clock;
    match clock.domains {
        0 | 1 => "one clock domain".to_owned(),
        domains => format!(
            "{domains} clock domains: times across them hold within ± {}",
            nanos(clock.bound_ns as f64)
        ),
    }
}

fn equations(ledger: &LedgerReport) -> [String; 2] {
    [
        format!(
            "{} scheduled = {} sent + {} unsent + {} queued",
            count(ledger.scheduled),
            count(ledger.sent),
            count(ledger.unsent),
            count(ledger.queued)
        ),
        format!(
            "{} sent = {} unique + {} lost + {} unrecorded + {} unheard + {} in flight",
            count(ledger.sent),
            count(ledger.unique),
            count(ledger.lost),
            count(ledger.unrecorded),
            count(ledger.unheard),
            count(ledger.in_flight)
        ),
    ]
}

fn balance(ledger: &LedgerReport) -> &'static str {
    match ledger.balanced {
        Some(true) => "balanced: every equation holds",
        Some(false) => "NOT balanced",
        None => "under way: equations are checked when the run is closed",
    }
}

fn time(figure: Option<i64>) -> String {
    figure.map_or_else(|| "–".to_owned(), |ns| nanos(ns as f64))
}

/// The picture in words.
pub fn summary(report: &Report) -> String {
    let response = &report.latency_ns.response;
    let [scheduled, sent] = equations(&report.ledger);
    let seconds: Vec<_> = report
        .seconds
        .iter()
        .filter(|(_, number)| **number > 0)
        .map(|(name, number)| format!("{number} {name}"))
        .collect();
    format!(
        "{}. Response: p50 {}, p99 {}, p99.9 {}, max {}. {scheduled}; {sent}; {}. Seconds by verdict: {}.",
        about(report),
        time(response.p50),
        time(response.p99),
        time(response.p999),
        time(response.max),
        balance(&report.ledger),
        if seconds.is_empty() {
            "none".to_owned()
        } else {
            seconds.join(", ")
        },
    )
}
