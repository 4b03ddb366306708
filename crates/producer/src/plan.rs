//! From settings to the list of devices: names, topics, identities, partitions, schedules.

#[cfg(test)]
mod tests;

use std::{fs, sync::Arc, time::Duration};

use isochrone_daemon::{
    Context,
    settings::{ProducerSettings, Secret},
};
use isochrone_model::{
    id::{Epoch, Partition, RunName, Topic},
    payload::{DeviceSeed, Payload},
    random::seed_for,
    row::Device,
    schedule::ScheduleSpec,
    template::Template,
    time::nanos,
};
use isochrone_store::types::RunRecord;
use isochrone_transport::{ConnectionConfig, MqttVersion, PublisherConfig, TlsConfig, Transport};
use rand::Rng;

use crate::{Error, device::Limits};

/// What identity templates may name.
const VARIABLES: &[&str] = &["run", "producer", "n", "device", "topic"];
/// What one worker thread carries without becoming late, in messages a second (measured order of magnitude).
const RATE_OF_A_WORKER: f64 = 150_000.0;
/// Connections one worker thread carries.
const DEVICES_OF_A_WORKER: u32 = 25_000;

/// One device before it lives.
#[derive(Debug)]
pub struct Planned {
    /// What the registry is told.
    pub registration: Device,
    /// Where its response topic belongs.
    pub partition: Partition,
    /// Its connection; taken when it connects.
    pub publisher: Option<PublisherConfig>,
    /// Its number among this producer's devices.
    pub index: u32,
    /// Of its schedule: its own, whatever devices of its number other producers have.
    pub seed: u64,
}

/// What all devices of a producer share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// When messages are due.
    pub schedule: ScheduleSpec,
    /// How many devices this producer has.
    pub devices: u32,
    /// Bounds of a device.
    pub limits: Limits,
    /// Shortest time between two wake-ups.
    pub precision: Duration,
    /// First connects a second, of one worker.
    pub connect_rate: f64,
    /// Lateness that counts, in nanoseconds.
    pub valid_late_ns: i64,
    /// How often workers report.
    pub flush_interval: Duration,
}

/// The devices of one life of a producer, in partition order.
pub struct Plan {
    /// All of them; `index` is not the position.
    pub devices: Vec<Planned>,
    /// See there.
    pub shared: Shared,
    /// How many worker threads they are spread over.
    pub workers: usize,
}

impl Plan {
    /// Makes the devices of a producer with this ordinal.
    ///
    /// Errors: a template, the payload or its file cannot be used.
    pub fn new(
        context: &Context,
        settings: &ProducerSettings,
        transport: &dyn Transport,
        run: &RunRecord,
        ordinal: u32,
    ) -> Result<Plan, Error> {
        let common = &context.common;
        let seed = settings.seed.unwrap_or_else(rand::random);
        let maker = Maker {
            context,
            settings,
            url: transport.url(),
            run,
            ordinal,
            payload: Arc::new(payload(settings)?),
            seed,
        };
        let mut devices = (0..settings.devices)
            .map(|n| maker.device(n))
            .collect::<Result<Vec<_>, _>>()?;
        devices.sort_by_key(|device| (device.partition, device.index));

        let workers = workers(settings);
        let shared = Shared {
            schedule: settings.schedule_spec(),
            devices: settings.devices,
            limits: Limits {
                queue: settings.queue.max(1),
                drain: common.drain,
            },
            precision: settings.precision,
            connect_rate: (settings.connect_rate / workers as f64).max(0.001),
            valid_late_ns: nanos(common.valid_late),
            flush_interval: settings.flush_interval,
        };
        Ok(Plan {
            devices,
            shared,
            workers,
        })
    }
}

/// What every device is made from.
struct Maker<'a> {
    context: &'a Context,
    settings: &'a ProducerSettings,
    url: &'a str,
    run: &'a RunRecord,
    ordinal: u32,
    payload: Arc<Payload>,
    seed: u64,
}

impl Maker<'_> {
    fn device(&self, n: u32) -> Result<Planned, Error> {
        let Maker { settings, run, .. } = self;
        let (ordinal, number) = (self.ordinal.to_string(), n.to_string());
        let base = [("run", run.run.as_str()), ("producer", &ordinal), ("n", &number)];
        let name = settings.device_name.render(&base);
        let with_device = [base[0], base[1], base[2], ("device", &name)];
        let topic = settings.topic.render(&with_device);
        let all = [base[0], base[1], base[2], ("device", &name), ("topic", &topic)];
        let response = settings
            .response_topic
            .as_ref()
            .map_or_else(|| topic.clone(), |template| template.render(&all));
        let response_topic = Topic::from(response.as_str());
        let partition = response_topic.partition(run.pins.partitions);

        let epoch = Epoch(rand::rng().random());
        let connection = connection(settings, &all)?;
        let registration = Device {
            epoch,
            device: name.clone(),
            client_id: connection.client_id.clone(),
            topic: Topic::from(topic.as_str()),
            response_topic,
            url: self.url.to_owned(),
            qos: settings.qos,
            mqtt_version: settings.mqtt_version.clone(),
            rate: settings.schedule_spec().per_second(),
            domain: self.context.domain,
            producer: self.context.daemon,
            ordinal: self.ordinal,
            number: n,
        };
        let seed = DeviceSeed {
            device: name.as_str().into(),
            run: run.run.as_str().into(),
            seed: self.seed,
        };
        self.payload.check(&seed).map_err(|cause| Error::Setting {
            setting: "ISOCHRONE_PAYLOAD_SIZE",
            cause: format!("device {name} of run {}: {cause}", run.run),
        })?;
        let publisher = PublisherConfig {
            connection,
            topic: topic.as_str().into(),
            qos: settings.qos,
            epoch,
            payload: self.payload.clone(),
            device: seed,
            in_flight: settings.in_flight(),
        };
        Ok(Planned {
            registration,
            partition,
            publisher: Some(publisher),
            index: n,
            seed: seed_for(self.seed, &name),
        })
    }
}

/// How a device connects that these values name: `run`, `device`, `producer`, `n`, `topic`.
///
/// Errors: the password cannot be used as a template.
pub fn connection(settings: &ProducerSettings, values: &[(&str, &str)]) -> Result<ConnectionConfig, Error> {
    // A session keeps nothing for who publishes with QoS 0.
    let session_expiry = if settings.qos > 0 {
        settings.session_expiry
    } else {
        Duration::ZERO
    };
    let render = |template: &Option<Template>| template.as_ref().map(|template| template.render(values));
    let password = settings.password.as_ref().map(secret_template).transpose()?;
    Ok(ConnectionConfig {
        client_id: settings.client_id.render(values),
        username: render(&settings.username),
        password: render(&password),
        tls: TlsConfig {
            ca: settings.tls_ca.clone(),
            cert: render(&settings.tls_cert).map(Into::into),
            key: render(&settings.tls_key).map(Into::into),
            server_name: render(&settings.tls_server_name),
            alpn: settings.tls_alpn.clone(),
            insecure: settings.tls_insecure,
        },
        version: MqttVersion::named(&settings.mqtt_version),
        keep_alive: settings.keep_alive,
        session_expiry,
        // Without sessions there is nothing to clear, and a connect to save.
        clear_session: !session_expiry.is_zero(),
        reconnect: settings.reconnect,
        receive_maximum: u16::MAX,
        stamp: settings.stamp,
    })
}

fn secret_template(secret: &Secret) -> Result<Template, Error> {
    // The error's text could hold the secret.
    Template::parse(secret.reveal(), VARIABLES).map_err(|_| Error::Setting {
        setting: "ISOCHRONE_PASSWORD",
        cause: "it is no valid template".to_owned(),
    })
}

fn payload(settings: &ProducerSettings) -> Result<Payload, Error> {
    let (setting, template) = match (&settings.payload, &settings.payload_file) {
        (Some(text), _) => ("ISOCHRONE_PAYLOAD", text.clone().into_bytes()),
        (None, Some(path)) => {
            let bytes = fs::read(path).map_err(|cause| Error::Setting {
                setting: "ISOCHRONE_PAYLOAD_FILE",
                cause: format!("{}: {cause}", path.display()),
            })?;
            ("ISOCHRONE_PAYLOAD_FILE", bytes)
        }
        (None, None) => (
            "ISOCHRONE_PAYLOAD_SIZE",
            Payload::default_template(settings.stamp).to_vec(),
        ),
    };
    Payload::compile(&template, settings.stamp, settings.payload_size).map_err(|cause| Error::Setting {
        setting,
        cause: cause.to_string(),
    })
}

/// One, unless a thread could not keep up; never more than half the cores, which the consumers need as well.
fn workers(settings: &ProducerSettings) -> usize {
    let rate = settings.schedule_spec().per_second().unwrap_or(0.0) * f64::from(settings.devices);
    let by_rate = (rate / RATE_OF_A_WORKER).ceil() as usize;
    let by_devices = settings.devices.div_ceil(DEVICES_OF_A_WORKER) as usize;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    by_rate.max(by_devices).clamp(1, (cores / 2).max(1))
}

/// What the log says of a producer that joined.
pub fn banner(run: &RunName, settings: &ProducerSettings) -> String {
    let total = match settings.schedule_spec().per_second() {
        None => "as fast as each can".to_owned(),
        Some(rate) => format!(
            "{rate} messages a second each, {} in all",
            rate * f64::from(settings.devices)
        ),
    };
    format!("run {run}: {} devices, {total}", settings.devices)
}
