//! How much a consumer takes, and where it looks first.

use std::sync::atomic::{AtomicUsize, Ordering};

use isochrone_model::{
    id::{DaemonId, Partition},
    random::{GAMMA, scramble},
};
use tokio::sync::Notify;

/// What a daemon may hold, over all runs.
#[derive(Debug)]
pub struct Room {
    limit: Option<usize>,
    held: AtomicUsize,
    freed: Notify,
}

impl Room {
    /// `None`: no limit.
    pub fn new(limit: Option<usize>) -> Room {
        Room {
            limit,
            held: AtomicUsize::new(0),
            freed: Notify::new(),
        }
    }

    /// Reserves up to `want`; answers how many.
    pub fn reserve(&self, want: usize) -> usize {
        let mut got = 0;
        let limit = self.limit.unwrap_or(usize::MAX);
        // The closure always answers Some.
        let _ = self.held.fetch_update(Ordering::AcqRel, Ordering::Acquire, |held| {
            got = want.min(limit.saturating_sub(held));
            Some(held + got)
        });
        got
    }

    /// Gives room back that claims had taken up: who waits for some is woken.
    pub fn release(&self, count: usize) {
        self.give_up(count);
        if count > 0 {
            self.freed.notify_waiters();
        }
    }

    /// What was reserved is used, less than all of it or (for a moment, when claims are named again) more.
    pub fn settle(&self, reserved: usize, used: usize) {
        self.held.fetch_add(used, Ordering::AcqRel);
        self.give_up(reserved);
    }

    /// Gives room back that was reserved and not used; wakes nobody.
    pub fn give_up(&self, count: usize) {
        // The closure always answers Some.
        let _ = self.held.fetch_update(Ordering::AcqRel, Ordering::Acquire, |held| {
            Some(held.saturating_sub(count))
        });
    }

    /// How many claims are held or reserved.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Acquire)
    }

    /// Whether there is room for one more.
    pub fn is_free(&self) -> bool {
        self.limit.is_none_or(|limit| self.held() < limit)
    }

    /// Returns when some was given back after the call.
    pub async fn freed(&self) {
        self.freed.notified().await;
    }
}

/// The partitions with free topics in the order in which this daemon tries them: rendezvous hashing, so that consumers
/// that wake up together spread out instead of racing for the same topic.
pub fn order(mut free: Vec<(Partition, u64)>, daemon: DaemonId) -> Vec<(Partition, u64)> {
    free.sort_by_key(|(partition, _)| std::cmp::Reverse(weight(daemon, *partition)));
    free
}

fn weight(daemon: DaemonId, partition: Partition) -> u64 {
    scramble(daemon.0 ^ u64::from(partition.0).wrapping_mul(GAMMA))
}

/// How many of a run's partitions are one consumer's fair share.
pub fn fair_share(partitions: u16, consumers: usize) -> usize {
    usize::from(partitions).div_ceil(consumers.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Room is never handed out twice, and comes back.
    #[test]
    fn room_is_bounded() {
        let room = Room::new(Some(3));
        assert_eq!(room.reserve(2), 2);
        assert_eq!(room.reserve(2), 1);
        assert_eq!(room.reserve(2), 0);
        assert!(!room.is_free());
        room.release(2);
        assert_eq!(room.reserve(5), 2);
        room.settle(2, 1);
        assert_eq!(room.held(), 2);
        room.settle(0, 2);
        assert_eq!((room.held(), room.reserve(1)), (4, 0));
        assert_eq!(Room::new(None).reserve(1_000_000), 1_000_000);
    }

    /// A hundred consumers that see the same hundred topics in 64 partitions do not all start at the same one.
    #[test]
    fn consumers_spread_out() {
        let free: Vec<(Partition, u64)> = (0..64).map(|partition| (Partition(partition), 2)).collect();
        let mut first = std::collections::BTreeMap::<u16, u32>::new();
        for daemon in 0..100 {
            let order = order(free.clone(), DaemonId(daemon));
            assert_eq!(order.len(), 64);
            *first.entry(order[0].0.0).or_default() += 1;
        }
        assert!(first.len() > 32, "{first:?}");
        assert!(first.values().all(|count| *count < 10), "{first:?}");
    }

    /// The shares of all consumers cover all partitions.
    #[test]
    fn shares_cover_everything() {
        for consumers in 1..100 {
            assert!(fair_share(64, consumers) * consumers >= 64);
        }
    }
}
