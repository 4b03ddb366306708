//! How long a run is to last, and whether it did.

use std::{fmt, time::Duration};

use isochrone_daemon::settings::ProducerSettings;
use isochrone_model::{
    report::{Event, RunFacts},
    row::SendRow,
    time::Reference,
};

use crate::{facts::utc, text::count};

/// Where each device ends by itself: after whichever comes first; with neither it goes on until it is told to stop.
#[derive(Clone, Copy, Debug, Default)]
pub struct Length {
    /// After this time.
    pub duration: Option<Duration>,
    /// After so many messages.
    pub count: Option<u64>,
    /// How many devices there are to be, whatever lives they have.
    pub devices: u64,
}

impl Length {
    /// As set.
    pub fn of(settings: &ProducerSettings) -> Length {
        Length {
            duration: settings.duration,
            count: settings.count,
            devices: settings.devices.into(),
        }
    }

    /// Messages of all devices together, where each sends so many.
    pub fn messages(self) -> Option<u64> {
        self.count.map(|count| count.saturating_mul(self.devices))
    }

    /// Tells in the report that the run was told to stop at `at`, unless its devices had nothing left to do by then.
    pub fn tell_interruption(self, at: Reference, facts: &mut RunFacts) {
        let bounded = self.duration.is_some() || self.count.is_some();
        if !bounded || facts.devices.iter().all(|(_, row)| self.is_over(row, at)) {
            return;
        }
        let event = Event {
            at: Some(utc(at)),
            daemon: None,
            what: format!("interrupted: told to stop before its end (planned: {self})"),
        };
        // Sorted by time, and texts of one form sort as their times do; what has no time is last, and so is `closed`.
        let later = |one: &Event| one.at.is_none() || one.at > event.at || one.what == "closed";
        let place = facts.events.iter().position(later).unwrap_or(facts.events.len());
        facts.events.insert(place, event);
    }

    fn is_over(self, row: &SendRow, at: Reference) -> bool {
        let in_time = self.duration.zip(row.due).is_some_and(|(duration, (first, _))| {
            u128::try_from(at.since_ns(first)).is_ok_and(|ns| ns >= duration.as_nanos())
        });
        in_time || self.count.is_some_and(|count| row.scheduled >= count)
    }
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.duration, self.count) {
            (None, None) => f.write_str("until stopped"),
            (Some(duration), None) => write!(f, "for {duration:?}"),
            (None, Some(messages)) => write!(f, "{} messages each", count(messages)),
            (Some(duration), Some(messages)) => {
                write!(f, "{} messages each, for {duration:?} at most", count(messages))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::device;

    const START: i64 = 1_800_000_000_000_000_000;

    fn at(ms: i64) -> Reference {
        Reference(START + ms * 1_000_000)
    }

    fn event(at: Option<Reference>, what: &str) -> Event {
        Event {
            at: at.map(utc),
            daemon: None,
            what: what.to_owned(),
        }
    }

    /// Two devices; the second began half a second later.
    fn facts(scheduled: u64) -> RunFacts {
        let mut facts = RunFacts::new("r".parse().unwrap(), "closed");
        for first in [0, 500] {
            let row = SendRow {
                scheduled,
                due: Some((at(first), at(first + 100))),
                ..SendRow::default()
            };
            facts.devices.push((device(first as u64), row));
        }
        facts.events = vec![
            event(Some(at(0)), "opened"),
            event(Some(at(9_000)), "something"),
            event(Some(at(9_999)), "closed"),
            event(None, "undated"),
        ];
        facts
    }

    /// A sentence for each row: what was planned, when the run was told to stop, and where among the events that is told.
    #[test]
    fn only_what_had_an_end_before_it_is_interrupted() {
        let (time, messages) = (Some(Duration::from_secs(10)), Some(100));
        for (sentence, duration, count, stopped, told) in [
            ("in the middle of its time", time, None, 3_000, Some(1)),
            ("after other events", time, None, 9_500, Some(2)),
            ("before the last device's time was over", time, None, 10_400, Some(2)),
            ("after all devices' time", time, None, 10_500, None),
            ("before all messages", None, Some(101), 3_000, Some(1)),
            ("after all messages", None, messages, 3_000, None),
            ("after all messages, before its time", time, messages, 3_000, None),
            ("without an end of its own", None, None, 3_000, None),
        ] {
            let mut facts = facts(100);
            let length = Length {
                duration,
                count,
                ..Length::default()
            };
            length.tell_interruption(at(stopped), &mut facts);
            let place = facts
                .events
                .iter()
                .position(|event| event.what.starts_with("interrupted"));
            assert_eq!(place, told, "{sentence}: {:?}", facts.events);
        }
    }

    #[test]
    fn lengths_have_names() {
        let seconds = Some(Duration::from_secs(10));
        for (duration, count, text) in [
            (None, None, "until stopped"),
            (seconds, None, "for 10s"),
            (None, Some(1_000), "1,000 messages each"),
            (seconds, Some(5), "5 messages each, for 10s at most"),
        ] {
            let length = Length {
                duration,
                count,
                ..Length::default()
            };
            assert_eq!(length.to_string(), text);
        }
    }
}
