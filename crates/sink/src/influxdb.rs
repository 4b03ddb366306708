//! The InfluxDB sink: each part of a window as one line of line protocol, to `/write` (InfluxDB 1) or `/api/v2/write`.
//!
//! A point's identity is its tags and its time, which is the second and, in nanoseconds, the number of its cut: parts do not
//! overwrite each other, what is written twice is there once, and no tag grows.

mod fields;
mod line;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use isochrone_model::{
    id::{Partition, RunName},
    time::Second,
    window::Totals,
};
use reqwest::{Client, StatusCode, Url};

use crate::{
    Cut, Delivery, Departure, Error, Needs, Sink,
    contract::Counts,
    http::{self, ClientError},
    topics::Topics,
};
use fields::lines;

/// Bytes of one request before compression: some thousand lines, which is what InfluxDB advises.
const REQUEST_BYTES: usize = 1 << 20;

/// The field that keeps which topics have names.
const TOPICS: &str = "topics";

/// What the sink is made of.
#[derive(Clone)]
pub struct Config {
    /// Such as `http://localhost:8086`.
    pub url: String,
    /// Which API, with what it needs.
    pub api: Api,
    /// PEM file with the certificates to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// Topics with series of their own.
    pub topics: usize,
    /// Upper bounds of the bucket fields in seconds, ascending.
    pub buckets: Vec<f64>,
}

/// The write endpoint.
#[derive(Clone)]
pub enum Api {
    /// `/write`.
    V1 {
        /// Which database; it must exist.
        database: String,
        /// User and password.
        user: Option<(String, String)>,
    },
    /// `/api/v2/write`.
    V2 {
        /// Organisation, where the server has them.
        org: Option<String>,
        /// Which bucket; it must exist.
        bucket: String,
        /// API token.
        token: Option<String>,
    },
}

/// Settings that cannot work. Fits after "failed to".
#[derive(Debug, thiserror::Error)]
pub enum BadConfig {
    /// About the client.
    #[error("{0}")]
    Client(#[from] ClientError),
    /// The address.
    #[error("use ISOCHRONE_INFLUXDB_URL {0:?}: not a URL")]
    Url(String),
}

/// The sink.
pub struct InfluxDb {
    config: Config,
    client: Client,
    /// Without secrets.
    address: Url,
    partitions: Mutex<BTreeMap<(RunName, Partition), Topics>>,
}

/// A cut's lines by the topic they show under.
type Lines = BTreeMap<String, Vec<u8>>;

impl InfluxDb {
    /// Nothing is connected yet.
    ///
    /// # Errors
    /// Settings that cannot work.
    pub fn new(config: Config) -> Result<InfluxDb, BadConfig> {
        let bad = || BadConfig::Url(config.url.clone());
        let mut address = Url::parse(&config.url).map_err(|_| bad())?;
        let path: &[&str] = match config.api {
            Api::V1 { .. } => &["write"],
            Api::V2 { .. } => &["api", "v2", "write"],
        };
        address
            .path_segments_mut()
            .map_err(|()| bad())?
            .pop_if_empty()
            .extend(path);
        match &config.api {
            Api::V1 { database, .. } => {
                address.query_pairs_mut().append_pair("db", database);
            }
            Api::V2 { org, bucket, .. } => {
                let mut pairs = address.query_pairs_mut();
                pairs.append_pair("bucket", bucket);
                if let Some(org) = org {
                    pairs.append_pair("org", org);
                }
            }
        }
        Ok(InfluxDb {
            client: http::client(config.ca.as_ref())?,
            config,
            address,
            partitions: Mutex::default(),
        })
    }

    fn partitions(&self) -> MutexGuard<'_, BTreeMap<(RunName, Partition), Topics>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lines(&self, cut: &Cut) -> Lines {
        let partitions = self.partitions();
        let topics = partitions.get(&(cut.run.clone(), cut.partition));
        topics.map_or_else(Lines::new, |topics| lines(cut, topics, &self.config.buckets))
    }

    /// Writes the lines in requests of a bounded size.
    async fn write(&self, all: impl Iterator<Item = &[u8]>) -> Result<(), Error> {
        let mut body = Vec::new();
        for lines in all {
            if !body.is_empty() && body.len() + lines.len() > REQUEST_BYTES {
                self.post(&std::mem::take(&mut body)).await?;
            }
            body.extend_from_slice(lines);
        }
        if body.is_empty() {
            Ok(())
        } else {
            self.post(&body).await
        }
    }

    async fn post(&self, body: &[u8]) -> Result<(), Error> {
        let request = self
            .client
            .post(self.address.clone())
            .header("Content-Type", "text/plain; charset=utf-8")
            .header("Content-Encoding", "gzip")
            .body(http::gzip(body));
        let request = match &self.config.api {
            Api::V1 {
                user: Some((user, password)),
                ..
            } => request.basic_auth(user, Some(password)),
            Api::V2 { token: Some(token), .. } => request.header("Authorization", format!("Token {token}")),
            Api::V1 { user: None, .. } | Api::V2 { token: None, .. } => request,
        };
        let answer = request.send().await.map_err(|error| Error::Away {
            address: self.address.to_string(),
            cause: format!("{} (ISOCHRONE_INFLUXDB_URL)", http::cause(error)),
        })?;
        if answer.status().is_success() {
            return Ok(());
        }
        let status = answer.status();
        let after = http::retry_after(answer.headers());
        let cause = http::excerpt(answer).await;
        Err(self.error(status, cause, after))
    }

    /// What needs a person is tried again, and the store keeps what waits; what the server will never take is set aside.
    fn error(&self, status: StatusCode, cause: String, after: Option<std::time::Duration>) -> Error {
        let address = self.address.to_string();
        let see = |settings: &str| Error::Denied {
            address: address.clone(),
            cause: format!("{cause} (see {settings})"),
        };
        match (status, &self.config.api) {
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, Api::V1 { .. }) => {
                see("ISOCHRONE_INFLUXDB_USERNAME and ISOCHRONE_INFLUXDB_PASSWORD")
            }
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, Api::V2 { .. }) => see("ISOCHRONE_INFLUXDB_TOKEN"),
            (StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED, Api::V1 { .. }) => {
                see("ISOCHRONE_INFLUXDB_DATABASE and ISOCHRONE_INFLUXDB_URL")
            }
            (StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED, Api::V2 { .. }) => {
                see("ISOCHRONE_INFLUXDB_BUCKET, ISOCHRONE_INFLUXDB_ORG and ISOCHRONE_INFLUXDB_URL")
            }
            // Not followed: the setting must say where.
            (status, _) if status.is_redirection() => see("ISOCHRONE_INFLUXDB_URL"),
            (status, _) if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                Error::Busy { address, cause, after }
            }
            _ => Error::Poison { address, cause },
        }
    }

    /// A cut that was refused as a whole: topic by topic, so that only what the server will not have is set aside. A partial
    /// write has stored the other points already; they are the same when they come again.
    async fn salvage(&self, cut: &Cut, lines: &Lines) -> Result<Delivery, Error> {
        let mut refused = BTreeSet::new();
        let mut last = None;
        for (topic, bytes) in lines {
            match self.post(bytes).await {
                Ok(()) => {}
                Err(error @ Error::Poison { .. }) => {
                    refused.insert(topic.as_str());
                    last = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(error) = last.filter(|_| refused.len() == lines.len()) {
            return Err(error);
        }
        let partitions = self.partitions();
        let topics = partitions.get(&(cut.run.clone(), cut.partition));
        let account = |(topic, samples): (&isochrone_model::id::Topic, &u64)| {
            let gone = topics.is_some_and(|topics| refused.contains(topics.label(topic)));
            let counts = Counts {
                exported: if gone { 0 } else { *samples },
                set_aside: if gone { *samples } else { 0 },
                ..Counts::default()
            };
            (topic.clone(), counts)
        };
        Ok(Delivery {
            topics: cut.samples.iter().map(account).collect(),
        })
    }
}

#[async_trait]
impl Sink for InfluxDb {
    fn name(&self) -> &'static str {
        "influxdb"
    }

    fn needs(&self) -> Needs {
        Needs::EveryCut
    }

    fn recall(&self, run: &RunName, partition: Partition, kept: &[(String, Vec<u8>)]) {
        let topics = kept.iter().find(|(field, _)| field == TOPICS);
        let topics = topics.map(|(_, bytes)| Topics::unpack(bytes)).unwrap_or_default();
        self.partitions().insert((run.clone(), partition), topics);
    }

    fn keep(&self, run: &RunName, partition: Partition, _: Second, totals: &Totals) -> Vec<(String, Vec<u8>)> {
        let mut partitions = self.partitions();
        let named: usize = partitions.values().map(Topics::named).sum();
        let topics = partitions.entry((run.clone(), partition)).or_default();
        if topics.admit(totals.topics().keys(), self.config.topics.saturating_sub(named)) {
            vec![(TOPICS.to_owned(), topics.pack())]
        } else {
            Vec::new()
        }
    }

    async fn deliver(&self, batch: &[Arc<Cut>]) -> Result<Vec<Delivery>, Error> {
        let lines: Vec<Lines> = batch.iter().map(|cut| self.lines(cut)).collect();
        let all = lines.iter().flat_map(Lines::values).map(Vec::as_slice);
        match (self.write(all).await, batch, lines.as_slice()) {
            (Ok(()), ..) => Ok(batch.iter().map(|cut| cut.delivered()).collect()),
            (Err(Error::Poison { .. }), [cut], [lines]) if lines.len() > 1 => Ok(vec![self.salvage(cut, lines).await?]),
            (Err(error), ..) => Err(error),
        }
    }

    fn depart(&self, run: &RunName, partition: Partition, _: Departure) {
        self.partitions().remove(&(run.clone(), partition));
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("url", &self.url).finish_non_exhaustive()
    }
}
