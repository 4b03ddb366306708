//! MQTT 3.1.1 and 5 on an engine of our own, over tokio, tokio-rustls and rumqttc's codec.
//!
//! Walk: `publisher` (with its `sender`) and `subscriber` hold a `session` (dialling, up, backing off, leaving, closed); a session that is
//! up holds a `link` (bytes out, frames in, keep alive). `frame` and `window` are the outgoing fast path, `wire` is the
//! incoming one, `codec` is for everything that comes a few times a connection, `reason` turns failures into words.

mod codec;
mod dial;
mod frame;
mod link;
mod publisher;
mod reason;
mod sender;
mod session;
mod stream;
mod subscriber;
mod tls;
mod url;
mod window;
mod wire;

#[cfg(test)]
mod tests;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use isochrone_model::payload::StampPlace;

use crate::{
    ConnectionConfig, Error, MqttVersion, Publisher, PublisherConfig, Subscriber, SubscriberConfig, TlsConfig,
    Transport, Worker,
    mqtt::{
        dial::{Dialer, Target},
        frame::FrameTemplate,
        publisher::MqttPublisher,
        session::Session,
        subscriber::MqttSubscriber,
        tls::TlsCache,
        url::Address,
    },
};

/// A broker reached by `mqtt:` or `mqtts:`.
pub(crate) struct Mqtt {
    target: Arc<Target>,
    tls: TlsCache,
    said_plain: AtomicBool,
}

impl Mqtt {
    /// Parses the URL; connects to nothing.
    pub fn open(url: &str) -> Result<Mqtt, Error> {
        Ok(Mqtt {
            target: Arc::new(Target::new(Address::parse(url)?)),
            tls: TlsCache::new(),
            said_plain: AtomicBool::new(false),
        })
    }

    fn dialer(&self, config: ConnectionConfig, worker: &Worker) -> Result<Dialer, Error> {
        let address = &self.target.address;
        let tls = if address.tls {
            Some((
                self.tls.config(&config.tls)?,
                tls::server_name(&config.tls, &address.host)?,
            ))
        } else {
            self.say_plain(&config.tls);
            None
        };
        Ok(Dialer {
            target: self.target.clone(),
            tls,
            config,
            clock: worker.clock.clone(),
        })
    }

    /// Once: who sets up TLS does not expect a password to travel in the clear.
    fn say_plain(&self, tls: &TlsConfig) {
        let set = tls.set();
        if !set.is_empty() && !self.said_plain.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                broker = self.url(),
                "{} without effect: this broker is reached without TLS, by mqtt: and not mqtts:",
                set.join(", ")
            );
        }
    }
}

impl Transport for Mqtt {
    fn url(&self) -> &str {
        &self.target.address.shown
    }

    fn publisher(&self, config: PublisherConfig, worker: &Worker) -> Result<Box<dyn Publisher>, Error> {
        let version = config.connection.version;
        let place = config.connection.stamp;
        if place == StampPlace::Property && version == MqttVersion::V311 {
            return Err(Error::Setting {
                setting: "ISOCHRONE_STAMP",
                value: "property".to_owned(),
                cause: "MQTT 3.1.1 has no properties: use text or bytes, or set ISOCHRONE_MQTT_VERSION=5".to_owned(),
            });
        }
        let frame = FrameTemplate::new(version, &config.topic, config.qos, place).map_err(|cause| Error::Setting {
            setting: "ISOCHRONE_TOPIC",
            value: config.topic.to_string(),
            cause,
        })?;
        let dialer = self.dialer(config.connection.clone(), worker)?;
        let session = Session::new(dialer, worker, false);
        Ok(Box::new(MqttPublisher::new(session, frame, config, worker)))
    }

    fn subscriber(&self, config: SubscriberConfig, worker: &Worker) -> Result<Box<dyn Subscriber>, Error> {
        let dialer = self.dialer(config.connection.clone(), worker)?;
        Ok(Box::new(MqttSubscriber::new(
            Session::new(dialer, worker, true),
            &config,
        )))
    }
}
