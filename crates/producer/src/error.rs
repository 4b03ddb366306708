//! The producer's errors. Each stops it; what can be repeated is repeated where it happens.

use std::{io, time::Duration};

/// Why a producer cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting that only this daemon can judge.
    #[error("use {setting}: {cause}")]
    Setting {
        /// The variable.
        setting: &'static str,
        /// Why, without secrets.
        cause: String,
    },
    /// The store refused.
    #[error(transparent)]
    Store(#[from] isochrone_store::Error),
    /// No connection can be made.
    #[error(transparent)]
    Transport(#[from] isochrone_transport::Error),
    /// No worker thread.
    #[error("start a worker thread: {0}")]
    Thread(io::Error),
    /// No precise timer.
    #[error("use a timerfd: {0}")]
    Timer(io::Error),
    /// A task of a worker panicked.
    #[error("keep a worker's task running: {0}")]
    Task(tokio::task::JoinError),
    /// A worker thread ended without a word.
    #[error("keep worker thread producer-{0} running: it ended early")]
    Worker(usize),
    /// The store was away until the end.
    #[error("write the last words of run {run} within {waited:?}: the store does not answer")]
    LastWords {
        /// The run.
        run: String,
        /// How long it was tried.
        waited: Duration,
    },
}
