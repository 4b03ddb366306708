//! When a worker was away from its sockets, and which messages that delayed.
//!
//! Three things show an absence: a timer that fires late although the worker had nothing else to do (the process was
//! stopped, the machine was busy), a stretch of work after which a socket is read again (the worker is overloaded), and the
//! kernel's own count of how long the thread waited for a processor, where messages are few and the timer is slow.
//! All are taken at their longest: what cannot be told apart counts against us.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use isochrone_model::{
    entry::ConsumerDelay,
    time::{Monotonic, Offset, Reference},
    verdict::EXTREME_NS,
};

/// What a tokio timer may be late by itself: its wheel turns once a millisecond.
const TIMER_GRAIN_NS: u64 = 1_000_000;

/// How many absences are remembered. A message delayed by an older one overlaps a newer one too, or was sent so long
/// ago that the second it was due in has been judged.
const REMEMBERED: usize = 256;

/// A stretch of the worker's time, both ends on its monotonic clock.
pub type Stretch = (Monotonic, Monotonic);

/// The absences of one worker.
#[derive(Debug)]
pub struct Absences {
    longer_than_ns: u64,
    recent: VecDeque<Stretch>,
    last_turn: Monotonic,
    tick: Option<Tick>,
}

/// The timer whose lateness is watched.
#[derive(Clone, Copy, Debug)]
struct Tick {
    due: Monotonic,
    period_ns: u64,
}

/// When the worker's thread last came back from waiting: written by the runtime's hook, read by the worker.
#[derive(Clone, Debug, Default)]
pub struct WokenAt(Arc<AtomicU64>);

impl WokenAt {
    /// The thread came back from waiting.
    pub fn set(&self, at: Monotonic) {
        self.0.store(at.0, Ordering::Relaxed);
    }

    /// When it last did.
    pub fn get(&self) -> Monotonic {
        Monotonic(self.0.load(Ordering::Relaxed))
    }
}

impl Absences {
    /// Counts absences longer than `longer_than_ns` (ISOCHRONE_VALID_LATE).
    pub fn new(longer_than_ns: u64, now: Monotonic) -> Absences {
        Absences {
            longer_than_ns,
            recent: VecDeque::with_capacity(8),
            last_turn: now,
            tick: None,
        }
    }

    /// The watched timer fires at `due`, `period_ns` after it was set; `None` while nothing is watched.
    pub fn expect_tick(&mut self, due: Option<Monotonic>, period_ns: u64) {
        self.tick = due.map(|due| Tick { due, period_ns });
    }

    /// The worker does something now. Notes an absence when the timer should have fired before; answers for how long
    /// the worker had been away, in nanoseconds.
    pub fn turn(&mut self, now: Monotonic) -> u64 {
        let away_ns = now.since_ns(self.last_turn).max(0) as u64;
        let last = std::mem::replace(&mut self.last_turn, now);
        let Some(tick) = self.tick else { return 0 };
        let late_ns = now.since_ns(tick.due);
        if late_ns <= (self.longer_than_ns + TIMER_GRAIN_NS) as i64 || away_ns <= self.longer_than_ns {
            return 0;
        }
        // The stop may have begun any time since the worker was last seen, at most one period before the timer was due.
        let start = Monotonic(tick.due.0.saturating_sub(tick.period_ns)).max(last);
        self.note((start, now));
        now.since_ns(start).max(0) as u64
    }

    /// The kernel let the thread wait for a processor so long since the last turn: to be told before [`turn`](Self::turn).
    pub fn waited(&mut self, delay_ns: u64, now: Monotonic) {
        if delay_ns > self.longer_than_ns + TIMER_GRAIN_NS {
            let start = Monotonic(now.0.saturating_sub(delay_ns)).max(self.last_turn);
            self.note((start, now));
        }
    }

    /// A socket is read again after work that took this stretch; `Some` when that was too long.
    pub fn worked(&mut self, stretch: Stretch) -> bool {
        let long = stretch.1.since_ns(stretch.0) > self.longer_than_ns as i64;
        if long {
            self.note(stretch);
        }
        long
    }

    /// Remembers a stretch, joined with the last one where they touch.
    pub fn note(&mut self, stretch: Stretch) {
        if let Some(last) = self.recent.back_mut()
            && stretch.0 <= last.1
        {
            last.0 = last.0.min(stretch.0);
            last.1 = last.1.max(stretch.1);
            return;
        }
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back(stretch);
    }

    /// How far a message that was under way from `sent` to `received` was delayed by us.
    pub fn delay(&self, sent: Monotonic, received: Monotonic) -> ConsumerDelay {
        let mut longest = 0;
        for (start, end) in self.recent.iter().rev() {
            if *end <= sent {
                break;
            }
            if *start < received {
                longest = longest.max(end.since_ns(*start).max(0) as u64);
            }
        }
        self.grade(longest)
    }

    /// What an absence of this length makes of a message that overlaps it.
    pub fn grade(&self, absence_ns: u64) -> ConsumerDelay {
        if absence_ns > EXTREME_NS as u64 {
            ConsumerDelay::Extreme
        } else if absence_ns > self.longer_than_ns {
            ConsumerDelay::Late
        } else {
            ConsumerDelay::None
        }
    }

    /// The stretches that reach into `from..to`, on the reference clock.
    pub fn within(&self, from: Reference, to: Reference, offset: Offset) -> Vec<(Reference, Reference)> {
        let all = self
            .recent
            .iter()
            .map(|(start, end)| (offset.at(*start), offset.at(*end)));
        all.filter(|(start, end)| *start < to && *end > from).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn at(ms: u64) -> Monotonic {
        Monotonic(ms * MS)
    }

    fn watching(period_ms: u64) -> Absences {
        let mut absences = Absences::new(MS, at(1000));
        absences.expect_tick(Some(at(1000 + period_ms)), period_ms * MS);
        absences
    }

    /// A timer on time, or late by no more than its grain and the limit, is no absence.
    #[test]
    fn a_timely_tick_is_no_absence() {
        let mut absences = watching(10);
        assert_eq!(absences.turn(at(1004)), 0);
        assert_eq!(absences.turn(at(1012)), 0);
        assert_eq!(absences.delay(at(900), at(1012)), ConsumerDelay::None);
    }

    /// A stop of two seconds spoils whatever was under way in it, and nothing sent after it.
    #[test]
    fn a_stop_delays_what_was_under_way() {
        let mut absences = watching(10);
        absences.turn(at(1004));
        assert_eq!(absences.turn(at(3004)), 2000 * MS);
        assert_eq!(absences.delay(at(1003), at(3004)), ConsumerDelay::Extreme);
        assert_eq!(absences.delay(at(3003), at(3004)), ConsumerDelay::Extreme);
        assert_eq!(absences.delay(at(3004), at(3005)), ConsumerDelay::None);
        assert_eq!(absences.delay(at(900), at(1000)), ConsumerDelay::None);
    }

    /// With a slow timer only the part that the timer proves counts, and one period before it.
    #[test]
    fn an_idle_wait_is_no_absence() {
        let mut absences = Absences::new(MS, at(0));
        absences.expect_tick(Some(at(5000)), 50 * MS);
        assert_eq!(absences.turn(at(4990)), 0);
        assert_eq!(absences.turn(at(5030)), 40 * MS);
    }

    /// A worker that turns all the time but never comes to its timer has not been away.
    #[test]
    fn a_starved_tick_is_no_absence() {
        let mut absences = watching(10);
        for tenth in 0..500 {
            let turn = Monotonic(1000 * MS + tenth * MS / 10);
            assert_eq!(absences.turn(turn), 0);
        }
    }

    /// A wait for a processor counts as far back as the last turn, where it is longer than what a timer may be late.
    #[test]
    fn a_wait_for_a_processor_is_an_absence() {
        let mut absences = watching(50);
        absences.waited(2 * MS, at(1010));
        assert_eq!(absences.delay(at(900), at(1010)), ConsumerDelay::None);
        absences.turn(at(1010));
        absences.waited(5 * MS, at(1020));
        assert_eq!(absences.delay(at(1016), at(1020)), ConsumerDelay::Late);
        absences.turn(at(1020));
        absences.waited(30 * MS, at(1040));
        assert_eq!(absences.delay(at(1011), at(1014)), ConsumerDelay::None);
        assert_eq!(absences.delay(at(1019), at(1040)), ConsumerDelay::Late);
    }

    /// Work longer than the limit between two reads of a socket counts; stretches that touch become one.
    #[test]
    fn long_work_counts_and_joins() {
        let mut absences = watching(10);
        assert!(!absences.worked((at(1000), at(1001))));
        assert!(absences.worked((at(1000), at(1003))));
        assert!(absences.worked((at(1002), at(1005))));
        let offset = Offset {
            reference_minus_monotonic_ns: 0,
            bound_ns: 0,
            era: 0,
        };
        let second = absences.within(Reference(0), Reference(2_000 * MS as i64), offset);
        assert_eq!(second, vec![(Reference(1000 * MS as i64), Reference(1005 * MS as i64))]);
        assert_eq!(absences.delay(at(1004), at(1006)), ConsumerDelay::Late);
    }
}
