//! How telemetry is sent: with the same HTTP client and TLS as everything else of ours. The SDK calls it on threads of its
//! own, which may block.

use std::{
    env, fs,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};

/// As the specification has it.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Of one signal.
#[derive(Debug)]
pub struct Client {
    signal: &'static str,
    client: reqwest::blocking::Client,
    failing: AtomicBool,
}

impl Client {
    /// Must not be called within a runtime.
    pub fn new(signal: &'static str) -> Result<Client, String> {
        let timeout = env::var("OTEL_EXPORTER_OTLP_TIMEOUT")
            .ok()
            .and_then(|text| text.parse().ok());
        let mut builder = reqwest::blocking::Client::builder()
            .timeout(timeout.map_or(TIMEOUT, Duration::from_millis))
            .redirect(reqwest::redirect::Policy::none());
        if let Ok(path) = env::var("OTEL_EXPORTER_OTLP_CERTIFICATE") {
            let wrong = |error: &dyn std::fmt::Display| format!("OTEL_EXPORTER_OTLP_CERTIFICATE is {path:?}: {error}");
            let pem = fs::read(&path).map_err(|error| wrong(&error))?;
            let bundle = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| wrong(&error))?;
            builder = builder.tls_built_in_root_certs(false);
            for certificate in bundle {
                builder = builder.add_root_certificate(certificate);
            }
        }
        Ok(Client {
            signal,
            client: builder.build().map_err(|error| error.to_string())?,
            failing: AtomicBool::new(false),
        })
    }

    /// Says once that it fails, once that it works again.
    fn note(&self, failure: Option<String>) {
        let failing = failure.is_some();
        if self.failing.swap(failing, Ordering::Relaxed) == failing {
            return;
        }
        match failure {
            Some(failure) => {
                tracing::warn!(
                    signal = self.signal,
                    "failed to send own telemetry: {failure} (OTEL_EXPORTER_OTLP_ENDPOINT)"
                );
            }
            None => tracing::info!(signal = self.signal, "own telemetry is sent again"),
        }
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let request = request.try_into()?;
        let answer = match self.client.execute(request) {
            Ok(answer) => answer,
            Err(error) => {
                self.note(Some(error.to_string()));
                return Err(error.into());
            }
        };
        let status = answer.status();
        self.note((!status.is_success()).then(|| status.to_string()));
        let mut response = Response::builder().status(status);
        if let Some(headers) = response.headers_mut() {
            headers.extend(answer.headers().clone());
        }
        Ok(response.body(answer.bytes()?)?)
    }
}
