//! Sends requests, and turns answers into what follows from them (OpenTelemetry protocol, "OTLP/gRPC", "OTLP/HTTP").

use std::{path::PathBuf, time::Duration};

use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse, metrics_service_client::MetricsServiceClient,
};
use prost::Message;
use reqwest::{
    StatusCode,
    header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};
use tonic::{
    Code, Request, Status,
    codec::CompressionEncoding,
    metadata::MetadataMap,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};
use tonic_types::StatusExt;

use super::{Config, Protocol};
use crate::{
    Error,
    http::{self, ClientError, chain},
};

/// A connection that cannot be made in this time counts as away.
const CONNECT: Duration = Duration::from_secs(5);

/// Why a client cannot be made: the settings are to blame. Fits after "failed to".
#[derive(Debug, thiserror::Error)]
pub enum BadConfig {
    /// About the client.
    #[error("{0}")]
    Client(#[from] ClientError),
    /// The endpoint.
    #[error("use ISOCHRONE_OTLP_ENDPOINT {0:?}: {1}")]
    Endpoint(String, String),
    /// A header; its value is not shown.
    #[error("use the header {0:?} of ISOCHRONE_OTLP_HEADERS: not a header")]
    Header(String),
}

/// A connection to a receiver, of either protocol. Connects when it first sends.
pub struct Client {
    address: String,
    headers: HeaderMap,
    wire: Wire,
}

enum Wire {
    Http(reqwest::Client),
    Grpc(MetricsServiceClient<Channel>),
}

impl Client {
    /// Nothing is connected yet.
    pub fn new(config: &Config) -> Result<Client, BadConfig> {
        let mut headers = HeaderMap::new();
        for (name, value) in &config.headers {
            let bad = || BadConfig::Header(name.clone());
            let mut value = HeaderValue::from_str(value).map_err(|_| bad())?;
            value.set_sensitive(true);
            headers.insert(HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?, value);
        }
        let (address, wire) = match config.protocol {
            Protocol::Http => (
                metrics_url(&config.endpoint),
                Wire::Http(http::client(config.ca.as_ref())?),
            ),
            Protocol::Grpc => (config.endpoint.clone(), Wire::Grpc(grpc(config)?)),
        };
        Ok(Client { address, headers, wire })
    }

    /// Sends one request. The answer may tell of points that were refused.
    pub async fn export(&self, request: ExportMetricsServiceRequest) -> Result<ExportMetricsServiceResponse, Error> {
        match &self.wire {
            Wire::Http(client) => self.post(client, &request).await,
            Wire::Grpc(client) => {
                let headers = MetadataMap::from_headers(self.headers.clone());
                let request = Request::from_parts(headers, tonic::Extensions::default(), request);
                let answer = client.clone().export(request).await;
                answer
                    .map(tonic::Response::into_inner)
                    .map_err(|status| self.of_status(&status))
            }
        }
    }

    /// Where it sends to, without secrets.
    pub fn address(&self) -> &str {
        &self.address
    }

    async fn post(
        &self,
        client: &reqwest::Client,
        request: &ExportMetricsServiceRequest,
    ) -> Result<ExportMetricsServiceResponse, Error> {
        let sent = client
            .post(&self.address)
            .headers(self.headers.clone())
            .header(CONTENT_TYPE, "application/x-protobuf")
            .header(CONTENT_ENCODING, "gzip")
            .body(http::gzip(&request.encode_to_vec()))
            .send()
            .await;
        let answer = sent.map_err(|error| match error.is_connect() || error.is_timeout() {
            true => self.away(&http::cause(error)),
            // Something is there and does not speak HTTP/1.1, as a port for gRPC.
            false => self.away(&format!("{}; see ISOCHRONE_OTLP_PROTOCOL, too", http::cause(error))),
        })?;
        if !answer.status().is_success() {
            return Err(self.of_answer(answer).await);
        }
        let body = answer.bytes().await.map_err(|error| self.away(&http::cause(error)))?;
        // An empty body is a full success, and so is one that only a later version of the protocol can read.
        Ok(ExportMetricsServiceResponse::decode(body).unwrap_or_default())
    }

    async fn of_answer(&self, answer: reqwest::Response) -> Error {
        let status = answer.status();
        let after = http::retry_after(answer.headers());
        let address = self.address.clone();
        let cause = http::excerpt(answer).await;
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => self.refused("ISOCHRONE_OTLP_HEADERS", &cause),
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => self.refused("ISOCHRONE_OTLP_ENDPOINT", &cause),
            // Not followed: the setting must say where.
            _ if status.is_redirection() => self.refused("ISOCHRONE_OTLP_ENDPOINT", &cause),
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Error::Busy { address, cause, after },
            _ => Error::Poison { address, cause },
        }
    }

    fn of_status(&self, status: &Status) -> Error {
        let after = status.get_details_retry_info().and_then(|info| info.retry_delay);
        let address = self.address.clone();
        let message = chain(status);
        let cause = format!("{:?}: {message}", status.code());
        match status.code() {
            Code::Unauthenticated | Code::PermissionDenied => self.refused("ISOCHRONE_OTLP_HEADERS", &cause),
            Code::Unimplemented | Code::NotFound => self.refused("ISOCHRONE_OTLP_ENDPOINT", &cause),
            // No connection, too: tonic says Unavailable for it.
            Code::Unavailable if after.is_none() => self.away(&message),
            Code::Unavailable
            | Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::OutOfRange
            | Code::DataLoss => Error::Busy { address, cause, after },
            Code::ResourceExhausted if after.is_some() => Error::Busy { address, cause, after },
            // An endpoint that speaks no gRPC at all.
            Code::Unknown | Code::Internal if status.metadata().is_empty() => {
                self.refused("ISOCHRONE_OTLP_ENDPOINT and ISOCHRONE_OTLP_PROTOCOL", &cause)
            }
            _ => Error::Poison { address, cause },
        }
    }

    fn away(&self, cause: &str) -> Error {
        Error::Away {
            address: self.address.clone(),
            cause: format!("{cause} (ISOCHRONE_OTLP_ENDPOINT)"),
        }
    }

    /// Somebody must mend a setting; until then the store keeps what waits.
    fn refused(&self, setting: &str, cause: &str) -> Error {
        Error::Denied {
            address: self.address.clone(),
            cause: format!("{cause} (see {setting})"),
        }
    }
}

fn grpc(config: &Config) -> Result<MetricsServiceClient<Channel>, BadConfig> {
    let bad = |error: tonic::transport::Error| BadConfig::Endpoint(config.endpoint.clone(), chain(&error));
    let mut endpoint = Endpoint::from_shared(config.endpoint.clone())
        .map_err(bad)?
        .connect_timeout(CONNECT);
    if config.endpoint.starts_with("https:") {
        endpoint = endpoint.tls_config(tls(config.ca.as_ref())?).map_err(bad)?;
    }
    Ok(MetricsServiceClient::new(endpoint.connect_lazy())
        .send_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Gzip))
}

fn tls(ca: Option<&PathBuf>) -> Result<ClientTlsConfig, ClientError> {
    let Some(path) = ca else {
        return Ok(ClientTlsConfig::new().with_native_roots());
    };
    let (pem, _) = http::authorities(path)?;
    Ok(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)))
}

/// The endpoint is a base, as with OTEL_EXPORTER_OTLP_ENDPOINT; one that already names the path is taken as it is.
fn metrics_url(endpoint: &str) -> String {
    let base = endpoint.trim_end_matches('/');
    if base.ends_with("/v1/metrics") {
        base.to_owned()
    } else {
        format!("{base}/v1/metrics")
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;
    use crate::{Fate, otlp::Temporality};

    /// Each status has the fate that the protocol gives it; the server's patience is heeded.
    #[tokio::test]
    async fn statuses_have_fates() {
        let client = Client::new(&Config {
            endpoint: "http://127.0.0.1:4317".to_owned(),
            protocol: Protocol::Grpc,
            headers: Vec::new(),
            temporality: Temporality::Delta,
            ca: None,
            topics: 1,
            hold_back: Duration::ZERO,
        })
        .unwrap();
        let patience = ErrorDetails::with_retry_info(Some(Duration::from_secs(7)));
        let patient = |code| Status::with_error_details(code, "later", patience.clone());
        let plain = |code| {
            let mut status = Status::new(code, "so it is");
            // What a server that speaks gRPC says has metadata.
            status.metadata_mut().insert("grpc-server", "x".parse().unwrap());
            status
        };
        let fate = |status: &Status| client.of_status(status).fate();
        let after = Fate::Retry(Some(Duration::from_secs(7)));
        assert_eq!(fate(&patient(Code::ResourceExhausted)), after);
        assert_eq!(fate(&patient(Code::Unavailable)), after);
        assert_eq!(fate(&plain(Code::ResourceExhausted)), Fate::SetAside);
        for code in [
            Code::InvalidArgument,
            Code::Internal,
            Code::Unknown,
            Code::FailedPrecondition,
        ] {
            assert_eq!(fate(&plain(code)), Fate::SetAside, "{code:?}");
        }
        for code in [
            Code::Unavailable,
            Code::Cancelled,
            Code::DeadlineExceeded,
            Code::Aborted,
            Code::DataLoss,
        ] {
            assert_eq!(fate(&plain(code)), Fate::Retry(None), "{code:?}");
        }
        for (code, setting) in [
            (Code::Unauthenticated, "ISOCHRONE_OTLP_HEADERS"),
            (Code::Unimplemented, "ISOCHRONE_OTLP_ENDPOINT"),
        ] {
            let error = client.of_status(&plain(code));
            assert!(
                error.fate() == Fate::Retry(None) && error.to_string().contains(setting),
                "{error}"
            );
        }
    }

    /// A base, or the whole address.
    #[test]
    fn endpoints() {
        assert_eq!(metrics_url("http://h:4318"), "http://h:4318/v1/metrics");
        assert_eq!(
            metrics_url("http://h:9090/api/v1/otlp/"),
            "http://h:9090/api/v1/otlp/v1/metrics"
        );
        assert_eq!(metrics_url("http://h/v1/metrics"), "http://h/v1/metrics");
    }
}
