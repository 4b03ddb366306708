//! Reads the reference clock, a few times at once at the start and then each second, and feeds the filter.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use isochrone_model::time::Clock;
use isochrone_store::{Store, lease::ANSWER_WITHIN};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::{
    READ_EVERY, SystemClock,
    filter::{Filter, Heard, Reading},
};
use crate::{Metric, Metrics, Stop, Tasks};

/// Quick readings at the start: one of them will have met no delay.
const FIRST_READINGS: u32 = 8;
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// Offset bound.
pub const BOUND: Metric = Metric::gauge(
    "isochrone_clock_bound_seconds",
    "Half-width of the interval that holds the true offset to the reference clock.",
);
/// Era.
pub const ERA: Metric = Metric::gauge(
    "isochrone_clock_era",
    "Jumps of the reference clock, or other servers in its place, since the start.",
);
/// Readings.
pub const READINGS: Metric = Metric::counter(
    "isochrone_clock_readings_total",
    "Readings of the reference clock that were answered.",
);
/// Failed readings.
pub const FAILED: Metric = Metric::counter(
    "isochrone_clock_readings_failed_total",
    "Readings of the reference clock that were not answered.",
);

/// Starts the task that keeps `clock` disciplined until the daemon stops.
pub fn start(clock: &Arc<SystemClock>, store: &Arc<dyn Store>, metrics: &Metrics, tasks: &Tasks, stop: &Stop) {
    let mut discipline = Discipline {
        clock: clock.clone(),
        store: store.clone(),
        metrics: metrics.clone(),
        filter: Filter::new(0),
        away: false,
    };
    let stop = stop.clone();
    tasks.spawn("clock discipline", async move {
        tokio::select! {
            () = discipline.run() => {}
            () = stop.aborting() => {}
        }
    });
}

struct Discipline {
    clock: Arc<SystemClock>,
    store: Arc<dyn Store>,
    metrics: Metrics,
    filter: Filter,
    away: bool,
}

impl Discipline {
    /// Runs for as long as it is polled: while finishing, times are still needed.
    async fn run(&mut self) {
        for _ in 0..FIRST_READINGS {
            if !self.read().await {
                break;
            }
            tokio::time::sleep(FIRST_PAUSE).await;
        }
        let mut ticks = interval(READ_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let _: Instant = ticks.tick().await;
            self.read().await;
        }
    }

    async fn read(&mut self) -> bool {
        let run = self.clock.followed();
        let asked = self.clock.monotonic();
        let answer = timeout(ANSWER_WITHIN, self.store.read(run.as_ref())).await;
        let answered = self.clock.monotonic();
        let (reference, life) = match answer {
            Ok(Ok(read)) => read,
            Ok(Err(error)) => return self.failed(&error.to_string()),
            Err(_) => return self.failed(&format!("read the reference clock: no answer within {ANSWER_WITHIN:?}")),
        };
        if self.away {
            self.away = false;
            tracing::info!("the reference clock answers again");
        }
        if self.meet(&life) {
            self.clock.confirmed.store(asked.0, Ordering::Relaxed);
        }
        let (heard, estimate) = self.filter.hear(Reading {
            asked,
            answered,
            reference,
        });
        self.clock.estimate.store(estimate);
        if let Heard::Jumped { by_ns } = heard {
            tracing::warn!(by_ns, era = estimate.era, "the reference clock jumped; a new era began");
        }
        self.metrics.counter(&READINGS).inc();
        self.metrics.gauge(&BOUND).set(estimate.bound_ns as f64 / 1e9);
        self.metrics.gauge(&ERA).set(f64::from(estimate.era));
        true
    }

    /// Another life of the server is another clock, until shown otherwise. Whether it is the one known.
    fn meet(&mut self, life: &str) -> bool {
        let known = self.clock.life.borrow().clone();
        match known.as_deref() {
            Some(known) if known == life => return true,
            Some(known) => {
                tracing::warn!(
                    was = known,
                    is = life,
                    "another server (or life of it) tells the reference time"
                );
                self.filter.new_era();
            }
            None => {}
        }
        self.clock.life.send_replace(Some(life.into()));
        false
    }

    /// Logged when it begins; the bound grows by itself meanwhile.
    fn failed(&mut self, error: &str) -> bool {
        self.metrics.counter(&FAILED).inc();
        if !self.away {
            self.away = true;
            tracing::warn!(
                error,
                "failed to read the reference clock; going on with the last known offset"
            );
        }
        false
    }
}
