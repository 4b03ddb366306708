//! What is known from second to second, in as many points as a picture can show.

use std::collections::BTreeMap;

use isochrone_model::{
    time::Second,
    verdict::{GivenUp, Reason, verdict},
    window::{Step, Totals},
};

/// Points at the most; a longer run has wider ones. As many as its course keeps, so that a run of five minutes shows each second.
const MOST: usize = 300;

/// All that is shown of one point in time.
#[derive(Clone, Debug, Default)]
pub struct Point {
    /// Due here.
    pub scheduled: u64,
    /// Due here, sent whenever.
    pub sent: u64,
    /// Due here, never sent.
    pub unsent: u64,
    /// Received here.
    pub arrived: u64,
    /// Due here and not received, as far as it did not come after all.
    pub missing: GivenUp,
    /// The worst verdict of its seconds; `None` when no figure of the run is from here (warm-up).
    pub verdict: Option<Reason>,
    /// Response and transit.
    pub latency: Step,
}

/// Points in order.
#[derive(Clone, Debug)]
pub struct Points {
    /// How many seconds each is wide.
    pub width: i64,
    /// By first second. Where nothing happened there is none.
    pub all: BTreeMap<Second, Point>,
    /// Responses in them.
    pub measured: u64,
}

impl Points {
    /// Of a run.
    pub fn of(totals: &Totals) -> Points {
        let course = totals.course();
        let mut width = course.width();
        let distinct = |width: i64| {
            let mut begins: Vec<_> = totals.seconds().keys().map(|second| begin(*second, width)).collect();
            begins.dedup();
            begins.len()
        };
        while distinct(width) > MOST {
            width *= 2;
        }
        let mut all: BTreeMap<Second, Point> = BTreeMap::new();
        for (second, facts) in totals.seconds() {
            // Late answers alone to what was due before are no reason for a cell.
            let happened = facts.warmup + facts.unsent + facts.arrived > 0 || facts.missing != GivenUp::default();
            if !facts.is_measured() && !happened {
                continue;
            }
            let point = all.entry(begin(*second, width)).or_default();
            point.scheduled += facts.scheduled;
            point.sent += facts.sent;
            point.unsent += facts.unsent;
            point.arrived += facts.arrived;
            point.missing.add(left(facts.missing, facts.found));
            if facts.is_measured() {
                point.verdict = point.verdict.max(Some(verdict(facts).worst));
            }
        }
        let mut measured = 0;
        for (second, step) in course.steps() {
            measured += step.response.count();
            all.entry(begin(second, width)).or_default().latency.merge(step);
        }
        Points { width, all, measured }
    }

    /// First second and end.
    pub fn span(&self) -> (Second, Second) {
        let first = self.all.first_key_value().map_or(Second(0), |(second, _)| *second);
        let last = self.all.last_key_value().map_or(Second(0), |(second, _)| *second);
        (first, Second(last.0.saturating_add(self.width)))
    }

    /// Runs of points without a gap between them.
    pub fn unbroken(&self) -> Vec<Vec<(Second, &Point)>> {
        let mut runs: Vec<Vec<(Second, &Point)>> = Vec::new();
        for (&second, point) in &self.all {
            match runs.last_mut() {
                Some(run) if run.last().is_some_and(|(last, _)| last.0 + self.width == second.0) => {
                    run.push((second, point));
                }
                _ => runs.push(vec![(second, point)]),
            }
        }
        runs
    }
}

fn begin(second: Second, width: i64) -> Second {
    Second(second.0.div_euclid(width).saturating_mul(width))
}

fn left(missing: GivenUp, found: GivenUp) -> GivenUp {
    GivenUp {
        lost: missing.lost.saturating_sub(found.lost),
        unrecorded: missing.unrecorded.saturating_sub(found.unrecorded),
        unheard: missing.unheard.saturating_sub(found.unheard),
    }
}
