//! Why a plotter ends early.

use isochrone_model::id::RunName;

/// What cannot be retried. Messages fit after "failed to".
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store refuses us.
    #[error(transparent)]
    Store(#[from] isochrone_store::Error),
    /// The run of ISOCHRONE_RUN was already closed when the plotter started.
    #[error("work on run {0}: it is closed")]
    Closed(RunName),
}
