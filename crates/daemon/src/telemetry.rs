//! The daemon's own telemetry, through the OpenTelemetry SDK: its metrics, and spans of the way of its work.
//!
//! Set by the standard variables alone (<https://opentelemetry.io/docs/specs/otel/protocol/exporter/>); when none of them
//! names an endpoint nothing is started.

mod bridge;
mod client;

use std::{env, sync::mpsc, thread, time::Duration};

use isochrone_store::types::Role;
use opentelemetry::{KeyValue, trace::TracerProvider};
use opentelemetry_otlp::{MetricExporter, Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    metrics::SdkMeterProvider,
    trace::{SdkTracer, SdkTracerProvider},
};

use crate::Metrics;
use client::Client;

/// The target of spans; what has another one is never exported. Below `info`, so that log lines do not carry them.
pub const TARGET: &str = "isochrone::way";

/// How long a daemon that is done waits for the last of it to be sent.
const FLUSH: Duration = Duration::from_secs(3);

/// Nothing, or providers at work.
#[derive(Default)]
pub struct Telemetry {
    tracer: Option<SdkTracerProvider>,
    meter: Option<SdkMeterProvider>,
}

impl Telemetry {
    /// Reads the standard variables. The second is what is wrong with them, to be said when there are logs.
    pub fn start(role: Role) -> (Telemetry, Option<String>) {
        if set("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return (Telemetry::default(), None);
        }
        match Telemetry::build(role) {
            Ok(telemetry) => (telemetry, None),
            Err(problem) => (Telemetry::default(), Some(problem)),
        }
    }

    fn build(role: Role) -> Result<Telemetry, String> {
        let mut telemetry = Telemetry::default();
        if wanted("TRACES")? {
            let exporter = SpanExporter::builder()
                .with_http()
                .with_http_client(Client::new("traces")?)
                .with_protocol(Protocol::HttpBinary)
                .build()
                .map_err(|error| error.to_string())?;
            let provider = SdkTracerProvider::builder().with_resource(resource(role));
            telemetry.tracer = Some(provider.with_batch_exporter(exporter).build());
        }
        if wanted("METRICS")? {
            let exporter = MetricExporter::builder()
                .with_http()
                .with_http_client(Client::new("metrics")?)
                .with_protocol(Protocol::HttpBinary)
                .build()
                .map_err(|error| error.to_string())?;
            let provider = SdkMeterProvider::builder().with_resource(resource(role));
            telemetry.meter = Some(provider.with_periodic_exporter(exporter).build());
        }
        Ok(telemetry)
    }

    /// What makes spans of tracing's, when they are wanted.
    pub fn tracer(&self) -> Option<SdkTracer> {
        self.tracer.as_ref().map(|provider| provider.tracer("isochrone"))
    }

    /// Exports what these count from now on.
    pub fn observe(&self, metrics: &Metrics) {
        if let Some(meter) = &self.meter {
            bridge::observe(meter, metrics);
        }
    }

    /// Sends what there still is, for at most three seconds.
    pub fn finish(self) {
        if self.tracer.is_none() && self.meter.is_none() {
            return;
        }
        let (done, waits) = mpsc::channel();
        // The SDK's own deadlines do not cover metrics.
        let flush = move || {
            if let Some(tracer) = self.tracer {
                let _ = tracer.shutdown();
            }
            if let Some(meter) = self.meter {
                let _ = meter.shutdown();
            }
            let _ = done.send(());
        };
        let flushing = thread::Builder::new().name("telemetry".to_owned()).spawn(flush);
        if flushing.is_ok() && waits.recv_timeout(FLUSH).is_err() {
            tracing::warn!("own telemetry was not flushed within {FLUSH:?}; the rest of it is lost");
        }
    }
}

/// Whether a signal has an endpoint and is not switched off; an error when it cannot be sent as it should.
fn wanted(signal: &str) -> Result<bool, String> {
    let of = |what: &str| {
        let own = format!("OTEL_EXPORTER_OTLP_{signal}_{what}");
        let general = format!("OTEL_EXPORTER_OTLP_{what}");
        set(&own)
            .map(|value| (own, value))
            .or_else(|| set(&general).map(|value| (general, value)))
    };
    if of("ENDPOINT").is_none() || set(&format!("OTEL_{signal}_EXPORTER")).is_some_and(|value| value == "none") {
        return Ok(false);
    }
    match of("PROTOCOL") {
        Some((variable, value)) if value != "http/protobuf" => Err(format!(
            "{variable} is {value:?}: must be http/protobuf, the only one that own telemetry speaks"
        )),
        _ => Ok(true),
    }
}

/// An empty variable is as good as none (OpenTelemetry, "Environment variable specification").
fn set(variable: &str) -> Option<String> {
    env::var(variable).ok().filter(|value| !value.is_empty())
}

fn resource(role: Role) -> Resource {
    let named = set("OTEL_SERVICE_NAME").is_some()
        || set("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|all| all.contains("service.name="));
    let id: u64 = rand::random();
    let mut builder = Resource::builder().with_attributes([
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", format!("{id:016x}")),
    ]);
    if !named {
        builder = builder.with_service_name(format!("isochrone-{}", role.as_str()));
    }
    builder.build()
}
