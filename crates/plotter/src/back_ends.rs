//! Which sinks this plotter writes to: Prometheus always, every other one when its address is set.

use std::sync::Arc;

use isochrone_daemon::{Context, settings::PlotterSettings};
use isochrone_sink::{
    Sink,
    prometheus::{Config, Prometheus},
};

use crate::Error;

/// The sinks as the settings want them, not opened yet.
pub struct BackEnds {
    /// Served on this daemon's own page; it is among `sinks` too.
    pub prometheus: Arc<Prometheus>,
    /// All of them.
    pub sinks: Vec<Arc<dyn Sink>>,
}

/// Makes them; nothing is connected before the runner opens a sink.
///
/// # Errors
/// Settings that only the back end's own client can judge.
pub fn open(context: &Context, settings: &PlotterSettings) -> Result<BackEnds, Error> {
    let prometheus = Arc::new(Prometheus::new(
        Config {
            topics: settings.prometheus_topics,
            buckets: settings.prometheus_buckets.clone(),
            hold_back: context.store.memory(),
        },
        context.clock.clone(),
    ));
    let page = prometheus.clone();
    context.metrics.add_source(Arc::new(move || page.families()));
    let sinks: Vec<Arc<dyn Sink>> = vec![prometheus.clone()];
    Ok(BackEnds { prometheus, sinks })
}
