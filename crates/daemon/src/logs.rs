//! Logs: to stderr, as text or one JSON object a line.

use std::io::{self, IsTerminal};

use opentelemetry_sdk::trace::SdkTracer;
use tracing::Level;
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{Directive, Targets},
    fmt,
    fmt::layer,
    layer::SubscriberExt,
    registry,
    util::SubscriberInitExt,
};

use crate::{
    settings::{Common, LogFormat},
    telemetry::TARGET,
};

/// Starts logging for the process. Called again (by tests), it does nothing.
pub fn start(common: &Common) {
    start_with(common, None);
}

/// As [`start`]; spans of [`TARGET`] go to the tracer, if there is one.
pub(crate) fn start_with(common: &Common, tracer: Option<SdkTracer>) {
    // The setting has been checked; anything else would be a mistake of ours and still must not silence the logs.
    let filter = EnvFilter::try_new(&common.log).unwrap_or_else(|_| EnvFilter::new("info"));
    let filter = quieten_embedded_broker(filter, &common.log);
    let Some(tracer) = tracer else {
        let builder = fmt().with_env_filter(filter).with_writer(io::stderr);
        let _ = match common.log_format {
            LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).try_init(),
            LogFormat::Json => builder.json().flatten_event(true).try_init(),
        };
        return;
    };
    let spans = tracing_opentelemetry::layer()
        .with_tracer(tracer)
        .with_filter(Targets::new().with_target(TARGET, Level::DEBUG));
    let registry = registry().with(spans);
    let lines = layer().with_writer(io::stderr);
    let _ = match common.log_format {
        LogFormat::Text => registry
            .with(lines.with_ansi(io::stderr().is_terminal()).with_filter(filter))
            .try_init(),
        LogFormat::Json => registry
            .with(lines.json().flatten_event(true).with_filter(filter))
            .try_init(),
    };
}

/// The embedded broker warns once for each connection that ends; what that means for messages is in the ledger.
fn quieten_embedded_broker(filter: EnvFilter, wish: &str) -> EnvFilter {
    match "mqtt5=error".parse::<Directive>() {
        Ok(directive) if !wish.contains("mqtt5") => filter.add_directive(directive),
        _ => filter,
    }
}
