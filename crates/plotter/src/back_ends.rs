//! Which sinks this plotter writes to: Prometheus always, every other one when its address is set.

use std::sync::Arc;

use isochrone_daemon::{
    Context,
    settings::{OtlpProtocol, PlotterSettings, Secret, Temporality},
};
use isochrone_sink::{
    Sink,
    elasticsearch::{self, Access, BadAccess, Elasticsearch, Login},
    influxdb::{self, Api, InfluxDb},
    otlp::{self, Otlp},
    prometheus::{Config, Prometheus},
};
use percent_encoding::percent_decode_str;

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
    if let Some(config) = otlp_config(context, settings) {
        let otlp = Arc::new(Otlp::new(&config)?);
        let page = otlp.clone();
        context.metrics.add_source(Arc::new(move || page.families()));
        sinks.push(otlp);
    }
    if let Some(config) = influxdb_config(settings) {
        sinks.push(Arc::new(InfluxDb::new(config)?));
    }
    Ok(BackEnds { prometheus, sinks })
}

fn elasticsearch(context: &Context, settings: &PlotterSettings, url: &str) -> Result<Elasticsearch, BadAccess> {
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
            ca: settings.elasticsearch_ca.clone(),
        },
        samples: settings.elasticsearch_samples,
        retention: settings.elasticsearch_retention,
    };
    Elasticsearch::new(config, context.clock.clone())
}

fn otlp_config(context: &Context, settings: &PlotterSettings) -> Option<otlp::Config> {
    Some(otlp::Config {
        endpoint: settings.otlp_endpoint.clone()?,
        protocol: match settings.otlp_protocol {
            OtlpProtocol::Http => otlp::Protocol::Http,
            OtlpProtocol::Grpc => otlp::Protocol::Grpc,
        },
        headers: settings
            .otlp_headers
            .as_ref()
            .map(|headers| pairs(headers.reveal()))
            .unwrap_or_default(),
        temporality: match settings.otlp_temporality {
            Temporality::Cumulative => otlp::Temporality::Cumulative,
            Temporality::Delta => otlp::Temporality::Delta,
        },
        ca: settings.otlp_ca.clone(),
        topics: settings.prometheus_topics,
        hold_back: context.store.memory(),
    })
}

fn influxdb_config(settings: &PlotterSettings) -> Option<influxdb::Config> {
    let revealed = |secret: &Option<Secret>| secret.as_ref().map(|secret| secret.reveal().to_owned());
    let password = revealed(&settings.influxdb_password).unwrap_or_default();
    Some(influxdb::Config {
        url: settings.influxdb_url.clone()?,
        api: match &settings.influxdb_bucket {
            Some(bucket) => Api::V2 {
                org: settings.influxdb_org.clone(),
                bucket: bucket.clone(),
                token: revealed(&settings.influxdb_token),
            },
            None => Api::V1 {
                database: settings.influxdb_database.clone(),
                user: settings.influxdb_username.clone().map(|user| (user, password)),
            },
        },
        ca: settings.influxdb_ca.clone(),
        topics: settings.prometheus_topics,
        buckets: settings.prometheus_buckets.clone(),
    })
}

/// `name=value,name=value` with percent-encoded values, as OTEL_EXPORTER_OTLP_HEADERS has it.
fn pairs(text: &str) -> Vec<(String, String)> {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(name, value)| {
            let value = percent_decode_str(value.trim()).decode_utf8_lossy();
            (name.trim().to_owned(), value.into_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::pairs;

    /// Blanks around are not meant, encoded ones are, and a value may hold `=`.
    #[test]
    fn headers() {
        let found = pairs("authorization=Basic%20YTpi==, x-scope = 1 ,");
        let expected = [("authorization", "Basic YTpi=="), ("x-scope", "1")];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}
