//! Puts a report together.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    report::{
        ClockReport, Latency, LatencyReport, LedgerReport, RateReport, Report, RunFacts, SloReport, Stretch,
        TopicReport, accounts::Accounts,
    },
    row::{Connects, Device, SendRow},
    slo::Evidence,
    time::Reference,
    verdict::{Reason, verdict},
};

impl Report {
    /// Makes the report.
    pub fn build(facts: &RunFacts) -> Report {
        let accounts = Accounts::of(facts);
        let ledger = accounts.report(facts);
        let span = span(&accounts);
        let topics: BTreeSet<_> = facts.devices.iter().map(|(device, _)| &device.topic).collect();
        Report {
            run: facts.run.to_string(),
            state: facts.state.clone(),
            duration_s: span.map_or(0.0, |(from, to)| seconds(to.since_ns(from))),
            topics: topics.len() as u64,
            response_topics: facts.topics.len() as u64,
            rate: rate(facts, &ledger, &accounts),
            latency_ns: run_latency(facts),
            clock: clock(facts),
            seconds: verdicts(facts),
            doubtful: doubtful(facts),
            connects: connects(facts),
            events: facts.events.clone(),
            slo: objectives(facts, &ledger),
            unreadable: facts.unreadable.clone(),
            per_topic: facts.per_topic.then(|| per_topic(facts, accounts)),
            ledger,
        }
    }
}

/// From the first due time to the last sending.
fn span(accounts: &Accounts<'_>) -> Option<(Reference, Reference)> {
    let from = accounts
        .devices
        .iter()
        .filter_map(|account| account.row.due)
        .map(|due| due.0)
        .min()?;
    let to = accounts
        .devices
        .iter()
        .filter_map(|account| account.row.sent_at)
        .map(|sent| sent.1)
        .max()?;
    Some((from, to.max(from)))
}

fn seconds(ns: i64) -> f64 {
    ns as f64 / 1e9
}

fn rate(facts: &RunFacts, ledger: &LedgerReport, accounts: &Accounts<'_>) -> RateReport {
    let mut devices: BTreeMap<&str, Vec<&(Device, SendRow)>> = BTreeMap::new();
    for life in &facts.devices {
        devices.entry(&life.0.device).or_default().push(life);
    }
    let asked: Option<f64> = devices.values().map(|lives| at_once(lives)).sum();
    let sent_at = accounts.devices.iter().filter_map(|account| account.row.sent_at);
    let span = sent_at
        .reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
        .map(|(from, to)| seconds(to.since_ns(from)));
    // n messages span n − 1 intervals.
    let over = |count: u64| {
        span.filter(|&span| span > 0.0 && count > 1)
            .map(|span| (count - 1) as f64 / span)
    };
    RateReport {
        offered: asked.filter(|_| !devices.is_empty()).or_else(|| over(ledger.scheduled)),
        achieved: over(ledger.sent),
    }
}

/// The most that lives under one name asked for at a time: a device that came again did not double its rate, two of one name
/// that went on side by side did. `None` when one of them had no rate.
fn at_once(lives: &[&(Device, SendRow)]) -> Option<f64> {
    let mut most: f64 = 0.0;
    for (device, row) in lives {
        let begun = row.due.map(|due| due.0);
        let goes_on = |other: &&&(Device, SendRow)| {
            let due = begun.zip(other.1.due);
            due.is_some_and(|(begun, (from, to))| from <= begun && begun <= to)
        };
        let together: Option<f64> = lives.iter().filter(goes_on).map(|(other, _)| other.rate).sum();
        most = most.max(device.rate?).max(together?);
    }
    Some(most)
}

/// For both kinds of histogram.
macro_rules! latency {
    ($histogram:expr) => {{
        let histogram = $histogram;
        Latency {
            count: histogram.count(),
            negative: histogram.negative(),
            min: histogram.min(),
            mean: histogram.mean(),
            stddev: histogram.stddev(),
            p50: histogram.percentile_if_supported(0.5),
            p90: histogram.percentile_if_supported(0.9),
            p99: histogram.percentile_if_supported(0.99),
            p999: histogram.percentile_if_supported(0.999),
            max: histogram.max(),
        }
    }};
}

macro_rules! latencies {
    ($totals:expr) => {{
        let totals = $totals;
        LatencyReport {
            response: latency!(&totals.response),
            transit: latency!(&totals.transit),
            publish_delay: latency!(&totals.publish_delay),
            late: latency!(&totals.late),
            ack: latency!(&totals.ack),
        }
    }};
}

fn run_latency(facts: &RunFacts) -> LatencyReport {
    latencies!(facts.totals.run())
}

fn clock(facts: &RunFacts) -> ClockReport {
    let run = facts.totals.run();
    let mut domains = run.domains.clone();
    domains.extend(facts.devices.iter().map(|(device, _)| device.domain));
    ClockReport {
        domains: domains.len() as u64,
        bound_ns: run.bound_ns(),
        resolution_ns: facts.resolution_ns,
    }
}

fn verdicts(facts: &RunFacts) -> BTreeMap<&'static str, u64> {
    let mut seconds: BTreeMap<_, u64> = Reason::ALL.into_iter().map(|reason| (reason.name(), 0)).collect();
    for facts in facts.totals.seconds().values().filter(|facts| facts.is_measured()) {
        *seconds.entry(verdict(facts).worst.name()).or_default() += 1;
    }
    seconds
}

fn doubtful(facts: &RunFacts) -> Vec<Stretch> {
    let mut stretches: Vec<Stretch> = Vec::new();
    for (&second, facts) in facts.totals.seconds().iter().filter(|(_, facts)| facts.is_measured()) {
        let reason = verdict(facts).worst;
        match stretches.last_mut() {
            Some(last) if last.reason == reason && last.from.0.saturating_add(last.seconds as i64) == second.0 => {
                last.seconds += 1
            }
            _ if reason == Reason::Valid => {}
            _ => stretches.push(Stretch {
                from: second,
                seconds: 1,
                reason,
            }),
        }
    }
    stretches
}

fn connects(facts: &RunFacts) -> Connects {
    let mut sum = Connects::default();
    facts.devices.iter().for_each(|(_, row)| sum.add(&row.connects));
    facts
        .topics
        .iter()
        .filter_map(|topic| topic.row.as_ref())
        .for_each(|row| sum.add(&row.connects));
    sum
}

/// Objectives leave warm-up and ramps out: seconds that hold nothing else are taken off the ledger's counts.
fn objectives(facts: &RunFacts, ledger: &LedgerReport) -> Vec<SloReport> {
    let run = facts.totals.run();
    let [mut sent, mut lost, mut unrecorded, mut unsent] = [ledger.sent, ledger.lost, ledger.unrecorded, ledger.unsent];
    for facts in facts.totals.seconds().values().filter(|facts| facts.is_warmup()) {
        sent = sent.saturating_sub(facts.sent);
        lost = lost.saturating_sub(facts.missing.lost.saturating_sub(facts.found.lost));
        unrecorded = unrecorded.saturating_sub(facts.missing.unrecorded.saturating_sub(facts.found.unrecorded));
        unsent = unsent.saturating_sub(facts.unsent);
    }
    let evidence = Evidence {
        response: &run.response,
        transit: &run.transit,
        publish_delay: &run.publish_delay,
        late: &run.late,
        ack: &run.ack,
        sent,
        lost,
        unrecorded,
        unsent,
    };
    let outcomes = facts.objectives.iter().map(|objective| objective.evaluate(&evidence));
    let report = outcomes.map(|outcome| SloReport {
        objective: outcome.objective,
        value: outcome.value.number(),
        met: outcome.met,
        supported: outcome.supported,
        measured: outcome.value,
    });
    report.collect()
}

fn per_topic(facts: &RunFacts, accounts: Accounts<'_>) -> Vec<TopicReport> {
    let none = crate::window::TopicTotals::default();
    let topics = accounts.by_topic().into_iter().map(|(topic, accounts)| TopicReport {
        devices: accounts.device_rows(),
        ledger: accounts.report(facts),
        latency_ns: latencies!(facts.totals.topics().get(&topic).unwrap_or(&none)),
        topic,
    });
    topics.collect()
}
