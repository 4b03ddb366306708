//! The host's clock: the only place that reads one. Its offset to the reference clock is measured by [`discipline`].

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use isochrone_model::{
    id::{Domain, RunName},
    time::{Clock, Monotonic, Offset, Reference},
};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::watch;

pub mod discipline;
mod domain;
pub mod filter;
mod model;

pub use domain::host_domain;
use filter::Estimate;
use model::Shared;

/// Bound before the first reading of the reference clock: the host's own idea of the time may be off by as much.
const UNMEASURED_BOUND_NS: u64 = 3_600_000_000_000;

/// CLOCK_MONOTONIC and its offset to the reference clock. Reading takes no lock and about 50 ns.
#[derive(Debug)]
pub struct SystemClock {
    domain: Domain,
    estimate: Shared,
    run: Mutex<Option<RunName>>,
    life: watch::Sender<Option<Arc<str>>>,
    confirmed: AtomicU64,
}

impl SystemClock {
    /// A clock that goes by the host's real-time clock, with a large bound, until the reference has been read.
    pub fn new(forced_domain: Option<Domain>) -> Arc<SystemClock> {
        SystemClock::start(forced_domain, UNMEASURED_BOUND_NS, filter::DRIFT_PPM)
    }

    /// A clock that is its own reference: for a process with its own store.
    pub fn alone(forced_domain: Option<Domain>) -> Arc<SystemClock> {
        SystemClock::start(forced_domain, 0, 0)
    }

    fn start(forced_domain: Option<Domain>, bound_ns: u64, drift_ppm: u64) -> Arc<SystemClock> {
        let (offset_ns, reading_ns) = real_time_offset();
        let estimate = Estimate {
            at: monotonic(),
            offset_ns,
            bound_ns: bound_ns.saturating_add(reading_ns),
            drift_ppb: 0,
            growth_ppm: drift_ppm,
            era: 0,
        };
        Arc::new(SystemClock {
            domain: forced_domain.unwrap_or_else(host_domain),
            estimate: Shared::new(estimate),
            run: Mutex::default(),
            life: watch::Sender::new(None),
            confirmed: AtomicU64::new(0),
        })
    }

    /// The clock domain: monotonic times compare within it.
    pub fn domain(&self) -> Domain {
        self.domain
    }

    /// Reads the reference of this run from now on (it matters in a Redis Cluster, where runs live on different nodes).
    pub fn follow(&self, run: &RunName) {
        *self.run.lock().unwrap_or_else(PoisonError::into_inner) = Some(run.clone());
    }

    /// The life of the server behind the reference clock, as last read; changes when it starts again or another takes
    /// its place.
    pub fn server_life(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.life.subscribe()
    }

    /// When the server was last asked for its life and answered with the one known before: what it confirmed so long before
    /// that as it may lose, it has.
    pub fn life_confirmed_at(&self) -> Monotonic {
        Monotonic(self.confirmed.load(Ordering::Relaxed))
    }

    /// Whether what the server had at this time is there for good: it may lose the last `memory` of what it was told (nothing,
    /// when zero), and has confirmed its life for longer than that since. While it is away nothing becomes lasting.
    pub fn is_lasting(&self, at: Monotonic, memory: Duration) -> bool {
        memory.is_zero() || u128::from(self.life_confirmed_at().0.saturating_sub(at.0)) > memory.as_nanos()
    }

    /// The reference has been read at least once, or the clock is its own reference.
    pub fn is_disciplined(&self) -> bool {
        self.offset().bound_ns < UNMEASURED_BOUND_NS
    }

    fn followed(&self) -> Option<RunName> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Clock for SystemClock {
    fn monotonic(&self) -> Monotonic {
        monotonic()
    }

    fn offset(&self) -> Offset {
        self.estimate.load().offset_at(monotonic())
    }

    fn reference(&self) -> Reference {
        let now = monotonic();
        self.estimate.load().offset_at(now).at(now)
    }
}

fn monotonic() -> Monotonic {
    Monotonic(nanos(ClockId::Monotonic) as u64)
}

fn nanos(clock: ClockId) -> i64 {
    let time = clock_gettime(clock);
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec)
}

/// Real time minus monotonic time, and how long the two readings took: the closest of a few tries.
fn real_time_offset() -> (i64, u64) {
    let tries = (0..8).map(|_| {
        let before = nanos(ClockId::Monotonic);
        let real = nanos(ClockId::Realtime);
        let after = nanos(ClockId::Monotonic);
        let took = after.saturating_sub(before);
        (real - before - took / 2, took.unsigned_abs() + 1)
    });
    tries.min_by_key(|(_, took)| *took).unwrap_or((0, UNMEASURED_BOUND_NS))
}

/// How long until the next reading: what a test of the discipline waits for.
pub const READ_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    /// What a server may lose is lasting once it has confirmed its life for longer than that; what none can lose is at once.
    #[test]
    fn what_a_server_had_long_enough_ago_is_lasting() {
        let clock = SystemClock::alone(Some(Domain(7)));
        let (second, memory) = (1_000_000_000, Duration::from_secs(2));
        clock.confirmed.store(12 * second, Ordering::Relaxed);
        let lasting = |seconds: u64| clock.is_lasting(Monotonic(seconds * second), memory);
        assert_eq!([lasting(9), lasting(10), lasting(13)], [true, false, false]);
        assert!(clock.is_lasting(Monotonic(13 * second), Duration::ZERO));
    }

    /// Alone, the reference is the real-time clock within microseconds, and both clocks advance together.
    #[test]
    fn alone_it_follows_the_real_time_clock() {
        let clock = SystemClock::alone(Some(Domain(7)));
        assert_eq!(clock.domain(), Domain(7));
        let off = clock.reference().0 - nanos(ClockId::Realtime);
        assert!(off.abs() < 50_000_000, "{off}");
        assert!(clock.is_disciplined());
        let (first, second) = (clock.reference(), clock.reference());
        assert!(second >= first);
    }

    /// Before the first reading the bound says how little is known.
    #[test]
    fn unmeasured_is_said() {
        assert!(!SystemClock::new(None).is_disciplined());
    }
}
