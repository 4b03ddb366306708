//! Keeps what this daemon holds: renews its rows in the roster and the partitions, all in one pipeline.

use std::time::Duration;

use isochrone_model::{
    id::{Partition, Token, Topic},
    time::Monotonic,
};
use isochrone_store::Error;
use tokio::time::timeout;

mod diary;
mod keeper;

pub use keeper::LeaseKeeper;

/// What a holder must know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseEvent {
    /// The row in the roster is gone: this daemon was found dead.
    RosterLost,
    /// The row in this partition is gone, and with it everything held there. It is not renewed any more.
    PartitionLost(Partition),
    /// Renewed.
    Held {
        /// Where.
        partition: Partition,
        /// Before the store was asked: what was taken later may not be in the list.
        asked_at: Monotonic,
        /// The claims held there.
        claims: Vec<(Topic, Token)>,
    },
    /// The store does not answer; what is held stays held for as long as nobody can see it expire.
    Away,
    /// The store answers again.
    Back,
    /// The server's run id changed: register again and send again what is younger than `store.memory()`.
    NewServerLife,
}

/// A call to the store with a deadline.
pub(crate) async fn answer<T>(within: Duration, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match timeout(within, call).await {
        Ok(answer) => answer,
        Err(_) => Err(Error::Away {
            address: "its address".to_owned(),
            cause: format!("no answer within {within:?}"),
        }),
    }
}
