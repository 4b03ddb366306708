//! A plotter at work in the test's own process, and what its page shows.

use std::{collections::BTreeMap, ffi::OsString, sync::Arc};

use isochrone_daemon::{
    Context, Health, Metrics, Shared, Stop,
    clock::SystemClock,
    settings::{self, PlotterSettings, Source},
};
use isochrone_model::id::DaemonId;
use isochrone_store::{Store, types::Role};
use tokio::task::JoinHandle;

use super::deadline::SOON;

/// A plotter at work.
pub struct Running {
    pub daemon: DaemonId,
    pub stop: Stop,
    pub metrics: Metrics,
    pub health: Health,
    pub task: JoinHandle<Result<(), isochrone_plotter::Error>>,
}

impl Running {
    /// Starts one on this store.
    pub fn start(store: Arc<dyn Store>, clock: Arc<SystemClock>) -> Running {
        let variables = [
            ("ISOCHRONE_REDIS_URL", "memory:"),
            ("ISOCHRONE_GRACE", "200ms"),
            ("ISOCHRONE_LEASE", "1s"),
            ("ISOCHRONE_PARTITIONS", "8"),
        ];
        let variables = variables.map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let loaded = settings::load::<PlotterSettings>(&Source::from_variables(variables)).unwrap();
        let shared = Shared {
            common: Arc::new(loaded.common),
            store,
            clock,
            health: Health::new("plotter"),
            metrics: Metrics::new(),
        };
        let stop = Stop::new();
        let context = Context::new(Role::Plotter, &shared, stop.clone());
        let (daemon, metrics, health) = (context.daemon, context.metrics.clone(), shared.health.clone());
        let task = tokio::spawn(isochrone_plotter::run(context, loaded.settings));
        Running {
            daemon,
            stop,
            metrics,
            health,
            task,
        }
    }

    /// Series of its page by their text.
    pub fn series(&self) -> BTreeMap<String, f64> {
        series(&self.metrics.encode())
    }

    /// Asks it to finish and waits for that.
    pub async fn finish(self) {
        self.stop.finish();
        tokio::time::timeout(SOON, self.task)
            .await
            .expect("finishes in time")
            .expect("does not panic")
            .expect("succeeds");
    }

    /// As `kill -9` leaves it: nothing is given back.
    pub async fn kill(self) {
        self.stop.abort();
        let _ = tokio::time::timeout(SOON, self.task).await.expect("aborts at once");
    }
}

/// Series by their text.
fn series(page: &str) -> BTreeMap<String, f64> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

/// The sum of a metric's series.
pub fn sum(series: &BTreeMap<String, f64>, metric: &str) -> f64 {
    let prefix = format!("{metric}{{");
    series
        .iter()
        .filter(|(name, _)| name.starts_with(&prefix))
        .map(|(_, value)| value)
        .sum()
}
