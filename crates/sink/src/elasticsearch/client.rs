//! One server, spoken to through the official client's transport.

use std::{fmt, path::PathBuf, time::Duration};

use elasticsearch::{
    auth::Credentials,
    cert::{Certificate, CertificateValidation},
    http::{
        Method,
        headers::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue},
        transport::{SingleNodeConnectionPool, Transport, TransportBuilder},
    },
};
use url::Url;

use super::answer::request_error;
use crate::{
    Error,
    http::{authorities, retry_after},
};

/// The type of single objects. Without a version: servers of every version and OpenSearch, which refuses others, take it.
pub const OBJECT: &str = "application/json";

/// Where and as whom.
#[derive(Clone, Debug)]
pub struct Access {
    /// `http://…` or `https://…`, without user and password (ISOCHRONE_ELASTICSEARCH_URL).
    pub url: String,
    /// As whom.
    pub login: Login,
    /// PEM file with certificates to trust beside the system's (ISOCHRONE_ELASTICSEARCH_CA).
    pub ca: Option<PathBuf>,
}

/// As whom.
#[derive(Clone)]
pub enum Login {
    /// Nobody.
    None,
    /// User name and password.
    Basic(String, String),
    /// An API key as the server hands it out encoded.
    ApiKey(String),
}

/// What cannot be used to reach a server at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("use {variable}: {cause}")]
pub struct BadAccess {
    /// The setting to change.
    pub variable: &'static str,
    /// Why.
    pub cause: String,
}

/// The server.
pub struct Client {
    transport: Transport,
    address: String,
}

/// What it answered.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// What it says.
    pub body: Vec<u8>,
    /// How long it wants to be left alone.
    pub after: Option<Duration>,
}

impl Answer {
    /// 2xx.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

impl Client {
    /// Connects to nothing yet.
    pub fn new(access: &Access) -> Result<Client, BadAccess> {
        let bad = |variable: &'static str| move |cause: String| BadAccess { variable, cause };
        let url = Url::parse(&access.url).map_err(|error| bad("ISOCHRONE_ELASTICSEARCH_URL")(error.to_string()))?;
        let mut builder = TransportBuilder::new(SingleNodeConnectionPool::new(url)).request_body_compression(true);
        if access.url.starts_with("https:") {
            let bad_ca = bad("ISOCHRONE_ELASTICSEARCH_CA");
            let own = match &access.ca {
                Some(path) => {
                    let (pem, _) = authorities(path).map_err(|error| bad_ca(error.to_string()))?;
                    Some(Certificate::from_pem(&pem).map_err(|error| bad_ca(error.to_string()))?)
                }
                None => None,
            };
            if let Some(trusted) = system_certificates().into_iter().chain(own).reduce(join) {
                builder = builder.cert_validation(CertificateValidation::Full(trusted));
            }
        }
        match &access.login {
            Login::None => {}
            Login::Basic(user, password) => {
                builder = builder.auth(Credentials::Basic(user.clone(), password.clone()));
            }
            Login::ApiKey(key) => builder = builder.auth(Credentials::EncodedApiKey(key.clone())),
        }
        let transport = builder
            .build()
            .map_err(|error| bad("ISOCHRONE_ELASTICSEARCH_CA")(chain(&error)))?;
        Ok(Client {
            transport,
            address: access.url.clone(),
        })
    }

    /// One request, answered within `patience`. The error is [`Error::Away`]: whether it was done is not known.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        kind: &'static str,
        body: Option<Vec<u8>>,
        patience: Duration,
    ) -> Result<Answer, Error> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(OBJECT));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        let away = |error: elasticsearch::Error| self.away(chain(&error));
        let call = self
            .transport
            .send(method, path, headers, None::<&()>, body, Some(patience));
        let response = call.await.map_err(away)?;
        let status = response.status_code().as_u16();
        let after = retry_after(response.headers());
        let body = response.bytes().await.map_err(away)?.to_vec();
        Ok(Answer { status, body, after })
    }

    /// What an answer that is no success means. `right` is what the request needs.
    pub fn refusal(&self, answer: &Answer, right: &str) -> Error {
        let (kind, reason) = request_error(&answer.body);
        let status = answer.status;
        match status {
            401 => Error::Denied {
                address: self.address.clone(),
                cause: format!(
                    "user, password or key is not accepted (401): must be mended in ISOCHRONE_ELASTICSEARCH_USERNAME \
                     and ISOCHRONE_ELASTICSEARCH_PASSWORD, or ISOCHRONE_ELASTICSEARCH_API_KEY ({reason})"
                ),
            },
            403 if kind != "cluster_block_exception" => self.denied(&format!("403 {reason}"), right),
            _ => self.busy(format!("{status} {reason}"), answer.after),
        }
    }

    /// A right is missing.
    pub fn denied(&self, cause: &str, right: &str) -> Error {
        Error::Denied {
            address: self.address.clone(),
            cause: format!("the user or key lacks the privilege {right} ({cause})"),
        }
    }

    /// Not now.
    pub fn busy(&self, cause: String, after: Option<Duration>) -> Error {
        Error::Busy {
            address: self.address.clone(),
            cause,
            after,
        }
    }

    fn away(&self, cause: String) -> Error {
        Error::Away {
            address: self.address.clone(),
            cause: format!("{cause} (ISOCHRONE_ELASTICSEARCH_URL)"),
        }
    }

    /// Where it is.
    pub fn address(&self) -> &str {
        &self.address
    }
}

/// What the host trusts, beside the public authorities that the client brings along. One that cannot be read is left out.
fn system_certificates() -> Vec<Certificate> {
    let found = rustls_native_certs::load_native_certs();
    let read = found.certs.iter().map(|der| Certificate::from_der(der));
    read.filter_map(Result::ok).collect()
}

fn join(mut all: Certificate, more: Certificate) -> Certificate {
    all.append(more);
    all
}

/// An error down to its root: "connection refused" rather than "error sending request".
fn chain(error: &dyn std::error::Error) -> String {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    let hint = if root.to_string().contains("certificate") {
        "; a private authority's certificate belongs in ISOCHRONE_ELASTICSEARCH_CA"
    } else {
        ""
    };
    format!("{root}{hint}")
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Login::None => "None",
            Login::Basic(..) => "Basic(***)",
            Login::ApiKey(_) => "ApiKey(***)",
        })
    }
}
