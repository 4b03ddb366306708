//! The store in Redis 7 or newer, alone or as a cluster.
//!
//! Every atomic step is a Lua script beside this file; `partition.lua` lists the keys.

mod claims;
mod clock;
mod connection;
mod diagnose;
mod ears;
mod reply;
mod runs;
mod samples;
mod scripts;
mod snapshot;

use std::{
    collections::HashMap,
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use isochrone_model::id::{Partition, RunName};
use redis::Value;

use crate::{Error, Store, announce::Announcements, types::RunRecord};
use connection::Connection;
use scripts::{Call, Script};

/// Every announcement of every run.
const CHANNEL: &str = "isochrone:changes";

/// Where Redis is.
#[derive(Clone)]
pub struct RedisConfig {
    /// `redis://` or `rediss://`; several addresses are nodes of one cluster.
    pub urls: Vec<String>,
    /// PEM file of the CA that signed the server's certificate; the system's otherwise.
    pub tls_ca: Option<PathBuf>,
    /// Publish and wait for announcements (else every daemon polls).
    pub announce: bool,
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urls: Vec<String> = self.urls.iter().map(|url| connection::address_of(url)).collect();
        f.debug_struct("RedisConfig")
            .field("urls", &urls)
            .field("tls_ca", &self.tls_ca)
            .field("announce", &self.announce)
            .finish()
    }
}

/// Keeps everything in Redis.
pub struct RedisStore {
    connection: Connection,
    /// TIME must not wait behind a large reply.
    clock: clock::Clock,
    /// What calls need to know of a run: it never changes while the run lives.
    known: Mutex<HashMap<RunName, Known>>,
    announcements: Option<Announcements>,
    listener: OnceLock<tokio::task::AbortHandle>,
}

/// What every call to a run carries.
#[derive(Clone, Copy)]
struct Known {
    partitions: u16,
    whole_partitions: bool,
    keep_ms: u64,
}

/// The keys of one run or one partition, and how its scripts announce and expire them.
struct Place {
    prefix: String,
    name: String,
    keep_ms: u64,
    channel: &'static str,
}

impl RedisStore {
    /// Checks the configuration; connects at the first call and again after every break.
    pub fn connect(config: &RedisConfig) -> Result<Arc<RedisStore>, Error> {
        let target = connection::Target::new(config)?;
        Ok(Arc::new(RedisStore {
            connection: Connection::new(target.clone()),
            clock: clock::Clock::new(target),
            known: Mutex::default(),
            announcements: config.announce.then(Announcements::new),
            listener: OnceLock::new(),
        }))
    }

    fn channel(&self) -> &'static str {
        if self.announcements.is_some() { CHANNEL } else { "" }
    }

    /// The keys of a run, whether it exists or not.
    fn run_place(&self, run: &RunName, keep_ms: u64) -> Place {
        Place {
            prefix: format!("isochrone:{{{run}}}:"),
            name: run.to_string(),
            keep_ms,
            channel: self.channel(),
        }
    }

    /// The keys of a partition of a run known to exist.
    fn place(&self, run: &RunName, partition: Partition, known: Known) -> Place {
        Place {
            prefix: format!("isochrone:{{{run}:{partition}}}:"),
            name: format!("{run} {partition}"),
            keep_ms: known.keep_ms,
            channel: self.channel(),
        }
    }

    async fn known(&self, run: &RunName) -> Result<Known, Error> {
        let cached = self
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(run)
            .copied();
        if let Some(known) = cached {
            return Ok(known);
        }
        match self.record(run).await? {
            Some(record) => Ok(self.remember(&record)),
            None => Err(unknown(run)),
        }
    }

    fn remember(&self, record: &RunRecord) -> Known {
        let known = Known {
            partitions: record.pins.partitions,
            whole_partitions: record.pins.whole_partitions(),
            keep_ms: record.keep.as_millis() as u64,
        };
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(record.run.clone(), known);
        known
    }

    fn forget(&self, run: &RunName) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(run);
    }

    /// Runs one script in a partition.
    async fn within(
        &self,
        run: &RunName,
        partition: Partition,
        script: &'static Script,
        fill: impl FnOnce(Call) -> Call,
    ) -> Result<Value, Error> {
        let place = self.place(run, partition, self.known(run).await?);
        self.connection.call(fill(place.call(script))).await
    }

    /// Runs one script on the run's record and roster.
    async fn in_run(
        &self,
        run: &RunName,
        script: &'static Script,
        fill: impl FnOnce(Call) -> Call,
    ) -> Result<Value, Error> {
        let known = self.known(run).await?;
        let place = self.run_place(run, known.keep_ms);
        self.connection.call(fill(place.call(script))).await
    }
}

impl Place {
    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn call(&self, script: &'static Script) -> Call {
        Call::script(script, &self.prefix)
            .arg(self.keep_ms)
            .arg(self.channel)
            .arg(&self.name)
    }
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        if let Some(listener) = self.listener.get() {
            listener.abort();
        }
    }
}

impl Store for RedisStore {
    fn memory(&self) -> Duration {
        // `appendfsync everysec` loses a second; the other is for the fsync that was under way.
        Duration::from_secs(2)
    }
}

fn unknown(run: &RunName) -> Error {
    Error::Run {
        run: run.clone(),
        cause: "unknown".to_owned(),
    }
}
