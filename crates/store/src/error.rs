//! The store's errors and their fates.

use std::time::Duration;

use isochrone_model::id::RunName;

/// What can go wrong with the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL cannot be used.
    #[error("use ISOCHRONE_REDIS_URL: {0}")]
    Url(String),
    /// Unreachable, timed out, broken off, or unable to do it now (loading, memory full, disk or replicas failing, busy): the
    /// call may or may not have happened.
    #[error("reach the store at {address} (ISOCHRONE_REDIS_URL): {cause}")]
    Away {
        /// Host and port, without secrets.
        address: String,
        /// What the client said.
        cause: String,
    },
    /// The server refused: password, permission, a command it lacks.
    #[error("use the store at {address} (ISOCHRONE_REDIS_URL): {cause}")]
    Refused {
        /// Host and port, without secrets.
        address: String,
        /// What the server said, without secrets.
        cause: String,
    },
    /// A daemon's setting disagrees with the run's.
    #[error("join run {run}: {setting} is {ours:?} here and {theirs:?} in the run")]
    Pins {
        /// The run.
        run: RunName,
        /// The setting's variable name (or `schema version`).
        setting: &'static str,
        /// This daemon's value.
        ours: String,
        /// The run's value.
        theirs: String,
    },
    /// The run does not exist, or is past what was asked for.
    #[error("use run {run}: {cause}")]
    Run {
        /// The run.
        run: RunName,
        /// `unknown`, `draining: no producer may join`, `closed`.
        cause: String,
    },
    /// The lease or the token does not hold any more.
    #[error("write under a claim that no longer holds")]
    Fenced,
    /// Data in the store cannot be understood.
    #[error("read {key} in the store: {cause}")]
    Corrupt {
        /// Which key.
        key: String,
        /// Why.
        cause: String,
    },
}

/// What to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Try the same again after this long.
    Retry(Duration),
    /// Give up what was held.
    LetGo,
    /// Stop: someone must act.
    Reject,
}

impl Error {
    /// What to do about it.
    pub fn fate(&self) -> Fate {
        match self {
            Error::Away { .. } => Fate::Retry(Duration::from_millis(100)),
            Error::Fenced => Fate::LetGo,
            Error::Url(_) | Error::Refused { .. } | Error::Pins { .. } | Error::Run { .. } | Error::Corrupt { .. } => {
                Fate::Reject
            }
        }
    }
}
