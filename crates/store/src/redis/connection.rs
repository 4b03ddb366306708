//! One connection to Redis or to a cluster: made when needed, dropped when it fails.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::try_join_all;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, ErrorKind, IntoConnectionInfo, RedisError, RedisResult,
    ServerErrorKind, TlsCertificates, Value,
    aio::MultiplexedConnection,
    cluster::{ClusterClient, ClusterClientBuilder},
    cluster_async::ClusterConnection,
    io::tcp::TcpSettings,
};
use tokio::{sync::Mutex, time::timeout};
use url::Url;

use super::{RedisConfig, scripts::Call};
use crate::{Error, lease::ANSWER_WITHIN};

/// For replies that grow with the run.
const LARGE_ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// What a server says that cannot do it now: its memory is full, its disk or its replicas fail it, a script of somebody's
/// runs. Its connection is as good as before.
const NOT_NOW: [&str; 4] = ["OOM", "MISCONF", "NOREPLICAS", "BUSY"];

/// What to connect to.
#[derive(Clone)]
pub(super) struct Target {
    /// Hosts and ports, without secrets.
    pub address: Arc<str>,
    /// The first address, also of a cluster: announcements reach all of its nodes.
    pub first: Client,
    cluster: Option<ClusterClient>,
}

/// A live connection. Clones share it.
#[derive(Clone)]
enum Link {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// A connection that is made again after every failure, by the next call.
pub(super) struct Connection {
    target: Target,
    link: Mutex<Option<Link>>,
    /// Counts attempts to connect, so that calls that waited for one that failed do not each make their own.
    attempts: AtomicU64,
}

impl Target {
    pub fn new(config: &RedisConfig) -> Result<Target, Error> {
        let infos = config.urls.iter().map(|url| info(url)).collect::<Result<Vec<_>, _>>()?;
        let Some(first) = infos.first() else {
            return Err(Error::Url("no address is given".to_owned()));
        };
        let certificates = || -> Result<TlsCertificates, Error> {
            let read = |path: &PathBuf| {
                fs::read(path)
                    .map_err(|cause| Error::Url(format!("ISOCHRONE_REDIS_TLS_CA {}: {cause}", path.display())))
            };
            Ok(TlsCertificates {
                client_tls: None,
                root_cert: config.tls_ca.as_ref().map(read).transpose()?,
            })
        };
        let refuse = |error: RedisError| Error::Url(format!("{}: {error}", address_of(&config.urls[0])));
        let tls = config.urls[0].starts_with("rediss:");
        let client = if tls {
            Client::build_with_tls(first.clone(), certificates()?)
        } else {
            Client::open(first.clone())
        };
        let client = client.map_err(refuse)?;
        let cluster = if infos.len() > 1 {
            let mut builder = ClusterClientBuilder::new(infos)
                .connection_timeout(ANSWER_WITHIN)
                .response_timeout(LARGE_ANSWER_WITHIN)
                .tcp_settings(tcp_settings())
                .retries(2);
            if tls {
                builder = builder.certs(certificates()?);
            }
            Some(builder.build().map_err(refuse)?)
        } else {
            None
        };
        let addresses: Vec<String> = config.urls.iter().map(|url| address_of(url)).collect();
        Ok(Target {
            address: addresses.join(",").into(),
            first: client,
            cluster,
        })
    }

    pub fn is_cluster(&self) -> bool {
        self.cluster.is_some()
    }

    /// What became of a call, with its fate; without secrets.
    pub fn fail(&self, error: &RedisError) -> Error {
        let (address, cause) = (self.address.to_string(), error.to_string());
        let away = match error.kind() {
            ErrorKind::Server(kind) => matches!(
                kind,
                ServerErrorKind::BusyLoading
                    | ServerErrorKind::TryAgain
                    | ServerErrorKind::ClusterDown
                    | ServerErrorKind::MasterDown
                    | ServerErrorKind::ReadOnly
                    | ServerErrorKind::Moved
                    | ServerErrorKind::Ask
            ),
            // A certificate does not get better with time.
            ErrorKind::Io => !cause.contains("certificate"),
            ErrorKind::Extension => is_not_now(error),
            ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig => false,
            _ => true,
        };
        if away {
            Error::Away { address, cause }
        } else {
            Error::Refused { address, cause }
        }
    }

    pub fn silent(&self) -> Error {
        let cause = format!("no answer within {} ms", ANSWER_WITHIN.as_millis());
        Error::Away {
            address: self.address.to_string(),
            cause,
        }
    }

    async fn connect(&self) -> RedisResult<Link> {
        if let Some(cluster) = &self.cluster {
            return Ok(Link::Cluster(cluster.get_async_connection().await?));
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(ANSWER_WITHIN))
            // Each call has its own.
            .set_response_timeout(None);
        Ok(Link::Single(
            self.first.get_multiplexed_async_connection_with_config(&config).await?,
        ))
    }
}

impl Connection {
    pub fn new(target: Target) -> Connection {
        Connection {
            target,
            link: Mutex::new(None),
            attempts: AtomicU64::new(0),
        }
    }

    /// For a connection of another kind to the same server.
    pub fn client(&self) -> Client {
        self.target.first.clone()
    }

    pub async fn call(&self, call: Call) -> Result<Value, Error> {
        Ok(self.send(&[call], ANSWER_WITHIN).await?.pop().unwrap_or_default())
    }

    pub async fn call_for_much(&self, call: Call) -> Result<Value, Error> {
        Ok(self.send(&[call], LARGE_ANSWER_WITHIN).await?.pop().unwrap_or_default())
    }

    /// All calls in one pipeline, answers in their order; fails when one of them does.
    pub async fn pipeline(&self, calls: &[Call]) -> Result<Vec<Value>, Error> {
        self.send(calls, ANSWER_WITHIN).await
    }

    async fn send(&self, calls: &[Call], within: Duration) -> Result<Vec<Value>, Error> {
        let mut link = self.link().await?;
        match timeout(within, link.send(calls)).await {
            Ok(Ok(answers)) => Ok(answers),
            Ok(Err(said)) => {
                let error = self.target.fail(&said);
                if matches!(error, Error::Away { .. }) && !is_not_now(&said) {
                    self.hang_up().await;
                }
                Err(error)
            }
            Err(_) => {
                self.hang_up().await;
                Err(self.target.silent())
            }
        }
    }

    pub async fn hang_up(&self) {
        *self.link.lock().await = None;
    }

    async fn link(&self) -> Result<Link, Error> {
        let before = self.attempts.load(Ordering::Acquire);
        let mut link = self.link.lock().await;
        if let Some(link) = &*link {
            return Ok(link.clone());
        }
        if self.attempts.load(Ordering::Acquire) != before {
            let cause = "the connection attempt under way failed".to_owned();
            return Err(Error::Away {
                address: self.target.address.to_string(),
                cause,
            });
        }
        let made = timeout(ANSWER_WITHIN, self.target.connect()).await;
        self.attempts.fetch_add(1, Ordering::Release);
        let made = made
            .map_err(|_| self.target.silent())?
            .map_err(|error| self.target.fail(&error))?;
        Ok(link.insert(made).clone())
    }
}

impl Link {
    async fn send(&mut self, calls: &[Call]) -> RedisResult<Vec<Value>> {
        match self {
            Link::Single(connection) => send_pipelined(connection, calls).await,
            // Each to the node of its key.
            Link::Cluster(connection) => {
                try_join_all(calls.iter().map(|call| send_one(connection.clone(), call))).await
            }
        }
    }
}

async fn send_pipelined(connection: &mut MultiplexedConnection, calls: &[Call]) -> RedisResult<Vec<Value>> {
    let commands: Vec<&Cmd> = calls.iter().map(|call| &call.cmd).collect();
    let mut answers = pipe(connection, &commands).await?;
    let is_unknown = |answer: &RedisResult<Value>| answer.as_ref().is_err_and(is_unknown_script);
    let missing: Vec<usize> = (0..answers.len())
        .filter(|&index| is_unknown(&answers[index]))
        .collect();
    if !missing.is_empty() {
        let in_full: Vec<Cmd> = missing.iter().filter_map(|&index| calls[index].in_full()).collect();
        let again = pipe(connection, &in_full.iter().collect::<Vec<_>>()).await?;
        for (index, answer) in missing.into_iter().zip(again) {
            answers[index] = answer;
        }
    }
    answers.into_iter().collect()
}

async fn pipe(connection: &mut MultiplexedConnection, commands: &[&Cmd]) -> RedisResult<Vec<RedisResult<Value>>> {
    if let [command] = commands {
        return match command.query_async(connection).await {
            Err(error) if error.is_unrecoverable_error() => Err(error),
            answer => Ok(vec![answer]),
        };
    }
    let mut pipeline = redis::Pipeline::with_capacity(commands.len());
    for command in commands {
        pipeline.add_command((*command).clone());
    }
    pipeline.ignore_errors().query_async(connection).await
}

async fn send_one(mut connection: ClusterConnection, call: &Call) -> RedisResult<Value> {
    match (call.cmd.query_async(&mut connection).await, call.in_full()) {
        (Err(error), Some(in_full)) if is_unknown_script(&error) => in_full.query_async(&mut connection).await,
        (answer, _) => answer,
    }
}

fn is_not_now(error: &RedisError) -> bool {
    error.code().is_some_and(|code| NOT_NOW.contains(&code))
}

fn is_unknown_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

fn info(url: &str) -> Result<ConnectionInfo, Error> {
    let parsed = Url::parse(url).map_err(|cause| Error::Url(format!("{}: {cause}", address_of(url))))?;
    if !matches!(parsed.scheme(), "redis" | "rediss") {
        let cause = format!("scheme {:?} is neither redis nor rediss", parsed.scheme());
        return Err(Error::Url(format!("{}: {cause}", address_of(url))));
    }
    let info = parsed.into_connection_info();
    let info = info.map_err(|error| Error::Url(format!("{}: {error}", address_of(url))))?;
    let settings = info.redis_settings().clone().set_skip_set_lib_name();
    Ok(info.set_redis_settings(settings).set_tcp_settings(tcp_settings()))
}

fn tcp_settings() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}

/// Host and port of a URL; nothing else of it may be shown.
pub(super) fn address_of(url: &str) -> String {
    match Url::parse(url) {
        Ok(url) => format!("{}:{}", url.host_str().unwrap_or("?"), url.port().unwrap_or(6379)),
        Err(_) => "an address that cannot be read".to_owned(),
    }
}
