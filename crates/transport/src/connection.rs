//! What all connections of a transport share: identity, session, limits, and the worker they belong to.

use std::{cell::RefCell, fmt, path::PathBuf, rc::Rc, sync::Arc, time::Duration};

use isochrone_model::{id::Domain, payload::StampPlace, time::Clock};

/// Identity and behaviour of one connection. `Debug` shows no secret.
#[derive(Clone)]
pub struct ConnectionConfig {
    /// Client id.
    pub client_id: String,
    /// User name.
    pub username: Option<String>,
    /// Password.
    pub password: Option<String>,
    /// TLS settings; used by TLS schemes only.
    pub tls: TlsConfig,
    /// Protocol version.
    pub version: MqttVersion,
    /// Keep alive; zero for none.
    pub keep_alive: Duration,
    /// How long the broker keeps the session after a disconnect (MQTT 5); zero: a clean session (3.1.1 likewise).
    pub session_expiry: Duration,
    /// First clear any session the broker has for this client id.
    pub clear_session: bool,
    /// Backoff between attempts: first and longest.
    pub reconnect: (Duration, Duration),
    /// Messages the peer may send us before we acknowledge (MQTT 5).
    pub receive_maximum: u16,
    /// Where the stamp travels.
    pub stamp: StampPlace,
}

/// TLS as a user sets it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TlsConfig {
    /// PEM file of trusted roots; the system's when unset.
    pub ca: Option<PathBuf>,
    /// PEM file of the client certificate chain.
    pub cert: Option<PathBuf>,
    /// PEM file of its key.
    pub key: Option<PathBuf>,
    /// Name to verify instead of the URL's host.
    pub server_name: Option<String>,
    /// Protocols to offer.
    pub alpn: Vec<String>,
    /// Verify nothing.
    pub insecure: bool,
}

impl TlsConfig {
    /// The settings of it that are set, by their variables.
    pub fn set(&self) -> Vec<&'static str> {
        let all = [
            ("ISOCHRONE_TLS_CA", self.ca.is_some()),
            ("ISOCHRONE_TLS_CERT", self.cert.is_some()),
            ("ISOCHRONE_TLS_KEY", self.key.is_some()),
            ("ISOCHRONE_TLS_SERVER_NAME", self.server_name.is_some()),
            ("ISOCHRONE_TLS_ALPN", !self.alpn.is_empty()),
            ("ISOCHRONE_TLS_INSECURE", self.insecure),
        ];
        all.into_iter()
            .filter(|(_, is_set)| *is_set)
            .map(|(name, _)| name)
            .collect()
    }
}

/// MQTT protocol version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MqttVersion {
    /// 3.1.1
    V311,
    /// 5
    V5,
}

impl MqttVersion {
    /// By the value of ISOCHRONE_MQTT_VERSION, which was checked where it came from.
    pub fn named(text: &str) -> MqttVersion {
        match text {
            "5" => MqttVersion::V5,
            _ => MqttVersion::V311,
        }
    }
}

/// How to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clean {
    /// The session stays at the broker for a successor.
    KeepSession,
    /// The session is deleted.
    RemoveSession,
}

/// What a worker thread lends to its connections.
#[derive(Clone)]
pub struct Worker {
    /// The host's clock.
    pub clock: Arc<dyn Clock>,
    /// Stamped into every message.
    pub domain: Domain,
    /// One read buffer for all connections of the thread.
    pub read_buffer: Rc<RefCell<Vec<u8>>>,
}

impl fmt::Debug for ConnectionConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionConfig")
            .field("client_id", &self.client_id)
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| "***"))
            .field("tls", &self.tls)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}
