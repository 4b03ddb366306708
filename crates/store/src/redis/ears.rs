//! Hearing announcements, on a connection of their own.

use std::time::Duration;

use futures_util::StreamExt;
use isochrone_model::id::Partition;
use redis::{Client, RedisResult};
use tokio::{
    sync::broadcast::Sender,
    time::{sleep, timeout},
};

use super::CHANNEL;
use crate::{lease::ANSWER_WITHIN, types::Change};

/// Between two attempts to listen; meanwhile daemons poll.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Listens for ever.
pub(super) async fn listen(client: Client, changes: Sender<Change>) {
    loop {
        // A failure is no news: the daemon's calls fail likewise and say so.
        let _ = hear(&client, &changes).await;
        sleep(RETRY_AFTER).await;
    }
}

async fn hear(client: &Client, changes: &Sender<Change>) -> RedisResult<()> {
    let connected = timeout(ANSWER_WITHIN, async {
        let mut connection = client.get_async_pubsub().await?;
        connection.subscribe(CHANNEL).await?;
        RedisResult::Ok(connection)
    });
    let Ok(connection) = connected.await else { return Ok(()) };
    let mut messages = connection?.into_on_message();
    while let Some(message) = messages.next().await {
        if let Some(change) = change(&message.get_payload::<String>()?) {
            let _ = changes.send(change);
        }
    }
    Ok(())
}

/// Reads `run NAME`, `free NAME PARTITION`, `ready NAME PARTITION`.
fn change(text: &str) -> Option<Change> {
    let mut words = text.split(' ');
    let (kind, run) = (words.next()?, words.next()?.parse().ok()?);
    let mut partition = || words.next()?.parse().ok().map(Partition);
    match kind {
        "run" => Some(Change::Run(run)),
        "free" => Some(Change::Free(run, partition()?)),
        "ready" => Some(Change::Ready(run, partition()?)),
        _ => None,
    }
}
