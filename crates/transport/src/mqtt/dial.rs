//! From nothing to CONNACK and, at the end, from DISCONNECT to the broker's close: each phase measured, each with a
//! deadline. It happens a few times a connection, so it is plain async code in a boxed future.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use isochrone_model::time::{Clock, Monotonic};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, lookup_host},
    sync::Mutex,
    time::{Instant, timeout},
};
use tokio_rustls::TlsConnector;

use crate::{
    Connected, ConnectionConfig, Disconnected, MqttVersion,
    mqtt::{
        codec::{self, Accepted},
        reason::{self, Phase},
        stream::Stream,
        url::Address,
        wire::{self, packet},
    },
};

/// How long each phase of connecting may take.
const PHASE: Duration = Duration::from_secs(5);
/// How long leaving may take.
const LEAVE: Duration = Duration::from_secs(2);
/// How long a looked up host name is believed, so that a fleet that connects asks once.
const LOOKUP_FRESH: Duration = Duration::from_secs(5);

/// A broker, shared by all connections of a transport.
pub(super) struct Target {
    pub address: Address,
    found: Mutex<Option<(Instant, Vec<SocketAddr>)>>,
}

/// All that connecting needs.
pub(super) struct Dialer {
    pub target: Arc<Target>,
    pub tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    pub config: ConnectionConfig,
    pub clock: Arc<dyn Clock>,
}

/// A connection that has got its CONNACK.
pub(super) struct Established {
    pub stream: Stream,
    pub connected: Connected,
    pub accepted: Accepted,
    /// What came behind the CONNACK.
    pub rest: Vec<u8>,
}

/// How to treat the session that the broker may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sessions {
    /// Go on with it.
    Resume,
    /// Delete it, then open a new one that lasts.
    Clear,
}

impl Target {
    pub fn new(address: Address) -> Target {
        Target {
            address,
            found: Mutex::new(None),
        }
    }

    async fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        if let Some(literal) = self.address.literal() {
            return Ok(vec![literal]);
        }
        let mut found = self.found.lock().await;
        if let Some((at, addresses)) = &*found
            && at.elapsed() < LOOKUP_FRESH
        {
            return Ok(addresses.clone());
        }
        let addresses: Vec<_> = lookup_host((self.address.host.as_str(), self.address.port))
            .await?
            .collect();
        if addresses.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no address"));
        }
        *found = Some((Instant::now(), addresses.clone()));
        Ok(addresses)
    }
}

impl Dialer {
    /// Whether the broker keeps nothing for this client id.
    pub fn is_clean(&self) -> bool {
        self.config.session_expiry.is_zero()
    }

    /// Connects.
    pub async fn dial(&self, sessions: Sessions) -> Result<Established, Disconnected> {
        let clear = sessions == Sessions::Clear && !self.is_clean();
        if clear && self.config.version == MqttVersion::V311 {
            // In 3.1.1 a clean session also ends with the connection: it takes one to delete, another to stay.
            let throwaway = self.attempt(true, Duration::ZERO).await?;
            leave(throwaway.stream, codec::disconnect(self.config.version, false)).await;
        }
        let clean_start = self.is_clean() || (clear && self.config.version == MqttVersion::V5);
        self.attempt(clean_start, self.config.session_expiry).await
    }

    /// Deletes the broker's session by a clean one; an unreachable broker is not waited for longer than the deadlines.
    pub async fn remove_session(&self) {
        match self.attempt(true, Duration::ZERO).await {
            Ok(clean) => leave(clean.stream, codec::disconnect(self.config.version, false)).await,
            Err(error) => {
                tracing::warn!(
                    client_id = self.config.client_id,
                    "failed to delete the broker's session: {}",
                    error.detail
                );
            }
        }
    }

    async fn attempt(&self, clean: bool, session_expiry: Duration) -> Result<Established, Disconnected> {
        let shown = self.target.address.shown.as_str();
        let started = self.clock.monotonic();
        let tcp = timeout(PHASE, self.tcp())
            .await
            .map_err(|_| reason::deadline(Phase::Tcp, shown, PHASE.as_secs()))??;
        let tcp_done = self.clock.monotonic();
        let (mut stream, tls_ns) = match &self.tls {
            None => (Stream::Tcp(tcp), None),
            Some((config, name)) => {
                let handshake = TlsConnector::from(config.clone()).connect(name.clone(), tcp);
                let stream = timeout(PHASE, handshake)
                    .await
                    .map_err(|_| reason::deadline(Phase::Tls, shown, PHASE.as_secs()))?
                    .map_err(|error| self.failed(Phase::Tls, &error))?;
                (
                    Stream::Tls(Box::new(stream)),
                    Some(nanos(self.clock.monotonic(), tcp_done)),
                )
            }
        };
        let asked = self.clock.monotonic();
        let connack = self.connack(&mut stream, clean, session_expiry);
        let (accepted, rest, at) = timeout(PHASE, connack)
            .await
            .map_err(|_| reason::deadline(Phase::Connack, shown, PHASE.as_secs()))??;
        let connected = Connected {
            at,
            session_present: accepted.session_present,
            tcp_ns: nanos(tcp_done, started),
            tls_ns,
            connack_ns: nanos(at, asked),
        };
        Ok(Established {
            stream,
            connected,
            accepted,
            rest,
        })
    }

    async fn tcp(&self) -> Result<TcpStream, Disconnected> {
        let shown = self.target.address.shown.as_str();
        let addresses = self
            .target
            .addresses()
            .await
            .map_err(|error| reason::lookup(shown, &error))?;
        let stream = first_of(&addresses, PHASE)
            .await
            .map_err(|error| self.failed(Phase::Tcp, &error))?;
        stream
            .set_nodelay(true)
            .map_err(|error| self.failed(Phase::Tcp, &error))?;
        Ok(stream)
    }

    async fn connack(
        &self,
        stream: &mut Stream,
        clean: bool,
        session_expiry: Duration,
    ) -> Result<(Accepted, Vec<u8>, Monotonic), Disconnected> {
        let version = self.config.version;
        let address = &self.target.address;
        let connect = codec::connect(&codec::Connect {
            version,
            client_id: &self.config.client_id,
            username: self
                .config
                .username
                .as_ref()
                .or(address.username.as_ref())
                .map_or("", String::as_str),
            password: self
                .config
                .password
                .as_ref()
                .or(address.password.as_ref())
                .map_or("", String::as_str),
            keep_alive: self.config.keep_alive,
            clean,
            session_expiry,
            receive_maximum: self.config.receive_maximum,
        })
        .map_err(|error| reason::needs_setting("connect error", format!("CONNECT cannot be encoded: {error}")))?;
        let failed = |error: io::Error| self.failed(Phase::Connack, &error);
        stream.write_all(&connect).await.map_err(failed)?;
        stream.flush().await.map_err(failed)?;

        let mut bytes = Vec::with_capacity(512);
        let (bounds, at) = loop {
            if stream.read_buf(&mut bytes).await.map_err(failed)? == 0 {
                return Err(failed(io::ErrorKind::UnexpectedEof.into()));
            }
            let at = self.clock.monotonic();
            match wire::bounds(&bytes).map_err(reason::protocol)? {
                Some(bounds) if bounds.total <= bytes.len() => break (bounds, at),
                Some(bounds) if bounds.total > 64 * 1024 => return Err(reason::protocol("a CONNACK above 64 KiB")),
                _ => {}
            }
        };
        let rest = bytes.split_off(bounds.total);
        if bytes[0] >> 4 != packet::CONNACK {
            return Err(reason::protocol(
                "another packet before CONNACK: is this port an MQTT port?",
            ));
        }
        let Some(&code) = bytes.get(bounds.header + 1) else {
            return Err(reason::protocol("a CONNACK without code"));
        };
        if code != 0 {
            return Err(reason::connack(version, code));
        }
        let accepted = codec::connack(version, &bytes).map_err(reason::protocol)?;
        Ok((accepted, rest, at))
    }

    fn failed(&self, phase: Phase, error: &io::Error) -> Disconnected {
        let tls = &self.config.tls;
        let name = tls.server_name.as_deref().unwrap_or(&self.target.address.host);
        reason::connecting(phase, &self.target.address.shown, name, error)
    }
}

/// Connects to the first address that answers. Each has an equal share of what is left of the time: one that swallows
/// everything does not hide the others.
async fn first_of(addresses: &[SocketAddr], within: Duration) -> io::Result<TcpStream> {
    let until = Instant::now() + within;
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for (index, address) in addresses.iter().enumerate() {
        let left = until.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, format!("{address} does not answer")),
        }
    }
    Err(last)
}

/// Writes what is left, then waits until the broker has closed: only then is it sure to have read the DISCONNECT.
pub(super) async fn leave(mut stream: Stream, last: Vec<u8>) {
    let leaving = async {
        stream.write_all(&last).await?;
        stream.flush().await?;
        stream.shutdown().await?;
        let mut ignored = [0; 1024];
        while stream.read(&mut ignored).await? > 0 {}
        Ok::<_, io::Error>(())
    };
    // Whatever fails here, the connection is given up all the same.
    if let Ok(Err(error)) = timeout(LEAVE, leaving).await {
        tracing::debug!("leaving: {error}");
    }
}

fn nanos(later: Monotonic, earlier: Monotonic) -> u64 {
    later.since_ns(earlier).max(0) as u64
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpSocket;

    use super::*;

    /// An address whose queue is full swallows every attempt; the next one is reached all the same.
    #[tokio::test]
    async fn an_address_that_swallows_everything_hides_no_other() {
        let silent = TcpSocket::new_v4().unwrap();
        silent.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let silent = silent.listen(1).unwrap();
        let full = silent.local_addr().unwrap();
        let mut held = Vec::new();
        while let Ok(taken) = timeout(Duration::from_millis(200), TcpStream::connect(full)).await {
            held.push(taken.unwrap());
            assert!(held.len() < 100, "its queue never fills");
        }
        let answering = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let there = answering.local_addr().unwrap();
        let reached = first_of(&[full, there], Duration::from_secs(1)).await.unwrap();
        assert_eq!(reached.peer_addr().unwrap(), there);
        let none = first_of(&[full, full], Duration::from_millis(300)).await.unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::TimedOut);
        let none = first_of(&[], PHASE).await.unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::NotFound);
    }
}
