//! How a claim is listened for: which connection, under which identity.
//!
//! In claim unit `topic` with few claims each response topic has a session of its own; its client id follows from run
//! and topic alone, so that a successor resumes it and throws a zombie out. In claim unit `partition` the session is the
//! partition's, for the same reason. A consumer of many single topics (the all-in-one) shares one session a partition
//! among them; it is the daemon's own, because another consumer may hold other topics of that partition: it is removed
//! when the topics are given back, and a successor starts without it. Where the identity names the device (user name, password,
//! certificate, server name), a session cannot be shared: what one device may hear is not for another's ears.

use std::path::PathBuf;

use isochrone_daemon::settings::{Ack, ClaimUnit, ConsumerSettings};
use isochrone_model::{
    id::{DaemonId, Partition, RunName},
    payload::StampPlace,
    random::fnv,
    row::Device,
    template::Template,
};
use isochrone_transport::{ConnectionConfig, MqttVersion, SubscriberConfig, TlsConfig};

/// Up to so many claims each has a session of its own.
const OWN_SESSIONS: usize = 64;

/// Deliveries a broker may have under way to us (MQTT 5): all it wants, the tool never throttles its target.
const RECEIVE_MAXIMUM: u16 = u16::MAX;

/// The names in an identity that differ from topic to topic.
const OF_A_DEVICE: [&str; 4] = ["device", "topic", "producer", "n"];

/// Which topics share a connection: those whose keys are equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LinkKey {
    /// Where to.
    pub url: String,
    /// The client id.
    pub client_id: String,
    qos: u8,
    version: String,
}

/// What a connection is opened with.
#[derive(Clone, Debug)]
pub struct LinkPlan {
    /// Tells connections apart.
    pub key: LinkKey,
    /// For the transport.
    pub config: SubscriberConfig,
    /// The broker keeps the session, and whoever takes the topics next finds it.
    pub resumable: bool,
}

/// How sessions are shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// One a response topic.
    Topic,
    /// One a partition, found by whoever holds the partition.
    Partition,
    /// One a partition, of this daemon alone.
    Daemon(DaemonId),
}

impl Sharing {
    /// How a consumer shares sessions in a run.
    pub fn new(unit: ClaimUnit, claims: Option<usize>, daemon: DaemonId) -> Sharing {
        match unit {
            ClaimUnit::Partition => Sharing::Partition,
            ClaimUnit::Topic if claims.is_some_and(|claims| claims <= OWN_SESSIONS) => Sharing::Topic,
            ClaimUnit::Topic => Sharing::Daemon(daemon),
        }
    }
}

/// The client id of a consuming session: `isc-<run>-` and a hash of the response topic, or the partition, before it the
/// daemon whose own it is, and what else keeps topics of one partition apart. `isochrone purge` finds the sessions of a
/// crashed run by it.
pub fn client_id(run: &RunName, sharing: Sharing, partition: Partition, device: &Device) -> String {
    let Device { qos, mqtt_version, .. } = device;
    let version = if mqtt_version == "5" { 5 } else { 3 };
    match sharing {
        Sharing::Topic => format!("isc-{run}-{:016x}", fnv(device.response_topic.as_str().as_bytes())),
        Sharing::Partition => format!("isc-{run}-p{partition}-v{version}q{qos}"),
        Sharing::Daemon(daemon) => format!("isc-{run}-{daemon}-p{partition}-v{version}q{qos}"),
    }
}

/// Every way in which a topic of this device may have been listened for, however the consumers shared their sessions.
pub fn plans(
    settings: &ConsumerSettings,
    run: &RunName,
    partitions: u16,
    consumers: &[DaemonId],
    device: &Device,
) -> Vec<LinkPlan> {
    let partition = device.response_topic.partition(partitions);
    let own = consumers.iter().map(|daemon| Sharing::Daemon(*daemon));
    let sharings = [Sharing::Topic, Sharing::Partition].into_iter().chain(own);
    sharings
        .map(|sharing| plan(settings, run, sharing, partition, device))
        .collect()
}

/// How to listen for a response topic that `device` is the first to share.
pub fn plan(
    settings: &ConsumerSettings,
    run: &RunName,
    sharing: Sharing,
    partition: Partition,
    device: &Device,
) -> LinkPlan {
    let names = Names::new(run, device);
    let url = settings.consumer_broker.clone().unwrap_or_else(|| device.url.clone());
    let username = settings.consumer_username.as_ref().or(settings.username.as_ref());
    let password = settings.consumer_password.as_ref().or(settings.password.as_ref());
    let password = password.map(|secret| secret.reveal());
    let secret = password.and_then(|text| names.parse(text));
    let tls = [&settings.tls_cert, &settings.tls_key, &settings.tls_server_name];
    let mut identity = tls.into_iter().flatten().chain(username).chain(&secret);
    let sharing = if identity.any(|template| OF_A_DEVICE.iter().any(|name| template.uses(name))) {
        Sharing::Topic
    } else {
        sharing
    };
    let (sharing, client_id) = match &settings.consumer_client_id {
        // An id of the user's own making may name the topic: then each topic needs a connection.
        Some(template) => (Sharing::Topic, names.render(template)),
        None => (sharing, client_id(run, sharing, partition, device)),
    };
    let persistent = device.qos > 0 && !settings.session_expiry.is_zero();
    let connection = ConnectionConfig {
        client_id: client_id.clone(),
        username: username.map(|template| names.render(template)),
        password: password.map(|text| secret.as_ref().map_or(text.to_owned(), |secret| names.render(secret))),
        tls: TlsConfig {
            ca: settings.tls_ca.clone(),
            cert: settings
                .tls_cert
                .as_ref()
                .map(|template| PathBuf::from(names.render(template))),
            key: settings
                .tls_key
                .as_ref()
                .map(|template| PathBuf::from(names.render(template))),
            server_name: settings.tls_server_name.as_ref().map(|template| names.render(template)),
            alpn: settings.tls_alpn.clone(),
            insecure: settings.tls_insecure,
        },
        version: MqttVersion::named(&device.mqtt_version),
        keep_alive: settings.keep_alive,
        session_expiry: if persistent {
            settings.session_expiry
        } else {
            std::time::Duration::ZERO
        },
        clear_session: false,
        reconnect: settings.reconnect,
        receive_maximum: RECEIVE_MAXIMUM,
        stamp: if device.mqtt_version == "5" {
            StampPlace::Property
        } else {
            StampPlace::Text
        },
    };
    LinkPlan {
        key: LinkKey {
            url,
            client_id,
            qos: device.qos,
            version: device.mqtt_version.clone(),
        },
        config: SubscriberConfig {
            connection,
            qos: device.qos,
            acknowledge_at_once: settings.ack == Ack::Received,
        },
        resumable: persistent && !matches!(sharing, Sharing::Daemon(_)),
    }
}

/// What identity templates may name.
struct Names<'a> {
    run: &'a RunName,
    device: &'a Device,
    ordinal: String,
    number: String,
}

impl<'a> Names<'a> {
    fn new(run: &'a RunName, device: &'a Device) -> Names<'a> {
        Names {
            run,
            device,
            ordinal: device.ordinal.to_string(),
            number: device.number.to_string(),
        }
    }

    fn values(&self) -> [(&str, &str); 5] {
        [
            ("run", self.run.as_str()),
            ("device", &self.device.device),
            ("topic", self.device.response_topic.as_str()),
            ("producer", &self.ordinal),
            ("n", &self.number),
        ]
    }

    fn render(&self, template: &Template) -> String {
        template.render(&self.values())
    }

    /// The template of a secret, which is kept as text; it was checked when the settings were read.
    fn parse(&self, text: &str) -> Option<Template> {
        let allowed: Vec<&str> = self.values().iter().map(|(name, _)| *name).collect();
        Template::parse(text, &allowed).ok()
    }
}

#[cfg(test)]
mod tests {
    use isochrone_daemon::settings::{Source, load};
    use isochrone_model::id::{Domain, Epoch};

    use super::*;

    fn device(name: &str) -> Device {
        Device {
            epoch: Epoch(1),
            device: name.to_owned(),
            topic: "up".into(),
            response_topic: format!("down/{name}").as_str().into(),
            url: "memory:names".to_owned(),
            qos: 1,
            mqtt_version: "5".to_owned(),
            rate: None,
            domain: Domain(1),
            producer: DaemonId(1),
            ordinal: 3,
            number: 12,
            client_id: String::new(),
        }
    }

    /// Templates of a device mean the same here as at its producer, whatever the device is called.
    #[test]
    fn names_are_the_registrations() {
        let (device, run) = (device("berlin-7-a"), "r".parse().unwrap());
        let names = Names::new(&run, &device);
        let template = names.parse("{{run}} {{device}} {{topic}} {{producer}} {{n}}").unwrap();
        assert_eq!(names.render(&template), "r berlin-7-a down/berlin-7-a 3 12");
    }

    /// Topics of a partition share a session unless what they are listened for with names the device: each then has its own.
    #[test]
    fn identities_are_not_shared() {
        let shares = |variables: &[(&str, &str)]| {
            let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
            let settings = load::<ConsumerSettings>(&Source::from_variables(variables))
                .unwrap()
                .settings;
            let run: RunName = "r".parse().unwrap();
            let plan = |name| {
                plan(
                    &settings,
                    &run,
                    Sharing::Daemon(DaemonId(7)),
                    Partition(0),
                    &device(name),
                )
            };
            let (one, other) = (plan("a"), plan("b"));
            assert_eq!(
                one.key == other.key,
                one.config.connection.client_id == other.config.connection.client_id
            );
            one.key == other.key
        };
        assert!(shares(&[]));
        assert!(shares(&[
            ("ISOCHRONE_USERNAME", "of-{{run}}"),
            ("ISOCHRONE_PASSWORD", "secret")
        ]));
        for (name, value) in [
            ("ISOCHRONE_USERNAME", "{{device}}"),
            ("ISOCHRONE_PASSWORD", "secret-{{n}}"),
            ("ISOCHRONE_CONSUMER_PASSWORD", "secret of {{topic}}"),
            ("ISOCHRONE_TLS_SERVER_NAME", "{{device}}.example.com"),
            ("ISOCHRONE_CONSUMER_CLIENT_ID", "c-{{device}}"),
        ] {
            assert!(!shares(&[("ISOCHRONE_USERNAME", "user"), (name, value)]), "{name}");
        }
        assert!(!shares(&[
            ("ISOCHRONE_TLS_CERT", "{{device}}.pem"),
            ("ISOCHRONE_TLS_KEY", "key.pem")
        ]));
    }
}
