//! Where every message went.

use std::{collections::BTreeMap, fmt::Write};

use isochrone_model::report::{LedgerReport, Report};

use super::{LISTED, align, count, plain_table};

/// Every equation of the run with its terms, then what is missing and whether all hold.
pub fn section(out: &mut String, report: &Report) {
    let ledger = &report.ledger;
    let mut table = plain_table();
    let mut equation = |left: (&str, u64), terms: &[(&str, u64)]| {
        let terms: Vec<_> = terms
            .iter()
            .map(|(name, number)| format!("{} {name}", count(*number)))
            .collect();
        table.add_row([
            format!("{} {}", count(left.1), left.0),
            format!("= {}", terms.join(" + ")),
        ]);
    };
    equation(
        ("scheduled", ledger.scheduled),
        &[
            ("sent", ledger.sent),
            ("unsent", ledger.unsent),
            ("queued", ledger.queued),
        ],
    );
    if ledger.acked + ledger.refused + ledger.unconfirmed > 0 {
        let terms = [
            ("acked", ledger.acked),
            ("refused", ledger.refused),
            ("unconfirmed", ledger.unconfirmed),
        ];
        let answered = ledger.sent_to_be_answered;
        let name = if answered == ledger.sent {
            "sent"
        } else {
            "sent at QoS 1 and 2"
        };
        equation((name, answered), &terms);
    }
    equation(
        ("sent", ledger.sent),
        &[
            ("unique", ledger.unique),
            ("lost", ledger.lost),
            ("unrecorded", ledger.unrecorded),
            ("unheard", ledger.unheard),
            ("in flight", ledger.in_flight),
        ],
    );
    equation(
        ("sent", ledger.sent),
        &[
            ("plotted", ledger.plotted),
            ("unplotted", ledger.unplotted),
            ("shed", ledger.shed),
            ("unwritten", ledger.unwritten),
        ],
    );
    equation(
        ("arrived", ledger.arrived),
        &[
            ("unique", ledger.unique),
            ("duplicate", ledger.duplicate),
            ("retained", ledger.retained),
            ("unstamped", ledger.unstamped),
            ("foreign", ledger.foreign),
        ],
    );
    equation(
        ("unique", ledger.unique),
        &[
            ("stored", ledger.stored),
            ("dropped", ledger.dropped),
            ("buffered", ledger.buffered),
        ],
    );
    equation(
        ("stored", ledger.stored),
        &[
            ("plotted", ledger.plotted_samples),
            ("unplotted", ledger.unplotted_samples),
        ],
    );
    for (sink, exported) in &ledger.exported {
        let of = |counts: &BTreeMap<String, u64>| counts.get(sink).copied().unwrap_or(0);
        let terms = [
            ("exported", *exported),
            ("pending", of(&ledger.pending)),
            ("thinned", of(&ledger.thinned)),
            ("set aside", of(&ledger.set_aside)),
            ("dropped", of(&ledger.sink_dropped)),
        ];
        equation((&format!("stored, {sink}"), ledger.stored), &terms);
    }
    align(&mut table, 0..1);
    let _ = writeln!(out, "{table}");
    asides(out, ledger);
    let verdict = match ledger.balanced {
        Some(true) => "balanced: every equation holds",
        Some(false) => "NOT balanced:",
        None => "under way: equations are checked when the run is closed",
    };
    let _ = writeln!(out, "{verdict}");
    for unreadable in &report.unreadable {
        let _ = writeln!(out, "  not in this report: {unreadable}");
    }
    for unequal in ledger.unequal.iter().take(LISTED) {
        let _ = writeln!(
            out,
            "  {}: {}: {} ≠ {}",
            unequal.topic, unequal.equation, unequal.left, unequal.right
        );
    }
    if ledger.unequal.len() > LISTED {
        let _ = writeln!(out, "  and {} more", ledger.unequal.len() - LISTED);
    }
    out.push('\n');
}

fn asides(out: &mut String, ledger: &LedgerReport) {
    let loss = |missing: u64| 100.0 * missing as f64 / ledger.sent.max(1) as f64;
    let (lower, upper) = (ledger.lost, ledger.lost + ledger.unrecorded);
    if upper > 0 {
        let _ = writeln!(
            out,
            "loss: {} … {} of {} ({:.4} … {:.4} %) in {} gaps",
            count(lower),
            count(upper),
            count(ledger.sent),
            loss(lower),
            loss(upper),
            ledger.gaps
        );
    }
    for range in ledger.lost_ranges.iter().take(LISTED) {
        let kind = serde_json::to_value(range.kind)
            .ok()
            .and_then(|kind| kind.as_str().map(str::to_owned));
        let kind = kind.unwrap_or_default();
        let _ = writeln!(
            out,
            "  {kind}: {} ({}) {}..={}",
            range.topic, range.device, range.first, range.last
        );
    }
    if ledger.lost_ranges.len() > LISTED {
        let _ = writeln!(out, "  and {} more ranges", ledger.lost_ranges.len() - LISTED);
    }
    let notes = [
        ("retransmitted", ledger.retransmitted),
        ("unrouted", ledger.unrouted),
        ("reordered", ledger.reordered),
        ("silent devices", ledger.silent),
        ("vanished devices", ledger.vanished),
    ];
    let notes: Vec<_> = notes
        .iter()
        .filter(|note| note.1 > 0)
        .map(|note| format!("{} {}", count(note.1), note.0))
        .collect();
    if !notes.is_empty() {
        let _ = writeln!(out, "beside: {}", notes.join(", "));
    }
    if ledger.sent_at_most > ledger.sent {
        let _ = writeln!(
            out,
            "of vanished devices only what arrived is known: up to {} may have been sent",
            count(ledger.sent_at_most)
        );
    }
    if ledger.balanced.is_some() && ledger.unplotted + ledger.unplotted_samples > 0 {
        let _ = writeln!(
            out,
            "not plotted yet: latencies and seconds are without {} samples and what {} messages sent tell (is a plotter running?)",
            count(ledger.unplotted_samples),
            count(ledger.unplotted)
        );
    }
}
