//! The consumer's errors.

/// Why a consumer cannot work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store refused.
    #[error(transparent)]
    Store(#[from] isochrone_store::Error),
    /// A thread could not be started.
    #[error("start a receiving thread: {0}")]
    Thread(#[source] std::io::Error),
}
