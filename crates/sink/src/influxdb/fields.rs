//! The lines of a cut: a point for each part of a window.

use std::collections::BTreeMap;

use isochrone_model::{
    histogram::Histogram,
    time::Second,
    verdict::Reasons,
    window::{TopicTotals, WindowKind},
};

use super::{Lines, line::Line};
use crate::{Cut, topics::Topics};

/// What every point is in.
const MEASUREMENT: &str = "isochrone_window";

/// Parts of topics that share a name, as one.
#[derive(Default)]
struct Part {
    totals: TopicTotals,
    warmup: bool,
    reasons: Reasons,
    bound_ns: u64,
}

type Count = (&'static str, fn(&TopicTotals) -> u64);
type Values = (&'static str, fn(&TopicTotals) -> &Histogram);

const DUE_COUNTS: &[Count] = &[
    ("scheduled", |t| t.scheduled),
    ("sent", |t| t.sent),
    ("unsent", |t| t.unsent),
    ("acked", |t| t.acked),
    ("refused", |t| t.refused),
    ("unconfirmed", |t| t.unconfirmed),
    ("received", |t| t.received),
    ("lost", |t| t.missing.lost),
    ("lost_found", |t| t.found.lost),
    ("unrecorded", |t| t.missing.unrecorded),
    ("unrecorded_found", |t| t.found.unrecorded),
    ("unheard", |t| t.missing.unheard),
    ("unheard_found", |t| t.found.unheard),
    ("dropped", |t| t.dropped),
];

const RECEIPT_COUNTS: &[Count] = &[
    ("received", |t| t.received),
    ("duplicates", |t| t.duplicates),
    ("retained", |t| t.retained),
    ("unstamped", |t| t.unstamped),
    ("foreign", |t| t.foreign),
    ("reordered", |t| t.reordered),
];

const HISTOGRAMS: &[Values] = &[
    ("response", |t| &t.response),
    ("transit", |t| &t.transit),
    ("publish_delay", |t| &t.publish_delay),
    ("late", |t| &t.late),
    ("ack", |t| &t.ack),
    ("complete", |t| &t.complete),
];

const QUANTILES: &[(&str, f64)] = &[("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999)];

/// By the name that topics show under.
pub fn lines(cut: &Cut, topics: &Topics, buckets: &[f64]) -> Lines {
    let mut parts: BTreeMap<(&str, WindowKind, Second), Part> = BTreeMap::new();
    for window in &cut.windows {
        let name = topics.label(&window.topic);
        let part = parts.entry((name, window.kind, window.second)).or_default();
        part.totals.merge(&window.totals);
        part.warmup |= window.warmup;
        part.reasons = part.reasons.union(window.reasons);
        part.bound_ns = part.bound_ns.max(window.bound_ns);
    }
    let mut lines = Lines::new();
    for ((name, kind, second), part) in parts {
        let line = line(cut, name, kind, second, &part, buckets);
        lines.entry(name.to_owned()).or_default().extend(line.into_bytes());
    }
    lines
}

fn line(cut: &Cut, topic: &str, kind: WindowKind, second: Second, part: &Part, buckets: &[f64]) -> String {
    let (kind, counts) = match kind {
        WindowKind::Due => ("due", DUE_COUNTS),
        WindowKind::Receipt => ("receipt", RECEIPT_COUNTS),
    };
    let partition = cut.partition.to_string();
    // The partition adds no series to a topic (it has one); it keeps those apart that share the name `other`.
    let tags = [
        ("kind", kind),
        ("partition", partition.as_str()),
        ("run", cut.run.as_str()),
        ("topic", topic),
    ];
    let mut line = Line::new(MEASUREMENT, &tags);
    for (name, count) in counts {
        line.integer(name, count(&part.totals));
    }
    for (name, histogram) in HISTOGRAMS {
        histogram_fields(&mut line, name, histogram(&part.totals), buckets);
    }
    line.word("verdict", part.reasons.worst().name());
    line.boolean("warmup", part.warmup);
    line.float("clock_bound", part.bound_ns as f64 / 1e9);
    let number = i64::try_from(cut.number).unwrap_or(i64::MAX);
    line.end(second.start().0.saturating_add(number))
}

/// In seconds; nothing of an empty one.
fn histogram_fields(line: &mut Line, name: &str, histogram: &Histogram, buckets: &[f64]) {
    let (Some(least), Some(greatest), Some(mean)) = (histogram.min(), histogram.max(), histogram.mean()) else {
        return;
    };
    line.integer(&format!("{name}_count"), histogram.count());
    line.float(&format!("{name}_sum"), histogram.sum() as f64 / 1e9);
    line.float(&format!("{name}_min"), least as f64 / 1e9);
    line.float(&format!("{name}_mean"), mean / 1e9);
    for (suffix, quantile) in QUANTILES {
        if let Some(value) = histogram.percentile(*quantile) {
            line.float(&format!("{name}_{suffix}"), value as f64 / 1e9);
        }
    }
    line.float(&format!("{name}_max"), greatest as f64 / 1e9);
    for bound in buckets {
        // `as` saturates, which is what a bound beyond the clock's range must do.
        line.integer(
            &format!("{name}_le_{bound}"),
            histogram.count_le((bound * 1e9).round() as i64),
        );
    }
}
