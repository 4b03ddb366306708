//! What sinks over HTTP share: a client, compression, and how servers ask for patience.

use std::{
    error::Error as StdError,
    fmt::Write as _,
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use flate2::{Compression, write::GzEncoder};
use reqwest::{
    Certificate, Client, Response,
    header::{DATE, HeaderMap, LOCATION, RETRY_AFTER},
};

/// A connection that cannot be made in this time counts as away; the runner's own deadline covers the rest.
const CONNECT: Duration = Duration::from_secs(5);

/// As much of an answer's text as an error line shows.
const EXCERPT: usize = 300;

/// Why a client cannot be made: the settings are to blame. Fits after "failed to".
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The file cannot be read.
    #[error("read {}: {cause}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// The certificates cannot be used.
    #[error("use the certificates of {}: {cause}", path.display())]
    Certificates {
        /// Which file.
        path: PathBuf,
        /// Why.
        cause: String,
    },
    /// Something else about it.
    #[error("make an HTTP client: {0}")]
    Other(String),
}

/// A client that trusts the system's certificates, or only those of the PEM file `ca`.
pub fn client(ca: Option<&PathBuf>) -> Result<Client, ClientError> {
    // A redirect would turn a POST into a GET, and what was written would be gone without an error.
    let mut builder = Client::builder()
        .connect_timeout(CONNECT)
        .redirect(reqwest::redirect::Policy::none());
    if let Some(path) = ca {
        let (_, bundle) = authorities(path)?;
        builder = builder.tls_built_in_root_certs(false);
        for certificate in bundle {
            builder = builder.add_root_certificate(certificate);
        }
    }
    builder.build().map_err(|error| ClientError::Other(chain(&error)))
}

/// The certificates to trust: the text of the PEM file, and what is in it, which is not nothing.
pub fn authorities(path: &Path) -> Result<(Vec<u8>, Vec<Certificate>), ClientError> {
    let certificates = |cause: String| ClientError::Certificates {
        path: path.to_owned(),
        cause,
    };
    let pem = std::fs::read(path).map_err(|cause| ClientError::Read {
        path: path.to_owned(),
        cause,
    })?;
    let bundle = Certificate::from_pem_bundle(&pem).map_err(|error| certificates(chain(&error)))?;
    if bundle.is_empty() {
        return Err(certificates("there is none in it".to_owned()));
    }
    Ok((pem, bundle))
}

/// Compressed for the wire. Fast rather than small: most of it is zeros and repeated names.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
    // Writing to a vector does not fail.
    let _ = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default()
}

/// How long the server wants to be left alone: `Retry-After` (RFC 9110, 10.2.3) in seconds, or as a date against the
/// answer's own `Date`.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = |text: &str| httpdate::parse_http_date(text).ok();
    let now = date(headers.get(DATE)?.to_str().ok()?)?;
    date(text)?.duration_since(now).ok()
}

/// What a failed answer says, shortened to one line; of a redirect also where it leads.
pub async fn excerpt(answer: Response) -> String {
    let status = answer.status();
    let place = location(answer.headers()).filter(|_| status.is_redirection());
    let text = answer.text().await.unwrap_or_default();
    let mut line = status.to_string();
    if let Some(place) = place {
        let _ = write!(line, " to {place}");
    }
    let words: Vec<_> = text.split_whitespace().collect();
    if !words.is_empty() {
        let _ = write!(line, ": {}", words.join(" ").chars().take(EXCERPT).collect::<String>());
    }
    line
}

/// Where a redirect leads, without what may be secret in it: user, query, fragment.
fn location(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(LOCATION)?.to_str().ok()?;
    let text = text.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = text.split_once("://") else {
        return Some(text.to_owned());
    };
    let host = rest.find('/').unwrap_or(rest.len());
    let user = rest[..host].rfind('@').map_or(0, |at| at + 1);
    Some(format!("{scheme}://{}", &rest[user..]))
}

/// An error with its causes, without the address (the caller has it, without secrets).
pub fn cause(error: reqwest::Error) -> String {
    chain(&error.without_url())
}

/// An error and its causes on one line; an error that only repeats its cause is said once.
pub fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            let _ = write!(text, ": {more}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    /// Both forms of `Retry-After`; a date needs the server's own clock.
    #[test]
    fn patience() {
        let headers = |pairs: &[(_, &'static str)]| {
            let pairs = pairs
                .iter()
                .map(|(name, value)| (name, HeaderValue::from_static(value)));
            pairs.fold(HeaderMap::new(), |mut headers, (name, value)| {
                headers.insert(name, value);
                headers
            })
        };
        let seconds = Duration::from_secs;
        assert_eq!(retry_after(&headers(&[(RETRY_AFTER, "7")])), Some(seconds(7)));
        let at = (RETRY_AFTER, "Sun, 06 Nov 1994 08:49:50 GMT");
        assert_eq!(retry_after(&headers(std::slice::from_ref(&at))), None);
        let date = (DATE, "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(retry_after(&headers(&[at, date])), Some(seconds(13)));
        assert_eq!(retry_after(&headers(&[(RETRY_AFTER, "soon")])), None);
    }

    /// A redirect's place is told without user, query and fragment.
    #[test]
    fn places() {
        for (header, told) in [
            ("https://h:8086/write?u=me&p=s3cret#x", "https://h:8086/write"),
            ("https://me:s3cret@h/write", "https://h/write"),
            ("https://me:s3cret@h", "https://h"),
            ("/login?token=s3cret", "/login"),
        ] {
            let headers = HeaderMap::from_iter([(LOCATION, HeaderValue::from_static(header))]);
            assert_eq!(location(&headers).as_deref(), Some(told));
        }
        assert_eq!(location(&HeaderMap::new()), None);
    }
}
