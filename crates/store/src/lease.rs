//! When a lease may be taken over: the rules of DESIGN.md, "Leases and fencing", as pure arithmetic.

use std::{collections::HashMap, time::Duration};

use isochrone_model::{
    id::{DaemonId, Partition},
    time::Monotonic,
};

/// A poll or renewal without an answer for this long has failed.
pub const ANSWER_WITHIN: Duration = Duration::from_millis(500);

/// Watches lease counters and tells which of them stood still for longer than a lease.
///
/// No clock is compared with another: a counter is dead when this observer, on its own monotonic clock, saw it
/// unchanged for a lease and a tenth, every poll answered in time and no two polls more than a third of a lease apart.
/// The holder times its lease from before the call that renewed it, so it has stopped before this observer begins.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Observer {
    lease_ns: u64,
    last_asked: Option<Monotonic>,
    /// Sorted by partition and daemon: counter, and when the answer that first showed it had come.
    seen: Vec<((Partition, DaemonId), u64, Monotonic)>,
}

impl Observer {
    /// An observer of leases of this length.
    pub fn new(lease: Duration) -> Observer {
        Observer {
            lease_ns: lease.as_nanos() as u64,
            last_asked: None,
            seen: Vec::new(),
        }
    }

    /// Takes the answer of one poll, asked at `asked_at` and complete at `now` (`None`: it failed), and names the rows
    /// that may be taken over now, with the counters that must still stand.
    pub fn see(
        &mut self,
        now: Monotonic,
        asked_at: Monotonic,
        answer: Option<&[(Partition, DaemonId, u64)]>,
    ) -> Vec<(Partition, DaemonId, u64)> {
        let in_time = now.since_ns(asked_at) <= ANSWER_WITHIN.as_nanos() as i64;
        let Some(rows) = answer.filter(|_| in_time) else {
            self.last_asked = None;
            self.seen.clear();
            return Vec::new();
        };
        let apart = self.last_asked.map(|last| asked_at.since_ns(last));
        if apart.is_none_or(|apart| apart > self.lease_ns as i64 / 3) {
            self.seen.clear();
        }
        self.last_asked = Some(asked_at);

        let before: HashMap<_, _> = self
            .seen
            .drain(..)
            .map(|(key, counter, since)| (key, (counter, since)))
            .collect();
        let mut dead = Vec::new();
        for &(partition, daemon, counter) in rows {
            let known = before.get(&(partition, daemon)).filter(|(was, _)| *was == counter);
            let since = known.map_or(now, |(_, since)| *since);
            // From the answer that first showed it to the question that last did: it stood still at least so long.
            if asked_at.since_ns(since) > (self.lease_ns + self.lease_ns / 10) as i64 {
                dead.push((partition, daemon, counter));
            }
            self.seen.push(((partition, daemon), counter, since));
        }
        self.seen.sort_unstable_by_key(|(key, ..)| *key);
        dead
    }

    /// How long a counter has stood still before this observer's eyes, in nanoseconds: zero for a row that it has not seen.
    pub fn stood_ns(&self, now: Monotonic, partition: Partition, daemon: DaemonId) -> u64 {
        let found = self.seen.binary_search_by_key(&(partition, daemon), |(key, ..)| *key);
        let since = found.map_or(now, |place| self.seen[place].2);
        now.since_ns(since).max(0) as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const MS: u64 = 1_000_000;
    const LEASE_MS: u64 = 3000;

    /// One poll: how long after the last, how long it took, whether it was answered, whether the counter had moved.
    fn polls() -> impl Strategy<Value = Vec<(u64, u64, bool, bool)>> {
        let apart = prop_oneof![20 => 100..1000_u64, 1 => 1000..1200_u64];
        let took = prop_oneof![20 => 0..100_u64, 1 => 400..600_u64];
        vec(
            (apart, took, prop::bool::weighted(0.98), prop::bool::weighted(0.05)),
            1..60,
        )
    }

    proptest! {
        /// A row is dead exactly when, looking back over polls that were all answered in time and close together, the
        /// counter stood still from the end of one to the beginning of the newest for more than a lease and a tenth.
        #[test]
        fn dead_is_what_stood_still_before_its_eyes(polls in polls()) {
            let row = |counter| [(Partition(3), DaemonId(1), counter)];
            let mut observer = Observer::new(Duration::from_millis(LEASE_MS));
            let (mut asked, mut counter) = (0, 0);
            let mut history: Vec<(u64, u64, bool, u64)> = Vec::new();
            for (apart, took, answered, moved) in polls {
                asked += apart.max(history.last().map_or(0, |last| last.1 - last.0));
                counter += u64::from(moved);
                let rows = row(counter);
                let (now, asked_at) = (Monotonic((asked + took) * MS), Monotonic(asked * MS));
                let dead = observer.see(now, asked_at, answered.then_some(&rows[..]));
                history.push((asked, asked + took, answered && took <= 500, counter));

                let mut longest = None;
                for (index, poll) in history.iter().enumerate().rev() {
                    let next = history.get(index + 1);
                    let close = next.is_none_or(|next| next.0 - poll.0 <= LEASE_MS / 3);
                    if !poll.2 || !close || poll.3 != counter {
                        break;
                    }
                    longest = Some(asked.saturating_sub(poll.1));
                }
                let expected = longest.is_some_and(|still| still > LEASE_MS + LEASE_MS / 10);
                prop_assert_eq!(!dead.is_empty(), expected);
                prop_assert!(dead.is_empty() || dead == rows);
            }
        }
    }

    /// How long a counter stood still is told from the answer that first showed it, and is zero when it moved or is unknown.
    #[test]
    fn it_tells_how_long_a_counter_stood() {
        let mut observer = Observer::new(Duration::from_millis(LEASE_MS));
        let at = |ms: u64| Monotonic(ms * MS);
        let stood = |observer: &Observer, ms, daemon| observer.stood_ns(at(ms), Partition(3), DaemonId(daemon)) / MS;
        for (ms, counter) in [(0, 7), (500, 7), (1000, 8), (1500, 8)] {
            let rows = [(Partition(3), DaemonId(2), counter), (Partition(3), DaemonId(9), 1)];
            observer.see(at(ms), at(ms), Some(&rows));
            let expected = if counter == 7 { ms } else { ms - 1000 };
            assert_eq!(stood(&observer, ms, 2), expected);
            assert_eq!(stood(&observer, ms, 9), ms);
            assert_eq!(stood(&observer, ms, 1), 0);
        }
        observer.see(at(2000), at(2000), None);
        assert_eq!(stood(&observer, 2000, 9), 0, "a failed poll begins anew");
    }

    /// A row that is gone and comes back is observed anew.
    #[test]
    fn a_row_that_was_gone_is_observed_anew() {
        let mut observer = Observer::new(Duration::from_millis(LEASE_MS));
        let rows = [(Partition(3), DaemonId(1), 7)];
        let dead: Vec<usize> = (0..20_u64)
            .map(|poll| {
                let now = Monotonic(poll * 500 * MS);
                observer.see(now, now, Some(if poll == 3 { &[] } else { &rows })).len()
            })
            .collect();
        assert_eq!(dead.iter().position(|dead| *dead > 0), Some(4 + 7));
    }
}
