//! The reference clock: TIME of one node.

use async_trait::async_trait;
use isochrone_model::{id::RunName, time::Reference};
use redis::{AsyncConnectionConfig, RedisResult, aio::MultiplexedConnection, cmd};
use tokio::{sync::Mutex, time::timeout};

use super::{
    RedisStore,
    connection::{Connection, Target},
    reply::{corrupt, read},
    scripts::{CLOCK, Call},
};
use crate::{Error, ReferenceClock, lease::ANSWER_WITHIN};

pub(super) struct Clock {
    target: Target,
    /// The connection with the server's run id, read once: a restarted server takes a new connection.
    link: Mutex<Option<(MultiplexedConnection, String)>>,
    cluster: Connection,
}

impl Clock {
    pub fn new(target: Target) -> Clock {
        Clock {
            cluster: Connection::new(target.clone()),
            target,
            link: Mutex::new(None),
        }
    }

    async fn of_server(&self) -> Result<(Reference, String), Error> {
        // Taken out: a reading that fails, or is given up by its caller, leaves none behind.
        let mut slot = self.link.lock().await;
        let link = slot.take();
        let read = timeout(ANSWER_WITHIN, async {
            let (mut connection, life) = match link {
                Some(link) => link,
                None => connect(&self.target).await?,
            };
            let time: (i64, i64) = cmd("TIME").query_async(&mut connection).await?;
            RedisResult::Ok((time, connection, life))
        });
        let read = read.await.map_err(|_| self.target.silent())?;
        let (time, connection, life) = read.map_err(|error| self.target.fail(&error))?;
        *slot = Some((connection, life.clone()));
        Ok((reference(time), life))
    }

    /// A script, because its key leads to the node that owns the run's clock.
    async fn of_cluster(&self, run: Option<&RunName>) -> Result<(Reference, String), Error> {
        let prefix = match run {
            Some(run) => format!("isochrone:{{{run}}}:clock"),
            None => "isochrone:{runs}:clock".to_owned(),
        };
        let answer = self.cluster.call(Call::script(&CLOCK, &prefix)).await?;
        let (seconds, micros, server): (i64, i64, String) = read("clock", answer)?;
        Ok((reference((seconds, micros)), run_id(&server)?))
    }
}

async fn connect(target: &Target) -> RedisResult<(MultiplexedConnection, String)> {
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    let mut connection = target
        .first
        .get_multiplexed_async_connection_with_config(&config)
        .await?;
    let server: String = cmd("INFO").arg("server").query_async(&mut connection).await?;
    let life = run_id(&server).unwrap_or_default();
    Ok((connection, life))
}

fn reference((seconds, micros): (i64, i64)) -> Reference {
    Reference(seconds * 1_000_000_000 + micros * 1000)
}

fn run_id(info: &str) -> Result<String, Error> {
    let id = info.lines().find_map(|line| line.strip_prefix("run_id:"));
    id.map(|id| id.trim().to_owned())
        .ok_or_else(|| corrupt("INFO server", "no run_id"))
}

#[async_trait]
impl ReferenceClock for RedisStore {
    async fn read(&self, run: Option<&RunName>) -> Result<(Reference, String), Error> {
        if self.clock.target.is_cluster() {
            return self.clock.of_cluster(run).await;
        }
        self.clock.of_server().await
    }
}
