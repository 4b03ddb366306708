//! The figures of the moment: differences between two readings of totals that only grow.

use std::{collections::BTreeMap, time::Duration};

use isochrone_model::{
    histogram::{Dense, bounds, nearest_rank},
    report::RunFacts,
    time::Reference,
    verdict::verdict,
};

use super::awaited::{Awaited, Watch};
use crate::{
    length::Length,
    text::{count, nanos},
};

/// What is shown.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// `open`, `draining`, `closed`.
    pub state: String,
    /// Since the first message was due.
    pub elapsed: Duration,
    /// Until the last one is due, where that is known.
    pub left: Option<Duration>,
    /// Messages of all devices together, where each sends so many.
    pub planned: Option<u64>,
    /// Messages a second since the last reading.
    pub sent_rate: f64,
    /// Likewise.
    pub received_rate: f64,
    /// p50 and p99 since the last reading, in nanoseconds.
    pub response: (Option<i64>, Option<i64>),
    /// Likewise.
    pub transit: (Option<i64>, Option<i64>),
    /// Likewise.
    pub late: (Option<i64>, Option<i64>),
    /// Whole counts.
    pub sent: u64,
    /// First copies received.
    pub unique: u64,
    /// Given up, of any kind.
    pub missing: u64,
    /// Not sent.
    pub unsent: u64,
    /// Connection attempts, and those that failed.
    pub connects: (u64, u64),
    /// The newest complete second's verdict.
    pub verdict: &'static str,
    /// Sinks that the run's end waits for.
    pub awaited: Option<Awaited>,
}

/// Remembers the last reading.
#[derive(Default)]
pub struct Gauge {
    last: Option<Reading>,
    sinks: Watch,
}

struct Reading {
    at: Reference,
    sent: u64,
    unique: u64,
    histograms: [Buckets; 3],
}

type Buckets = BTreeMap<i64, u64>;

impl Gauge {
    /// The figures since the last call.
    pub fn measure(&mut self, facts: &RunFacts, now: Reference, length: Length) -> Figures {
        let run = facts.totals.run();
        let unique = facts
            .topics
            .iter()
            .filter_map(|topic| topic.row.as_ref())
            .map(|row| row.unique)
            .sum();
        let sum =
            |of: fn(&isochrone_model::row::SendRow) -> u64| facts.devices.iter().map(|(_, row)| of(row)).sum::<u64>();
        let reading = Reading {
            at: now,
            sent: sum(|row| row.sent),
            unique,
            histograms: [buckets(&run.response), buckets(&run.transit), buckets(&run.late)],
        };
        let begun = facts
            .devices
            .iter()
            .filter_map(|(_, row)| row.due)
            .map(|(first, _)| first)
            .min();
        let elapsed = begun.map_or(Duration::ZERO, |first| {
            Duration::from_nanos(now.since_ns(first).max(0) as u64)
        });
        let rows = || {
            facts
                .topics
                .iter()
                .filter_map(|topic| topic.row.as_ref())
                .flat_map(|row| row.epochs.values())
        };
        let connects = facts.devices.iter().map(|(_, row)| &row.connects).chain(
            facts
                .topics
                .iter()
                .filter_map(|topic| topic.row.as_ref())
                .map(|row| &row.connects),
        );
        let connects = connects.fold((0, 0), |(attempts, failed), connects| {
            (
                attempts + connects.attempts,
                failed + connects.failed.values().sum::<u64>(),
            )
        });
        let since = self.last.as_ref();
        let rate = |new: u64, old: fn(&Reading) -> u64| {
            since.map_or(0.0, |last| {
                let seconds = now.since_ns(last.at) as f64 / 1e9;
                if seconds > 0.0 {
                    new.saturating_sub(old(last)) as f64 / seconds
                } else {
                    0.0
                }
            })
        };
        let percentiles = |index: usize| {
            let fresh = difference(&reading.histograms[index], since.map(|last| &last.histograms[index]));
            (percentile(&fresh, 0.5), percentile(&fresh, 0.99))
        };
        let newest = facts.totals.seconds().iter().next_back();
        let figures = Figures {
            state: facts.state.clone(),
            elapsed,
            left: length.duration.map(|duration| duration.saturating_sub(elapsed)),
            planned: length.messages(),
            sent_rate: rate(reading.sent, |last| last.sent),
            received_rate: rate(unique, |last| last.unique),
            response: percentiles(0),
            transit: percentiles(1),
            late: percentiles(2),
            sent: reading.sent,
            unique,
            missing: rows().map(|row| row.lost + row.unrecorded + row.unheard).sum(),
            unsent: sum(|row| row.unsent),
            connects,
            verdict: newest.map_or("–", |(_, facts)| verdict(facts).worst.name()),
            awaited: self.sinks.look(facts, now),
        };
        self.last = Some(reading);
        figures
    }
}

/// Buckets by their lower bound: raw values of a young histogram fall into the buckets of an older one.
fn buckets(histogram: &Dense) -> Buckets {
    let mut all = Buckets::new();
    for (value, count) in histogram.values() {
        *all.entry(bounds(value).0).or_default() += count;
    }
    all
}

fn difference(new: &Buckets, old: Option<&Buckets>) -> Buckets {
    let before = |bound| old.and_then(|old| old.get(bound)).copied().unwrap_or(0);
    new.iter()
        .map(|(bound, count)| (*bound, count.saturating_sub(before(bound))))
        .filter(|(_, count)| *count > 0)
        .collect()
}

fn percentile(buckets: &Buckets, q: f64) -> Option<i64> {
    let total: u64 = buckets.values().sum();
    let rank = nearest_rank(q, total);
    let mut seen = 0;
    buckets.iter().find_map(|(bound, count)| {
        seen += count;
        (seen >= rank).then_some(*bound)
    })
}

/// Two percentiles side by side.
pub fn pair((p50, p99): (Option<i64>, Option<i64>)) -> String {
    let one = |value: Option<i64>| value.map_or_else(|| "–".to_owned(), |ns| nanos(ns as f64));
    format!("{} / {}", one(p50), one(p99))
}

impl Figures {
    /// How far the sending is, and what is left of it.
    pub fn course(&self) -> String {
        let elapsed = format!("{:.0} s", self.elapsed.as_secs_f64());
        let left = self.left.map(|left| format!("{:.0} s left", left.as_secs_f64()));
        let planned = self
            .planned
            .map(|planned| format!("{} of {} messages", count(self.sent), count(planned)));
        match (left, planned) {
            (None, None) => elapsed,
            (Some(left), None) => format!("{elapsed}, {left}"),
            (None, Some(planned)) => format!("{elapsed}, {planned}"),
            (Some(left), Some(planned)) => format!("{elapsed}, {planned}, {left} at most"),
        }
    }

    /// Which part of the sending is done; whichever end is nearer. Zero where it has none.
    pub fn done(&self) -> f64 {
        let share = |part: f64, whole: f64| part / whole.max(1e-9);
        let of_time = self.left.map(|left| {
            let elapsed = self.elapsed.as_secs_f64();
            share(elapsed, elapsed + left.as_secs_f64())
        });
        let of_count = self.planned.map(|planned| share(self.sent as f64, planned as f64));
        let done = of_time.unwrap_or(0.0).max(of_count.unwrap_or(0.0));
        done.clamp(0.0, 1.0)
    }

    /// One line for a log.
    pub fn line(&self) -> String {
        if let Some(awaited) = &self.awaited {
            return format!("{:.0} s: {awaited}", self.elapsed.as_secs_f64());
        }
        let verdict = match self.verdict {
            "–" => String::new(),
            verdict => format!(", newest second {verdict}"),
        };
        format!(
            "{}: {} msg/s out, {} in, response p50/p99 {}, late {}, {} missing, {} unsent{verdict}",
            self.course(),
            count(self.sent_rate.round() as u64),
            count(self.received_rate.round() as u64),
            pair(self.response),
            pair(self.late),
            count(self.missing),
            count(self.unsent),
        )
    }
}

#[cfg(test)]
mod tests {
    use isochrone_model::{
        id::DaemonId,
        row::{Device, SendRow},
    };

    use super::*;
    use crate::testing::device;

    /// Where the devices end by themselves is said, be it after a time, after a count, or after whichever comes first.
    #[test]
    fn the_course_has_an_end() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for (left, planned, course, done) in [
            (None, None, "6 s", 0.0),
            (seconds(4), None, "6 s, 4 s left", 0.6),
            (None, Some(2_000), "6 s, 500 of 2,000 messages", 0.25),
            (
                seconds(4),
                Some(2_000),
                "6 s, 500 of 2,000 messages, 4 s left at most",
                0.6,
            ),
            (
                seconds(54),
                Some(500),
                "6 s, 500 of 500 messages, 54 s left at most",
                1.0,
            ),
        ] {
            let figures = Figures {
                elapsed: Duration::from_secs(6),
                left,
                planned,
                sent: 500,
                ..Figures::default()
            };
            assert_eq!((figures.course().as_str(), figures.done()), (course, done));
            assert!(figures.line().starts_with(&format!("{course}: ")), "{}", figures.line());
        }
    }

    /// What is planned follows from the settings: a producer that started again has its devices a second time among the facts.
    #[test]
    fn a_second_life_plans_nothing_more() {
        let mut facts = RunFacts::new("r".parse().unwrap(), "open");
        for life in 0..4 {
            let device = Device {
                device: format!("d{}", life % 2),
                producer: DaemonId(life),
                ..device(life)
            };
            facts.devices.push((device, SendRow::default()));
        }
        for (count, planned) in [(Some(100), Some(200)), (None, None)] {
            let length = Length {
                count,
                devices: 2,
                ..Length::default()
            };
            let figures = Gauge::default().measure(&facts, Reference(0), length);
            assert_eq!(figures.planned, planned);
        }
    }

    /// The verdict in a line is that of the newest second; before there is one, nothing is said of it.
    #[test]
    fn a_line_ends_with_the_newest_verdict() {
        let mut figures = Figures {
            verdict: "–",
            ..Figures::default()
        };
        assert!(figures.line().ends_with(", 0 unsent"), "{}", figures.line());
        figures.verdict = "valid";
        assert!(
            figures.line().ends_with(", 0 unsent, newest second valid"),
            "{}",
            figures.line()
        );
    }

    /// What was recorded between two readings alone decides the percentiles between them.
    #[test]
    fn percentiles_are_of_the_interval() {
        let mut histogram = Dense::default();
        histogram.record_n(1_000, 10_000);
        let before = buckets(&histogram);
        histogram.record_n(1_000_000, 100);
        let fresh = difference(&buckets(&histogram), Some(&before));
        assert_eq!(fresh.values().sum::<u64>(), 100);
        assert_eq!(percentile(&fresh, 0.5), Some(bounds(1_000_000).0));
        assert_eq!(percentile(&Buckets::new(), 0.5), None);
    }
}
