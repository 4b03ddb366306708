//! Which sinks this plotter writes to: Prometheus always, every other one when its address is set.

use std::{fs, sync::Arc};

use isochrone_daemon::{Context, settings::PlotterSettings};
use isochrone_sink::{
    Sink,
    elasticsearch::{self, Access, BadAccess, Elasticsearch, Login},
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
    let mut sinks: Vec<Arc<dyn Sink>> = vec![prometheus.clone()];
    if let Some(url) = &settings.elasticsearch_url {
        let sink = Arc::new(elasticsearch(context, settings, url)?);
        let page = sink.clone();
        context.metrics.add_source(Arc::new(move || page.families()));
        sinks.push(sink);
    }
    Ok(BackEnds { prometheus, sinks })
}

fn elasticsearch(context: &Context, settings: &PlotterSettings, url: &str) -> Result<Elasticsearch, BadAccess> {
    let ca = settings.elasticsearch_ca.as_ref().map(fs::read).transpose();
    let login = match (&settings.elasticsearch_username, &settings.elasticsearch_password) {
        (Some(user), Some(password)) => Login::Basic(user.clone(), password.reveal().to_owned()),
        _ => match &settings.elasticsearch_api_key {
            Some(key) => Login::ApiKey(key.reveal().to_owned()),
            None => Login::None,
        },
    };
    let config = elasticsearch::Config {
        access: Access {
            url: url.to_owned(),
            login,
            ca: ca.map_err(|error| BadAccess {
                variable: "ISOCHRONE_ELASTICSEARCH_CA",
                cause: error.to_string(),
            })?,
        },
        samples: settings.elasticsearch_samples,
        retention: settings.elasticsearch_retention,
    };
    Elasticsearch::new(config, context.clock.clone())
}
