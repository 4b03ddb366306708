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
}
