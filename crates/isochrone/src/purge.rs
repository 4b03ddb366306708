//! Deletes a run from the store, and the sessions a crash left at the broker.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    future::poll_fn,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use isochrone_consumer::plans;
use isochrone_daemon::{clock::SystemClock, settings::All};
use isochrone_model::{
    id::{DaemonId, Partition},
    row::Device,
};
use isochrone_producer::connection;
use isochrone_store::{
    Error, Store,
    types::{Role, RunRecord, RunState},
};
use isochrone_transport::{
    Clean, ConnectionConfig, Deliveries, Delivery, Disconnected, MqttVersion, SubscribeEvent, Subscriber,
    SubscriberConfig, Transport, Worker,
};
use tokio::time::{Instant, timeout};

use crate::apart::apart;

/// How long one step of a session's removal may take.
const STEP: Duration = Duration::from_secs(5);

/// So many connections in a row that fail are enough to leave a broker alone. Ones that it refuses are not meant: they take
/// no time, and the next may have another identity.
const FAILURES: u32 = 3;

/// How long all removals together may take; a large fleet's take a few minutes.
const ALL: Duration = Duration::from_secs(600);

/// Long enough to find a session, and to be gone by itself where its removal breaks off (MQTT 5).
const EXPIRY: Duration = Duration::from_secs(60);

/// A session that may be at a broker.
struct Session {
    url: String,
    config: ConnectionConfig,
}

/// What became of the sessions.
#[derive(Default)]
struct Outcome {
    /// Were there, and were removed.
    removed: usize,
    /// Were not looked for, or could not be removed.
    left: usize,
    /// Why, by broker.
    why: BTreeMap<String, String>,
}

/// What became of the run.
pub struct Purged {
    /// In one line.
    pub said: String,
    /// Its keys are gone.
    pub whole: bool,
}

/// Removes the run's sessions from its brokers, then its keys from the store. Who was at a broker is known from those keys: as
/// long as a session may be left they stay, unless `force` says otherwise.
///
/// # Errors
/// The store's. Sessions that cannot be reached are told, not an error.
pub async fn purge(store: &dyn Store, run: &RunRecord, all: &All, force: bool) -> Result<Purged, Error> {
    if run.state != RunState::Closed {
        tracing::warn!(run = %run.run, "the run is not closed: stop its producers first, or they open it anew");
    }
    let consumers: Vec<_> = store
        .roster(&run.run)
        .await?
        .into_iter()
        .filter(|member| member.role == Role::Consumer)
        .map(|member| member.daemon)
        .collect();
    let mut devices = Vec::new();
    for partition in 0..run.pins.partitions {
        let states = store.devices(&run.run, Partition(partition)).await?;
        devices.extend(states.into_iter().map(|state| state.device));
    }
    let (sessions, nameless) = sessions(run, all, &consumers, &devices);
    let mut outcome = remove_all(sessions).await;
    outcome.left += nameless.len();
    outcome.why.extend(nameless);
    let whole = outcome.left == 0 || force;
    if whole {
        store.purge(&run.run).await?;
    }
    let said = told(run, devices.len(), &outcome, whole);
    Ok(Purged { said, whole })
}

fn told(run: &RunRecord, devices: usize, outcome: &Outcome, whole: bool) -> String {
    let done = if whole { "purged" } else { "kept" };
    let mut text = format!(
        "{done} run {}: {devices} devices, {} broker sessions removed",
        run.run, outcome.removed
    );
    if outcome.left > 0 {
        let why: Vec<_> = outcome.why.iter().map(|(url, why)| format!("{url}: {why}")).collect();
        text += &format!(", {} may be left ({})", outcome.left, why.join("; "));
    }
    if !whole {
        text += "; purge it again when they can be removed, or with --force";
    }
    text
}

/// Everything under which the run's devices and consumers may have had a session; and for each device whose own cannot be told
/// its broker and why.
fn sessions(
    run: &RunRecord,
    all: &All,
    consumers: &[DaemonId],
    devices: &[Device],
) -> (Vec<Session>, Vec<(String, String)>) {
    let mut known = BTreeSet::new();
    let (mut sessions, mut nameless) = (Vec::new(), Vec::new());
    // Brokers keep nothing for who sends and receives with QoS 0.
    for device in devices.iter().filter(|device| device.qos > 0) {
        let consuming = plans(&all.consumer, &run.run, run.pins.partitions, consumers, device);
        let consuming = consuming.into_iter().map(|plan| (plan.key.url, plan.config.connection));
        let publishing = match publishing(run, all, device) {
            Ok(config) => Some((device.url.clone(), config)),
            Err(why) => {
                nameless.push((device.url.clone(), why));
                None
            }
        };
        for (url, config) in consuming.chain(publishing) {
            if known.insert((url.clone(), config.client_id.clone())) {
                let config = ConnectionConfig {
                    session_expiry: EXPIRY,
                    clear_session: false,
                    ..config
                };
                sessions.push(Session { url, config });
            }
        }
    }
    (sessions, nameless)
}

/// As its producer connected the device.
fn publishing(run: &RunRecord, all: &All, device: &Device) -> Result<ConnectionConfig, String> {
    let (producer, n) = (device.ordinal.to_string(), device.number.to_string());
    let values = [
        ("run", run.run.as_str()),
        ("device", device.device.as_str()),
        ("producer", &producer),
        ("n", &n),
        ("topic", device.topic.as_str()),
    ];
    let config = connection(&all.producer, &values).map_err(|error| format!("failed to {error}"))?;
    Ok(ConnectionConfig {
        client_id: if device.client_id.is_empty() {
            config.client_id
        } else {
            device.client_id.clone()
        },
        version: MqttVersion::named(&device.mqtt_version),
        ..config
    })
}

async fn remove_all(sessions: Vec<Session>) -> Outcome {
    let left = sessions.len();
    let urls: Vec<_> = sessions.iter().map(|session| session.url.clone()).collect();
    let removed = apart("purge", move || one_by_one(sessions)).await;
    removed.unwrap_or_else(|why| Outcome {
        removed: 0,
        left,
        why: urls.into_iter().map(|url| (url, why.clone())).collect(),
    })
}

async fn one_by_one(sessions: Vec<Session>) -> Outcome {
    let clock = SystemClock::new(None);
    let domain = clock.domain();
    let worker = Worker {
        clock,
        domain,
        read_buffer: Rc::new(RefCell::new(vec![0; 4096])),
    };
    let deadline = Instant::now() + ALL;
    let mut brokers: BTreeMap<String, Broker> = BTreeMap::new();
    let mut outcome = Outcome::default();
    for Session { url, config } in sessions {
        let broker = brokers.entry(url.clone()).or_insert_with(|| Broker::open(&url));
        let removed = if Instant::now() < deadline {
            broker.remove(config, &worker).await
        } else {
            Err(format!("more than {} minutes for all", ALL.as_secs() / 60))
        };
        match removed {
            Ok(was_there) => outcome.removed += usize::from(was_there),
            Err(why) => {
                outcome.left += 1;
                outcome.why.insert(url, why);
            }
        }
    }
    outcome
}

/// One broker, and how well it does.
struct Broker {
    transport: Result<Arc<dyn Transport>, String>,
    /// Failed connections in a row.
    failures: u32,
    /// What the last one said.
    why: String,
}

/// Why a session could not be removed.
struct Failure {
    /// The broker answered, and refuses this identity.
    refused: bool,
    why: String,
}

impl Broker {
    fn open(url: &str) -> Broker {
        Broker {
            transport: isochrone_transport::open(url).map_err(|error| format!("failed to {error}")),
            failures: 0,
            why: String::new(),
        }
    }

    /// Removes one session; whether there was one.
    async fn remove(&mut self, connection: ConnectionConfig, worker: &Worker) -> Result<bool, String> {
        let transport = self.transport.as_ref().map_err(Clone::clone)?;
        if self.failures >= FAILURES {
            return Err(self.why.clone());
        }
        let config = SubscriberConfig {
            connection,
            qos: 0,
            acknowledge_at_once: true,
        };
        let mut subscriber = transport
            .subscriber(config, worker)
            .map_err(|error| format!("failed to {error}"))?;
        let removed = remove(&mut *subscriber).await;
        if removed.is_ok() {
            self.failures = 0;
        }
        removed.map_err(|failure| {
            self.failures = if failure.refused { 0 } else { self.failures + 1 };
            if self.why != failure.why {
                tracing::warn!("{}", failure.why);
                self.why.clone_from(&failure.why);
            }
            failure.why
        })
    }
}

/// Resumes the session, which tells whether there is one, and leaves for good.
async fn remove(subscriber: &mut dyn Subscriber) -> Result<bool, Failure> {
    let mut seen = Seen::default();
    let answered = poll_fn(|context| {
        let _ = subscriber.poll(context, &mut seen);
        if seen.present.is_some() || seen.failed.is_some() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    });
    let silent = || Failure {
        refused: false,
        why: format!("no answer within {} s", STEP.as_secs()),
    };
    if timeout(STEP, answered).await.is_err() {
        return Err(silent());
    }
    let Some(present) = seen.present else {
        let refusal = |failed: Disconnected| Failure {
            refused: failed.needs_setting,
            why: failed.detail,
        };
        return Err(seen.failed.take().map_or_else(silent, refusal));
    };
    subscriber.close(Clean::RemoveSession);
    match timeout(STEP, poll_fn(|context| subscriber.poll(context, &mut seen))).await {
        Ok(()) => Ok(present),
        Err(_) => Err(silent()),
    }
}

#[derive(Default)]
struct Seen {
    /// Connected, and whether to a session.
    present: Option<bool>,
    failed: Option<Disconnected>,
}

impl Deliveries for Seen {
    fn message(&mut self, _: Delivery<'_>) {}

    fn event(&mut self, event: SubscribeEvent) {
        match event {
            SubscribeEvent::Connected(connected) => self.present = Some(connected.session_present),
            SubscribeEvent::Disconnected(trouble) => self.failed = Some(trouble),
            _ => {}
        }
    }
}
