//! Logs: to stderr, as text or one JSON object a line.

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, filter::Directive};

use crate::settings::{Common, LogFormat};

/// Starts logging for the process. Called again (by tests), it does nothing.
pub fn start(common: &Common) {
    // The setting has been checked; anything else would be a mistake of ours and still must not silence the logs.
    let filter = EnvFilter::try_new(&common.log).unwrap_or_else(|_| EnvFilter::new("info"));
    let filter = quieten_embedded_broker(filter, &common.log);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    let _ = match common.log_format {
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}

/// The embedded broker warns once for each connection that ends; what that means for messages is in the ledger.
fn quieten_embedded_broker(filter: EnvFilter, wish: &str) -> EnvFilter {
    match "mqtt5=error".parse::<Directive>() {
        Ok(directive) if !wish.contains("mqtt5") => filter.add_directive(directive),
        _ => filter,
    }
}
