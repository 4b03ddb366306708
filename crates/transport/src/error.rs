//! The transports' errors.

/// What can go wrong before a connection exists. What goes wrong with one is an event.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL cannot be used.
    #[error("use {url:?} as {setting}: {cause}")]
    Url {
        /// The setting's variable name.
        setting: &'static str,
        /// The URL, without secrets.
        url: String,
        /// Why.
        cause: String,
    },
    /// A TLS file cannot be used.
    #[error("use {setting} ({path}): {cause}")]
    Tls {
        /// The setting's variable name.
        setting: &'static str,
        /// The file.
        path: String,
        /// Why.
        cause: String,
    },
    /// Settings that do not go together.
    #[error("use {setting}={value}: {cause}")]
    Setting {
        /// The setting's variable name.
        setting: &'static str,
        /// Its value.
        value: String,
        /// Why.
        cause: String,
    },
}

impl Error {
    /// The same of a URL that another setting names; the others know theirs.
    #[must_use]
    pub fn of(self, setting: &'static str) -> Error {
        match self {
            Error::Url { url, cause, .. } => Error::Url { setting, url, cause },
            other => other,
        }
    }
}
