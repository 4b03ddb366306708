//! What can go wrong with a back end, and what follows.

use std::time::Duration;

/// Why a delivery failed. Messages fit after "failed to".
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Unreachable, timed out, broken off: the delivery may or may not have happened.
    #[error("reach {address}: {cause}")]
    Away {
        /// Where, without secrets.
        address: String,
        /// What the client said.
        cause: String,
    },
    /// The back end asks for a pause (429, 503).
    #[error("write to {address}: {cause}")]
    Busy {
        /// Where, without secrets.
        address: String,
        /// What it said.
        cause: String,
        /// How long it wants to be left alone, if it said so.
        after: Option<Duration>,
    },
    /// It does not let us in, not do this, or is elsewhere: someone must give us the right or mend a setting, then it goes on.
    #[error("write to {address}: {cause}")]
    Denied {
        /// Where, without secrets.
        address: String,
        /// What is lacking, and where it is set.
        cause: String,
    },
    /// It will never take this batch (a document it cannot parse, a size it refuses).
    #[error("write to {address}: {cause}")]
    Poison {
        /// Where, without secrets.
        address: String,
        /// What it said.
        cause: String,
    },
}

/// What to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Try the same batch again, not before this long (`None`: the runner's own backoff decides).
    Retry(Option<Duration>),
    /// Halve the batch and try again; a single cut that is refused is set aside and counted.
    SetAside,
}

impl Error {
    /// What to do about it.
    pub fn fate(&self) -> Fate {
        match self {
            Error::Away { .. } | Error::Denied { .. } => Fate::Retry(None),
            Error::Busy { after, .. } => Fate::Retry(*after),
            Error::Poison { .. } => Fate::SetAside,
        }
    }
}
